// SPDX-License-Identifier: GPL-2.0

//! What attaching a disk needs, worked out from its superblock before the machine is involved.

use crate::bitmap;
use crate::meta::layout::{check_capacity, check_devices, validate, Devices as Capacities, Kind};
use crate::meta::{Invalid, Superblock};
use crate::nl::conf::DiskConf;
use crate::nl::ErrCode;
use crate::units::{Sector, Sectors};

use super::super::super::note::Note;
use super::super::disk::{BackingLimits, Disk};

/// The two devices of a disk.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Devices {
    /// Capacity of the device with the data, sectors.
    pub backing: Sectors,
    /// Capacity of the device with the metadata, sectors.
    pub meta: Sectors,
    /// They are the same device.
    pub same: bool,
}

/// What the owner has to allocate, and the disk as its superblock describes it.
#[derive(Clone, Copy, Debug, Hash)]
pub struct AttachNeeds {
    /// Slots of the activity log.
    pub al_slots: u32,
    /// Words and pages of the bitmap, for the largest size the disk has room for.
    pub bitmap: bitmap::Need,
    /// The capacity to make the bitmap for.
    pub capacity: Sectors,
    /// Slots of the set of resync extents.
    pub extents: usize,
    /// Goes into the `Backing`.
    pub disk: Disk,
}

/// Where the superblock is read from; to be asked before [`attach_needs`].
///
/// # Errors
/// `MD_IDX_INVALID`, `MD_DISK_TOO_SMALL`.
pub fn superblock_sector(conf: &DiskConf, devices: Devices) -> Result<Sector, ErrCode> {
    let kind = Kind::from_index(conf.meta_dev_idx).ok_or(ErrCode::MdIdxInvalid)?;
    if devices.same != matches!(kind, Kind::Internal) {
        return Err(ErrCode::MdIdxInvalid);
    }
    crate::meta::layout::superblock_sector(kind, devices.backing).ok_or(ErrCode::MdDiskTooSmall)
}

/// Checks what can be checked without the volume: configuration, sizes, superblock. `device` is
/// the size of the volume now (0: none).
///
/// # Errors
/// The code to answer with, and the line that explains it.
pub fn attach_needs(
    conf: &DiskConf,
    devices: Devices,
    device: Sectors,
    limits: BackingLimits,
    page: &[u8; 4096],
) -> Result<AttachNeeds, (ErrCode, Note)> {
    let unknown = (ErrCode::MdIdxInvalid, Note::BadIndex(conf.meta_dev_idx));
    let kind = Kind::from_index(conf.meta_dev_idx).ok_or(unknown)?;
    let capacities = Capacities {
        backing: devices.backing,
        meta: devices.meta,
    };
    if devices.same != matches!(kind, Kind::Internal) {
        return Err(unknown);
    }
    let sb = Superblock::decode(page);
    let layout = validate(&sb, kind, capacities).map_err(refusal)?;
    let mut disk = Disk::new(*conf, &sb, layout, capacities, limits);
    let (max, wanted) = (disk.max_size(), Sectors(conf.disk_size));
    if max < wanted {
        return Err((ErrCode::DiskTooSmall, Note::DiskSizeTooBig { max, wanted }));
    }
    if check_devices(kind, capacities, devices.same).is_err() {
        let needed = match kind {
            Kind::Internal | Kind::FlexExternal => 2048,
            Kind::Indexed(n) => u64::from(n).saturating_add(1).saturating_mul(262_144),
        };
        let note = Note::MdTooSmall {
            needed: Sectors(needed),
        };
        return Err((ErrCode::MdDiskTooSmall, note));
    }
    if check_capacity(max, wanted, device).is_err() {
        return Err((ErrCode::DiskTooSmall, Note::DiskTooSmall { max, device }));
    }
    disk.sanitize();
    Ok(AttachNeeds {
        al_slots: disk.al_extents,
        bitmap: bitmap::Need::of(max),
        capacity: max,
        extents: crate::limits::RESYNC_EXTENTS,
        disk,
    })
}

fn refusal(why: Invalid) -> (ErrCode, Note) {
    match why {
        Invalid::Io => (ErrCode::IoMdDisk, Note::MetaIoFailed),
        Invalid::Unclean => (ErrCode::MdUnclean, Note::UncleanMetaData),
        Invalid::Old => (ErrCode::MdInvalid, Note::OldMetaData),
        Invalid::NoMagic => (ErrCode::MdInvalid, Note::NoMetaData),
        Invalid::BytesPerBit
        | Invalid::Striping
        | Invalid::Offsets
        | Invalid::Indexed
        | Invalid::TooLarge
        | Invalid::ActivityLog
        | Invalid::Bitmap => (ErrCode::MdInvalid, Note::BadMetaData(why)),
    }
}
