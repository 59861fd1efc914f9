// SPDX-License-Identifier: GPL-2.0

//! Counting, setting, clearing and finding bits in a slice of 64-bit words.
//!
//! Bit n is bit n mod 64 of word n / 64. Ranges are given by their first and last bit; what lies
//! behind the end of the slice is ignored. Pure functions: the weight and the page flags are the
//! business of the bitmap.

use crate::units::{index, widen};

/// Words that a change touches: the whole ones in the middle and the masked ones at both ends.
fn for_each_masked<'a>(
    words: &'a mut [u64],
    first: u64,
    last: u64,
    mut apply: impl FnMut(&'a mut u64, u64),
) {
    let (from, to) = (first >> 6, last >> 6);
    let Some(words) = words.get_mut(index(from)..) else {
        return;
    };
    for (n, word) in (from..=to).zip(words.iter_mut()) {
        apply(word, mask(n, from, to, first, last));
    }
}

/// The bits of word `n` that lie in `first..=last`.
fn mask(n: u64, from: u64, to: u64, first: u64, last: u64) -> u64 {
    let mut mask = u64::MAX;
    if n == from {
        mask &= u64::MAX.wrapping_shl(low6(first));
    }
    if n == to {
        mask &= u64::MAX.wrapping_shr(63_u32.saturating_sub(low6(last)));
    }
    mask
}

fn low6(bit: u64) -> u32 {
    crate::units::saturate_u32(bit & 63)
}

/// Number of set bits in `first..=last`.
pub(super) fn count(words: &[u64], first: u64, last: u64) -> u64 {
    if first > last {
        return 0;
    }
    let (from, to) = (first >> 6, last >> 6);
    let mut sum = 0_u64;
    for (n, word) in (from..=to).zip(words.get(index(from)..).unwrap_or(&[])) {
        let bits = word & mask(n, from, to, first, last);
        sum = sum.saturating_add(u64::from(bits.count_ones()));
    }
    sum
}

/// Sets `first..=last`; returns how many were clear.
pub(super) fn set(words: &mut [u64], first: u64, last: u64) -> u64 {
    let mut sum = 0_u64;
    if first <= last {
        for_each_masked(words, first, last, |word, mask| {
            sum = sum.saturating_add(u64::from((mask & !*word).count_ones()));
            *word |= mask;
        });
    }
    sum
}

/// Clears `first..=last`; returns how many were set.
pub(super) fn clear(words: &mut [u64], first: u64, last: u64) -> u64 {
    let mut sum = 0_u64;
    if first <= last {
        for_each_masked(words, first, last, |word, mask| {
            sum = sum.saturating_add(u64::from((mask & *word).count_ones()));
            *word &= !mask;
        });
    }
    sum
}

/// The first bit from `from` on that is set (`flip` = 0) or clear (`flip` = all ones).
pub(super) fn find(words: &[u64], from: u64, flip: u64) -> Option<u64> {
    let mut mask = u64::MAX.wrapping_shl(low6(from));
    let start = from >> 6;
    let rest = words.get(index(start)..)?;
    for (n, word) in (start..).zip(rest.iter()) {
        let bits = (word ^ flip) & mask;
        if bits != 0 {
            return n
                .checked_mul(64)?
                .checked_add(u64::from(bits.trailing_zeros()));
        }
        mask = u64::MAX;
    }
    None
}

/// Number of set bits in all words.
pub(super) fn weight(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum: u64, word| {
        sum.saturating_add(u64::from(word.count_ones()))
    })
}

/// Number of words that hold `bits` bits.
pub(super) const fn words_for(bits: u64) -> u64 {
    bits.saturating_add(63) >> 6
}

/// Whether a slice of `len` words holds `bits` bits.
pub(super) fn holds(len: usize, bits: u64) -> bool {
    widen(len) >= words_for(bits)
}
