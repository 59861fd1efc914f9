// SPDX-License-Identifier: GPL-2.0

//! DRBD's `lru_cache`: a fixed set of slots that carry labels, changed in transactions.
//!
//! A slot has a committed label and, while a change is pending, a new one; it is found under the
//! new one. Getting a label that is not in the set re-labels a free or the least recently used slot
//! and the change waits for [`Lru::committed`]. The set itself knows nothing of disks.
//!
//! Invariants: every slot is on exactly one of the four lists. `Free`: both labels are [`FREE`],
//! not hashed. `Unused`: committed, no reference. `InUse`: committed, referenced. `Changing`: a
//! change is pending. `used` counts the slots with references, `pending` the slots in `Changing`.
//!
//! It differs from `lru_cache.c` in one respect: a reference to an uncommitted slot may be dropped
//! again (a cancelled request); such a slot becomes `Unused` with the commit.

use core::marker::PhantomData;
use core::ops::DerefMut;

use super::{at, usable, NIL};

/// The label of a slot that carries none.
pub const FREE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum List {
    Free,
    Unused,
    InUse,
    Changing,
}

/// One slot and, beside it, one bucket of the hash table.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Slot<P> {
    number: u32,
    new_number: u32,
    refs: u32,
    list: List,
    prev: u32,
    next: u32,
    hash_prev: u32,
    hash_next: u32,
    bucket: u32,
    payload: P,
}

impl<P> Slot<P> {
    /// A slot without a label.
    pub const fn empty(payload: P) -> Self {
        Slot {
            number: FREE,
            new_number: FREE,
            refs: 0,
            list: List::Free,
            prev: NIL,
            next: NIL,
            hash_prev: NIL,
            hash_next: NIL,
            bucket: NIL,
            payload,
        }
    }

    /// The committed label, or [`FREE`].
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The label it has once the pending change is committed; else the same as `number`.
    pub const fn new_number(&self) -> u32 {
        self.new_number
    }

    /// References held.
    pub const fn refs(&self) -> u32 {
        self.refs
    }

    /// Whether no change is pending.
    pub const fn is_committed(&self) -> bool {
        self.number == self.new_number
    }

    /// What the owner keeps with the label.
    pub const fn payload(&self) -> &P {
        &self.payload
    }
}

impl Slot<u32> {
    /// A slot without a label, with a count of none.
    pub const EMPTY: Self = Slot::empty(0);
}

impl<P: Default> Default for Slot<P> {
    fn default() -> Self {
        Slot::empty(P::default())
    }
}

/// A slot that was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Got {
    /// Index of the slot.
    pub ix: u32,
    /// False if the label is only valid after the next commit.
    pub committed: bool,
    /// True if this very call re-labelled the slot.
    pub changed: bool,
}

/// Why a slot was not got. No reference was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// All slots are in use; nobody gets anything, hits included, until a slot is put back.
    Starving,
    /// The label is being pulled in and the caller wants committed ones only.
    Uncommitted,
    /// The label is not in the set and the caller may not change the set.
    Miss,
    /// A change is needed while a transaction is being written or the set is frozen.
    Locked,
    /// The transaction is full: it has to be committed first.
    PendingFull,
}

/// The statistics that `/proc/drbd` shows; a get is counted as starving, hit or miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gets of a label that was in the set.
    pub hits: u64,
    /// Gets of a label that was not.
    pub misses: u64,
    /// Gets refused because all slots were in use.
    pub starving: u64,
    /// Gets refused because the set was locked.
    pub locked: u64,
    /// Changes committed.
    pub changed: u64,
}

#[derive(Clone, Copy, Debug, Hash)]
struct Ends {
    first: u32,
    last: u32,
}

impl Ends {
    const EMPTY: Ends = Ends {
        first: NIL,
        last: NIL,
    };
}

/// A set of as many labels as the storage has slots.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Lru<P, S> {
    slots: S,
    free: Ends,
    unused: Ends,
    in_use: Ends,
    changing: Ends,
    used: u32,
    pending: u32,
    max_pending: u32,
    dirty: bool,
    locked: bool,
    starving: bool,
    counters: Counters,
    payload: PhantomData<P>,
}

impl<P: core::hash::Hash, S: DerefMut<Target = [Slot<P>]>> core::hash::Hash for Lru<P, S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        // Slots without a label are all alike; their number follows.
        for (ix, slot) in (0u32..).zip(self.slots.iter()) {
            if slot.number != FREE || slot.new_number != FREE {
                (ix, slot).hash(state);
            }
        }
        (self.unused, self.in_use, self.changing, self.used).hash(state);
        (self.pending, self.dirty, self.locked, self.starving).hash(state);
    }
}

impl<P: Copy + Default, S: DerefMut<Target = [Slot<P>]>> Lru<P, S> {
    /// An empty set that accumulates at most `max_pending` changes between two commits.
    pub fn new(slots: S, max_pending: u32) -> Self {
        let mut lru = Lru {
            slots,
            free: Ends::EMPTY,
            unused: Ends::EMPTY,
            in_use: Ends::EMPTY,
            changing: Ends::EMPTY,
            used: 0,
            pending: 0,
            max_pending,
            dirty: false,
            locked: false,
            starving: false,
            counters: Counters::default(),
            payload: PhantomData,
        };
        lru.reset();
        lru
    }

    /// Forgets all labels, references, payloads, flags and statistics.
    pub fn reset(&mut self) {
        self.free = Ends::EMPTY;
        self.unused = Ends::EMPTY;
        self.in_use = Ends::EMPTY;
        self.changing = Ends::EMPTY;
        self.used = 0;
        self.pending = 0;
        self.dirty = false;
        self.locked = false;
        self.starving = false;
        self.counters = Counters::default();
        for slot in self.slots.iter_mut() {
            *slot = Slot::default();
        }
        for ix in (0..self.capacity()).rev() {
            self.link_front(ix, List::Free);
        }
    }

    /// Gets a committed label, or starts the change that brings it in.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn get(&mut self, label: u32) -> Result<Got, Refused> {
        self.lookup(label, true, false)
    }

    /// Like [`Lru::get`], and also takes references to labels whose change is pending.
    ///
    /// # Errors
    /// See [`Refused`]; never `Uncommitted`.
    pub fn get_cumulative(&mut self, label: u32) -> Result<Got, Refused> {
        self.lookup(label, true, true)
    }

    /// Gets a committed label that is in the set already.
    ///
    /// # Errors
    /// `Starving`, `Uncommitted` or `Miss`.
    pub fn try_get(&mut self, label: u32) -> Result<Got, Refused> {
        self.lookup(label, false, false)
    }

    fn lookup(&mut self, label: u32, may_change: bool, cumulative: bool) -> Result<Got, Refused> {
        if self.starving {
            self.counters.starving = self.counters.starving.saturating_add(1);
            return Err(Refused::Starving);
        }
        if let Some(ix) = self.find_any(label) {
            return self.hit(ix, cumulative);
        }
        self.counters.misses = self.counters.misses.saturating_add(1);
        // The free label can be in no set; a slot that carried it could not be told from a free
        // one.
        if !may_change || label == FREE {
            return Err(Refused::Miss);
        }
        self.dirty = true;
        if self.locked {
            self.counters.locked = self.counters.locked.saturating_add(1);
            return Err(Refused::Locked);
        }
        let ix = if self.free.first != NIL {
            self.free.first
        } else {
            self.unused.last
        };
        if ix == NIL {
            self.starving = true;
            return Err(Refused::Starving);
        }
        if self.pending >= self.max_pending {
            return Err(Refused::PendingFull);
        }
        self.relabel(ix, label);
        Ok(Got {
            ix,
            committed: false,
            changed: true,
        })
    }

    fn hit(&mut self, ix: u32, cumulative: bool) -> Result<Got, Refused> {
        let Some(slot) = self.slots.get_mut(at(ix)) else {
            return Err(Refused::Miss);
        };
        let committed = slot.is_committed();
        if !committed && !cumulative {
            return Err(Refused::Uncommitted);
        }
        if slot.refs == 0 {
            self.used = self.used.saturating_add(1);
        }
        slot.refs = slot.refs.saturating_add(1);
        self.counters.hits = self.counters.hits.saturating_add(1);
        if committed {
            self.relink(ix, List::InUse);
        }
        Ok(Got {
            ix,
            committed,
            changed: false,
        })
    }

    fn relabel(&mut self, ix: u32, label: u32) {
        self.unhash(ix);
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.new_number = label;
            slot.refs = 1;
        }
        self.hash(ix);
        self.relink(ix, List::Changing);
        self.starving = false;
        self.used = self.used.saturating_add(1);
        self.pending = self.pending.saturating_add(1);
    }

    /// The slot of a committed label; takes no reference and counts nothing.
    pub fn find(&self, label: u32) -> Option<u32> {
        self.find_any(label)
            .filter(|ix| self.slot(*ix).is_some_and(Slot::is_committed))
    }

    /// Whether somebody holds a reference to this label, its change being pending or not.
    pub fn is_used(&self, label: u32) -> bool {
        self.find_any(label)
            .and_then(|ix| self.slot(ix))
            .is_some_and(|slot| slot.refs > 0)
    }

    /// All pending changes become labels of the set.
    pub fn committed(&mut self) {
        while self.changing.first != NIL {
            let ix = self.changing.first;
            let mut list = List::InUse;
            if let Some(slot) = self.slots.get_mut(at(ix)) {
                slot.number = slot.new_number;
                if slot.refs == 0 {
                    list = List::Unused;
                }
            }
            self.counters.changed = self.counters.changed.saturating_add(1);
            if list == List::Unused {
                self.starving = false;
            }
            self.relink(ix, list);
        }
        self.pending = 0;
    }

    /// Drops one reference and returns how many are left; `None` if there was none to drop.
    pub fn put(&mut self, ix: u32) -> Option<u32> {
        let slot = self.slots.get_mut(at(ix))?;
        slot.refs = slot.refs.checked_sub(1)?;
        let left = slot.refs;
        let committed = slot.is_committed();
        if left == 0 {
            self.used = self.used.saturating_sub(1);
            if committed {
                self.relink(ix, List::Unused);
                self.starving = false;
            }
        }
        Some(left)
    }

    /// Takes the label off a slot. Refused, with `false`, while it is referenced or changing.
    pub fn del(&mut self, ix: u32) -> bool {
        match self.slot(ix) {
            Some(slot) if slot.refs == 0 && slot.list == List::Unused => (),
            _ => return false,
        }
        self.unhash(ix);
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.number = FREE;
            slot.new_number = FREE;
            slot.payload = P::default();
        }
        self.relink(ix, List::Free);
        true
    }

    /// Freezes the set; refused while anything at all is going on in it.
    pub fn try_lock(&mut self) -> bool {
        if self.dirty || self.locked || self.starving {
            return false;
        }
        self.locked = true;
        true
    }

    /// Fixes the pending changes so that they can be written; refused while it is locked.
    pub fn try_lock_for_transaction(&mut self) -> bool {
        !core::mem::replace(&mut self.locked, true)
    }

    /// Allows changes again.
    pub fn unlock(&mut self) {
        self.locked = false;
        self.dirty = false;
    }

    /// The slot of this index.
    pub fn slot(&self, ix: u32) -> Option<&Slot<P>> {
        self.slots.get(at(ix))
    }

    /// What the owner keeps with the slot.
    pub fn payload_mut(&mut self, ix: u32) -> Option<&mut P> {
        self.slots.get_mut(at(ix)).map(|slot| &mut slot.payload)
    }

    /// All slots, by rising index.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &Slot<P>)> {
        (0..NIL).zip(self.slots.iter())
    }

    /// The slots with a pending change, the newest first.
    pub fn changes(&self) -> impl Iterator<Item = (u32, &Slot<P>)> {
        let mut ix = self.changing.first;
        core::iter::from_fn(move || {
            let slot = self.slots.get(at(ix))?;
            let this = ix;
            ix = slot.next;
            Some((this, slot))
        })
    }

    /// Number of slots.
    pub fn capacity(&self) -> u32 {
        usable(self.slots.len())
    }

    /// Number of slots with references.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Number of changes that wait for a commit.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Whether a transaction is being written or the set is frozen.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether every slot was in use when last one was wanted.
    pub fn is_starving(&self) -> bool {
        self.starving
    }

    /// The statistics.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.slots
    }

    fn bucket_of(&self, label: u32) -> u32 {
        label.checked_rem(self.capacity()).unwrap_or(NIL)
    }

    fn find_any(&self, label: u32) -> Option<u32> {
        let mut ix = self.slot(self.bucket_of(label))?.bucket;
        while let Some(slot) = self.slots.get(at(ix)) {
            if slot.new_number == label {
                return Some(ix);
            }
            ix = slot.hash_next;
        }
        None
    }

    fn hash(&mut self, ix: u32) {
        let Some(label) = self.slot(ix).map(Slot::new_number) else {
            return;
        };
        let bucket = self.bucket_of(label);
        let Some(head) = self.slots.get_mut(at(bucket)) else {
            return;
        };
        let first = core::mem::replace(&mut head.bucket, ix);
        if let Some(slot) = self.slots.get_mut(at(first)) {
            slot.hash_prev = ix;
        }
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.hash_prev = NIL;
            slot.hash_next = first;
        }
    }

    fn unhash(&mut self, ix: u32) {
        let Some(&Slot {
            new_number,
            hash_prev,
            hash_next,
            ..
        }) = self.slot(ix)
        else {
            return;
        };
        if new_number == FREE {
            return;
        }
        let bucket = self.bucket_of(new_number);
        if let Some(prev) = self.slots.get_mut(at(hash_prev)) {
            prev.hash_next = hash_next;
        } else if let Some(head) = self.slots.get_mut(at(bucket)) {
            head.bucket = hash_next;
        }
        if let Some(next) = self.slots.get_mut(at(hash_next)) {
            next.hash_prev = hash_prev;
        }
    }

    fn ends(&mut self, list: List) -> &mut Ends {
        match list {
            List::Free => &mut self.free,
            List::Unused => &mut self.unused,
            List::InUse => &mut self.in_use,
            List::Changing => &mut self.changing,
        }
    }

    fn relink(&mut self, ix: u32, list: List) {
        self.unlink(ix);
        self.link_front(ix, list);
    }

    fn link_front(&mut self, ix: u32, list: List) {
        let ends = self.ends(list);
        let first = core::mem::replace(&mut ends.first, ix);
        if ends.last == NIL {
            ends.last = ix;
        }
        if let Some(slot) = self.slots.get_mut(at(first)) {
            slot.prev = ix;
        }
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.list = list;
            slot.prev = NIL;
            slot.next = first;
        }
    }

    fn unlink(&mut self, ix: u32) {
        let Some(&Slot {
            list, prev, next, ..
        }) = self.slot(ix)
        else {
            return;
        };
        match self.slots.get_mut(at(prev)) {
            Some(slot) => slot.next = next,
            None => self.ends(list).first = next,
        }
        match self.slots.get_mut(at(next)) {
            Some(slot) => slot.prev = prev,
            None => self.ends(list).last = prev,
        }
    }
}

#[cfg(test)]
#[path = "lru_tests.rs"]
mod tests;
