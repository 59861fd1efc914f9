// SPDX-License-Identifier: GPL-2.0

//! Quantities with their units, so that a sector is never taken for a bit.
//!
//! All conversions are total: they saturate or return `None`, they never panic.

/// Bytes in a sector, the unit of every position and length on disk and on the wire.
pub const SECTOR_SIZE: u32 = 512;
/// Sectors covered by one bit of the bitmap (4 KiB).
pub const SECTORS_PER_BIT: u64 = 8;
/// Bytes covered by one bit of the bitmap.
pub const BYTES_PER_BIT: u32 = 4096;
/// Sectors covered by one activity log extent (4 MiB).
pub const SECTORS_PER_AL_EXTENT: u64 = 8192;
/// Bits of the bitmap in one activity log extent.
pub const BITS_PER_AL_EXTENT: u64 = 1024;
/// Sectors covered by one resync extent (16 MiB).
pub const SECTORS_PER_RS_EXTENT: u64 = 32768;
/// Bits of the bitmap in one resync extent.
pub const BITS_PER_RS_EXTENT: u64 = 4096;
/// Activity log extents in one resync extent.
pub const AL_EXTENTS_PER_RS_EXTENT: u32 = 4;

/// A position, counted in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

/// A length, counted in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(pub u64);

/// The number of a bit in the bitmap; it covers 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BmBit(pub u64);

/// The number of an activity log extent; it covers 4 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlExtent(pub u32);

/// The number of a resync extent; it covers 16 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RsExtent(pub u32);

/// The minor number of a device: `/dev/drbd<minor>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u32);

/// The number of a volume in its resource, as `drbd.conf` and the wire name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vnr(pub u16);

/// A run of sectors: the half-open interval `start .. start + len`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SectorRange {
    /// First sector.
    pub start: Sector,
    /// Number of sectors; may be zero.
    pub len: Sectors,
}

/// Narrows to 32 bits; a larger value becomes the largest.
pub const fn saturate_u32(v: u64) -> u32 {
    if v > 0xffff_ffff {
        u32::MAX
    } else {
        // The test above makes this exact.
        #[allow(clippy::as_conversions)]
        {
            v as u32
        }
    }
}

/// Widens an index for arithmetic on units. Every supported machine has at most 64-bit addresses.
pub const fn widen(v: usize) -> u64 {
    #[allow(clippy::as_conversions)]
    {
        v as u64
    }
}

/// Makes an index of a 64-bit number; saturates where addresses are narrower.
pub const fn index(v: u64) -> usize {
    #[allow(clippy::as_conversions)]
    if v > usize::MAX as u64 {
        usize::MAX
    } else {
        v as usize
    }
}

impl Sector {
    /// The sector `len` further on; saturates at the end of the number space.
    pub const fn plus(self, len: Sectors) -> Sector {
        Sector(self.0.saturating_add(len.0))
    }

    /// The bit that covers this sector.
    pub const fn bit(self) -> BmBit {
        BmBit(self.0 >> 3)
    }

    /// The activity log extent that covers this sector.
    pub const fn al_extent(self) -> AlExtent {
        AlExtent(saturate_u32(self.0 >> 13))
    }

    /// The resync extent that covers this sector.
    pub const fn rs_extent(self) -> RsExtent {
        RsExtent(saturate_u32(self.0 >> 15))
    }
}

impl Sectors {
    /// Whole sectors in `bytes`, rounded down.
    pub const fn of_bytes(bytes: u32) -> Sectors {
        #[allow(clippy::as_conversions)]
        Sectors((bytes >> 9) as u64)
    }

    /// The length in bytes; saturates at 2^64 - 1.
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(512)
    }

    /// The length in KiB, rounded down: the unit of `/proc/drbd`.
    pub const fn kib(self) -> u64 {
        self.0 >> 1
    }

    /// Bits needed to cover a device of this size: `ceil(size / 4 KiB)`.
    pub const fn bits(self) -> u64 {
        self.0.saturating_add(7) >> 3
    }
}

impl BmBit {
    /// First sector that this bit covers.
    pub const fn sector(self) -> Sector {
        Sector(self.0.saturating_mul(SECTORS_PER_BIT))
    }
}

impl AlExtent {
    /// The resync extent around this extent.
    pub const fn rs_extent(self) -> RsExtent {
        RsExtent(self.0 >> 2)
    }
}

impl SectorRange {
    /// The range of `bytes` bytes at `start`.
    pub const fn new(start: Sector, bytes: u32) -> SectorRange {
        SectorRange {
            start,
            len: Sectors::of_bytes(bytes),
        }
    }

    /// The sector behind the last one.
    pub const fn end(self) -> Sector {
        self.start.plus(self.len)
    }

    /// Length in bytes; saturates at 2^32 - 1.
    pub const fn bytes(self) -> u32 {
        saturate_u32(self.len.bytes())
    }

    /// The last sector, or the first one of an empty range.
    pub const fn last(self) -> Sector {
        if self.len.0 == 0 {
            self.start
        } else {
            Sector(self.end().0.saturating_sub(1))
        }
    }

    /// Whether the two ranges share a sector. Empty ranges share none.
    pub const fn overlaps(self, other: SectorRange) -> bool {
        self.len.0 != 0
            && other.len.0 != 0
            && self.start.0 < other.end().0
            && other.start.0 < self.end().0
    }

    /// Whether `other` lies wholly inside.
    pub const fn contains(self, other: SectorRange) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }

    /// First and last activity log extent that the range touches.
    pub const fn al_extents(self) -> (AlExtent, AlExtent) {
        (self.start.al_extent(), self.last().al_extent())
    }

    /// First and last resync extent that the range touches.
    pub const fn rs_extents(self) -> (RsExtent, RsExtent) {
        (self.start.rs_extent(), self.last().rs_extent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_a_range() {
        let r = SectorRange::new(Sector(8191), 1024);
        assert_eq!(r.al_extents(), (AlExtent(0), AlExtent(1)));
        assert_eq!(r.rs_extents(), (RsExtent(0), RsExtent(0)));
        assert_eq!(
            SectorRange::new(Sector(8192), 0).al_extents(),
            (AlExtent(1), AlExtent(1))
        );
    }

    #[test]
    fn overlap_is_symmetric_and_needs_a_shared_sector() {
        let a = SectorRange::new(Sector(8), 4096);
        let b = SectorRange::new(Sector(16), 4096);
        let c = SectorRange::new(Sector(15), 512);
        assert!(!a.overlaps(b) && !b.overlaps(a));
        assert!(a.overlaps(c) && c.overlaps(a));
        assert!(!a.overlaps(SectorRange::default()));
    }

    #[test]
    fn bits_round_up() {
        assert_eq!(Sectors(0).bits(), 0);
        assert_eq!(Sectors(1).bits(), 1);
        assert_eq!(Sectors(8).bits(), 1);
        assert_eq!(Sectors(9).bits(), 2);
    }
}
