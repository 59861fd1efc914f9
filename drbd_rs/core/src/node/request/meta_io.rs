// SPDX-License-Identifier: GPL-2.0

//! Superblock, activity log blocks and bitmap pages on their way to and from the disk.
//!
//! ```text
//!  superblock:  dirty ─5 s or md_sync─▶ one write in flight, one more if asked meanwhile
//!  transaction: see transaction.rs
//!  bitmap jobs: one after the other, at most 16 pages in flight
//! ```
//!
//! Invariants:
//! - The block of a transaction is written only when every changed page of an evicted extent was
//!   written; so that "changed" is the truth, a job has no page in flight meanwhile.
//! - Whoever waits is told exactly once, also when the disk goes.

use super::meta_move::Hold;
use super::token::Name;
use super::UNIT;

use super::super::control::IoErrorKind;
use super::super::io::{AppResult, Effect, Host, IoFlags, IoToken, MetaOp, VolIx};
use super::super::{After, Resource, Store};
use crate::al::Tx;
use crate::bitmap::PageFlags;
use crate::state::meta_flags;
use crate::time::{Duration, Instant};
use crate::units::{saturate_u32, Sector};

/// Those who may wait for one superblock write.
const WAITERS: usize = 16;
/// Bitmap jobs that may wait.
const JOBS: usize = 16;
/// Bitmap pages in flight at once.
pub(super) const IN_FLIGHT: u32 = 16;
/// How long a changed superblock may wait; as the C driver.
const DIRTY: Duration = Duration::secs(5);

/// Which pages of the bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pages {
    /// All.
    All,
    /// Those that differ from the disk.
    Changed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum JobKind {
    Read,
    Write(Pages),
}

/// A pass over the bitmap.
#[derive(Clone, Copy, Debug, Hash)]
struct Job {
    kind: JobKind,
    after: After,
    /// Pages before this one are done or in flight.
    cursor: u64,
    in_flight: u32,
    failed: bool,
}

/// How far the activity log transaction is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Transaction {
    None,
    /// What was written in extents that leave the log is being flushed.
    Flushing,
    /// Pages of evicted extents are being written.
    Pages {
        /// Extents before this one were looked at.
        next: usize,
        in_flight: u32,
        failed: bool,
    },
    /// The block is being written.
    Block,
}

impl Transaction {
    /// Its beginning, or its end if what came before has failed.
    pub(super) const fn pages(failed: bool) -> Transaction {
        Transaction::Pages {
            next: 0,
            in_flight: 0,
            failed,
        }
    }
}

/// Metadata I/O of one attached disk.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct MetaIo {
    /// Tells this disk's activity log from those of earlier disks; 0: not yet named.
    pub(super) instance: u32,
    /// When one was submitted while none was in flight, or the last one ended.
    pub(super) moved_at: Instant,
    /// I/O that the device works on.
    pub(super) on_disk: u32,
    /// When the superblock has to be written.
    due: Option<Instant>,
    pub(super) superblock_in_flight: bool,
    /// It says on the disk that the activity log counts.
    pub(crate) log_counts: bool,
    /// The one in flight does.
    pub(crate) log_counts_in_flight: bool,
    /// It changed since the write in flight began.
    superblock_again: bool,
    /// UUIDs that this node made up are not in it, not even on their way.
    begun: bool,
    /// The write in flight has some.
    begun_in_flight: bool,
    waiters: [After; WAITERS],
    next_waiters: [After; WAITERS],
    /// Waits for a flush of the data.
    pub(super) flushed: After,
    /// That one waits for another flush behind the one that is under way.
    pub(super) flush_again: bool,
    pub(super) transaction: Transaction,
    /// What it is about, while there is one.
    pub(super) tx: Tx,
    /// Whether the metadata are about to move.
    pub(super) hold: Hold,
    job: Option<Job>,
    jobs: [Option<(JobKind, After)>; JOBS],
}

crate::key::key! {
    MetaIo {
        on_disk, due, superblock_in_flight, log_counts, log_counts_in_flight, superblock_again,
        begun, begun_in_flight, waiters, next_waiters, flushed, flush_again, transaction, tx, hold,
        job, jobs
    }
    names { instance: LOG }
    not { moved_at }
}

impl MetaIo {
    /// Nothing in flight.
    pub(crate) const fn new() -> MetaIo {
        MetaIo {
            instance: 0,
            moved_at: Instant(0),
            on_disk: 0,
            due: None,
            superblock_in_flight: false,
            log_counts: false,
            log_counts_in_flight: false,
            superblock_again: false,
            begun: false,
            begun_in_flight: false,
            waiters: [After::Nothing; WAITERS],
            next_waiters: [After::Nothing; WAITERS],
            flushed: After::Nothing,
            flush_again: false,
            transaction: Transaction::None,
            tx: Tx::new(),
            hold: Hold::None,
            job: None,
            jobs: [None; JOBS],
        }
    }

    /// I/O in flight.
    pub(super) fn in_flight(&self) -> u32 {
        let tx = match self.transaction {
            // A flush counts among the I/O of the data.
            Transaction::None | Transaction::Flushing => 0,
            Transaction::Pages { in_flight, .. } => in_flight.saturating_add(1),
            Transaction::Block => 1,
        };
        let job = self.job.map_or(0, |j| j.in_flight);
        u32::from(self.superblock_in_flight)
            .saturating_add(tx)
            .saturating_add(job)
    }

    /// Whether a job has a page of the bitmap in flight.
    pub(super) fn writes_pages(&self) -> bool {
        self.job.is_some_and(|j| j.in_flight != 0)
    }

    /// Whether a transaction is being written.
    pub(super) const fn is_writing_log(&self) -> bool {
        !matches!(self.transaction, Transaction::None)
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes one who waits for anything.
    pub(super) fn take_any(&mut self) -> Option<After> {
        if let Some(after) = self.hold.take() {
            return Some(after);
        }
        if let Some(job) = self.job.take() {
            return Some(job.after);
        }
        if let Some(job) = self.jobs.iter_mut().find_map(Option::take) {
            return Some(job.1);
        }
        if self.flushed != After::Nothing {
            return Some(core::mem::replace(&mut self.flushed, After::Nothing));
        }
        take(&mut self.waiters).or_else(|| take(&mut self.next_waiters))
    }

    /// Nobody waits with `after` for the superblock any more.
    pub(super) fn forget(&mut self, after: After) {
        let all = self.waiters.iter_mut().chain(&mut self.next_waiters);
        for waiter in all.filter(|w| **w == after) {
            *waiter = After::Nothing;
        }
    }
}

fn take(waiters: &mut [After; WAITERS]) -> Option<After> {
    let slot = waiters.iter_mut().find(|w| **w != After::Nothing)?;
    Some(core::mem::replace(slot, After::Nothing))
}

fn put(waiters: &mut [After; WAITERS], after: After) -> bool {
    match waiters.iter_mut().find(|w| **w == After::Nothing) {
        Some(free) => {
            *free = after;
            true
        }
        None => after == After::Nothing,
    }
}

impl<S: Store> Resource<S> {
    /// Gives the activity log of the attached disk a name among those of the volume.
    pub(super) fn name_log(&mut self, vol: VolIx) {
        let Some(v) = self.io_vol_mut(vol) else {
            return;
        };
        let Some(b) = v.backing.as_mut() else { return };
        if b.meta_io.instance == 0 {
            v.io.logs = v.io.logs.wrapping_add(1).max(1);
            b.meta_io.instance = v.io.logs;
        }
    }

    pub(super) fn meta(&mut self, vol: VolIx) -> Option<&mut MetaIo> {
        let v = self.io_vol_mut(vol).filter(|v| !v.ctl.dropped)?;
        v.backing.as_mut().map(|b| &mut b.meta_io)
    }

    /// The superblock changed: it is written within five seconds.
    pub(crate) fn md_dirty(&mut self, vol: VolIx, h: &mut impl Host) {
        let due = h.now().plus(DIRTY);
        if let Some(m) = self.meta(vol) {
            m.due.get_or_insert(due);
        }
    }

    /// Whether the superblock waits to be written.
    pub(crate) fn md_is_dirty(&self, vol: VolIx) -> bool {
        self.io_vol(vol)
            .and_then(|v| v.backing.as_ref())
            .is_some_and(|b| b.meta_io.due.is_some())
    }

    /// This node has made up a UUID.
    pub(crate) fn md_begun(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(m) = self.meta(vol) {
            m.begun = true;
        }
        self.md_dirty(vol, h);
    }

    /// Whether a UUID that this node made up is not stable: nobody may hear of it.
    pub(crate) fn md_begins(&self, vol: VolIx) -> bool {
        self.io_vol(vol)
            .filter(|v| !v.ctl.dropped)
            .and_then(|v| v.backing.as_ref())
            .is_some_and(|b| b.meta_io.begun || b.meta_io.begun_in_flight)
    }

    /// Writes the superblock as it is now; then runs `after`, with `ok` if it is stable.
    pub(crate) fn md_sync(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        let Some(m) = self.meta(vol) else {
            self.run_soon(after, false, h);
            return;
        };
        // What is due is written now, or right behind the write in flight.
        m.due = None;
        let stored = if m.superblock_in_flight {
            m.superblock_again = true;
            put(&mut m.next_waiters, after)
        } else {
            put(&mut m.waiters, after)
        };
        if !stored {
            self.run_soon(after, false, h);
        }
        self.write_superblock(vol, h);
    }

    /// Runs `after` as soon as the superblock is stable as it is now, with `ok` if it is.
    pub(crate) fn md_stable(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        let m = self.meta(vol);
        let clean = m.filter(|m| m.due.is_none() && !m.superblock_again);
        let stored = match clean {
            Some(m) if m.superblock_in_flight => put(&mut m.waiters, after),
            Some(_) => {
                self.run_soon(after, true, h);
                true
            }
            None => {
                self.md_sync(vol, after, h);
                true
            }
        };
        if !stored {
            self.run_soon(after, false, h);
        }
    }

    fn write_superblock(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        if b.meta_io.superblock_in_flight {
            return;
        }
        b.meta_io.superblock_in_flight = true;
        b.meta_io.superblock_again = false;
        b.meta_io.begun_in_flight = core::mem::take(&mut b.meta_io.begun);
        b.meta_io.due = None;
        b.meta_io.log_counts_in_flight = b.disk.flags & meta_flags::PRIMARY_IND != 0;
        let sector = b.disk.layout.superblock;
        let flags = durable(b.disk.conf.md_flushes);
        self.emit_meta(
            vol,
            Name::Superblock(vol),
            MetaOp::WriteSuperblock,
            sector,
            4096,
            flags,
            h,
        );
    }

    fn superblock_written(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        if !ok {
            self.io_error(vol, IoErrorKind::Meta, h);
        }
        while let Some(after) = self.meta(vol).and_then(|m| take(&mut m.waiters)) {
            self.run_soon(after, ok, h);
        }
        let Some(m) = self.meta(vol) else { return };
        m.superblock_in_flight = false;
        m.begun_in_flight = false;
        m.log_counts |= ok && m.log_counts_in_flight;
        core::mem::swap(&mut m.waiters, &mut m.next_waiters);
        if m.superblock_again {
            self.write_superblock(vol, h);
        }
        self.hold_pump(vol, h);
    }

    /// Writes pages of the bitmap; then runs `after`, with `ok` if all went well. Pages that change
    /// meanwhile may be written before or after the change and stay marked.
    pub(crate) fn write_bitmap(
        &mut self,
        vol: VolIx,
        pages: Pages,
        after: After,
        h: &mut impl Host,
    ) {
        self.add_job(vol, JobKind::Write(pages), after, h);
    }

    /// Reads the whole bitmap; then runs `after`, with `ok` if all went well.
    pub(crate) fn read_bitmap(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        self.add_job(vol, JobKind::Read, after, h);
    }

    fn add_job(&mut self, vol: VolIx, kind: JobKind, after: After, h: &mut impl Host) {
        let free = self
            .meta(vol)
            .and_then(|m| m.jobs.iter_mut().find(|j| j.is_none()));
        match free {
            Some(free) => *free = Some((kind, after)),
            None => {
                self.run_soon(after, false, h);
                return;
            }
        }
        self.job_pump(vol, h);
    }

    /// Moves metadata I/O on; true if room ran out.
    #[inline(never)]
    pub(super) fn meta_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let now = h.now();
        let Some(v) = self.io_vol_mut(vol) else {
            return false;
        };
        let dropped = v.ctl.dropped;
        let Some(b) = v.backing.as_mut() else {
            return false;
        };
        if dropped {
            while let Some(after) = self.io_backing(vol).and_then(|b| b.meta_io.take_any()) {
                self.run_soon(after, false, h);
            }
            return false;
        }
        if b.meta_io.due.is_some_and(|due| due <= now) {
            self.md_sync(vol, After::Nothing, h);
        }
        self.hold_pump(vol, h) || self.job_pump(vol, h) || self.transaction_pump(vol, h)
    }

    /// Moves the bitmap job on; true if room ran out.
    #[inline(never)]
    pub(super) fn job_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some(b) = self.io_backing(vol) else {
                return false;
            };
            // See the invariant: the transaction has the pages to itself.
            if matches!(b.meta_io.transaction, Transaction::Pages { .. })
                || b.meta_io.hold != Hold::None
            {
                return false;
            }
            let Some(mut job) = b.meta_io.job else {
                let Some((kind, after)) = next_job(&mut b.meta_io.jobs) else {
                    return false;
                };
                if kind == JobKind::Write(Pages::All) {
                    b.bitmap.mark_all_changed();
                }
                b.meta_io.job = Some(Job {
                    kind,
                    after,
                    cursor: 0,
                    in_flight: 0,
                    failed: false,
                });
                continue;
            };
            let page = match job.kind {
                JobKind::Read => Some(job.cursor).filter(|p| *p < b.bitmap.page_count()),
                JobKind::Write(_) => next_changed(&b.bitmap, job.cursor),
            };
            let Some(page) = page.filter(|_| !job.failed) else {
                if job.in_flight != 0 {
                    return false;
                }
                if job.kind == JobKind::Read {
                    b.bitmap.recount();
                }
                b.meta_io.job = None;
                self.run_soon(job.after, !job.failed, h);
                continue;
            };
            if job.in_flight >= IN_FLIGHT {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            job.cursor = page.saturating_add(1);
            job.in_flight = job.in_flight.saturating_add(1);
            b.meta_io.job = Some(job);
            let read = job.kind == JobKind::Read;
            self.page_io(
                vol,
                page,
                Name::BitmapPage(vol, saturate_u32(page)),
                read,
                h,
            );
        }
    }

    pub(super) fn page_io(
        &mut self,
        vol: VolIx,
        page: u64,
        name: Name,
        read: bool,
        h: &mut impl Host,
    ) {
        let Some(v) = self.io_vol_mut(vol) else {
            return;
        };
        let Some(b) = v.backing.as_mut() else { return };
        if !read {
            b.bitmap.take_changed(page);
            v.io.counts.bitmap_writes = v.io.counts.bitmap_writes.wrapping_add(1);
        }
        let sector = b.disk.layout.bitmap_page(page);
        let area = b.disk.layout.bitmap_sectors().0;
        let left = area.saturating_sub(page.saturating_mul(8)).clamp(1, 8);
        let bytes = saturate_u32(left.saturating_mul(512));
        let page = saturate_u32(page);
        let op = if read {
            MetaOp::ReadBitmap { page }
        } else {
            MetaOp::WriteBitmap { page }
        };
        self.emit_meta(vol, name, op, sector, bytes, IoFlags::default(), h);
    }

    fn job_page_done(
        &mut self,
        vol: VolIx,
        page: u32,
        data: Option<&[u8; 4096]>,
        ok: bool,
        h: &mut impl Host,
    ) {
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        let Some(job) = b.meta_io.job.as_mut() else {
            return;
        };
        job.in_flight = job.in_flight.saturating_sub(1);
        let good = match (job.kind, data) {
            (JobKind::Read, Some(data)) if ok => b.bitmap.load_page(u64::from(page), data),
            (JobKind::Read, _) => false,
            (JobKind::Write(_), _) => ok,
        };
        if !good {
            job.failed = true;
            if job.kind != JobKind::Read {
                b.bitmap.mark_changed(u64::from(page));
            }
            self.io_error(vol, IoErrorKind::Meta, h);
        }
        self.job_pump(vol, h);
        self.transaction_pump(vol, h);
        self.hold_pump(vol, h);
    }

    /// A metadata I/O is over.
    pub(crate) fn meta_done(
        &mut self,
        io: IoToken,
        page: Option<&[u8; 4096]>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        let ok = result.is_ok();
        let name = Name::unpack(io.0);
        if let Some(
            Name::Superblock(vol)
            | Name::OldSuperblock(vol)
            | Name::AlBlock(vol)
            | Name::AlPage(vol, _)
            | Name::BitmapPage(vol, _),
        ) = name
        {
            self.meta_moved(vol, h);
        }
        match name {
            Some(Name::Superblock(vol)) => self.superblock_written(vol, ok, h),
            Some(Name::OldSuperblock(vol)) => self.superblock_erased(vol, ok, h),
            Some(Name::AlBlock(vol)) => self.al_block_done(vol, ok, h),
            Some(Name::AlPage(vol, n)) => self.al_page_done(vol, n, ok, h),
            Some(Name::BitmapPage(vol, n)) => self.job_page_done(vol, n, page, ok, h),
            Some(
                Name::App(_)
                | Name::Peer(_)
                | Name::Flush(_)
                | Name::DataFlush(_)
                | Name::LogFlush(_),
            )
            | None => {}
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn emit_meta(
        &mut self,
        vol: VolIx,
        name: Name,
        op: MetaOp,
        sector: Sector,
        bytes: u32,
        flags: IoFlags,
        h: &mut impl Host,
    ) {
        let now = h.now();
        if let Some(b) = self.io_backing(vol) {
            if b.meta_io.on_disk == 0 {
                b.meta_io.moved_at = now;
            }
            b.meta_io.on_disk = b.meta_io.on_disk.saturating_add(1);
        }
        h.emit(Effect::Meta {
            vol,
            io: name.io(),
            op,
            sector,
            bytes,
            flags,
        });
    }

    fn meta_moved(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        if let Some(b) = self.io_backing(vol) {
            b.meta_io.on_disk = b.meta_io.on_disk.saturating_sub(1);
            b.meta_io.moved_at = now;
        }
    }

    /// Fills the page of a metadata write, right before it is submitted.
    pub fn fill_page(&mut self, io: IoToken, page: &mut [u8; 4096]) {
        page.iter_mut().for_each(|b| *b = 0);
        match Name::unpack(io.0) {
            Some(Name::Superblock(vol)) => {
                if let Some(b) = self.io_backing(vol) {
                    b.disk.superblock().encode(page);
                }
            }
            Some(Name::AlBlock(vol)) => {
                let Some(b) = self.io_backing(vol) else {
                    return;
                };
                if let Transaction::Block = b.meta_io.transaction {
                    b.al.encode(&b.meta_io.tx, page);
                }
            }
            Some(Name::AlPage(vol, n) | Name::BitmapPage(vol, n)) => {
                if let Some(b) = self.io_backing(vol) {
                    b.bitmap.copy_page(u64::from(n), page);
                }
            }
            Some(
                Name::OldSuperblock(_)
                | Name::App(_)
                | Name::Peer(_)
                | Name::Flush(_)
                | Name::DataFlush(_)
                | Name::LogFlush(_),
            )
            | None => {}
        }
    }
}

/// How metadata that others rely on is written.
pub(super) const fn durable(flushes: bool) -> IoFlags {
    IoFlags {
        sync: true,
        fua: flushes,
        preflush: flushes,
        rahead: false,
    }
}

/// Takes the job that waits longest.
fn next_job(jobs: &mut [Option<(JobKind, After)>; JOBS]) -> Option<(JobKind, After)> {
    let job = jobs.first_mut()?.take();
    jobs.rotate_left(1);
    job
}

/// The first page from `from` on that differs from the disk.
fn next_changed<W, F>(bitmap: &crate::bitmap::Bitmap<W, F>, from: u64) -> Option<u64>
where
    W: core::ops::DerefMut<Target = [u64]>,
    F: core::ops::DerefMut<Target = [PageFlags]>,
{
    let set = bitmap.next_page(from, PageFlags::NEED_WRITEOUT);
    let cleared = bitmap.next_page(from, PageFlags::LAZY_WRITEOUT);
    match (set, cleared) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::control::Next;

    fn after(vol: u16) -> After {
        After::Control(Next::AfterChange { vol: VolIx(vol) })
    }

    #[test]
    fn jobs_are_done_in_order() {
        let mut jobs = [None; JOBS];
        for n in 0..3 {
            *jobs.iter_mut().find(|j| j.is_none()).unwrap() = Some((JobKind::Read, after(n)));
        }
        for n in 0..3 {
            assert_eq!(next_job(&mut jobs), Some((JobKind::Read, after(n))));
        }
        assert_eq!(next_job(&mut jobs), None);
    }

    #[test]
    fn waiters_are_taken_once() {
        let mut w = [After::Nothing; WAITERS];
        assert!(put(&mut w, after(0)) && put(&mut w, After::Nothing));
        assert_eq!((take(&mut w), take(&mut w)), (Some(after(0)), None));
    }
}
