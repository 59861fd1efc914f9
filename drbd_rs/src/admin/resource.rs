// SPDX-License-Identifier: GPL-2.0

//! Resources come and go: `new-resource`, `del-resource`, `down`.

use drbd_core::nl::conf::ResourceOpts;
use drbd_core::nl::{ErrCode, Mode};
use drbd_core::node::admin::Command;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use super::events;
use super::options::check_cpu_mask;
use super::request::{ask, optional, succeeded, Call, Outcome, Refusal, DONE};
use super::view::ConnectionView;
use super::{connection, storage, volume, Admin};
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;
use crate::threads::standing;

/// `new-resource`.
#[inline(never)]
pub(super) fn create(call: &Call<'_>) -> Outcome {
    let base = ResourceOpts::default();
    let opts = optional(ResourceOpts::from_attrs(base, call.attrs(), Mode::New), base)?.clamped();
    let name = call.context.ctx_resource_name.filter(|n| !n.is_empty());
    let missing = Refusal::with(ErrCode::MandatoryTag, "resource name missing");
    let name = name.ok_or(missing)?;
    let invalid = || Refusal::with(ErrCode::InvalidRequest, "invalid resource name");
    if name.as_bytes().contains(&b'/') {
        return Err(invalid());
    }
    if call.has_resource() {
        return if call.exclusive() {
            Err(Refusal::with(ErrCode::InvalidRequest, "resource exists"))
        } else {
            DONE
        };
    }
    check_cpu_mask(&opts)?;
    // Names are shown and compared as text everywhere.
    let name = CString::try_from_fmt(fmt!("{}", name.as_str().ok_or_else(invalid)?))?;
    let resource = build(call, name, opts)?;
    standing::start(&resource)?;
    if let Err(refusal) = enter(call, &resource) {
        standing::stop(&resource);
        return Err(refusal);
    }
    events::resource_created(&resource);
    DONE
}

/// Makes the resource known, unless somebody else was faster with the name.
fn enter(call: &Call<'_>, resource: &Arc<Resource>) -> Result<(), Refusal> {
    let registry = &call.admin.registry;
    let _creating = registry.creating();
    if registry.resource(resource.label().as_bytes()).is_some() {
        return Err(Refusal::with(ErrCode::InvalidRequest, "resource exists"));
    }
    Ok(registry.add_resource(resource.clone())?)
}

/// Not inlined: see [`storage::machine`].
#[inline(never)]
fn build(call: &Call<'_>, name: CString, opts: ResourceOpts) -> Result<Arc<Resource>> {
    let machine = storage::machine(opts)?;
    let events = call.admin.events.clone();
    let registry = call.admin.registry.clone();
    Resource::new(name, machine, storage::COMPLETIONS, events, registry)
}

/// `del-resource`.
#[inline(never)]
pub(super) fn delete(call: &Call<'_>) -> Outcome {
    remove(call.admin, call.resource()?)
}

fn remove(admin: &Admin, resource: &Arc<Resource>) -> Outcome {
    if ConnectionView::of(resource).is_some() {
        return Err(ErrCode::NetConfigured.into());
    }
    if events::next_volume(resource, 0).is_some() {
        return Err(ErrCode::ResInUse.into());
    }
    forget(admin, resource);
    DONE
}

/// Ends the threads of a resource and lets go of it.
pub(super) fn forget(admin: &Admin, resource: &Arc<Resource>) {
    events::resource_destroyed(resource);
    let removed = admin.registry.remove_resource(resource.label().as_bytes());
    // A helper that is still running may wait for its turn, and the threads for the helper.
    resource.turn.end();
    standing::stop(resource);
    drop(removed);
}

/// `down`.
#[inline(never)]
pub(super) fn down(call: &Call<'_>) -> Outcome {
    bring_down(call.admin, call.resource()?)
}

/// Runs `step` for each volume, in the order of their numbers. `text` says what has failed.
fn each(
    resource: &Arc<Resource>,
    text: &'static str,
    mut step: impl FnMut(&MinorEntry) -> Outcome,
) -> Result<(), Refusal> {
    let mut from = 0u32;
    while let Some(entry) = events::next_volume(resource, from) {
        explain(step(&entry), text)?;
        from = u32::from(entry.vnr.0).saturating_add(1);
    }
    Ok(())
}

/// Puts `text` to a refusal that has no words of its own.
fn explain(outcome: Outcome, text: &'static str) -> Result<(), Refusal> {
    match outcome {
        Ok(code) if succeeded(code) => Ok(()),
        Ok(code) | Err(Refusal::Code(code, None)) => Err(Refusal::Code(code, Some(text))),
        Err(other) => Err(other),
    }
}

/// Unconfigures everything about a resource, and the resource.
pub(super) fn bring_down(admin: &Admin, resource: &Arc<Resource>) -> Outcome {
    each(resource, "failed to demote", |e| ask(resource, Command::Secondary { vol: e.ix() }))?;
    if ConnectionView::of(resource).is_some() {
        explain(connection::leave(resource, false), "failed to disconnect")?;
    }
    each(resource, "failed to detach", |e| {
        ask(resource, Command::Detach { vol: e.ix(), force: false })
    })?;
    each(resource, "failed to delete volume", |e| volume::remove(admin, e))?;
    remove(admin, resource)
}
