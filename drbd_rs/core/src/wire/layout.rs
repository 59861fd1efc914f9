// SPDX-License-Identifier: GPL-2.0

//! Turns a list of fields into a packet: a plain struct for the code, a big-endian byte layout for
//! the wire, and the two conversions.
//!
//! The layout never leaves the module that declares it. Its size is asserted at compile time.

use super::bytes::{BarrierNr, BlockId};
use crate::units::Sector;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

/// A value and the form it has on the wire.
pub(super) trait Field<Wire> {
    /// The wire's form of `self`.
    fn to_wire(self) -> Wire;
    /// The value of what the wire brought.
    fn from_wire(wire: Wire) -> Self;
}

macro_rules! plain_field {
    ($($value:ty => $wire:ty),+) => { $(
        impl Field<$wire> for $value {
            fn to_wire(self) -> $wire {
                <$wire>::new(self)
            }
            fn from_wire(wire: $wire) -> Self {
                wire.get()
            }
        }
    )+ };
}

plain_field!(u16 => U16, u32 => U32, u64 => U64);

impl Field<u8> for u8 {
    fn to_wire(self) -> u8 {
        self
    }
    fn from_wire(wire: u8) -> Self {
        wire
    }
}

impl Field<U32> for i32 {
    fn to_wire(self) -> U32 {
        U32::from_bytes(self.to_be_bytes())
    }
    fn from_wire(wire: U32) -> Self {
        i32::from_be_bytes(wire.to_bytes())
    }
}

impl Field<U64> for Sector {
    fn to_wire(self) -> U64 {
        U64::new(self.0)
    }
    fn from_wire(wire: U64) -> Self {
        Sector(wire.get())
    }
}

impl Field<[u8; 8]> for BlockId {
    fn to_wire(self) -> [u8; 8] {
        self.0.to_ne_bytes()
    }
    fn from_wire(wire: [u8; 8]) -> Self {
        BlockId(u64::from_ne_bytes(wire))
    }
}

impl Field<[u8; 4]> for BarrierNr {
    fn to_wire(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }
    fn from_wire(wire: [u8; 4]) -> Self {
        BarrierNr(u32::from_ne_bytes(wire))
    }
}

/// Declares a packet of fixed size. Padding goes at the end; it is sent as zero and not looked at.
macro_rules! packet {
    (
        $(#[$meta:meta])*
        $vis:vis $name:ident, $layout:ident, $size:literal $(, pad $pad:ty)? {
            $( $(#[$fmeta:meta])* $field:ident: $value:ty => $wire:ty, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        $vis struct $name {
            $( $(#[$fmeta])* pub $field: $value, )+
        }

        #[derive(
            zerocopy_derive::FromBytes,
            zerocopy_derive::IntoBytes,
            zerocopy_derive::Immutable,
            zerocopy_derive::KnownLayout,
            zerocopy_derive::Unaligned,
        )]
        #[repr(C)]
        struct $layout {
            $( $field: $wire, )+
            $( pad: $pad, )?
        }

        const _: () = assert!(size_of::<$layout>() == $name::SIZE);

        impl $name {
            /// Bytes on the wire; the protocol fixes them.
            $vis const SIZE: usize = $size;

            /// Reads the packet; `bytes` must be exactly as long as the packet is.
            $vis fn decode(bytes: &[u8]) -> Result<$name, crate::wire::Malformed> {
                let Ok(raw) = <$layout as zerocopy::FromBytes>::read_from_bytes(bytes) else {
                    return Err(crate::wire::Malformed::Length);
                };
                Ok($name {
                    $( $field: crate::wire::layout::Field::from_wire(raw.$field), )+
                })
            }

            /// Appends the packet.
            $vis fn encode(&self, w: &mut crate::wire::Writer<'_>) {
                let raw = $layout {
                    $( $field: crate::wire::layout::Field::to_wire(self.$field), )+
                    $( pad: <$pad as zerocopy::FromZeros>::new_zeroed(), )?
                };
                w.put(zerocopy::IntoBytes::as_bytes(&raw));
            }
        }
    };
}
pub(super) use packet;
