// SPDX-License-Identifier: GPL-2.0

//! State changes that the peer has to agree to, asked for by either side (wire.md §14).
//!
//! A request is sent, and its answer waited for while the change still concerns the peer: a
//! connection that breaks ends the wait. Then the change is made, on the state of that moment.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::request::{
    check_connection, connection_scope, plan, wait, wait_connection, Reply, Scope,
};
use crate::state::{Flags as Rules, Ss, State};
use crate::wire::{Packet, ReqReply, ReqState};

use super::super::io::{Host, PeerIx, Sock, VolIx};
use super::super::note::Note;
use super::super::{Resource, Store, Violation, Volume, PEER};
use super::{Flags, StateChange};

/// A request to the peer that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterRequest {
    /// Of one volume; `None`: of the connection.
    vol: Option<VolIx>,
    change: StateChange,
    flags: Flags,
    reply: Reply,
    /// Answers to earlier requests that come before its own.
    ahead: u32,
}

/// Whether the peer acts on it as soon as it agrees: it begins a resync or verify, or counts this
/// node's disk as gone.
const fn binds(change: StateChange) -> bool {
    begins(change) || matches!(change.disk, Some(Disk::Failed))
}

/// Whether a resync or verify begins with it, on both nodes.
const fn begins(change: StateChange) -> bool {
    matches!(
        change.conn,
        Some(Conn::StartingSyncS | Conn::StartingSyncT | Conn::VerifyS | Conn::VerifyT)
    )
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    /// Decided.
    Done(Ss),
    /// The peer was asked: [`Resource::poll_request`].
    Waits,
}

impl<S: Store> Resource<S> {
    /// Asks for a change of one volume, cluster wide if it has to be.
    pub(super) fn ask_state(
        &mut self,
        vol: VolIx,
        change: StateChange,
        flags: Flags,
        h: &mut impl Host,
    ) -> Asked {
        let old = self.state(vol);
        match plan(old, change, self.context(vol)) {
            Err(refusal) => {
                if flags.verbose && !refusal.by_hard_rule {
                    let note = Note::ChangeRefused {
                        code: refusal.code,
                        old,
                        wanted: refusal.wanted,
                    };
                    self.log(vol, note, h);
                }
                Asked::Done(refusal.code)
            }
            Ok(Scope::Local) => Asked::Done(self.change_state(vol, change, flags, h)),
            Ok(Scope::ClusterWide) => {
                let (mask, val) = change.to_words();
                let packet = Packet::StateChgReq(ReqState { mask, val });
                let vnr = self.vnr(vol);
                self.send_plain(PEER, Sock::Data, vnr, packet, h);
                self.remember_request(Some(vol), change, flags)
            }
        }
    }

    /// Asks for a change of the connection, cluster wide if it has to be.
    pub(super) fn ask_conn(
        &mut self,
        peer: PeerIx,
        change: StateChange,
        flags: Flags,
        h: &mut impl Host,
    ) -> Asked {
        let Some(old) = self.conn(peer).map(|c| c.ctl.cstate) else {
            return Asked::Done(Ss::NothingToDo);
        };
        let allowed = check_connection(old, change).is_ok()
            && !self.check_volumes(change, flags).is_refusal();
        let scope = connection_scope(old, change, flags_of(flags), false);
        if !allowed || scope == Scope::Local {
            return Asked::Done(self.change_conn(peer, change, flags, h));
        }
        let (mask, val) = change.to_words();
        let req = ReqState { mask, val };
        let packet = match self.agreed(peer) {
            Some(a) if a.apv >= 100 => Packet::ConnStChgReq(req),
            Some(_) | None => Packet::StateChgReq(req),
        };
        self.send_plain(peer, Sock::Data, 0, packet, h);
        self.remember_request(None, change, flags)
    }

    fn remember_request(&mut self, vol: Option<VolIx>, change: StateChange, flags: Flags) -> Asked {
        let ahead = self.count_request(PEER);
        if let Some(c) = self.conn_mut(PEER) {
            c.ctl.request = Some(ClusterRequest {
                vol,
                change,
                flags,
                reply: Reply::None,
                ahead,
            });
        }
        Asked::Waits
    }

    /// A request was sent: how many answers come before its own.
    fn count_request(&mut self, peer: PeerIx) -> u32 {
        self.conn_mut(peer).map_or(0, |c| {
            let ahead = c.ctl.replies_due;
            c.ctl.replies_due = ahead.saturating_add(1);
            ahead
        })
    }

    /// Whether the answer to a request is still to come.
    pub(crate) fn owes_reply(&self, peer: PeerIx) -> bool {
        self.conn(peer).is_some_and(|c| c.ctl.replies_due != 0)
    }

    /// Asks for a change of nothing: the peer answers when it has done all that was sent before.
    /// It must know the volume.
    pub(crate) fn ask_for_nothing(&mut self, peer: PeerIx, vol: VolIx, h: &mut impl Host) {
        let packet = Packet::StateChgReq(ReqState { mask: 0, val: 0 });
        let vnr = self.vnr(vol);
        self.send_plain(peer, Sock::Data, vnr, packet, h);
        self.count_request(peer);
    }

    /// Whether the outstanding request is decided, and how; makes the change if it may be made.
    /// `ConcurrentStChg`: the peer is to be asked again.
    pub(super) fn poll_request(&mut self, h: &mut impl Host) -> Option<Ss> {
        let c = self.conn(PEER)?;
        let Some(r) = c.ctl.request else {
            return Some(Ss::CwFailedByPeer);
        };
        let answer = match r.vol {
            Some(vol) => wait(self.state(vol), r.change, r.reply, self.context(vol)),
            None => {
                let volumes = self.check_volumes(r.change, Flags::QUIET);
                wait_connection(c.ctl.cstate, volumes, r.reply)
            }
        }?;
        self.drop_request();
        if answer == Ss::ConcurrentStChg {
            return Some(answer);
        }
        let granted = r.change.role.filter(|_| r.reply == Reply::Yes);
        if answer.is_refusal() {
            self.request_refused(r.vol, r.change, r.flags, answer, h);
            return Some(answer);
        }
        let code = match r.vol {
            Some(vol) => self.change_state(vol, r.change, r.flags, h),
            None => self.change_conn(PEER, r.change, r.flags, h),
        };
        if r.reply == Reply::Yes && binds(r.change) && code.is_refusal() {
            self.began_alone(h);
        }
        if let (Some(vol), Some(role)) = (r.vol, granted) {
            // The peer knows, though no STATE has told it.
            if let Some(v) = self.vol_mut(vol) {
                v.ctl.told_role = role;
                v.ctl.role_asked &= code.is_refusal();
            }
        }
        Some(code)
    }

    /// Tells why a request came to nothing, if it wants to be told.
    pub(super) fn request_refused(
        &mut self,
        vol: Option<VolIx>,
        change: StateChange,
        flags: Flags,
        code: Ss,
        h: &mut impl Host,
    ) {
        if !flags.verbose {
            return;
        }
        match vol {
            Some(vol) => {
                let old = self.state(vol);
                let wanted = change.apply(old);
                self.log(vol, Note::ChangeRefused { code, old, wanted }, h);
            }
            None => {
                let old = self.conn(PEER).map_or(Conn::StandAlone, |c| c.ctl.cstate);
                let wanted = change.conn;
                self.log_peer(Note::ConnChangeRefused { code, old, wanted }, h);
            }
        }
    }

    /// Whether the peer is being asked for another role of this node: nobody here knows which one
    /// it sees.
    pub(super) fn asks_for_role(&self, vol: VolIx) -> bool {
        let request = self.conn(PEER).and_then(|c| c.ctl.request);
        request.is_some_and(|r| r.vol == Some(vol) && r.change.role.is_some())
    }

    /// Forgets the outstanding request: it is decided, or whoever asked does not want to know.
    pub(super) fn drop_request(&mut self) {
        let Some(c) = self.conn_mut(PEER) else { return };
        let Some(r) = c.ctl.request.take() else {
            return;
        };
        if binds(r.change) && r.reply == Reply::None {
            c.ctl.given_up |= 1_u64.checked_shl(r.ahead).unwrap_or(0);
        }
        let asked = r.change.role.is_some() && matches!(r.reply, Reply::None | Reply::Yes);
        if let Some(v) = r.vol.and_then(|vol| self.vol_mut(vol)) {
            v.ctl.role_asked |= asked;
        }
    }

    /// The peer began a resync or verify of which this node knows nothing any more: something else
    /// began in between, as when `invalidate` here and `primary --force` there cross. It would go
    /// without bitmaps, or wait for one, for ever; so it does in the C driver. A disk that is gone
    /// ends it anyway. Or it counts this node's disk as gone, which has stayed, as when `detach`
    /// here and `invalidate` there cross: the resync that this node has agreed to has no target.
    fn began_alone(&mut self, h: &mut impl Host) {
        let able = |s: State| s.conn >= Conn::Connected && s.disk >= Disk::Inconsistent;
        if self.states().any(able) {
            self.connect_anew(h);
        }
    }

    /// Whether the peer is still to answer whether the state may change here.
    pub(crate) fn asks_peer(&self) -> bool {
        self.conn(PEER).is_some_and(|c| c.ctl.request.is_some())
    }

    /// The peer answered a request: the oldest, for both sockets keep the order.
    pub(crate) fn recv_request_reply(&mut self, peer: PeerIx, reply: ReqReply, h: &mut impl Host) {
        self.epoch_proven(peer, h);
        self.loss_answered(peer);
        let Some(c) = self.conn_mut(peer) else { return };
        c.ctl.replies_due = c.ctl.replies_due.saturating_sub(1);
        let given_up = c.ctl.given_up & 1 != 0;
        c.ctl.given_up >>= 1;
        if given_up && Ss::of_peer_reply(reply.retcode) == Ss::CwSuccess {
            self.began_alone(h);
        }
        let Some(r) = self.conn_mut(peer).and_then(|c| c.ctl.request.as_mut()) else {
            return;
        };
        if r.ahead != 0 {
            // Of one that nobody waits for any more, or of a question (`ask_for_nothing`).
            r.ahead = r.ahead.saturating_sub(1);
        } else {
            r.reply = match Ss::of_peer_reply(reply.retcode) {
                Ss::CwSuccess => Reply::Yes,
                _ if reply.retcode == Ss::ConcurrentStChg.number() => Reply::NotNow,
                _ => Reply::No,
            };
        }
    }

    /// The peer asks for a change of one volume.
    pub(super) fn recv_state_req(
        &mut self,
        peer: PeerIx,
        vol: VolIx,
        req: ReqState,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let change = StateChange::from_words(req.mask, req.val)
            .map_err(|_| Violation::Malformed)?
            .convert_for_peer();
        let agreed = self.agreed(peer);
        let arbiter = agreed.is_some_and(|a| a.arbiter);
        // The peer deletes its volume, and may make another one: both say their parameters then.
        let deletes =
            change.conn == Some(Conn::WFReportParams) && self.state(vol).conn == Conn::Connected;
        let whole = !deletes && change.conn.is_some_and(|conn| conn < Conn::Connected);
        let detaches = change.pdsk == Some(Disk::Failed);
        if whole && agreed.is_some_and(|a| a.apv < 100) {
            // There is no other packet for it.
            return self.recv_conn_state_req(peer, req, h);
        }
        let code = if arbiter && self.state_is_taken(Some(vol)) {
            Ss::ConcurrentStChg
        } else if whole {
            // One volume can not leave the connection that the others are in.
            Ss::NotSupported
        } else if detaches && self.outdates_itself() {
            Ss::ConcurrentStChg
        } else if change.peer.is_some() && self.vol(vol).is_some_and(|v| v.ctl.changes_size()) {
            // Which node is the source of what is new goes by the roles of before; the peer, in
            // its new role, might find another one. The C driver's receiver has no time for it.
            Ss::ConcurrentStChg
        } else if self.is_no_time_to_verify(vol, change) {
            Ss::InTransientState
        } else {
            self.change_of_peer(vol, change, detaches, h)
        };
        let packet = Packet::StateChgReply(ReqReply {
            retcode: code.number(),
        });
        let vnr = self.vnr(vol);
        self.send_plain(peer, Sock::Meta, vnr, packet, h);
        Ok(())
    }

    /// Whether a verify would begin while this node is taking another size over: the peer may ask
    /// for what the device is still to get. The C driver ends the connection then.
    fn is_no_time_to_verify(&self, vol: VolIx, change: StateChange) -> bool {
        let sized = |v: &Volume<S>| v.ctl.resize.is_some() || v.ctl.sizes_parked.is_some();
        change.conn == Some(Conn::VerifyT) && self.vol(vol).is_some_and(sized)
    }

    /// The peer may change one volume, unless a rule is against it.
    fn change_of_peer(
        &mut self,
        vol: VolIx,
        change: StateChange,
        detaches: bool,
        h: &mut impl Host,
    ) -> Ss {
        if let Some(v) = self.vol_mut(vol).filter(|_| detaches) {
            v.ctl.peer_detaches = true;
        }
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        if let Some(v) = self.vol_mut(vol).filter(|_| code.is_refusal()) {
            v.ctl.peer_detaches &= !detaches;
        }
        // Without a disk there is no change, which is fine with the rules. The peer would take that
        // for a yes: as source it keeps its writes to itself from then on, in a generation that
        // the disk that is just being lost here has, too. So it does with the C driver.
        if begins(change) && change.conn != Some(self.state(vol).conn) && !code.is_refusal() {
            return Ss::NoLocalDisk;
        }
        code
    }

    /// The peer is being asked whether this node may outdate itself and leave. Should the answer be
    /// lost it will: a Primary must not come to depend on its disk meanwhile.
    fn outdates_itself(&self) -> bool {
        let request = self.conn(PEER).and_then(|c| c.ctl.request);
        request.is_some_and(|r| r.vol.is_none() && r.change.disk == Some(Disk::Outdated))
    }

    /// The peer asks for a change of the connection.
    pub(super) fn recv_conn_state_req(
        &mut self,
        peer: PeerIx,
        req: ReqState,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let change = StateChange::from_words(req.mask, req.val)
            .map_err(|_| Violation::Malformed)?
            .convert_for_peer();
        let agreed = self.agreed(peer);
        let arbiter = agreed.is_some_and(|a| a.arbiter);
        let taken = self.state_is_taken(None) && !self.both_leave(change);
        let code = if arbiter && taken {
            Ss::ConcurrentStChg
        } else if change.conn.is_some_and(|conn| conn != Conn::TearDown) {
            // Leaving is all that a peer may want of the connection.
            Ss::NotSupported
        } else {
            let flags = Flags {
                ignore_outdate_failure: true,
                ..Flags::VERBOSE
            };
            self.change_conn(peer, change, flags, h)
        };
        let reply = ReqReply {
            retcode: code.number(),
        };
        let packet = if agreed.is_some_and(|a| a.apv >= 100) {
            Packet::ConnStChgReply(reply)
        } else {
            Packet::StateChgReply(reply)
        };
        self.send_plain(peer, Sock::Meta, 0, packet, h);
        Ok(())
    }

    /// Whether the peer wants to leave, as this node does, and nothing more: no reason to refuse.
    /// The C driver does.
    fn both_leave(&self, wish: StateChange) -> bool {
        let own = self.conn(PEER).and_then(|c| c.ctl.request);
        let leave = StateChange::NONE.conn(Conn::Disconnecting);
        own.is_some_and(|own| own.vol.is_none() && own.change == leave)
            && wish == StateChange::NONE.conn(Conn::TearDown)
    }

    /// Whether a request of this node's own holds the state of the volume, or of the connection.
    fn state_is_taken(&self, vol: Option<VolIx>) -> bool {
        let Some(c) = self.conn(PEER) else {
            return false;
        };
        match (c.ctl.request, vol) {
            (Some(r), _) if r.vol == vol => true,
            // Before version 100 there is one lock for both.
            (Some(_), _) => c.ctl.agreed.is_some_and(|a| a.apv < 100),
            (None, Some(vol)) => self.ctl.op.as_ref().is_some_and(|op| op.holds_state(vol)),
            (None, None) => false,
        }
    }
}

const fn flags_of(flags: Flags) -> Rules {
    Rules {
        hard: flags.hard,
        ignore_outdate_failure: flags.ignore_outdate_failure,
    }
}
