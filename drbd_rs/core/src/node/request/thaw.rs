// SPDX-License-Identifier: GPL-2.0

//! What becomes of requests that were frozen while I/O was suspended.
//!
//! A walk over the transfer log, oldest first, resumable; no new request is admitted until it is
//! over, so that what is sent again keeps its place before what is new.

use super::request::{Answer, Expect, Local, Net, Outcome, Request, Stage};
use super::UNIT;

use super::super::io::{AppOp, Host, VolIx};
use super::super::{Resource, Store, PEER};
use crate::store::slab::Id;

/// Why I/O goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Thaw {
    /// The peer is back: send again what it has not acknowledged.
    Resend,
    /// The peer stays away: its legs are lost.
    FailPeerLeg,
    /// The own disk is back: submit again what it failed.
    RestartLocal,
}

/// The walk in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    what: Option<Thaw>,
    number: u32,
    /// I/O was suspended when last looked at.
    was_suspended: bool,
}

crate::key::key! {
    Walk { what, was_suspended }
    names { number: WALK }
    not {}
}

impl Walk {
    pub(super) const IDLE: Walk = Walk {
        what: None,
        number: 0,
        was_suspended: false,
    };

    pub(super) const fn is_running(&self) -> bool {
        self.what.is_some()
    }

    /// Whether what is new has to wait: for the walk, or for one that is due as I/O was suspended
    /// a moment ago.
    pub(super) const fn blocks(&self) -> bool {
        self.what.is_some() || self.was_suspended
    }
}

impl<S: Store> Resource<S> {
    /// Goes on with frozen requests. Suspension is one for the whole resource, and so is its end.
    pub(crate) fn thaw_all(&mut self, what: Thaw, h: &mut impl Host) {
        self.forget_refused();
        self.io.thaw.what = Some(what);
        self.io.thaw.number = self.io.thaw.number.wrapping_add(1);
        self.thaw_pump(h);
    }

    /// Goes on with a thaw; true if room ran out.
    #[inline(never)]
    pub(super) fn thaw_pump(&mut self, h: &mut impl Host) -> bool {
        loop {
            // A walk that is under way comes to its end first.
            if self.io.thaw.what.is_none() {
                self.notice_resumption();
            }
            let Some(what) = self.io.thaw.what else {
                return false;
            };
            let conn = self.io_conn(PEER);
            if conn.is_some_and(|c| c.epochs.losing != super::Losing::No) {
                // The end of a connection comes first; it finds the requests still frozen.
                return false;
            }
            if self.io_volumes().any(|vol| self.owes_answer(vol)) {
                return false;
            }
            if self.thaw_walk(what, h) {
                return true;
            }
            self.io.thaw.what = None;
        }
    }

    /// Looks at each request that this thaw has not looked at; true if room ran out.
    fn thaw_walk(&mut self, what: Thaw, h: &mut impl Host) -> bool {
        let number = self.io.thaw.number;
        // With the own disk alone: not as long as there is another reason to wait. The C driver
        // tells applications.
        let susp = self.ctl.susp;
        let held = what == Thaw::RestartLocal && (susp.fencing || susp.user);
        let mut at = self.io.log.oldest();
        while let Some(id) = at {
            let Some(r) = self.io.requests.get_mut(id) else {
                break;
            };
            at = r.newer;
            if r.thawed == number {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            r.thawed = number;
            r.release |= !held;
            self.thaw_one(id, what, h);
        }
        false
    }

    /// A peer is back while I/O is suspended. What the applications were told is done, yet was not
    /// stable at the peer, can not be sent again: the peer lacks it if it has crashed. True if room
    /// ran out; volumes that this concerns, and whose disk has it, need a new generation of data
    /// (`frozen_lost`). The C driver trusts the acknowledgements of the old connection.
    pub(crate) fn lose_frozen(&mut self, h: &mut impl Host) -> bool {
        self.lose_frozen_of(None, h)
    }

    /// The same of one volume, whose applications are gone, once the connection is closed: the
    /// activity log ceases to tell what the peer may lack when this node is no Primary any more,
    /// and nothing else does if its power fails, or if it is taken down, before I/O is resumed. The
    /// C driver forgets it.
    pub(crate) fn lose_frozen_at_demotion(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        self.connected(PEER).is_none() && self.lose_frozen_of(Some(vol), h)
    }

    fn lose_frozen_of(&mut self, only: Option<VolIx>, h: &mut impl Host) -> bool {
        let mut at = self.io.log.oldest();
        while let Some(id) = at {
            let Some(r) = self.io.requests.get(id).copied() else {
                break;
            };
            at = r.newer;
            let old = match only {
                Some(vol) => r.vol == vol,
                None => !self.is_of_this_connection(id),
            };
            if !old || !r.net.is_live() || !r.completed || !r.is_write() {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            if let Some(v) = self.io_vol_mut(r.vol) {
                v.ctl.frozen_lost |= r.local == Local::Ok;
            }
            self.net_lost(id, h);
        }
        false
    }

    /// I/O is suspended anew. What was let go when it was resumed the last time, and is still under
    /// way, is held back as well, unless it is stable at the peer; what that has not come to by now
    /// stays frozen. The C driver tells applications, also of what the peer may lack, which is not
    /// fenced any more.
    pub(crate) fn freezes_again(&mut self) {
        if self.io.thaw.what != Some(Thaw::RestartLocal) {
            self.io.thaw.what = None;
        }
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get_mut(id)) {
            at = r.newer;
            r.release &= r.net.is_good() && !r.net.is_live();
        }
    }

    /// I/O was resumed and nobody said how: frozen requests must not stay so.
    fn notice_resumption(&mut self) {
        let suspended = self
            .volumes
            .iter()
            .flatten()
            .any(|v| v.state.is_suspended());
        let resumed = core::mem::replace(&mut self.io.thaw.was_suspended, suspended) && !suspended;
        if resumed && self.io.thaw.what.is_none() {
            self.forget_refused();
            let up = self.connected(PEER).is_some();
            self.io.thaw.what = Some(if up { Thaw::Resend } else { Thaw::FailPeerLeg });
            self.io.thaw.number = self.io.thaw.number.wrapping_add(1);
        }
    }

    /// What the peer has refused is about to go out again, and nobody was told of it. If both
    /// copies are good and nothing is marked, a resync has ended since, and the peer misses
    /// nothing: the marks that such a write leaves until it is through are no reason to begin a
    /// generation beside a peer that is in sync.
    fn forget_refused(&mut self) {
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let lacks = self.io_vol(vol).is_some_and(|v| v.ctl.peer_lacks);
            let good = self.connected(PEER).is_some() && self.io_state(vol).both_good();
            if !lacks || !good || self.has_refused(vol, true) {
                continue;
            }
            if let Some(v) = self.io_vol_mut(vol) {
                let marked = v.backing.as_ref().is_some_and(|b| b.bitmap.weight() != 0);
                v.ctl.peer_lacks = marked;
            }
        }
    }

    fn thaw_one(&mut self, id: Id, what: Thaw, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        debug_assert_eq!(r.stage, Stage::Active);
        let frozen = r.net.is_live() && !self.is_of_this_connection(id);
        let stale = self.is_stale(&r);
        // There is a disk that lacks it. Also if the peer is what was waited for: a disk that came
        // back before that was worth nothing without it. Nor does it count what the peer said in an
        // earlier connection: it may have crashed since, and the disk here have its data from a
        // resync of what was left there. The C driver writes at the peer only.
        let missing = matches!(r.local, Local::None | Local::Failed(_)) || r.is_given_up();
        // What the peer has said counts no more if its copy is lost, too; the end of the epoch may
        // be long in coming.
        let outcome = r.outcome();
        let fails = matches!(outcome, Outcome::Over(Err(_)));
        let anew = (stale || missing)
            && (frozen || !r.net.is_live() || fails)
            && !r.completed
            && (stale || frozen || outcome != Outcome::Over(Ok(())))
            && self.io_has_disk(r.vol);
        // The peer has refused it, perhaps in an epoch that is still open, or did not get it as its
        // copy was bad, and may have another disk by now, or a resync may have ended.
        let again = self.connected(PEER).is_some() && self.io_state(r.vol).replicates();
        let missed = !r.net.is_live() && !r.net.is_good() || r.net.is_refused();
        let lacks = again && missed && !r.completed;
        let idle = !matches!(r.local, Local::Pending | Local::Abandoned);
        let anew = anew || lacks && idle && r.is_write();
        match what {
            Thaw::RestartLocal if anew => self.begin_anew(id, h),
            Thaw::Resend if anew && r.is_write() => self.begin_anew(id, h),
            Thaw::FailPeerLeg if anew && stale => self.begin_anew(id, h),
            Thaw::Resend if frozen => self.resend(id, h),
            Thaw::FailPeerLeg if r.net.is_live() && self.connected(PEER).is_none() => {
                self.net_lost(id, h);
            }
            Thaw::Resend | Thaw::FailPeerLeg | Thaw::RestartLocal => self.settle(id, h),
        }
    }

    /// The disk that had it was detached since, or its log was suspended when it began: nothing
    /// keeps a resync from what it wrote there, and it may say again what it said before, or what
    /// the peer wrote meanwhile. The C driver trusts it, and writes at the peer only.
    pub(super) fn is_stale(&self, r: &Request) -> bool {
        let sized = r.is_write() && r.io.range.len.0 != 0;
        let kept = self.is_logged(r) && r.claim.is_holding();
        sized && r.local == Local::Ok && !kept
    }

    /// A request that got nowhere begins anew: there is a disk again, with another activity log.
    pub(super) fn begin_anew(&mut self, id: Id, h: &mut impl Host) {
        if let Some(r) = self.io.requests.get_mut(id) {
            r.net.set_sent();
        }
        if self.io.requests.get(id).is_some_and(|r| r.net.is_live()) {
            self.net_answer(id, Answer::Lost);
            self.net_finish(id);
        }
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        // What a write that failed has left behind nobody knows. Until it is under way again no
        // extent of the activity log stands for it, and a resync may begin and end meanwhile.
        let marks = r.is_write() && (r.touched || r.was_tried());
        let (vol, range) = (r.vol, r.io.range);
        r.net = Net::None;
        r.touched |= r.local != Local::None;
        r.marked |= marks;
        r.local = Local::None;
        r.postponed = false;
        r.sent_at = None;
        if marks {
            self.set_out_of_sync(vol, range, h);
        }
        self.io.log.remove(&mut self.io.requests, id);
        self.readmit(id, h);
    }

    /// Whether the live leg of a request belongs to the connection that stands now.
    pub(super) fn is_of_this_connection(&self, id: Id) -> bool {
        let now = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        self.io
            .requests
            .get(id)
            .is_some_and(|r| r.incarnation == now)
    }

    /// Whether there is such a write of this volume. Looks at every request.
    fn has_write(&self, vol: VolIx, is: impl Fn(&Request) -> bool) -> bool {
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            if r.vol == vol && r.is_write() && is(r) {
                return true;
            }
            at = r.newer;
        }
        false
    }

    /// Whether a frozen write is on the own disk alone. As soon as I/O goes on without the peer its
    /// application hears that it is done.
    pub(crate) fn holds_alone(&self, vol: VolIx) -> bool {
        self.has_write(vol, |r| {
            !r.completed && r.local == Local::Ok && !r.net.is_good()
        })
    }

    /// Whether the peer has refused a write that is not over (`told`: and is done for its
    /// application). Its block may not be marked so far.
    pub(crate) fn has_refused(&self, vol: VolIx, told: bool) -> bool {
        self.has_write(vol, |r| r.net.is_refused() && (r.completed || !told))
    }

    /// Whether the own disk works on a write that the peer does not get.
    pub(crate) fn writes_alone(&self, vol: VolIx) -> bool {
        self.has_write(vol, |r| r.local == Local::Pending && !r.net.is_live())
    }

    /// Whether the own disk works on a write that no extent of the activity log stands for, as that
    /// was suspended when it began: nothing keeps a resync from those blocks.
    pub(crate) fn writes_unlogged(&self, vol: VolIx) -> bool {
        self.has_write(vol, |r| {
            r.io.range.len.0 != 0 && r.local == Local::Pending && !r.claim.is_holding()
        })
    }

    /// Whether the peer may still be busy with a write that the present activity log was not asked
    /// about: it began when there was another disk, or none. What the peer is asked for as the
    /// source of a resync might be read there before that is written, and nothing would tell that
    /// this disk lacks it. It is answered without regard to the resync, or the connection ends, and
    /// what begins now is not among these. With protocols A and B only the end of its epoch tells.
    /// What is frozen is written anew later. The C driver asks at once.
    pub(crate) fn peer_writes_unlogged(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let now = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            at = r.newer;
            let sized = r.vol == vol && r.is_write() && r.io.range.len.0 != 0;
            let told = r.expect == Expect::Written && !r.net.is_undecided();
            let open = sized && r.net.is_live() && !told && r.incarnation == now;
            if !open || self.is_logged(r) {
                continue;
            }
            if r.epoch == self.io.epoch && r.expect != Expect::Written {
                self.new_epoch(h);
            }
            self.hurry_proof(PEER, h);
            return true;
        }
        false
    }

    /// Whether a write that failed on the own disk is not over: if the peer has it, blocks that are
    /// in sync now will not be.
    pub(crate) fn has_failed_write(&self, vol: VolIx) -> bool {
        self.has_write(vol, |r| r.fails_here() && !r.completed)
    }

    /// The peer is back: a frozen request goes out again, or is given up where that is not
    /// possible. One that was complete has no pages any more; since the peer may have crashed with
    /// the data in its cache, it counts as lost (the C driver trusts the old acknowledgement).
    fn resend(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        let s = self.io_state(r.vol);
        let again = !r.completed
            && self.connected(PEER).is_some()
            && s.replicates()
            && !self.lacks_packet(r.io.op);
        if !again {
            self.net_lost(id, h);
            return;
        }
        if r.net.answer() == Some(Answer::Awaited) {
            // It is counted again when it is queued.
            self.count_pending(r.vol, false);
        }
        self.leaves_wire(id);
        if let Some(r) = self.io.requests.get_mut(id) {
            r.net = Net::None;
            r.postponed = false;
        }
        match r.io.op {
            AppOp::Read => self.queue_read(id, h),
            AppOp::Write | AppOp::Discard | AppOp::WriteZeroes { .. } | AppOp::Flush => {
                self.queue_write(id, h);
            }
        }
    }
}
