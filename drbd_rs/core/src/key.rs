// SPDX-License-Identifier: GPL-2.0

//! What two nodes must have in common to behave in the same way, for whoever explores states.
//!
//! `Hash` of a [`Resource`](crate::node::Resource) covers what decides its behaviour. Left out are:
//! numbers that are only shown (sectors moved, hits and misses, marks of progress), settings, and
//! generations of slots. Numbers that only tell things apart, such as those of epochs and buffers,
//! are handed to the hasher by [`name`], so that it can put the order of appearance in their place.
//! Moments are handed over in the same way: of a deadline it counts that there is one, and whether
//! it has passed.
//!
//! Nothing in the module uses this.

use core::hash::Hasher;

/// A moment.
pub const MOMENT: u8 = 0;
/// The number of an epoch of writes.
pub const EPOCH: u8 = 1;
/// A buffer.
pub const BUFFER: u8 = 2;
/// An application's I/O.
pub const APP: u8 = 3;
/// One connection among those that a resource has had.
pub const INCARNATION: u8 = 4;
/// One activity log among those that a volume has had.
pub const LOG: u8 = 5;
/// A walk through the frozen requests.
pub const WALK: u8 = 6;
/// An administrator's request.
pub const OPERATION: u8 = 7;
/// The number of an epoch of the peer's writes.
pub const PEER_EPOCH: u8 = 8;
/// A span of time in which writes reached the peer's disk.
pub const SPAN: u8 = 9;

/// Hands a number over that only tells things of one `kind` apart: as the only use of
/// [`Hasher::write_u128`], the kind in the upper half.
pub fn name(kind: u8, number: u64, state: &mut impl Hasher) {
    state.write_u128(u128::from(kind) << 64 | u128::from(number));
}

/// `Hash` for a type: fields that count, fields that are names, fields that do not count.
macro_rules! key {
    (
        $type:ident $(<$s:ident: $bound:ident>)? {
            $($field:ident),* $(,)?
        }
        names { $($name:ident: $kind:ident),* $(,)? }
        not { $($out:ident),* $(,)? }
    ) => {
        impl $(<$s: $bound>)? core::hash::Hash for $type $(<$s>)? {
            fn hash<KeyHasher: core::hash::Hasher>(&self, state: &mut KeyHasher) {
                let $type { $($field,)* $($name,)* $($out: _,)* } = self;
                $(core::hash::Hash::hash($field, state);)*
                $($crate::key::name($crate::key::$kind, u64::from(*$name), state);)*
                let _ = state;
            }
        }
    };
}
pub(crate) use key;
