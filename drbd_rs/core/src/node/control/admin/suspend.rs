// SPDX-License-Identifier: GPL-2.0

//! `resume-io`: whatever suspended the I/O, it goes on.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Ss, State};

use super::super::super::io::{Host, OpId, VolIx};
use super::super::super::note::Note;
use super::super::super::{Resource, Store, PEER};
use super::super::{Flags, StateChange};
use super::{Ask, Event, Kind, Move, TRANSIENT};
use crate::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Stored,
    Asked,
}

/// How far a resume is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Resuming {
    pub(super) vol: VolIx,
    step: Step,
    /// It waits no longer for the first packets of a connection.
    until: Instant,
}

/// Whether a resync has begun while I/O was suspended: either way it is known who lacks what. A
/// source need not have given it a name yet, but the peer was told the UUIDs that it has now, and
/// takes those over at the end. Should it be lost before, a generation begins with that. The C
/// driver begins one here, which the two do not share after the resync: the next one is full.
fn resyncs(s: State) -> bool {
    // A Secondary has written nothing that its copy, perhaps not the last, alone has.
    let stale = matches!(s.disk, Disk::Inconsistent | Disk::Outdated)
        || s.disk == Disk::Consistent && !s.role.is_primary();
    stale || s.conn > Conn::Connected && s.conn != Conn::Ahead
}

impl<S: Store> Resource<S> {
    pub(super) fn admin_resume_io(&mut self, op: OpId, vol: VolIx, h: &mut impl Host) {
        // Nothing new is admitted before the frozen requests have found their way.
        self.gate_close(vol, super::super::super::After::Nothing, h);
        let r = Resuming {
            vol,
            step: Step::Begin,
            until: h.now().plus(TRANSIENT),
        };
        self.begin(op, Kind::Resume(r), h);
    }

    /// Whether the peer was told the UUIDs and has not yet answered: a generation that begins now
    /// would be compared with by one node only, and both wait for a bitmap of the other, or for
    /// nothing. The same goes for a disk that has been attached, of which it is not even decided
    /// whether it is good. The C driver begins it.
    fn greets(&self) -> bool {
        let attaches = self.states().any(|s| s.disk == Disk::Negotiating);
        attaches || self.conn(PEER).is_some_and(|c| c.ctl.state_sent)
    }

    pub(super) fn move_resume(&mut self, mut r: Resuming, event: Event, h: &mut impl Host) -> Move {
        let vol = r.vol;
        match (r.step, event) {
            (Step::Begin, _) if self.greets() && h.now() < r.until => {
                Move::PollUntil(Kind::Resume(r), r.until)
            }
            (Step::Begin, _) if self.greets() => {
                self.gate_open(vol, h);
                Move::Done(Ss::InTransientState.number())
            }
            (Step::Begin, _) => {
                r.step = Step::Stored;
                let due = self
                    .vol_mut(vol)
                    .is_some_and(|v| core::mem::take(&mut v.ctl.new_current_uuid));
                // A peer that is back in sync gets the frozen writes again: it misses nothing.
                let s = self.state(vol);
                let back = s.conn >= Conn::Connected && s.pdsk == Disk::UpToDate;
                if !due || back {
                    return Move::Go(Kind::Resume(r));
                }
                let held = self.disk(vol).filter(|_| s.disk > Disk::Attaching);
                if let Some(uuids) = held.map(|d| d.uuids) {
                    if uuids.bitmap != 0 || resyncs(s) {
                        return Move::Go(Kind::Resume(r));
                    }
                    self.uuid_new_current(vol, h);
                    let after = self.operation_goes_on();
                    self.md_sync(vol, after, h);
                    return Move::Io(Kind::Resume(r));
                }
                let random = h.random();
                if let Some(v) = self.vol_mut(vol) {
                    // What the applications see from now on exists nowhere.
                    let primary = u64::from(v.state.role.is_primary());
                    v.ctl.ed_uuid = (random & !1) | primary;
                }
                self.log(vol, Note::ResumedWithoutData, h);
                Move::Go(Kind::Resume(r))
            }
            (Step::Stored, _) => {
                r.step = Step::Asked;
                let change = StateChange {
                    susp: Some(false),
                    susp_nod: Some(false),
                    susp_fen: Some(false),
                    ..StateChange::NONE
                };
                Move::Ask(Kind::Resume(r), Ask::volume(vol, change, Flags::VERBOSE))
            }
            (Step::Asked, Event::Code(code)) => {
                // The frozen requests come first, by one walk for both of their legs: whether the
                // peer is there decides. The C driver sends them again only if there is a disk.
                self.gate_open(vol, h);
                Move::Done(code.number())
            }
            (Step::Asked, _) => {
                self.gate_open(vol, h);
                Move::Done(Ss::UnknownError.number())
            }
        }
    }
}
