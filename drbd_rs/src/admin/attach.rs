// SPDX-License-Identifier: GPL-2.0

//! `attach`: opens the devices, reads the superblock, and hands all that the core needs to it.
//!
//! Until the core has it, nothing is changed: a refusal only closes the devices.

use drbd_core::nl::conf::DiskConf;
use drbd_core::nl::{ErrCode, Mode};
use drbd_core::node::admin::{self, AttachNeeds, BackingLimits, Devices};
use drbd_core::node::{self, OpId, VolIx};
use drbd_core::state::disk;
use drbd_core::units::Sectors;
use drbd_kapi::block::bio::IoFlags;
use drbd_kapi::block::limits::Limits;
use drbd_kapi::block::pages::PageBuf;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use super::disk::check_resync_after;
use super::request::{told, Call, Outcome, Refusal};
use super::storage;
use super::view::VolumeView;
use crate::objects::backing::{Backing, OpenError};
use crate::objects::registry::MinorEntry;
use crate::exec::StepHost;
use crate::objects::resource::{Answer, Machine};
use crate::objects::store::KernelStore;

/// Bytes of the superblock's block.
const BLOCK: usize = 4096;
/// From this index on, the metadata device is shared by volumes.
const FIRST_SHARED: i32 = 0;

/// `attach`.
#[inline(never)]
pub(super) fn attach(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    let view = KBox::new(VolumeView::of(device).ok_or(ENODEV)?, GFP_KERNEL).map_err(Error::from)?;
    if view.state.disk > disk::State::Diskless {
        return Err(ErrCode::DiskConfigured.into());
    }
    drop(view);
    let conf = read_conf(call)?;
    device.resource.inner.lock().machine.attach_check(device.ix(), &conf)?;
    check_resync_after(call.admin, device, conf.resync_after)?;
    let backing = open(call, device, &conf)?;
    if backing.data().is_part_of(&device.volume.disk) {
        return Err(ErrCode::OpenDisk.into());
    }
    let devices = Devices {
        backing: Sectors(backing.data().capacity()),
        meta: Sectors(backing.meta().capacity()),
        same: backing.is_internal(),
    };
    let page = read_superblock(&backing, &conf, devices)?;
    let limits = BackingLimits {
        meta_apart: !backing.is_internal(),
        ..describe(&backing.data().limits())
    };
    let size = Sectors(device.volume.disk.capacity());
    let needs = work_out(&conf, devices, size, limits, &page)?;
    drop((conf, page));
    hand_over(device, Arc::new(backing, GFP_KERNEL).map_err(Error::from)?, needs)
}

/// Not inlined, like what follows: large values are made and boxed while nothing deep is called.
#[inline(never)]
fn read_conf(call: &Call<'_>) -> Result<KBox<DiskConf>, Refusal> {
    let conf = DiskConf::from_attrs(DiskConf::default(), call.attrs(), Mode::New)?.clamped();
    Ok(KBox::new(conf, GFP_KERNEL).map_err(Error::from)?)
}

#[inline(never)]
fn work_out(
    conf: &DiskConf,
    devices: Devices,
    size: Sectors,
    limits: BackingLimits,
    page: &[u8; BLOCK],
) -> Result<KBox<AttachNeeds>, Refusal> {
    let needs = admin::attach_needs(conf, devices, size, limits, page)
        .map_err(|(code, note)| told(code.number(), &note))?;
    Ok(KBox::new(needs, GFP_KERNEL).map_err(Error::from)?)
}

#[inline(never)]
fn allocate(needs: &AttachNeeds) -> Result<KBox<node::Backing<KernelStore>>, Refusal> {
    let storage = storage::backing(needs).map_err(|_| ErrCode::NomemBitmap)?;
    Ok(KBox::new(storage, GFP_KERNEL).map_err(Error::from)?)
}

#[inline(never)]
fn begin(
    machine: &mut Machine,
    op: OpId,
    vol: VolIx,
    storage: KBox<node::Backing<KernelStore>>,
    host: &mut StepHost<'_>,
) -> Option<Answer> {
    let no = machine.attach(op, vol, storage, host).err()?;
    Some(Answer { code: no.code, info: no.info })
}

fn open(call: &Call<'_>, device: &MinorEntry, conf: &DiskConf) -> Result<Backing, Refusal> {
    let path = |name: &[u8], code: ErrCode| -> Result<CString, Refusal> {
        let text = core::str::from_utf8(name).map_err(|_| Refusal::from(code))?;
        Ok(CString::try_from_fmt(fmt!("{}", text))?)
    };
    let data = path(conf.backing_dev.as_bytes(), ErrCode::OpenDisk)?;
    let meta = path(conf.meta_dev.as_bytes(), ErrCode::OpenMdDisk)?;
    let shared = Some(&call.admin.meta_holder).filter(|_| conf.meta_dev_idx >= FIRST_SHARED);
    let completions = &device.resource.completions;
    Backing::open(&data, &meta, completions, shared).map_err(|e| {
        let (which, code, e) = match e {
            OpenError::Data(e) => (&data, ErrCode::OpenDisk, e),
            OpenError::Meta(e) => (&meta, ErrCode::OpenMdDisk, e),
        };
        pr_err!(
            "drbd {}/{} drbd{}: open(\"{}\") failed with {}\n",
            device.resource.label(),
            device.vnr.0,
            device.minor.0,
            which.to_str().unwrap_or("?"),
            e.to_errno()
        );
        code.into()
    })
}

/// Reads the block with the superblock. The state of the volume is not touched yet, so that this
/// may wait for the disk.
fn read_superblock(
    backing: &Backing,
    conf: &DiskConf,
    devices: Devices,
) -> Result<KBox<[u8; BLOCK]>, Refusal> {
    let sector = admin::superblock_sector(conf, devices)?;
    let mut buf = PageBuf::new(BLOCK)?;
    let flags = IoFlags::META | IoFlags::PRIO | IoFlags::SYNC;
    backing.meta().read_sync(flags, sector.0, &mut buf).map_err(|_| ErrCode::IoMdDisk)?;
    let mut page = KBox::new([0u8; BLOCK], GFP_KERNEL).map_err(Error::from)?;
    buf.read(0, &mut page[..])?;
    Ok(page)
}

/// The core's words for the limits of the backing device.
fn describe(l: &Limits) -> BackingLimits {
    BackingLimits {
        max_bio: l.max_hw_sectors.saturating_mul(512),
        logical_block: l.logical_block_size,
        physical_block: l.physical_block_size,
        alignment_offset: l.alignment_offset,
        io_min: l.io_min,
        io_opt: l.io_opt,
        discard: l.max_discard_sectors != 0,
        discard_granularity: l.discard_granularity,
        write_cache: l.write_cache,
        fua: l.fua,
        rotational: l.rotational,
        meta_apart: false,
    }
}

/// Puts the disk in place and lets the core attach it.
fn hand_over(device: &MinorEntry, backing: Arc<Backing>, needs: KBox<AttachNeeds>) -> Outcome {
    let storage = allocate(&needs)?;
    drop(needs);
    // In its place before the core begins: the first I/O may come at once.
    let _ = device.volume.set_backing(Some(backing));
    let mut refused = false;
    let answer = device.resource.operation(|machine, op, host| {
        let answer = begin(machine, op, device.ix(), storage, host);
        refused = answer.is_some();
        answer
    });
    if refused {
        drop(device.volume.set_backing(None));
    }
    // A disk that was not attached after all is closed before the answer.
    device.resource.errands.flush();
    report(answer?)
}

fn report(answer: Answer) -> Outcome {
    match answer.info {
        None => Ok(answer.code),
        Some(note) => Err(told(answer.code, &note)),
    }
}
