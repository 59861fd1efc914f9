// SPDX-License-Identifier: GPL-2.0

//! The end of a request: the application is told, later the request goes.
//!
//! Between the two lies the barrier acknowledgement of the peer. Only when the request goes is it
//! decided whether its blocks are the same on both sides, and only after that are its references
//! to the activity log given back.

use super::at_peer::Word;
use super::request::{Answer, Expect, Local, Net, Outcome, Request, Stage};
use super::stats::Moved;

use super::super::control::IoErrorKind;
use super::super::io::{AppOp, AppResult, BufId, Effect, Host, IoError, VolIx};
use super::super::{Resource, Store, PEER};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::store::slab::Id;

impl<S: Store> Resource<S> {
    /// Draws the conclusions from what is known of a request.
    pub(super) fn settle(&mut self, id: Id, h: &mut impl Host) {
        self.weigh_copies(id);
        self.note_failed(id, h);
        self.note_in_sync(id, h);
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        if r.stage == Stage::Active && r.may_restart() && !self.io_has_disk(r.vol) {
            // The peer's write that it waits for is not made here. The C driver waits for it.
            self.restart(id);
            return;
        }
        if r.stage == Stage::Active && !r.completed {
            let Outcome::Over(mut result) = r.outcome() else {
                self.seek_word(&r, h);
                return;
            };
            match self.peers_word(&r, h) {
                Word::Counts => {}
                Word::Waits => return,
                Word::Lost => result = Err(IoError::Io),
            }
            if r.io.op == AppOp::Read && result.is_err() && !r.io.flags.rahead {
                self.retry_read(id, h);
                return;
            }
            // Kept until somebody thaws it. An error never gets past that: what the peer has stored
            // may be nowhere else when a bad copy is all that it has.
            let free = r.release && result.is_ok();
            if self.io_state(r.vol).is_suspended() && !free {
                return;
            }
            let lost = r.net.is_refused() || r.is_given_up();
            if result.is_err() && self.waits_for_news(&r, lost) {
                // A disk that was given up still owes its answer to this one.
                if r.local != Local::Abandoned {
                    self.await_news(id, h);
                    self.begin_anew(id, h);
                }
                return;
            }
            if result.is_ok() && self.awaits_generation(&r, h) {
                return;
            }
            self.complete(id, result, h);
        }
        if self.io.requests.get(id).is_some_and(Request::is_finished) {
            self.destroy(id, h);
        } else {
            self.rest_extents(id);
        }
    }

    /// A write that both disks have waits for the end of its epoch only. With two Primaries that
    /// may be put off until another write has come through the receiver (`epoch_owed.rs`); so a
    /// request of a resync that is in front of it there must not wait for this one. The C driver
    /// lets it wait, with `ko-count 0` for ever. A single Primary keeps to that: there is no such
    /// circle, and a verify finds the peer's part settled.
    fn rest_extents(&mut self, id: Id) {
        if !self.two_primaries() {
            return;
        }
        let Some(r) = self.io.requests.get_mut(id).filter(|r| r.is_on_both()) else {
            return;
        };
        let Some(Some(v)) = self.volumes.get_mut(usize::from(r.vol.0)) else {
            return;
        };
        if let Some(b) = v.backing.as_mut() {
            if r.log_of == b.meta_io.instance {
                b.al.rest(&mut r.claim);
            }
        }
    }

    /// The word of the peer that a request waits for comes with the end of its epoch.
    fn seek_word(&mut self, r: &Request, h: &mut impl Host) {
        if r.needs_word() {
            if r.epoch == self.io.epoch {
                self.new_epoch(h);
            }
            self.hurry_proof(PEER, h);
        }
    }

    /// Tells the application.
    pub(super) fn complete(&mut self, id: Id, result: AppResult, h: &mut impl Host) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.completed = true;
        let r = *r;
        self.leave_writes(id);
        let there = result.is_ok() && r.is_write() && r.io.range.len.0 != 0;
        if let Some(v) = self.io_vol_mut(r.vol) {
            v.ctl.own_lacks |= there && r.local != Local::Ok && v.state.disk <= Disk::Failed;
            v.io.in_flight = v.io.in_flight.saturating_sub(1);
        }
        let app = r.io.app;
        h.emit(Effect::Complete { app, result });
        // What the application does next may depend on this write: it must not share its epoch.
        if r.stage == Stage::Active && r.is_write() && r.epoch == self.io.epoch {
            self.new_epoch(h);
        }
    }

    fn leave_writes(&mut self, id: Id) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        if !core::mem::take(&mut r.in_writes) {
            return;
        }
        let (vol, range) = (r.vol, r.io.range);
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.writes.remove(range, id.ix);
            v.io.conflict_ended = true;
        }
    }

    /// Gives back what a request holds that is not going on for now.
    pub(super) fn give_back(&mut self, id: Id, _h: &mut impl Host) {
        self.leave_writes(id);
        self.put_extents(id);
    }

    /// Gives back the extents that a request holds, in whichever log.
    pub(super) fn put_extents(&mut self, id: Id) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        let Some(Some(v)) = self.volumes.get_mut(usize::from(r.vol.0)) else {
            return;
        };
        if let Some(b) = v.backing.as_mut() {
            // A request may outlive its disk; the log of another one owes it nothing.
            if r.claim.is_holding() && r.log_of == b.meta_io.instance {
                let known = b.al.put(&mut r.claim);
                debug_assert!(known);
            }
        }
        r.claim = crate::al::Claim::default();
    }

    pub(super) fn destroy(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        if r.is_write() && r.io.range.len.0 != 0 && (r.was_tried() || r.touched) {
            // A disk that the peer has lost was not flushed for the end of the epoch: what it had
            // is in a cache at best. The C driver takes that for stable.
            let gone = self.io_state(r.vol).pdsk < Disk::Inconsistent;
            let both = r.local == Local::Ok && r.net.is_good() && !gone;
            if !both {
                self.set_out_of_sync(r.vol, r.io.range, h);
                self.differs_untold(r.vol);
            }
        }
        self.put_extents(id);
        if r.stage == Stage::Active {
            self.io.log.remove(&mut self.io.requests, id);
        }
        self.io.requests.remove(id);
    }

    /// A write is not on both disks. That leads to a resync if there is a new generation, and if
    /// not, if this Primary counts as one that crashed: so without its disk, and with a copy that
    /// came back to a suspended Primary and may not be the last.
    fn differs_untold(&mut self, vol: VolIx) {
        let s = self.io_state(vol);
        if let Some(v) = self.io_vol_mut(vol) {
            v.ctl.marks_lost |= s.disk < Disk::Inconsistent;
            let alone = s.disk == Disk::Consistent && s.conn < Conn::Connected;
            v.ctl.crashed_primary |= alone && s.role.is_primary();
        }
    }

    /// Marks what the own disk could not write, at once and again with each word of the peer: one
    /// of an earlier write, or of a resync, may have cleared it. With `pass_on` the disk is read
    /// where nothing is marked, and the source of a resync goes by its marks when the target is
    /// done. The C driver marks it at the end of the epoch: until then the old data are read, and a
    /// resync that ends meanwhile leaves them.
    fn note_failed(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).filter(|r| r.fails_here()) else {
            return;
        };
        let (vol, range) = (r.vol, r.io.range);
        if range.len.0 != 0 {
            self.set_out_of_sync(vol, range, h);
        }
    }

    /// Clears the bits of a write as soon as both sides have it and the peer has cleared its own.
    /// If replication has stopped since it was sent, this node may have written there again, for
    /// itself alone: then its bits stay, and while it is ahead the peer gets its own back. The C
    /// driver waits for the end of the epoch, and then clears what was set since.
    fn note_in_sync(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        // One that was marked by this node alone, before it began anew, nobody else clears. As long
        // as it is not complete no other write gets there.
        let again = r.marked && !r.completed && r.expect == Expect::Written;
        let again = again && self.io_state(r.vol).conn == Conn::Connected;
        let good = match r.net.answer() {
            Some(Answer::GoodInSync) => true,
            Some(Answer::Good) => again && !r.net.is_queued(),
            Some(Answer::Awaited | Answer::Refused | Answer::Lost) | None => false,
        };
        // What another disk had, this one need not have, or the bits be those of the other one.
        let both = r.local == Local::Ok && good && !self.is_elsewhere(&r);
        if !both || r.in_sync || !r.is_write() {
            return;
        }
        if let Some(r) = self.io.requests.get_mut(id) {
            r.in_sync = true;
        }
        let stops = self.io_vol(r.vol).map_or(0, |v| v.io.stops);
        if self.io_state(r.vol).conn == Conn::Ahead {
            self.set_out_of_sync(r.vol, r.io.range, h);
            self.tell_out_of_sync(r.vol, r.io.range, h);
        } else if r.stops == stops {
            self.set_in_sync(r.vol, r.io.range, h);
        }
    }

    /// From now on writes of this volume do not reach the peer's disk.
    pub(crate) fn replication_stops(&mut self, vol: VolIx) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.stops = v.io.stops.wrapping_add(1);
        }
    }

    /// A copy is about to be overwritten by the other one, as an administrator said, or as errors
    /// of its disk have made it a bad one when it was the last, and the other one is back; or its
    /// disk is lost and the other one goes on. What is under way is safe there only if it is over
    /// when that is done. The C driver calls a write done that is on such a copy alone, because the
    /// other node is lost or has refused it: the resync that is due then takes it back.
    ///
    /// The same goes for the peer's copy when its node is lost: from then on this node goes on
    /// without it, mostly in a generation of its own. What the own disk has not written by then,
    /// and fails to, is missing in that generation, whatever the peer has acknowledged and flushed:
    /// should this disk come back, the other copy is overwritten. The C driver calls it done.
    pub(crate) fn copies_are_given_up(&mut self, vol: VolIx, old: State, new: State) {
        let lost = new.disk < Disk::Inconsistent;
        let own = lost || matches!(new.conn, Conn::StartingSyncT | Conn::WFBitMapT);
        let moves = old.disk != new.disk || old.conn != new.conn;
        let here = own && moves && new.disk != Disk::UpToDate;
        let there = old.pdsk == Disk::UpToDate && new.pdsk != Disk::UpToDate;
        let overwritten = matches!(new.conn, Conn::StartingSyncS | Conn::WFBitMapS);
        let mut at = self.io.log.oldest().filter(|_| here || there);
        while let Some(r) = at.and_then(|id| self.io.requests.get_mut(id)) {
            at = r.newer;
            if r.vol == vol && r.is_write() {
                let [own, other] = r.counts;
                // Without a leg here no generation lacks it that the peer's copy does not lack.
                let there = there && (overwritten || r.local != Local::None);
                r.counts = [own && !here, other && !there];
            }
        }
    }

    /// The bitmap is about to be sent to the peer, which is brought up to date by it: what was sent
    /// there and is not known to be stable is marked before. With protocols A and B a write is done
    /// while it is on its way; a peer that had lost its disk by then, and has one again now, still
    /// refuses it, and says so behind the bitmap. The C driver marks it as it hears that, when the
    /// target knows nothing of it.
    pub(crate) fn mark_unproven(&mut self, vol: VolIx, h: &mut impl Host) {
        self.mark_writes(vol, |r| r.net.is_live(), h);
    }

    /// The activity log is about to count no more, as this node was demoted: what is frozen, and
    /// may be on the own disk only, is marked before. The C driver marks it when I/O goes on; if
    /// the power fails before that nothing tells that the copies differ. What a peer that is gone
    /// has said about it is no proof, nor that the application knows.
    pub(crate) fn mark_frozen(&mut self, vol: VolIx, h: &mut impl Host) {
        let connected = self.connected(PEER).is_some();
        let open = |r: &Request| {
            let tried = r.touched || r.local != Local::None;
            tried && !(connected && (r.net.is_live() || r.net.is_good()))
        };
        self.mark_writes(vol, open, h);
    }

    /// Marks the blocks of such writes of this volume.
    fn mark_writes(&mut self, vol: VolIx, is: impl Fn(&Request) -> bool, h: &mut impl Host) {
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)).copied() {
            at = r.newer;
            if r.vol == vol && r.is_write() && r.io.range.len.0 != 0 && is(&r) {
                self.set_out_of_sync(vol, r.io.range, h);
            }
        }
    }

    /// The own disk is done with a request.
    pub(super) fn app_local_done(
        &mut self,
        id: Id,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        let Some(r) = self.io.requests.get_mut(id) else {
            Self::free_buf(buf, h);
            return;
        };
        let given_up = match r.local {
            Local::Pending => false,
            Local::Abandoned => true,
            Local::None | Local::Ok | Local::Failed(_) => {
                Self::free_buf(buf, h);
                return;
            }
        };
        match buf {
            Some(buf) if !given_up => h.emit(Effect::Fill { app: r.io.app, buf }),
            Some(_) | None => Self::free_buf(buf, h),
        }
        let (vol, is_write) = (r.vol, r.is_write());
        let again = result == Err(IoError::NoMemory) && r.copied && !given_up;
        // What is written on a disk that is gone nobody can rely on.
        let gone = is_write && self.io_state(vol).disk <= Disk::Failed;
        if again {
            self.local_ends(vol);
            self.submit_local_as(id, false, h);
            return;
        }
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.local = match result {
            Ok(()) if !given_up && !gone => Local::Ok,
            Ok(()) => Local::Failed(IoError::Io),
            Err(why) => Local::Failed(why),
        };
        let r = *r;
        self.local_ends(r.vol);
        match result {
            Ok(()) if r.io.op == AppOp::Read => {
                self.count_moved(r.vol, Moved::Read, r.io.range.len);
            }
            Ok(()) => self.count_moved(r.vol, Moved::Written, r.io.range.len),
            Err(_) if given_up => {}
            Err(_) => self.local_failed(&r, h),
        }
        self.settle(id, h);
    }

    pub(super) fn local_ends(&mut self, vol: VolIx) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.local = v.io.local.saturating_sub(1);
        }
    }

    /// What an error of the own disk entails for the disk. The blocks are marked at once, not with
    /// the end of the epoch: a resync may be over before that, and a source that has none left does
    /// not exchange bitmaps again. The C driver marks those of writes later.
    fn local_failed(&mut self, r: &Request, h: &mut impl Host) {
        let ahead = r.io.op == AppOp::Read && r.io.flags.rahead;
        if r.io.range.len.0 != 0 && !ahead {
            self.set_out_of_sync(r.vol, r.io.range, h);
        }
        match r.io.op {
            // Nobody waits for it, and the disk may have dropped it for being busy.
            AppOp::Read if ahead => {}
            AppOp::Read => self.io_error(r.vol, IoErrorKind::Read, h),
            // Zeroes are data: what is done as the peer has them must not be read as something else
            // here. The C driver takes it for a discard.
            AppOp::Write | AppOp::WriteZeroes { .. } | AppOp::Flush => {
                self.io_error(r.vol, IoErrorKind::Write, h);
            }
            // That a disk cannot discard says nothing about its health.
            AppOp::Discard => {}
        }
    }

    /// The packet of a request was handed to TCP.
    pub(super) fn app_sent(&mut self, id: Id, h: &mut impl Host) {
        let now = h.now();
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        if !r.net.is_queued() {
            return;
        }
        r.net.set_sent();
        r.sent_at = Some(now);
        let expect = r.expect;
        self.enters_wire(id);
        if expect == Expect::Sent {
            self.net_answer(id, Answer::Good);
        }
        self.settle(id, h);
    }

    /// Nothing more is expected from the peer.
    pub(super) fn net_finish(&mut self, id: Id) {
        self.leaves_wire(id);
        if let Some(r) = self.io.requests.get_mut(id) {
            r.net.finish();
        }
    }

    /// Notes the first answer of the peer, or a worse one.
    pub(super) fn net_answer(&mut self, id: Id, answer: Answer) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        let old = r.net.answer();
        let better = match (old, answer) {
            (None, _) => return,
            (Some(Answer::Awaited), _) => true,
            // From RECV_ACK to a late WRITE_ACK during resync, and from good to bad.
            (Some(Answer::Good), Answer::GoodInSync) => true,
            (Some(Answer::Good | Answer::GoodInSync), Answer::Refused | Answer::Lost) => true,
            (Some(_), _) => false,
        };
        if better {
            r.net.set_answer(answer);
        }
        let vol = r.vol;
        let lacks = answer == Answer::Refused && !matches!(r.io.op, AppOp::Read | AppOp::Discard);
        if let Some(v) = self.io_vol_mut(vol).filter(|_| lacks) {
            // Without a good disk here nobody is told that it is done.
            v.ctl.peer_lacks |= v.state.disk == Disk::UpToDate;
        }
        if old == Some(Answer::Awaited) && answer != Answer::Awaited {
            self.count_pending(vol, false);
        }
    }

    /// A read failed on one side: the other one may have the data. Each side is tried once, so that
    /// this ends.
    fn retry_read(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.avoid_local |= matches!(r.local, Local::Failed(_));
        if r.local != Local::Abandoned {
            r.local = Local::None;
        }
        r.avoid_peer |= r.net.answer() == Some(Answer::Refused);
        r.net = Net::None;
        r.sent_at = None;
        r.release = false;
        r.stage = Stage::ActivityLog;
        self.io.log.remove(&mut self.io.requests, id);
        self.launch(id, h);
    }
}
