// SPDX-License-Identifier: GPL-2.0

//! Pausing, going on, giving up; and which volume waits for which (`resync-after`).
//!
//! The state is changed elsewhere; this part compares it with what it saw last and follows.

use crate::resync_after::{must_wait, Posted};
use crate::state::{conn, disk};
use crate::units::Minor;

use super::super::control::{Flags, StateChange};
use super::super::io::{Effect, Host, VolIx};
use super::super::{Note, Resource, Store, PEER};
use super::{is_active, resyncs, Kind, Slot, Stage};

impl<S: Store> Resource<S> {
    /// Follows what the state of a volume has become.
    pub(super) fn follow_state(&mut self, vol: VolIx, h: &mut impl Host) {
        self.start_needs_disks(vol);
        self.release_verified(vol);
        let conn = self.rs_conn(vol);
        let now = h.now();
        let Some(rs) = self.rs_mut(vol) else { return };
        let seen = core::mem::replace(&mut rs.seen, conn);
        if seen == conn {
            return;
        }
        let paused = |c| matches!(c, conn::State::PausedSyncS | conn::State::PausedSyncT);
        if is_active(seen) && (!is_active(conn) || paused(conn)) {
            // Nobody goes on with the extent that the generator waited for, and writes of
            // applications wait until it does. The C driver lets them wait.
            if let Some((_, disk)) = self.rs_disk_mut(vol) {
                disk.extents.release_waiting();
            }
        }
        let Some(rs) = self.rs_mut(vol) else { return };
        match (resyncs(seen), resyncs(conn)) {
            (true, true) if paused(seen) && !paused(conn) => {
                rs.marks.resume(now);
                rs.target.arm(now);
                self.rs_log(vol, Note::ResyncContinues, h);
            }
            (_, true) if !paused(seen) && paused(conn) => {
                rs.marks.pause(now);
                self.rs_log(vol, Note::ResyncSuspended, h);
            }
            (true | false, true) => {}
            (true | false, false) if is_active(seen) && !is_active(conn) => {
                rs.target.disarm();
                rs.finish.forget();
                rs.told_done = None;
                if seen.is_verify() {
                    rs.marks.end();
                }
                if matches!(seen, conn::State::SyncSource | conn::State::PausedSyncS) {
                    self.drop_requests(vol);
                } else if resyncs(seen) && conn == conn::State::Behind {
                    rs.give_up_pending();
                }
            }
            (true | false, false) => {}
        }
    }

    /// The connection is gone, or a disk: the resync is over. What is under way on the local disk
    /// is waited for ([`Resource::resync_idle`]); without a connection it has no consequences,
    /// with one it is still answered for, as the peer holds extents until then.
    pub(crate) fn cancel_resync(&mut self, vol: VolIx, h: &mut impl Host) {
        let stands = self.connected(PEER).is_some();
        let exchanges = matches!(
            self.rs_conn(vol),
            conn::State::WFBitMapS | conn::State::WFBitMapT
        );
        if !stands || !exchanges {
            self.exchange_cancel(vol, stands, h);
        }
        if !stands {
            self.abandon_slots(vol);
        }
        let Some(rs) = self.rs_mut(vol) else { return };
        (rs.pending, rs.doubted, rs.late) = (0, 0, 0);
        if !stands {
            rs.spare = 0;
        }
        rs.marks.end();
        rs.target.disarm();
        rs.finish.forget();
        let owed = !stands && rs.start.owes_growth();
        rs.start.cancel();
        rs.source.forget();
        rs.verify.asked = false;
        rs.abandon_offers();
        self.cancel_extents(vol);
        self.owe_growth(vol, owed);
    }

    /// A resync is over as the peer has lost its disk: it has forgotten what it asked for. Should
    /// it have a disk again when a block was read here, that would be answered in the middle of
    /// another resync, and the block, which nobody protects any more, be older than writes sent
    /// before it. The C driver sends it.
    fn drop_requests(&mut self, vol: VolIx) {
        let gone = self.rs_vol(vol).is_some_and(|v| {
            v.state.conn >= conn::State::Connected && v.state.pdsk < disk::State::Inconsistent
        });
        let Some((rs, _)) = self.rs_disk_mut(vol).filter(|_| gone) else {
            return;
        };
        let asked = |s: &&mut Slot| matches!(s.kind, Kind::Data | Kind::Thin | Kind::Compare);
        for slot in rs.slots.iter_mut().filter(asked) {
            match slot.stage {
                Stage::Waiting => *slot = Slot::FREE,
                Stage::Reading | Stage::Examining => slot.current = false,
                Stage::Free
                | Stage::Examined { .. }
                | Stage::Sending
                | Stage::Writing
                | Stage::Written
                | Stage::Flushing
                | Stage::Durable
                | Stage::Lost
                | Stage::Dropped => {}
            }
        }
        rs.source.forget();
        self.cancel_extents(vol);
    }

    /// A verify is over, and the peer has lost its disk. Each block that it was asked for keeps its
    /// extent locked until the answer is here; but the peer's next write, which has to go through
    /// the activity log from now on, would wait for that extent, and in front of the answer. So it
    /// does with the C driver, for ever. Nothing is compared any more: the verdicts that are still
    /// to be given concern nobody here.
    fn release_verified(&mut self, vol: VolIx) {
        let gone = self.peer_gave_up_disk(vol);
        let Some((rs, _)) = self.rs_disk_mut(vol).filter(|_| gone) else {
            return;
        };
        if !core::mem::take(&mut rs.verify.asked) {
            return;
        }
        rs.pending = 0;
        for slot in rs.slots.iter_mut().filter(|s| s.kind == Kind::Judge) {
            slot.current = false;
        }
        self.cancel_extents(vol);
    }

    fn abandon_slots(&mut self, vol: VolIx) {
        let Some(rs) = self.rs_mut(vol) else { return };
        for slot in &mut rs.slots {
            slot.current = false;
            match slot.stage {
                Stage::Free
                | Stage::Reading
                | Stage::Examining
                | Stage::Writing
                | Stage::Flushing
                | Stage::Dropped => {}
                Stage::Sending => slot.stage = Stage::Dropped,
                Stage::Waiting
                | Stage::Examined { .. }
                | Stage::Written
                | Stage::Durable
                | Stage::Lost => {
                    *slot = Slot::FREE;
                }
            }
        }
    }

    /// A volume outside of this resource, for which this one has to wait, syncs (or not any more):
    /// see [`crate::resync_after`]. The owner steps with [`super::super::Input::Tick`] afterwards.
    pub fn set_held_back(&mut self, minor: Minor, held_back: bool, h: &mut impl Host) {
        let vol = self.volume_of(minor);
        let Some(rs) = vol.and_then(|vol| self.rs_mut(vol)) else {
            return;
        };
        if core::mem::replace(&mut rs.held_back, held_back) != held_back {
            self.reconsider_pauses(h);
        }
    }

    /// What others may wait for.
    fn to_post(&self, vol: VolIx) -> Posted {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return Posted::NOTHING;
        };
        Posted {
            after: self
                .resync_after(vol)
                .filter(|_| state.disk != disk::State::Diskless),
            busy: state.conn.is_sync() || state.has_isp(),
        }
    }

    /// Tells the owner what other resources may wait for, if that has changed.
    pub(super) fn post(&mut self, vol: VolIx, h: &mut impl Host) {
        let posted = self.to_post(vol);
        let Some(minor) = self.rs_vol(vol).map(|v| v.minor) else {
            return;
        };
        let Some(rs) = self.rs_mut(vol).filter(|rs| rs.posted != posted) else {
            return;
        };
        if h.room() > 0 {
            rs.posted = posted;
            h.emit(Effect::SyncPosted { minor, posted });
        }
    }

    /// Whether nothing that this volume has to wait for is being synced: algorithms.md §8.
    pub(super) fn may_sync_now(&self, vol: VolIx) -> bool {
        let held_back = self.rs(vol).is_some_and(|rs| rs.held_back);
        let own = |minor| self.volume_of(minor).map(|vol| self.to_post(vol));
        let after = self.to_post(vol).after;
        // What was said about another dependency does not count any more.
        after.is_none() || !(held_back || must_wait(after, own))
    }

    fn volume_of(&self, minor: Minor) -> Option<VolIx> {
        let mut all = self.volume_indices();
        all.find(|vol| self.rs_vol(*vol).is_some_and(|v| v.minor == minor))
    }

    /// Pauses and resumes volumes as `resync-after` demands, until nothing changes any more.
    pub(crate) fn reconsider_pauses(&mut self, h: &mut impl Host) {
        for _ in 0..self.volumes.len() {
            let mut changed = false;
            for vol in self.volume_indices() {
                let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
                    continue;
                };
                let unconfigured =
                    state.conn == conn::State::StandAlone && state.disk == disk::State::Diskless;
                let wait = !self.may_sync_now(vol);
                if unconfigured || wait == state.aftr_isp {
                    continue;
                }
                let mut change = StateChange::NONE;
                change.aftr_isp = Some(wait);
                let code = self.change_state(vol, change, Flags::HARD, h);
                changed |= code.is_success();
            }
            if !changed {
                return;
            }
        }
    }
}

impl super::PeerDeviceResync {
    /// Nobody asks for the blocks any more that are read for their digests.
    fn abandon_offers(&mut self) {
        let offers = self.slots.iter_mut().filter(|s| s.kind == Kind::Offer);
        offers.for_each(|s| s.current = false);
    }
}
