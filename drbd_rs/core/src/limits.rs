// SPDX-License-Identifier: GPL-2.0

//! Sizes that DRBD fixes: of the logs, the requests and the devices.
//!
//! The ranges of configuration options are part of the netlink schema, not of this file.

use crate::units::Sectors;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_that_a_ring_describes() {
        assert_eq!(max_al_extents(8), 6433);
        assert_eq!(max_al_extents(72), 65249);
        assert_eq!(max_al_extents(73), 65534);
        assert_eq!(MAX_SECTORS_INDEXED, Sectors(8_587_575_296));
    }
}
