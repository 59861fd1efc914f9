// SPDX-License-Identifier: GPL-2.0

//! A block device that is used by this driver: opened exclusively, and fed with requests.
//!
//! Each request that is submitted asynchronously is answered by exactly one call of
//! [`IoTarget::io_done`], in whatever context the lower driver completes it. The bookkeeping of a
//! request lives in front of its bio, in memory that comes from a pool of the device, so that
//! submission makes progress when memory is short. The device counts its requests and does not go
//! away before the last one has come back; so completion needs no reference counting of the target.

use super::{
    bio::{Bio, IoFlags, Op, Status},
    disk::{BioOperations, GenDisk},
    limits::Limits,
    pages::PageBuf,
};
use crate::shim;
use core::{mem::offset_of, ptr::NonNull};
use kernel::{
    bindings,
    error::{code::EINVAL, code::ENOMEM, from_err_ptr, to_result},
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Relaxed},
        Arc, Completion,
    },
    types::Opaque,
};

/// Bios that a device keeps in reserve for when memory is short.
const POOL_SIZE: u32 = 64;

/// The largest number of sectors that the size field of one bio holds, in whole MiB.
const MAX_RANGE_SECTORS: u64 = (u32::MAX as u64 >> 20) << 11;

/// Who has opened a device exclusively. Two opens with the same holder do not exclude each other.
pub struct Holder {
    /// Makes sure that no two holders have the same address.
    _identity: u8,
}

impl Holder {
    /// A new identity.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self { _identity: 0 }, GFP_KERNEL)?)
    }
}

/// The name of a block device.
#[derive(Clone, Copy)]
pub struct DeviceName {
    bytes: [u8; 32],
    len: usize,
}

impl DeviceName {
    /// As text, such as `sda1`.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.len).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("?")
    }
}

/// What came of a request.
pub struct IoDone {
    /// What was given on submission.
    pub token: u64,
    /// How it ended.
    pub status: Status,
    /// The pages that were given on submission.
    pub buf: Option<PageBuf>,
}

/// Where the completions of a device go.
pub trait IoTarget: Send + Sync + 'static {
    /// A request has ended.
    ///
    /// Called in hard interrupt, soft interrupt or process context, possibly before the submitting
    /// call returns. It must not sleep and must not take a lock that is taken elsewhere with
    /// interrupts on.
    fn io_done(&self, done: IoDone);
}

/// A block device opened for this driver's use.
///
/// Dropping it waits, without a limit, for the requests in flight: their pages are in use. It has
/// to happen in process context and never in [`IoTarget::io_done`].
pub struct BlockDevice<T: IoTarget> {
    inner: Pin<KBox<Inner<T>>>,
}

/// # Invariants
///
/// - `file` is an open block device file and `bdev` its device.
/// - `bios` is initialized, with room for a [`Frame<T>`] up to its bio in front of each bio.
/// - `pending` is one plus the number of bios from `bios` that are in flight, until `drop`.
#[pin_data(PinnedDrop)]
struct Inner<T: IoTarget> {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
    pending: Atomic<i64>,
    #[pin]
    drained: Completion,
    #[pin]
    bios: Opaque<bindings::bio_set>,
    target: Arc<T>,
    _holder: Arc<Holder>,
}

// SAFETY: Block devices are not tied to tasks; the other fields are `Send`.
unsafe impl<T: IoTarget> Send for Inner<T> {}
// SAFETY: The block layer's functions used here may be called concurrently.
unsafe impl<T: IoTarget> Sync for Inner<T> {}

/// A request in flight: what is needed when it comes back, and its bio.
///
/// # Invariants
///
/// While the bio is in flight, `dev` is valid, and `master` is null or a bio that waits for one
/// more
/// `bio_endio()` on behalf of this request.
#[repr(C)]
struct Frame<T: IoTarget> {
    dev: NonNull<Inner<T>>,
    master: *mut bindings::bio,
    token: u64,
    buf: Option<PageBuf>,
    bio: bindings::bio,
}

impl<T: IoTarget> Frame<T> {
    const FRONT_PAD: usize = offset_of!(Frame<T>, bio);
}

#[pinned_drop]
impl<T: IoTarget> PinnedDrop for Inner<T> {
    fn drop(self: Pin<&mut Self>) {
        if self.pending.fetch_sub(1, Full) != 1 {
            self.drained.wait_for_completion();
        }
        // SAFETY: Nothing is in flight any more, so all bios have been put back.
        unsafe { bindings::bioset_exit(self.bios.get()) };
        // SAFETY: By the invariants, the file is open; this is the one reference to it.
        unsafe { bindings::bdev_fput(self.file.as_ptr()) };
    }
}

impl<T: IoTarget> Inner<T> {
    /// # Safety
    ///
    /// `file` must be a block device file, whose reference passes to the new value.
    unsafe fn new(
        file: NonNull<bindings::file>,
        holder: Arc<Holder>,
        target: Arc<T>,
    ) -> impl PinInit<Self, Error> {
        // SAFETY: By the safety requirement.
        let bdev = unsafe { bindings::file_bdev(file.as_ptr()) };
        let flags = bindings::BIOSET_NEED_BVECS as i32;
        let pad = Frame::<T>::FRONT_PAD as u32;
        try_pin_init!(Self {
            file,
            bdev: NonNull::new(bdev).ok_or(EINVAL)?,
            pending: Atomic::new(1),
            drained <- Completion::new(),
            bios <- Opaque::try_ffi_init(|slot: *mut bindings::bio_set| {
                // SAFETY: `slot` is valid for writes; `bioset_init` wants it zeroed.
                unsafe { slot.write_bytes(0, 1) };
                // SAFETY: `slot` was zeroed and is pinned until `bioset_exit`.
                to_result(unsafe { bindings::bioset_init(slot, POOL_SIZE, pad, flags) })
            }),
            target,
            _holder: holder,
        }? Error)
    }
}

impl<T: IoTarget> BlockDevice<T> {
    /// Opens the device at `path` for reading, and with `write` for writing, in the name of
    /// `holder`. Completions go to `target`.
    ///
    /// Errors: ENOENT, ENXIO, ENOTBLK, EACCES or EROFS as usual, EBUSY if another holder has it.
    pub fn open(path: &CStr, write: bool, holder: &Arc<Holder>, target: Arc<T>) -> Result<Self> {
        let mode = shim::OPEN_READ | if write { shim::OPEN_WRITE } else { 0 };
        let name = path.as_char_ptr();
        let by = Arc::as_ptr(holder).cast_mut().cast();
        // SAFETY: `name` is a C string; the holder outlives the open file; no holder operations.
        let file = unsafe { bindings::bdev_file_open_by_path(name, mode, by, core::ptr::null()) };
        let file = NonNull::new(from_err_ptr(file)?).ok_or(EINVAL)?;
        // SAFETY: Just opened as a block device, and passed on.
        let init = unsafe { Inner::new(file, holder.clone(), target) };
        match KBox::pin_init(init, GFP_KERNEL) {
            Ok(inner) => Ok(Self { inner }),
            Err(error) => {
                // SAFETY: The initializer failed, so the file was not taken over.
                unsafe { bindings::bdev_fput(file.as_ptr()) };
                Err(error)
            }
        }
    }

    /// Where completions go.
    pub fn target(&self) -> &Arc<T> {
        &self.inner.target
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::block_device {
        self.inner.bdev.as_ptr()
    }

    /// Size in sectors of 512 bytes, as of now.
    pub fn capacity(&self) -> u64 {
        // SAFETY: By the invariants, the device is valid. The field may change under us, which a
        // volatile read makes a value of before or after.
        unsafe { core::ptr::read_volatile(&raw const (*self.as_ptr()).bd_nr_sectors) }
    }

    /// What it can take at once.
    pub fn limits(&self) -> Limits {
        // SAFETY: An open device has a queue. Torn reads give limits that were or will be true.
        Limits::from_raw(unsafe { &(*(*self.as_ptr()).bd_queue).limits })
    }

    /// What it discards as a whole, in sectors: the size of such a unit, and where the first one
    /// begins. `None` if it cannot discard.
    pub fn discard_units(&self) -> Option<(u32, u32)> {
        let limits = self.limits();
        let unit = (limits.discard_granularity >> 9).max(1);
        if limits.max_discard_sectors < unit {
            return None;
        }
        // SAFETY: By the invariants, the device is valid; a partition in use does not move.
        let partition = unsafe { (*self.as_ptr()).bd_start_sect };
        let inside = u32::try_from(partition.checked_rem(u64::from(unit))?).ok()?;
        let first = unit.saturating_add(limits.discard_alignment >> 9).saturating_sub(inside);
        Some((unit, first.checked_rem(unit)?))
    }

    /// True if it cannot be written to.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: By the invariants, the device is valid.
        unsafe { shim::drbd_shim_bdev_read_only(self.as_ptr()) }
    }

    /// Its number, as the kernel keeps it.
    pub fn dev(&self) -> u32 {
        // SAFETY: By the invariants, the device is valid; the field never changes.
        unsafe { (*self.as_ptr()).bd_dev }
    }

    /// Its name below /dev.
    pub fn name(&self) -> DeviceName {
        let mut name = DeviceName {
            bytes: [0; 32],
            len: 0,
        };
        let (out, room) = (name.bytes.as_mut_ptr().cast(), name.bytes.len());
        // SAFETY: The device is valid, and the buffer for writes of its length.
        let len = unsafe { shim::drbd_shim_bdev_name(self.as_ptr(), out, room) };
        name.len = usize::try_from(len).unwrap_or(0);
        name
    }

    /// True if both are the same disk or partition.
    pub fn same_device<U: IoTarget>(&self, other: &BlockDevice<U>) -> bool {
        self.as_ptr() == other.as_ptr()
    }

    /// True if this is `disk` or a part of it.
    pub fn is_part_of<O: BioOperations>(&self, disk: &GenDisk<O>) -> bool {
        // SAFETY: By the invariants, the device is valid; the field never changes.
        unsafe { (*self.as_ptr()).bd_disk == disk.as_ptr() }
    }

    /// True if this is, or is a part of, a disk of that major number.
    pub fn has_major(&self, major: u32) -> bool {
        self.dev() >> 20 == major
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        let n = self.inner.pending.load(Relaxed).saturating_sub(1);
        usize::try_from(n).unwrap_or(0)
    }

    /// A bio of `nr` vectors with a frame, counted as in flight.
    fn alloc(&self, nr: u16, opf: u32, token: u64) -> Option<NonNull<bindings::bio>> {
        let set = self.inner.bios.get();
        // SAFETY: The device and its pool are valid. With GFP_NOIO the pool sleeps, not fails.
        let bio =
            unsafe { bindings::bio_alloc_bioset(self.as_ptr(), nr, opf, shim::GFP_NOIO, set) };
        let bio = NonNull::new(bio)?;
        // SAFETY: Fresh from the pool of this device.
        unsafe { self.prepare(bio, core::ptr::null_mut(), token) };
        Some(bio)
    }

    /// # Safety
    ///
    /// `bio` must be fresh from the pool of this device, and `master` null or have been given one
    /// more `bio_endio()` to wait for.
    unsafe fn prepare(&self, bio: NonNull<bindings::bio>, master: *mut bindings::bio, token: u64) {
        let frame = frame_of::<T>(bio.as_ptr());
        let dev = NonNull::from(&*self.inner);
        // INVARIANT: The count goes up before the bio can come back.
        self.inner.pending.fetch_add(1, Relaxed);
        // SAFETY: The pool's front padding holds the fields before the bio.
        unsafe { (&raw mut (*frame).dev).write(dev) };
        // SAFETY: As above.
        unsafe { (&raw mut (*frame).master).write(master) };
        // SAFETY: As above.
        unsafe { (&raw mut (*frame).token).write(token) };
        // SAFETY: As above.
        unsafe { (&raw mut (*frame).buf).write(None) };
        // SAFETY: The bio is ours until it is submitted.
        unsafe { (*bio.as_ptr()).bi_end_io = Some(end_io::<T>) };
    }

    fn refuse(&self, token: u64, status: Status, buf: Option<PageBuf>) {
        self.inner.target.io_done(IoDone { token, status, buf });
    }

    /// Submits a read or write of `buf` at `sector`; the buffer comes back with `token` in
    /// [`IoTarget::io_done`]. An empty buffer, or another operation, comes back with an error.
    ///
    /// May sleep.
    pub fn submit(&self, op: Op, flags: IoFlags, sector: u64, mut buf: PageBuf, token: u64) {
        // Whole sectors only, or the lower device would complain loudly.
        let Some(opf) = data_op(op).filter(|_| !buf.is_empty() && buf.len() & 511 == 0) else {
            return self.refuse(token, Status::IOERR, Some(buf));
        };
        let nr = buf.nr_pieces() as u16;
        let Some(bio) = self.alloc(nr, opf | flags.bits(), token) else {
            return self.refuse(token, Status::RESOURCE, Some(buf));
        };
        // SAFETY: The bio is ours, was allocated with a vector for each page, and is told the
        // sector before it is submitted.
        unsafe { fill(bio.as_ptr(), sector, &mut buf) };
        let frame = frame_of::<T>(bio.as_ptr());
        // SAFETY: The frame was initialized; the bio is not submitted yet.
        unsafe { (*frame).buf = Some(buf) };
        // SAFETY: The bio is complete and ours to submit.
        unsafe { bindings::submit_bio_noacct(bio.as_ptr()) };
    }

    /// Submits what `master` wants, with `extra` flags, from and to the same pages.
    ///
    /// `master` stays with the caller, who may end it at any time: its submitter will hear of it
    /// when the clone has come back, too.
    ///
    /// May sleep.
    pub fn submit_clone(&self, master: &Bio, extra: IoFlags, token: u64) {
        let set = self.inner.bios.get();
        let from = master.as_ptr();
        // SAFETY: Device, pool and master are valid.
        let bio = unsafe { bindings::bio_alloc_clone(self.as_ptr(), from, shim::GFP_NOIO, set) };
        let Some(bio) = NonNull::new(bio) else {
            return self.refuse(token, Status::RESOURCE, None);
        };
        // SAFETY: The master is valid and not ended, since the caller has it.
        unsafe { shim::drbd_shim_bio_inc_remaining(from) };
        // SAFETY: Fresh from the pool; the master just got one more to wait for.
        unsafe { self.prepare(bio, from, token) };
        // SAFETY: The bio is ours until it is submitted.
        unsafe { (*bio.as_ptr()).bi_opf |= extra.bits() };
        // SAFETY: The bio is complete and ours to submit.
        unsafe { bindings::submit_bio_noacct(bio.as_ptr()) };
    }

    /// Submits a flush of the device's cache: what has completed before is stable when it ends.
    ///
    /// May sleep.
    pub fn submit_flush(&self, token: u64) {
        let opf = bindings::req_op_REQ_OP_WRITE | IoFlags::PREFLUSH.bits() | IoFlags::SYNC.bits();
        self.submit_empty(opf, 0, 0, token);
    }

    /// Submits a discard. Ends with [`Status::NOTSUPP`] if the device has none.
    ///
    /// May sleep. At most 4 GiB less 1 MiB at once; more ends with [`Status::IOERR`].
    pub fn submit_discard(&self, sector: u64, sectors: u64, token: u64) {
        let opf = bindings::req_op_REQ_OP_DISCARD | IoFlags::SYNC.bits();
        self.submit_empty(opf, sector, sectors, token);
    }

    /// Submits a write of zeroes without data. Ends with [`Status::NOTSUPP`] if the device has
    /// none; then see [`Self::zeroout_sync`]. With [`IoFlags::NOUNMAP`], the range stays allocated.
    ///
    /// May sleep. At most 4 GiB less 1 MiB at once; more ends with [`Status::IOERR`].
    pub fn submit_write_zeroes(&self, sector: u64, sectors: u64, flags: IoFlags, token: u64) {
        let opf = bindings::req_op_REQ_OP_WRITE_ZEROES | flags.bits();
        self.submit_empty(opf, sector, sectors, token);
    }

    fn submit_empty(&self, opf: u32, sector: u64, sectors: u64, token: u64) {
        let Some(size) = bytes_of(sectors) else {
            return self.refuse(token, Status::IOERR, None);
        };
        let Some(bio) = self.alloc(0, opf, token) else {
            return self.refuse(token, Status::RESOURCE, None);
        };
        // SAFETY: The bio is ours until it is submitted.
        let iter = unsafe { &mut (*bio.as_ptr()).bi_iter };
        iter.bi_sector = sector;
        iter.bi_size = size;
        // SAFETY: The bio is complete and ours to submit.
        unsafe { bindings::submit_bio_noacct(bio.as_ptr()) };
    }

    /// Reads `buf` from `sector` and waits for it, as long as the device takes.
    pub fn read_sync(&self, flags: IoFlags, sector: u64, buf: &mut PageBuf) -> Result {
        self.sync(Op::Read, flags, sector, buf)
    }

    /// Writes `buf` to `sector` and waits for it, as long as the device takes.
    pub fn write_sync(&self, flags: IoFlags, sector: u64, buf: &mut PageBuf) -> Result {
        self.sync(Op::Write, flags, sector, buf)
    }

    fn sync(&self, op: Op, flags: IoFlags, sector: u64, buf: &mut PageBuf) -> Result {
        let opf = data_op(op).ok_or(EINVAL)? | flags.bits() | IoFlags::SYNC.bits();
        if buf.is_empty() || buf.len() & 511 != 0 {
            return Err(EINVAL);
        }
        let nr = buf.nr_pieces() as u16;
        let set = &raw mut bindings::fs_bio_set;
        // SAFETY: The device and the kernel's own pool are valid.
        let bio =
            unsafe { bindings::bio_alloc_bioset(self.as_ptr(), nr, opf, shim::GFP_NOIO, set) };
        let bio = NonNull::new(bio).ok_or(ENOMEM)?.as_ptr();
        // SAFETY: The bio is ours and has a vector for each page; `buf` is borrowed until it ends.
        unsafe { fill(bio, sector, buf) };
        // SAFETY: The bio is complete and ours to submit.
        let result = to_result(unsafe { bindings::submit_bio_wait(bio) });
        // SAFETY: This is the last use of the bio.
        unsafe { bindings::bio_put(bio) };
        result
    }

    /// Discards a range and waits for it. Errors: EOPNOTSUPP if the device has no discard.
    pub fn discard_sync(&self, sector: u64, sectors: u64) -> Result {
        let gfp = shim::GFP_NOIO;
        // SAFETY: The device is valid; the block layer checks the range.
        to_result(unsafe { bindings::blkdev_issue_discard(self.as_ptr(), sector, sectors, gfp) })
    }

    /// Makes a range read as zeroes, by writing them if there is no better way, and waits for it.
    pub fn zeroout_sync(&self, sector: u64, sectors: u64, may_unmap: bool) -> Result {
        let flags = if may_unmap { 0 } else { shim::ZERO_NOUNMAP };
        let (dev, gfp) = (self.as_ptr(), shim::GFP_NOIO);
        // SAFETY: The device is valid; the block layer checks the range.
        to_result(unsafe { bindings::blkdev_issue_zeroout(dev, sector, sectors, gfp, flags) })
    }

    /// Flushes the device's cache and waits for it.
    pub fn flush_sync(&self) -> Result {
        // SAFETY: The device is valid.
        to_result(unsafe { bindings::blkdev_issue_flush(self.as_ptr()) })
    }
}

/// Shows in sysfs that a disk is made of a device, as long as it lives.
///
/// It keeps both alive, because the kernel wants the link undone before either goes away.
///
/// # Invariants
///
/// The two are linked, once for this value.
pub struct HolderLink<T: IoTarget, O: BioOperations> {
    device: Arc<BlockDevice<T>>,
    disk: Arc<GenDisk<O>>,
}

impl<T: IoTarget, O: BioOperations> HolderLink<T, O> {
    /// Makes the links `slaves` and `holders`.
    ///
    /// Errors: EINVAL if the device is the disk itself, ENODEV if it is being removed.
    pub fn new(device: Arc<BlockDevice<T>>, disk: Arc<GenDisk<O>>) -> Result<Self> {
        // SAFETY: Both are valid, and the device is open exclusively.
        to_result(unsafe { bindings::bd_link_disk_holder(device.as_ptr(), disk.as_ptr()) })?;
        // INVARIANT: Just linked.
        Ok(Self { device, disk })
    }
}

impl<T: IoTarget, O: BioOperations> Drop for HolderLink<T, O> {
    fn drop(&mut self) {
        // SAFETY: Both are valid and, by the invariant, linked.
        unsafe { bindings::bd_unlink_disk_holder(self.device.as_ptr(), self.disk.as_ptr()) };
    }
}

fn data_op(op: Op) -> Option<u32> {
    match op {
        Op::Read => Some(bindings::req_op_REQ_OP_READ),
        Op::Write => Some(bindings::req_op_REQ_OP_WRITE),
        Op::Flush | Op::Discard | Op::SecureErase | Op::WriteZeroes | Op::Other => None,
    }
}

fn bytes_of(sectors: u64) -> Option<u32> {
    if sectors > MAX_RANGE_SECTORS {
        return None;
    }
    u32::try_from(sectors << 9).ok()
}

/// # Safety
///
/// `bio` must be unsubmitted and have room for the pages of `buf`, which must not be touched until
/// the bio has ended.
unsafe fn fill(bio: *mut bindings::bio, sector: u64, buf: &mut PageBuf) {
    // SAFETY: By the safety requirement.
    unsafe { (*bio).bi_iter.bi_sector = sector };
    for (page, n) in buf.pieces() {
        // SAFETY: By the safety requirement; the page has at least `n` bytes.
        unsafe { bindings::__bio_add_page(bio, page.as_ptr(), n as u32, 0) };
    }
}

fn frame_of<T: IoTarget>(bio: *mut bindings::bio) -> *mut Frame<T> {
    bio.wrapping_byte_sub(Frame::<T>::FRONT_PAD).cast()
}

/// Ends a request of the device.
///
/// # Safety
///
/// Called by the block layer, for a bio that `BlockDevice::prepare` set up.
unsafe extern "C" fn end_io<T: IoTarget>(bio: *mut bindings::bio) {
    let frame = frame_of::<T>(bio);
    // SAFETY: The bio has ended, so it and its frame are ours again.
    let status = Status::from_raw(unsafe { (*bio).bi_status });
    // SAFETY: As above; the frame was initialized by `prepare`.
    let (dev, master, token) = unsafe { ((*frame).dev, (*frame).master, (*frame).token) };
    // SAFETY: As above.
    let buf = unsafe { (*frame).buf.take() };
    // SAFETY: Nothing uses the bio any more.
    unsafe { bindings::bio_put(bio) };
    if !master.is_null() {
        // SAFETY: By the invariants of `Frame`, it waits for this. If its holder has ended it
        // already, this call completes it.
        unsafe { bindings::bio_endio(master) };
    }
    // SAFETY: The device is there until its count is taken down below.
    let inner = unsafe { dev.as_ref() };
    inner.target.io_done(IoDone { token, status, buf });
    if inner.pending.fetch_sub(1, Full) == 1 {
        // The device waits for this before it goes away, so `inner` is valid until it returns.
        inner.drained.complete_all();
    }
}
