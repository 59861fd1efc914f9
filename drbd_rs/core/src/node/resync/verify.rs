// SPDX-License-Identifier: GPL-2.0

//! Online verify: finds out whether both nodes hold the same (algorithms.md §5.5, wire.md §11).
//!
//! ```text
//!   VerifyS                                         VerifyT
//!     lock the extent ── OV_REQUEST ──────────────▶   lock the extent, read
//!     read, compare   ◀────────────── OV_REPLY ────   (with the digest)
//!     mark, unlock    ── OV_RESULT ───────────────▶   mark, unlock
//! ```
//!
//! One block of 4 KiB for each request, from the start to the end or to the stop sector, at the
//! pace of the rate controller. What differs is marked out of sync and stays so: the next resync
//! mends it. Each answer counts for one block on both sides, and so the end is known to both.
//!
//! Invariant: while a block is compared, its extent is locked on both nodes, so no write is on its
//! way to only one of them.

use crate::resync_extents::TargetBegin;
use crate::state::effects::knows_stop_sector;
use crate::state::{conn, disk};
use crate::time::Instant;
use crate::units::{
    BmBit, Sector, SectorRange, Sectors, BITS_PER_RS_EXTENT, BYTES_PER_BIT, SECTORS_PER_BIT,
};
use crate::wire::{BlockId, BlockReq, OvResult, OvVerdict, Packet};

use super::super::control::{Flags, StateChange};
use super::super::io::{Data, Effect, HelperCommand, Host, IoFlags, LocalOp, Sock, VolIx};
use super::super::request::Moved;
use super::super::{Note, Resource, Store, Violation, PEER};
use super::examine::digest_of;
use super::finish::Finish;
use super::rate::Rate;
use super::{checked_range, token, Kind, Slot, Stage, UNIT};

/// From this version on the first request tells the other side where a verify starts.
const TELLS_START: u32 = 90;
/// Marks are made only while this bit of what is left is set: in every other 2 MiB.
const MARK_BIT: u64 = 0x200;
/// No stop sector: to the end of the device.
const NO_STOP: Sector = Sector(u64::MAX);

/// An online verify, or where the last one ended.
#[derive(Clone, Hash)]
pub(super) struct Verify {
    /// Where it starts, or the next one would; `None`: the peer's first request tells.
    start: Option<Sector>,
    /// Where it stops.
    stop: Sector,
    /// The next block to ask for.
    position: Sector,
    /// Blocks that are not compared yet, to the end of the device.
    pub(super) left: u64,
    /// Differing blocks that follow each other, not logged yet.
    differs: SectorRange,
    /// When the controller is asked next; `None`: everything was asked for.
    next: Option<Instant>,
    /// Blocks that may still be asked for in this step.
    quota: u32,
    /// A block was asked for: a verify is never empty.
    begun: bool,
    /// It has another stop sector now: perhaps all was asked for up to the old one.
    moved: bool,
    /// The device when it began. What a resize adds is not compared: the peer, which may not have
    /// that yet, could not read it. (The C driver asks for it.)
    size: Sectors,
    /// The peer was asked, and may have answers to give even if the verify is over.
    pub(super) asked: bool,
}

impl Verify {
    pub(super) const fn new() -> Verify {
        Verify {
            start: Some(Sector(0)),
            stop: NO_STOP,
            position: Sector(0),
            left: 0,
            differs: SectorRange {
                start: Sector(0),
                len: Sectors(0),
            },
            next: None,
            quota: 0,
            begun: false,
            moved: false,
            size: Sectors(0),
            asked: false,
        }
    }

    pub(super) fn due(&self, conn: conn::State) -> Option<Instant> {
        self.next.filter(|_| conn == conn::State::VerifyS)
    }

    fn asks_no_more(&mut self) {
        self.next = None;
        self.quota = 0;
    }

    /// A block differs. Returns a range to be logged that it does not continue.
    fn found(&mut self, range: SectorRange) -> Option<SectorRange> {
        if self.differs.len.0 != 0 && self.differs.end() == range.start {
            self.differs.len.0 = self.differs.len.0.saturating_add(range.len.0);
            return None;
        }
        let before = self.told();
        self.differs = range;
        before
    }

    /// A range to be logged, if there is one.
    fn told(&mut self) -> Option<SectorRange> {
        let range = core::mem::take(&mut self.differs);
        (range.len.0 != 0).then_some(range)
    }
}

impl<S: Store> Resource<S> {
    /// Where a verify starts by default: where the last one ended.
    pub fn verify_start(&self, vol: VolIx) -> Sector {
        let start = self.rs(vol).and_then(|rs| rs.verify.start);
        start.unwrap_or(Sector(0))
    }

    /// `verify --start --stop`. A verify that runs goes on, and stops at the new sector.
    pub(crate) fn set_verify_range(&mut self, vol: VolIx, start: Sector, stop: Sector) {
        let runs = self.rs_conn(vol).is_verify();
        if let Some(rs) = self.rs_mut(vol) {
            rs.verify.stop = stop;
            rs.verify.moved = runs;
            if !runs {
                let aligned = start.0 & !(SECTORS_PER_BIT.saturating_sub(1));
                rs.verify.start = Some(Sector(aligned));
            }
        }
    }

    /// A verify starts on both sides; this one asks if `source`.
    pub(crate) fn verify_begins(&mut self, vol: VolIx, source: bool, h: &mut impl Host) {
        let now = h.now();
        let tells = self.connected(PEER).is_some_and(|a| a.apv >= TELLS_START);
        let conf = self.rate_conf(vol);
        let (_, events) = self.app_pressure(vol);
        let size = self.rs_vol(vol).map_or(Sectors(0), |v| v.size);
        let Some((rs, _)) = self.rs_disk_mut(vol) else {
            return;
        };
        let bits = size.bits();
        let last = bits.saturating_sub(1);
        let mut start = rs.verify.start.filter(|_| tells).unwrap_or(Sector(0));
        if start.bit().0 >= bits {
            start = BmBit(last).sector();
        }
        let v = &mut rs.verify;
        v.size = size;
        v.asked |= source;
        v.left = bits;
        v.position = Sector(0);
        v.start = (!tells).then_some(Sector(0));
        if source {
            v.left = bits.saturating_sub(start.bit().0);
            v.position = start;
            v.start = Some(start);
        }
        v.differs = SectorRange::default();
        v.begun = false;
        v.moved = false;
        v.quota = 0;
        v.next = source.then_some(now);
        let left = v.left;
        rs.marks.begin(now, left);
        rs.rate.reset(&conf, events);
        rs.finish.forget();
        if source {
            self.rs_log(vol, Note::VerifyBegins(start), h);
        }
    }

    /// A verify is over or given up: where it has got to is where the next one starts.
    pub(crate) fn verify_ends(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let v = &mut rs.verify;
        v.asks_no_more();
        let reached = BmBit(v.size.bits().saturating_sub(v.left)).sector();
        v.start = Some(reached);
        if v.left == 0 {
            v.start = Some(Sector(0));
        } else {
            self.rs_log(vol, Note::VerifyReached(reached), h);
        }
    }

    fn stops_at_sector(&self) -> bool {
        self.connected(PEER)
            .is_some_and(|a| knows_stop_sector(a.apv))
    }

    /// Asks for blocks if it is time; true if effects ran out of room.
    pub(super) fn verify_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let now = h.now();
        if self.rs_conn(vol) != conn::State::VerifyS {
            return false;
        }
        let conf = self.rate_conf(vol);
        let buffers = self.max_buffers(PEER);
        let Some(rs) = self.rs_mut(vol) else {
            return false;
        };
        if core::mem::take(&mut rs.verify.moved) && rs.finish == Finish::Idle {
            // The C driver waits for ever, if all was asked for and not all is compared.
            rs.verify.next.get_or_insert(now);
        }
        if rs.verify.next.is_some_and(|at| at <= now) {
            rs.verify.quota = rs.rate_step(&conf, buffers);
            rs.verify.next = Some(Rate::next(now));
        }
        while self.rs(vol).is_some_and(|rs| rs.verify.quota > 0) {
            if h.room() < UNIT {
                return true;
            }
            self.verify_next(vol, h);
        }
        false
    }

    /// Asks for the next block, or finds out why not.
    fn verify_next(&mut self, vol: VolIx, h: &mut impl Host) {
        let throttle = self.resync_throttled(vol, h.now());
        let stops = self.stops_at_sector();
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let v = &mut rs.verify;
        let capacity = v.size;
        let at = v.position;
        if at.0 >= capacity.0 || (v.begun && stops && at >= v.stop) {
            v.asks_no_more();
            if rs.pending == 0 {
                // The stop sector was moved before what is compared already: no verdict follows.
                self.verify_done(vol, h);
            }
            return;
        }
        let extent = at.rs_extent();
        let (bitmap, al) = (&disk.bitmap, &disk.al);
        let begin = disk.extents.try_begin_target(
            extent,
            throttle,
            || bitmap.count_in(extent),
            |al_extent| al.is_used(al_extent),
        );
        match begin {
            TargetBegin::Later | TargetBegin::Starving => {
                v.quota = 0;
                return;
            }
            TargetBegin::Locked => {}
        }
        let mut range = SectorRange::new(at, BYTES_PER_BIT);
        range.len.0 = range.len.0.min(capacity.0.saturating_sub(at.0));
        v.position = Sector(at.0.saturating_add(SECTORS_PER_BIT));
        v.quota = v.quota.saturating_sub(1);
        v.begun = true;
        rs.rate.asked(1);
        rs.pending = rs.pending.saturating_add(1);
        let packet = Packet::OvRequest(BlockReq {
            sector: range.start,
            block_id: BlockId::SYNCER,
            blksize: range.bytes(),
        });
        self.rs_send(vol, Sock::Data, packet, h);
    }

    /// VerifyT: the peer wants the digest of a block.
    pub(super) fn recv_verify_request(
        &mut self,
        vol: VolIx,
        req: BlockReq,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let tells = self.connected(PEER).is_some_and(|a| a.apv >= TELLS_START);
        let now = h.now();
        self.recv_resync_request(vol, req, Kind::Prove, h)?;
        let target = self.rs_conn(vol) == conn::State::VerifyT;
        let Some(rs) = self.rs_mut(vol) else {
            return Ok(());
        };
        if target && tells && rs.verify.start.is_none() {
            let bits = rs.verify.size.bits();
            let left = bits.saturating_sub(req.sector.bit().0);
            rs.verify.start = Some(req.sector);
            rs.verify.position = req.sector;
            rs.verify.left = left;
            rs.marks.begin(now, left);
            self.rs_log(vol, Note::VerifyStartSector(req.sector), h);
        }
        Ok(())
    }

    /// VerifyS: the digest of the peer's block has come.
    pub(super) fn recv_verify_reply(
        &mut self,
        vol: VolIx,
        reply: BlockReq,
        body: &[u8],
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let size = self.rs_vol(vol).map_or(Sectors(0), |v| v.size);
        let most = crate::limits::MAX_BIO_SIZE;
        let range = checked_range(reply.sector, reply.blksize, most, size);
        let range = range.ok_or(Violation::Range)?;
        let digest = digest_of(body)?;
        let extent = range.start.rs_extent();
        let able = self.rs_vol(vol).is_some_and(|v| {
            let backing = v.backing.as_ref();
            let locked =
                |b: &super::Backing<S>| b.extents.state(extent).is_some_and(|s| s.is_locked());
            v.state.disk == disk::State::UpToDate && backing.is_some_and(locked)
        });
        let resyncs = super::resyncs(self.rs_conn(vol));
        let rs = self.rs_mut(vol).ok_or(Violation::Unexpected)?;
        let holds = rs.pending != 0 && !resyncs;
        rs.pending = rs.pending.saturating_sub(u32::from(!resyncs));
        if !able {
            // It belongs to a verify that was given up; the peer waits for its extent. So do
            // applications here for the own one, unless that was let go with all others: in the C
            // driver until the connection ends.
            if let Some((_, disk)) = self.rs_disk_mut(vol).filter(|_| holds) {
                disk.extents.put(extent);
            }
            self.send_verdict(vol, range, OvVerdict::InSync, h);
            return Ok(());
        }
        rs.rate.answered(range.len.0);
        let ix = rs
            .claim(Stage::Reading, Kind::Judge, range, None)
            .ok_or(Violation::Flood)?;
        rs.tell(ix, digest);
        self.read_block(vol, ix, range, h);
        Ok(())
    }

    /// Reads a block for its content.
    pub(super) fn read_block(
        &mut self,
        vol: VolIx,
        ix: u16,
        range: SectorRange,
        h: &mut impl Host,
    ) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.rate.moved(range.len.0);
        }
        self.count_moved(vol, Moved::Read, range.len);
        h.emit(Effect::Local {
            vol,
            io: token::io(vol, token::Which::Slot(ix)),
            op: LocalOp::Read,
            range,
            flags: IoFlags::default(),
            data: Data::Fresh,
        });
    }

    /// VerifyS: a block was compared.
    pub(super) fn judged(&mut self, vol: VolIx, slot: Slot, equal: bool, h: &mut impl Host) {
        let verdict = if equal {
            OvVerdict::InSync
        } else {
            OvVerdict::OutOfSync
        };
        self.note_verdict(vol, slot.range, verdict, h);
        self.send_verdict(vol, slot.range, verdict, h);
        self.put_extent(vol, slot);
        let stops = self.stops_at_sector();
        let left = self.one_compared(vol, h);
        let stop = self.rs(vol).map_or(NO_STOP, |rs| rs.verify.stop);
        if left == Some(0) || (left.is_some() && stops && slot.range.end() >= stop) {
            self.verify_done(vol, h);
        }
    }

    /// A block that was being compared is of a verify that was given up, with its extent: the peer
    /// waits for a verdict all the same.
    pub(super) fn compared_in_vain(&mut self, vol: VolIx, slot: Slot, h: &mut impl Host) {
        if slot.kind == Kind::Judge {
            self.send_verdict(vol, slot.range, OvVerdict::InSync, h);
        }
    }

    fn send_verdict(
        &mut self,
        vol: VolIx,
        range: SectorRange,
        verdict: OvVerdict,
        h: &mut impl Host,
    ) {
        let packet = Packet::OvResult(OvResult {
            sector: range.start,
            verdict,
            blksize: range.bytes(),
            seq_num: self.next_seq(vol),
        });
        self.rs_send(vol, Sock::Meta, packet, h);
    }

    /// VerifyT: the peer has compared a block.
    pub(super) fn recv_verify_result(
        &mut self,
        vol: VolIx,
        result: OvResult,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(size) = self.device_size(vol) else {
            return Ok(());
        };
        let most = crate::units::saturate_u32(BITS_PER_RS_EXTENT.saturating_mul(4096));
        let range = checked_range(result.sector, result.blksize, most, size);
        let range = range.ok_or(Violation::Range)?;
        self.note_verdict(vol, range, result.verdict, h);
        if super::resyncs(self.rs_conn(vol)) {
            // The verify was given up, and its locks: those that there are are the resync's.
            return Ok(());
        }
        let (rs, disk) = self.rs_disk_mut(vol).ok_or(Violation::Unexpected)?;
        let Some(pending) = rs.pending.checked_sub(1) else {
            // It belongs to a verify that was given up.
            return Ok(());
        };
        rs.pending = pending;
        disk.extents.put(range.start.rs_extent());
        if self.one_compared(vol, h) == Some(0) {
            self.verify_done(vol, h);
        }
        Ok(())
    }

    /// Marks a block that differs; the log gets ranges, not blocks.
    fn note_verdict(
        &mut self,
        vol: VolIx,
        range: SectorRange,
        verdict: OvVerdict,
        h: &mut impl Host,
    ) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let ended = match verdict {
            OvVerdict::OutOfSync => rs.verify.found(range),
            OvVerdict::InSync => rs.verify.told(),
        };
        self.log_difference(vol, ended, h);
        if verdict == OvVerdict::OutOfSync {
            self.set_out_of_sync(vol, range, h);
        }
    }

    fn log_difference(&mut self, vol: VolIx, range: Option<SectorRange>, h: &mut impl Host) {
        if let Some(SectorRange { start, len }) = range {
            self.rs_log(vol, Note::OutOfSync { start, len }, h);
        }
    }

    /// Counts a block; how many are left, `None` if there is no verify.
    fn one_compared(&mut self, vol: VolIx, h: &mut impl Host) -> Option<u64> {
        if !self.rs_conn(vol).is_verify() {
            return None;
        }
        let now = h.now();
        let rs = self.rs_mut(vol)?;
        rs.verify.left = rs.verify.left.saturating_sub(1);
        let left = rs.verify.left;
        if left & MARK_BIT != 0 {
            rs.marks.advance(now, left);
        }
        Some(left)
    }

    /// The verify is done, here or as the peer's STATE says.
    pub(crate) fn verify_done(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        rs.verify.asks_no_more();
        let ended = rs.verify.told();
        rs.finish.begin(h.now());
        self.log_difference(vol, ended, h);
    }

    /// Nothing of the verify is under way any more.
    pub(super) fn conclude_verify(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        let differing = self.out_of_sync(vol);
        let Some(rs) = self.rs_mut(vol) else { return };
        let compared = rs.marks.total.saturating_sub(rs.verify.left);
        let (ran, paused) = rs.marks.took(now);
        let speed = compared.checked_div(ran).unwrap_or(0).saturating_mul(4);
        let done = Note::VerifyDone {
            total: ran.saturating_add(paused),
            paused,
            speed,
        };
        self.rs_log(vol, done, h);
        if differing != 0 {
            self.rs_log(vol, Note::VerifyFound(differing), h);
        }
        let change = StateChange::NONE.conn(conn::State::Connected);
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        if !code.is_success() {
            self.retry_finish(vol, h);
            return;
        }
        self.md_sync(vol, super::super::After::Nothing, h);
        if differing != 0 {
            self.tell_helper(HelperCommand::OutOfSync, Some(vol), h);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_logged_as_one_range() {
        let block = |n: u64| SectorRange::new(BmBit(n).sector(), BYTES_PER_BIT);
        let mut v = Verify::new();
        assert_eq!(v.told(), None);
        assert_eq!(v.found(block(3)), None);
        assert_eq!(v.found(block(4)), None);
        let both = SectorRange {
            start: Sector(24),
            len: Sectors(16),
        };
        assert_eq!(v.found(block(9)), Some(both));
        assert_eq!(v.told(), Some(block(9)));
        assert_eq!(v.told(), None);
    }
}
