// SPDX-License-Identifier: GPL-2.0

//! What becomes known about blocks: in sync, out of sync, beyond repair. algorithms.md §3.3.
//!
//! The rounding is done by [`ResyncExtents::record`](crate::resync_extents::ResyncExtents::record):
//! doubt makes more blocks out of sync, never fewer. Clearing bits makes the bitmap on disk stale
//! towards the safe side; it is written now and then, no more often than every 2 s.

use crate::resync_extents::Mark;
use crate::state::conn;
use crate::time::{Duration, Instant};
use crate::units::{SectorRange, Sectors};
use crate::wire::BlockDesc;

use super::super::io::{Host, VolIx};
use super::super::request::Pages;
use super::super::{After, Resource, Store, Violation};
use super::{checked_range, resyncs, Next};

/// Least time between two writes of the bitmap on account of cleared bits.
const LAZY_INTERVAL: Duration = Duration::secs(2);

/// The write of the bitmap on account of cleared bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lazy {
    /// Not due.
    No,
    /// Due, as soon as the last one is long enough ago.
    Due,
    /// Under way.
    Writing,
}

impl<S: Store> Resource<S> {
    /// The range differs from the peer's, or may. Returns how many bits became set.
    pub(crate) fn set_out_of_sync(
        &mut self,
        vol: VolIx,
        range: SectorRange,
        _h: &mut impl Host,
    ) -> u64 {
        let Some((_, disk)) = self.rs_disk_mut(vol) else {
            return 0;
        };
        let marked = disk
            .extents
            .record(&mut disk.bitmap, range, Mark::OutOfSync);
        marked.bits
    }

    /// The range is the same on both sides. Without effect while a bitmap is being received, and
    /// while one side is ahead of the other: it may have written the range again since.
    pub(crate) fn set_in_sync(&mut self, vol: VolIx, range: SectorRange, h: &mut impl Host) {
        let apart = matches!(self.rs_conn(vol), conn::State::Ahead | conn::State::Behind);
        if apart || self.bitmap_receiving(vol) {
            return;
        }
        let now = h.now();
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let marked = disk.extents.record(&mut disk.bitmap, range, Mark::InSync);
        if marked.bits == 0 {
            return;
        }
        let left = disk.bitmap.weight();
        let finished = left <= rs.marks.failed;
        rs.marks.advance(now, left);
        if (marked.finished_extents > 0 || finished) && rs.lazy == Lazy::No {
            rs.lazy = Lazy::Due;
        }
    }

    /// The resync could not mend the range: it stays out of sync.
    pub(super) fn set_failed(&mut self, vol: VolIx, range: SectorRange) {
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let marked = disk.extents.record(&mut disk.bitmap, range, Mark::Failed);
        rs.marks.failed = rs.marks.failed.saturating_add(marked.bits);
    }

    /// The peer wrote a range without sending it here (P_OUT_OF_SYNC).
    ///
    /// # Errors
    /// [`Violation::Range`] for a range that is no range of this device.
    pub(crate) fn recv_out_of_sync(
        &mut self,
        vol: VolIx,
        packet: BlockDesc,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(size) = self.device_size(vol) else {
            return Ok(());
        };
        let most = crate::limits::MAX_BATCH_BIO_SIZE;
        let range = checked_range(packet.sector, packet.blksize, most, size);
        let range = range.ok_or(Violation::Range)?;
        self.set_out_of_sync(vol, range, h);
        Ok(())
    }

    /// The size that positions in packets must lie in; `None` without a disk.
    pub(super) fn device_size(&self, vol: VolIx) -> Option<Sectors> {
        Some(self.rs_vol(vol)?.backing.as_ref()?.bitmap.capacity())
    }

    /// Writes the bitmap if that is due.
    pub(super) fn lazy_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        let conn = self.rs_conn(vol);
        let Some(rs) = self.rs_mut(vol) else { return };
        if rs.lazy != Lazy::Due || now < rs.lazy_at.plus(LAZY_INTERVAL) {
            return;
        }
        if !resyncs(conn) {
            rs.lazy = Lazy::No;
            return;
        }
        rs.lazy = Lazy::Writing;
        let after = After::Resync(Next::LazyWritten(vol));
        self.write_bitmap(vol, Pages::Changed, after, h);
    }

    /// When the bitmap may be written next, if that is due.
    pub(super) fn lazy_due(&self, vol: VolIx) -> Option<Instant> {
        let rs = self.rs(vol)?;
        (rs.lazy == Lazy::Due).then(|| rs.lazy_at.plus(LAZY_INTERVAL))
    }
}
