// SPDX-License-Identifier: GPL-2.0

//! Writes that were meant for both disks, and are on the own one alone.
//!
//! The peer refuses a write as soon as its disk has failed; why, it says only after its helper
//! local-io-error is done. A generation of data that begins with its word is late: should the own
//! disk fail meanwhile, what applications know of is on a disk that is gone, and the peer's, back
//! with the same UUID, passes for the data in use. So nobody hears of such a write before a
//! generation is stored that the peer's disk does not have. The C driver tells at once.
//!
//! Not for a discard: that a disk cannot do that costs it nothing, and what was discarded is
//! undefined.

use super::request::{Answer, Local, Request, Stage};
use super::UNIT;

use super::super::io::{AppOp, Host, VolIx};
use super::super::{Resource, Store, Volume};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;

impl Request {
    /// The peer does not have the data that the own disk has.
    fn is_here_alone(&self) -> bool {
        let missed = matches!(self.net.answer(), Some(Answer::Refused | Answer::Lost));
        let data = matches!(self.io.op, AppOp::Write | AppOp::WriteZeroes { .. });
        missed && data && self.io.range.len.0 != 0 && self.local == Local::Ok
    }
}

impl<S: Store> Resource<S> {
    /// Whether the application has to wait as a write is here alone, in a generation that the peer
    /// has as well.
    pub(super) fn awaits_generation(&mut self, r: &Request, h: &mut impl Host) -> bool {
        let waits = r.is_here_alone() && self.parts_from_peer(r.vol, h);
        if let Some(v) = self.io_vol_mut(r.vol).filter(|_| waits) {
            v.io.alone = true;
        }
        waits
    }

    /// Begins a generation that the peer does not have, unless its copy is known to be bad. True:
    /// that is not stored yet.
    fn parts_from_peer(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let s = self.io_state(vol);
        let known = matches!(s.pdsk, Disk::Inconsistent | Disk::Outdated);
        let good = s.role.is_primary() && s.disk == Disk::UpToDate;
        let meets = s.conn <= Conn::Connected || s.begins_as_source();
        good && !known && meets && self.separates(vol, s, h)
    }

    /// Sees to it that what is written to a good disk of a Primary belongs to a generation that
    /// the peer does not have. True: that is not stored yet, or has to wait.
    pub(super) fn separates(&mut self, vol: VolIx, s: State, h: &mut impl Host) -> bool {
        let shared = !s.begins_as_source() || self.peer_shares_generation(vol);
        let Some(v) = self.io_vol(vol) else {
            return false;
        };
        let fresh = v.backing.as_ref().is_some_and(|b| b.disk.uuids.bitmap == 0) && shared;
        if fresh && s.conn == Conn::WFReportParams {
            // The two are about to compare what they have been told, if need be in a size that both
            // can have. Should that wait for the end of what waits here, neither would come to an
            // end: the generation comes first then, and the next connection goes by that.
            if v.ctl.resize.is_some_and(|resize| resize.waits_for_io()) {
                self.connect_anew(h);
            }
            return true;
        }
        if fresh && !v.io.generation {
            self.start_generation(vol, h);
        }
        // It may have begun when the peer was lost. Should this node lose its power before it is
        // stored, the peer, once it is promoted, passes for the one that went on alone.
        self.io_vol(vol).is_some_and(|v| v.io.generation) || self.md_begins(vol)
    }

    /// Begins a generation for what the peer has refused, also if the application knew before, and
    /// goes on with what waited for one; true if room ran out.
    #[inline(never)]
    pub(super) fn alone_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let marked = |v: &Volume<S>| v.backing.as_ref().is_some_and(|b| b.bitmap.weight() != 0);
        let due = |v: &Volume<S>| v.io.alone || v.ctl.peer_lacks && marked(v);
        if !self.io_vol(vol).is_some_and(due) {
            return false;
        }
        if h.room() < UNIT {
            return true;
        }
        if self.parts_from_peer(vol, h) || self.awaits_peer(vol, h.now()) {
            return false;
        }
        let waited = self
            .io_vol_mut(vol)
            .is_some_and(|v| core::mem::take(&mut v.io.alone));
        let mut at = self.io.log.oldest().filter(|_| waited);
        while let Some(id) = at {
            let Some(r) = self.io.requests.get(id) else {
                break;
            };
            at = r.newer;
            let open = r.stage == Stage::Active && !r.completed;
            if r.vol != vol || !open || !(r.is_here_alone() || r.is_at_peer_alone()) {
                continue;
            }
            if h.room() < UNIT {
                if let Some(v) = self.io_vol_mut(vol) {
                    v.io.alone = true;
                }
                return true;
            }
            self.settle(id, h);
        }
        false
    }
}
