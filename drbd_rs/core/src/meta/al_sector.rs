// SPDX-License-Identifier: GPL-2.0

//! The activity log of DRBD 8.3 and 0.7: sectors of 512 bytes, one exchange in each.
//!
//! ```text
//!  0 magic · 4 number · 8 62 × {slot, extent}, the exchange first, then 61 slots of context
//!  504 xor of the 62 extents · 508 unused            all big endian
//! ```
//!
//! This format is only ever read: by whoever turns metadata of 8.3 into metadata of 8.4, which is
//! the business of drbdmeta (`apply-al`), never of the kernel. The kernel refuses metadata whose
//! log was not applied (ERR_MD_UNCLEAN), in either format, and writes the 8.4 format only; the way
//! back to 8.3 is drbdmeta's as well. See `docs/compatibility.md`.
//!
//! Decoding is total: whatever the bytes, the answer is a sector or `None`.

use super::al_block::{self, ReplaySlot};
use super::layout::Striping;
use super::superblock::MAGIC_84_UNCLEAN;
use crate::store::lru::FREE;

/// The magic of each sector.
pub const MAGIC: u32 = 0x8374_0267;
/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// Entries of a sector: the exchange, and the context.
pub const ENTRIES: usize = 62;
/// Slots of context in a sector.
pub const CONTEXT: u32 = 61;
/// Most slots of a log in this format (64 sectors hold 63 × 61 of them and the newest exchange).
pub const MAX_SLOTS: u32 = 3833;

const ENTRIES_AT: usize = 8;
const XOR_AT: usize = 504;

/// How many sectors a log with so many slots uses, in turn.
pub const fn sectors_for(slots: u32) -> u32 {
    slots.div_ceil(CONTEXT).saturating_add(1)
}

/// A sector whose magic and checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct Sector<'a> {
    bytes: &'a [u8; SECTOR],
}

fn u32_at(bytes: &[u8; SECTOR], at: usize) -> u32 {
    let mut be = [0_u8; 4];
    be.iter_mut()
        .zip(bytes.iter().skip(at))
        .for_each(|(to, b)| *to = *b);
    u32::from_be_bytes(be)
}

fn entries(bytes: &[u8; SECTOR]) -> impl Iterator<Item = (u32, u32)> + '_ {
    (ENTRIES_AT..XOR_AT)
        .step_by(8)
        .map(|at| (u32_at(bytes, at), u32_at(bytes, at.saturating_add(4))))
}

impl<'a> Sector<'a> {
    /// Reads a sector; `None` if it is none or is damaged.
    pub fn decode(bytes: &'a [u8; SECTOR]) -> Option<Sector<'a>> {
        let xor = entries(bytes).fold(0, |xor, (_, extent)| xor ^ extent);
        (u32_at(bytes, 0) == MAGIC && u32_at(bytes, XOR_AT) == xor).then_some(Sector { bytes })
    }

    /// Number of the transaction; wraps, to be compared by signed difference.
    pub fn number(&self) -> u32 {
        u32_at(self.bytes, 4)
    }

    /// Context and exchange, as slot and extent ([`FREE`] for none); the exchange comes last, as it
    /// overrules the context.
    pub fn entries(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        let bytes = self.bytes;
        entries(bytes)
            .skip(1)
            .chain(entries(bytes).take(1))
            .filter(|(slot, _)| *slot != u32::MAX)
    }
}

/// Writes a sector as 8.3 would; for tests, and for whoever has to go back to that format.
pub fn encode(
    number: u32,
    exchange: (u32, u32),
    context: impl Iterator<Item = (u32, u32)>,
    bytes: &mut [u8; SECTOR],
) {
    bytes.iter_mut().for_each(|b| *b = 0);
    let mut put = |at: usize, value: u32| {
        for (to, b) in bytes.iter_mut().skip(at).zip(value.to_be_bytes()) {
            *to = b;
        }
    };
    put(0, MAGIC);
    put(4, number);
    let none = core::iter::repeat((u32::MAX, u32::MAX));
    let all = core::iter::once(exchange).chain(context).chain(none);
    let mut xor = 0;
    for (at, (slot, extent)) in (ENTRIES_AT..XOR_AT).step_by(8).zip(all) {
        put(at, slot);
        put(at.saturating_add(4), extent);
        xor ^= extent;
    }
    put(XOR_AT, xor);
}

/// What a log of this format says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Transactions in order.
    pub transactions: u32,
    /// Sectors that are damaged or none at all.
    pub corrupt: u32,
    /// Number of the newest transaction.
    pub newest: Option<u32>,
    /// Mentions of slots that the storage does not have.
    pub lost: u32,
}

/// Works out which extents are hot from the sectors of a log, in whatever order: of each slot, what
/// the newest transaction that mentions it says. `slots` should hold [`MAX_SLOTS`].
pub fn replay<'a>(
    sectors: impl Iterator<Item = &'a [u8; SECTOR]>,
    slots: &mut [ReplaySlot],
) -> Replayed {
    let mut seen = Replayed::default();
    slots.iter_mut().for_each(|s| *s = ReplaySlot::EMPTY);
    for bytes in sectors {
        let Some(sector) = Sector::decode(bytes) else {
            seen.corrupt = seen.corrupt.saturating_add(1);
            continue;
        };
        let number = sector.number();
        seen.transactions = seen.transactions.saturating_add(1);
        if seen
            .newest
            .is_none_or(|newest| al_block::is_older(newest, number))
        {
            seen.newest = Some(number);
        }
        for (slot, extent) in sector.entries() {
            let known = usize::try_from(slot).ok().and_then(|ix| slots.get_mut(ix));
            match known {
                Some(known) => known.learn(number, extent),
                None if extent == FREE => {}
                None => seen.lost = seen.lost.saturating_add(1),
            }
        }
    }
    seen
}

/// Which of the two formats a log is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Blocks of 4 KiB ([`al_block`]).
    Blocks,
    /// Sectors of 512 bytes.
    Sectors,
}

/// Which format drbdmeta takes a log for: that of 8.4 if the superblock says so, if one of the
/// first two blocks is one, or if it has another striping than the one there is in 8.3.
pub fn format(magic: u32, striping: Striping, first_blocks: [&[u8; 4096]; 2]) -> Format {
    let is_block = |block: &&[u8; 4096]| {
        let [a, b, c, d, ..] = **block;
        u32::from_be_bytes([a, b, c, d]) == al_block::MAGIC
    };
    if magic == MAGIC_84_UNCLEAN
        || striping != Striping::DEFAULT
        || first_blocks.iter().any(is_block)
    {
        Format::Blocks
    } else {
        Format::Sectors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// A log as the kernel of 8.3 writes it: one exchange in each sector, the context in turn.
    struct Log {
        slots: Vec<u32>,
        sectors: Vec<[u8; SECTOR]>,
        number: u32,
        at: usize,
        cycle: u32,
    }

    impl Log {
        fn new(slots: u32, number: u32) -> Log {
            let sectors = vec![[0; SECTOR]; sectors_for(slots) as usize];
            Log {
                slots: vec![FREE; slots as usize],
                sectors,
                number,
                at: 0,
                cycle: 0,
            }
        }

        fn exchange(&mut self, slot: u32, extent: u32) {
            let len = self.slots.len() as u32;
            let context: Vec<_> = (self.cycle..(self.cycle + CONTEXT).min(len))
                .map(|s| (s, self.slots[s as usize]))
                .collect();
            encode(
                self.number,
                (slot, extent),
                context.into_iter(),
                &mut self.sectors[self.at],
            );
            self.at = (self.at + 1) % self.sectors.len();
            self.slots[slot as usize] = extent;
            self.cycle = if self.cycle + CONTEXT >= len {
                0
            } else {
                self.cycle + CONTEXT
            };
            self.number = self.number.wrapping_add(1);
        }

        fn replayed(&self) -> Vec<u32> {
            let mut found = vec![ReplaySlot::EMPTY; self.slots.len()];
            let seen = replay(self.sectors.iter(), &mut found);
            assert_eq!(seen.lost, 0);
            found.iter().map(|s| s.extent().unwrap_or(FREE)).collect()
        }
    }

    #[test]
    fn the_worked_numbers() {
        assert_eq!(
            (sectors_for(127), sectors_for(61), sectors_for(62)),
            (4, 2, 3)
        );
        assert!(sectors_for(MAX_SLOTS) <= 64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn replay_finds_what_the_log_held(
            slots in 7u32..400,
            start in prop::sample::select(vec![0, 5, u32::MAX - 40]),
            moves in prop::collection::vec((any::<u32>(), 0u32..100_000), 1..120),
        ) {
            let mut log = Log::new(slots, start);
            for (slot, extent) in moves {
                log.exchange(slot % slots, extent);
                prop_assert_eq!(log.replayed(), log.slots.clone());
            }
        }

        #[test]
        fn one_flipped_bit_of_an_extent_is_noticed(at in 0usize..ENTRIES, bit in 0u8..8) {
            let mut b = [0; SECTOR];
            encode(7, (3, 9), [(1, 2), (2, FREE)].into_iter(), &mut b);
            let sector = Sector::decode(&b).unwrap();
            prop_assert_eq!(sector.number(), 7);
            let found: Vec<_> = sector.entries().collect();
            prop_assert_eq!(found, vec![(1, 2), (2, FREE), (3, 9)]);
            b[ENTRIES_AT + at * 8 + 4] ^= 1 << bit;
            prop_assert!(Sector::decode(&b).is_none());
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), SECTOR)) {
            let mut b: [u8; SECTOR] = bytes.try_into().unwrap();
            b[..4].copy_from_slice(&MAGIC.to_be_bytes());
            let mut slots = [ReplaySlot::EMPTY; 8];
            let seen = replay([&b].into_iter(), &mut slots);
            prop_assert_eq!(seen.transactions + seen.corrupt, 1);
        }
    }

    #[test]
    fn the_format_is_told_as_drbdmeta_does() {
        let zero = [0; 4096];
        let mut block = [0; 4096];
        block[..4].copy_from_slice(&al_block::MAGIC.to_be_bytes());
        let clean = super::super::superblock::MAGIC_08;
        let default = Striping::DEFAULT;
        let other = Striping::new(2, 8).unwrap();
        assert_eq!(format(clean, default, [&zero, &zero]), Format::Sectors);
        assert_eq!(format(clean, default, [&zero, &block]), Format::Blocks);
        assert_eq!(format(clean, other, [&zero, &zero]), Format::Blocks);
        assert_eq!(
            format(MAGIC_84_UNCLEAN, default, [&zero, &zero]),
            Format::Blocks
        );
    }
}
