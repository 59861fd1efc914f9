// SPDX-License-Identifier: GPL-2.0

//! The side with the good data: answers requests for blocks.
//!
//! Each request waits for its extent, in the order of arrival; meanwhile the receiver waits too, as
//! much of the start and the end of a resync relies on that order. The data are read only while no
//! application write is in flight in the extent, and the reply is queued before the extent is given
//! back: a newer write follows it on the same socket.

use crate::resync_extents::{SourceBegin, SourceClaim};
use crate::state::{conn, disk, Role};
use crate::time::Instant;
use crate::units::{SectorRange, Sectors, BITS_PER_RS_EXTENT};
use crate::wire::header::most_data;
use crate::wire::{BlockAck, BlockReq, Packet};

use super::super::io::{AppResult, BufId, Effect, Host, VolIx};
use super::super::{Resource, Store, Violation, PEER};
use super::examine::digest_of;
use super::rate::STEP;
use super::{checked_range, resyncs, Kind, Slot, Stage, UNIT};

/// What this side remembers between requests.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Source {
    claim: SourceClaim,
    /// The request at the head has been delayed once on account of applications.
    delayed: bool,
    /// No request goes on before.
    pub(super) not_before: Option<Instant>,
    /// Last block asked for.
    pub(super) at: u64,
}

impl Source {
    pub(super) const fn new() -> Source {
        Source {
            claim: SourceClaim::Idle,
            delayed: false,
            not_before: None,
            at: 0,
        }
    }

    /// All extents are given up.
    pub(super) fn forget(&mut self) {
        *self = Source {
            at: self.at,
            ..Source::new()
        };
    }
}

impl<S: Store> Resource<S> {
    /// A request of the target (RS_DATA_REQUEST, RS_THIN_REQ), or of the other side of a verify.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(super) fn recv_resync_request(
        &mut self,
        vol: VolIx,
        req: BlockReq,
        kind: Kind,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        self.queue_request(vol, req, kind, h).map(|_| ())
    }

    /// A request of the target that brings the digest of its own block (CSUM_RS_REQUEST).
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(super) fn recv_csum_request(
        &mut self,
        vol: VolIx,
        req: BlockReq,
        body: &[u8],
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let digest = digest_of(body)?;
        let queued = self.queue_request(vol, req, Kind::Compare, h)?;
        if let (Some(ix), Some(rs)) = (queued, self.rs_mut(vol)) {
            rs.tell(ix, digest);
            rs.compares = true;
        }
        Ok(())
    }

    /// Puts a request behind the others; `None`: it was refused.
    fn queue_request(
        &mut self,
        vol: VolIx,
        req: BlockReq,
        kind: Kind,
        h: &mut impl Host,
    ) -> Result<Option<u16>, Violation> {
        let size = self.rs_vol(vol).map_or(Sectors(0), |v| v.size);
        let most = self.connected(PEER).map_or(0, |a| most_data(a.apv));
        let range = checked_range(req.sector, req.blksize, most, size);
        let range = range.ok_or(Violation::Range)?;
        let (first, last) = range.rs_extents();
        if first != last {
            return Err(Violation::Range);
        }
        if !self.can_read(vol) {
            self.send_block_ack(vol, Packet::NegRsDreply, range, h);
            return Ok(None);
        }
        if self.peer_gave_up_disk(vol) {
            // It was sent before the order to detach, to which this node has agreed since: as with
            // those that were here by then (`drop_requests`), nobody waits for an answer.
            return Ok(None);
        }
        let rs = self.rs_mut(vol).ok_or(Violation::Unexpected)?;
        if kind != Kind::Prove {
            let bit = range.start.bit().0;
            // The target begins anew with what has failed there (`rewind`), and so does the count
            // of that: where each node counts for itself when it is done (before protocol 96), this
            // one would be done with the first of those blocks.
            if bit < rs.source.at && rs.slots.iter().all(|s| s.stage == Stage::Free) {
                rs.marks.failed = 0;
            }
            rs.source.at = bit;
        }
        rs.claim(Stage::Waiting, kind, range, None)
            .map(Some)
            .ok_or(Violation::Flood)
    }

    /// Whether the resync has ended with the peer's disk, that of the target.
    pub(super) fn peer_gave_up_disk(&self, vol: VolIx) -> bool {
        self.rs_vol(vol).is_some_and(|v| {
            v.state.conn == conn::State::Connected && v.state.pdsk < disk::State::Inconsistent
        })
    }

    fn can_read(&self, vol: VolIx) -> bool {
        self.rs_vol(vol)
            .is_some_and(|v| v.backing.is_some() && v.state.disk == disk::State::UpToDate)
    }

    /// Lets requests go on whose extent is free; true if effects ran out of room.
    pub(super) fn source_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some((ix, slot)) = self.rs(vol).and_then(|rs| rs.oldest(Stage::Waiting)) else {
                return false;
            };
            if h.room() < UNIT {
                return true;
            }
            if !self.can_read(vol) {
                self.forget_claim(vol, slot);
                self.send_block_ack(vol, Packet::NegRsDreply, slot.range, h);
                if let Some(rs) = self.rs_mut(vol) {
                    rs.release(ix);
                }
                continue;
            }
            if !self.lock_for_read(vol, slot, h.now()) {
                return false;
            }
            let Some(rs) = self.rs_mut(vol) else {
                return false;
            };
            if let Some(slot) = rs.slot_mut(ix) {
                slot.stage = Stage::Reading;
            }
            self.read_block(vol, ix, slot.range, h);
        }
    }

    /// Tries to lock the extent of the request at the head.
    fn lock_for_read(&mut self, vol: VolIx, slot: Slot, now: Instant) -> bool {
        let Some(rs) = self.rs(vol) else { return false };
        if rs.source.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let extent = slot.range.start.rs_extent();
        let fresh = rs.source.claim == SourceClaim::Idle;
        let delayed = rs.source.delayed;
        let throttle = fresh && self.resync_throttled(vol, now);
        // A Primary peer's own reads would be delayed as well.
        let peer = self.rs_vol(vol).map_or(Role::Unknown, |v| v.state.peer);
        let both = slot.kind == Kind::Prove;
        let written = self.is_written(vol, slot.range, both);
        // Written before it is read; the end of the write wakes the machine. The C driver's source
        // reads at once.
        let busy = self.writes_for_peer(vol, slot.range);
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return false;
        };
        rs.source.not_before = None;
        if busy {
            return false;
        }
        if throttle && !delayed && peer != Role::Primary && !disk.extents.is_priority(extent) {
            rs.source.delayed = true;
            rs.source.not_before = Some(now.plus(STEP));
            return false;
        }
        let (bitmap, al) = (&disk.bitmap, &disk.al);
        let begin = disk.extents.try_begin_source(
            &mut rs.source.claim,
            extent,
            || bitmap.count_in(extent),
            || throttle,
            |al_extent| written.unwrap_or_else(|| al.is_busy(al_extent)),
        );
        match begin {
            SourceBegin::Locked if written == Some(true) => {
                // For the sake of another block in it.
                disk.extents.put(extent);
                false
            }
            SourceBegin::Locked => {
                rs.source.delayed = false;
                true
            }
            SourceBegin::Wait => false,
            SourceBegin::StepAside => {
                rs.source.not_before = Some(now.plus(STEP));
                false
            }
        }
    }

    /// Whether the resync is to step aside for applications: algorithms.md §5.3.
    pub(super) fn resync_throttled(&mut self, vol: VolIx, now: Instant) -> bool {
        let conf = self.rate_conf(vol);
        let (waiting, events) = self.app_pressure(vol);
        let verifies = self.rs_conn(vol).is_verify();
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return false;
        };
        let mark = rs.marks.mark(1);
        let left = if verifies {
            rs.verify.left
        } else {
            disk.bitmap.weight().saturating_sub(rs.marks.failed)
        };
        let done = mark.left.saturating_sub(left);
        rs.rate
            .throttled(&conf, waiting, events, done, now.since(mark.at))
    }

    /// Whether blocks of this range are being read for the peer, and the answer is not queued: an
    /// application's write waits for that. It would be in front of the answer, which has the older
    /// data, or none of them. With a single Primary the extent is not locked as long as a write has
    /// its place in the activity log; with two that counts no more (see `is_written`), and one that
    /// waited for a transaction, or for the peer's writes, begins after the read. Only the own disk
    /// is waited for. The C driver looks at the log alone, and may hang.
    pub(crate) fn is_read_for_peer(&self, vol: VolIx, range: SectorRange) -> bool {
        self.rs(vol).is_some_and(|rs| {
            rs.slots.iter().any(|s| match s.stage {
                Stage::Reading | Stage::Examining => {
                    s.current && !s.void && s.range.overlaps(range)
                }
                Stage::Free
                | Stage::Waiting
                | Stage::Examined { .. }
                | Stage::Sending
                | Stage::Writing
                | Stage::Written
                | Stage::Flushing
                | Stage::Durable
                | Stage::Lost
                | Stage::Dropped => false,
            })
        })
    }

    /// Gives up what the request at the head holds of its extent.
    fn forget_claim(&mut self, vol: VolIx, slot: Slot) {
        if let Some((rs, disk)) = self.rs_disk_mut(vol) {
            let extent = slot.range.start.rs_extent();
            disk.extents.abandon_source(&mut rs.source.claim, extent);
        }
        if let Some(rs) = self.rs_mut(vol) {
            rs.source.forget();
        }
    }

    /// A read for the peer, or for what the peer is to be asked, is over.
    pub(super) fn read_done(
        &mut self,
        vol: VolIx,
        ix: u16,
        slot: Slot,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        if !slot.current {
            if let Some(buf) = buf {
                h.emit(Effect::Free(buf));
            }
            if let Some(rs) = self.rs_mut(vol) {
                rs.release(ix);
            }
            self.compared_in_vain(vol, slot, h);
            return;
        }
        match buf.filter(|_| result.is_ok()) {
            Some(buf) => self.block_read(vol, ix, slot, Some(buf), h),
            None => self.block_unreadable(vol, ix, slot, h),
        }
    }

    pub(super) fn put_extent(&mut self, vol: VolIx, slot: Slot) {
        if slot.void {
            // The lock that there may be is another request's.
            return;
        }
        if let Some((_, disk)) = self.rs_disk_mut(vol) {
            disk.extents.put(slot.range.start.rs_extent());
        }
    }

    /// TCP has taken a reply.
    pub(super) fn reply_sent(&mut self, vol: VolIx, ix: u16, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let Some(slot) = rs.slot_mut(ix).filter(|s| s.stage == Stage::Sending) else {
            return;
        };
        let buf = slot.buf.take();
        rs.release(ix);
        if let Some(buf) = buf {
            h.emit(Effect::Free(buf));
        }
    }

    /// The target has written a block of the resync.
    pub(super) fn recv_resync_ack(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        written: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(size) = self.device_size(vol) else {
            return Ok(());
        };
        // A peer may acknowledge no more than fits into an extent.
        let most = crate::units::saturate_u32(BITS_PER_RS_EXTENT.saturating_mul(4096));
        let range = checked_range(ack.sector, ack.blksize, most, size).ok_or(Violation::Range)?;
        let rs = self.rs_mut(vol).ok_or(Violation::Unexpected)?;
        let Some(pending) = rs.pending.checked_sub(1) else {
            // It belongs to a resync that was given up, perhaps onto another disk.
            return Ok(());
        };
        rs.pending = pending;
        let doubted = rs.doubted != 0;
        rs.doubted = rs.doubted.saturating_sub(1);
        if !resyncs(self.rs_conn(vol)) {
            // It was aborted: this node may have written there since, for itself alone.
            return Ok(());
        }
        if written && !doubted {
            self.set_in_sync(vol, range, h);
        } else if !written {
            self.set_failed(vol, range);
        }
        Ok(())
    }

    /// The target has refused a write. If its disk has failed, what that still works on may come to
    /// a good end, and the word of that arrive behind the refusal: a block of the resync without
    /// what was to be written there next. It is marked by now, and stays so. The C driver forgets
    /// the mark.
    pub(crate) fn resync_doubted(&mut self, vol: VolIx) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.doubted = rs.pending;
        }
    }
}
