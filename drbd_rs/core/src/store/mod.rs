// SPDX-License-Identifier: GPL-2.0

//! Containers of fixed capacity over storage that the caller supplies.
//!
//! Nothing here allocates. Each container is handed a `DerefMut` to a slice of its own slot type
//! (a `Vec`, a `KVVec`, a `&mut []`), links its slots by index and never grows by itself. A larger
//! store is allocated by the owner, outside its lock, and swapped in.

pub mod interval;
pub mod lru;
pub mod ring;
pub mod slab;

/// The index that names no slot.
pub(crate) const NIL: u32 = u32::MAX;

/// Number of slots that can be used: indices are 32 bits and the last value means "none".
pub(crate) fn usable(len: usize) -> u32 {
    crate::units::saturate_u32(crate::units::widen(len))
}

/// Makes a slice index of a slot number. [`NIL`] gives one that no container reaches.
pub(crate) const fn at(ix: u32) -> usize {
    // Every supported machine has addresses of at least 32 bits.
    #[allow(clippy::as_conversions)]
    {
        ix as usize
    }
}
