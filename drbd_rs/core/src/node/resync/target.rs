// SPDX-License-Identifier: GPL-2.0

//! The side that is brought up to date: asks for blocks and writes them.
//!
//! Every 100 ms the rate controller grants a number of blocks; the generator walks the bitmap and
//! asks for what is dirty, merging neighbours into aligned requests (algorithms.md §5.5). A block
//! is cleared in the bitmap, and acknowledged, only once it is on stable storage. That is stricter
//! than the C driver, which acknowledges what may still sit in the disk's cache: were the power
//! lost then, both bitmaps would call a block clean that is not.

use crate::bitmap::BitSpan;
use crate::resync_extents::TargetBegin;
use crate::state::{conn, disk};
use crate::time::Instant;
use crate::units::{BmBit, SectorRange, BITS_PER_RS_EXTENT, BYTES_PER_BIT};
use crate::wire::{feature, BlockAck, BlockDesc, BlockId, BlockReq, Data as DataPacket, Packet};

use super::super::control::IoErrorKind;
use super::super::io::{
    AppResult, BufId, Data, Effect, Host, IoError, IoFlags, LocalOp, Sock, VolIx,
};
use super::super::request::Moved;
use super::super::{Resource, Store, Violation, PEER};
use super::rate::Rate;
use super::{checked_range, token, Kind, Slot, Stage, SLOTS, UNIT};

/// Slots that reading own blocks leaves to the data that come.
const SLOTS_FOR_WRITES: usize = SLOTS / 2;

/// The flush that makes written blocks durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flush {
    Idle,
    Running,
    /// The device does not know flushes.
    Useless,
}

/// The flush before digests of own blocks are sent. A block that equals the source's is in sync at
/// once, so what was written by earlier resyncs must not sit in the disk's cache only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Settling {
    Due,
    Flushing,
    Done,
}

/// What the generator remembers.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Target {
    /// The next bit to look at.
    pub(super) cursor: BmBit,
    /// When the controller is asked next; `None`: everything was asked for.
    next: Option<Instant>,
    /// Blocks that may still be asked for in this step.
    quota: u32,
    flush: Flush,
    /// What makes own blocks worth comparing.
    settling: Settling,
}

impl Target {
    pub(super) const fn new() -> Target {
        Target {
            cursor: BmBit(0),
            next: None,
            quota: 0,
            flush: Flush::Idle,
            settling: Settling::Done,
        }
    }

    /// A resync begins, or goes on after a pause.
    pub(super) fn arm(&mut self, now: Instant) {
        self.next = Some(now);
        self.quota = 0;
    }

    /// There is no resync.
    pub(super) fn disarm(&mut self) {
        self.next = None;
        self.quota = 0;
    }

    /// A resync begins; a flush has to come first if it `compares` digests.
    pub(super) fn begin_comparing(&mut self, compares: bool) {
        self.settling = if compares && self.flush != Flush::Useless {
            Settling::Due
        } else {
            Settling::Done
        };
    }

    pub(super) fn due(&self, conn: conn::State) -> Option<Instant> {
        self.next.filter(|_| conn == conn::State::SyncTarget)
    }

    pub(super) fn flushing(&self) -> bool {
        self.flush == Flush::Running
    }
}

/// What came of looking for the next request.
enum Find {
    /// Ask for this.
    Request(SectorRange, u32),
    /// Nothing is left behind the cursor.
    End,
    /// Not now.
    Later,
}

impl<S: Store> Resource<S> {
    /// A packet of the resync or verify. `payload`: the buffer and how many bytes of data it holds;
    /// `body`: a digest.
    ///
    /// # Errors
    /// The peer broke the protocol; the buffer has been freed.
    pub(crate) fn recv_resync_packet(
        &mut self,
        vol: VolIx,
        packet: &Packet,
        payload: Option<(BufId, u32)>,
        body: &[u8],
        intact: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        if let Packet::RsDataReply(data) = packet {
            let buf = payload.map(|(buf, _)| buf);
            let taken = self.recv_resync_data(vol, *data, payload, intact, h);
            if let (Err(_), Some(buf)) = (&taken, buf) {
                h.emit(Effect::Free(buf));
            }
            return taken;
        }
        match *packet {
            Packet::RsDataRequest(req) => self.recv_resync_request(vol, req, Kind::Data, h),
            Packet::RsThinReq(req) => self.recv_resync_request(vol, req, Kind::Thin, h),
            Packet::CsumRsRequest(req) => self.recv_csum_request(vol, req, body, h),
            Packet::RsDeallocated(desc) => self.recv_deallocated(vol, desc, h),
            Packet::RsIsInSync(ack) => self.recv_block_settled(vol, ack, Settled::InSync, h),
            Packet::NegRsDreply(ack) => self.recv_block_settled(vol, ack, Settled::Failed, h),
            Packet::RsCancel(ack) => self.recv_block_settled(vol, ack, Settled::Cancelled, h),
            Packet::RsWriteAck(ack) | Packet::WriteAck(ack) | Packet::RecvAck(ack)
                if ack.block_id == BlockId::SYNCER =>
            {
                self.recv_resync_ack(vol, ack, true, h)
            }
            Packet::NegAck(ack) if ack.block_id == BlockId::SYNCER => {
                self.recv_resync_ack(vol, ack, false, h)
            }
            Packet::OvRequest(req) => self.recv_verify_request(vol, req, h),
            Packet::OvReply(reply) => self.recv_verify_reply(vol, reply, body, h),
            Packet::OvResult(result) => self.recv_verify_result(vol, result, h),
            Packet::OutOfSync(desc) => self.recv_out_of_sync(vol, desc, h),
            _ => Err(Violation::Unexpected),
        }
    }

    /// Asks for blocks if it is time; true if effects ran out of room.
    pub(super) fn target_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let now = h.now();
        if self.rs_conn(vol) != conn::State::SyncTarget {
            return false;
        }
        self.rewind(vol, now);
        let conf = self.rate_conf(vol);
        let buffers = self.max_buffers(PEER);
        let Some(rs) = self.rs_mut(vol) else {
            return false;
        };
        if rs.target.next.is_some_and(|at| at <= now) {
            rs.target.quota = rs.rate_step(&conf, buffers);
            rs.target.next = Some(Rate::next(now));
        }
        let asks = rs.target.quota != 0;
        if asks && self.peer_writes_unlogged(vol, h) {
            // Until the next step.
            if let Some(rs) = self.rs_mut(vol) {
                rs.target.quota = 0;
            }
            return false;
        }
        self.generate(vol, h)
    }

    fn generate(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let quota = self.rs(vol).map_or(0, |rs| rs.target.quota);
            if quota == 0 {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            // What an earlier resync writes comes first: it might land on top of what is asked for.
            if !self.may_read_own(vol) || self.rs(vol).is_some_and(|rs| rs.left_over()) {
                return false;
            }
            match self.find_request(vol, quota, h.now()) {
                Find::Request(range, blocks) => {
                    if let Some(rs) = self.rs_mut(vol) {
                        rs.target.quota = quota.saturating_sub(blocks);
                        rs.rate.asked(blocks);
                        rs.pending = rs.pending.saturating_add(1);
                    }
                    self.begin_request(vol, range, h);
                }
                Find::End => {
                    if let Some(rs) = self.rs_mut(vol) {
                        rs.target.disarm();
                    }
                    return false;
                }
                Find::Later => {
                    if let Some(rs) = self.rs_mut(vol) {
                        rs.target.quota = 0;
                    }
                    return false;
                }
            }
        }
    }

    /// Where digests are compared: whether own blocks may be read now.
    fn may_read_own(&self, vol: VolIx) -> bool {
        self.rs(vol).is_some_and(|rs| {
            !rs.compares
                || (rs.target.settling == Settling::Done && rs.free_slots() > SLOTS_FOR_WRITES)
        })
    }

    /// Asks for a range, or reads it first in order to ask with its digest.
    fn begin_request(&mut self, vol: VolIx, range: SectorRange, h: &mut impl Host) {
        let offer = self
            .rs_mut(vol)
            .filter(|rs| rs.compares)
            .and_then(|rs| rs.claim(Stage::Reading, Kind::Offer, range, None));
        match offer {
            Some(ix) => self.read_block(vol, ix, range, h),
            None => self.ask_for(vol, range, h),
        }
    }

    /// Asks for the data of a range.
    pub(super) fn ask_for(&mut self, vol: VolIx, range: SectorRange, h: &mut impl Host) {
        let thin = self
            .connected(PEER)
            .is_some_and(|a| a.features & feature::THIN_RESYNC != 0);
        let granularity = self.rs_discard_granularity(vol);
        let req = BlockReq {
            sector: range.start,
            block_id: BlockId::SYNCER,
            blksize: range.bytes(),
        };
        let packet = if thin && granularity != 0 && granularity == range.bytes() {
            Packet::RsThinReq(req)
        } else {
            Packet::RsDataRequest(req)
        };
        self.rs_send(vol, Sock::Data, packet, h);
    }

    /// Finds the next dirty block whose extent can be locked, and its neighbours.
    fn find_request(&mut self, vol: VolIx, quota: u32, now: Instant) -> Find {
        let next = self.rs_disk_mut(vol).and_then(|(rs, disk)| {
            let bits = disk.bitmap.bits();
            let bit = disk.bitmap.next_set(rs.target.cursor);
            rs.target.cursor = bit.unwrap_or(BmBit(bits));
            bit
        });
        let Some(bit) = next else { return Find::End };
        let extent = bit.sector().rs_extent();
        let throttle = self.resync_throttled(vol, now);
        let Some((_, disk)) = self.rs_disk_mut(vol) else {
            return Find::Later;
        };
        let (bitmap, al) = (&disk.bitmap, &disk.al);
        let begin = disk.extents.try_begin_target(
            extent,
            throttle,
            || bitmap.count_in(extent),
            |al_extent| al.is_used(al_extent),
        );
        match begin {
            // Nothing runs between the search and the lock, so the bit is still set.
            TargetBegin::Locked => self.merge_neighbours(vol, bit, quota),
            TargetBegin::Later | TargetBegin::Starving => Find::Later,
        }
    }

    /// Extends a request as long as it stays aligned, dirty and within its extent.
    fn merge_neighbours(&mut self, vol: VolIx, first: BmBit, quota: u32) -> Find {
        let most = self.resync_request_limit(vol);
        let thin = self
            .connected(PEER)
            .is_some_and(|a| a.features & feature::THIN_RESYNC != 0);
        let granularity = if thin {
            self.rs_discard_granularity(vol)
        } else {
            0
        };
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return Find::Later;
        };
        let start = first.sector();
        let mut size = BYTES_PER_BIT;
        let mut blocks = 1_u32;
        let mut bit = first.0;
        let mut align = 1_u32;
        while blocks < quota {
            let behind = bit.saturating_add(1);
            let mask = 1_u64
                .wrapping_shl(align.saturating_add(3))
                .saturating_sub(1);
            if size.saturating_add(BYTES_PER_BIT) > most
                || start.0 & mask != 0
                || (granularity != 0 && size == granularity)
                || behind & BITS_PER_RS_EXTENT.saturating_sub(1) == 0
                || disk.bitmap.test(BmBit(behind)) != Some(true)
            {
                break;
            }
            bit = behind;
            size = size.saturating_add(BYTES_PER_BIT);
            blocks = blocks.saturating_add(1);
            if BYTES_PER_BIT.wrapping_shl(align) <= size {
                align = align.saturating_add(1);
            }
        }
        rs.target.cursor = BmBit(bit.saturating_add(1));
        let mut range = SectorRange::new(start, size);
        let room = disk.bitmap.capacity().0.saturating_sub(start.0);
        range.len.0 = range.len.0.min(room);
        Find::Request(range, blocks)
    }

    /// Begins anew at the front when everything was asked for and answered, yet blocks are left:
    /// some became out of sync behind the cursor, or the source cancelled.
    fn rewind(&mut self, vol: VolIx, now: Instant) {
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let quiet = rs.target.next.is_none()
            && rs.pending == 0
            && rs.slots.iter().all(|s| s.stage == Stage::Free);
        if quiet && disk.bitmap.weight() > rs.marks.failed {
            rs.marks.failed = 0;
            rs.target.cursor = BmBit(0);
            rs.target.next = Some(Rate::next(now));
        }
    }

    /// The data of a block have come.
    fn recv_resync_data(
        &mut self,
        vol: VolIx,
        data: DataPacket,
        payload: Option<(BufId, u32)>,
        intact: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let (buf, bytes) = payload.map_or((None, 0), |(buf, bytes)| (Some(buf), bytes));
        let size = self.rs_vol(vol).map(|v| v.size);
        let most = crate::limits::MAX_BIO_SIZE;
        let range = size.and_then(|size| checked_range(data.sector, bytes, most, size));
        let range = range.ok_or(Violation::Range)?;
        if data.block_id != BlockId::SYNCER {
            return Err(Violation::Unexpected);
        }
        if !intact {
            return Err(Violation::Digest);
        }
        self.write_block(vol, range, LocalOp::Write, buf, h)
    }

    /// A block is all zeroes at the source (RS_DEALLOCATED).
    fn recv_deallocated(
        &mut self,
        vol: VolIx,
        desc: BlockDesc,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let size = self.rs_vol(vol).map(|v| v.size);
        let most = crate::limits::MAX_BIO_SIZE;
        let range = size.and_then(|size| checked_range(desc.sector, desc.blksize, most, size));
        let range = range.ok_or(Violation::Range)?;
        self.write_block(vol, range, self.discard_op(vol), None, h)
    }

    fn write_block(
        &mut self,
        vol: VolIx,
        range: SectorRange,
        op: LocalOp,
        buf: Option<BufId>,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let able = self
            .rs_vol(vol)
            .is_some_and(|v| v.backing.is_some() && v.state.disk >= disk::State::Inconsistent);
        self.count_moved(vol, Moved::Received, range.len);
        let rs = self.rs_mut(vol).ok_or(Violation::Unexpected)?;
        rs.answered(range.len.0);
        if !able {
            if let Some((_, disk)) = self.rs_disk_mut(vol) {
                disk.extents.put(range.start.rs_extent());
            }
            if let Some(buf) = buf {
                h.emit(Effect::Free(buf));
            }
            self.send_block_ack(vol, Packet::NegAck, range, h);
            return Ok(());
        }
        let (first, last) = range.rs_extents();
        let (rs, disk) = self.rs_disk_mut(vol).ok_or(Violation::Unexpected)?;
        let locked = disk.extents.state(first).is_some_and(|s| s.is_locked());
        if first != last || !locked {
            // It must not overwrite what applications write.
            if rs.spare == 0 || first != last {
                // Nobody asked for it.
                return Err(Violation::Unexpected);
            }
            rs.spare = rs.spare.saturating_sub(1);
            self.refuse_late(vol, range, buf, h);
            return Ok(());
        }
        let ix = rs
            .claim(Stage::Writing, Kind::Write, range, buf)
            .ok_or(Violation::Flood)?;
        rs.rate.moved(range.len.0);
        self.count_moved(vol, Moved::Written, range.len);
        h.emit(Effect::Local {
            vol,
            io: token::io(vol, token::Which::Slot(ix)),
            op,
            range,
            flags: IoFlags::default(),
            data: buf.map_or(Data::None, Data::Buf),
        });
        Ok(())
    }

    /// Data that were asked for in an earlier resync, given up by both as the source pulled ahead
    /// or has lost its disk: this one has asked for them again, or will. The source may have
    /// written there since. The C driver writes them, and calls a block in sync that was written
    /// by then.
    fn refuse_late(
        &mut self,
        vol: VolIx,
        range: SectorRange,
        buf: Option<BufId>,
        h: &mut impl Host,
    ) {
        if let Some(buf) = buf {
            h.emit(Effect::Free(buf));
        }
        let clean = self.rs_disk_mut(vol).is_some_and(|(_, disk)| {
            let span = BitSpan::outward(range, disk.bitmap.capacity());
            span.is_some_and(|span| disk.bitmap.count(span) == 0)
        });
        let answer = if clean {
            Packet::RsWriteAck
        } else {
            Packet::NegAck
        };
        self.send_block_ack(vol, answer, range, h);
    }

    pub(super) fn write_done(
        &mut self,
        vol: VolIx,
        ix: u16,
        slot: Slot,
        result: AppResult,
        h: &mut impl Host,
    ) {
        if let Some(buf) = slot.buf {
            h.emit(Effect::Free(buf));
        }
        let flushes = self.disk_flushes(vol);
        let Some(rs) = self.rs_mut(vol) else { return };
        if !slot.current {
            rs.release(ix);
            return;
        }
        if result.is_err() {
            self.block_failed(vol, ix, slot, h);
            self.io_error(vol, IoErrorKind::Write, h);
            return;
        }
        let durable = !flushes || rs.target.flush == Flush::Useless;
        if let Some(slot) = rs.slot_mut(ix) {
            slot.buf = None;
            slot.stage = if durable {
                Stage::Durable
            } else {
                Stage::Written
            };
        }
    }

    fn block_failed(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.release(ix);
        }
        if slot.void {
            self.refuse_late(vol, slot.range, None, h);
            return;
        }
        self.set_failed(vol, slot.range);
        self.send_block_ack(vol, Packet::NegAck, slot.range, h);
        self.put_extent(vol, slot);
    }

    /// Flushes what was written, one flush for all that was written by then.
    pub(super) fn flush_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let settles = rs.target.settling == Settling::Due;
        if rs.target.flush != Flush::Idle || !(settles || rs.has(Stage::Written)) || h.room() == 0 {
            return;
        }
        if settles {
            rs.target.settling = Settling::Flushing;
        }
        for slot in rs.slots.iter_mut().filter(|s| s.stage == Stage::Written) {
            slot.stage = Stage::Flushing;
        }
        rs.target.flush = Flush::Running;
        h.emit(Effect::Local {
            vol,
            io: token::io(vol, token::Which::Volume),
            op: LocalOp::Flush,
            range: SectorRange::default(),
            flags: IoFlags::default(),
            data: Data::None,
        });
    }

    pub(super) fn flush_done(&mut self, vol: VolIx, result: AppResult, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let failed = matches!(result, Err(IoError::Io | IoError::NoMemory));
        rs.target.flush = match result {
            Err(IoError::Unsupported) => Flush::Useless,
            Ok(()) | Err(IoError::Io | IoError::NoMemory) => Flush::Idle,
        };
        if rs.target.settling == Settling::Flushing {
            rs.target.settling = Settling::Done;
            rs.compares &= !failed;
        }
        for slot in rs.slots.iter_mut().filter(|s| s.stage == Stage::Flushing) {
            if !slot.current {
                *slot = Slot::FREE;
            } else if failed {
                // Nobody knows what reached the medium.
                slot.stage = Stage::Lost;
            } else {
                slot.stage = Stage::Durable;
            }
        }
        if failed {
            self.io_error(vol, IoErrorKind::Write, h);
        }
    }

    /// Answers for blocks that are on stable storage, or will not be; true if effects ran out of
    /// room.
    pub(super) fn answer_written(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some(rs) = self.rs(vol) else { return false };
            let stages = [Stage::Dropped, Stage::Lost, Stage::Durable];
            let next = stages.into_iter().find_map(|s| rs.oldest(s));
            let Some((ix, slot)) = next else { return false };
            if h.room() < UNIT {
                return true;
            }
            if let Some(rs) = self.rs_mut(vol) {
                rs.release(ix);
            }
            if let Some(buf) = slot.buf {
                h.emit(Effect::Free(buf));
            }
            if slot.current && slot.stage == Stage::Lost {
                self.block_failed(vol, ix, slot, h);
            } else if slot.current && slot.void {
                self.refuse_late(vol, slot.range, None, h);
            } else if slot.current {
                self.set_in_sync(vol, slot.range, h);
                self.send_block_ack(vol, Packet::RsWriteAck, slot.range, h);
                self.put_extent(vol, slot);
            }
        }
    }

    /// A request was answered without data.
    fn recv_block_settled(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        how: Settled,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let size = self.rs_vol(vol).map(|v| v.size);
        let most = crate::limits::MAX_BIO_SIZE;
        let range = size.and_then(|size| checked_range(ack.sector, ack.blksize, most, size));
        let range = range.ok_or(Violation::Range)?;
        let rs = self.rs_mut(vol).ok_or(Violation::Unexpected)?;
        rs.answered(range.len.0);
        match how {
            Settled::InSync => {
                rs.same = rs.same.saturating_add(range.len.0 >> 3);
                self.set_in_sync(vol, range, h);
            }
            Settled::Failed => self.set_failed(vol, range),
            Settled::Cancelled => {}
        }
        if let Some((_, disk)) = self.rs_disk_mut(vol) {
            disk.extents.put(range.start.rs_extent());
        }
        Ok(())
    }

    /// Whether a resync write is under way, or not yet acknowledged, in this range: an
    /// application's write of the peer waits for it, so that the older data never come last.
    pub(crate) fn resync_write_overlaps(&self, vol: VolIx, range: SectorRange) -> bool {
        self.rs(vol).is_some_and(|rs| {
            rs.slots.iter().any(|s| match s.stage {
                Stage::Writing
                | Stage::Written
                | Stage::Flushing
                | Stage::Durable
                | Stage::Lost => s.range.overlaps(range),
                Stage::Free
                | Stage::Waiting
                | Stage::Reading
                | Stage::Examining
                | Stage::Examined { .. }
                | Stage::Sending
                | Stage::Dropped => false,
            })
        })
    }
}

/// How a request ended without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Settled {
    InSync,
    Failed,
    Cancelled,
}
