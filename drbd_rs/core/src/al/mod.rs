// SPDX-License-Identifier: GPL-2.0

//! The activity log: which 4 MiB extents may differ between the nodes after a crash.
//!
//! A write may go to a disk, here or there, only while its extents are in the log on stable
//! storage. The log is a set of slots; a write whose extent is missing exchanges a slot's extent,
//! up to 64 of these exchanges form one transaction, and the write waits for it.
//!
//! ```text
//!  Claim::new ──begin──► Ready            submit now
//!                  ├───► NeedTransaction  transaction() → write → commit() → submit
//!                  ├───► Wait(why)        begin again after the next commit or put
//!                  └───► NotNeeded        submit now, nothing to put
//! ```
//!
//! It never blocks and keeps no list of waiters. Whoever was told `NeedTransaction` is ready after
//! the next `commit`: while a transaction is being written no further exchange is accepted, so that
//! commit is the one that covers it.
//!
//! Invariant: a slot's committed extent is the one that the ring on disk says; context and updates
//! of a transaction are taken from the set while it is locked.
//!
//! Not here: the order of writes. Before the block of a [`Tx`] is written, the bitmap pages of
//! [`Tx::evicted`] must be stable; the data may follow only behind the block.

use core::ops::DerefMut;

use crate::limits::{AL_CONTEXT_PER_TRANSACTION, AL_UPDATES_PER_TRANSACTION};
use crate::meta::al_block;
use crate::store::lru::{self, Lru, FREE};
use crate::units::{saturate_u32, AlExtent, SectorRange};

/// One slot of the log's storage. With the label goes the number of references that rest.
pub type Slot = lru::Slot<u32>;

/// The extents that one request needs, and how many of them it has. Belongs to the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    first: u32,
    /// Extents held are `first..next`.
    next: u32,
    last: u32,
    /// See [`ActivityLog::rest`].
    rests: bool,
}

impl Claim {
    /// A claim on the extents of `range`, none of them held yet. An empty range claims one.
    pub const fn new(range: SectorRange) -> Claim {
        let (first, last) = range.al_extents();
        Claim {
            first: first.0,
            next: first.0,
            last: last.0,
            rests: false,
        }
    }

    /// Whether it holds references that must be given back.
    pub const fn is_holding(&self) -> bool {
        self.next > self.first
    }

    /// The extents it is about.
    pub fn extents(&self) -> impl Iterator<Item = AlExtent> {
        (self.first..=self.last).map(AlExtent)
    }
}

/// What the resync says about writing to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interlock {
    /// It does not mind.
    Free,
    /// It is working there. It was asked to make room, and `first` says that nobody had asked
    /// before: wake whoever waits for that.
    Busy {
        /// Whether this was the first one to ask.
        first: bool,
    },
}

/// Why a claim has to wait. What it has got so far it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The resync works in the 16 MiB around; it was asked to make room.
    Resync {
        /// Whether this was the first one to ask.
        first: bool,
    },
    /// Every slot is in use: until some request puts its extents.
    Starving,
    /// A transaction is being written, or the log is frozen: until it is committed or thawed.
    Locked,
    /// The transaction has no room for another exchange: write it first.
    Full,
}

/// The outcome of [`ActivityLog::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Begin {
    /// All extents are held and on stable storage.
    Ready,
    /// All extents are held; the request may go on after the next commit.
    NeedTransaction,
    /// Not all extents could be had; begin again with the same claim.
    Wait(Wait),
    /// The log is suspended: nothing is held and nothing needs to be.
    NotNeeded,
}

/// One exchange of a slot's extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Update {
    /// Slot number.
    pub slot: u16,
    /// The extent it gets.
    pub new: AlExtent,
    /// The extent it loses, if it had one.
    pub old: Option<AlExtent>,
}

/// A transaction: the exchanges that the next commit makes valid. About 1 KiB: it is filled where
/// it stays, and not passed around.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Tx {
    number: u32,
    context_start: u32,
    durable: bool,
    len: usize,
    updates: [Update; al_block::UPDATES],
}

impl core::hash::Hash for Tx {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.number, self.context_start, self.durable, self.len).hash(state);
        self.updates().for_each(|update| update.hash(state));
    }
}

impl Default for Tx {
    fn default() -> Tx {
        Tx::new()
    }
}

impl Tx {
    /// No exchanges.
    pub const fn new() -> Tx {
        Tx {
            number: 0,
            context_start: 0,
            durable: false,
            len: 0,
            updates: [Update {
                slot: 0,
                new: AlExtent(0),
                old: None,
            }; al_block::UPDATES],
        }
    }

    /// Number of the transaction, which gives its place in the ring.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Whether bitmap pages and block are to be written. False with `al-updates no`: commit at
    /// once.
    pub const fn is_durable(&self) -> bool {
        self.durable
    }

    /// The exchanges.
    pub fn updates(&self) -> impl Iterator<Item = &Update> {
        self.updates.get(..self.len).unwrap_or(&self.updates).iter()
    }

    /// The extents that leave the log. Their changed bitmap pages must be stable before the block
    /// is written; nothing to do if the transaction is not durable.
    pub fn evicted(&self) -> impl Iterator<Item = AlExtent> + '_ {
        self.updates()
            .filter(|_| self.durable)
            .filter_map(|update| update.old)
    }
}

/// The activity log of one device.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct ActivityLog<S> {
    lru: Lru<u32, S>,
    number: u32,
    context_start: u32,
    writes: u32,
    in_flight: bool,
    suspended: bool,
    durable: bool,
    /// How many transactions it takes until the ring on disk names all that is in the log; some
    /// were not written (`al-updates no`).
    stale: Option<u32>,
}

impl<S: DerefMut<Target = [Slot]>> core::hash::Hash for ActivityLog<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.lru.hash(state);
        (self.number, self.context_start).hash(state);
        (self.in_flight, self.suspended, self.durable).hash(state);
    }
}

impl<S: DerefMut<Target = [Slot]>> ActivityLog<S> {
    /// An empty log with one slot for every slot of the storage (`al-extents`).
    pub fn new(slots: S) -> Self {
        ActivityLog {
            lru: Lru::new(slots, AL_UPDATES_PER_TRANSACTION),
            number: 0,
            context_start: 0,
            writes: 0,
            in_flight: false,
            suspended: false,
            durable: true,
            stale: None,
        }
    }

    /// The fast path: takes a request that lies in one extent which is in the log already. `None`:
    /// use [`ActivityLog::begin`].
    pub fn try_begin(
        &mut self,
        range: SectorRange,
        mut interlock: impl FnMut(AlExtent) -> Interlock,
    ) -> Option<Claim> {
        let mut claim = Claim::new(range);
        if claim.first != claim.last
            || self.suspended
            || interlock(AlExtent(claim.first)) != Interlock::Free
        {
            return None;
        }
        self.lru.try_get(claim.first).ok()?;
        claim.next = claim.next.saturating_add(1);
        Some(claim)
    }

    /// Takes all extents of the claim that it does not hold yet. `interlock` is asked for each of
    /// these before the first one is taken, save those whose resync extent it is in already.
    pub fn begin(
        &mut self,
        claim: &mut Claim,
        mut interlock: impl FnMut(AlExtent) -> Interlock,
    ) -> Begin {
        if self.suspended && !claim.is_holding() {
            return Begin::NotNeeded;
        }
        // Where the claim holds an extent the resync cannot get hold of the 16 MiB around: it waits
        // for this claim, so this claim must not wait for it.
        let held = claim
            .next
            .checked_sub(1)
            .filter(|_| claim.is_holding())
            .map(|extent| AlExtent(extent).rs_extent());
        for extent in claim.next..=claim.last {
            if held == Some(AlExtent(extent).rs_extent()) {
                continue;
            }
            if let Interlock::Busy { first } = interlock(AlExtent(extent)) {
                return Begin::Wait(Wait::Resync { first });
            }
        }
        for extent in claim.next..=claim.last {
            match self.lru.get_cumulative(extent) {
                Ok(_) => claim.next = extent.saturating_add(1),
                Err(lru::Refused::Starving) => return Begin::Wait(Wait::Starving),
                Err(lru::Refused::PendingFull) => return Begin::Wait(Wait::Full),
                // The other two do not occur with a cumulative get of a real extent.
                Err(lru::Refused::Locked | lru::Refused::Uncommitted | lru::Refused::Miss) => {
                    return Begin::Wait(Wait::Locked)
                }
            }
        }
        if self.is_stable(claim) {
            Begin::Ready
        } else {
            Begin::NeedTransaction
        }
    }

    /// Whether all that the claim is about is held and committed.
    pub fn is_stable(&self, claim: &Claim) -> bool {
        claim.next > claim.last
            && (claim.first..=claim.last).all(|extent| self.lru.find(extent).is_some())
    }

    /// Gives back whatever the claim holds; also for a request that is given up while it waits.
    /// Waiters with [`Wait::Starving`] may begin again. Returns false if the log did not know an
    /// extent, which is a fault of the caller's.
    pub fn put(&mut self, claim: &mut Claim) -> bool {
        let mut known = true;
        for extent in claim.first..claim.next {
            let ix = self.slot_of(extent);
            if let Some(resting) = ix.and_then(|ix| self.lru.payload_mut(ix)) {
                *resting = resting.saturating_sub(u32::from(claim.rests));
            }
            known &= ix.and_then(|ix| self.lru.put(ix)).is_some();
        }
        claim.next = claim.first;
        claim.rests = false;
        known
    }

    /// What the claim is for is on both disks, and only the end of its epoch is waited for. The
    /// extents stay in the log, as the peer may still lose that, but nothing is under way there.
    pub fn rest(&mut self, claim: &mut Claim) {
        if claim.rests || !claim.is_holding() {
            return;
        }
        claim.rests = true;
        for extent in claim.first..claim.next {
            let ix = self.slot_of(extent);
            if let Some(resting) = ix.and_then(|ix| self.lru.payload_mut(ix)) {
                *resting = resting.saturating_add(1);
            }
        }
    }

    /// The slot of an extent, committed or not.
    fn slot_of(&self, extent: u32) -> Option<u32> {
        let mut changing = self.lru.changes();
        self.lru.find(extent).or_else(|| {
            let new = changing.find(|(_, slot)| slot.new_number() == extent);
            new.map(|(ix, _)| ix)
        })
    }

    /// Fixes the exchanges that wait in `tx`, so that they can be written. False if there are none,
    /// or if a transaction is in flight or the log is frozen. End it with [`ActivityLog::commit`].
    pub fn transaction(&mut self, tx: &mut Tx) -> bool {
        self.lru.pending() != 0 && self.fix(tx)
    }

    /// Like [`ActivityLog::transaction`], but also without an exchange: it then only repeats a part
    /// of the log. For writing the whole ring anew, once for each of its blocks, also with
    /// `al-updates no`: what drbdmeta finds there has to be a log.
    pub fn rewrite_step(&mut self, tx: &mut Tx) -> bool {
        let fixed = self.fix(tx);
        tx.durable |= fixed;
        fixed
    }

    fn fix(&mut self, tx: &mut Tx) -> bool {
        if !self.lru.try_lock_for_transaction() {
            return false;
        }
        self.in_flight = true;
        tx.number = self.number;
        tx.context_start = self.context_start;
        tx.durable = self.durable;
        tx.len = 0;
        for (to, (ix, slot)) in tx.updates.iter_mut().zip(self.lru.changes()) {
            *to = Update {
                slot: u16::try_from(ix).unwrap_or(u16::MAX),
                new: AlExtent(slot.new_number()),
                old: Some(AlExtent(slot.number())).filter(|old| old.0 != FREE),
            };
            tx.len = tx.len.saturating_add(1);
        }
        true
    }

    /// Writes the block of a transaction that is in flight.
    pub fn encode(&self, tx: &Tx, block: &mut [u8; 4096]) {
        let slots = self.lru.capacity();
        let from = tx.context_start..slots;
        let context = from.map(|ix| self.lru.slot(ix).map_or(FREE, lru::Slot::number));
        al_block::encode(
            &al_block::Header {
                number: tx.number,
                kind: al_block::Kind::Update,
                slots: u16::try_from(slots).unwrap_or(u16::MAX),
                context_start: u16::try_from(tx.context_start).unwrap_or(u16::MAX),
            },
            tx.updates().map(|update| (update.slot, update.new.0)),
            context,
            block,
        );
    }

    /// The transaction has ended; its exchanges are valid and new ones are accepted. `written`: its
    /// block is stable. If that failed, the disk has to be given up, yet the requests must be able
    /// to go on (to the peer), so that the exchanges become valid in memory all the same.
    pub fn commit(&mut self, tx: &Tx, written: bool) {
        debug_assert!(self.in_flight && tx.number == self.number);
        if written && tx.durable {
            self.number = self.number.wrapping_add(1);
            self.writes = self.writes.wrapping_add(1);
            let next = tx.context_start.saturating_add(AL_CONTEXT_PER_TRANSACTION);
            self.context_start = if next >= self.lru.capacity() { 0 } else { next };
            self.stale = self.stale.map(|left| left.saturating_sub(1));
        }
        self.lru.committed();
        self.lru.unlock();
        self.in_flight = false;
    }

    /// Stops all exchanges, to empty the log; refused while anything is going on in it.
    pub fn try_freeze(&mut self) -> bool {
        self.lru.try_lock()
    }

    /// Forgets all extents that nobody uses. True once the log is empty; else repeat after a put.
    /// The log must be frozen.
    pub fn shrink(&mut self) -> bool {
        debug_assert!(self.lru.is_locked());
        for ix in 0..self.lru.capacity() {
            self.lru.del(ix);
        }
        self.lru.slots().all(|(_, slot)| slot.number() == FREE)
    }

    /// Allows exchanges again after [`ActivityLog::try_freeze`].
    pub fn thaw(&mut self) {
        debug_assert!(!self.in_flight);
        self.lru.unlock();
    }

    /// Whether writes go without the log (flag `s` of `/proc/drbd`).
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Lets writes go without the log, or not any more. To suspend, it must be empty.
    pub fn set_suspended(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// Whether transactions are written (`al-updates`). Takes effect with the next transaction.
    /// From then on the log is stale until the ring on disk was caught up with.
    pub fn set_updates(&mut self, durable: bool) {
        if durable && !self.durable {
            let parts = self.lru.capacity().div_ceil(AL_CONTEXT_PER_TRANSACTION);
            self.stale = Some(parts.max(1));
        }
        self.durable = durable;
    }

    /// Whether the ring on disk lacks extents that are in the log.
    pub const fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Like [`ActivityLog::transaction`], also without an exchange, if the ring on disk lacks
    /// something.
    pub fn catch_up(&mut self, tx: &mut Tx) -> bool {
        let behind = self.stale.is_some_and(|left| left != 0);
        self.durable && behind && self.fix(tx)
    }

    /// True once, when the ring on disk has all that is in the log.
    pub fn caught_up(&mut self) -> bool {
        let done = self.stale == Some(0);
        if done {
            self.stale = None;
        }
        done
    }

    /// Whether somebody writes to this extent, be it committed or not.
    pub fn is_used(&self, extent: AlExtent) -> bool {
        self.lru.is_used(extent.0)
    }

    /// Whether a write to this extent is under way: not all who use it rest.
    pub fn is_busy(&self, extent: AlExtent) -> bool {
        let slot = self.slot_of(extent.0).and_then(|ix| self.lru.slot(ix));
        slot.is_some_and(|slot| slot.refs() > *slot.payload())
    }

    /// Number of extents in use: `congestion-extents` is compared with it.
    pub fn used(&self) -> u32 {
        self.lru.used()
    }

    /// Number of exchanges that wait for a transaction.
    pub fn pending(&self) -> u32 {
        self.lru.pending()
    }

    /// Whether a transaction is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// Transactions written: `al:` of `/proc/drbd`.
    pub fn writes(&self) -> u32 {
        self.writes
    }

    /// Number of the next transaction.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The slots with their statistics, for `/proc/drbd` and debugfs.
    pub fn set(&self) -> &Lru<u32, S> {
        &self.lru
    }

    /// Puts an empty log of another size in the place of this one, which must be empty, and returns
    /// the old storage. The number of the next transaction goes on.
    ///
    /// # Errors
    /// Gives `slots` back if the log still has extents or a transaction is in flight.
    pub fn replace(&mut self, slots: S) -> Result<S, S> {
        let empty = self.lru.slots().all(|(_, slot)| slot.new_number() == FREE);
        if self.in_flight || !empty {
            return Err(slots);
        }
        let new = Lru::new(slots, AL_UPDATES_PER_TRANSACTION);
        self.context_start = 0;
        Ok(core::mem::replace(&mut self.lru, new).into_storage())
    }

    /// Number of slots (`al-extents`).
    pub fn capacity(&self) -> u32 {
        saturate_u32(u64::from(self.lru.capacity()))
    }
}

#[cfg(test)]
mod tests;
