// SPDX-License-Identifier: GPL-2.0

//! `invalidate`, `invalidate-remote`, `pause-sync`, `resume-sync`, `new-current-uuid`.

use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, Ss};
use crate::time::Instant;
use crate::uuid;

use super::super::super::io::{Host, OpId, VolIx};
use super::super::super::note::Note;
use super::super::super::{Resource, Store, PEER};
use super::super::{Flags, StateChange};
use super::{Ask, Event, Kind, Move, TRANSIENT};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Quiet,
    Asked {
        /// Alone: the bits are set here.
        alone: bool,
    },
    Marked,
}

/// How far an invalidate is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Invalidating {
    pub(super) vol: VolIx,
    /// The peer's data, not the own ones.
    remote: bool,
    step: Step,
    code: Ss,
}

/// How far `new-current-uuid` is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct NewUuid {
    pub(super) vol: VolIx,
    clear: bool,
    skip_sync: bool,
    /// It waits no longer for the peer to be connected, too.
    until: Instant,
    step: NewUuidStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum NewUuidStep {
    Begin,
    Rotated,
    Cleared,
    Stored,
}

impl<S: Store> Resource<S> {
    pub(super) fn admin_invalidate(
        &mut self,
        op: OpId,
        vol: VolIx,
        remote: bool,
        h: &mut impl Host,
    ) {
        if self.state(vol).disk < Disk::Inconsistent {
            return self.answer(op, ErrCode::NoDisk, h);
        }
        let i = Invalidating {
            vol,
            remote,
            step: Step::Begin,
            code: Ss::UnknownError,
        };
        self.begin(op, Kind::Invalidate(i), h);
    }

    pub(super) fn move_invalidate(
        &mut self,
        mut i: Invalidating,
        event: Event,
        h: &mut impl Host,
    ) -> Move {
        let vol = i.vol;
        match (i.step, event) {
            (Step::Begin, _) => {
                i.step = Step::Quiet;
                let after = self.operation_goes_on();
                self.gate_close(vol, after, h);
                Move::Io(Kind::Invalidate(i))
            }
            (Step::Quiet, _) => {
                let s = self.state(vol);
                let role = if i.remote {
                    Role::Primary
                } else {
                    Role::Secondary
                };
                let alone = s.conn == Conn::StandAlone && s.role == role;
                let change = match (alone, i.remote) {
                    (true, false) => StateChange::NONE.disk(Disk::Inconsistent),
                    (true, true) => StateChange::NONE.pdsk(Disk::Inconsistent),
                    (false, false) => StateChange::NONE.conn(Conn::StartingSyncT),
                    (false, true) => StateChange::NONE.conn(Conn::StartingSyncS),
                };
                i.step = Step::Asked { alone };
                Move::Ask(
                    Kind::Invalidate(i),
                    Ask::volume(vol, change, Flags::VERBOSE),
                )
            }
            (Step::Asked { alone }, Event::Code(code)) => {
                if alone && code.is_success() {
                    i.code = code;
                    i.step = Step::Marked;
                    let after = self.operation_goes_on();
                    self.set_all_and_write(vol, after, h);
                    return Move::Io(Kind::Invalidate(i));
                }
                self.gate_open(vol, h);
                Move::Done(code.number())
            }
            (Step::Marked, Event::Io(true)) => {
                let apart = self.disk(vol).is_some_and(|d| d.limits.caches_apart());
                if i.remote && !apart {
                    if let Some(v) = self.vol_mut(vol) {
                        v.ctl.al_suspended = true;
                        if let Some(b) = v.backing.as_mut() {
                            b.al.set_suspended(true);
                        }
                    }
                    self.log(vol, Note::AlSuspended, h);
                }
                self.gate_open(vol, h);
                Move::Done(i.code.number())
            }
            (Step::Marked | Step::Asked { .. }, _) => {
                self.gate_open(vol, h);
                Move::Done(ErrCode::IoMdDisk.number())
            }
        }
    }

    /// `pause-sync` and `resume-sync`. As in the C driver only "nothing to do" is an error.
    pub(super) fn admin_pause(&mut self, op: OpId, vol: VolIx, pause: bool, h: &mut impl Host) {
        let change = StateChange {
            user_isp: Some(pause),
            ..StateChange::NONE
        };
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        let s = self.state(vol);
        let paused = matches!(s.conn, Conn::PausedSyncS | Conn::PausedSyncT);
        let answer = match (code == Ss::NothingToDo, pause) {
            (false, _) => ErrCode::NoError,
            (true, true) => ErrCode::PauseIsSet,
            (true, false) if paused && s.aftr_isp => ErrCode::PicAfterDep,
            (true, false) if paused && s.peer_isp => ErrCode::PicPeerDep,
            (true, false) => ErrCode::PauseIsClear,
        };
        self.answer(op, answer, h);
    }

    pub(super) fn admin_new_uuid(&mut self, op: OpId, vol: VolIx, clear: bool, h: &mut impl Host) {
        let s = self.state(vol);
        if self.disk(vol).is_none() || s.disk < Disk::Inconsistent {
            return self.answer(op, ErrCode::NoDisk, h);
        }
        let skip_sync = clear && self.may_skip_sync(vol);
        if !skip_sync && s.conn != Conn::StandAlone {
            return self.answer(op, ErrCode::Connected, h);
        }
        let n = NewUuid {
            vol,
            clear,
            skip_sync,
            until: h.now().plus(TRANSIENT),
            step: NewUuidStep::Begin,
        };
        self.begin(op, Kind::NewUuid(n), h);
    }

    /// Both disks have to be fresh: the peer takes the new UUID over only then. The C driver does
    /// not ask, and calls the peer's disk UpToDate even if there is none.
    fn may_skip_sync(&self, vol: VolIx) -> bool {
        let s = self.state(vol);
        let own = self.disk(vol).map(|d| d.uuids.current);
        let told = self.vol(vol).and_then(|v| v.peers.first());
        let told = told.and_then(|p| p.ctl.uuids).map(|u| u.current);
        let fresh = [own, told] == [Some(uuid::JUST_CREATED); 2];
        let apv = self.agreed(PEER).map_or(0, |a| a.apv);
        s.conn == Conn::Connected && s.pdsk == Disk::Inconsistent && fresh && apv >= 90
    }

    /// Whether the peer has left the handshake. It says so, and that its disk is bad, which must
    /// not arrive when both disks count as good: writes would not be sent any more. The C driver
    /// does not wait.
    fn peer_is_connected(&self, vol: VolIx) -> bool {
        let mut peers = self.vol(vol).into_iter().flat_map(|v| v.peers.iter());
        peers.all(|p| p.ctl.greeted)
    }

    pub(super) fn move_new_uuid(
        &mut self,
        mut n: NewUuid,
        event: Event,
        h: &mut impl Host,
    ) -> Move {
        let vol = n.vol;
        if event == Event::Io(false) {
            return Move::Done(ErrCode::IoMdDisk.number());
        }
        let after = self.operation_goes_on();
        match n.step {
            NewUuidStep::Begin if n.skip_sync && !self.may_skip_sync(vol) => {
                Move::Done(ErrCode::Connected.number())
            }
            NewUuidStep::Begin if n.skip_sync && !self.peer_is_connected(vol) => {
                if h.now() < n.until {
                    return Move::PollUntil(Kind::NewUuid(n), n.until);
                }
                Move::Done(Ss::InTransientState.number())
            }
            NewUuidStep::Begin => {
                let random = h.random();
                self.change_uuids(vol, "new current UUID", h, |set, primary| {
                    set.admin_new_current(random, primary);
                });
                // One that waits for fence-peer or `resume-io` has begun with this: a second one
                // would forget what the peer has, and the copies pass for unrelated. The C driver
                // begins it.
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.new_current_uuid = false;
                }
                n.step = NewUuidStep::Rotated;
                self.md_sync(vol, after, h);
                Move::Io(Kind::NewUuid(n))
            }
            NewUuidStep::Rotated if n.clear => {
                n.step = NewUuidStep::Cleared;
                self.clear_all_and_write(vol, after, h);
                Move::Io(Kind::NewUuid(n))
            }
            NewUuidStep::Cleared if n.skip_sync => {
                self.send_uuids(vol, uuid::flags::SKIP_INITIAL_SYNC, h);
                self.change_uuids(vol, "cleared bitmap UUID", h, |set, _| set.forget_bitmap());
                // Or the next resync would take over what the peer had before.
                self.peer_has_own_uuids(vol);
                let good = StateChange::NONE.disk(Disk::UpToDate).pdsk(Disk::UpToDate);
                self.change_state(vol, good, Flags::VERBOSE, h);
                n.step = NewUuidStep::Stored;
                self.md_sync(vol, after, h);
                Move::Io(Kind::NewUuid(n))
            }
            NewUuidStep::Rotated | NewUuidStep::Cleared | NewUuidStep::Stored => {
                Move::Done(ErrCode::NoError.number())
            }
        }
    }
}
