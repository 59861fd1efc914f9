// SPDX-License-Identifier: GPL-2.0

//! Allocation scopes, and vectors that are filled without a way to panic.
//!
//! The kernel crate's vectors count their length with `+=` and their spare room with `-`, and since
//! overflow checks are on, whether that leaves a call of the panic handler behind depends on what
//! the optimizer can prove. The functions here leave none.

use crate::shim;
use core::mem::take;
use kernel::{
    alloc::{Allocator, Flags, KVVec, Vec},
    error::code::ENOMEM,
    prelude::Result,
    types::NotThreadSafe,
};

/// Appends an item to a vector that has room for it; otherwise the item comes back.
pub fn push_within<T, A: Allocator>(vec: &mut Vec<T, A>, item: T) -> Result<(), T> {
    if vec.len() >= vec.capacity() {
        return Err(item);
    }
    let (ptr, len, capacity) = take(vec).into_raw_parts();
    // SAFETY: The length is less than the capacity, so the slot is within the allocation.
    unsafe { ptr.add(len).write(item) };
    // SAFETY: The parts come from a vector of this kind, and the next slot was just filled.
    *vec = unsafe { Vec::from_raw_parts(ptr, len.wrapping_add(1), capacity) };
    Ok(())
}

/// Appends an item, making room first if there is none.
pub fn push<T, A: Allocator>(vec: &mut Vec<T, A>, item: T, flags: Flags) -> Result {
    reserve(vec, 1, flags)?;
    push_within(vec, item).map_err(|_| ENOMEM)
}

/// Makes room for `more` further items; where that needs another vector, it has twice the room.
pub fn reserve<T, A: Allocator>(vec: &mut Vec<T, A>, more: usize, flags: Flags) -> Result {
    let wanted = vec.len().saturating_add(more);
    if wanted <= vec.capacity() {
        return Ok(());
    }
    let room = vec.capacity().saturating_mul(2).max(wanted).max(4);
    let mut larger = Vec::with_capacity(room, flags)?;
    for item in take(vec) {
        // Cannot fail: the other one is larger.
        let _ = push_within(&mut larger, item);
    }
    *vec = larger;
    Ok(())
}

/// A vector of `len` items, made one by one. Does not start I/O; may sleep.
pub fn filled<T>(len: usize, mut make: impl FnMut() -> T) -> Result<KVVec<T>> {
    let _noio = NoIoScope::enter();
    let mut vec = KVVec::with_capacity(len, kernel::alloc::flags::GFP_KERNEL)?;
    for _ in 0..len {
        push_within(&mut vec, make()).map_err(|_| ENOMEM)?;
    }
    Ok(vec)
}

/// While it lives, no allocation of this task starts I/O to make room for itself.
///
/// Whoever stands in the write-out path must not wait for write-out. A thread enters the scope
/// once, at its start; callbacks from user context enter it on the way in.
///
/// Scopes nest, and must end in the reverse order of their beginning, which local variables do by
/// themselves.
///
/// # Invariants
///
/// `saved` is what the task's flag was when the scope began. The value stays on its task.
#[must_use = "the scope ends when this is dropped"]
pub struct NoIoScope {
    saved: u32,
    _not_send: NotThreadSafe,
}

impl NoIoScope {
    /// Begins the scope for the current task.
    pub fn enter() -> Self {
        // INVARIANT: The flag is read and set for the current task, which this value cannot leave.
        Self {
            saved: shim::drbd_shim_noio_save(),
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoIoScope {
    fn drop(&mut self) {
        shim::drbd_shim_noio_restore(self.saved);
    }
}
