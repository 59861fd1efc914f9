// SPDX-License-Identifier: GPL-2.0

//! Resync extents: keeping resync and application writes out of each other's 16 MiB.
//!
//! A resync (or verify) request locks the extent it works in; an application write to a locked
//! extent waits, else old resync data could overwrite newer application data. DRBD calls this BME.
//!
//! ```text
//!            begin (NO_WRITES)            no AL extent in use
//!   unlocked ────────────────► half locked ────────────────► locked ── last put ──► unlocked
//!                                  │ application write waits: PRIORITY
//!                                  └──► step aside ──► unlocked
//! ```
//!
//! It never blocks: whoever cannot go on is told when to try again, and
//! [`ResyncExtents::take_wake`] says when others may.
//!
//! Invariants: an extent that is half or wholly locked has references; `locked` counts these
//! extents; at most one is half locked by the target and remembered in `waiting`. Changes of the
//! set are committed at once, as it is kept nowhere but in memory.

use core::ops::DerefMut;

use crate::al::Interlock;
use crate::bitmap::{BitSpan, Bitmap, PageFlags};
use crate::store::lru::{self, Lru, FREE};
use crate::units::{AlExtent, RsExtent, SectorRange, AL_EXTENTS_PER_RS_EXTENT};

/// What is known of an extent in the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    left: u32,
    failed: u32,
    no_writes: bool,
    locked: bool,
    priority: bool,
}

impl State {
    /// Bits that are out of sync, as counted when the extent came into the set and kept up since.
    pub const fn left(&self) -> u32 {
        self.left
    }

    /// Bits of these that the resync could not mend.
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// Whether application writes must not begin here.
    pub const fn is_no_writes(&self) -> bool {
        self.no_writes
    }

    /// Whether the resync may work here.
    pub const fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether an application write waits for the resync to leave.
    pub const fn is_priority(&self) -> bool {
        self.priority
    }
}

/// One slot of the set's storage; DRBD has [`crate::limits::RESYNC_EXTENTS`].
pub type Slot = lru::Slot<State>;

/// How far a source's request has come; it belongs to the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceClaim {
    /// Nothing is held.
    #[default]
    Idle,
    /// The extent is half locked by this request.
    Held {
        /// Whether to make room for application writes: resync is above `c-min-rate`.
        steps_aside: bool,
    },
}

/// What a source's request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceBegin {
    /// Go on; put the extent when done.
    Locked,
    /// Try again with the same claim once something was woken.
    Wait,
    /// An application write goes first: try again with the same claim after 100 ms.
    StepAside,
}

/// What a target's request generator is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetBegin {
    /// Go on; put the extent when done.
    Locked,
    /// Try again with the next turn of the generator.
    Later,
    /// The same, and the set is too small for what is going on.
    Starving,
}

/// What kind of knowledge about a range is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The nodes differ, or may.
    OutOfSync,
    /// The nodes are the same.
    InSync,
    /// The resync could not mend it.
    Failed,
}

/// What recording has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marked {
    /// Bits that changed; with [`Mark::Failed`], bits that are set.
    pub bits: u64,
    /// Extents of which nothing more is to be done: a lazy write of the bitmap is worth while.
    pub finished_extents: u32,
}

/// The resync extents of one device.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct ResyncExtents<S> {
    set: Lru<State, S>,
    locked: u32,
    waiting: u32,
    wake: bool,
}

impl<S: DerefMut<Target = [Slot]>> core::hash::Hash for ResyncExtents<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.set.hash(state);
        (self.locked, self.waiting, self.wake).hash(state);
    }
}

impl<S: DerefMut<Target = [Slot]>> ResyncExtents<S> {
    /// An empty set.
    pub fn new(slots: S) -> Self {
        ResyncExtents {
            set: Lru::new(slots, 1),
            locked: 0,
            waiting: FREE,
            wake: false,
        }
    }

    /// Whether something happened, since last asked, for which writes or requests may be waiting.
    pub fn take_wake(&mut self) -> bool {
        core::mem::replace(&mut self.wake, false)
    }

    /// The interlock: whether an application write to this extent may begin. If not, the resync is
    /// asked to step aside; the first one to ask also wakes it.
    pub fn application_may_write(&mut self, extent: AlExtent) -> bool {
        self.interlock(extent) == Interlock::Free
    }

    /// The same in the words of [`crate::al::ActivityLog::begin`].
    pub fn interlock(&mut self, extent: AlExtent) -> Interlock {
        match self.state_mut(extent.rs_extent()) {
            Some(state) if state.no_writes => {
                let first = !core::mem::replace(&mut state.priority, true);
                self.wake |= first;
                Interlock::Busy { first }
            }
            Some(_) | None => Interlock::Free,
        }
    }

    /// Locks an extent for a request that this node answers (sync source, verify target). `weight`
    /// counts the set bits of the extent; `throttle` says whether resync is above `c-min-rate` and
    /// is asked once for each attempt; `al_in_use` is the activity log's.
    pub fn try_begin_source(
        &mut self,
        claim: &mut SourceClaim,
        extent: RsExtent,
        weight: impl FnOnce() -> u32,
        throttle: impl FnOnce() -> bool,
        al_in_use: impl Fn(AlExtent) -> bool,
    ) -> SourceBegin {
        let steps_aside = match *claim {
            SourceClaim::Held { steps_aside } => steps_aside,
            SourceClaim::Idle => {
                if self.locked > self.set.capacity() >> 1 {
                    return SourceBegin::Wait;
                }
                let Ok(ix) = self.get_or_pull_in(extent, weight) else {
                    return SourceBegin::Wait;
                };
                self.forbid_writes(ix);
                if self.state_at(ix).locked {
                    return SourceBegin::Locked;
                }
                let steps_aside = throttle();
                *claim = SourceClaim::Held { steps_aside };
                steps_aside
            }
        };
        let Some(state) = self.state_mut(extent) else {
            // The set was reset under a request that waited: begin anew.
            *claim = SourceClaim::Idle;
            return SourceBegin::Wait;
        };
        if state.locked {
            // Another request for the same extent has got it.
            *claim = SourceClaim::Idle;
            return SourceBegin::Locked;
        }
        if steps_aside && state.priority {
            *claim = SourceClaim::Idle;
            self.put(extent);
            return SourceBegin::StepAside;
        }
        if any_in_use(extent, al_in_use) {
            return SourceBegin::Wait;
        }
        self.lock(extent);
        *claim = SourceClaim::Idle;
        SourceBegin::Locked
    }

    /// Gives up a source's request that waits.
    pub fn abandon_source(&mut self, claim: &mut SourceClaim, extent: RsExtent) {
        match core::mem::take(claim) {
            SourceClaim::Idle => (),
            SourceClaim::Held { .. } => {
                self.put(extent);
            }
        }
    }

    /// Locks an extent for a request that this node generates (sync target, verify source).
    /// `throttle`: resync is above `c-min-rate` and should make room.
    pub fn try_begin_target(
        &mut self,
        extent: RsExtent,
        throttle: bool,
        weight: impl FnOnce() -> u32,
        al_in_use: impl Fn(AlExtent) -> bool,
    ) -> TargetBegin {
        if throttle && self.waiting != extent.0 {
            return TargetBegin::Later;
        }
        if self.waiting != extent.0 {
            self.release_waiting();
        }
        if let Ok(got) = self.set.try_get(extent.0) {
            if self.state_at(got.ix).locked {
                self.waiting = FREE;
                return TargetBegin::Locked;
            }
            if !self.forbid_writes(got.ix) && self.waiting == extent.0 {
                // The half lock of the last attempt has its reference already.
                self.set.put(got.ix);
            }
        } else {
            if self.locked > self.set.capacity().saturating_sub(3) {
                return TargetBegin::Later;
            }
            match self.get_or_pull_in(extent, weight) {
                Ok(ix) => self.forbid_writes(ix),
                Err(lru::Refused::Starving) => return TargetBegin::Starving,
                Err(_) => return TargetBegin::Later,
            };
        }
        if any_in_use(extent, al_in_use) {
            self.waiting = extent.0;
            if throttle {
                self.release_waiting();
            }
            return TargetBegin::Later;
        }
        self.lock(extent);
        self.waiting = FREE;
        TargetBegin::Locked
    }

    /// A request in this extent is done. False if the set knows of none, which is logged.
    pub fn put(&mut self, extent: RsExtent) -> bool {
        let Some(ix) = self.set.find(extent.0) else {
            return false;
        };
        match self.set.put(ix) {
            None => false,
            Some(0) => {
                self.unlock(ix);
                true
            }
            Some(_) => true,
        }
    }

    /// Forgets everything, even what is locked: connection loss, start of a resync. References are
    /// gone too: source claims that wait must be made anew, and no put may follow.
    pub fn cancel_all(&mut self) {
        self.set.reset();
        self.locked = 0;
        self.waiting = FREE;
        self.wake = true;
    }

    /// Empties the set at the end of a resync; false while requests are open: try again in 100 ms.
    pub fn del_all(&mut self) -> bool {
        self.release_waiting();
        for ix in 0..self.set.capacity() {
            match self.set.slot(ix) {
                Some(slot) if slot.number() == FREE => (),
                Some(slot) if slot.refs() > 0 => return false,
                Some(_) | None => {
                    self.set.del(ix);
                }
            }
        }
        self.wake = true;
        true
    }

    /// Records in bitmap and set what became known about a range, rounding as `mark` demands. The
    /// bitmap's size is the device's; what lies behind it is ignored.
    pub fn record<W, F>(
        &mut self,
        bitmap: &mut Bitmap<W, F>,
        range: SectorRange,
        mark: Mark,
    ) -> Marked
    where
        W: DerefMut<Target = [u64]>,
        F: DerefMut<Target = [PageFlags]>,
    {
        let mut marked = Marked::default();
        let span = match mark {
            Mark::OutOfSync | Mark::Failed => BitSpan::outward(range, bitmap.capacity()),
            Mark::InSync => BitSpan::inward(range, bitmap.capacity()),
        };
        for (extent, part) in span.into_iter().flat_map(BitSpan::per_rs_extent) {
            let bits = match mark {
                Mark::OutOfSync => bitmap.set(part),
                Mark::InSync => bitmap.clear(part),
                Mark::Failed => bitmap.count(part),
            };
            if bits == 0 {
                continue;
            }
            marked.bits = marked.bits.saturating_add(bits);
            let bits = crate::units::saturate_u32(bits);
            if self.note(extent, bits, mark, || bitmap.count_in(extent)) {
                marked.finished_extents = marked.finished_extents.saturating_add(1);
            }
        }
        self.wake |= marked.bits > 0;
        marked
    }

    /// Keeps the counts of one extent; `weight` is its present number of set bits. Returns whether
    /// nothing is left to do in it.
    fn note(
        &mut self,
        extent: RsExtent,
        bits: u32,
        mark: Mark,
        weight: impl FnOnce() -> u32,
    ) -> bool {
        let (ix, got) = match mark {
            // Needs no place in the set, only the count kept if it has one.
            Mark::OutOfSync => (self.set.find(extent.0), false),
            Mark::InSync | Mark::Failed => match self.set.get(extent.0) {
                Ok(got) => {
                    if got.changed {
                        self.came_in(got.ix, 0);
                    }
                    (Some(got.ix), true)
                }
                Err(_) => (None, false),
            },
        };
        let Some(state) = ix.and_then(|ix| self.set.payload_mut(ix)) else {
            return false;
        };
        // Counted anew, as a running difference drifts where the bitmap is changed elsewhere.
        state.left = weight();
        if mark == Mark::Failed {
            state.failed = state.failed.saturating_add(bits);
        }
        let finished = state.left <= state.failed;
        if finished {
            state.failed = 0;
        }
        if let (true, Some(ix)) = (got, ix) {
            self.set.put(ix);
        }
        finished
    }

    /// The state of an extent that is in the set.
    pub fn state(&self, extent: RsExtent) -> Option<State> {
        let ix = self.set.find(extent.0)?;
        self.set.slot(ix).map(|slot| *slot.payload())
    }

    /// Whether an application write waits for the resync in this extent: such a request of the
    /// peer's is not delayed by the throttle.
    pub fn is_priority(&self, extent: RsExtent) -> bool {
        self.state(extent).is_some_and(|state| state.priority)
    }

    /// Number of extents that are half or wholly locked.
    pub fn locked(&self) -> u32 {
        self.locked
    }

    /// The slots with their statistics, for `/proc/drbd` and debugfs.
    pub fn set(&self) -> &Lru<State, S> {
        &self.set
    }

    fn state_mut(&mut self, extent: RsExtent) -> Option<&mut State> {
        let ix = self.set.find(extent.0)?;
        self.set.payload_mut(ix)
    }

    fn state_at(&self, ix: u32) -> State {
        self.set
            .slot(ix)
            .map_or(State::default(), |slot| *slot.payload())
    }

    fn get_or_pull_in(
        &mut self,
        extent: RsExtent,
        weight: impl FnOnce() -> u32,
    ) -> Result<u32, lru::Refused> {
        let got = self.set.get(extent.0)?;
        if got.changed {
            self.came_in(got.ix, weight());
            self.wake = true;
        }
        Ok(got.ix)
    }

    fn came_in(&mut self, ix: u32, weight: u32) {
        if let Some(state) = self.set.payload_mut(ix) {
            *state = State {
                left: weight,
                ..State::default()
            };
        }
        self.set.committed();
        self.set.unlock();
    }

    /// Half locks; returns whether it was not before.
    fn forbid_writes(&mut self, ix: u32) -> bool {
        let Some(state) = self.set.payload_mut(ix) else {
            return false;
        };
        let new = !core::mem::replace(&mut state.no_writes, true);
        if new {
            self.locked = self.locked.saturating_add(1);
        }
        new
    }

    fn lock(&mut self, extent: RsExtent) {
        if let Some(state) = self.state_mut(extent) {
            state.locked = true;
        }
    }

    fn unlock(&mut self, ix: u32) {
        if let Some(state) = self.set.payload_mut(ix) {
            if state.no_writes {
                self.locked = self.locked.saturating_sub(1);
            }
            state.no_writes = false;
            state.locked = false;
            state.priority = false;
        }
        self.wake = true;
    }

    /// Lets go of the extent that the target has half locked, if any.
    pub fn release_waiting(&mut self) {
        let extent = core::mem::replace(&mut self.waiting, FREE);
        if extent != FREE {
            self.put(RsExtent(extent));
        }
    }
}

fn any_in_use(extent: RsExtent, al_in_use: impl Fn(AlExtent) -> bool) -> bool {
    let first = extent.0.saturating_mul(AL_EXTENTS_PER_RS_EXTENT);
    (first..first.saturating_add(AL_EXTENTS_PER_RS_EXTENT)).any(|al| al_in_use(AlExtent(al)))
}

#[cfg(test)]
#[path = "resync_extents_tests.rs"]
mod tests;
