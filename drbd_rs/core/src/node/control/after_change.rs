// SPDX-License-Identifier: GPL-2.0

//! What a state change entails once there is time for it, volume by volume, in order.
//!
//! Each volume has a short queue of changes. The effects of the first one are carried out in
//! DRBD's order; one that waits for a disk or a helper stops the queue of that volume only. Should
//! the queue fill up, changes that have not begun are joined: their effects are those of the whole
//! way from the first to the last state.

use crate::state::aggregate::ConnectionEffects;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::effects::{
    after_full_bitmap, effects, thaw_no_data, uuid_when_peer_data_lost, FullBitmap, Later,
    LaterSet, NewUuid, Thaw,
};
use crate::state::log::Parts;
use crate::state::{aggregate, State, Warning};

use super::super::io::{Effect, HelperCommand, Host, PeerIx, VolIx};
use super::super::note::Note;
use super::super::request::{self, Pages};
use super::super::resync::Side;
use super::super::{After, Resource, Store, PEER};
use super::{Flags, Next, StateChange};

/// Changes of one volume whose effects may be outstanding.
const DEPTH: usize = 8;

/// Effects that one deferred effect may emit; less room ends the round.
pub(super) const ROOM: usize = 12;

/// A change and how far its effects are.
#[derive(Clone, Copy, Debug, Hash)]
struct Item {
    old: State,
    new: State,
    warning: Option<Warning>,
    parts: Parts,
    later: LaterSet,
    /// Announced: from here on it is not joined with others.
    begun: bool,
    /// Effects of [`Later::ALL`] before this one are done.
    next: usize,
    /// Steps of the present effect that are done.
    step: u8,
    /// Something is awaited.
    waiting: bool,
    /// What was awaited went well.
    ok: bool,
}

/// Changes whose effects are outstanding, oldest first.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Queue {
    items: [Option<Item>; DEPTH],
}

impl Queue {
    /// Nothing outstanding.
    pub(crate) const EMPTY: Queue = Queue {
        items: [None; DEPTH],
    };

    /// Whether something is outstanding.
    pub(super) fn is_empty(&self) -> bool {
        self.items.iter().all(Option::is_none)
    }

    /// Whether work can go on now.
    fn is_ready(&self) -> bool {
        self.first().is_some_and(|i| !i.waiting)
    }

    fn first(&self) -> Option<&Item> {
        self.items.first().and_then(Option::as_ref)
    }

    fn first_mut(&mut self) -> Option<&mut Item> {
        self.items.first_mut().and_then(Option::as_mut)
    }

    fn pop(&mut self) {
        if let Some(first) = self.items.first_mut() {
            *first = None;
        }
        self.items.rotate_left(1);
    }

    pub(super) fn push(
        &mut self,
        old: State,
        new: State,
        warning: Option<Warning>,
        parts: Parts,
        apv: u32,
    ) {
        let item = Item {
            old,
            new,
            warning,
            parts,
            later: effects(old, new, apv).later,
            begun: false,
            next: 0,
            step: 0,
            waiting: false,
            ok: true,
        };
        if let Some(free) = self.items.iter_mut().find(|i| i.is_none()) {
            *free = Some(item);
            return;
        }
        if let Some(last) = self.items.iter_mut().flatten().last() {
            // Begin and end of the whole may not show what the peer has to hear of, as that a
            // resync which fell in between is done.
            let whole = effects(last.old, new, apv).later;
            *last = Item {
                old: last.old,
                later: whole.and_told([last.later, item.later], new),
                warning: warning.or(last.warning),
                parts: Parts::VOLUME,
                ..item
            };
        }
    }
}

impl Queue {
    /// Whether one of the changes after that which is at work is such.
    fn then(&self, is_such: impl Fn(&Item) -> bool) -> bool {
        self.items.iter().flatten().skip(1).any(is_such)
    }

    /// Whether the activity log ceases to count once more.
    fn demotes_again(&self) -> bool {
        self.then(|i| i.later.contains(Later::Demoted))
    }

    /// Whether another resync begins as its source.
    fn names_again(&self) -> bool {
        self.then(|i| i.later.contains(Later::SendSyncUuid))
    }

    /// Whether a peer that attaches has not been told yet what it has to compare with.
    pub(crate) fn owes_answer(&self) -> bool {
        self.is_ahead(Later::PeerAttached)
    }

    /// Whether a generation is about to begin, or to be told, as the peer has lost its disk.
    pub(super) fn owes_generation(&self) -> bool {
        self.is_ahead(Later::PeerDataLost)
    }

    /// Whether one of the changes entails this, and it is not done.
    fn is_ahead(&self, later: Later) -> bool {
        // Where it stands in the order matters to few: requests ask this often.
        let ahead = |i: &Item| Later::ALL.iter().skip(i.next).any(|l| *l == later);
        let mut all = self.items.iter().flatten();
        all.any(|i| i.later.contains(later) && ahead(i))
    }

    /// Whether the connection ends.
    fn was_cut(&self) -> bool {
        self.then(|i| i.new.conn < Conn::Connected)
    }
}

/// Effects of connection-wide changes that are outstanding.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(crate) struct ConnectionQueue(ConnectionEffects);

impl ConnectionQueue {
    /// Nothing outstanding.
    pub(crate) const EMPTY: ConnectionQueue = ConnectionQueue(ConnectionEffects::NONE);

    pub(super) fn add(&mut self, fx: ConnectionEffects) {
        self.0.start_receiver |= fx.start_receiver;
        self.0.unconfigure |= fx.unconfigure;
        self.0.fencing_done |= fx.fencing_done;
    }
}

/// Whether an effect is done.
enum Done {
    Yes,
    /// It goes on when [`Next::AfterChange`] runs.
    Waits,
    /// It waits, and does not begin anew then.
    WaitsThen(u8),
}

impl<S: Store> Resource<S> {
    /// Carries deferred effects out as far as room and patience last. True: more could be done.
    #[inline(never)]
    pub(super) fn after_change_pump(&mut self, h: &mut impl Host) -> bool {
        let mut worked = false;
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            // A queue has DEPTH items of at most 27 effects; each round does one of them.
            while self.vol(vol).is_some_and(|v| v.ctl.after.is_ready()) {
                if h.room() < ROOM {
                    return true;
                }
                self.after_change_step(vol, h);
                worked = true;
            }
        }
        worked | self.after_conn_change(PEER, h)
    }

    /// What an effect waited for is over.
    pub(super) fn after_change_resumes(&mut self, vol: VolIx, ok: bool) {
        if let Some(item) = self.vol_mut(vol).and_then(|v| v.ctl.after.first_mut()) {
            item.waiting = false;
            item.ok = ok;
        }
    }

    fn after_change_step(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(item) = self.vol(vol).and_then(|v| v.ctl.after.first().copied()) else {
            return;
        };
        if !item.begun {
            self.announce(vol, item, h);
            if let Some(i) = self.vol_mut(vol).and_then(|v| v.ctl.after.first_mut()) {
                i.begun = true;
            }
            return;
        }
        let todo = Later::ALL
            .iter()
            .enumerate()
            .skip(item.next)
            .find(|(_, l)| item.later.contains(**l));
        let Some((at, later)) = todo else {
            if let Some(v) = self.vol_mut(vol) {
                v.ctl.after.pop();
                // Joined with what came later, the news may have been told with that.
                v.ctl.end_untold &= !v.ctl.after.is_empty();
            }
            self.hear_parked(vol, h);
            return;
        };
        if let Some(i) = self.vol_mut(vol).and_then(|v| v.ctl.after.first_mut()) {
            // Whatever runs at once may already answer: the wait is noted first.
            i.next = at;
            i.waiting = true;
        }
        let done = self.do_later(vol, *later, item, h);
        let Some(i) = self.vol_mut(vol).and_then(|v| v.ctl.after.first_mut()) else {
            return;
        };
        match done {
            Done::Yes => {
                i.waiting = false;
                i.next = at.saturating_add(1);
                i.step = 0;
            }
            Done::Waits => {
                i.next = at.saturating_add(1);
                i.step = 0;
            }
            Done::WaitsThen(step) => i.step = step,
        }
        if *later == Later::PeerDataLost {
            self.hear_parked(vol, h);
        }
    }

    /// Log line and event of a change.
    fn announce(&mut self, vol: VolIx, item: Item, h: &mut impl Host) {
        if let Some(warning) = item.warning {
            self.log(vol, Note::Implied(warning), h);
        }
        let note = Note::StateChanged {
            old: item.old,
            new: item.new,
            parts: item.parts,
        };
        self.log(vol, note, h);
        if item.old.disk == Disk::Attaching && item.new.disk >= Disk::Negotiating {
            if let Some(uuids) = self.disk(vol).map(|d| d.uuids) {
                self.log(vol, Note::AttachedTo(uuids), h);
            }
        }
        h.emit(Effect::StateChanged {
            vol: Some(vol),
            old: item.old,
            new: item.new,
        });
    }

    fn do_later(&mut self, vol: VolIx, later: Later, item: Item, h: &mut impl Host) -> Done {
        let again = After::Control(Next::AfterChange { vol });
        let has_disk = self.state(vol).disk >= Disk::Inconsistent;
        match later {
            Later::ForgetCrashedPrimary => self.later_forget_crash(vol),
            Later::HelperPriOnInconDegr => {
                self.call_helper(HelperCommand::PriOnInconDegr, Some(vol), again, h);
                Done::Waits
            }
            Later::ThawNoData => self.later_thaw_no_data(item, h),
            Later::ThawFenced => self.later_thaw_fenced(h),
            Later::SendSyncUuid if has_disk => self.later_sync_uuid(vol, item, h),
            Later::PeerAttached => self.later_peer_attached(vol, item, h),
            Later::SendBitmap => {
                if self.state(vol).conn == Conn::WFBitMapS {
                    self.queue_bitmap_send(vol, h);
                }
                Done::Yes
            }
            Later::PeerDataLost if has_disk || item.step == 1 => self.later_new_uuid(vol, item, h),
            // With its first write: see `begin_generation`.
            Later::DisklessPeerPromoted => Done::Yes,
            Later::Demoted => self.later_demoted(vol, item, h),
            Later::DisklessPeerDemoted if has_disk => {
                self.write_bitmap(vol, Pages::Changed, again, h);
                Done::Waits
            }
            Later::SendSyncUuid | Later::PeerDataLost | Later::DisklessPeerDemoted => Done::Yes,
            Later::SendAttached => self.later_send_attached(vol, item, h),
            // A helper has held this back until the resync was over, which is told next: the peer
            // would take it for the wish to begin one. The C driver tells it.
            Later::SendStateConnected if self.vol(vol).is_some_and(|v| v.ctl.end_untold) => {
                Done::Yes
            }
            Later::SendStatePause
            | Later::SendStateConnected
            | Later::SendStateInconsistent
            | Later::SendStateVerifyDone => {
                self.send_state(vol, item.new, h);
                Done::Yes
            }
            Later::SendStateSyncDone => self.later_sync_done(vol, item, h),
            // Sent at once, before the first announcement.
            Later::SendStateAhead => Done::Yes,
            Later::PauseDependants
            | Later::ResumeDependants
            | Later::ResumeDependantsUnconfigured => {
                self.reconsider_pauses(h);
                Done::Yes
            }
            Later::StartFullSync => self.later_full_sync(vol, item, h),
            Later::DiskFailed => self.later_disk_failed(vol, item, h),
            Later::WentDiskless => self.later_went_diskless(vol, item, h),
            Later::ResyncGrown => self.later_resync_grown(vol, item, h),
            Later::WriteBitmap => {
                if has_disk {
                    self.write_bitmap(vol, Pages::Changed, After::Nothing, h);
                }
                Done::Yes
            }
            Later::SyncMeta => {
                if self.md_is_dirty(vol) {
                    self.md_sync(vol, After::Nothing, h);
                }
                Done::Yes
            }
        }
    }

    fn later_forget_crash(&mut self, vol: VolIx) -> Done {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.crashed_primary = false;
            for p in v.peers.iter_mut() {
                if let Some(u) = p.ctl.uuids.as_mut() {
                    u.flags &= !crate::uuid::flags::CRASHED_PRIMARY;
                }
            }
        }
        Done::Yes
    }

    /// From now on the activity log does not count, as this node is no longer Primary, or the peer
    /// that was without a disk is gone: what it stands for has to be in the bitmap on disk first.
    /// The C driver leaves that out while there is a resync, and in the second case always.
    fn later_demoted(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        let again = After::Control(Next::AfterChange { vol });
        if item.step == 0 && self.state(vol).is_suspended() {
            self.mark_frozen(vol, h);
        }
        if item.step == 0 && self.flushes_data_first(vol) {
            self.flush_data(vol, again, h);
            return Done::WaitsThen(1);
        }
        if item.step <= 1 && self.state(vol).disk >= Disk::Inconsistent {
            self.write_bitmap(vol, Pages::Changed, again, h);
            return Done::WaitsThen(2);
        }
        if let Some(v) = self.vol_mut(vol) {
            // Bits that were set since are written for the next one.
            v.ctl.demoting = v.ctl.after.demotes_again();
        }
        self.recompute_md_flags(vol, h);
        Done::Yes
    }

    /// A generation that this node has just begun is on its disk before the peer hears of it: a
    /// Primary without a disk would insist on it, though a power failure has taken it back. Another
    /// one may have begun while that was waited for.
    fn later_peer_attached(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if item.step == 0 {
            self.cancel_resync(vol, h);
        }
        if item.step == 0 || item.ok && self.md_begins(vol) {
            self.md_stable(vol, After::Control(Next::AfterChange { vol }), h);
            return Done::WaitsThen(1);
        }
        if self.vol(vol).is_some_and(|v| !v.ctl.after.was_cut()) {
            if self.state(vol).disk >= Disk::Negotiating {
                self.tell_uuids_as_counted(vol, 0, h);
            }
            self.send_state(vol, item.new, h);
        }
        Done::Yes
    }

    /// A generation may have begun with what was frozen, as the peer's disk was lost before the
    /// peer heard of this one: as above.
    fn later_send_attached(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if (item.step == 0 || item.ok) && self.md_begins(vol) {
            self.md_stable(vol, After::Control(Next::AfterChange { vol }), h);
            return Done::WaitsThen(1);
        }
        if self.vol(vol).is_some_and(|v| !v.ctl.after.was_cut()) {
            self.send_sizes(vol, 0, h);
            self.send_uuids(vol, 0, h);
            self.send_state(vol, item.new, h);
        }
        Done::Yes
    }

    fn later_went_diskless(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if item.new.conn >= Conn::Connected {
            self.send_state(vol, item.new, h);
        }
        self.drop_backing(vol, h);
        Done::Yes
    }

    fn later_resync_grown(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        let grown = self
            .vol_mut(vol)
            .is_some_and(|v| core::mem::take(&mut v.ctl.resync_after_neg));
        if grown && item.new.conn == Conn::Connected {
            let own = self.vol(vol).map_or(item.new.role, |v| v.ctl.told_role);
            self.resync_after_grow(vol, [own, item.new.peer], h);
        }
        Done::Yes
    }

    fn later_thaw_no_data(&mut self, item: Item, h: &mut impl Host) -> Done {
        let cstate = self.conn(PEER).map_or(Conn::StandAlone, |c| c.ctl.cstate);
        let lowest = aggregate::summarize(cstate, self.states()).lowest;
        let thaw = thaw_no_data(
            item.old,
            item.new,
            self.ctl.susp.no_data,
            lowest.conn,
            lowest.disk,
            self.states().any(State::primary_without_data),
        );
        let Some(thaw) = thaw else { return Done::Yes };
        if thaw == Thaw::RestartDiskIo {
            self.disk_goes_on_alone(h);
        }
        self.thaw_all(
            match thaw {
                Thaw::Resend => request::Thaw::Resend,
                Thaw::RestartDiskIo => request::Thaw::RestartLocal,
            },
            h,
        );
        let change = StateChange {
            susp_nod: Some(false),
            ..StateChange::NONE
        };
        self.change_conn(PEER, change, Flags::VERBOSE, h);
        Done::Yes
    }

    fn later_thaw_fenced(&mut self, h: &mut impl Host) -> Done {
        let back = self.states().all(|s| s.conn >= Conn::Connected);
        if !self.ctl.susp.fencing || !back {
            return Done::Yes;
        }
        for v in self.volumes.iter_mut().flatten() {
            v.ctl.new_current_uuid = false;
        }
        self.thaw_all(request::Thaw::Resend, h);
        let change = StateChange {
            susp_fen: Some(false),
            ..StateChange::NONE
        };
        self.change_conn(PEER, change, Flags::VERBOSE, h);
        Done::Yes
    }

    fn later_sync_uuid(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        // It may have pulled ahead again, also while the name was written: the next resync has
        // another one.
        let again = self.vol(vol).is_some_and(|v| v.ctl.after.names_again());
        let source = matches!(self.state(vol).conn, Conn::SyncSource | Conn::PausedSyncS);
        let source = source && !again;
        if item.step == 0 {
            if !source || self.uuid_begin_sync_source(vol, h).is_none() {
                return Done::Yes;
            }
            self.md_sync(vol, After::Control(Next::AfterChange { vol }), h);
            return Done::WaitsThen(1);
        }
        if let Some(uuid) = self.disk(vol).filter(|_| source).map(|d| d.uuids.bitmap) {
            self.send_sync_uuid(vol, uuid, h);
        }
        Done::Yes
    }

    /// The source forgets what the target lacked as soon as it hears of the end: that has to be on
    /// the target's disk by then. Should it lose its power it would come back as it was before the
    /// resync, and need a full one.
    fn later_sync_done(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if item.step == 0 {
            self.md_stable(vol, After::Control(Next::AfterChange { vol }), h);
            return Done::WaitsThen(1);
        }
        // Another connection begins with other words.
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.end_untold = false;
        }
        if self.vol(vol).is_some_and(|v| !v.ctl.after.was_cut()) {
            self.send_state(vol, item.new, h);
        }
        Done::Yes
    }

    fn later_new_uuid(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if item.step == 1 {
            if item.ok && self.md_begins(vol) {
                // A resync has got a name meanwhile.
                self.md_stable(vol, After::Control(Next::AfterChange { vol }), h);
                return Done::WaitsThen(1);
            }
            // Even if the disk has failed since: it says so now, and the peer, whose data these
            // are, must not go on without them. The C driver keeps it to itself.
            self.tell_uuids(vol, 0, h);
            return Done::Yes;
        }
        let asked = self.vol(vol).is_some_and(|v| v.ctl.peer_detaches);
        if asked && !item.new.role.is_primary() {
            return Done::Yes;
        }
        let bitmap = self.disk(vol).map_or(0, |d| d.uuids.bitmap);
        let suspended = self.state(vol).is_suspended();
        let lacks = self.vol_mut(vol).is_some_and(|v| {
            let marked = v.backing.as_ref().is_some_and(|b| b.bitmap.weight() != 0);
            core::mem::take(&mut v.ctl.peer_lacks) && marked
        });
        match uuid_when_peer_data_lost(item.old, item.new, bitmap, suspended, lacks) {
            NewUuid::No => Done::Yes,
            NewUuid::Defer => {
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.new_current_uuid = true;
                }
                Done::Yes
            }
            NewUuid::Create => {
                self.uuid_new_current(vol, h);
                self.md_sync(vol, After::Control(Next::AfterChange { vol }), h);
                Done::WaitsThen(1)
            }
        }
    }

    fn later_full_sync(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        if item.step == 0 {
            self.set_all_and_write(vol, After::Control(Next::AfterChange { vol }), h);
            return Done::WaitsThen(1);
        }
        match after_full_bitmap(item.ok, self.state(vol).conn) {
            FullBitmap::Nothing => {
                // The connection is lost already: as above.
                let s = self.state(vol);
                let target = item.ok && item.new.conn == Conn::StartingSyncT;
                if target && s.disk == Disk::Outdated && s.conn < Conn::Connected {
                    let change = StateChange::NONE.disk(Disk::Inconsistent);
                    self.change_state(vol, change, Flags::HARD, h);
                }
            }
            FullBitmap::WaitForSyncUuid => {
                // All bits are set: should the connection be lost now, a full sync is due all the
                // same. The C driver leaves it at Outdated, and forgets that.
                let change = StateChange::NONE
                    .conn(Conn::WFSyncUUID)
                    .disk(Disk::Inconsistent);
                self.change_state(vol, change, Flags::VERBOSE, h);
            }
            FullBitmap::StartSource => self.start_resync(vol, Side::Source, h),
            FullBitmap::GiveUp => {
                self.log(vol, Note::NoResyncWithoutBitmap, h);
                let change = StateChange::NONE.conn(Conn::Connected);
                self.change_state(vol, change, Flags::VERBOSE, h);
            }
        }
        Done::Yes
    }

    fn later_disk_failed(&mut self, vol: VolIx, item: Item, h: &mut impl Host) -> Done {
        let again = After::Control(Next::AfterChange { vol });
        match item.step {
            0 => {
                let by_error = self.vol_mut(vol).is_some_and(|v| {
                    core::mem::take(&mut v.ctl.was_io_error)
                        && v.backing
                            .as_ref()
                            .is_some_and(|b| b.disk.conf.on_io_error == 1)
                });
                if by_error {
                    self.call_helper(HelperCommand::LocalIoError, Some(vol), again, h);
                } else {
                    self.after_change_resumes(vol, true);
                }
                Done::WaitsThen(1)
            }
            1 => {
                let forced = self
                    .vol_mut(vol)
                    .is_some_and(|v| core::mem::take(&mut v.ctl.force_detach));
                if forced {
                    self.requests_disk_failed(vol, h);
                }
                if item.new.conn >= Conn::Connected {
                    self.send_state(vol, item.new, h);
                    self.loss_sent(PEER, vol, h);
                }
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.failure_sent = true;
                }
                self.cancel_resync(vol, h);
                self.md_sync(vol, again, h);
                Done::WaitsThen(2)
            }
            _ => {
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.failure_told = true;
                }
                self.consider_diskless(vol, h);
                Done::Yes
            }
        }
    }

    /// I/O goes on with the own disk. What was written there before both copies were lost is not
    /// at the peer. If that is there, what it lacks is known by the bitmap, or sent again.
    fn disk_goes_on_alone(&mut self, h: &mut impl Host) {
        let cstate = self.conn(PEER).map_or(Conn::StandAlone, |c| c.ctl.cstate);
        if cstate >= Conn::WFReportParams {
            return;
        }
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let alone = self.holds_alone(vol);
            if let Some(v) = self.vol_mut(vol) {
                v.ctl.new_current_uuid |= alone;
            }
        }
        if !self.ctl.susp.fencing && !self.ctl.susp.user {
            self.begin_put_off(h);
        }
    }

    /// Begins the generations that were put off until I/O goes on.
    fn begin_put_off(&mut self, h: &mut impl Host) {
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let due = self
                .vol_mut(vol)
                .is_some_and(|v| core::mem::take(&mut v.ctl.new_current_uuid));
            let begun = self.disk(vol).is_some_and(|d| d.uuids.bitmap != 0);
            if due && !begun {
                self.uuid_new_current(vol, h);
                self.md_sync(vol, After::Nothing, h);
            }
        }
    }

    /// What connection-wide changes entail. True: something was done.
    fn after_conn_change(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        if h.room() < ROOM {
            return false;
        }
        let Some(c) = self.conn_mut(peer) else {
            return false;
        };
        let fx = core::mem::take(&mut c.ctl.after).0;
        if fx == ConnectionEffects::default() {
            return false;
        }
        if fx.start_receiver {
            self.start_receiver(peer, h);
        }
        if fx.unconfigure {
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.conf = None;
            }
        }
        if fx.fencing_done && self.ctl.susp.fencing {
            // Where no data can be reached I/O stays suspended: the frozen writes are on a disk
            // that is gone, which could not be told from the peer's if it came back. The C driver
            // lets them go.
            if !self.ctl.susp.no_data {
                // Also if the own disk has failed since: it has the frozen writes that the
                // applications are about to be told of, and the peer lacks them.
                self.begin_put_off(h);
                self.thaw_all(request::Thaw::FailPeerLeg, h);
            }
            let change = StateChange {
                susp_fen: Some(false),
                ..StateChange::NONE
            };
            self.change_conn(peer, change, Flags::VERBOSE, h);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_resync_is_told_though_changes_are_joined() {
        let at = |conn, disk| State {
            conn,
            disk,
            pdsk: Disk::UpToDate,
            ..State::INITIAL
        };
        let mut queue = Queue::EMPTY;
        let mut push = |old, new| queue.push(old, new, None, Parts::VOLUME, 101);
        for _ in 0..DEPTH {
            let there = at(Conn::WFSyncUUID, Disk::Inconsistent);
            push(at(Conn::WFBitMapT, Disk::Inconsistent), there);
        }
        let syncs = at(Conn::SyncTarget, Disk::Inconsistent);
        let done = at(Conn::Connected, Disk::UpToDate);
        push(at(Conn::WFSyncUUID, Disk::Inconsistent), syncs);
        push(syncs, done);
        push(done, at(Conn::Connected, Disk::UpToDate));
        let last = queue.items.iter().flatten().last().unwrap();
        assert_eq!(
            (last.old.conn, last.new.conn),
            (Conn::WFBitMapT, Conn::Connected)
        );
        assert!(last.later.contains(Later::SendStateSyncDone));
        // Nobody is told of it when the connection is lost.
        queue.push(
            done,
            at(Conn::NetworkFailure, Disk::UpToDate),
            None,
            Parts::VOLUME,
            101,
        );
        let last = queue.items.iter().flatten().last().unwrap();
        assert!(!last.later.contains(Later::SendStateSyncDone));
    }
}
