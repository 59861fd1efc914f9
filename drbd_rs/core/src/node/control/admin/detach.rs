// SPDX-License-Identifier: GPL-2.0

//! `detach`: by request, or by force.

use crate::state::disk::State as Disk;
use crate::state::Ss;

use super::super::super::io::{Host, OpId, VolIx};
use super::super::super::{Resource, Store};
use super::super::{Flags, IoErrorKind, StateChange};
use super::{Ask, Event, Kind, Move};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Quiet,
    Asked,
    Leaving,
}

/// How far a detach is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Detaching {
    pub(super) vol: VolIx,
    step: Step,
    code: Ss,
}

impl Detaching {
    /// Whether application I/O is held back for it.
    pub(super) fn holds_gate(&self) -> bool {
        matches!(self.step, Step::Quiet | Step::Asked)
    }
}

impl<S: Store> Resource<S> {
    pub(super) fn admin_detach(&mut self, op: OpId, vol: VolIx, force: bool, h: &mut impl Host) {
        if force {
            if self.state(vol).disk > Disk::Failed {
                self.io_error(vol, IoErrorKind::ForceDetach, h);
            } else if let Some(v) = self.vol_mut(vol) {
                // Already on its way out, but perhaps stuck behind I/O that never ends.
                if v.state.disk == Disk::Failed {
                    self.requests_disk_failed(vol, h);
                }
            }
            self.refuse(op, Ss::Success.number(), None, h);
            return;
        }
        let d = Detaching {
            vol,
            step: Step::Begin,
            code: Ss::UnknownError,
        };
        self.begin(op, Kind::Detach(d), h);
    }

    pub(super) fn move_detach(
        &mut self,
        mut d: Detaching,
        event: Event,
        h: &mut impl Host,
    ) -> Move {
        let vol = d.vol;
        match (d.step, event) {
            (Step::Begin, _) => {
                if self.state(vol).disk == Disk::Diskless {
                    return Move::Done(Ss::NothingToDo.number());
                }
                d.step = Step::Quiet;
                let after = self.operation_goes_on();
                self.gate_close(vol, after, h);
                Move::Io(Kind::Detach(d))
            }
            (Step::Quiet, _) => {
                d.step = Step::Asked;
                let change = StateChange::NONE.disk(Disk::Failed);
                Move::Ask(Kind::Detach(d), Ask::volume(vol, change, Flags::VERBOSE))
            }
            (Step::Asked, event) => {
                self.gate_open(vol, h);
                d.code = match event {
                    Event::Code(Ss::IsDiskless) => Ss::NothingToDo,
                    Event::Code(code) => code,
                    Event::Go | Event::Io(_) => Ss::UnknownError,
                };
                if d.code.is_refusal() {
                    return Move::Done(d.code.number());
                }
                d.step = Step::Leaving;
                Move::Go(Kind::Detach(d))
            }
            (Step::Leaving, _) => {
                let gone = self.state(vol).disk == Disk::Diskless
                    && self
                        .vol(vol)
                        .is_none_or(|v| v.backing.is_none() || v.ctl.dropped);
                if gone {
                    Move::Done(d.code.number())
                } else {
                    Move::Poll(Kind::Detach(d))
                }
            }
        }
    }
}
