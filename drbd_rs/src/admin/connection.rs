// SPDX-License-Identifier: GPL-2.0

//! `connect` and `disconnect`.

use drbd_core::nl::conf::{DisconnectParms, NetConf};
use drbd_core::nl::{Bin, ErrCode, Mode};
use drbd_core::node::admin::Command;
use drbd_core::node::PEER;
use drbd_kapi::net::addr::SockAddr;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::events;
use super::options::check_algorithms;
use super::request::{ask, optional, plain, succeeded, Call, Outcome, Refusal};
use crate::objects::connection::Setup;
use crate::objects::resource::Resource;

/// `connect`.
#[inline(never)]
pub(super) fn connect(call: &Call<'_>) -> Outcome {
    let resource = call.resource()?;
    let (Some(my), Some(peer)) = (&call.context.ctx_my_addr, &call.context.ctx_peer_addr) else {
        let text = "connection endpoint(s) missing";
        return Err(Refusal::with(ErrCode::InvalidRequest, text));
    };
    check_addresses(call, my, peer)?;
    if resource.inner.lock().setup.is_some() {
        return Err(ErrCode::NetConfigured.into());
    }
    let setup = read_setup(call, my, peer)?;
    check_algorithms(&setup.conf)?;
    {
        // Loading algorithms took its time, so the addresses are looked at once more.
        let _creating = call.admin.registry.creating();
        check_addresses(call, my, peer)?;
        // The receiver looks for it as soon as the core has decided; so do listeners.
        resource.inner.lock().setup = Some(setup.clone());
    }
    let outcome = ask(resource, Command::Connect { peer: PEER, conf: setup.conf });
    let mut inner = resource.inner.lock();
    // Refused, or the administrator was killed: the core knows.
    if !inner.machine.connection_status(PEER).is_some_and(|c| c.conf.is_some()) {
        inner.setup = None;
    }
    drop(inner);
    outcome
}

/// The new connection. Not inlined: options are large, and the stack is not.
#[inline(never)]
fn read_setup(call: &Call<'_>, my: &Bin<128>, peer: &Bin<128>) -> Result<Arc<Setup>, Refusal> {
    let base = NetConf::default();
    let conf = optional(NetConf::from_attrs(base, call.attrs(), Mode::New), base)?.clamped();
    let setup = Setup { conf, my: address(my)?, peer: address(peer)? };
    Ok(Arc::new(setup, GFP_KERNEL).map_err(Error::from)?)
}

/// Two connections must not share an address: the peer could not tell them apart.
fn check_addresses(call: &Call<'_>, my: &Bin<128>, peer: &Bin<128>) -> Result<(), Refusal> {
    let uses = |wanted: fn(&Setup) -> &SockAddr, addr: &Bin<128>| {
        let found = call.admin.find_resource(|r| {
            let setup = r.inner.lock().setup.clone();
            setup.is_some_and(|s| wanted(&s).as_bytes() == addr.as_bytes())
        });
        found.is_some()
    };
    if uses(|s| &s.my, my) {
        return Err(ErrCode::LocalAddr.into());
    }
    if uses(|s| &s.peer, peer) {
        return Err(ErrCode::PeerAddr.into());
    }
    Ok(())
}

fn address(raw: &Bin<128>) -> Result<SockAddr, Refusal> {
    let unknown = "drbd_rs knows IPv4 and IPv6 addresses only";
    SockAddr::from_bytes(raw.as_bytes())
        .map_err(|_| Refusal::with(ErrCode::InvalidRequest, unknown))
}

/// `disconnect`.
#[inline(never)]
pub(super) fn disconnect(call: &Call<'_>) -> Outcome {
    let base = DisconnectParms::default();
    let parms = optional(DisconnectParms::from_attrs(base, call.attrs(), Mode::New), base)?;
    plain(leave(call.resource()?, parms.force_disconnect)?)
}

/// Disconnects; a connection that does not stand is no error.
pub(super) fn leave(resource: &Arc<Resource>, force: bool) -> Outcome {
    let code = ask(resource, Command::Disconnect { peer: PEER, force })?;
    if succeeded(code) {
        events::connection_gone(resource);
    }
    Ok(code)
}
