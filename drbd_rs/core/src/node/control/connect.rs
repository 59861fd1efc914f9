// SPDX-License-Identifier: GPL-2.0

//! The life of a connection: connect, greet, lose, clean up, try again or give up.
//!
//! See [`Phase`] for the picture. The receiver thread connects and receives; what it is to do next
//! is asked by [`Resource::receiver_wish`]. A connection that broke is tried again for ever; one
//! that was refused, here or by the peer, becomes StandAlone and stays so.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, Ss, State};
use crate::wire::{Command, Name64};

use super::super::io::{Effect, Host, Lost, PeerIx, ReceiverWish, VolIx};
use super::super::note::Note;
use super::super::request::Pages;
use super::super::{After, Resource, Store, Violation, PEER};
use super::after_change::ROOM;
use super::{admin, Agreed, Flags, Next, Phase, StateChange};

/// What the C driver takes a peer for before it has said anything; `resize` looks at it.
const GUESSED_APV: u32 = 80;

/// How far the clean-up after a lost connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Quieting {
    /// Volumes before this one have begun to clean up.
    cursor: u16,
    /// The request part is quiet.
    requests: bool,
    /// Volumes that still write.
    writing: u16,
}

/// Whether I/O in flight may wait for what the receiver takes next. It does not where the peer has
/// no disk: all that it had to answer it answered before it said so. What it says next is of a disk
/// that it attaches, and begins an exchange of bitmaps, which have to be of the size to come.
fn needs_peer(s: State) -> bool {
    let gone = matches!(s.pdsk, Disk::Diskless | Disk::Attaching) && s.disk >= Disk::Inconsistent;
    s.conn >= Conn::Connected && !gone
}

impl<S: Store> Resource<S> {
    /// What both sides agreed on, while packets may be sent.
    pub(crate) fn agreed(&self, peer: PeerIx) -> Option<Agreed> {
        let c = self.conn(peer)?;
        if c.ctl.phase == Phase::Up {
            c.ctl.agreed
        } else {
            None
        }
    }

    /// As [`Resource::agreed`]; the name of the contract with the other parts.
    pub(crate) fn connected(&self, peer: PeerIx) -> Option<Agreed> {
        self.agreed(peer)
    }

    /// What the receiver thread of `peer` is to do now.
    pub fn receiver_wish(&self, peer: PeerIx) -> ReceiverWish {
        let Some(c) = self.conn(peer) else {
            return ReceiverWish::Exit;
        };
        match c.ctl.phase {
            Phase::None | Phase::Exiting => ReceiverWish::Exit,
            Phase::Connecting => ReceiverWish::Run,
            Phase::Up if self.rx_paused(peer) => ReceiverWish::Pause,
            Phase::Up => ReceiverWish::Run,
            Phase::Closing | Phase::Quieting(_) => ReceiverWish::Close,
        }
    }

    fn rx_paused(&self, peer: PeerIx) -> bool {
        self.conn(peer).is_some_and(|c| c.ctl.greeting.is_some())
            || self.request_rx_paused()
            || self.resync_rx_paused()
            || self.volumes.iter().flatten().any(|v| {
                let sized = |r: super::size::Resize| !(r.waits_for_io() && needs_peer(v.state));
                v.ctl.resize.is_some_and(sized) || v.peers.iter().any(|p| p.ctl.prepares.is_some())
            })
    }

    pub(super) fn start_receiver(&mut self, peer: PeerIx, h: &mut impl Host) {
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.phase = Phase::Connecting;
            c.ctl.last_apv = GUESSED_APV;
        }
        h.emit(Effect::StartReceiver { peer });
        self.log_peer(Note::ReceiverStarts, h);
        self.wait_for_connection(peer, h);
    }

    fn wait_for_connection(&mut self, peer: PeerIx, h: &mut impl Host) {
        let change = StateChange::NONE.conn(Conn::WFConnection);
        self.change_conn(peer, change, Flags::VERBOSE, h);
    }

    /// [`super::super::Input::Connected`].
    pub(super) fn peer_connected(&mut self, peer: PeerIx, agreed: Agreed, h: &mut impl Host) {
        let now = h.now();
        let Some(c) = self.conn_mut(peer) else { return };
        if c.ctl.phase != Phase::Connecting || c.ctl.cstate != Conn::WFConnection {
            return;
        }
        c.ctl.phase = Phase::Up;
        c.ctl.agreed = Some(agreed);
        c.ctl.last_apv = agreed.apv;
        c.ctl.replies_due = 0;
        c.ctl.given_up = 0;
        c.ctl.ping.start(now);
        c.ctl.peer_integrity = Name64::EMPTY;
        c.ctl.dry_run = false;
        c.ctl.discard_my_data = c.ctl.conf.as_ref().is_some_and(|n| n.discard_my_data);
        // The first packets wait for a change of role under way.
        c.ctl.greeting = Some(None);
        self.requests_connected(peer);
        let note = Note::Handshake {
            apv: agreed.apv,
            features: agreed.features,
        };
        self.requests_connected(peer);
        self.log_peer(note, h);
    }

    /// Sends the first packets, volume after volume. True: something was sent.
    pub(super) fn greet(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let Some(greeting) = self.conn(peer).and_then(|c| c.ctl.greeting) else {
            return false;
        };
        if h.room() < ROOM {
            return false;
        }
        let Some(cursor) = greeting else {
            if self
                .ctl
                .op
                .as_ref()
                .is_some_and(admin::Operation::changes_role)
            {
                return false;
            }
            if self.lose_frozen(h) || self.new_generations(peer, h) {
                return true;
            }
            if self.stores_generations(peer, h) {
                return false;
            }
            self.send_protocol(peer, false, h);
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.state_sent = true;
                c.ctl.greeting = Some(Some(0));
            }
            return true;
        };
        let next = (cursor..self.volume_slots()).find(|ix| self.vol(VolIx(*ix)).is_some());
        if let Some(ix) = next {
            if self.relocates(VolIx(ix), h) {
                return false;
            }
            self.greet_volume(VolIx(ix), h);
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.greeting = Some(Some(ix.saturating_add(1)));
            }
            return true;
        }
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.greeting = None;
        }
        let change = StateChange::NONE.conn(Conn::WFReportParams);
        let code = self.change_conn(peer, change, Flags::VERBOSE, h);
        if let Some(c) = self.conn_mut(peer) {
            if code.is_success() {
                if let Some(conf) = c.ctl.conf.as_mut() {
                    conf.discard_my_data = false;
                }
            } else {
                c.ctl.state_sent = false;
            }
        }
        if !code.is_success() {
            let change = StateChange::NONE.conn(Conn::NetworkFailure);
            self.change_conn(peer, change, Flags::HARD, h);
        }
        true
    }

    /// Begins new generations of data where the peer may lack frozen writes: so a resync follows.
    /// True: one was begun.
    fn new_generations(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let lost = self
                .vol_mut(vol)
                .is_some_and(|v| core::mem::take(&mut v.ctl.frozen_lost));
            let fresh = self.disk(vol).is_some_and(|d| d.uuids.bitmap == 0);
            let disk = self.state(vol).disk;
            if lost && fresh && disk == Disk::Consistent {
                // It came back meanwhile, and is not known to be the last one: no generation begins
                // on it.
                self.counts_as_crashed(vol, h);
            }
            if !lost || !fresh || disk < Disk::UpToDate {
                continue;
            }
            if let Some(v) = self.vol_mut(vol) {
                v.ctl.new_current_uuid = false;
            }
            self.uuid_new_current(vol, h);
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.greeting_waits = c.ctl.greeting_waits.saturating_add(1);
            }
            self.md_sync(vol, After::Control(Next::GenerationStored), h);
            return true;
        }
        false
    }

    /// What was frozen is perhaps on this disk alone, and it begins no generation: it is one that
    /// crashed while it was in use.
    pub(super) fn counts_as_crashed(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.crashed_primary = true;
        }
        self.recompute_md_flags(vol, h);
    }

    /// Whether a generation that the peer would hear of is not stable: then the greeting waits. So
    /// it does for one that began before the connection stood, on a disk that is slow. The C driver
    /// tells it.
    fn stores_generations(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        if self.conn(peer).is_some_and(|c| c.ctl.greeting_waits != 0) {
            return true;
        }
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            if self.state(vol).disk < Disk::Negotiating || !self.md_begins(vol) {
                continue;
            }
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.greeting_waits = c.ctl.greeting_waits.saturating_add(1);
            }
            self.md_stable(vol, After::Control(Next::GenerationStored), h);
            return true;
        }
        false
    }

    pub(super) fn generation_stored(&mut self, peer: PeerIx) {
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.greeting_waits = c.ctl.greeting_waits.saturating_sub(1);
        }
    }

    /// A volume tells the peer about itself: settings, sizes, UUIDs, state.
    pub(super) fn greet_volume(&mut self, vol: VolIx, h: &mut impl Host) {
        let discard = self.conn(PEER).is_some_and(|c| c.ctl.discard_my_data);
        for p in self
            .vol_mut(vol)
            .into_iter()
            .flat_map(|v| v.peers.iter_mut())
        {
            p.ctl.discard_my_data = discard;
        }
        self.send_sync_param(vol, h);
        self.send_sizes(vol, 0, h);
        self.send_uuids(vol, 0, h);
        let state = self.state(vol);
        self.send_state(vol, state, h);
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.degraded_wfc = false;
        }
    }

    /// The connection can not go on.
    pub(crate) fn lost(&mut self, peer: PeerIx, why: Lost, h: &mut impl Host) {
        let Some(c) = self.conn(peer) else { return };
        if c.ctl.phase != Phase::Up {
            return;
        }
        let op = self.ctl.op.as_ref();
        let leaving = op.is_some_and(admin::Operation::disconnects);
        let conn = match why {
            // Whoever wants to leave is glad that the peer did so first.
            Lost::Broken if leaving => Conn::Disconnecting,
            Lost::Broken => Conn::BrokenPipe,
            Lost::Timeout => Conn::Timeout,
            Lost::Protocol => Conn::ProtocolError,
        };
        if why == Lost::Broken {
            self.log_peer(Note::SocketLost, h);
        }
        self.change_conn(peer, StateChange::NONE.conn(conn), Flags::HARD, h);
    }

    /// The peer broke the protocol. If the connection ends anyway there is no more to it: what is
    /// looked at again and again until it has ended would be told each time.
    pub(crate) fn protocol_error(
        &mut self,
        peer: PeerIx,
        packet: Command,
        why: Violation,
        h: &mut impl Host,
    ) {
        if self.conn(peer).is_none_or(|c| c.ctl.phase != Phase::Up) {
            return;
        }
        self.log_peer(Note::Violated { packet, why }, h);
        self.lost(peer, Lost::Protocol, h);
    }

    /// This node refuses the peer: no further attempt.
    pub(crate) fn refuse_peer(&mut self, peer: PeerIx, h: &mut impl Host) {
        let change = StateChange::NONE.conn(Conn::Disconnecting);
        self.change_conn(peer, change, Flags::HARD, h);
    }

    pub(super) fn connect_failed(&mut self, peer: PeerIx, h: &mut impl Host) {
        self.log_peer(Note::ConnectGivenUp, h);
        self.refuse_peer(peer, h);
    }

    pub(super) fn sockets_closed(&mut self, peer: PeerIx, h: &mut impl Host) {
        let Some(c) = self.conn_mut(peer) else { return };
        if c.ctl.phase != Phase::Closing {
            return;
        }
        c.ctl.phase = Phase::Quieting(Quieting::default());
        c.ctl.greeting = None;
        c.ctl.agreed = None;
        c.ctl.state_sent = false;
        self.pings_lost(peer, h);
        self.requests_connection_lost(peer, h);
    }

    pub(super) fn requests_quiet(&mut self, peer: PeerIx) {
        if let Some(c) = self.conn_mut(peer) {
            if let Phase::Quieting(q) = &mut c.ctl.phase {
                q.requests = true;
            }
        }
    }

    pub(super) fn cleaned_up(&mut self, peer: PeerIx) {
        if let Some(c) = self.conn_mut(peer) {
            if let Phase::Quieting(q) = &mut c.ctl.phase {
                q.writing = q.writing.saturating_sub(1);
            }
        }
    }

    pub(super) fn receiver_gone(&mut self, peer: PeerIx, h: &mut impl Host) {
        let Some(c) = self.conn_mut(peer) else { return };
        match c.ctl.phase {
            Phase::Exiting => c.ctl.phase = Phase::None,
            Phase::None => {}
            // The thread died by itself: what it held is gone with it.
            Phase::Connecting | Phase::Up | Phase::Closing | Phase::Quieting(_) => {
                self.log_peer(Note::Unexpected("receiver ended"), h);
                self.refuse_peer(peer, h);
            }
        }
    }

    /// Closes what has to be closed, cleans up, starts over. True: something was done.
    #[inline(never)]
    pub(super) fn connect_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        if h.room() < ROOM {
            return false;
        }
        let slots = self.volume_slots();
        let settled = self.resyncs_idle() && self.after_changes_done();
        let Some(c) = self.conn_mut(peer) else {
            return false;
        };
        match c.ctl.phase {
            Phase::None | Phase::Exiting | Phase::Closing => false,
            Phase::Connecting | Phase::Up if c.ctl.cstate < Conn::WFConnection => {
                if c.ctl.cstate == Conn::Unconnected {
                    return false;
                }
                c.ctl.phase = Phase::Closing;
                c.ctl.greeting = None;
                h.emit(Effect::CloseSockets { peer });
                true
            }
            Phase::Connecting => false,
            Phase::Up => self.greet(peer, h) || self.params_pump(peer, h) || self.sizes_pump(h),
            Phase::Quieting(q) if !q.requests => false,
            Phase::Quieting(q) if q.cursor < slots => {
                self.clean_volume(peer, VolIx(q.cursor), h);
                true
            }
            Phase::Quieting(q) if q.writing > 0 || !settled => false,
            Phase::Quieting(_) => {
                self.start_over(peer, h);
                true
            }
        }
    }

    /// No resync I/O of the lost connection is left that could still reach a disk.
    fn resyncs_idle(&self) -> bool {
        (0..self.volume_slots()).all(|ix| self.resync_idle(VolIx(ix)))
    }

    /// What followed from changes in the time of the lost connection is over. Part of it is
    /// packets, perhaps behind a slow write of metadata: the next connection must not see them.
    fn after_changes_done(&self) -> bool {
        let mut volumes = self.volumes.iter().flatten();
        volumes.all(|v| v.ctl.after.is_empty())
    }

    fn clean_volume(&mut self, peer: PeerIx, vol: VolIx, h: &mut impl Host) {
        if let Some(Phase::Quieting(q)) = self.conn_mut(peer).map(|c| &mut c.ctl.phase) {
            q.cursor = q.cursor.saturating_add(1);
        }
        if self.vol(vol).is_none() {
            return;
        }
        self.cancel_resync(vol, h);
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.sizes_parked = None;
            v.ctl.sizes_due = false;
            for p in v.peers.iter_mut() {
                p.ctl.uuids = None;
                p.ctl.named = 0;
                p.ctl.greeted = false;
                p.ctl.awaits_name = false;
                p.ctl.suspended = false;
                p.ctl.prepares = None;
                p.ctl.limits = None;
            }
        }
        if self.state(vol).disk < Disk::Inconsistent {
            return;
        }
        if let Some(Phase::Quieting(q)) = self.conn_mut(peer).map(|c| &mut c.ctl.phase) {
            q.writing = q.writing.saturating_add(1);
        }
        if self.md_is_dirty(vol) {
            self.md_sync(vol, After::Nothing, h);
        }
        let after = After::Control(Next::CleanedUp);
        self.write_bitmap(vol, Pages::Changed, after, h);
    }

    /// All is quiet: try again, or be StandAlone.
    fn start_over(&mut self, peer: PeerIx, h: &mut impl Host) {
        self.log_peer(Note::ConnectionClosed, h);
        let primary = self.states().any(|s| s.role == Role::Primary);
        if primary && self.highest_pdsk() >= Disk::DUnknown {
            self.fence_peer(peer, After::Nothing, h);
        }
        let Some(cstate) = self.conn(peer).map(|c| c.ctl.cstate) else {
            return;
        };
        let (phase, conn, flags) = if cstate == Conn::Disconnecting {
            (Phase::Exiting, Conn::StandAlone, Flags::HARD)
        } else {
            (Phase::Connecting, Conn::Unconnected, Flags::VERBOSE)
        };
        let code = self.change_conn(peer, StateChange::NONE.conn(conn), flags, h);
        if code.is_refusal() && code != Ss::NothingToDo {
            // Nothing of the kind is known; a hard change has the same rules for the connection.
            self.change_conn(peer, StateChange::NONE.conn(conn), Flags::HARD, h);
        }
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.phase = phase;
            if phase == Phase::Connecting {
                c.ctl.last_apv = GUESSED_APV;
            }
        }
        if phase == Phase::Connecting {
            self.wait_for_connection(peer, h);
        }
    }
}
