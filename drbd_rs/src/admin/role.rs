// SPDX-License-Identifier: GPL-2.0

//! Roles and suspension: `primary`, `secondary`, `suspend-io`, `resume-io`, and the question which
//! timeout a wait for the peer has.

use drbd_core::nl::conf::SetRoleParms;
use drbd_core::nl::info::TimeoutParms;
use drbd_core::nl::{Audience, Mode, Writer};
use drbd_core::node::admin::Command;

use super::request::{ask, optional, Call, Outcome, Refusal, DONE};
use super::view::VolumeView;
use kernel::prelude::*;

/// `primary`.
#[inline(never)]
pub(super) fn primary(call: &Call<'_>) -> Outcome {
    let parms = role_parms(call)?;
    let device = call.device()?;
    ask(&device.resource, Command::Primary { vol: device.ix(), force: parms.assume_uptodate })
}

/// `secondary`. Its parameters are of no meaning, but have to be well-formed.
#[inline(never)]
pub(super) fn secondary(call: &Call<'_>) -> Outcome {
    role_parms(call)?;
    let device = call.device()?;
    ask(&device.resource, Command::Secondary { vol: device.ix() })
}

fn role_parms(call: &Call<'_>) -> Result<SetRoleParms, Refusal> {
    let base = SetRoleParms::default();
    optional(SetRoleParms::from_attrs(base, call.attrs(), Mode::New), base)
}

/// `suspend-io`.
#[inline(never)]
pub(super) fn suspend_io(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    ask(&device.resource, Command::SuspendIo { vol: device.ix() })
}

/// `resume-io`.
#[inline(never)]
pub(super) fn resume_io(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    ask(&device.resource, Command::ResumeIo { vol: device.ix() })
}

/// Puts the timeout type.
#[inline(never)]
pub(super) fn timeout_type(call: &Call<'_>, w: &mut Writer<'_>) -> Outcome {
    let view = VolumeView::of(call.device()?).ok_or(ENODEV)?;
    TimeoutParms { timeout_type: view.timeout_type }.put(w, Audience::Everybody);
    DONE
}
