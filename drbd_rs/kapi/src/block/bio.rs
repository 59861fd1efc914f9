// SPDX-License-Identifier: GPL-2.0

//! Requests that the block layer hands to a driver.
//!
//! A [`Bio`] is a request that this driver has to complete. It is a value: whoever holds it has to
//! end it, and can end it only once. What it points to, on the other hand, is not owned: the pages
//! belong to the page cache or to a process, which may write to them at any moment. So the data is
//! reachable only by copying, never as a slice.

use super::pages::PageBuf;
use crate::shim;
use core::{marker::PhantomData, ops::BitOr, ptr::NonNull};
use kernel::{
    bindings,
    error::{code::EINVAL, Error, Result},
};

/// What a request wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Data from the disk.
    Read,
    /// Data to the disk.
    Write,
    /// No data: what was completed before must be on stable storage. A write of nothing with
    /// [`IoFlags::PREFLUSH`] comes as this, too.
    Flush,
    /// The content of the range is not needed any more.
    Discard,
    /// Like a discard that leaves no copy behind.
    SecureErase,
    /// The range shall read as zeroes.
    WriteZeroes,
    /// Zone management and the like.
    Other,
}

/// Attributes of a request: the bits of `blk_opf_t` above the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoFlags(u32);

impl IoFlags {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// What was completed before must be stable before this one starts.
    pub const PREFLUSH: Self = Self(1 << bindings::req_flag_bits___REQ_PREFLUSH);
    /// Must be stable when it completes.
    pub const FUA: Self = Self(1 << bindings::req_flag_bits___REQ_FUA);
    /// Somebody waits for it.
    pub const SYNC: Self = Self(1 << bindings::req_flag_bits___REQ_SYNC);
    /// Metadata.
    pub const META: Self = Self(1 << bindings::req_flag_bits___REQ_META);
    /// Goes before others.
    pub const PRIO: Self = Self(1 << bindings::req_flag_bits___REQ_PRIO);
    /// Read ahead: may fail at any time.
    pub const RAHEAD: Self = Self(1 << bindings::req_flag_bits___REQ_RAHEAD);
    /// Nobody waits for it.
    pub const BACKGROUND: Self = Self(1 << bindings::req_flag_bits___REQ_BACKGROUND);
    /// Zeroes must stay allocated.
    pub const NOUNMAP: Self = Self(1 << bindings::req_flag_bits___REQ_NOUNMAP);
    /// More will follow soon.
    pub const IDLE: Self = Self(1 << bindings::req_flag_bits___REQ_IDLE);

    /// True if all of `other` are in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// `self`, and `other` if `cond` holds.
    #[must_use]
    pub const fn with_if(self, cond: bool, other: Self) -> Self {
        if cond {
            Self(self.0 | other.0)
        } else {
            self
        }
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
}

impl BitOr for IoFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a request ended: a `blk_status_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(u8);

impl Status {
    /// Success.
    pub const OK: Self = Self(0);
    /// The device cannot do this at all.
    pub const NOTSUPP: Self = Self(shim::STS_NOTSUPP);
    /// Took too long.
    pub const TIMEOUT: Self = Self(shim::STS_TIMEOUT);
    /// No space left.
    pub const NOSPC: Self = Self(shim::STS_NOSPC);
    /// Unreadable medium.
    pub const MEDIUM: Self = Self(shim::STS_MEDIUM);
    /// Out of memory or the like; may be tried again.
    pub const RESOURCE: Self = Self(shim::STS_RESOURCE);
    /// Any other failure.
    pub const IOERR: Self = Self(shim::STS_IOERR);
    /// Would have had to wait.
    pub const AGAIN: Self = Self(shim::STS_AGAIN);

    /// True on success.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// As a result with an errno.
    pub fn to_result(self) -> Result {
        // SAFETY: A table lookup that checks its argument.
        kernel::error::to_result(unsafe { bindings::blk_status_to_errno(self.0) })
    }

    pub(crate) const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    pub(crate) const fn as_raw(self) -> u8 {
        self.0
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        // SAFETY: A table lookup that checks its argument.
        Self(unsafe { bindings::errno_to_blk_status(error.to_errno()) })
    }
}

/// When a request began, for the statistics of the device.
#[derive(Clone, Copy)]
pub struct AcctStart(usize);

/// A request that this driver has to complete.
///
/// Dropping it completes it with [`Status::IOERR`].
///
/// # Invariants
///
/// `raw` is valid, was submitted to a device of this driver, and this value holds the one right to
/// call `bio_endio()` for it that the submission brought. The iterator and the vector of the bio do
/// not change while this value lives.
pub struct Bio {
    raw: NonNull<bindings::bio>,
}

// SAFETY: A bio is not tied to a task or CPU.
unsafe impl Send for Bio {}
// SAFETY: Methods with `&self` read fields that do not change, or copy from and to pages that
// others may write to as well.
unsafe impl Sync for Bio {}

impl Bio {
    /// # Safety
    ///
    /// `raw` must be valid, and the caller hands over the right to end it.
    pub(crate) unsafe fn from_raw(raw: NonNull<bindings::bio>) -> Self {
        // INVARIANT: By the safety requirement.
        Self { raw }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::bio {
        self.raw.as_ptr()
    }

    fn opf(&self) -> u32 {
        // SAFETY: By the invariants, the bio is valid.
        unsafe { (*self.as_ptr()).bi_opf }
    }

    fn iter(&self) -> bindings::bvec_iter {
        // SAFETY: By the invariants, the bio is valid.
        unsafe { (*self.as_ptr()).bi_iter }
    }

    /// What it wants.
    pub fn op(&self) -> Op {
        const READ: u32 = bindings::req_op_REQ_OP_READ;
        const WRITE: u32 = bindings::req_op_REQ_OP_WRITE;
        const FLUSH: u32 = bindings::req_op_REQ_OP_FLUSH;
        const DISCARD: u32 = bindings::req_op_REQ_OP_DISCARD;
        const ERASE: u32 = bindings::req_op_REQ_OP_SECURE_ERASE;
        const ZEROES: u32 = bindings::req_op_REQ_OP_WRITE_ZEROES;
        match self.opf() & 0xff {
            READ => Op::Read,
            WRITE if self.size() == 0 => Op::Flush,
            WRITE => Op::Write,
            FLUSH => Op::Flush,
            DISCARD => Op::Discard,
            ERASE => Op::SecureErase,
            ZEROES => Op::WriteZeroes,
            _ => Op::Other,
        }
    }

    /// True if it changes the disk, or flushes it: for the block layer, any odd operation.
    pub fn is_write(&self) -> bool {
        self.opf() & 1 != 0
    }

    /// Its attributes.
    pub fn flags(&self) -> IoFlags {
        IoFlags(self.opf() & !0xff)
    }

    /// First sector (of 512 bytes).
    pub fn sector(&self) -> u64 {
        self.iter().bi_sector
    }

    /// Bytes; also of a discard, which carries no data.
    pub fn size(&self) -> u32 {
        self.iter().bi_size
    }

    /// Cuts off what is beyond the limits of the device it was submitted to, and submits the rest
    /// once more. To be called first of all in `submit_bio`.
    ///
    /// Returns [`None`] if the block layer has already ended it.
    pub fn split_to_limits(self) -> Option<Self> {
        let me = core::mem::ManuallyDrop::new(self);
        // SAFETY: By the invariants, the bio is valid and ours.
        let raw = unsafe { bindings::bio_split_to_limits(me.as_ptr()) };
        // INVARIANT: The block layer returns a bio in exchange for the one it was given.
        NonNull::new(raw).map(|raw| Self { raw })
    }

    /// Completes it.
    ///
    /// While clones of it are in flight ([`submit_clone`]), the submitter hears of it only when the
    /// last of them has come back, because its pages are in use until then.
    ///
    /// [`submit_clone`]: super::bdev::BlockDevice::submit_clone
    pub fn end(self, status: Status) {
        let me = core::mem::ManuallyDrop::new(self);
        // SAFETY: By the invariants, the bio is valid, and the right to end it is used up here.
        unsafe { end_raw(me.as_ptr(), status) };
    }

    /// Begins the accounting of this request for the device it was submitted to.
    pub fn start_accounting(&self) -> AcctStart {
        // SAFETY: By the invariants, the bio is valid.
        AcctStart(unsafe { bindings::bio_start_io_acct(self.as_ptr()) })
    }

    /// Ends the accounting, just before [`Self::end`].
    pub fn end_accounting(&self, start: AcctStart) {
        // SAFETY: By the invariants, the bio is valid.
        unsafe { shim::drbd_shim_bio_end_io_acct(self.as_ptr(), start.0) };
    }

    /// The pieces of its data, each within one page. None for requests without data.
    pub fn segments(&self) -> Segments<'_> {
        Segments {
            bio: self,
            iter: self.iter(),
        }
    }

    /// Copies its data from byte `offset` on into `dst`.
    ///
    /// Errors: EINVAL if it has less.
    pub fn copy_to(&self, offset: u32, dst: &mut [u8]) -> Result {
        let mut skip = offset as usize;
        let mut done: usize = 0;
        for segment in self.segments() {
            let here = skip.min(segment.len());
            skip = skip.saturating_sub(here);
            let rest = dst.get_mut(done..).unwrap_or(&mut []);
            let n = segment.len().saturating_sub(here).min(rest.len());
            segment.copy_to(here, rest.get_mut(..n).unwrap_or(&mut []))?;
            done = done.saturating_add(n);
        }
        (done == dst.len()).then_some(()).ok_or(EINVAL)
    }

    /// Copies `src` to its data from byte `offset` on.
    ///
    /// Errors: EINVAL if it has less.
    pub fn copy_from(&self, offset: u32, src: &[u8]) -> Result {
        let mut skip = offset as usize;
        let mut rest = src;
        for segment in self.segments() {
            let here = skip.min(segment.len());
            skip = skip.saturating_sub(here);
            let n = segment.len().saturating_sub(here).min(rest.len());
            let Some((now, later)) = rest.split_at_checked(n) else {
                break;
            };
            segment.copy_from(here, now)?;
            rest = later;
        }
        rest.is_empty().then_some(()).ok_or(EINVAL)
    }

    /// Copies all its data into `dst`, from the start.
    ///
    /// Errors: EINVAL if the two have not the same length.
    pub fn copy_to_pages(&self, dst: &mut PageBuf) -> Result {
        if dst.len() != self.size() as usize {
            return Err(EINVAL);
        }
        let mut at: u32 = 0;
        for chunk in dst.chunks_mut() {
            self.copy_to(at, chunk)?;
            at = at.saturating_add(chunk.len() as u32);
        }
        Ok(())
    }

    /// Copies all of `src` to its data, from byte `offset` on.
    ///
    /// Errors: EINVAL if it has less.
    pub fn copy_from_pages(&self, offset: u32, src: &PageBuf) -> Result {
        let mut at = offset;
        for chunk in src.chunks() {
            self.copy_from(at, chunk)?;
            at = at.saturating_add(chunk.len() as u32);
        }
        Ok(())
    }

    /// Makes all its data zero.
    pub fn fill_zero(&self) {
        const ZEROES: [u8; 512] = [0; 512];
        for segment in self.segments() {
            let mut at = 0;
            while at < segment.len() {
                let n = segment.len().saturating_sub(at).min(ZEROES.len());
                // The range is within the segment by construction.
                let _ = segment.copy_from(at, ZEROES.get(..n).unwrap_or(&[]));
                at = at.saturating_add(n.max(1));
            }
        }
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        // SAFETY: By the invariants, the bio is valid, and the right to end it is used up here.
        unsafe { end_raw(self.as_ptr(), Status::IOERR) };
    }
}

/// # Safety
///
/// `bio` must be valid, and the caller must have the right to end it.
unsafe fn end_raw(bio: *mut bindings::bio, status: Status) {
    if !status.is_ok() {
        // SAFETY: `bio` is valid. The clones that may be in flight do not touch the field.
        unsafe { (*bio).bi_status = status.as_raw() };
    }
    // SAFETY: By the safety requirement.
    unsafe { bindings::bio_endio(bio) };
}

/// Iterator over the data of a [`Bio`].
///
/// # Invariants
///
/// `iter` is an iterator of `bio`, advanced by its own means only.
pub struct Segments<'a> {
    bio: &'a Bio,
    iter: bindings::bvec_iter,
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let mut bv = bindings::bio_vec::default();
        let bio = self.bio.as_ptr();
        // SAFETY: The bio is valid, and by the invariants the iterator belongs to it.
        let more = unsafe { shim::drbd_shim_bio_next_segment(bio, &mut self.iter, &mut bv) };
        // INVARIANT: The piece is part of the bio, which outlives `'a`.
        more.then_some(Segment {
            bv,
            _bio: PhantomData,
        })
    }
}

/// A piece of the data of a [`Bio`], within one page.
///
/// # Invariants
///
/// `bv` names a page that is valid for `'a`, and a range in it.
pub struct Segment<'a> {
    bv: bindings::bio_vec,
    _bio: PhantomData<&'a Bio>,
}

impl Segment<'_> {
    /// Bytes; not zero.
    pub fn len(&self) -> usize {
        self.bv.bv_len as usize
    }

    /// Never: the block layer has no empty pieces.
    pub fn is_empty(&self) -> bool {
        self.bv.bv_len == 0
    }

    /// Copies the bytes from `offset` on into `dst`.
    ///
    /// Errors: EINVAL if that reaches beyond the end.
    pub fn copy_to(&self, offset: usize, dst: &mut [u8]) -> Result {
        let at = self.check(offset, dst.len())?;
        let to = dst.as_mut_ptr().cast();
        // SAFETY: The range was checked, and `dst` is valid for its length. The page may be written
        // by its owner meanwhile; then the copy has some mixture of bytes, as in C.
        unsafe { shim::drbd_shim_bvec_read(&self.bv, at, to, dst.len()) };
        Ok(())
    }

    /// Copies `src` to the bytes from `offset` on.
    ///
    /// Errors: EINVAL if that reaches beyond the end.
    pub fn copy_from(&self, offset: usize, src: &[u8]) -> Result {
        let at = self.check(offset, src.len())?;
        let from = src.as_ptr().cast();
        // SAFETY: The range was checked, and `src` is valid for its length.
        unsafe { shim::drbd_shim_bvec_write(&self.bv, at, from, src.len()) };
        Ok(())
    }

    pub(crate) fn as_bvec(&self) -> &bindings::bio_vec {
        &self.bv
    }

    fn check(&self, offset: usize, len: usize) -> Result<u32> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => u32::try_from(offset).map_err(|_| EINVAL),
            _ => Err(EINVAL),
        }
    }
}
