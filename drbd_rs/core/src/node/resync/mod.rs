// SPDX-License-Identifier: GPL-2.0

//! Resynchronisation: bringing two copies together again without losing a write.
//!
//! ```text
//!   WFBitMapS ── queue_bitmap_send ─▶ bitmap ─▶ peer        WFBitMapT ◀─ recv_bitmap
//!       │ recv_bitmap of the answer                             │ answer, then WFSyncUUID
//!       ▼                                                       ▼ SYNC_UUID
//!   start_resync(Source)                                    start_resync(Target)
//!       │ RS_DATA_REQUEST ◀──────────────────────────────── target.rs, every 100 ms
//!   source.rs: lock the extent, read ── RS_DATA_REPLY ────▶ write, clear the bit
//!       │ clear the bit ◀────────────────── RS_WRITE_ACK ───────┘
//!       ▼ finished by the target's STATE                    finish.rs: ping, UUIDs, UpToDate
//! ```
//!
//! `verify.rs` compares both copies; it shares extents, slots and pace with the resync.
//!
//! Invariants, on which the user's data depend:
//! - A resync I/O runs only while its 16 MiB extent is locked, and an extent is locked only while
//!   no application write is in flight in it.
//! - A bit is cleared only because data was written here, or was acknowledged as written there.
//! - While a bitmap is exchanged bits are only set.
//! - What was left when a connection broke is still marked: late completions clear nothing.
//!
//! This is not the bitmap, nor the table of resync extents: those know no peer and no time.

mod bulk;
mod examine;
mod exchange;
mod finish;
mod mark_sync;
mod marks;
mod pause;
mod rate;
mod settings;
mod source;
mod start;
mod target;
mod token;
mod verify;

use core::hash::Hash;

pub(crate) use marks::Snapshot;

use super::io::{AppResult, BufId, Effect, Host, IoToken, SendToken, Sock, VolIx};
use super::{Backing, Resource, Store, Volume, PEER};
use crate::digest::Digest;
use crate::resync_after::Posted;
use crate::state::conn;
use crate::time::Instant;
use crate::units::{index, SectorRange, Sectors};
use crate::wire::{BlockAck, BlockId, Packet};

/// Resync I/O of one volume and peer that may be under way at once; beyond that the receiver waits.
pub(crate) const SLOTS: usize = 64;
/// Effects that one unit of work here emits at most.
const UNIT: usize = 8;

/// Which way data flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This node has the good data.
    Source,
    /// This node is brought up to date.
    Target,
}

impl Side {
    /// The connection state of a running resync on this side.
    pub(crate) const fn conn(self) -> conn::State {
        match self {
            Side::Source => conn::State::SyncSource,
            Side::Target => conn::State::SyncTarget,
        }
    }
}

/// Steps of this part that wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// No application write is in flight: the bitmap may be sent.
    BitmapGate(VolIx),
    /// All bits are set and stored: the bitmap may be sent.
    BitmapFilled(VolIx),
    /// `before-resync-*` is back; the number tells old calls from the present one.
    Helper(VolIx, Side, u16),
    /// The name that a source gave to the resync is on its disk (before protocol 96).
    Named(VolIx, u16),
    /// The superblock of a target says so.
    TargetStored(VolIx, u16),
    /// The superblock says that a full sync is due (set-all only).
    BulkFlagged(VolIx),
    /// The changed bitmap is on disk.
    BulkWritten(VolIx),
    /// The superblock no longer says so.
    BulkDone(VolIx),
    /// The peer has processed all earlier acknowledgements.
    Pinged(VolIx),
    /// The bitmap of a running resync was brought up to date on disk.
    LazyWritten(VolIx),
}

/// What a resync I/O is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Target: what the source sent is written.
    Write,
    /// Target: the own block is read, for the digest of CSUM_RS_REQUEST.
    Offer,
    /// Source: RS_DATA_REQUEST.
    Data,
    /// Source: RS_THIN_REQ.
    Thin,
    /// Source: CSUM_RS_REQUEST.
    Compare,
    /// VerifyT: OV_REQUEST.
    Prove,
    /// VerifyS: OV_REPLY.
    Judge,
}

/// What a resync I/O is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Nothing: the slot is free.
    Free,
    /// Asked for by the peer, waits for its extent.
    Waiting,
    /// Being read.
    Reading,
    /// Its content is looked at.
    Examining,
    /// Verify: its digest is known, or the verdict; those asked for before come first.
    Examined {
        /// The peer's digest is the same.
        equal: bool,
    },
    /// Source: read, on its way to TCP.
    Sending,
    /// Target: being written.
    Writing,
    /// Target: written, perhaps only into the disk's cache.
    Written,
    /// Target: a flush that covers it is under way.
    Flushing,
    /// Target: on stable storage, to be acknowledged.
    Durable,
    /// Target: the flush failed, to be refused.
    Lost,
    /// Source: never sent, as the connection is gone; its buffer is to be freed.
    Dropped,
}

/// One resync I/O.
#[derive(Clone, Copy, Debug)]
struct Slot {
    stage: Stage,
    kind: Kind,
    /// The connection on whose behalf it runs still stands.
    current: bool,
    /// What it was for has been given up, and the lock on its extent with that: it is waited for,
    /// and nothing more. Another resync may be under way when it is over.
    void: bool,
    /// Order of arrival.
    turn: u32,
    buf: Option<BufId>,
    range: SectorRange,
}

impl Slot {
    /// `turn`: the next one.
    fn hash_at<H: core::hash::Hasher>(&self, turn: u32, state: &mut H) {
        if self.stage != Stage::Free {
            (self.stage, self.kind, self.current, self.void).hash(state);
            (self.buf, self.range).hash(state);
            turn.wrapping_sub(self.turn).hash(state);
        }
    }
}

impl Slot {
    const FREE: Slot = Slot {
        stage: Stage::Free,
        kind: Kind::Data,
        current: false,
        void: false,
        turn: 0,
        buf: None,
        range: SectorRange {
            start: crate::units::Sector(0),
            len: Sectors(0),
        },
    };
}

/// Resync of one volume with one peer.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct PeerDeviceResync {
    /// The state that this part saw last; see [`pause`].
    seen: conn::State,
    exchange: exchange::Exchange,
    bulk: bulk::Bulk,
    marks: marks::Marks,
    rate: rate::Rate,
    target: target::Target,
    source: source::Source,
    finish: finish::Finish,
    /// The target is done, and until when blocks may be left here.
    told_done: Option<Instant>,
    start: start::Start,
    verify: verify::Verify,
    slots: [Slot; SLOTS],
    /// The digest that came with the request or reply in the slot.
    told: [Digest; SLOTS],
    turn: u32,
    /// Requests (target) or replies (source) that the peer has not answered.
    pending: u32,
    /// Source: the next answers of the target are about blocks that were sent before it refused a
    /// write, perhaps to one of them.
    doubted: u32,
    /// Target: answers to requests of an earlier resync that are still to come.
    late: u32,
    /// Target: answers that may find their extent released by one to an earlier resync.
    spare: u32,
    /// When the bitmap was last written during a resync.
    lazy_at: Instant,
    /// A lazy write is due, or under way.
    lazy: mark_sync::Lazy,
    /// This resync compares digests, here or on request of the target.
    compares: bool,
    /// Blocks that digests showed to be the same.
    same: u64,
    /// Another volume, of which this resource knows nothing, must sync first.
    held_back: bool,
    /// What other resources know of this volume.
    posted: Posted,
}

impl Hash for PeerDeviceResync {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.seen, &self.exchange, &self.bulk, self.marks).hash(state);
        (&self.rate, &self.target, &self.source, self.finish).hash(state);
        (self.told_done, &self.start, &self.verify).hash(state);
        let slots = (0u16..).zip(self.slots.iter().zip(&self.told));
        for (ix, (slot, told)) in slots.filter(|(_, (s, _))| s.stage != Stage::Free) {
            (ix, told).hash(state);
            slot.hash_at(self.turn, state);
        }
        (self.pending, self.doubted, self.late, self.spare).hash(state);
        (self.lazy, self.compares).hash(state);
        (self.held_back, self.posted).hash(state);
    }
}

impl PeerDeviceResync {
    /// No resync.
    pub(crate) const fn new() -> PeerDeviceResync {
        PeerDeviceResync {
            seen: conn::State::StandAlone,
            exchange: exchange::Exchange::new(),
            bulk: bulk::Bulk::new(),
            marks: marks::Marks::new(),
            rate: rate::Rate::new(),
            target: target::Target::new(),
            source: source::Source::new(),
            finish: finish::Finish::Idle,
            told_done: None,
            start: start::Start::new(),
            verify: verify::Verify::new(),
            slots: [Slot::FREE; SLOTS],
            told: [Digest::EMPTY; SLOTS],
            turn: 0,
            pending: 0,
            doubted: 0,
            late: 0,
            spare: 0,
            lazy_at: Instant(0),
            lazy: mark_sync::Lazy::No,
            compares: false,
            same: 0,
            held_back: false,
            posted: Posted::NOTHING,
        }
    }

    /// The target asks for nothing more of what it has asked for, and yet it will be answered.
    fn give_up_pending(&mut self) {
        self.late = self.late.saturating_add(self.pending);
        self.spare = self.spare.saturating_add(self.pending);
        self.pending = 0;
    }

    /// The target has got an answer about `sectors`; those to an earlier resync come first.
    fn answered(&mut self, sectors: u64) {
        if self.late > 0 {
            self.late = self.late.saturating_sub(1);
        } else {
            self.pending = self.pending.saturating_sub(1);
            self.rate.answered(sectors);
        }
    }

    /// One step of the controller: how many blocks to ask for now.
    fn rate_step(&mut self, conf: &rate::RateConf, max_buffers: u32) -> u32 {
        if self.pending == 0 {
            self.rate.nothing_open();
        }
        self.rate.step(conf, max_buffers)
    }

    /// All extents of the disk are given up. Those that wait for theirs will ask anew.
    fn void_locks(&mut self) {
        let holds = |s: &&mut Slot| !matches!(s.stage, Stage::Free | Stage::Waiting);
        self.slots
            .iter_mut()
            .filter(holds)
            .for_each(|s| s.void = true);
    }

    /// Whether blocks of a resync that was given up are still being written.
    fn left_over(&self) -> bool {
        let writes = |s: &Slot| s.kind == Kind::Write && s.stage != Stage::Free;
        self.slots.iter().any(|s| s.void && writes(s))
    }

    /// Takes a free slot.
    fn claim(
        &mut self,
        stage: Stage,
        kind: Kind,
        range: SectorRange,
        buf: Option<BufId>,
    ) -> Option<u16> {
        let turn = self.turn;
        let (ix, slot) = (0u16..)
            .zip(self.slots.iter_mut())
            .find(|(_, s)| s.stage == Stage::Free)?;
        *slot = Slot {
            stage,
            kind,
            current: true,
            void: false,
            turn,
            buf,
            range,
        };
        self.turn = turn.wrapping_add(1);
        Some(ix)
    }

    /// Keeps the digest that came with what the slot is about.
    fn tell(&mut self, ix: u16, digest: Digest) {
        if let Some(told) = self.told.get_mut(usize::from(ix)) {
            *told = digest;
        }
    }

    fn slot_mut(&mut self, ix: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(ix))
    }

    fn release(&mut self, ix: u16) {
        if let Some(slot) = self.slot_mut(ix) {
            *slot = Slot::FREE;
        }
    }

    /// The slot in this stage that came first.
    fn oldest(&self, stage: Stage) -> Option<(u16, Slot)> {
        let (ix, slot) = (0u64..)
            .zip(self.slots.iter())
            .filter(|(_, s)| s.stage == stage)
            .min_by_key(|(_, s)| s.turn.wrapping_sub(self.turn))?;
        Some((u16::try_from(ix).ok()?, *slot))
    }

    fn free_slots(&self) -> usize {
        let free = self.slots.iter().filter(|s| s.stage == Stage::Free);
        free.fold(0, |n: usize, _| n.saturating_add(1))
    }

    /// The oldest block of a verify that is being worked on here, if its digest is known.
    fn next_examined(&self) -> Option<(u16, Slot, bool)> {
        let verify = |s: &Slot| matches!(s.kind, Kind::Prove | Kind::Judge);
        let (ix, slot) = (0u64..)
            .zip(self.slots.iter())
            .filter(|(_, s)| s.stage != Stage::Free && verify(s))
            .min_by_key(|(_, s)| s.turn.wrapping_sub(self.turn))?;
        if let Stage::Examined { equal } = slot.stage {
            return Some((u16::try_from(ix).ok()?, *slot, equal));
        }
        None
    }

    fn has(&self, stage: Stage) -> bool {
        self.slots.iter().any(|s| s.stage == stage)
    }
}

/// Whether a resync or a verify runs, or would if it were not paused.
fn is_active(conn: conn::State) -> bool {
    resyncs(conn) || conn.is_verify()
}

/// Whether a resync runs, or would if it were not paused.
fn resyncs(conn: conn::State) -> bool {
    matches!(
        conn,
        conn::State::SyncSource
            | conn::State::SyncTarget
            | conn::State::PausedSyncS
            | conn::State::PausedSyncT
    )
}

impl<S: Store> Resource<S> {
    fn rs_vol(&self, vol: VolIx) -> Option<&Volume<S>> {
        self.volumes.get(usize::from(vol.0))?.as_ref()
    }

    fn rs(&self, vol: VolIx) -> Option<&PeerDeviceResync> {
        Some(&self.rs_vol(vol)?.peers.first()?.resync)
    }

    fn rs_mut(&mut self, vol: VolIx) -> Option<&mut PeerDeviceResync> {
        let volume = self.volumes.get_mut(usize::from(vol.0))?.as_mut()?;
        Some(&mut volume.peers.first_mut()?.resync)
    }

    /// The resync with the disk it works on.
    fn rs_disk_mut(&mut self, vol: VolIx) -> Option<(&mut PeerDeviceResync, &mut Backing<S>)> {
        let volume = self.volumes.get_mut(usize::from(vol.0))?.as_mut()?;
        let resync = &mut volume.peers.first_mut()?.resync;
        Some((resync, volume.backing.as_mut()?))
    }

    /// Gives up all extents.
    fn cancel_extents(&mut self, vol: VolIx) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.void_locks();
        }
        if let Some((_, disk)) = self.rs_disk_mut(vol) {
            disk.extents.cancel_all();
        }
    }

    fn rs_conn(&self, vol: VolIx) -> conn::State {
        self.rs_vol(vol)
            .map_or(conn::State::StandAlone, |v| v.state.conn)
    }

    fn volume_indices(&self) -> impl Iterator<Item = VolIx> {
        let count = u16::try_from(self.volumes.len()).unwrap_or(u16::MAX);
        (0..count).map(VolIx)
    }

    /// Does what can be done now; true if effects ran out of room.
    #[inline(never)]
    pub(crate) fn resync_pump(&mut self, h: &mut impl Host) -> bool {
        for vol in self.volume_indices() {
            if self.rs(vol).is_none() {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            self.follow_state(vol, h);
            self.settle_pump(vol, h);
            self.start_pump(vol, h);
            self.source_starts(vol, h);
            if self.answer_written(vol, h)
                || self.source_pump(vol, h)
                || self.target_pump(vol, h)
                || self.answer_examined(vol, h)
                || self.verify_pump(vol, h)
            {
                return true;
            }
            self.flush_pump(vol, h);
            self.lazy_pump(vol, h);
            self.finish_pump(vol, h);
            self.post(vol, h);
        }
        h.room() < UNIT
    }

    /// When [`Resource::resync_pump`] has something to do next.
    pub(crate) fn resync_deadline(&self) -> Option<Instant> {
        self.volume_indices()
            .filter_map(|vol| {
                let rs = self.rs(vol)?;
                let target = rs.target.due(self.rs_conn(vol));
                let source = rs.has(Stage::Waiting).then_some(rs.source.not_before);
                let source = source.flatten();
                let finish = rs.finish.retry();
                let lazy = self.lazy_due(vol);
                let verify = rs.verify.due(self.rs_conn(vol));
                let told = rs.told_done.filter(|_| resyncs(self.rs_conn(vol)));
                let due = [target, source, verify, finish, lazy, told];
                due.into_iter().flatten().min()
            })
            .min()
    }

    /// Whether the receiver has to wait: requests wait for their extent, or the table is full.
    pub(crate) fn resync_rx_paused(&self) -> bool {
        self.volumes.iter().flatten().any(|v| {
            v.peers.iter().any(|p| {
                let rs = &p.resync;
                rs.has(Stage::Waiting) || rs.free_slots() < 2 || rs.start.waits()
            })
        })
    }

    /// Whether no resync I/O is under way, not even for a connection that is gone.
    pub(crate) fn resync_idle(&self, vol: VolIx) -> bool {
        self.rs(vol).is_none_or(|rs| {
            rs.slots.iter().all(|s| s.stage == Stage::Free) && !rs.target.flushing()
        })
    }

    /// Goes on with what waited.
    pub(crate) fn resync_next(&mut self, next: Next, ok: bool, h: &mut impl Host) {
        match next {
            Next::BitmapGate(vol) => self.bitmap_gate_closed(vol, h),
            Next::BitmapFilled(vol) => self.bitmap_filled(vol, ok, h),
            Next::Helper(vol, side, call) => self.before_resync_done(vol, side, call, h),
            Next::Named(vol, call) => self.resync_named(vol, call, ok, h),
            Next::TargetStored(vol, call) => self.target_stored(vol, call, ok, h),
            Next::BulkFlagged(vol) => self.bulk_flagged(vol, ok, h),
            Next::BulkWritten(vol) => self.bulk_written(vol, ok, h),
            Next::BulkDone(vol) => self.bulk_done(vol, ok, h),
            Next::Pinged(vol) => self.finish_pinged(vol, ok, h),
            Next::LazyWritten(vol) => {
                if let Some(rs) = self.rs_mut(vol) {
                    rs.lazy = mark_sync::Lazy::No;
                    rs.lazy_at = h.now();
                }
            }
        }
    }

    /// A local I/O of this part is over.
    pub(crate) fn resync_local_done(
        &mut self,
        io: IoToken,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        let Some((vol, which)) = token::of_io(io) else {
            return;
        };
        let token::Which::Slot(ix) = which else {
            self.flush_done(vol, result, h);
            return;
        };
        let Some(slot) = self.rs_mut(vol).and_then(|rs| rs.slot_mut(ix)).map(|s| *s) else {
            return;
        };
        match slot.stage {
            Stage::Reading => self.read_done(vol, ix, slot, buf, result, h),
            Stage::Writing => self.write_done(vol, ix, slot, result, h),
            Stage::Free
            | Stage::Waiting
            | Stage::Examining
            | Stage::Examined { .. }
            | Stage::Sending
            | Stage::Written
            | Stage::Flushing
            | Stage::Durable
            | Stage::Lost
            | Stage::Dropped => {}
        }
    }

    /// A packet of this part was handed to TCP.
    pub(crate) fn resync_sent(&mut self, token: SendToken, h: &mut impl Host) {
        match token::of_send(token) {
            Some((vol, token::Which::Slot(ix))) => self.reply_sent(vol, ix, h),
            Some((vol, token::Which::Volume)) => self.bitmap_sent(vol, h),
            None => {}
        }
    }

    /// Sends an answer about a block on the meta socket.
    fn send_block_ack(
        &mut self,
        vol: VolIx,
        packet: fn(BlockAck) -> Packet,
        range: SectorRange,
        h: &mut impl Host,
    ) {
        let ack = BlockAck {
            sector: range.start,
            block_id: BlockId::SYNCER,
            blksize: range.bytes(),
            seq_num: self.next_seq(vol),
        };
        self.rs_send(vol, Sock::Meta, packet(ack), h);
    }

    /// Sends a packet of a volume that has no payload.
    fn rs_send(&mut self, vol: VolIx, sock: Sock, packet: Packet, h: &mut impl Host) {
        let Some(vnr) = self.rs_vol(vol).map(|v| v.vnr) else {
            return;
        };
        let none = super::Payload::None;
        self.send(PEER, sock, vnr.0, packet, none, SendToken::default(), h);
    }

    fn rs_log(&mut self, vol: VolIx, note: super::Note, h: &mut impl Host) {
        h.emit(Effect::Log {
            vol: Some(vol),
            note,
        });
    }
}

/// The range that a packet names, if it lies within the device and is as long as may be.
fn checked_range(
    sector: crate::units::Sector,
    bytes: u32,
    most: u32,
    size: Sectors,
) -> Option<SectorRange> {
    if bytes == 0 || bytes & 511 != 0 || bytes > most {
        return None;
    }
    let range = SectorRange::new(sector, bytes);
    let end = sector.0.checked_add(range.len.0)?;
    (end <= size.0).then_some(range)
}

const _: () = assert!(SLOTS < index(1 << 16));

#[cfg(test)]
mod tests;
