// SPDX-License-Identifier: GPL-2.0

//! Sizes that DRBD fixes: of the logs, the requests and the devices.
//!
//! The ranges of configuration options are part of the netlink schema, not of this file.

use crate::units::{Sector, SectorRange, Sectors};

/// Most extents that one activity log transaction can exchange; a field of the disk format.
pub const AL_UPDATES_PER_TRANSACTION: u32 = 64;
/// Slots whose present extents one activity log transaction repeats; a field of the disk format.
pub const AL_CONTEXT_PER_TRANSACTION: u32 = 919;
/// Fewest slots of the activity log (`al-extents`).
pub const AL_EXTENTS_MIN: u32 = 67;
/// Slots of the activity log if nothing is configured.
pub const AL_EXTENTS_DEFAULT: u32 = 1237;
/// Most slots of the activity log: slot numbers on disk have 16 bits, 0xffff means none.
pub const AL_EXTENTS_MAX: u32 = 65534;
/// Slots of the set of resync extents.
pub const RESYNC_EXTENTS: usize = 61;
/// Largest ordinary request, in bytes.
pub const MAX_BIO_SIZE: u32 = 1 << 20;
/// Largest discard or write-zeroes request, in bytes: half a transaction of extents.
pub const MAX_BATCH_BIO_SIZE: u32 = 128 << 20;
/// Largest request that any peer takes, in bytes.
pub const MAX_BIO_SIZE_SAFE: u32 = 4096;
/// Largest device with flexible or internal metadata that the C driver announces on 64 bits.
pub const MAX_SECTORS_FLEX: Sectors = Sectors(1 << 51);
/// Largest device with indexed metadata: what the bitmap of a 128 MiB slot covers.
pub const MAX_SECTORS_INDEXED: Sectors = Sectors(262_072 * 32_768);

/// Most activity log slots that a ring of `blocks` blocks can describe: every slot must have been
/// repeated once before its last mention is overwritten.
pub const fn max_al_extents(blocks: u32) -> u32 {
    if blocks > 72 {
        return AL_EXTENTS_MAX;
    }
    blocks
        .saturating_sub(1)
        .saturating_mul(AL_CONTEXT_PER_TRANSACTION)
}

/// The part of `range` that a disk can discard: it forgets whole units of `unit` sectors only, the
/// first of which begins at sector `first`. `None` if no unit lies in it whole.
pub fn discardable(range: SectorRange, unit: u32, first: u32) -> Option<SectorRange> {
    let unit = u64::from(unit.max(1));
    let first = u64::from(first).checked_rem(unit)?;
    // How far a sector is into its unit.
    let into = |sector: u64| {
        sector
            .saturating_add(unit.saturating_sub(first))
            .checked_rem(unit)
    };
    let end = range.start.plus(range.len).0;
    let start = match into(range.start.0)? {
        0 => range.start.0,
        n => range.start.0.saturating_add(unit.saturating_sub(n)),
    };
    let len = end.saturating_sub(into(end)?).checked_sub(start)?;
    (len > 0).then_some(SectorRange {
        start: Sector(start),
        len: Sectors(len),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a look at each sector.
    #[test]
    fn what_can_be_discarded_is_all_whole_units() {
        for (unit, first) in [(1, 0), (0, 0), (8, 0), (8, 3), (7, 5), (8, 19)] {
            for (start, len) in (0..30_i64).flat_map(|s| (0..40_i64).map(move |l| (s, l))) {
                let range = SectorRange {
                    start: Sector(start.unsigned_abs()),
                    len: Sectors(len.unsigned_abs()),
                };
                let step = i64::from(unit.max(1));
                let offset = i64::from(first) % step;
                let whole = |s: &i64| {
                    let begin = (s - offset).div_euclid(step) * step + offset;
                    begin >= start && begin + step <= start + len
                };
                let wanted: Vec<i64> = (start..start + len).filter(whole).collect();
                let found = discardable(range, unit, first);
                let found = found.map_or(0..0, |r| r.start.0..r.start.0 + r.len.0);
                let found: Vec<u64> = found.collect();
                let wanted: Vec<u64> = wanted.iter().map(|s| s.unsigned_abs()).collect();
                assert_eq!(found, wanted, "{start}+{len}, units {unit} from {first}");
            }
        }
    }

    #[test]
    fn slots_that_a_ring_describes() {
        assert_eq!(max_al_extents(8), 6433);
        assert_eq!(max_al_extents(72), 65249);
        assert_eq!(max_al_extents(73), 65534);
        assert_eq!(MAX_SECTORS_INDEXED, Sectors(8_587_575_296));
    }
}
