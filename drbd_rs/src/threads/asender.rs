// SPDX-License-Identifier: GPL-2.0

//! The receiving end of the meta socket, `drbd_a_<resource>`; it lives as long as a connection.

use drbd_core::node::Sock;
use drbd_kapi::kthread::KThread;
use drbd_kapi::mem::NoIoScope;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::receive;
use crate::objects::connection::Sockets;
use crate::objects::resource::Resource;

/// Starts the thread. It ends by itself when the socket does.
pub(crate) fn start(resource: &Arc<Resource>, sockets: &Arc<Sockets>) -> Result<KThread> {
    let (this, sockets) = (resource.clone(), sockets.clone());
    KThread::spawn(fmt!("drbd_a_{}", resource.label()), move |_| {
        let _noio = NoIoScope::enter();
        receive::until_lost(&this, &sockets, Sock::Meta);
    })
}
