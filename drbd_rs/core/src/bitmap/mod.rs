// SPDX-License-Identifier: GPL-2.0

//! The quick-sync bitmap: which blocks of 4 KiB differ, or may differ, from the peer's.
//!
//! One bit per 4 KiB, kept in words and pages of storage that the caller supplies; a page of 4 KiB
//! is what is read from and written to the disk at once, in little-endian words. Each page has
//! flags that say what the disk does not know yet.
//!
//! Invariants: `weight` is the number of set bits; bits behind the end of the device are clear.
//!
//! It differs from `drbd_bitmap.c` in one respect: when the number of bits is a multiple of 64,
//! that driver's recount wipes the last word and forgets up to 256 KiB that are out of sync. Here
//! all bits of the device are kept.

mod scan;

use core::ops::DerefMut;

use crate::units::{
    index, saturate_u32, AlExtent, BmBit, RsExtent, SectorRange, Sectors, BITS_PER_RS_EXTENT,
};

/// Bits in one page of 4 KiB: 128 MiB of data.
pub const BITS_PER_PAGE: u64 = 32768;
/// Bytes in one page.
pub const PAGE_BYTES: usize = 4096;
/// Words in one page.
pub const WORDS_PER_PAGE: u64 = 512;

/// What is to be done about a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageFlags(u8);

impl PageFlags {
    /// Nothing: the disk has what memory has.
    pub const EMPTY: PageFlags = PageFlags(0);
    /// Bits were set; must be written before the activity log may forget their extents.
    pub const NEED_WRITEOUT: PageFlags = PageFlags(1);
    /// Bits were cleared; may be written some time.
    pub const LAZY_WRITEOUT: PageFlags = PageFlags(2);
    /// The activity log transaction in hand evicts an extent of this page.
    pub const HINT: PageFlags = PageFlags(4);

    /// Whether one of the flags of `other` is set.
    pub const fn intersects(self, other: PageFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the page differs from what the disk has.
    pub const fn is_changed(self) -> bool {
        self.intersects(PageFlags(1 | 2))
    }

    fn insert(&mut self, other: PageFlags) {
        self.0 |= other.0;
    }

    fn remove(&mut self, other: PageFlags) {
        self.0 &= !other.0;
    }
}

/// An inclusive run of bits, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitSpan {
    /// First bit.
    pub first: BmBit,
    /// Last bit.
    pub last: BmBit,
}

impl BitSpan {
    /// The run from `first` to `last`; `None` if that is empty.
    pub const fn new(first: BmBit, last: BmBit) -> Option<BitSpan> {
        if first.0 > last.0 {
            None
        } else {
            Some(BitSpan { first, last })
        }
    }

    /// Every bit that the sectors touch: the rounding of "out of sync". Clipped to the device.
    pub fn outward(range: SectorRange, capacity: Sectors) -> Option<BitSpan> {
        let end = range.end().0.min(capacity.0);
        let last = end.checked_sub(1)?;
        if range.len.0 == 0 || range.start.0 > last {
            return None;
        }
        BitSpan::new(range.start.bit(), BmBit(last >> 3))
    }

    /// Every bit that the sectors cover wholly: the rounding of "in sync". The last block of the
    /// device may be short and counts as covered if its sectors are.
    pub fn inward(range: SectorRange, capacity: Sectors) -> Option<BitSpan> {
        let end = range.end().0.min(capacity.0);
        if range.len.0 == 0 || range.start.0 >= end {
            return None;
        }
        let first = BmBit(range.start.0.checked_add(7)? >> 3);
        let behind = if end == capacity.0 {
            end.checked_add(7)? >> 3
        } else {
            end >> 3
        };
        BitSpan::new(first, BmBit(behind.checked_sub(1)?))
    }

    /// Number of bits.
    pub const fn len(self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1)
    }

    /// Never true; here because `len` is.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The parts of the run, each within one resync extent.
    pub fn per_rs_extent(self) -> impl Iterator<Item = (RsExtent, BitSpan)> {
        let mut rest = Some(self);
        core::iter::from_fn(move || {
            let span = rest?;
            let edge = BmBit(span.first.0 | BITS_PER_RS_EXTENT.saturating_sub(1));
            let part = BitSpan::new(span.first, span.last.min(edge))?;
            rest = BitSpan::new(BmBit(edge.0.saturating_add(1)), span.last);
            Some((RsExtent(saturate_u32(span.first.0 >> 12)), part))
        })
    }
}

/// How much storage a bitmap takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Words of 64 bits.
    pub words: u64,
    /// Pages, each with one [`PageFlags`].
    pub pages: u64,
}

impl Need {
    /// The storage for a device of this size.
    pub const fn of(capacity: Sectors) -> Need {
        let bits = capacity.bits();
        Need {
            words: scan::words_for(bits),
            pages: bits.saturating_add(BITS_PER_PAGE - 1) >> 15,
        }
    }
}

/// The bitmap of one device towards one peer.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Bitmap<W, F> {
    words: W,
    flags: F,
    capacity: Sectors,
    weight: u64,
}

impl<W, F> core::hash::Hash for Bitmap<W, F>
where
    W: DerefMut<Target = [u64]>,
    F: DerefMut<Target = [PageFlags]>,
{
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (*self.words).hash(state);
        (*self.flags).hash(state);
        self.capacity.hash(state);
    }
}

impl<W, F> Bitmap<W, F>
where
    W: DerefMut<Target = [u64]>,
    F: DerefMut<Target = [PageFlags]>,
{
    /// A bitmap with all bits clear and all pages unchanged.
    ///
    /// # Errors
    /// Says what is needed if the storage is too small, and gives it back.
    pub fn new(capacity: Sectors, words: W, flags: F) -> Result<Self, (Need, W, F)> {
        if !fits(capacity, &words, &flags) {
            return Err((Need::of(capacity), words, flags));
        }
        let mut bitmap = Bitmap {
            words,
            flags,
            capacity,
            weight: 0,
        };
        bitmap.words.iter_mut().for_each(|w| *w = 0);
        bitmap.flags.iter_mut().for_each(|f| *f = PageFlags::EMPTY);
        Ok(bitmap)
    }

    /// Size of the device that is covered.
    pub fn capacity(&self) -> Sectors {
        self.capacity
    }

    /// Number of bits: one for every 4 KiB, the last one possibly for less.
    pub fn bits(&self) -> u64 {
        self.capacity.bits()
    }

    /// Number of words in use, the unit in which the bitmap is exchanged.
    pub fn word_count(&self) -> u64 {
        scan::words_for(self.bits())
    }

    /// Number of pages in use.
    pub fn page_count(&self) -> u64 {
        Need::of(self.capacity).pages
    }

    /// Number of set bits.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Whether the bit is set; `None` behind the end.
    pub fn test(&self, bit: BmBit) -> Option<bool> {
        if bit.0 >= self.bits() {
            return None;
        }
        Some(scan::count(&self.words, bit.0, bit.0) != 0)
    }

    /// Number of set bits in the run.
    pub fn count(&self, span: BitSpan) -> u64 {
        scan::count(&self.words, span.first.0, self.clip(span))
    }

    /// Number of set bits in a resync extent.
    pub fn count_in(&self, extent: RsExtent) -> u32 {
        let first = u64::from(extent.0).saturating_mul(BITS_PER_RS_EXTENT);
        let last = first.saturating_add(BITS_PER_RS_EXTENT - 1);
        saturate_u32(scan::count(&self.words, first, last))
    }

    /// Sets the bits of the run, as far as they exist; returns how many were clear.
    pub fn set(&mut self, span: BitSpan) -> u64 {
        let mut changed = 0_u64;
        self.for_each_page(span, |words, flags, first, last| {
            let n = scan::set(words, first, last);
            if n != 0 {
                flags.insert(PageFlags::NEED_WRITEOUT);
                changed = changed.saturating_add(n);
            }
        });
        self.weight = self.weight.saturating_add(changed);
        changed
    }

    /// Clears the bits of the run; returns how many were set.
    pub fn clear(&mut self, span: BitSpan) -> u64 {
        let mut changed = 0_u64;
        self.for_each_page(span, |words, flags, first, last| {
            let n = scan::clear(words, first, last);
            if n != 0 {
                flags.insert(PageFlags::LAZY_WRITEOUT);
                changed = changed.saturating_add(n);
            }
        });
        self.weight = self.weight.saturating_sub(changed);
        changed
    }

    /// Sets every bit; all pages are to be written.
    pub fn set_all(&mut self) {
        self.words.iter_mut().for_each(|w| *w = u64::MAX);
        self.after_fill();
    }

    /// Clears every bit; all pages are to be written.
    pub fn clear_all(&mut self) {
        self.words.iter_mut().for_each(|w| *w = 0);
        self.after_fill();
    }

    fn after_fill(&mut self) {
        self.recount();
        self.mark_all_changed();
    }

    /// Marks every page as one that must be written.
    pub fn mark_all_changed(&mut self) {
        let pages = index(self.page_count());
        for flags in self.flags.iter_mut().take(pages) {
            flags.insert(PageFlags::NEED_WRITEOUT);
        }
    }

    /// Clears what lies behind the end and counts anew; returns the weight.
    pub fn recount(&mut self) -> u64 {
        let bits = self.bits();
        scan::clear(&mut self.words, bits, u64::MAX);
        self.weight = scan::weight(&self.words);
        self.weight
    }

    /// The first set bit from `from` on.
    pub fn next_set(&self, from: BmBit) -> Option<BmBit> {
        // Nothing is set behind the end.
        scan::find(&self.words, from.0, 0).map(BmBit)
    }

    /// The first clear bit from `from` on.
    pub fn next_clear(&self, from: BmBit) -> Option<BmBit> {
        scan::find(&self.words, from.0, u64::MAX)
            .filter(|bit| *bit < self.bits())
            .map(BmBit)
    }

    /// Word `n`: bits 64n and up, the lowest first. Its little-endian bytes are what wire and disk
    /// carry. `None` behind the last word.
    pub fn word(&self, n: u64) -> Option<u64> {
        if n >= self.word_count() {
            return None;
        }
        self.words.get(index(n)).copied()
    }

    /// Merges received words, the first of which is word `offset`. Returns how many bits became
    /// set; `None`, with nothing changed, if the words reach behind the last one.
    pub fn or_words(
        &mut self,
        offset: u64,
        words: impl ExactSizeIterator<Item = u64>,
    ) -> Option<u64> {
        let end = offset.checked_add(crate::units::widen(words.len()))?;
        if end > self.word_count() {
            return None;
        }
        let tail = self.tail_mask();
        let last = self.word_count().saturating_sub(1);
        let mut changed = 0_u64;
        for (n, theirs) in (offset..end).zip(words) {
            let theirs = if n == last { theirs & tail } else { theirs };
            let Some(ours) = self.words.get_mut(index(n)) else {
                break;
            };
            let new = theirs & !*ours;
            if new != 0 {
                *ours |= new;
                changed = changed.saturating_add(u64::from(new.count_ones()));
                self.mark(n >> 9, PageFlags::NEED_WRITEOUT);
            }
        }
        self.weight = self.weight.saturating_add(changed);
        Some(changed)
    }

    /// The bits of the last word that exist.
    fn tail_mask(&self) -> u64 {
        match saturate_u32(self.bits() & 63) {
            0 => u64::MAX,
            n => !u64::MAX.wrapping_shl(n),
        }
    }

    /// The flags of page `n`; none for a page that does not exist.
    pub fn page_flags(&self, n: u64) -> PageFlags {
        self.flags.get(index(n)).copied().unwrap_or_default()
    }

    /// The first page from `from` on that has one of these flags.
    pub fn next_page(&self, from: u64, wanted: PageFlags) -> Option<u64> {
        let rest = self.flags.get(index(from)..)?;
        (from..self.page_count())
            .zip(rest.iter())
            .find(|(_, flags)| flags.intersects(wanted))
            .map(|(n, _)| n)
    }

    /// Marks the page of an extent that the activity log is about to forget.
    pub fn hint(&mut self, extent: AlExtent) {
        self.mark(u64::from(extent.0 >> 5), PageFlags::HINT);
    }

    /// Forgets all hints.
    pub fn clear_hints(&mut self) {
        for flags in self.flags.iter_mut() {
            flags.remove(PageFlags::HINT);
        }
    }

    /// Marks a page as one that must be written, for instance since its write failed.
    pub fn mark_changed(&mut self, page: u64) {
        self.mark(page, PageFlags::NEED_WRITEOUT);
    }

    fn mark(&mut self, page: u64, what: PageFlags) {
        if page < self.page_count() {
            if let Some(flags) = self.flags.get_mut(index(page)) {
                flags.insert(what);
            }
        }
    }

    /// Takes the marks of change off a page, right before its write is submitted, and says what
    /// they were. Changes from then on mark it again.
    pub fn take_changed(&mut self, page: u64) -> PageFlags {
        let Some(flags) = self.flags.get_mut(index(page)) else {
            return PageFlags::EMPTY;
        };
        let old = *flags;
        flags.remove(PageFlags::NEED_WRITEOUT);
        flags.remove(PageFlags::LAZY_WRITEOUT);
        old
    }

    /// Copies page `n` as it goes to the disk; `false` if there is no such page.
    pub fn copy_page(&self, n: u64, out: &mut [u8; PAGE_BYTES]) -> bool {
        out.iter_mut().for_each(|b| *b = 0);
        if n >= self.page_count() {
            return false;
        }
        let from = index(n.saturating_mul(WORDS_PER_PAGE));
        let words = self.words.get(from..).unwrap_or(&[]);
        for (bytes, word) in out.chunks_exact_mut(8).zip(words) {
            for (to, b) in bytes.iter_mut().zip(word.to_le_bytes()) {
                *to = b;
            }
        }
        true
    }

    /// Replaces page `n` by what the disk has; the page counts as unchanged. `false` if there is no
    /// such page.
    pub fn load_page(&mut self, n: u64, page: &[u8; PAGE_BYTES]) -> bool {
        if n >= self.page_count() {
            return false;
        }
        let tail = self.tail_mask();
        let last = self.word_count().saturating_sub(1);
        let from = n.saturating_mul(WORDS_PER_PAGE);
        for (at, bytes) in (from..=last).zip(page.chunks_exact(8)) {
            let mut le = [0_u8; 8];
            le.iter_mut().zip(bytes).for_each(|(to, b)| *to = *b);
            let mut new = u64::from_le_bytes(le);
            if at == last {
                new &= tail;
            }
            if let Some(word) = self.words.get_mut(index(at)) {
                let old = core::mem::replace(word, new);
                self.weight = self
                    .weight
                    .saturating_sub(u64::from(old.count_ones()))
                    .saturating_add(u64::from(new.count_ones()));
            }
        }
        self.take_changed(n);
        true
    }

    /// Whether the storage is large enough for a device of this size.
    pub fn has_room_for(&self, capacity: Sectors) -> bool {
        fits(capacity, &self.words, &self.flags)
    }

    /// Makes it cover `capacity`. New bits are set if `set_new`, clear if not; a page with new bits
    /// counts as changed either way: the disk has anything there. Bits behind a smaller end are
    /// forgotten, and the page with the new end counts as changed.
    ///
    /// # Errors
    /// Says how much storage is needed if the present one is too small; nothing has changed then.
    /// Hand it in with [`Bitmap::swap_storage`] and try again.
    pub fn resize(&mut self, capacity: Sectors, set_new: bool) -> Result<(), Need> {
        if !fits(capacity, &self.words, &self.flags) {
            return Err(Need::of(capacity));
        }
        let old = self.bits();
        let old_pages = index(self.page_count());
        self.capacity = capacity;
        let pages = index(self.page_count());
        for flags in self.flags.iter_mut().skip(old_pages.min(pages)) {
            *flags = PageFlags::EMPTY;
        }
        if capacity.bits() < old {
            self.recount();
        }
        let added = BitSpan::new(BmBit(old), BmBit(self.bits().saturating_sub(1)));
        if let (true, Some(added), true) = (set_new, added, self.bits() > 0) {
            self.set(added);
        }
        if self.bits() != old {
            let end = self.bits().min(old);
            for page in end >> 15..self.page_count() {
                self.mark(page, PageFlags::NEED_WRITEOUT);
            }
        }
        Ok(())
    }

    /// Moves everything into other storage and returns the present one.
    ///
    /// # Errors
    /// Gives the new storage back if it is too small.
    pub fn swap_storage(&mut self, mut words: W, mut flags: F) -> Result<(W, F), (W, F)> {
        if !fits(self.capacity, &words, &flags) {
            return Err((words, flags));
        }
        words.iter_mut().for_each(|w| *w = 0);
        flags.iter_mut().for_each(|f| *f = PageFlags::EMPTY);
        for (to, from) in words.iter_mut().zip(self.words.iter()) {
            *to = *from;
        }
        for (to, from) in flags.iter_mut().zip(self.flags.iter()) {
            *to = *from;
        }
        core::mem::swap(&mut self.words, &mut words);
        core::mem::swap(&mut self.flags, &mut flags);
        Ok((words, flags))
    }

    fn clip(&self, span: BitSpan) -> u64 {
        span.last.0.min(self.bits().saturating_sub(1))
    }

    /// Runs `apply` on each page of the run with the bits of it that are meant.
    fn for_each_page(
        &mut self,
        span: BitSpan,
        mut apply: impl FnMut(&mut [u64], &mut PageFlags, u64, u64),
    ) {
        let last = self.clip(span);
        if span.first.0 >= self.bits() {
            return;
        }
        let mut first = span.first.0;
        while first <= last {
            let edge = first | (BITS_PER_PAGE - 1);
            if let Some(flags) = self.flags.get_mut(index(first >> 15)) {
                apply(&mut self.words, flags, first, edge.min(last));
            }
            first = edge.saturating_add(1);
        }
    }
}

fn fits(capacity: Sectors, words: &[u64], flags: &[PageFlags]) -> bool {
    scan::holds(words.len(), capacity.bits())
        && crate::units::widen(flags.len()) >= Need::of(capacity).pages
}

#[cfg(test)]
mod tests;
