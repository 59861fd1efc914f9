// SPDX-License-Identifier: GPL-2.0

//! The three headers.
//!
//! Version 100 and above use 16 bytes for every packet; below, 8 bytes in one of two forms that
//! the receiver tells apart by their magic number. Before the features packets the version counts
//! as 80.

use super::bytes::Writer;
use super::layout::packet;
use super::{Command, Malformed};
use crate::units::Vnr;
use zerocopy::byteorder::big_endian::{U16, U32};

const MAGIC_80: u32 = 0x8374_0267;
const MAGIC_95: u16 = 0x835a;
const MAGIC_100: u32 = 0x8620_ec20;

/// Longest payload announced in the oldest header from version 95 on, in bytes.
const MAX_SIZE_H80: u32 = 32768;

packet! {
    /// Up to version 99.
    H80, H80Layout, 8 {
        /// MAGIC_80.
        magic: u32 => U32,
        /// Number of the command.
        command: u16 => U16,
        /// Bytes that follow.
        length: u16 => U16,
    }
}

packet! {
    /// From version 95 to 99, where the length needs it.
    H95, H95Layout, 8 {
        /// MAGIC_95.
        magic: u16 => U16,
        /// Number of the command.
        command: u16 => U16,
        /// Bytes that follow.
        length: u32 => U32,
    }
}

packet! {
    /// From version 100.
    H100, H100Layout, 16 {
        /// MAGIC_100.
        magic: u32 => U32,
        /// Number of the volume.
        volume: u16 => U16,
        /// Number of the command.
        command: u16 => U16,
        /// Bytes that follow.
        length: u32 => U32,
        /// Zero.
        padding: u32 => U32,
    }
}

/// Which header a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKind {
    /// 8 bytes, length of 16 bits.
    H80,
    /// 8 bytes, length of 32 bits.
    H95,
    /// 16 bytes, with a volume.
    H100,
}

/// Bytes of a header on a connection of version `apv`.
pub const fn size(apv: u32) -> usize {
    if apv >= 100 {
        16
    } else {
        8
    }
}

/// Most data, in bytes and whole sectors, that a packet can have beside its fixed part (24 bytes of
/// DATA, DATA_REPLY and RS_DATA_REPLY) on a connection of version `apv`. The C driver does not ask,
/// and sends a length that is cut off.
pub const fn most_data(apv: u32) -> u32 {
    if apv >= 95 {
        crate::limits::MAX_BIO_SIZE
    } else {
        (0xffff - 24) & !511
    }
}

impl HeaderKind {
    /// The form for a packet of `length` bytes on a connection of version `apv`.
    pub const fn for_sending(apv: u32, length: u32) -> HeaderKind {
        if apv >= 100 {
            HeaderKind::H100
        } else if apv >= 95 && length > MAX_SIZE_H80 {
            HeaderKind::H95
        } else {
            HeaderKind::H80
        }
    }

    /// Bytes of the header.
    pub const fn size(self) -> usize {
        match self {
            HeaderKind::H80 | HeaderKind::H95 => 8,
            HeaderKind::H100 => 16,
        }
    }

    /// Appends the header. The volume is lost in the short forms: there is only one. The oldest
    /// form holds lengths below 64 KiB; before version 95 no packet is longer.
    pub fn encode(self, vnr: Vnr, command: Command, length: u32, w: &mut Writer<'_>) {
        let command = command.number();
        match self {
            HeaderKind::H80 => {
                debug_assert!(length <= 0xffff);
                H80 {
                    magic: MAGIC_80,
                    command,
                    length: u16::try_from(length).unwrap_or(u16::MAX),
                }
                .encode(w);
            }
            HeaderKind::H95 => H95 {
                magic: MAGIC_95,
                command,
                length,
            }
            .encode(w),
            HeaderKind::H100 => H100 {
                magic: MAGIC_100,
                volume: vnr.0,
                command,
                length,
                padding: 0,
            }
            .encode(w),
        }
    }
}

/// A header that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The volume; 0 for packets of the connection and before version 100.
    pub volume: Vnr,
    /// The number of the command; it may be unknown.
    pub command: u16,
    /// Bytes that follow the header.
    pub length: u32,
    /// Bytes of the header.
    pub header_len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, which hold at least [`size`]`(apv)` bytes.
    ///
    /// # Errors
    /// [`Malformed::Length`] with too few bytes, [`Malformed::Magic`],
    /// [`Malformed::HeaderPadding`].
    pub fn decode(apv: u32, bytes: &[u8]) -> Result<Header, Malformed> {
        let header_len = size(apv);
        let bytes = bytes.get(..header_len).ok_or(Malformed::Length)?;
        if header_len == HeaderKind::H100.size() {
            let h = H100::decode(bytes)?;
            if h.magic != MAGIC_100 {
                return Err(Malformed::Magic);
            }
            if h.padding != 0 {
                return Err(Malformed::HeaderPadding);
            }
            return Ok(Header {
                volume: Vnr(h.volume),
                command: h.command,
                length: h.length,
                header_len,
            });
        }
        let big = H95::decode(bytes)?;
        let old = H80::decode(bytes)?;
        let (command, length) = if big.magic == MAGIC_95 {
            (big.command, big.length)
        } else if old.magic == MAGIC_80 {
            (old.command, u32::from(old.length))
        } else {
            return Err(Malformed::Magic);
        };
        Ok(Header {
            volume: Vnr(0),
            command,
            length,
            header_len,
        })
    }
}

/// Writes a header without a packet into `out` and returns its length in bytes.
pub fn encode(apv: u32, vnr: Vnr, command: Command, length: u32, out: &mut [u8; 16]) -> usize {
    let mut w = Writer::new(out);
    HeaderKind::for_sending(apv, length).encode(vnr, command, length, &mut w);
    w.written()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        let mut b = [0; 16];
        assert_eq!(encode(80, Vnr(7), Command::InitialData, 0, &mut b), 8);
        assert_eq!(b[..8], [0x83, 0x74, 0x02, 0x67, 0xff, 0xf2, 0, 0]);
        assert_eq!(encode(95, Vnr(0), Command::Data, 32769, &mut b), 8);
        assert_eq!(b[..8], [0x83, 0x5a, 0, 0, 0, 0, 0x80, 0x01]);
        assert_eq!(encode(95, Vnr(0), Command::Data, 32768, &mut b), 8);
        assert_eq!(b[..8], [0x83, 0x74, 0x02, 0x67, 0, 0, 0x80, 0x00]);
        assert_eq!(encode(101, Vnr(0x102), Command::State, 4, &mut b), 16);
        assert_eq!(
            b,
            [0x86, 0x20, 0xec, 0x20, 1, 2, 0, 0x0e, 0, 0, 0, 4, 0, 0, 0, 0]
        );
        b[15] = 1;
        assert_eq!(Header::decode(101, &b), Err(Malformed::HeaderPadding));
        assert_eq!(Header::decode(99, &b), Err(Malformed::Magic));
        assert_eq!(Header::decode(101, &b[..15]), Err(Malformed::Length));
    }
}
