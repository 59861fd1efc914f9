// SPDX-License-Identifier: GPL-2.0

//! Generic netlink as `drbdsetup` speaks it: family "drbd", version 1.
//!
//! The attributes are declared once, in [`conf`] and [`info`]; the kernel module and the tools read
//! and write them with the same code. Nothing here sends a message or decides about a request.
//! Numbers in attributes are in native byte order, as in all of netlink.

pub mod attr;
pub mod command;
pub mod conf;
mod error;
pub mod info;
pub mod schema;
mod value;

pub use attr::{Attr, Attrs, Writer};
pub use command::Command;
pub use error::{ErrCode, Error};
pub use schema::{Audience, Mode};
pub use value::{Bin, Str};

/// Name of the family.
pub const FAMILY: &str = "drbd";
/// Version of the family; `drbdsetup` refuses any other.
pub const VERSION: u8 = 1;
/// The one multicast group.
pub const MULTICAST_GROUP: &str = "events";
/// Bytes of [`Header`].
pub const HEADER_SIZE: usize = 8;
/// A header's minor where there is none.
pub const NO_MINOR: u32 = u32::MAX;
/// Flag of a request: options that it does not name go back to their defaults.
pub const FLAG_SET_DEFAULTS: u32 = 1;
/// The volume that stands for "no volume".
pub const NO_VOLUME: u32 = u32::MAX;

/// What follows the generic netlink header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Minor number, or [`NO_MINOR`].
    pub minor: u32,
    /// Request: flags. Reply: an [`ErrCode`] or a number of the state machine, as `i32`.
    pub flags: u32,
}

impl Header {
    /// The header of a reply.
    pub const fn reply(minor: u32, ret_code: i32) -> Header {
        Header {
            minor,
            flags: u32::from_ne_bytes(ret_code.to_ne_bytes()),
        }
    }

    /// A reply's code.
    pub const fn ret_code(self) -> i32 {
        i32::from_ne_bytes(self.flags.to_ne_bytes())
    }

    /// Reads the header and returns the attributes behind it; `None` with too few bytes.
    pub fn decode(bytes: &[u8]) -> Option<(Header, &[u8])> {
        let (minor, rest) = bytes.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<4>()?;
        let header = Header {
            minor: u32::from_ne_bytes(*minor),
            flags: u32::from_ne_bytes(*flags),
        };
        Some((header, rest))
    }

    /// The bytes of the header.
    pub fn encode(self) -> [u8; HEADER_SIZE] {
        let mut out = [0; HEADER_SIZE];
        let bytes = self.minor.to_ne_bytes().into_iter();
        for (to, from) in out.iter_mut().zip(bytes.chain(self.flags.to_ne_bytes())) {
            *to = from;
        }
        out
    }
}

#[cfg(test)]
mod tests;
