// SPDX-License-Identifier: GPL-2.0

//! What is done to the disk of a volume, other than attaching it.

use drbd_core::nl::conf::{DetachParms, NewCUuidParms, ResizeParms, StartOvParms};
use drbd_core::nl::{ErrCode, Mode};
use drbd_core::node::admin::Command;
use drbd_core::node::VolIx;
use drbd_core::units::{Minor, Sector};

use super::request::{ask, optional, plain, Call, Outcome, Refusal};
use super::view::VolumeView;
use super::Admin;
use crate::objects::registry::MinorEntry;

/// No chain of `resync-after` is longer: each link was checked when it was made.
const LONGEST_CHAIN: u32 = 4096;

/// Passes a request on that says nothing but which volume.
fn simple(call: &Call<'_>, cmd: impl FnOnce(VolIx) -> Command) -> Outcome {
    let device = call.device()?;
    ask(&device.resource, cmd(device.ix()))
}

/// `detach`.
#[inline(never)]
pub(super) fn detach(call: &Call<'_>) -> Outcome {
    let base = DetachParms::default();
    let parms = optional(DetachParms::from_attrs(base, call.attrs(), Mode::New), base)?;
    let outcome = simple(call, |vol| Command::Detach { vol, force: parms.force_detach });
    if !parms.force_detach {
        // Who detached wants to use the disk: it is closed before the answer.
        call.device()?.resource.errands.flush();
    }
    outcome
}

/// `invalidate`.
#[inline(never)]
pub(super) fn invalidate(call: &Call<'_>) -> Outcome {
    simple(call, |vol| Command::Invalidate { vol })
}

/// `invalidate-remote`.
#[inline(never)]
pub(super) fn invalidate_peer(call: &Call<'_>) -> Outcome {
    simple(call, |vol| Command::InvalidatePeer { vol })
}

/// `outdate`.
#[inline(never)]
pub(super) fn outdate(call: &Call<'_>) -> Outcome {
    simple(call, |vol| Command::Outdate { vol })
}

/// `pause-sync`.
#[inline(never)]
pub(super) fn pause_sync(call: &Call<'_>) -> Outcome {
    plain(simple(call, |vol| Command::PauseSync { vol })?)
}

/// `resume-sync`.
#[inline(never)]
pub(super) fn resume_sync(call: &Call<'_>) -> Outcome {
    plain(simple(call, |vol| Command::ResumeSync { vol })?)
}

/// `new-current-uuid`.
#[inline(never)]
pub(super) fn new_current_uuid(call: &Call<'_>) -> Outcome {
    let base = NewCUuidParms::default();
    let parms = optional(NewCUuidParms::from_attrs(base, call.attrs(), Mode::New), base)?;
    plain(simple(call, |vol| Command::NewCurrentUuid { vol, clear_bitmap: parms.clear_bm })?)
}

/// `resize`: with the sizes that the lower devices have by now.
#[inline(never)]
pub(super) fn resize(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    let vol = device.ix();
    let resource = &device.resource;
    if !resource.has_disk(vol) {
        return Err(ErrCode::NoDisk.into());
    }
    let base = resource.inner.lock().machine.resize_base(vol);
    let parms = optional(ResizeParms::from_attrs(base, call.attrs(), Mode::New), base)?;
    resource.measure(vol);
    plain(simple(call, |vol| Command::Resize { vol, parms })?)
}

/// `verify`: from where the last one ended to the end of the device, unless told otherwise.
#[inline(never)]
pub(super) fn verify(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    let last = device.resource.inner.lock().machine.verify_start(device.ix());
    let base = StartOvParms { ov_start_sector: last.0, ov_stop_sector: u64::MAX };
    let parms = optional(StartOvParms::from_attrs(base, call.attrs(), Mode::New), base)?;
    let (start, stop) = (Sector(parms.ov_start_sector), Sector(parms.ov_stop_sector));
    simple(call, |vol| Command::Verify { vol, start, stop })
}

/// Judges `resync-after`: it must not lead back to the volume itself. A minor that does not exist
/// or has no disk is nothing to wait for, and allowed.
pub(super) fn check_resync_after(
    admin: &Admin,
    device: &MinorEntry,
    after: i32,
) -> Result<(), Refusal> {
    if after < -1 {
        return Err(ErrCode::ResyncAfter.into());
    }
    let mut after = after;
    for _ in 0..LONGEST_CHAIN {
        let Ok(minor) = u32::try_from(after) else { return Ok(()) };
        if minor == device.minor.0 {
            return Err(ErrCode::ResyncAfterCycle.into());
        }
        let next = admin.registry.minor(Minor(minor));
        let disk = next.and_then(|e| VolumeView::of(&e)).and_then(|v| v.disk);
        match disk {
            Some(disk) => after = disk.conf.resync_after,
            None => return Ok(()),
        }
    }
    Err(ErrCode::ResyncAfterCycle.into())
}
