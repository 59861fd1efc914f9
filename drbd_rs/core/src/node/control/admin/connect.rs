// SPDX-License-Identifier: GPL-2.0

//! `connect` and `disconnect`.

use crate::nl::conf::NetConf;
use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::Ss;

use super::super::super::io::{Host, OpId, PeerIx};
use super::super::super::{Resource, Store};
use super::super::{Flags, Phase, StateChange};
use super::{Ask, Event, Kind, Move};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Plain,
    /// The peer was asked to be outdated.
    OutdatePeer,
    /// This node outdates itself, as the peer is Primary.
    OutdateSelf,
    Last,
    Leaving,
}

/// How far a disconnect is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Disconnecting {
    peer: PeerIx,
    force: bool,
    step: Step,
}

impl Disconnecting {
    fn ask(mut self, step: Step, change: StateChange, flags: Flags) -> Move {
        self.step = step;
        Move::Ask(Kind::Disconnect(self), Ask::connection(change, flags))
    }
}

impl<S: Store> Resource<S> {
    pub(super) fn admin_connect(
        &mut self,
        op: OpId,
        peer: PeerIx,
        conf: NetConf,
        h: &mut impl Host,
    ) {
        let Some(c) = self.conn(peer) else {
            return self.answer(op, ErrCode::InvalidRequest, h);
        };
        if c.ctl.cstate > Conn::StandAlone || c.ctl.conf.is_some() || c.ctl.phase != Phase::None {
            return self.answer(op, ErrCode::NetConfigured, h);
        }
        if let Err((code, note)) = self.check_net_options(peer, &conf) {
            return self.refuse(op, code.number(), note, h);
        }
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.conf = Some(conf);
        }
        self.reset_moved();
        let change = StateChange::NONE.conn(Conn::Unconnected);
        let code = self.change_conn(peer, change, Flags::VERBOSE, h);
        if code.is_refusal() {
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.conf = None;
            }
        }
        self.refuse(op, code.number(), None, h);
    }

    pub(super) fn admin_disconnect(
        &mut self,
        op: OpId,
        peer: PeerIx,
        force: bool,
        h: &mut impl Host,
    ) {
        let d = Disconnecting {
            peer,
            force,
            step: Step::Begin,
        };
        self.begin(op, Kind::Disconnect(d), h);
    }

    /// Whether the peer is Primary somewhere without good data of its own: it has no disk, or this
    /// node is about to bring that up to date.
    fn peer_uses_this_disk(&self) -> bool {
        self.states()
            .any(|s| s.peer.is_primary() && s.pdsk < Disk::UpToDate && s.disk == Disk::UpToDate)
    }

    pub(super) fn move_disconnect(&mut self, mut d: Disconnecting, event: Event) -> Move {
        let leave = StateChange::NONE.conn(Conn::Disconnecting);
        let Some((cstate, phase)) = self.conn(d.peer).map(|c| (c.ctl.cstate, c.ctl.phase)) else {
            return Move::Done(ErrCode::InvalidRequest.number());
        };
        let going = Move::Poll(Kind::Disconnect(Disconnecting {
            step: Step::Leaving,
            ..d
        }));
        let code = match event {
            Event::Code(code) => code,
            Event::Go | Event::Io(_) => Ss::UnknownError,
        };
        match d.step {
            Step::Begin if cstate == Conn::StandAlone || cstate == Conn::Disconnecting => going,
            Step::Begin => {
                let flags = if d.force { Flags::HARD } else { Flags::QUIET };
                d.ask(Step::Plain, leave, flags)
            }
            Step::Plain => match code {
                Ss::NothingToDo | Ss::AlreadyStandalone => going,
                Ss::PrimaryNop => d.ask(
                    Step::OutdatePeer,
                    leave.pdsk(Disk::Outdated),
                    Flags::VERBOSE,
                ),
                Ss::CwFailedByPeer if cstate <= Conn::WFConnection => {
                    // The connection broke while the peer was being asked.
                    d.ask(Step::Last, leave, Flags::VERBOSE)
                }
                // It would refuse that, too; but if its answer were lost, or it left at the same
                // moment, this node would leave a Primary without data with an Outdated disk.
                Ss::CwFailedByPeer if self.peer_uses_this_disk() => Move::Done(code.number()),
                Ss::CwFailedByPeer => {
                    d.ask(Step::OutdateSelf, leave.disk(Disk::Outdated), Flags::QUIET)
                }
                code if code.is_refusal() => Move::Done(code.number()),
                _ => going,
            },
            Step::OutdatePeer if code == Ss::OutdateWoConn => {
                d.ask(Step::Last, leave, Flags::VERBOSE)
            }
            Step::OutdatePeer | Step::OutdateSelf
                if code == Ss::CwFailedByPeer && cstate <= Conn::WFConnection =>
            {
                // It broke only now.
                d.ask(Step::Last, leave, Flags::VERBOSE)
            }
            Step::OutdateSelf if matches!(code, Ss::IsDiskless | Ss::LowerThanOutdated) => {
                d.ask(Step::Last, leave, Flags::HARD)
            }
            Step::OutdatePeer | Step::OutdateSelf | Step::Last => {
                if code.is_refusal() && code != Ss::AlreadyStandalone {
                    Move::Done(code.number())
                } else {
                    going
                }
            }
            Step::Leaving => {
                if cstate == Conn::StandAlone && phase == Phase::None {
                    return Move::Done(ErrCode::NoError.number());
                }
                d.step = Step::Leaving;
                Move::Poll(Kind::Disconnect(d))
            }
        }
    }
}
