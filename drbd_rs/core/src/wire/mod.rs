// SPDX-License-Identifier: GPL-2.0

//! What two nodes say to each other: headers, packets, the compressed bitmap.
//!
//! Everything here turns numbers into bytes or bytes into numbers. Decoding is total: any bytes
//! give a value or a [`Malformed`], never a panic. All integers are big endian, except where a
//! packet carries an opaque number of its sender ([`BlockId`], [`BarrierNr`]) and in bitmaps.
//! What a packet *means* is decided elsewhere; nothing here knows a socket or a state.

pub mod ack;
pub mod bitmap_chunk;
mod bytes;
pub mod command;
pub mod data;
pub mod handshake;
pub mod header;
mod layout;
mod packet;
pub mod state;
pub mod sync_param;
pub mod vli;

pub use ack::{BarrierAck, BlockAck, OvResult, OvVerdict, ReqReply};
pub use bytes::{BarrierNr, BlockId, Name64, Writer};
pub use command::{Command, Socket, Split};
pub use data::{Barrier, BlockDesc, BlockReq, Data, DelayProbe, Trim};
pub use handshake::{AuthChallenge, AuthResponse, Features, Protocol};
pub use header::{Header, HeaderKind};
pub use packet::Packet;
pub use state::{QueueLimits, ReqState, RsUuid, Sizes, State, Uuids};
pub use sync_param::SyncParam;

/// Protocol version before the features packets have been exchanged.
pub const APV_UNKNOWN: u32 = 80;
/// Oldest protocol version that this node speaks.
pub const APV_MIN: u32 = 86;
/// Newest protocol version that this node speaks.
pub const APV_MAX: u32 = 101;

/// Size of a control buffer in bytes, header included; fixed by the protocol.
pub const BUFFER_SIZE: usize = 4096;

/// Feature flags, agreed on in the features packets.
pub mod feature {
    /// The peer understands P_TRIM.
    pub const TRIM: u32 = 1;
    /// Thin resync: zeroes are reported, not sent.
    pub const THIN_RESYNC: u32 = 2;
    /// Discards up to 128 MiB, and queue limits behind P_SIZES.
    pub const WSAME: u32 = 4;
    /// The peer understands P_ZEROES.
    pub const WZEROES: u32 = 8;
    /// All that this implementation knows.
    pub const ALL: u32 = 15;
}

/// The peer sent bytes that the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The header has none of the known magic numbers.
    Magic,
    /// The padding of a 16-byte header is not zero.
    HeaderPadding,
    /// No packet has this number, or nobody expects it here.
    Command(u16),
    /// The packet is shorter or longer than its kind allows.
    Length,
    /// A string has no NUL at its end, or is too long.
    String,
    /// A number stands where it has no meaning.
    Value,
    /// The compressed bitmap has an unknown encoding.
    BitmapEncoding(u8),
    /// A run or a word lies behind the end of the bitmap.
    BitmapOverflow,
    /// A run of the compressed bitmap is cut off.
    BitmapCode,
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Malformed::Magic => f.write_str("no DRBD header"),
            Malformed::HeaderPadding => f.write_str("a header whose padding is not zero"),
            Malformed::Command(nr) => match Command::from_number(nr) {
                Some(command) => write!(f, "{} has no business here", command.name()),
                None => write!(f, "unknown command {nr:#x}"),
            },
            Malformed::Length => f.write_str("a length that this packet can not have"),
            Malformed::String => f.write_str("a name without an end, or too long"),
            Malformed::Value => f.write_str("a number without a meaning"),
            Malformed::BitmapEncoding(code) => write!(f, "unknown bitmap encoding {code}"),
            Malformed::BitmapOverflow => f.write_str("a bitmap that is longer than the device"),
            Malformed::BitmapCode => f.write_str("a compressed bitmap that is cut off"),
        }
    }
}

#[cfg(test)]
mod tests;
