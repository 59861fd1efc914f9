// SPDX-License-Identifier: GPL-2.0

//! `primary` and `secondary` (state.md §4).

use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, Ss};
use crate::time::{Duration, Instant};

use super::super::super::io::{Effect, Host, OpId, VolIx};
use super::super::super::note::Note;
use super::super::super::{Resource, Store, Volume, PEER};
use super::super::{Flags, StateChange};
use super::{Ask, Event, Kind, Move, TRANSIENT};

/// Attempts, as in the C driver.
const TRIES: u32 = 4;

/// How far a change of role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Asked,
    /// fence-peer runs, to be allowed to call a Consistent disk UpToDate.
    FencingForData,
    /// fence-peer runs, to be allowed to be Primary at all.
    Fencing,
    /// Perhaps the other Primary turns out to be dead.
    Sleeping,
    /// The last attempt, with a line in the log.
    Last,
    /// The state is changed; its effects and requests on the network settle.
    Settling,
    /// The superblock is being written.
    Storing,
}

/// A change of role.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct RoleChange {
    pub(super) vol: VolIx,
    role: Role,
    force: bool,
    forced: bool,
    /// The peer hears of the generation that begins with this.
    tell: bool,
    /// What the peer has written here so far is stable.
    flushed: bool,
    tries: u32,
    change: StateChange,
    code: Ss,
    step: Step,
    /// It waits no longer for the peer's answer to a resize.
    until: Instant,
    /// The current UUID when it began, without the bit for the role.
    generation: Option<u64>,
}

impl RoleChange {
    fn ask(mut self, step: Step) -> Move {
        let flags = if step == Step::Last {
            Flags::VERBOSE
        } else {
            Flags::QUIET
        };
        self.step = step;
        Move::Ask(Kind::Role(self), Ask::volume(self.vol, self.change, flags))
    }

    /// Another attempt, if there is one left.
    fn again(mut self) -> Move {
        if self.tries >= TRIES {
            return Move::Done(self.code.number());
        }
        self.tries = self.tries.saturating_add(1);
        self.ask(Step::Asked)
    }

    fn at(mut self, step: Step) -> RoleChange {
        self.step = step;
        self
    }
}

impl<S: Store> Resource<S> {
    pub(super) fn admin_role(
        &mut self,
        op: OpId,
        vol: VolIx,
        role: Role,
        force: bool,
        h: &mut impl Host,
    ) {
        let r = RoleChange {
            vol,
            role,
            force,
            forced: false,
            tell: false,
            flushed: false,
            tries: 0,
            change: StateChange::NONE.role(role),
            code: Ss::UnknownError,
            step: Step::Begin,
            until: h.now().plus(TRANSIENT),
            generation: self.disk(vol).map(|d| d.uuids.current & !1),
        };
        self.begin(op, Kind::Role(r), h);
    }

    pub(super) fn move_role(&mut self, mut r: RoleChange, event: Event, h: &mut impl Host) -> Move {
        match (r.step, event) {
            // The roles say which node is the source of what a resize has added, and the peer goes
            // by those of before. The C driver does not wait.
            (Step::Begin, _) if h.now() < r.until && self.is_being_sized(r.vol) => {
                Move::PollUntil(Kind::Role(r), r.until)
            }
            (Step::Begin, _) => {
                if r.role == Role::Primary {
                    self.send_ping(PEER, h);
                } else if self.peer_lags(r.vol) {
                    // With protocols A and B the peer may lack what applications were told of.
                    // Should it be lost now, a Primary begins a new generation; a Secondary
                    // would not, and the copies would pass for equal.
                    self.new_epoch(h);
                    self.hurry_proof(PEER, h);
                    return Move::Poll(Kind::Role(r));
                }
                r.again()
            }
            (Step::Asked, Event::Code(code)) => {
                r.code = code;
                self.role_asked(r, h)
            }
            (Step::FencingForData, Event::Io(ok)) => {
                if ok {
                    r.change = r.change.disk(Disk::UpToDate);
                }
                r.again()
            }
            (Step::Fencing, Event::Io(ok)) => {
                if !ok && r.force {
                    self.log(r.vol, Note::ForcedSplitBrain, h);
                    r.change = r.change.pdsk(Disk::Outdated);
                }
                r.again()
            }
            (Step::Sleeping, _) => r.again(),
            (Step::Last, Event::Code(code)) => {
                r.code = code;
                if code.is_success() {
                    self.role_settling(r)
                } else {
                    Move::Done(code.number())
                }
            }
            (Step::Settling, _) => self.role_settled(r, h),
            (Step::Storing, event) => self.role_stored(r, event != Event::Io(false), h),
            (Step::Asked | Step::FencingForData | Step::Fencing | Step::Last, _) => {
                Move::Done(ErrCode::Intr.number())
            }
        }
    }

    /// Whether this node, or the peer, is still to answer with its size.
    fn is_being_sized(&self, vol: VolIx) -> bool {
        self.vol(vol)
            .is_some_and(|v| v.ctl.sizes_due || v.ctl.changes_size())
    }

    fn role_asked(&mut self, mut r: RoleChange, h: &mut impl Host) -> Move {
        let disk = self.state(r.vol).disk;
        let masked = r.change.pdsk.is_some();
        match r.code {
            Ss::CwFailedByPeer if masked => {
                r.change.pdsk = None;
                r.again()
            }
            Ss::NoUpToDateDisk
                if r.force && disk < Disk::UpToDate && disk >= Disk::Inconsistent =>
            {
                r.change = r.change.disk(Disk::UpToDate);
                r.forced = true;
                r.again()
            }
            Ss::NoUpToDateDisk if disk == Disk::Consistent && !masked => {
                let then = self.operation_goes_on();
                self.fence_peer(PEER, then, h);
                Move::Io(Kind::Role(r.at(Step::FencingForData)))
            }
            Ss::NothingToDo => Move::Done(Ss::NothingToDo.number()),
            Ss::PrimaryNop if !masked => {
                let then = self.operation_goes_on();
                self.fence_peer(PEER, then, h);
                Move::Io(Kind::Role(r.at(Step::Fencing)))
            }
            Ss::TwoPrimaries if r.tries < TRIES => {
                r.tries = TRIES.saturating_sub(1);
                let conf = self.conn(PEER).and_then(|c| c.ctl.conf.as_ref());
                let tenths = conf.map_or(1, |n| n.ping_timeo.saturating_add(1));
                let until = h.now().plus(Duration::tenths(u64::from(tenths)));
                Move::Until(Kind::Role(r.at(Step::Sleeping)), until)
            }
            code if code.is_success() => self.role_settling(r),
            _ => r.ask(Step::Last),
        }
    }

    fn role_settling(&mut self, r: RoleChange) -> Move {
        Move::Go(Kind::Role(r.at(Step::Settling)))
    }

    /// Once effects and requests have settled: the UUIDs.
    fn role_settled(&mut self, mut r: RoleChange, h: &mut impl Host) -> Move {
        let vol = r.vol;
        let settled =
            self.vol(vol).is_some_and(|v| v.ctl.after.is_empty()) && self.network_pending(vol) == 0;
        if !settled {
            return Move::Poll(Kind::Role(r));
        }
        let primary = r.role == Role::Primary;
        if !primary && self.lose_frozen_at_demotion(vol, h) {
            return Move::Go(Kind::Role(r));
        }
        // No demotion is under way, which would flush as well, and none comes before this is over.
        if primary && !r.flushed && self.flushes_data_first(vol) {
            r.flushed = true;
            let after = self.operation_goes_on();
            self.flush_data(vol, after, h);
            return Move::Io(Kind::Role(r));
        }
        // The disk may have become good while the peer was being asked, as by a resync from there:
        // then nothing was forced, and these data have a name. The C driver makes up another one,
        // and the two nodes go on with different ones.
        r.forced &= self.vol(vol).is_some_and(|v| v.ctl.promoted_disk);
        if r.forced {
            self.log(vol, Note::ForcedUpToDate, h);
        }
        let s = self.state(vol);
        if primary {
            if let Some(n) = self.conn_mut(PEER).and_then(|c| c.ctl.conf.as_mut()) {
                n.discard_my_data = false;
            }
            let usable = s.disk >= Disk::Inconsistent;
            let bitmap = self.disk(vol).filter(|_| usable).map(|d| d.uuids.bitmap);
            // The target of a resync that has lost its source while it was promoted has nothing
            // that could be a generation. The C driver begins one.
            let good = s.disk > Disk::Inconsistent;
            let alone = good && (s.conn < Conn::Connected || s.pdsk <= Disk::Failed);
            // Where the peer is taken for outdated by force, the change of state has begun a
            // generation already. A second one would forget what the peer has: the C driver then
            // takes the two copies for unrelated, and not for a split brain.
            let begun = bitmap.map(|b| b & !1) == r.generation;
            if (alone && bitmap == Some(0)) || (r.forced && bitmap.is_some() && !begun) {
                self.uuid_new_current(vol, h);
            }
        } else if self.refused_writes(vol) {
            // The peer says why when its `local-io-error` is over; or it is away, and lacks what
            // was frozen. Should both lose their power before, nothing else would tell the copies
            // apart, as no Primary crashed.
            self.uuid_new_current(vol, h);
            r.tell = true;
        }
        if let Some(d) = self.disk_mut(vol) {
            d.uuids.mark_role(primary);
            self.md_dirty(vol, h);
            let after = self.operation_goes_on();
            self.md_sync(vol, after, h);
            return Move::Io(Kind::Role(r.at(Step::Storing)));
        }
        Move::Go(Kind::Role(r.at(Step::Storing)))
    }

    /// Whether the peer has refused writes of this generation, or lost them, and nothing tells so
    /// but marks.
    fn refused_writes(&self, vol: VolIx) -> bool {
        let disk = self.disk(vol).filter(|d| d.uuids.bitmap == 0);
        let lacks = |v: &&Volume<S>| v.ctl.peer_lacks || v.ctl.frozen_lost;
        let Some(v) = self.vol(vol).filter(lacks) else {
            return false;
        };
        let marked = v.backing.as_ref().is_some_and(|b| b.bitmap.weight() != 0);
        marked && disk.is_some() && v.state.disk == Disk::UpToDate
    }

    fn role_stored(&mut self, r: RoleChange, ok: bool, h: &mut impl Host) -> Move {
        let vol = r.vol;
        let s = self.state(vol);
        if s.conn >= Conn::WFReportParams {
            if r.forced || r.tell {
                if ok && self.md_begins(vol) {
                    // A resync has got a name meanwhile, which would be told with it.
                    let after = self.operation_goes_on();
                    self.md_stable(vol, after, h);
                    return Move::Io(Kind::Role(r));
                }
                self.send_uuids(vol, 0, h);
            }
            self.send_state(vol, s, h);
        }
        let ro = r.role == Role::Secondary;
        h.emit(Effect::SetReadOnly { vol, ro });
        h.emit(Effect::Uevent { vol });
        Move::Done(r.code.number())
    }
}
