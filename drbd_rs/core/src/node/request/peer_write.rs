// SPDX-License-Identifier: GPL-2.0

//! Writes of the peer on the own disk.
//!
//! ```text
//!  DATA, TRIM, ZEROES ─▶ Waiting ─▶ Active ─▶ ack ─▶ gone
//!                           └─▶ (lost against an own write: conflict.rs) ─▶ gone
//! ```
//!
//! They leave `Waiting` in the order of arrival: behind own writes of a Primary to the same blocks,
//! behind an unfinished epoch, behind a resync write
//! to the same blocks, behind a discard, and, where this is the only good copy, behind the activity
//! log. The receiver pauses while one of them waits, so there is rarely more than one.

use super::al_gate;
use super::conflict::Turn;
use super::token::Name;
use super::Next;
use super::UNIT;

use super::super::control::IoErrorKind;
use super::super::io::{
    AppResult, BufId, Data as LocalData, Effect, Host, IoFlags, LocalOp, PeerIx, Sock, VolIx,
};
use super::super::{After, Resource, Store, Violation, PEER};
use super::stats::Moved;
use crate::al::{Begin, Claim};
use crate::limits::{MAX_BATCH_BIO_SIZE, MAX_BIO_SIZE};
use crate::state::disk::State as Disk;
use crate::store::slab::Id;
use crate::units::{Sector, SectorRange};
use crate::wire::data::dp;
use crate::wire::{feature, BlockAck, BlockId, Command, Data, Packet, Trim};

/// Requests of the peer that must still fit while the receiver runs: it may have some packets
/// under way when it is told to pause.
pub(super) const RESERVE: u32 = 16;

/// What the peer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Write the buffer; an empty one is a flush.
    Write,
    /// Discard.
    Discard,
    /// Zero out.
    ZeroOut {
        /// Blocks may be unmapped.
        unmap: bool,
    },
    /// Read.
    Read,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Waits for its turn.
    Waiting,
    /// On the disk.
    Active,
    /// The reply is on its way to TCP.
    Replying,
}

/// One request of the peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerRequest {
    pub(super) vol: VolIx,
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) range: SectorRange,
    pub(super) block_id: BlockId,
    pub(super) buf: Option<BufId>,
    /// WRITE_ACK is asked for.
    pub(super) ack: bool,
    /// Sequence number in its packet.
    pub(super) seq: u32,
    /// Its turn has come: no own write of a Primary conflicts any more.
    pub(super) cleared: bool,
    /// In the set of writes in flight.
    pub(super) in_writes: bool,
    /// Own writes wait for it to be sent again.
    pub(super) restarts: bool,
    /// The write may set its blocks in sync.
    in_sync: bool,
    flags: IoFlags,
    pub(super) epoch: u32,
    /// The connection it came over.
    pub(super) incarnation: u32,
    /// References to the activity log, if `marked`.
    claim: Claim,
    /// Its blocks were marked out of sync, as the peer has no disk.
    marked: bool,
    log_of: u32,
}

crate::key::key! {
    PeerRequest {
        vol, kind, stage, range, block_id, buf, ack, cleared, in_writes, restarts, in_sync,
        flags, claim, marked
    }
    names { epoch: PEER_EPOCH, incarnation: INCARNATION, log_of: LOG }
    not { seq }
}

impl PeerRequest {
    pub(super) fn read(vol: VolIx, range: SectorRange, block_id: BlockId, now: u32) -> Self {
        PeerRequest {
            vol,
            kind: Kind::Read,
            stage: Stage::Active,
            range,
            block_id,
            buf: None,
            ack: false,
            seq: 0,
            cleared: false,
            in_writes: false,
            restarts: false,
            in_sync: false,
            flags: IoFlags::default(),
            epoch: 0,
            incarnation: now,
            claim: Claim::default(),
            marked: false,
            log_of: 0,
        }
    }

    const fn is_exclusive(&self) -> bool {
        matches!(self.kind, Kind::Discard | Kind::ZeroOut { .. })
    }
}

/// What a write of the peer brings.
struct Incoming {
    kind: Kind,
    sector: Sector,
    bytes: u32,
    block_id: BlockId,
    seq: u32,
    flags: u32,
}

impl<S: Store> Resource<S> {
    pub(super) fn recv_data(
        &mut self,
        vol: VolIx,
        p: Data,
        payload: Option<(BufId, u32)>,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let write = Incoming {
            kind: Kind::Write,
            sector: p.sector,
            bytes: payload.map_or(0, |(_, bytes)| bytes),
            block_id: p.block_id,
            seq: p.seq_num,
            flags: p.flags,
        };
        if write.bytes > MAX_BIO_SIZE || (write.bytes == 0 && p.flags & dp::FLUSH == 0) {
            return Err(Violation::Range);
        }
        self.recv_write(vol, write, payload.map(|(buf, _)| buf), h)
    }

    pub(super) fn recv_trim(
        &mut self,
        vol: VolIx,
        p: Trim,
        zeroes: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let features = self.connected(PEER).map_or(0, |a| a.features);
        let reliable = self.discard_op(vol) == LocalOp::Discard;
        let kind = if zeroes {
            Kind::ZeroOut {
                unmap: p.flags & dp::DISCARD != 0,
            }
        } else if features & feature::WZEROES != 0 && reliable {
            Kind::Discard
        } else {
            // An older peer means "zero", and what cannot be discarded reliably has to be zeroed.
            Kind::ZeroOut { unmap: true }
        };
        let write = Incoming {
            kind,
            sector: p.sector,
            bytes: p.size,
            block_id: p.block_id,
            seq: p.seq_num,
            flags: p.flags,
        };
        if write.bytes > MAX_BATCH_BIO_SIZE || write.bytes == 0 {
            return Err(Violation::Range);
        }
        self.recv_write(vol, write, None, h)
    }

    /// Whether a range that the peer names lies on the device.
    pub(super) fn is_on_device(&self, vol: VolIx, sector: Sector, bytes: u32) -> bool {
        let size = self.io_vol(vol).map_or(0, |v| v.size.0);
        let end = sector.0.checked_add(u64::from(bytes >> 9));
        bytes & 511 == 0 && end.is_some_and(|end| end <= size)
    }

    /// Whether a range lies on the device as it is going to be: the peer's may have grown already.
    fn will_be_on_device(&self, vol: VolIx, range: SectorRange) -> bool {
        let size = self.size_to_come(vol);
        range.bytes() & 511 == 0 && size.is_some_and(|size| range.end().0 <= size.0)
    }

    /// Whether a write with these flags is answered on receipt, and when it is written.
    fn acks_wanted(&self, flags: u32) -> (bool, bool) {
        if self.connected(PEER).is_some_and(|a| a.apv >= 100) {
            return (
                flags & dp::SEND_RECEIVE_ACK != 0,
                flags & dp::SEND_WRITE_ACK != 0,
            );
        }
        // Older peers leave it to the protocol that both sides are configured for.
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let protocol = conf.map_or(3, |n| n.wire_protocol);
        (protocol == 2, protocol == 3)
    }

    fn recv_write(
        &mut self,
        vol: VolIx,
        w: Incoming,
        buf: Option<BufId>,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let two = self.two_primaries();
        if !two && self.io_state(vol).role.is_primary() {
            // Nothing here orders its writes against own ones.
            return Err(Violation::Unexpected);
        }
        if !two || !self.io_has_disk(vol) {
            self.see_seq(vol, w.seq);
        }
        let range = SectorRange::new(w.sector, w.bytes);
        if !self.io_has_disk(vol) {
            if let Some(e) = self.io_epochs(PEER) {
                e.received.count(false);
            }
            self.send_ack(vol, Packet::NegAck, range, w.block_id, h);
            Self::free_buf(buf, h);
            self.restart_postponed(vol, range);
            return Ok(());
        }
        if !self.is_on_device(vol, w.sector, w.bytes) && !self.will_be_on_device(vol, range) {
            return Err(Violation::Range);
        }
        let (received, written) = self.acks_wanted(w.flags);
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        let mut request = PeerRequest {
            kind: w.kind,
            stage: Stage::Waiting,
            buf,
            ack: written,
            seq: w.seq,
            in_sync: w.flags & dp::MAY_SET_IN_SYNC != 0,
            flags: IoFlags {
                sync: w.flags & dp::RW_SYNC != 0,
                fua: w.flags & dp::FUA != 0,
                preflush: w.flags & dp::FLUSH != 0,
                rahead: false,
            },
            ..PeerRequest::read(vol, range, w.block_id, incarnation)
        };
        if self.io.peer_requests.is_full() || self.io.peer_waiting.is_full() {
            return Err(Violation::Flood);
        }
        if let Some(e) = self.io_epochs(PEER) {
            request.epoch = e.received.count(true);
        }
        let Ok(id) = self.io.peer_requests.insert(request) else {
            return Err(Violation::Flood);
        };
        // Both tables were asked above.
        let stored = self.io.peer_waiting.push_back(id);
        debug_assert!(stored.is_ok());
        self.count_moved(vol, Moved::Received, range.len);
        if written {
            self.count_unacked(vol, true);
        }
        if received {
            self.send_ack(vol, Packet::RecvAck, range, w.block_id, h);
        }
        self.peer_writes_pump(PEER, h);
        Ok(())
    }

    pub(super) fn count_unacked(&mut self, vol: VolIx, more: bool) {
        if let Some(p) = self.io_peer_device(vol, PEER) {
            p.io.unacked = if more {
                p.io.unacked.saturating_add(1)
            } else {
                p.io.unacked.saturating_sub(1)
            };
        }
    }

    /// Answers a request of the peer on the meta socket.
    pub(super) fn send_ack(
        &mut self,
        vol: VolIx,
        packet: fn(BlockAck) -> Packet,
        range: SectorRange,
        block_id: BlockId,
        h: &mut impl Host,
    ) {
        let ack = packet(BlockAck {
            sector: range.start,
            block_id,
            blksize: range.bytes(),
            seq_num: self.next_seq(vol),
        });
        let vnr = self.io_vnr(vol);
        self.send_plain(PEER, Sock::Meta, vnr, ack, h);
    }

    /// Peer's I/O on any disk.
    pub(super) fn peer_active(&self, peer: PeerIx) -> u32 {
        self.volumes
            .iter()
            .flatten()
            .filter_map(|v| v.peers.get(usize::from(peer.0)))
            .fold(0, |n: u32, p| n.saturating_add(p.io.active))
    }

    /// Whether the own disk works on a write of the peer to some of these blocks. What asks for
    /// them came behind it: a target that has lost its disk since it sent that, and has it back,
    /// has nothing there that keeps the resync from those blocks. That the peer itself waits for
    /// the answer (`peer_writes_unlogged`) a C peer does not. Only the own disk is waited for, and
    /// not what has to wait its turn here: with two Primaries that may be for what the receiver,
    /// which waits with the request, has not taken.
    pub(crate) fn writes_for_peer(&self, vol: VolIx, range: SectorRange) -> bool {
        let active = self
            .io_vol(vol)
            .and_then(|v| v.peers.get(usize::from(PEER.0)));
        let active = active.map_or(0, |p| usize::try_from(p.io.active).unwrap_or(usize::MAX));
        let on_disk = |r: &&PeerRequest| r.vol == vol && r.stage == Stage::Active;
        let requests = self.io.peer_requests.iter().map(|(_, r)| r);
        active != 0
            && requests
                .filter(on_disk)
                .take(active)
                .any(|r| r.kind != Kind::Read && r.range.overlaps(range))
    }

    /// Lets the peer's writes go on, in order; true if room ran out.
    #[inline(never)]
    pub(super) fn peer_writes_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        while let Some(id) = self.io.peer_waiting.front().copied() {
            if h.room() < UNIT {
                return true;
            }
            let Some(r) = self.io.peer_requests.get(id).copied() else {
                self.io.peer_waiting.pop_front();
                continue;
            };
            if !self.io_has_disk(r.vol) {
                self.io.peer_waiting.pop_front();
                self.end_peer_write(id, r, Err(super::super::IoError::Io), h);
                self.restart_postponed(r.vol, r.range);
                continue;
            }
            if !self.is_on_device(r.vol, r.range.start, r.range.bytes()) {
                if self.size_to_come(r.vol).is_none() {
                    self.protocol_error(peer, Command::Data, Violation::Range, h);
                }
                return false;
            }
            match self.turn_comes(id, &r, h) {
                Turn::Comes => {}
                Turn::Gone => continue,
                Turn::Waits => return false,
            }
            if !self.may_start(peer, &r) || !self.pass_log(id, &r, h) {
                return false;
            }
            self.io.peer_waiting.pop_front();
            self.start_peer_write(peer, id, h);
        }
        false
    }

    fn may_start(&self, peer: PeerIx, r: &PeerRequest) -> bool {
        let Some(e) = self.io_conn(peer).map(|c| &c.epochs) else {
            return false;
        };
        // Also while the resync is paused: what was on its way is still written.
        let resync = self.resync_write_overlaps(r.vol, r.range);
        !resync
            && !e.received.exclusive
            && e.received.may_write(r.epoch, self.io.ordering)
            && (!r.is_exclusive() || self.peer_active(peer) == 0)
    }

    /// Where the peer has no good disk this is the only copy: it is marked, and goes through the
    /// activity log like an own write. False: not yet.
    fn pass_log(&mut self, id: Id, r: &PeerRequest, h: &mut impl Host) -> bool {
        if !r.marked && self.io_state(r.vol).pdsk >= Disk::Inconsistent {
            return true;
        }
        // Marked first: should the connection be lost while this waits, nothing tells any more that
        // the peer's disk was not there.
        if !r.marked {
            self.set_out_of_sync(r.vol, r.range, h);
            self.name_log(r.vol);
            let log_of = self.io_backing(r.vol).map(|b| b.meta_io.instance);
            if let (Some(r), Some(log_of)) = (self.io.peer_requests.get_mut(id), log_of) {
                r.marked = true;
                r.in_sync = false;
                r.claim = Claim::new(r.range);
                r.log_of = log_of;
            }
        }
        if self.begin_generation(r.vol, h) || self.log_is_unknown(r.vol, h) {
            return false;
        }
        let Some(Some(v)) = self.volumes.get_mut(usize::from(r.vol.0)) else {
            return false;
        };
        let (Some(b), Some(r)) = (v.backing.as_mut(), self.io.peer_requests.get_mut(id)) else {
            return false;
        };
        match al_gate::begin(b, &mut r.claim) {
            Begin::Ready | Begin::NotNeeded => true,
            // The pump of the volume starts the transaction.
            Begin::NeedTransaction | Begin::Wait(_) => false,
        }
    }

    /// A Primary without a disk writes here: what other disks of it there may be is old from now
    /// on. True: the new generation has to be stored first.
    pub(crate) fn begin_generation(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let s = self.io_state(vol);
        let Some(v) = self.io_vol(vol) else {
            return false;
        };
        let fresh = v.backing.as_ref().is_some_and(|b| b.disk.uuids.bitmap == 0);
        if !v.io.generation && fresh && s.peer.is_primary() && s.disk == Disk::UpToDate {
            self.start_generation(vol, h);
        }
        self.io_vol(vol).is_some_and(|v| v.io.generation)
    }

    /// Begins a generation of data and stores it.
    pub(super) fn start_generation(&mut self, vol: VolIx, h: &mut impl Host) {
        self.uuid_new_current(vol, h);
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.generation = true;
        }
        self.md_sync(vol, After::Request(Next::Generation(vol)), h);
    }

    /// It is stored; the peer is told, and its writes go on.
    pub(super) fn generation_begun(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        if ok && self.md_begins(vol) {
            // A resync has got a name meanwhile, which would be told with it.
            self.md_stable(vol, After::Request(Next::Generation(vol)), h);
            return;
        }
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.generation = false;
        }
        self.send_uuids(vol, 0, h);
        self.peer_writes_pump(PEER, h);
    }

    fn start_peer_write(&mut self, peer: PeerIx, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.peer_requests.get_mut(id) else {
            return;
        };
        r.stage = Stage::Active;
        let r = *r;
        if let Some(v) = self.io_vol_mut(r.vol) {
            v.io.local = v.io.local.saturating_add(1);
        }
        if let Some(p) = self.io_peer_device(r.vol, peer) {
            p.io.active = p.io.active.saturating_add(1);
        }
        if let (true, Some(e)) = (r.is_exclusive(), self.io_epochs(peer)) {
            e.received.exclusive = true;
        }
        let (op, data) = match (r.kind, r.buf) {
            (Kind::Discard, _) => (LocalOp::Discard, LocalData::None),
            (Kind::ZeroOut { unmap }, _) => (LocalOp::ZeroOut { unmap }, LocalData::None),
            (Kind::Write | Kind::Read, Some(buf)) => (LocalOp::Write, LocalData::Buf(buf)),
            (Kind::Write | Kind::Read, None) => (LocalOp::Flush, LocalData::None),
        };
        h.emit(Effect::Local {
            vol: r.vol,
            io: Name::Peer(id).io(),
            op,
            range: r.range,
            flags: r.flags,
            data,
        });
    }

    /// The own disk is done with a request of the peer.
    pub(super) fn peer_local_done(
        &mut self,
        id: Id,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        let Some(r) = self.io.peer_requests.get(id).copied() else {
            return;
        };
        if r.stage != Stage::Active {
            return;
        }
        self.local_ends(r.vol);
        if let Some(p) = self.io_peer_device(r.vol, PEER) {
            p.io.active = p.io.active.saturating_sub(1);
        }
        if r.kind == Kind::Read {
            self.peer_read_done(id, r, buf, result, h);
            return;
        }
        if result.is_ok() {
            self.count_moved(r.vol, Moved::Written, r.range.len);
        }
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        if let (true, true, Some(e)) = (
            r.is_exclusive(),
            r.incarnation == incarnation,
            self.io_epochs(PEER),
        ) {
            e.received.exclusive = false;
        }
        if result.is_err() {
            self.set_out_of_sync(r.vol, r.range, h);
            self.io_error(r.vol, IoErrorKind::Write, h);
        }
        self.end_peer_write(id, r, result, h);
        self.peer_writes_pump(PEER, h);
    }

    /// Answers a write of the peer and forgets it.
    fn end_peer_write(&mut self, id: Id, r: PeerRequest, result: AppResult, h: &mut impl Host) {
        if r.ack {
            self.count_unacked(r.vol, false);
        }
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        if r.incarnation == incarnation {
            // The acknowledgement leaves before the epoch may be finished.
            if result.is_err() {
                self.send_ack(r.vol, Packet::NegAck, r.range, r.block_id, h);
            } else if r.ack && r.in_sync && self.io_state(r.vol).conn.is_sync() {
                self.send_ack(r.vol, Packet::RsWriteAck, r.range, r.block_id, h);
                self.set_in_sync(r.vol, r.range, h);
            } else if r.ack {
                self.send_ack(r.vol, Packet::WriteAck, r.range, r.block_id, h);
            }
            if let Some(e) = self.io_epochs(PEER) {
                e.received.finish(r.epoch);
            }
        }
        self.forget_peer_request(id, h);
        if self
            .io_conn(PEER)
            .is_some_and(|c| c.epochs.received.len() > 1)
        {
            self.received_epochs_pump(PEER, h);
        }
    }

    /// Frees what a request of the peer holds.
    pub(super) fn forget_peer_request(&mut self, id: Id, h: &mut impl Host) {
        let Some(mut r) = self.io.peer_requests.remove(id) else {
            return;
        };
        self.turn_over(id);
        if let Some(b) = self.io_backing(r.vol) {
            if r.claim.is_holding() && r.log_of == b.meta_io.instance {
                let known = b.al.put(&mut r.claim);
                debug_assert!(known);
            }
        }
        self.peer_write_leaves(id, &r);
        Self::free_buf(r.buf, h);
    }
}
