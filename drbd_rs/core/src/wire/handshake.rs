// SPDX-License-Identifier: GPL-2.0

//! The packets of the handshake: features, authentication, protocol settings.

use super::bytes::{Name64, Writer};
use super::layout::packet;
use super::Malformed;
use zerocopy::byteorder::big_endian::U32;

packet! {
    /// Which protocol versions and features a node speaks. Its layout is fixed for ever.
    pub Features, FeaturesLayout, 72, pad [u8; 60] {
        /// Oldest version.
        protocol_min: u32 => U32,
        /// See [`super::feature`].
        feature_flags: u32 => U32,
        /// Newest version; 0 means the same as the oldest.
        protocol_max: u32 => U32,
    }
}

packet! {
    /// The fixed part of [`Protocol`].
    ProtocolHead, ProtocolLayout, 24 {
        /// 1, 2, 3 for A, B, C.
        protocol: u32 => U32,
        /// Policy without a primary.
        after_sb_0p: u32 => U32,
        /// Policy with one primary.
        after_sb_1p: u32 => U32,
        /// Policy with two primaries.
        after_sb_2p: u32 => U32,
        /// Flags.
        conn_flags: u32 => U32,
        /// Not 0: two primaries are allowed.
        two_primaries: u32 => U32,
    }
}

/// Flags of [`Protocol::conn_flags`].
pub mod conn_flag {
    /// The sender gives up its own data after a split brain.
    pub const DISCARD_MY_DATA: u32 = 1;
    /// The sender only wants to know what would happen.
    pub const DRY_RUN: u32 = 2;
}

/// The settings of the connection: PROTOCOL and PROTOCOL_UPDATE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protocol {
    /// 1, 2, 3 for A, B, C.
    pub protocol: u32,
    /// Policy after a split brain without a primary; number of the configuration.
    pub after_sb_0p: u32,
    /// Policy after a split brain with one primary.
    pub after_sb_1p: u32,
    /// Policy after a split brain with two primaries.
    pub after_sb_2p: u32,
    /// See [`conn_flag`].
    pub conn_flags: u32,
    /// Not 0: two primaries are allowed.
    pub two_primaries: u32,
    /// `data-integrity-alg`; not sent before version 87.
    pub integrity_alg: Name64,
}

impl Protocol {
    /// Bytes before the name.
    pub const FIXED: usize = ProtocolHead::SIZE;

    /// Reads the packet of a connection of version `apv`.
    pub fn decode(bytes: &[u8], apv: u32) -> Result<Protocol, Malformed> {
        let Some((head, name)) = bytes.split_at_checked(Self::FIXED) else {
            return Err(Malformed::Length);
        };
        let head = ProtocolHead::decode(head)?;
        let integrity_alg = if apv >= 87 {
            Name64::decode(name)?
        } else if name.is_empty() {
            Name64::EMPTY
        } else {
            return Err(Malformed::Length);
        };
        Ok(Protocol {
            protocol: head.protocol,
            after_sb_0p: head.after_sb_0p,
            after_sb_1p: head.after_sb_1p,
            after_sb_2p: head.after_sb_2p,
            conn_flags: head.conn_flags,
            two_primaries: head.two_primaries,
            integrity_alg,
        })
    }

    /// Appends the packet as version `apv` has it.
    pub fn encode(&self, w: &mut Writer<'_>, apv: u32) {
        ProtocolHead {
            protocol: self.protocol,
            after_sb_0p: self.after_sb_0p,
            after_sb_1p: self.after_sb_1p,
            after_sb_2p: self.after_sb_2p,
            conn_flags: self.conn_flags,
            two_primaries: self.two_primaries,
        }
        .encode(w);
        if apv >= 87 {
            self.integrity_alg.encode_short(w);
        }
    }
}

/// Bytes of a challenge that this node sends, and fewest that it takes.
pub const CHALLENGE_SIZE: usize = 64;
/// Most bytes of a challenge that this node takes.
pub const CHALLENGE_MAX: usize = 128;
/// Most bytes of a digest; that of SHA-512.
pub const DIGEST_MAX: usize = 64;

macro_rules! blob {
    ($(#[$meta:meta])* $name:ident, $min:expr, $max:expr) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name {
            bytes: [u8; $max],
            len: u8,
        }

        impl $name {
            /// Copies `bytes`; fails with [`Malformed::Length`] where they are too few or too many.
            pub fn decode(bytes: &[u8]) -> Result<$name, Malformed> {
                let Ok(len) = u8::try_from(bytes.len()) else {
                    return Err(Malformed::Length);
                };
                if bytes.len() < $min || bytes.len() > $max {
                    return Err(Malformed::Length);
                }
                let mut own = [0; $max];
                for (to, from) in own.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Ok($name { bytes: own, len })
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
            }

            /// Appends the bytes.
            pub fn encode(&self, w: &mut Writer<'_>) {
                w.put(self.as_bytes());
            }
        }
    };
}

blob! {
    /// Random bytes that the peer has to prove its secret with: 64 to 128.
    AuthChallenge, CHALLENGE_SIZE, CHALLENGE_MAX
}

blob! {
    /// The HMAC of a challenge: 1 to 64 bytes.
    AuthResponse, 1, DIGEST_MAX
}

impl AuthChallenge {
    /// A challenge of this node's own.
    pub fn new(random: &[u8; CHALLENGE_SIZE]) -> AuthChallenge {
        let mut bytes = [0; CHALLENGE_MAX];
        for (to, from) in bytes.iter_mut().zip(random) {
            *to = *from;
        }
        AuthChallenge { bytes, len: 64 }
    }
}
