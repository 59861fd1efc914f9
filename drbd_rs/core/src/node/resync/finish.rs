// SPDX-License-Identifier: GPL-2.0

//! The end of a resync: algorithms.md §5.6.
//!
//! ```text
//!   Idle ─ nothing left ─▶ Due ─ no extent in use ─▶ Pinging ─ answered ─▶ UpToDate, Connected
//!     ▲                                                 │ lost, or something is left again
//!     └─────────────────────────────────────────────────┘
//! ```
//!
//! The ping makes sure that the source has processed all acknowledgements before it is told, on
//! the other socket, that the target is done.
//!
//! A target may be done before the source is: a write that the target has may still be under way to
//! the source's disk, or have failed there. What is left then after a while the nodes find out by
//! exchanging bitmaps again; the C driver waits for ever.

use crate::state::{conn, disk};
use crate::time::{Duration, Instant};

use super::super::control::{Flags, StateChange};
use super::super::io::{HelperCommand, Host, VolIx};
use super::super::{After, Note, Resource, Store, PEER};
use super::rate::Rate;
use super::{is_active, resyncs, Next, Stage};

/// How long blocks may be left on the source when the target is done.
const GRACE: Duration = Duration::secs(10);

/// Effects that the end of a resync may emit, besides those of what it ends with.
const ENDS: usize = 24;

/// How far the end of a resync has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Finish {
    /// Not near.
    Idle,
    /// Nothing is left to do, but to wait for what is under way; looked at again then.
    Due(Instant),
    /// The peer's answer to a ping is awaited.
    Pinging,
}

impl Finish {
    /// Nothing is left to do, if that was not known yet.
    pub(super) fn begin(&mut self, now: Instant) {
        if *self == Finish::Idle {
            *self = Finish::Due(now);
        }
    }

    pub(super) fn forget(&mut self) {
        *self = Finish::Idle;
    }

    pub(super) fn retry(self) -> Option<Instant> {
        match self {
            Finish::Due(at) => Some(at),
            Finish::Idle | Finish::Pinging => None,
        }
    }
}

impl<S: Store> Resource<S> {
    /// The target told by its STATE that it is done; on the source the resync ends then.
    pub(crate) fn resync_finished(&mut self, vol: VolIx, h: &mut impl Host) {
        let nothing_left = self.may_end(vol);
        let Some(rs) = self.rs_mut(vol) else { return };
        if nothing_left {
            rs.finish.begin(h.now());
        }
    }

    /// The target is done, and its copy is good: what has failed there was mended since. Bits that
    /// are left stand for something else, as for writes that have failed here. The C driver takes
    /// them for those blocks, and the two do not agree on the target.
    pub(crate) fn resync_none_failed(&mut self, vol: VolIx) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.marks.failed = 0;
        }
    }

    /// The target is done, and blocks are left here.
    pub(crate) fn resync_told_done(&mut self, vol: VolIx, h: &mut impl Host) {
        let until = h.now().plus(GRACE);
        if let Some(rs) = self.rs_mut(vol) {
            rs.told_done.get_or_insert(until);
        }
    }

    /// Looks whether anything is left on a source whose target is done.
    fn await_own_end(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        let nothing_left = self.may_end(vol);
        let Some(rs) = self.rs_mut(vol) else { return };
        let Some(until) = rs.told_done else { return };
        if nothing_left {
            rs.told_done = None;
            self.resync_finished(vol, h);
        } else if now >= until {
            rs.told_done = None;
            let down = StateChange::NONE.conn(conn::State::NetworkFailure);
            self.change_conn(PEER, down, Flags::HARD, h);
        }
    }

    /// Whether all blocks are in sync but those that can not be. Those of a write that has failed
    /// here, and that the target is about to have, are not, whatever the bitmap says: its disk
    /// counts as good while it is the source, and must not go on as such beside that copy.
    pub(crate) fn nothing_left(&self, vol: VolIx) -> bool {
        let clear = self.rs_vol(vol).is_some_and(|v| {
            let marks = v.peers.first().map(|p| p.resync.marks);
            let stay = marks.map_or(0, |m| m.failed.saturating_add(m.apart));
            v.backing
                .as_ref()
                .is_some_and(|b| b.bitmap.weight() <= stay)
        });
        clear && !self.has_failed_write(vol)
    }

    /// Whether a resync may end, the target being done. What is left on a source that has failed is
    /// what the target has and this node lacks.
    fn may_end(&self, vol: VolIx) -> bool {
        self.nothing_left(vol) || self.is_bad_source(vol)
    }

    fn is_bad_source(&self, vol: VolIx) -> bool {
        self.rs_vol(vol).is_some_and(|v| v.ctl.bad_source)
    }

    /// This node is a source that has failed, and its target has said that it is done: what that
    /// writes from now on must not meet a copy here that counts as good.
    pub(crate) fn bad_source_ends(&mut self, vol: VolIx, h: &mut impl Host) {
        let source = matches!(
            self.rs_conn(vol),
            conn::State::SyncSource | conn::State::PausedSyncS
        );
        if !source || !self.is_bad_source(vol) || h.room() < ENDS {
            return;
        }
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let told = rs.finish != Finish::Idle || rs.told_done.is_some();
        let busy = rs.slots.iter().any(|s| s.stage != Stage::Free);
        if told && !busy && disk.extents.del_all() {
            rs.finish = Finish::Idle;
            rs.told_done = None;
            self.conclude(vol, h);
        }
    }

    pub(super) fn finish_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let conn = self.rs_conn(vol);
        if !is_active(conn) {
            return;
        }
        self.await_own_end(vol, h);
        let now = h.now();
        let counts_itself = match conn {
            conn::State::SyncSource | conn::State::PausedSyncS => {
                self.connected(PEER).is_some_and(|a| a.apv <= 95)
            }
            _ => resyncs(conn),
        };
        // The target clears some of the marks that it need not clear, too: while it has not said
        // that it is done all of them count.
        let apart = self.rs(vol).is_some_and(|rs| rs.marks.apart != 0);
        let done = counts_itself && !apart && self.nothing_left(vol);
        let asks = self.asks_as_target(conn);
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        // A resync of nothing: the target waits for its name all the same.
        let done = done && !rs.start.naming;
        if done {
            rs.finish.begin(now);
        }
        if !matches!(rs.finish, Finish::Due(_)) {
            return;
        }
        let busy = rs.slots.iter().any(|s| s.stage != Stage::Free);
        if busy || asks || !disk.extents.del_all() {
            rs.finish = Finish::Due(Rate::next(now));
            return;
        }
        rs.finish = Finish::Pinging;
        self.ping(PEER, After::Resync(Next::Pinged(vol)), h);
    }

    /// Whether this node is the target, and waits for an answer of the source. If it has asked
    /// whether it may detach its disk, or leave, the source may have agreed, and goes on without
    /// it. What it writes from then on is not here, and it does not begin a generation with it
    /// beside a copy that is not good: this one must not become that before the answer is here.
    /// The C driver does not wait.
    fn asks_as_target(&self, conn: conn::State) -> bool {
        let target = matches!(conn, conn::State::SyncTarget | conn::State::PausedSyncT);
        target && self.asks_peer()
    }

    pub(super) fn finish_pinged(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let left = !self.may_end(vol);
        let conn = self.rs_conn(vol);
        let asks = self.asks_as_target(conn);
        let told = self.connected(PEER).is_some_and(|a| a.apv > 95);
        let source = matches!(conn, conn::State::SyncSource | conn::State::PausedSyncS);
        let Some(rs) = self.rs_mut(vol) else { return };
        if rs.finish != Finish::Pinging {
            return;
        }
        if ok && asks {
            rs.finish = Finish::Due(Rate::next(h.now()));
            return;
        }
        rs.finish = Finish::Idle;
        // Blocks that became out of sync meanwhile are asked for like the others.
        if ok && conn.is_verify() {
            self.conclude_verify(vol, h);
        } else if ok && !left && resyncs(conn) {
            self.conclude(vol, h);
        } else if ok && told && source {
            // A target that is done asks for nothing more. The C driver stays SyncSource for ever.
            self.resync_told_done(vol, h);
        }
    }

    fn conclude(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        let conn = self.rs_conn(vol);
        let target = matches!(conn, conn::State::SyncTarget | conn::State::PausedSyncT);
        let disk = self.rs_vol(vol).and_then(|v| v.backing.as_ref());
        let left = disk.map_or(0, |b| b.bitmap.weight());
        let Some(rs) = self.rs_mut(vol) else { return };
        let (ran, paused) = rs.marks.took(now);
        let kib = rs
            .marks
            .total
            .checked_div(ran)
            .unwrap_or(0)
            .saturating_mul(4);
        // A block that failed may have been written since: the two sides would not agree on the
        // state of the target. The C driver counts failures only.
        let failed = rs.marks.failed.min(left);
        let done = Note::ResyncDone {
            total: ran.saturating_add(paused),
            paused,
            speed: kib,
        };
        self.rs_log(vol, done, h);
        self.log_equal(vol, h);
        let change = StateChange::NONE.conn(conn::State::Connected);
        let (good, bad) = (disk::State::UpToDate, disk::State::Inconsistent);
        let change = if failed == 0 {
            let failing = self.is_bad_source(vol);
            self.uuid_resync_finished(vol, target, h);
            change.disk(if failing { bad } else { good }).pdsk(good)
        } else {
            self.rs_log(vol, Note::ResyncFailed(failed), h);
            if target {
                change.disk(bad).pdsk(good)
            } else {
                change.disk(good).pdsk(bad)
            }
        };
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        if !code.is_success() {
            self.retry_finish(vol, h);
            return;
        }
        if let Some(rs) = self.rs_mut(vol) {
            rs.marks.end();
            rs.target.disarm();
        }
        self.md_sync(vol, After::Nothing, h);
        if target {
            self.tell_helper(HelperCommand::AfterResyncTarget, Some(vol), h);
        } else {
            self.maybe_unfence(h);
        }
    }

    /// How much the digests have saved.
    fn log_equal(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs(vol) else { return };
        let (same, total) = (rs.same, rs.marks.total);
        if rs.compares && total != 0 {
            self.rs_log(vol, Note::EqualDigests { same, total }, h);
        }
    }

    pub(super) fn retry_finish(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.finish = Finish::Due(Rate::next(h.now()));
        }
    }

    /// All volumes are in good shape again: the fencing of the peer is taken back.
    fn maybe_unfence(&mut self, h: &mut impl Host) {
        let all_good = self.volumes.iter().flatten().all(|v| {
            v.state.disk == disk::State::UpToDate && v.state.pdsk == disk::State::UpToDate
        });
        if all_good && self.fences_peers() {
            self.tell_helper(HelperCommand::UnfencePeer, None, h);
        }
    }
}
