// SPDX-License-Identifier: GPL-2.0

//! The bitmap against a vector of booleans.

use super::*;
use crate::units::Sector;
use proptest::prelude::*;

type Plain = Bitmap<Vec<u64>, Vec<PageFlags>>;

fn bitmap(sectors: u64) -> Plain {
    let need = Need::of(Sectors(sectors));
    let (words, pages) = (need.words as usize, need.pages as usize);
    // Rubbish in the storage must not matter.
    Bitmap::new(
        Sectors(sectors),
        vec![0x55; words],
        vec![PageFlags::HINT; pages],
    )
    .unwrap()
}

fn span(first: u64, last: u64) -> BitSpan {
    BitSpan::new(BmBit(first), BmBit(last)).unwrap()
}

fn agrees(b: &Plain, model: &[bool]) {
    assert_eq!(b.bits() as usize, model.len());
    assert_eq!(b.weight() as usize, model.iter().filter(|s| **s).count());
    assert_eq!(scan::weight(&b.words), b.weight());
    for (n, s) in model.iter().enumerate() {
        assert_eq!(b.test(BmBit(n as u64)), Some(*s));
    }
    assert_eq!(b.test(BmBit(model.len() as u64)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn behaves_like_booleans(
        sectors in 0u64..9000,
        ops in proptest::collection::vec((0u8..7, 0u64..1200, 0u64..300, any::<u64>()), 0..30),
    ) {
        let mut b = bitmap(sectors);
        let mut model = vec![false; b.bits() as usize];
        for (op, first, len, bits) in ops {
            let last = first + len;
            let hit = model.iter().skip(first as usize).take(len as usize + 1);
            let ones = hit.clone().filter(|s| **s).count() as u64;
            let zeros = hit.count() as u64 - ones;
            prop_assert_eq!(b.count(span(first, last)), ones);
            match op {
                0 | 1 => {
                    let value = op == 0;
                    let run = span(first, last);
                    let n = if value { b.set(run) } else { b.clear(run) };
                    prop_assert_eq!(n, if value { zeros } else { ones });
                    let run = model.iter_mut().skip(first as usize).take(len as usize + 1);
                    run.for_each(|s| *s = value);
                }
                2 => {
                    let offset = first / 64;
                    let n = b.or_words(offset, [bits, !bits].into_iter());
                    let fits = offset + 2 <= b.word_count();
                    prop_assert_eq!(n.is_some(), fits);
                    for at in (0..128).filter(|_| fits) {
                        let word = if at < 64 { bits } else { !bits };
                        let on = word >> (at % 64) & 1 == 1;
                        if let (true, Some(s)) = (on, model.get_mut((offset * 64 + at) as usize)) {
                            *s = true;
                        }
                    }
                }
                3 => {
                    let mut page = [0; PAGE_BYTES];
                    let mut other = bitmap(b.capacity().0);
                    prop_assert_eq!(b.copy_page(0, &mut page), b.bits() > 0);
                    prop_assert_eq!(other.load_page(0, &page), b.bits() > 0);
                    agrees(&other, &model);
                    prop_assert!(!other.page_flags(0).is_changed());
                }
                4 => {
                    let size = bits % 9000;
                    let need = Need::of(Sectors(size));
                    if b.resize(Sectors(size), len % 2 == 0) == Err(need) {
                        let words = vec![7; need.words as usize];
                        let flags = vec![PageFlags::HINT; need.pages as usize];
                        prop_assert!(b.swap_storage(words, flags).is_ok());
                        prop_assert_eq!(b.resize(Sectors(size), len % 2 == 0), Ok(()));
                    }
                    model.resize(Sectors(size).bits() as usize, len % 2 == 0);
                }
                5 if bits % 4 == 0 => {
                    b.set_all();
                    model.fill(true);
                }
                6 if bits % 4 == 0 => {
                    b.clear_all();
                    model.fill(false);
                }
                _ => (),
            }
            agrees(&b, &model);
            let from = BmBit(first);
            for (value, found) in [(true, b.next_set(from)), (false, b.next_clear(from))] {
                let wanted = model.iter().skip(first as usize).position(|s| *s == value);
                prop_assert_eq!(found.map(|b| b.0), wanted.map(|n| n as u64 + first));
            }
        }
    }

    #[test]
    fn rounding(capacity in 1u64..80, start in 0u64..90, len in 0u64..40) {
        let range = SectorRange { start: Sector(start), len: Sectors(len) };
        let cap = Sectors(capacity);
        let sectors_of = |bit: u64| bit * 8..((bit + 1) * 8).min(capacity);
        let inside = |s: u64| s >= start && s < start + len;
        let bits = 0..cap.bits();
        let touched: Vec<u64> = bits.clone().filter(|b| sectors_of(*b).any(inside)).collect();
        let covered: Vec<u64> = bits.filter(|b| sectors_of(*b).all(inside)).collect();
        let list = |s: Option<BitSpan>| s.map_or(vec![], |s| (s.first.0..=s.last.0).collect());
        prop_assert_eq!(list(BitSpan::outward(range, cap)), touched);
        prop_assert_eq!(list(BitSpan::inward(range, cap)), covered);
    }
}

/// The case in which the C driver forgets the last word.
#[test]
fn a_full_last_word_survives_loading() {
    let mut b = bitmap(512);
    assert_eq!(b.bits(), 64);
    assert!(b.load_page(0, &[0xff; PAGE_BYTES]));
    assert_eq!(
        (b.weight(), b.recount(), b.word(0)),
        (64, 64, Some(u64::MAX))
    );
    assert_eq!(b.word(1), None);
}

#[test]
fn flags_follow_the_pages() {
    let mut b = bitmap(3 * 32768 * 8);
    assert_eq!((b.page_count(), b.page_flags(0)), (3, PageFlags::EMPTY));
    assert_eq!(b.set(span(32767, 32768)), 2);
    assert_eq!(b.next_page(0, PageFlags::NEED_WRITEOUT), Some(0));
    assert_eq!(b.next_page(2, PageFlags::NEED_WRITEOUT), None);
    assert!(b.take_changed(0).is_changed() && !b.page_flags(0).is_changed());
    assert_eq!(b.set(span(32767, 32767)), 0);
    assert!(!b.page_flags(0).is_changed());
    assert_eq!(b.clear(span(0, 40000)), 2);
    assert_eq!(b.page_flags(0), PageFlags::LAZY_WRITEOUT);
    b.hint(AlExtent(64));
    b.hint(AlExtent(96));
    assert_eq!(b.next_page(0, PageFlags::HINT), Some(2));
    b.clear_hints();
    assert_eq!(b.next_page(0, PageFlags::HINT), None);
}

#[test]
fn spans_are_cut_at_resync_extents() {
    let parts: Vec<_> = span(4095, 12288).per_rs_extent().collect();
    let wanted = [
        (0, 4095, 4095),
        (1, 4096, 8191),
        (2, 8192, 12287),
        (3, 12288, 12288),
    ];
    assert_eq!(parts, wanted.map(|(e, f, l)| (RsExtent(e), span(f, l))));
    let mut b = bitmap(3 * 32768);
    b.set(span(4000, 4100));
    assert_eq!((b.count_in(RsExtent(0)), b.count_in(RsExtent(1))), (96, 5));
    assert_eq!(b.count_in(RsExtent(u32::MAX)), 0);
}
