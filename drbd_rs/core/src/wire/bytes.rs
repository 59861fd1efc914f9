// SPDX-License-Identifier: GPL-2.0

//! Small pieces that packets are made of: opaque ids, names, and the writer.

use super::Malformed;

/// Names a request on its sender; the peer only echoes it. Kept in the sender's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockId(pub u64);

impl BlockId {
    /// Marks packets of resync and verify. No request may have this id.
    pub const SYNCER: BlockId = BlockId(u64::MAX);
}

/// Names an epoch on its sender; the peer only echoes it. Kept in the sender's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarrierNr(pub u32);

impl core::hash::Hash for BarrierNr {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        crate::key::name(crate::key::EPOCH, u64::from(self.0), state);
    }
}

/// Most bytes in the name of an algorithm or in the shared secret, its NUL included.
const NAME_SIZE: usize = 64;

/// The name of an algorithm: at most 63 bytes, none of them NUL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name64 {
    bytes: [u8; NAME_SIZE],
    len: u8,
}

crate::key::key! {
    Name64 { bytes }
    names {}
    not { len }
}

impl Name64 {
    /// The empty name: no algorithm.
    pub const EMPTY: Name64 = Name64 {
        bytes: [0; NAME_SIZE],
        len: 0,
    };

    /// The name before the first NUL, or all of `text` where there is none; `None` where that is
    /// longer than 63 bytes.
    pub fn new(text: &[u8]) -> Option<Name64> {
        let mut name = Name64::EMPTY;
        for &b in text.iter().take_while(|&&b| b != 0) {
            if name.len >= 63 {
                return None;
            }
            *name.bytes.get_mut(usize::from(name.len))? = b;
            name.len = name.len.saturating_add(1);
        }
        Some(name)
    }

    /// Reads a NUL-terminated name that a peer sent; bytes behind the NUL are ignored. No bytes at
    /// all are the empty name.
    pub fn decode(wire: &[u8]) -> Result<Name64, Malformed> {
        if !wire.is_empty() && !wire.contains(&0) {
            return Err(Malformed::String);
        }
        Name64::new(wire).ok_or(Malformed::String)
    }

    /// The name without its NUL.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The name, padded with NULs to 64 bytes; at least one.
    pub const fn padded(&self) -> &[u8; NAME_SIZE] {
        &self.bytes
    }

    /// Whether no algorithm is named.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the name and one NUL.
    pub fn encode_short(&self, w: &mut Writer<'_>) {
        w.put(self.as_bytes());
        w.put(&[0]);
    }
}

impl Default for Name64 {
    fn default() -> Self {
        Name64::EMPTY
    }
}

impl core::fmt::Debug for Name64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(s) => write!(f, "{s:?}"),
            Err(_) => write!(f, "{:?}", self.as_bytes()),
        }
    }
}

/// Appends bytes to a caller's buffer. A piece that does not fit is left out and remembered.
pub struct Writer<'a> {
    rest: &'a mut [u8],
    written: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Writer<'a> {
        Writer {
            rest: buf,
            written: 0,
            overflowed: false,
        }
    }

    /// Appends `bytes`, all or none.
    pub fn put(&mut self, bytes: &[u8]) {
        let rest = core::mem::take(&mut self.rest);
        match rest.split_at_mut_checked(bytes.len()) {
            Some((head, tail)) if !self.overflowed => {
                for (to, from) in head.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.rest = tail;
                self.written = self.written.saturating_add(bytes.len());
            }
            Some(_) | None => self.overflowed = true,
        }
    }

    /// Bytes written so far.
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Whether something did not fit.
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Name64::decode(b"crc32c\0").unwrap().as_bytes(), b"crc32c");
        assert_eq!(Name64::decode(b"crc32c"), Err(Malformed::String));
        assert_eq!(Name64::decode(b"").unwrap(), Name64::EMPTY);
        assert_eq!(Name64::decode(&[b'x'; 64]), Err(Malformed::String));
        let mut full = [b'x'; 64];
        full[63] = 0;
        assert_eq!(Name64::decode(&full).unwrap().as_bytes().len(), 63);
        assert_eq!(Name64::decode(&[b'x'; 65]), Err(Malformed::String));
        assert_eq!(Name64::new(&[b'x'; 64]), None);
    }

    #[test]
    fn a_writer_drops_what_does_not_fit() {
        let mut buf = [0u8; 5];
        let mut w = Writer::new(&mut buf);
        w.put(&[1, 2, 3]);
        w.put(&[4, 5, 6]);
        w.put(&[7]);
        assert!(w.overflowed());
        assert_eq!(w.written(), 3);
        assert_eq!(buf, [1, 2, 3, 0, 0]);
    }
}
