// SPDX-License-Identifier: GPL-2.0

//! Calls of the user-mode helper, `/sbin/drbdadm`: see netlink.md §8 of the specification sheets.

use drbd_core::node::{HelperCommand, VolIx};
use drbd_kapi::umh;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use crate::admin::events;
use crate::objects::resource::Resource;

/// The program, as the C driver's default has it.
const PROGRAM: &CStr = c"/sbin/drbdadm";

/// Runs the helper and waits for it; returns its exit code, 0 if it could not be run (as the C
/// driver does: no helper means no objection).
pub(crate) fn call(resource: &Arc<Resource>, command: HelperCommand, vol: Option<VolIx>) -> u8 {
    match try_call(resource, command, vol) {
        Ok(code) => code,
        Err(e) => {
            pr_warn!("drbd {}: helper {} did not run: {:?}\n", resource.label(), command.name(), e);
            0
        }
    }
}

fn try_call(resource: &Arc<Resource>, command: HelperCommand, vol: Option<VolIx>) -> Result<u8> {
    let word = CString::try_from_fmt(fmt!("{}", command.name()))?;
    let about = match vol.and_then(|v| resource.volume(v)) {
        Some(volume) => CString::try_from_fmt(fmt!("minor-{}", volume.minor.0))?,
        None => CString::try_from_fmt(fmt!("{}", resource.label()))?,
    };
    let (family, address) = resource.peer_address();
    let family = CString::try_from_fmt(fmt!("DRBD_PEER_AF={}", family))?;
    let address = CString::try_from_fmt(fmt!("DRBD_PEER_ADDRESS={}", address))?;
    let argv: [&CStr; 3] = [PROGRAM, &word, &about];
    let envp: [&CStr; 5] = [
        c"HOME=/",
        c"TERM=linux",
        c"PATH=/sbin:/usr/sbin:/bin:/usr/bin",
        &family,
        &address,
    ];
    let what = command.name();
    // The core logs both ends of the call.
    events::helper_call(resource, vol, what);
    let status = umh::call(PROGRAM, &argv, &envp)?;
    let code = status.code();
    events::helper_response(resource, vol, what, code);
    Ok(code)
}
