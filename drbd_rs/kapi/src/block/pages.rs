// SPDX-License-Identifier: GPL-2.0

//! Owned pages for data that travels between a disk and a socket without being copied.
//!
//! A [`PageBuf`] is handed over by value wherever a device or the network may still touch its pages
//! after the call returns, and comes back when they are done. So holding one means that nobody else
//! writes into it.

use crate::{
    mem::{push_within, NoIoScope},
    shim,
};
use kernel::{
    alloc::{flags, Flags, KVVec},
    bindings,
    error::code::{EINVAL, ENOMEM},
    page::{Page, PAGE_SHIFT, PAGE_SIZE},
    prelude::Result,
};

/// The most bytes that fit into one [`PageBuf`], because they have to fit into one bio: 1 MiB with
/// pages of 4 KiB.
pub const MAX_BYTES: usize = bindings::BIO_MAX_VECS as usize * PAGE_SIZE;

/// A buffer of whole pages with a length in bytes.
///
/// # Invariants
///
/// - The pages are owned, have a kernel address (none is highmem), and nothing else writes to them.
/// - `len` is at most the number of pages times `PAGE_SIZE`, and that at most [`MAX_BYTES`].
pub struct PageBuf {
    pages: KVVec<Page>,
    len: usize,
}

impl PageBuf {
    /// Allocates `len` bytes with unspecified content. May sleep, does not start I/O.
    ///
    /// Errors: EINVAL above [`MAX_BYTES`], ENOMEM.
    pub fn new(len: usize) -> Result<Self> {
        Self::with_flags(len, flags::GFP_KERNEL)
    }

    /// Allocates `len` bytes of zeroes. May sleep, does not start I/O.
    ///
    /// Errors: EINVAL above [`MAX_BYTES`], ENOMEM.
    pub fn new_zeroed(len: usize) -> Result<Self> {
        Self::with_flags(len, flags::GFP_KERNEL | flags::__GFP_ZERO)
    }

    /// Like [`Self::new`] but fails rather than sleeps or warns.
    pub fn try_new(len: usize) -> Result<Self> {
        Self::with_flags(len, flags::GFP_NOWAIT)
    }

    fn with_flags(len: usize, gfp: Flags) -> Result<Self> {
        if len > MAX_BYTES {
            return Err(EINVAL);
        }
        let _noio = NoIoScope::enter();
        let nr = len.div_ceil(PAGE_SIZE);
        let mut pages = KVVec::with_capacity(nr, gfp)?;
        for _ in 0..nr {
            push_within(&mut pages, Page::alloc_page(gfp)?).map_err(|_| ENOMEM)?;
        }
        // INVARIANT: The pages were just allocated, without `__GFP_HIGHMEM`, and cover `len`.
        Ok(Self { pages, len })
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is no byte in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the buffer `len` bytes long within the pages it has. Content beyond the former length
    /// is unspecified.
    ///
    /// Errors: EINVAL if the pages do not hold that many.
    pub fn set_len(&mut self, len: usize) -> Result {
        if len > self.pages.len().saturating_mul(PAGE_SIZE) {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked.
        self.len = len;
        Ok(())
    }

    /// The content, page by page. Every piece but the last has `PAGE_SIZE` bytes.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> + '_ {
        self.pieces().map(|(page, n)| {
            // SAFETY: By the invariants, the page's address is valid for `PAGE_SIZE` >= `n` bytes
            // and nobody writes to it while `self` is borrowed. Page memory comes from C: its
            // bytes are arbitrary, but are bytes.
            unsafe { core::slice::from_raw_parts(address(page), n) }
        })
    }

    /// The content for writing, page by page. Every piece but the last has `PAGE_SIZE` bytes.
    pub fn chunks_mut(&mut self) -> impl Iterator<Item = &mut [u8]> + '_ {
        self.pieces().map(|(page, n)| {
            // SAFETY: As in `chunks`; `self` is borrowed exclusively, and each page comes once.
            unsafe { core::slice::from_raw_parts_mut(address(page), n) }
        })
    }

    /// The pages and how many bytes of each belong to the content.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (&Page, usize)> + '_ {
        let mut left = self.len;
        self.pages.iter().map_while(move |page| {
            let n = left.min(PAGE_SIZE);
            left = left.saturating_sub(n);
            (n > 0).then_some((page, n))
        })
    }

    /// Copies the bytes from `offset` on into `dst`.
    ///
    /// Errors: EINVAL if that reaches beyond the end.
    pub fn read(&self, offset: usize, dst: &mut [u8]) -> Result {
        self.check(offset, dst.len())?;
        let mut rest = dst;
        for chunk in self.chunks_from(offset) {
            let Some((now, later)) = rest.split_at_mut_checked(chunk.len().min(rest.len())) else {
                break;
            };
            copy(now, chunk);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Copies `src` to the bytes from `offset` on.
    ///
    /// Errors: EINVAL if that reaches beyond the end.
    pub fn write(&mut self, offset: usize, src: &[u8]) -> Result {
        self.check(offset, src.len())?;
        let mut skip = offset;
        let mut rest = src;
        for chunk in self.chunks_mut() {
            let here = skip.min(chunk.len());
            skip = skip.saturating_sub(here);
            let Some(room) = chunk.get_mut(here..) else {
                continue;
            };
            let Some((now, later)) = rest.split_at_checked(room.len().min(rest.len())) else {
                break;
            };
            copy(room, now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Makes every byte zero.
    pub fn fill_zero(&mut self) {
        for chunk in self.chunks_mut() {
            chunk.fill(0);
        }
    }

    /// True if every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.chunks().all(|chunk| {
            let (head, words, tail) = as_words(chunk);
            head.iter().chain(tail).all(|b| *b == 0) && words.iter().all(|w| *w == 0)
        })
    }

    fn chunks_from(&self, offset: usize) -> impl Iterator<Item = &[u8]> + '_ {
        let mut skip = offset & PAGE_SIZE.wrapping_sub(1);
        self.chunks().skip(offset >> PAGE_SHIFT).map(move |chunk| {
            let here = skip.min(chunk.len());
            skip = 0;
            chunk.get(here..).unwrap_or(&[])
        })
    }

    fn check(&self, offset: usize, len: usize) -> Result {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// The pages and their lengths as the block and network layers want them: up to `out.len()`
    /// pieces, from the piece number `first` on. Returns how many pieces and bytes.
    pub(crate) fn bvecs(&self, first: usize, out: &mut [bindings::bio_vec]) -> (usize, usize) {
        let mut nr: usize = 0;
        let mut bytes: usize = 0;
        for (slot, (page, n)) in out.iter_mut().zip(self.pieces().skip(first)) {
            slot.bv_page = page.as_ptr();
            slot.bv_offset = 0;
            slot.bv_len = n as u32;
            nr = nr.saturating_add(1);
            bytes = bytes.saturating_add(n);
        }
        (nr, bytes)
    }

    /// How many pages hold content.
    pub(crate) fn nr_pieces(&self) -> usize {
        self.len.div_ceil(PAGE_SIZE)
    }
}

fn address(page: &Page) -> *mut u8 {
    // SAFETY: `page` is a valid page, and by the invariants of `PageBuf` not a highmem one.
    unsafe { shim::drbd_shim_page_address(page.as_ptr()).cast() }
}

/// Copies as many bytes as the shorter of the two has.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) {
    let n = to.len().min(from.len());
    // SAFETY: Both are valid for `n` bytes, and an exclusive borrow overlaps with nothing.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), n) };
}

fn as_words(bytes: &[u8]) -> (&[u8], &[u64], &[u8]) {
    // SAFETY: Every bit pattern is a `u64`.
    unsafe { bytes.align_to::<u64>() }
}
