// SPDX-License-Identifier: GPL-2.0

//! A table of things that the core names by a number.
//!
//! # Invariants
//!
//! `free` has room for every slot, so that taking something out never allocates.

use drbd_kapi::mem;
use kernel::prelude::*;

/// Slots that are handed out by index. Growing is explicit ([`Table::reserve`]).
pub(crate) struct Table<T> {
    slots: KVVec<Option<T>>,
    free: KVVec<u32>,
}

impl<T> Table<T> {
    /// An empty table.
    pub(crate) const fn new() -> Self {
        Table { slots: KVVec::new(), free: KVVec::new() }
    }

    /// Makes room for `n` more entries. May sleep; the caller holds a `NoIoScope`.
    pub(crate) fn reserve(&mut self, n: usize) -> Result {
        let missing = n.saturating_sub(self.free.len());
        if missing == 0 {
            return Ok(());
        }
        // Room for every number there will be, so that `remove` never lacks it.
        let total = self.slots.len().saturating_add(missing);
        let more = total.saturating_sub(self.free.len());
        mem::reserve(&mut self.free, more, GFP_KERNEL)?;
        for _ in 0..missing {
            let slot = u32::try_from(self.slots.len()).map_err(|_| ENOMEM)?;
            mem::push(&mut self.slots, None, GFP_KERNEL)?;
            mem::push(&mut self.free, slot, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Stores `value`; gives it back if no room was reserved.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(ix) = self.free.pop() else { return Err(value) };
        match usize::try_from(ix).ok().and_then(|i| self.slots.get_mut(i)) {
            Some(slot) => {
                *slot = Some(value);
                Ok(ix)
            }
            None => Err(value),
        }
    }

    /// What is stored under `ix`.
    pub(crate) fn get(&self, ix: u32) -> Option<&T> {
        self.slots.get(usize::try_from(ix).ok()?)?.as_ref()
    }

    /// Takes the value out but keeps the number in use, until [`Table::remove`].
    pub(crate) fn take(&mut self, ix: u32) -> Option<T> {
        self.slots.get_mut(usize::try_from(ix).ok()?)?.take()
    }

    /// Puts a value back under a number that is in use.
    pub(crate) fn restore(&mut self, ix: u32, value: T) {
        if let Some(slot) = usize::try_from(ix).ok().and_then(|i| self.slots.get_mut(i)) {
            *slot = Some(value);
        }
    }

    /// Frees the number and returns what was there.
    pub(crate) fn remove(&mut self, ix: u32) -> Option<T> {
        let value = self.take(ix);
        // The reservation makes this push succeed; were it to fail, one number would be lost.
        let _ = mem::push_within(&mut self.free, ix);
        value
    }
}
