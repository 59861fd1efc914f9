// SPDX-License-Identifier: GPL-2.0

//! Where the parts of the metadata lie, and whether a superblock makes sense.
//!
//! ```text
//! internal:   data … │ bitmap │ activity log │ superblock │ (less than 4 KiB unused)
//! external:   superblock │ activity log │ bitmap …
//! ```
//!
//! The offsets of a superblock are relative to it. drbdmeta works out the same numbers by itself
//! and refuses others, so that none of the formulas may be improved.

use super::superblock::{Flags, Superblock, MAGIC_07, MAGIC_08, MAGIC_84_UNCLEAN};
use crate::limits::{max_al_extents, MAX_SECTORS_FLEX, MAX_SECTORS_INDEXED};
use crate::units::{saturate_u32, Sector, Sectors, BYTES_PER_BIT};

/// Sectors of one indexed slot: 128 MiB.
const INDEXED_SIZE: u32 = 262_144;
/// Sectors of a block of 4 KiB.
const BLOCK: u32 = 8;
/// Smallest metadata device without an index, in sectors (1 MiB).
const FLEX_MIN: u64 = 2048;
/// Most blocks of an activity log: 16 GiB.
const AL_BLOCKS_MAX: u32 = 4_194_304;

/// Where the metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Behind the data, on the same device.
    Internal,
    /// A device of its own.
    FlexExternal,
    /// One of several slots of 128 MiB on another device.
    Indexed(u32),
}

impl Kind {
    /// From the configuration (`meta-dev-idx`): −1 and −3 internal, −2 flexible, from 0 an index.
    pub const fn from_index(index: i32) -> Option<Kind> {
        match index {
            -3 | -1 => Some(Kind::Internal),
            -2 => Some(Kind::FlexExternal),
            n if n >= 0 => Some(Kind::Indexed(n.unsigned_abs())),
            _ => None,
        }
    }
}

/// The sizes of the two devices; the same number twice for internal metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Devices {
    /// Capacity of the device with the data.
    pub backing: Sectors,
    /// Capacity of the device with the metadata.
    pub meta: Sectors,
}

/// How the blocks of the activity log's ring are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Striping {
    stripes: u32,
    stripe_blocks: u32,
}

impl Striping {
    /// One stripe of 8 blocks, 32 KiB.
    pub const DEFAULT: Striping = Striping {
        stripes: 1,
        stripe_blocks: 8,
    };

    /// `stripes` times `stripe_blocks` blocks of 4 KiB; both zero means the default. `None` unless
    /// that makes 8 to 4194304 blocks.
    pub fn new(stripes: u32, stripe_blocks: u32) -> Option<Striping> {
        if stripes == 0 && stripe_blocks == 0 {
            return Some(Striping::DEFAULT);
        }
        let blocks = stripes.checked_mul(stripe_blocks)?;
        if !(8..=AL_BLOCKS_MAX).contains(&blocks) {
            return None;
        }
        Some(Striping {
            stripes,
            stripe_blocks,
        })
    }

    /// Number of stripes.
    pub const fn stripes(self) -> u32 {
        self.stripes
    }

    /// Blocks of 4 KiB in one stripe.
    pub const fn stripe_blocks(self) -> u32 {
        self.stripe_blocks
    }

    /// Blocks of the ring.
    pub const fn blocks(self) -> u32 {
        self.stripes.saturating_mul(self.stripe_blocks)
    }

    /// Sectors of the ring.
    pub const fn sectors(self) -> u32 {
        self.blocks().saturating_mul(BLOCK)
    }

    /// Place in the ring, in blocks, of the transaction with this number.
    pub fn block_of(self, number: u32) -> u32 {
        // Neither divisor can be zero.
        let turn = number.checked_rem(self.blocks()).unwrap_or(0);
        let stripe = turn.checked_rem(self.stripes).unwrap_or(0);
        let row = turn.checked_div(self.stripes).unwrap_or(0);
        stripe
            .saturating_mul(self.stripe_blocks)
            .saturating_add(row)
    }

    /// Most slots that an activity log with this ring can have (`al-extents` is clipped to it).
    pub const fn max_al_extents(self) -> u32 {
        max_al_extents(self.blocks())
    }
}

/// Why metadata is not used. The order is that of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// It could not be read.
    Io,
    /// The activity log has not been applied.
    Unclean,
    /// It is that of 0.7.
    Old,
    /// It is none, or of a version unknown here.
    NoMagic,
    /// A bit covers something else than 4 KiB.
    BytesPerBit,
    /// The striping of the activity log is impossible.
    Striping,
    /// Activity log and bitmap are not where they can be.
    Offsets,
    /// Indexed metadata that is not of the one fixed form.
    Indexed,
    /// It is larger than the device it is on.
    TooLarge,
    /// The activity log or the bitmap is not aligned, or the log is not of the size of its stripes.
    ActivityLog,
    /// The bitmap has no room for the size last agreed upon.
    Bitmap,
}

impl Invalid {
    /// DRBD's number for it: `ERR_IO_MD_DISK`, `ERR_MD_UNCLEAN` or `ERR_MD_INVALID`.
    pub const fn code(self) -> u32 {
        match self {
            Invalid::Io => 118,
            Invalid::Unclean => 165,
            Invalid::Old
            | Invalid::NoMagic
            | Invalid::BytesPerBit
            | Invalid::Striping
            | Invalid::Offsets
            | Invalid::Indexed
            | Invalid::TooLarge
            | Invalid::ActivityLog
            | Invalid::Bitmap => 119,
        }
    }
}

/// Why the devices are not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unfit {
    /// Internal metadata on another device, or external on the same.
    Index,
    /// The metadata device is too small.
    MetaTooSmall,
    /// The backing device is smaller than configured or than what is in use.
    BackingTooSmall,
    /// Good data would be cut off without having been asked for.
    ImplicitShrink,
}

impl Unfit {
    /// DRBD's number for it: `ERR_MD_IDX_INVALID`, `ERR_MD_DISK_TOO_SMALL`, `ERR_DISK_TOO_SMALL` or
    /// `ERR_IMPLICIT_SHRINK`.
    pub const fn code(self) -> u32 {
        match self {
            Unfit::Index => 116,
            Unfit::MetaTooSmall => 112,
            Unfit::BackingTooSmall => 111,
            Unfit::ImplicitShrink => 170,
        }
    }
}

/// Where everything is on the metadata device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Where the metadata is.
    pub kind: Kind,
    /// Sector of the superblock.
    pub superblock: Sector,
    /// Activity log, in sectors from the superblock.
    pub al_offset: i32,
    /// Bitmap, in sectors from the superblock.
    pub bm_offset: i32,
    /// Sectors of the whole area.
    pub md_size: u32,
    /// The ring of the activity log.
    pub striping: Striping,
}

/// The sector of the superblock; `None` if the device is too small to have one.
pub fn superblock_sector(kind: Kind, backing: Sectors) -> Option<Sector> {
    match kind {
        Kind::Internal => (backing.0 & !7).checked_sub(u64::from(BLOCK)).map(Sector),
        Kind::FlexExternal => Some(Sector(0)),
        Kind::Indexed(n) => Some(Sector(u64::from(INDEXED_SIZE).saturating_mul(u64::from(n)))),
    }
}

impl Layout {
    /// The layout that drbdmeta and the kernel give these devices. `None` if it cannot be expressed
    /// or internal metadata would leave no room for data.
    pub fn compute(kind: Kind, devices: Devices, striping: Striping) -> Option<Layout> {
        let superblock = superblock_sector(kind, devices.backing)?;
        let al = striping.sectors();
        let (al_offset, bm_offset, md_size) = match kind {
            Kind::Indexed(_) => (8, i32::try_from(BLOCK.checked_add(al)?).ok()?, INDEXED_SIZE),
            Kind::FlexExternal => (
                8,
                i32::try_from(BLOCK.checked_add(al)?).ok()?,
                saturate_u32(devices.meta.0),
            ),
            Kind::Internal => {
                // One sector of bitmap for 16 MiB, in whole blocks.
                let bitmap = (devices.backing.0.checked_add(32_767)? >> 15).checked_add(7)? & !7;
                let front = u32::try_from(bitmap).ok()?.checked_add(al)?;
                (
                    i32::try_from(al).ok()?.checked_neg()?,
                    i32::try_from(front).ok()?.checked_neg()?,
                    front.checked_add(BLOCK)?,
                )
            }
        };
        let layout = Layout {
            kind,
            superblock,
            al_offset,
            bm_offset,
            md_size,
            striping,
        };
        superblock.0.checked_add_signed(i64::from(bm_offset))?;
        Some(layout)
    }

    /// First sector of the area: where data ends if the metadata is internal.
    pub fn first_sector(&self) -> Sector {
        match self.kind {
            Kind::Internal => self.relative(self.bm_offset),
            Kind::FlexExternal | Kind::Indexed(_) => self.superblock,
        }
    }

    /// Last sector of the area.
    pub fn last_sector(&self) -> Sector {
        let sectors = match self.kind {
            Kind::Internal => BLOCK,
            Kind::FlexExternal | Kind::Indexed(_) => self.md_size,
        };
        Sector(
            self.superblock
                .0
                .saturating_add(u64::from(sectors).saturating_sub(1)),
        )
    }

    /// Whether a block of 4 KiB at `sector` lies in the area.
    pub fn contains_block(&self, sector: Sector) -> bool {
        sector >= self.first_sector() && sector.0.saturating_add(7) <= self.last_sector().0
    }

    fn relative(&self, offset: i32) -> Sector {
        Sector(self.superblock.0.saturating_add_signed(i64::from(offset)))
    }

    /// Sector of the activity log block of the transaction with this number.
    pub fn al_block(&self, number: u32) -> Sector {
        let block = u64::from(self.striping.block_of(number));
        self.relative(self.al_offset).plus(Sectors(block << 3))
    }

    /// First sector of page `n` of the bitmap.
    pub fn bitmap_page(&self, n: u64) -> Sector {
        self.relative(self.bm_offset)
            .plus(Sectors(n.saturating_mul(u64::from(BLOCK))))
    }

    /// Sectors set aside for the bitmap.
    pub fn bitmap_sectors(&self) -> Sectors {
        let (al, bm) = (i64::from(self.al_offset), i64::from(self.bm_offset));
        let sectors = if self.al_offset < 0 {
            al.saturating_sub(bm)
        } else {
            i64::from(self.md_size).saturating_sub(bm)
        };
        Sectors(u64::try_from(sectors).unwrap_or(0))
    }

    /// Largest device that could be offered with this layout and a backing device of that size.
    pub fn max_data_sectors(&self, backing: Sectors) -> Sectors {
        match self.kind {
            Kind::Internal if backing.0 == 0 => backing,
            Kind::Internal => Sectors(self.first_sector().0).min(MAX_SECTORS_FLEX),
            Kind::FlexExternal => {
                let covered = Sectors(self.bitmap_sectors().0.saturating_mul(32_768));
                backing.min(MAX_SECTORS_FLEX).min(covered)
            }
            Kind::Indexed(_) => backing.min(MAX_SECTORS_INDEXED),
        }
    }
}

/// Checks a superblock that was read from where [`superblock_sector`] says, in the order of the C
/// driver. The offsets it gives are taken, not worked out anew.
///
/// # Errors
/// The first check that fails.
pub fn validate(sb: &Superblock, kind: Kind, devices: Devices) -> Result<Layout, Invalid> {
    let applied = sb.flags.contains(Flags::AL_CLEAN);
    if sb.magic == MAGIC_84_UNCLEAN || (sb.magic == MAGIC_08 && !applied) {
        return Err(Invalid::Unclean);
    }
    if sb.magic != MAGIC_08 {
        return Err(match sb.magic {
            MAGIC_07 => Invalid::Old,
            _ => Invalid::NoMagic,
        });
    }
    if sb.bm_bytes_per_bit != BYTES_PER_BIT {
        return Err(Invalid::BytesPerBit);
    }
    let striping = Striping::new(sb.al_stripes, sb.al_stripe_size_4k).ok_or(Invalid::Striping)?;
    let superblock = superblock_sector(kind, devices.backing).ok_or(Invalid::TooLarge)?;
    let layout = Layout {
        kind,
        superblock,
        al_offset: sb.al_offset,
        bm_offset: sb.bm_offset,
        md_size: sb.md_size,
        striping,
    };
    check_offsets(&layout, devices.meta)?;
    // Rounded down as in C: the last bits of an odd size are not asked for.
    let needed = (sb.la_size.0.saturating_add(7) >> 3) >> 12;
    if layout.bitmap_sectors().0 < needed {
        return Err(Invalid::Bitmap);
    }
    Ok(layout)
}

fn check_offsets(layout: &Layout, meta: Sectors) -> Result<(), Invalid> {
    let (al, bm) = (i64::from(layout.al_offset), i64::from(layout.bm_offset));
    let ring = i64::from(layout.striping.sectors());
    // C takes either order on every kind of device, and a bitmap behind the end of the area: of
    // those that drbdmeta writes there is none, and the log would be over the superblock.
    let al_sectors = if matches!(layout.kind, Kind::Internal) {
        if al >= 0 || bm > al {
            return Err(Invalid::Offsets);
        }
        al.saturating_neg()
    } else {
        if al != 8 || bm < ring.saturating_add(8) || bm > i64::from(layout.md_size) {
            return Err(Invalid::Offsets);
        }
        bm.saturating_sub(8)
    };
    if matches!(layout.kind, Kind::Indexed(_))
        && (layout.md_size != INDEXED_SIZE
            || al != 8
            || bm != 72
            || layout.striping != Striping::DEFAULT)
    {
        return Err(Invalid::Indexed);
    }
    let room = meta.0.checked_sub(u64::from(layout.md_size));
    // In front of the device's first sector nothing can be; C takes that for a huge number.
    let first = match layout.kind {
        Kind::Internal => layout.superblock.0.checked_add_signed(bm),
        Kind::FlexExternal | Kind::Indexed(_) => Some(layout.superblock.0),
    };
    match (room, first) {
        (Some(room), Some(first)) if room >= first => (),
        (_, _) => return Err(Invalid::TooLarge),
    }
    if al_sectors & 7 != 0 || al_sectors < 64 || al_sectors != ring || bm & 7 != 0 {
        return Err(Invalid::ActivityLog);
    }
    Ok(())
}

/// Whether metadata of this kind can be on these devices, before anything is read. `same`: data and
/// metadata are on one device.
///
/// # Errors
/// `Index` or `MetaTooSmall`.
pub fn check_devices(kind: Kind, devices: Devices, same: bool) -> Result<(), Unfit> {
    if same != matches!(kind, Kind::Internal) {
        return Err(Unfit::Index);
    }
    let least = match kind {
        Kind::Internal | Kind::FlexExternal => FLEX_MIN,
        Kind::Indexed(n) => u64::from(INDEXED_SIZE).saturating_mul(u64::from(n).saturating_add(1)),
    };
    if devices.meta.0 < least {
        return Err(Unfit::MetaTooSmall);
    }
    Ok(())
}

/// Whether a device that can offer `max` may be attached: `configured` is the option `size` (0:
/// none), `current` what is exported now (0: nothing).
///
/// # Errors
/// `BackingTooSmall`.
pub fn check_capacity(max: Sectors, configured: Sectors, current: Sectors) -> Result<(), Unfit> {
    if max < configured || max < current {
        return Err(Unfit::BackingTooSmall);
    }
    Ok(())
}

/// Whether the size `new`, just worked out, would cut off good data without being asked for.
///
/// # Errors
/// `ImplicitShrink`.
pub fn check_shrink(sb: &Superblock, new: Sectors, configured: Sectors) -> Result<(), Unfit> {
    if sb.flags.contains(Flags::CONSISTENT) && new < sb.la_size && new != configured {
        return Err(Unfit::ImplicitShrink);
    }
    Ok(())
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
