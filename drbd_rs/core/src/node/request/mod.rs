// SPDX-License-Identifier: GPL-2.0

//! I/O: of applications, of the peer on this disk, and of the metadata.
//!
//! ```text
//!  Submit ─▶ submit (admission, conflicts) ─▶ al_gate ─▶ launch ─┬─▶ Local ─▶ complete
//!                                                                └─▶ Send ─▶ acks ─▶ complete
//!  DATA, TRIM, ZEROES ─▶ peer_write ─▶ Local ─▶ ack ─▶ epoch_receive ─▶ BARRIER_ACK
//!  DATA_REQUEST ─▶ peer_read ─▶ Local ─▶ DATA_REPLY
//! ```
//!
//! Invariants, on which the user's data depend:
//! - A write goes to a disk or to the peer only when the activity log block that covers it is
//!   stable; its references are held until it is stable at the peer (`proof`) or the end of the
//!   connection.
//! - A write that did not reach both copies has its blocks marked out of sync before its
//!   references are given back.
//! - Epochs hold exactly the writes that were sent between two barriers; they are acknowledged in
//!   order, and where flushes are asked for, only after the flush.
//! - An application is told only when neither disk nor sender can touch its pages any more, except
//!   for writes to a disk that was given up by force.

mod acks;
mod al_gate;
mod alone;
mod at_peer;
mod complete;
mod conflict;
mod congestion;
mod data_flush;
mod epoch_owed;
mod epoch_receive;
mod epoch_send;
mod gate;
mod launch;
mod lost;
mod meta_io;
mod meta_move;
mod news;
mod payload;
mod peer_read;
mod peer_write;
mod proof;
#[allow(clippy::module_inception)]
mod request;
mod stats;
mod submit;
#[cfg(test)]
mod tests;
mod thaw;
mod timers;
pub(crate) mod token;
mod transaction;
mod transfer_log;
mod unheard;

pub(crate) use epoch_receive::Ordering;
pub use epoch_send::SentEpoch;
pub(crate) use meta_io::{MetaIo, Pages};
pub(crate) use payload::digest_bytes;
pub use peer_write::PeerRequest;
pub use request::Request;
pub(crate) use stats::Moved;
pub(crate) use thaw::Thaw;

use epoch_receive::Received;
use epoch_send::Sending;
use lost::Losing;
use proof::Proof;
use transfer_log::{Queue, TransferLog};

use super::io::{AppResult, BufId, Effect, Host, IoToken, PeerIx, SendToken, VolIx};
use super::{After, Backing, Connection, PeerDevice, Resource, Store, Volume, PEER, PEERS};
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::store::interval::{self, IntervalSet};
use crate::store::ring::Ring;
use crate::store::slab::{Id, Slab, Slot};
use crate::time::Instant;
use crate::units::Vnr;

fn io_peers() -> impl Iterator<Item = PeerIx> {
    (0..u8::try_from(PEERS).unwrap_or(u8::MAX)).map(PeerIx)
}

/// Effects that one unit of work may emit, with what control and resync emit on its behalf.
pub(super) const UNIT: usize = 12;

/// Continuations that may be due at once.
const AFTERS: usize = 32;

/// Steps of this part that wait for something; mostly its pump finds out by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The generation of data that a peer without a disk begins is stored.
    Generation(VolIx),
}

/// Storage for the requests of a resource. Its lengths are the limits.
pub struct Storage<S: Store> {
    /// Requests of applications that may be known at once, those included that are complete but
    /// not yet in an acknowledged epoch. Below 2^24.
    pub requests: S::Vec<Slot<Request>>,
    /// Requests of the peer that may be under way; at least 32, below 2^24.
    pub peer_requests: S::Vec<Slot<PeerRequest>>,
    /// As long as `peer_requests`.
    pub peer_waiting: S::Vec<Option<Id>>,
    /// As long as `requests`.
    pub sent_epochs: S::Vec<Option<SentEpoch>>,
}

/// What `request/` keeps about a resource.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct ResourceIo<S: Store> {
    requests: Slab<Request, S::Vec<Slot<Request>>>,
    peer_requests: Slab<PeerRequest, S::Vec<Slot<PeerRequest>>>,
    /// Peer's writes that wait before they go to the disk, in the order of arrival.
    peer_waiting: Ring<Id, S::Vec<Option<Id>>>,
    /// Epochs sent and not acknowledged.
    sent_epochs: Ring<SentEpoch, S::Vec<Option<SentEpoch>>>,
    log: TransferLog,
    /// Number of the open epoch of the transfer log, and its writes.
    epoch: u32,
    epoch_writes: u32,
    ordering: Ordering,
    thaw: thaw::Walk,
    timer_due: Option<Instant>,
    /// How long the peer's write at the head of `peer_waiting` may wait for its turn.
    patience: Option<conflict::Patience>,
    /// Continuations that are due.
    afters: [Option<(After, bool)>; AFTERS],
}

crate::key::key! {
    ResourceIo<S: Store> {
        requests, peer_requests, peer_waiting, sent_epochs, log, epoch_writes, ordering,
        thaw, timer_due, patience, afters
    }
    names { epoch: EPOCH }
    not {}
}

impl<S: Store> ResourceIo<S> {
    /// Nothing in flight.
    pub(crate) fn new(storage: Storage<S>) -> Self {
        ResourceIo {
            requests: Slab::new(storage.requests),
            peer_requests: Slab::new(storage.peer_requests),
            peer_waiting: Ring::new(storage.peer_waiting),
            sent_epochs: Ring::new(storage.sent_epochs),
            log: TransferLog::EMPTY,
            epoch: 0,
            epoch_writes: 0,
            ordering: Ordering::Flush,
            thaw: thaw::Walk::IDLE,
            timer_due: None,
            patience: None,
            afters: [None; AFTERS],
        }
    }
}

/// What `request/` keeps about a volume.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct VolumeIo<S: Store> {
    /// Waits to be let in.
    admit: Queue,
    /// Waits for overlapping writes.
    conflict: Queue,
    /// A write ended since `conflict` was last looked at.
    conflict_ended: bool,
    /// Waits for extents.
    al_wait: Queue,
    /// Waits for the transaction that is being written, or will be next.
    al_tx: Queue,
    /// Waits, with its extents, for writes of the peer.
    held: Queue,
    /// Writes that the applications have not been told of, and with two Primaries those of the
    /// peer that are under way.
    writes: IntervalSet<S::Vec<interval::Slot>>,
    /// Those of the peer in `writes`.
    peer_writes: u32,
    /// Admitted and not completed: `ap:`.
    in_flight: u32,
    /// Reasons not to admit anything.
    gate: u32,
    /// Run when nothing is in flight.
    gate_waiters: [After; gate::WAITERS],
    /// Sectors in TCP's hands or at the peer, not yet in an acknowledged epoch.
    on_wire: u64,
    /// Requests with a live leg to the peer.
    live: u32,
    /// A new generation of data is being stored; the peer's writes wait for it.
    generation: bool,
    /// Writes that are here alone wait for that.
    alone: bool,
    /// Those that are at the peer alone wait, too.
    lost: Option<at_peer::LostDisk>,
    /// How often writes ceased to reach the peer's disk.
    stops: u32,
    /// When the resync after a congestion starts.
    ahead_due: Option<Instant>,
    /// Nothing is admitted before the peer has told why it could not, or until then.
    news_by: Option<Instant>,
    /// I/O of this part on the backing device: `lo:`.
    local: u32,
    /// The disk was given up by force: writes are to be told.
    abandon: bool,
    /// Activity logs seen so far: names the one in use.
    logs: u32,
    /// Reads by turns (read-balancing round-robin): the next one goes to the peer.
    peers_turn: bool,
    counts: stats::Counters,
}

crate::key::key! {
    VolumeIo<S: Store> {
        admit, conflict, conflict_ended, al_wait, al_tx, held, writes, peer_writes, in_flight,
        gate, gate_waiters, live, generation, alone, lost, ahead_due, news_by, local, abandon,
        peers_turn, counts
    }
    names { stops: SPAN }
    not { on_wire, logs }
}

impl<S: Store> VolumeIo<S> {
    /// Whether a generation has begun that is not stored, or not told.
    pub(crate) const fn begins_generation(&self) -> bool {
        self.generation
    }

    /// Gives the storage back.
    pub(crate) fn into_storage(self) -> S::Vec<interval::Slot> {
        self.writes.into_storage()
    }

    /// Nothing in flight. `writes` has as many slots as there may be requests in the resource.
    pub(crate) fn new(writes: S::Vec<interval::Slot>) -> Self {
        VolumeIo {
            admit: Queue::EMPTY,
            conflict: Queue::EMPTY,
            conflict_ended: false,
            al_wait: Queue::EMPTY,
            al_tx: Queue::EMPTY,
            held: Queue::EMPTY,
            writes: IntervalSet::new(writes),
            peer_writes: 0,
            in_flight: 0,
            gate: 0,
            gate_waiters: [After::Nothing; gate::WAITERS],
            on_wire: 0,
            live: 0,
            generation: false,
            alone: false,
            lost: None,
            stops: 0,
            ahead_due: None,
            news_by: None,
            local: 0,
            abandon: false,
            logs: 0,
            peers_turn: false,
            counts: stats::Counters::default(),
        }
    }

    /// Whether a write waits for the activity log.
    pub(crate) const fn waits_for_log(&self) -> bool {
        !self.al_wait.is_empty() || !self.al_tx.is_empty()
    }
}

/// What `request/` keeps about one volume at one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerDeviceIo {
    /// The last sequence number sent (`packet_seq`).
    seq: u32,
    /// The last one seen from the peer.
    peer_seq: u32,
    /// Requests that the peer has to answer.
    pending: u32,
    /// Requests of the peer that this node has to answer.
    unacked: u32,
    /// Peer's I/O on the disk.
    active: u32,
}

crate::key::key! {
    PeerDeviceIo { pending, unacked, active }
    names {}
    not { seq, peer_seq }
}

impl PeerDeviceIo {
    /// Nothing in flight.
    pub(crate) const fn new() -> PeerDeviceIo {
        PeerDeviceIo {
            seq: 0,
            peer_seq: 0,
            pending: 0,
            unacked: 0,
            active: 0,
        }
    }
}

/// Epochs in both directions, and the end of a connection.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct Epochs {
    sending: Sending,
    received: Received,
    losing: Losing,
    /// Tells I/O of this connection from that of earlier ones.
    incarnation: u32,
    /// Writes of epochs up to this one are stable at the peer.
    acked: Option<u32>,
    proof: Proof,
}

crate::key::key! {
    Epochs { sending, received, losing, proof }
    names { incarnation: INCARNATION }
    not { acked }
}

impl Epochs {
    /// No connection.
    pub(crate) const fn new() -> Epochs {
        Epochs {
            sending: Sending::NEW,
            received: Received::new(),
            losing: Losing::No,
            incarnation: 0,
            acked: None,
            proof: Proof::NONE,
        }
    }
}

impl<S: Store> Resource<S> {
    fn io_vol(&self, vol: VolIx) -> Option<&Volume<S>> {
        self.volumes.get(usize::from(vol.0))?.as_ref()
    }

    fn io_vol_mut(&mut self, vol: VolIx) -> Option<&mut Volume<S>> {
        self.volumes.get_mut(usize::from(vol.0))?.as_mut()
    }

    fn io_backing(&mut self, vol: VolIx) -> Option<&mut Backing<S>> {
        self.io_vol_mut(vol)?.backing.as_mut()
    }

    fn io_peer_device(&mut self, vol: VolIx, peer: PeerIx) -> Option<&mut PeerDevice> {
        self.io_vol_mut(vol)?.peers.get_mut(usize::from(peer.0))
    }

    fn io_conn(&self, peer: PeerIx) -> Option<&Connection> {
        self.conns.get(usize::from(peer.0))
    }

    fn io_epochs(&mut self, peer: PeerIx) -> Option<&mut Epochs> {
        Some(&mut self.conns.get_mut(usize::from(peer.0))?.epochs)
    }

    fn io_state(&self, vol: VolIx) -> State {
        self.io_vol(vol).map_or(State::INITIAL, |v| v.state)
    }

    fn io_vnr(&self, vol: VolIx) -> u16 {
        self.io_vol(vol).map_or(0, |v| v.vnr.0)
    }

    fn io_volumes(&self) -> impl Iterator<Item = VolIx> {
        (0..u16::try_from(self.volumes.len()).unwrap_or(u16::MAX)).map(VolIx)
    }

    fn io_volume_of(&self, vnr: Vnr) -> Option<VolIx> {
        self.io_volumes()
            .find(|vol| self.io_vol(*vol).is_some_and(|v| v.vnr == vnr))
    }

    /// Whether data may be read from and written to the own disk.
    fn io_has_disk(&self, vol: VolIx) -> bool {
        self.io_vol(vol)
            .is_some_and(|v| v.backing.is_some() && v.state.disk >= Disk::Inconsistent)
    }

    /// The next sequence number for a DATA packet or an acknowledgement of this volume.
    pub(crate) fn next_seq(&mut self, vol: VolIx) -> u32 {
        self.io_peer_device(vol, PEER).map_or(0, |p| {
            p.io.seq = p.io.seq.wrapping_add(1);
            p.io.seq
        })
    }

    /// Stores a continuation to be run by the pump, so that no chain of them grows the stack.
    pub(crate) fn run_soon(&mut self, after: After, ok: bool, h: &mut impl Host) {
        if after == After::Nothing {
            return;
        }
        match self.io.afters.iter_mut().find(|a| a.is_none()) {
            Some(free) => *free = Some((after, ok)),
            None => self.run_after(after, ok, h),
        }
    }

    /// Goes on with what waited.
    pub(crate) fn request_next(&mut self, next: Next, ok: bool, h: &mut impl Host) {
        match next {
            Next::Generation(vol) => self.generation_begun(vol, ok, h),
        }
    }

    /// Does what can be done now; true if effects ran out of room.
    #[inline(never)]
    pub(crate) fn request_pump(&mut self, h: &mut impl Host) -> bool {
        while let Some(slot) = self.io.afters.iter_mut().find(|a| a.is_some()) {
            let due = slot.take();
            if h.room() < UNIT {
                *slot = due;
                return true;
            }
            if let Some((after, ok)) = due {
                self.run_after(after, ok, h);
            }
        }
        for peer in io_peers() {
            if self.acked_pump(peer, h)
                || self.received_epochs_pump(peer, h)
                || self.owed_pump(peer, h)
                || self.lost_pump(peer, h)
            {
                return true;
            }
        }
        if self.thaw_pump(h) || self.request_timers(h) {
            return true;
        }
        // What ended above may let others begin.
        for vol in self.io_volumes() {
            if self.io_vol(vol).is_some() && self.volume_io_pump(vol, h) {
                return true;
            }
        }
        for peer in io_peers() {
            if self.peer_writes_pump(peer, h) || h.room() < UNIT {
                return true;
            }
            self.close_idle_epoch(peer, h);
            if self.proof_pump(peer, h) {
                return true;
            }
        }
        self.io.afters.iter().any(Option::is_some)
    }

    fn volume_io_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        self.news_pump(vol, h);
        loop {
            let full = self.meta_pump(vol, h)
                || self.abandon_pump(vol, h)
                || self.alone_pump(vol, h)
                || self.held_pump(vol, h)
                || self.conflict_pump(vol, h)
                || self.al_pump(vol, h)
                || self.admission_pump(vol, h);
            if full || h.room() < UNIT {
                return true;
            }
            // A request that failed at once may have made way for another.
            let again = |v: &Volume<S>| v.io.conflict_ended && !v.io.conflict.is_empty();
            if !self.io_vol(vol).is_some_and(again) {
                break;
            }
        }
        if h.room() < UNIT {
            return true;
        }
        self.ahead_pump(vol, h);
        self.gate_pump(vol, h);
        self.disk_idle_pump(vol, h);
        h.room() < UNIT
    }

    /// A local I/O is over.
    pub(crate) fn local_done(
        &mut self,
        io: IoToken,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        match token::Name::unpack(io.0) {
            Some(token::Name::App(id)) => self.app_local_done(id, buf, result, h),
            Some(token::Name::Peer(id)) => self.peer_local_done(id, buf, result, h),
            Some(token::Name::Flush(vol)) => self.epoch_flushed(vol, result, h),
            Some(token::Name::DataFlush(vol)) => self.data_flushed(vol, result, h),
            Some(token::Name::LogFlush(vol)) => self.log_flushed(vol, result, h),
            Some(
                token::Name::Superblock(_)
                | token::Name::OldSuperblock(_)
                | token::Name::AlBlock(_)
                | token::Name::AlPage(..)
                | token::Name::BitmapPage(..),
            )
            | None => self.resync_local_done(io, buf, result, h),
        }
    }

    /// A packet was handed to TCP.
    pub(crate) fn packet_sent(&mut self, peer: PeerIx, token: SendToken, h: &mut impl Host) {
        match token::Name::unpack(token.0) {
            Some(token::Name::App(id)) => self.app_sent(id, h),
            Some(token::Name::Peer(id)) => self.peer_reply_sent(peer, id, h),
            Some(
                token::Name::Flush(_)
                | token::Name::DataFlush(_)
                | token::Name::LogFlush(_)
                | token::Name::Superblock(_)
                | token::Name::OldSuperblock(_)
                | token::Name::AlBlock(_)
                | token::Name::AlPage(..)
                | token::Name::BitmapPage(..),
            )
            | None => self.resync_sent(token, h),
        }
    }

    fn free_buf(buf: Option<BufId>, h: &mut impl Host) {
        if let Some(buf) = buf {
            h.emit(Effect::Free(buf));
        }
    }

    /// Whether the receiver has to wait: what came last is not yet on its way to the disk, an epoch
    /// is being closed, or a table is nearly full.
    pub(crate) fn request_rx_paused(&self) -> bool {
        let peers = &self.io.peer_requests;
        !self.io.peer_waiting.is_empty()
            || peers.len().saturating_add(peer_write::RESERVE) > peers.capacity()
            || self
                .conns
                .iter()
                .any(|c| c.epochs.received.must_pause(self.io.ordering))
    }

    /// Whether another request of an application fits. The owner asks before each `Submit`.
    pub fn can_submit(&self) -> bool {
        !self.io.requests.is_full()
    }
}
