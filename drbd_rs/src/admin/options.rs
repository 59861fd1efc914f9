// SPDX-License-Identifier: GPL-2.0

//! `resource-options`, `net-options`, `disk-options`: changes of what is configured already.

use drbd_core::nl::conf::{DiskConf, NetConf, ResourceOpts};
use drbd_core::nl::{ErrCode, Mode};
use drbd_core::node::admin::Command;
use drbd_core::node::PEER;
use drbd_kapi::shash::Digest;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use super::disk::check_resync_after;
use super::request::{ask, optional, plain, Call, Outcome, Refusal, DONE};
use super::view::{ResourceView, VolumeView};
use crate::objects::connection::Setup;

/// `resource-options`.
#[inline(never)]
pub(super) fn resource(call: &Call<'_>) -> Outcome {
    let resource = call.resource()?;
    let mut base = ResourceView::of(resource).opts;
    if call.set_defaults() {
        base.set_defaults();
    }
    let opts = optional(ResourceOpts::from_attrs(base, call.attrs(), Mode::Change), base)?;
    check_cpu_mask(&opts)?;
    plain(ask(resource, Command::ResourceOptions { opts: opts.clamped() })?)
}

/// Judges `cpu-mask`: groups of hexadecimal digits with commas between. It is kept and shown; the
/// threads go wherever the scheduler puts them.
pub(super) fn check_cpu_mask(opts: &ResourceOpts) -> Result<(), Refusal> {
    let valid = |b: &u8| b.is_ascii_hexdigit() || *b == b',';
    if opts.cpu_mask.as_bytes().iter().all(valid) {
        Ok(())
    } else {
        Err(ErrCode::InvalidRequest.into())
    }
}

/// `net-options`.
#[inline(never)]
pub(super) fn net(call: &Call<'_>) -> Outcome {
    let resource = call.resource()?;
    let setup = resource.inner.lock().setup.clone();
    let missing = Refusal::with(ErrCode::InvalidRequest, "net conf missing, try connect");
    let setup = setup.ok_or(missing)?;
    let renewed = renewed(call, &setup)?;
    check_algorithms(&renewed.conf)?;
    plain(ask(resource, Command::NetOptions { peer: PEER, conf: renewed.conf })?)?;
    let mut inner = resource.inner.lock();
    // The connection may have come to its end in the meantime.
    if inner.setup.is_some() {
        inner.setup = Some(renewed);
    }
    DONE
}

/// The connection with its new options. Not inlined: options are large, and the stack is not.
#[inline(never)]
fn renewed(call: &Call<'_>, setup: &Setup) -> Result<Arc<Setup>, Refusal> {
    let conf = net_conf(call, &setup.conf)?;
    let renewed = Setup { conf, my: setup.my, peer: setup.peer };
    Ok(Arc::new(renewed, GFP_KERNEL).map_err(Error::from)?)
}

#[inline(never)]
fn net_conf(call: &Call<'_>, now: &NetConf) -> Result<NetConf, Refusal> {
    let mut base = *now;
    if call.set_defaults() {
        base.set_defaults();
    }
    Ok(optional(NetConf::from_attrs(base, call.attrs(), Mode::Change), base)?.clamped())
}

/// Judges the names of digests, by loading each.
pub(super) fn check_algorithms(conf: &NetConf) -> Result<(), Refusal> {
    check_digest("", conf.csums_alg.as_bytes(), ErrCode::CsumsAlg)?;
    check_digest("", conf.verify_alg.as_bytes(), ErrCode::VerifyAlg)?;
    check_digest("", conf.integrity_alg.as_bytes(), ErrCode::IntegrityAlg)?;
    check_digest("hmac", conf.cram_hmac_alg.as_bytes(), ErrCode::AuthAlg)
}

fn check_digest(construction: &str, name: &[u8], unknown: ErrCode) -> Result<(), Refusal> {
    if name.is_empty() {
        return Ok(());
    }
    let name = core::str::from_utf8(name).map_err(|_| Refusal::from(unknown))?;
    let name = if construction.is_empty() {
        CString::try_from_fmt(fmt!("{}", name))?
    } else {
        CString::try_from_fmt(fmt!("{}({})", construction, name))?
    };
    match Digest::new(&name) {
        Ok(_) => Ok(()),
        Err(e) if e == ENOMEM => Err(e.into()),
        Err(_) => Err(unknown.into()),
    }
}

/// `disk-options`.
#[inline(never)]
pub(super) fn disk(call: &Call<'_>) -> Outcome {
    let device = call.device()?;
    let conf = disk_conf(call)?;
    check_resync_after(call.admin, device, conf.resync_after)?;
    plain(ask(&device.resource, Command::DiskOptions { vol: device.ix(), conf: *conf })?)
}

/// The disk's new options. Not inlined: see [`renewed`].
#[inline(never)]
fn disk_conf(call: &Call<'_>) -> Result<KBox<DiskConf>, Refusal> {
    let view = VolumeView::of(call.device()?).ok_or(ENODEV)?;
    let mut base = view.disk.ok_or(ErrCode::NoDisk)?.conf;
    if call.set_defaults() {
        base.set_defaults();
    }
    let conf = optional(DiskConf::from_attrs(base, call.attrs(), Mode::Change), base)?.clamped();
    Ok(KBox::new(conf, GFP_KERNEL).map_err(Error::from)?)
}
