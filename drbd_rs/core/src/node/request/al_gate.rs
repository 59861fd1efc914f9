// SPDX-License-Identifier: GPL-2.0

//! Writes wait here until the activity log covers them on stable storage.
//!
//! A hit in one extent goes on at once. The rest queues up; together they form one transaction
//! (`meta_io.rs` writes it), and all that it covers go on when it is committed. A disk that fails
//! meanwhile needs no log: its requests go on to the peer alone.

use super::request::Stage;
use super::transfer_log::Queue;
use super::UNIT;

use super::super::io::{AppOp, Host, VolIx};
use super::super::{After, Backing, Resource, Store};
use crate::al::{Begin, Claim, Wait};
use crate::state::meta_flags;
use crate::store::slab::Id;

/// Asks the log for all extents of a claim.
pub(super) fn begin<S: Store>(backing: &mut Backing<S>, claim: &mut Claim) -> Begin {
    let Backing { al, extents, .. } = backing;
    al.begin(claim, |extent| extents.interlock(extent))
}

impl<S: Store> Resource<S> {
    /// A write that overlaps no other: on at once, or to the queue of the log.
    pub(super) fn enter_log(&mut self, vol: VolIx, id: Id, h: &mut impl Host) {
        let has_disk = self.io_has_disk(vol);
        self.name_log(vol);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        let (op, range) = (r.io.op, r.io.range);
        let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
            return;
        };
        let Some(b) = v.backing.as_mut().filter(|_| has_disk) else {
            self.launch(id, h);
            return;
        };
        if op == AppOp::Write {
            let Backing { al, extents, .. } = &mut *b;
            if let Some(claim) = al.try_begin(range, |extent| extents.interlock(extent)) {
                r.claim = claim;
                r.log_of = b.meta_io.instance;
                self.launch(id, h);
                return;
            }
        }
        r.claim = Claim::new(range);
        r.log_of = b.meta_io.instance;
        r.stage = Stage::ActivityLog;
        v.io.al_wait.push_back(&mut self.io.requests, id);
    }

    /// Gives the log another try for all that wait; true if room ran out.
    #[inline(never)]
    pub(super) fn al_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let has_disk = self.io_has_disk(vol);
        if !has_disk && self.release_from_log(vol, h) {
            return true;
        }
        let waiting = self.io_vol(vol).map_or(0, |v| v.io.al_wait.len());
        let mut stuck = Queue::EMPTY;
        let mut full = false;
        for _ in 0..waiting {
            if h.room() < UNIT {
                full = true;
                break;
            }
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                break;
            };
            let Some(b) = v.backing.as_mut() else { break };
            let Some(id) = v.io.al_wait.front() else {
                break;
            };
            let Some(r) = self.io.requests.get_mut(id) else {
                break;
            };
            let outcome = begin(b, &mut r.claim);
            if let Begin::Wait(Wait::Starving | Wait::Locked | Wait::Full) = outcome {
                break;
            }
            v.io.al_wait.pop_front(&mut self.io.requests);
            match outcome {
                Begin::Ready | Begin::NotNeeded => self.launch(id, h),
                Begin::NeedTransaction => {
                    if let Some(r) = self.io.requests.get_mut(id) {
                        r.stage = Stage::Transaction;
                    }
                    v.io.al_tx.push_back(&mut self.io.requests, id);
                }
                Begin::Wait(_) => stuck.push_back(&mut self.io.requests, id),
            }
        }
        // Those that wait for the resync keep their turn.
        self.put_back(vol, stuck);
        full || self.start_transaction(vol, h)
    }

    fn put_back(&mut self, vol: VolIx, mut stuck: Queue) {
        if stuck.is_empty() {
            return;
        }
        let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
            return;
        };
        while let Some(id) = v.io.al_wait.pop_front(&mut self.io.requests) {
            stuck.push_back(&mut self.io.requests, id);
        }
        v.io.al_wait = stuck;
    }

    /// The transaction has ended: what it covers goes on; true if room ran out.
    pub(super) fn al_committed(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                return false;
            };
            let Some(id) = v.io.al_tx.front() else {
                return false;
            };
            let stable = match (v.backing.as_ref(), self.io.requests.get(id)) {
                (Some(b), Some(r)) => b.al.is_stable(&r.claim),
                (None, _) | (_, None) => true,
            };
            if !stable {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            v.io.al_tx.pop_front(&mut self.io.requests);
            self.launch(id, h);
        }
    }

    /// The bits are in memory: until the superblock says that the activity log counts, nothing on
    /// the disk tells of a write. The C driver does not wait for that, neither with what a Primary
    /// without a disk writes here, nor with the first writes of a node that has just been promoted.
    /// True: it has to be stored first.
    pub(super) fn log_is_unknown(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let Some(b) = self.io_backing(vol) else {
            return false;
        };
        let counts = b.disk.flags & meta_flags::PRIMARY_IND != 0;
        if !counts || b.meta_io.log_counts {
            return false;
        }
        if !b.meta_io.superblock_in_flight {
            self.md_sync(vol, After::Nothing, h);
        }
        true
    }

    /// There is no disk any more that could get out of step: nothing needs the log.
    fn release_from_log(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                return false;
            };
            if v.io.al_wait.is_empty() && v.io.al_tx.is_empty() {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            let id = match v.io.al_tx.pop_front(&mut self.io.requests) {
                Some(id) => Some(id),
                None => v.io.al_wait.pop_front(&mut self.io.requests),
            };
            if let Some(id) = id {
                self.launch(id, h);
            }
        }
    }
}
