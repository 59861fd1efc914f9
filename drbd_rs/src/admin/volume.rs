// SPDX-License-Identifier: GPL-2.0

//! Volumes come and go: `new-minor`, `del-minor`.

use drbd_core::nl::ErrCode;
use drbd_core::node::admin::Command;
use drbd_core::node::{VolIx, VolumeStorage};
use drbd_core::units::{Minor, Vnr};
use drbd_kapi::mem;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::request::{ask, plain, succeeded, Call, Outcome, Refusal, DONE};
use super::view::VolumeView;
use super::{events, storage, Admin};
use crate::exec::StepHost;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::{Machine, Resource};
use crate::objects::store::KernelStore;
use crate::objects::volume::Volume;

/// Minor numbers have 20 bits.
const MINOR_MAX: u32 = 0xf_ffff;

/// `new-minor`.
#[inline(never)]
pub(super) fn create(call: &Call<'_>) -> Outcome {
    let refuse = |text| Err(Refusal::with(ErrCode::InvalidRequest, text));
    let resource = call.resource()?;
    let minor = Minor(call.header.minor);
    if minor.0 > MINOR_MAX {
        return refuse("requested minor out of range");
    }
    let Some(vnr) = call.valid_volume() else {
        return refuse("requested volume id out of range");
    };
    if call.has_device() {
        return if call.exclusive() { Err(ErrCode::MinorOrVolumeExists.into()) } else { DONE };
    }
    let entry = add(call.admin, resource, minor, vnr)?;
    events::volume_created(&entry);
    DONE
}

/// Makes room in the lists of the machine and of the driver. Returns the index to be used.
fn make_room(resource: &Resource) -> Result<VolIx> {
    let mut inner = resource.inner.lock();
    let len = inner.volumes.len();
    if let Some(free) = inner.volumes.iter().position(Option::is_none) {
        return Ok(VolIx(u16::try_from(free).map_err(|_| ENOMEM)?));
    }
    let longer = storage::volumes(len)?;
    let room = longer.len();
    let ix = u16::try_from(len).map_err(|_| ENOMEM)?;
    mem::reserve(&mut inner.volumes, room.saturating_sub(len), GFP_KERNEL)?;
    for _ in len..room {
        mem::push(&mut inner.volumes, None, GFP_KERNEL)?;
    }
    // What comes back is empty.
    let _ = inner.machine.swap_volumes(longer);
    Ok(VolIx(ix))
}

fn add(
    admin: &Admin,
    resource: &Arc<Resource>,
    minor: Minor,
    vnr: Vnr,
) -> Result<MinorEntry, Refusal> {
    if events::next_volume(resource, u32::from(vnr.0)).is_some_and(|e| e.vnr == vnr) {
        return Err(ErrCode::MinorOrVolumeExists.into());
    }
    let ix = make_room(resource)?;
    let storage = storage::volume()?;
    let creating = admin.registry.creating();
    if admin.registry.minor(minor).is_some() {
        return Err(ErrCode::MinorOrVolumeExists.into());
    }
    // The device comes first: the peer's answer to a new volume may already give it a size.
    let volume = Volume::new(admin.module, resource, ix, minor, vnr)?;
    let entry = MinorEntry { minor, vnr, resource: resource.clone(), volume: volume.clone() };
    admin.registry.add_minor(entry.clone())?;
    drop(creating);
    if let Some(slot) = resource.inner.lock().volumes.get_mut(usize::from(ix.0)) {
        *slot = Some(volume);
    }
    let mut added = Err(ErrCode::Nomem);
    resource.drive(|machine, host| added = enter(machine, minor, vnr, storage, host));
    match added {
        Ok(at) if at == ix => Ok(entry),
        Ok(_) => {
            // Both lists are filled from the front, and only here.
            pr_err!("drbd {}: lists of volumes differ; please report this\n", resource.label());
            forget(admin, &entry);
            Err(ErrCode::Nomem.into())
        }
        Err(code) => {
            forget(admin, &entry);
            Err(code.into())
        }
    }
}

/// Enters the volume into the machine. Not inlined: a volume takes kilobytes of the stack, which
/// the steps that follow need.
#[inline(never)]
fn enter(
    machine: &mut Machine,
    minor: Minor,
    vnr: Vnr,
    storage: VolumeStorage<KernelStore>,
    host: &mut StepHost<'_>,
) -> Result<VolIx, ErrCode> {
    machine.add_volume(minor, vnr, storage, host).map_err(|(code, _)| code)
}

/// Frees what the machine kept about a removed volume. Not inlined: see [`enter`].
#[inline(never)]
fn free(resource: &Resource, vol: VolIx) {
    drop(resource.inner.lock().machine.take_volume(vol));
}

/// Removes the device and its names. The machine does not know the volume any more.
fn forget(admin: &Admin, entry: &MinorEntry) {
    let ix = usize::from(entry.ix().0);
    let slot = entry.resource.inner.lock().volumes.get_mut(ix).and_then(Option::take);
    // Outside the lock: this waits for users. Before the minor is free: a reader of the status may
    // keep the volume for a while, and a new device of this name must not meet the old one.
    entry.volume.disk.remove();
    drop(slot);
    drop(admin.registry.remove_minor(entry.minor));
    // Who waited for it waits no longer.
    admin.registry.reconsider_pauses();
}

/// `del-minor`.
#[inline(never)]
pub(super) fn delete(call: &Call<'_>) -> Outcome {
    let entry = call.device()?;
    plain(remove(call.admin, entry)?)
}

/// Removes a volume that is Secondary and Diskless.
pub(super) fn remove(admin: &Admin, entry: &MinorEntry) -> Outcome {
    let resource = &entry.resource;
    let code = ask(resource, Command::DelVolume { vol: entry.ix() })?;
    if !succeeded(code) {
        return Ok(code);
    }
    if let Some(view) = VolumeView::of(entry) {
        events::volume_destroyed(entry, &view);
    }
    free(resource, entry.ix());
    forget(admin, entry);
    Ok(code)
}

