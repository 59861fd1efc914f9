// SPDX-License-Identifier: GPL-2.0

//! The receiver, `drbd_r_<resource>`: connects, hands packets of the data socket to the core, and
//! clears up when a connection ends, until the core tells it to go.

use drbd_core::node::{Input, PeerIx, ReceiverWish, Sock};
use drbd_kapi::kthread::KThread;
use drbd_kapi::mem::NoIoScope;
use drbd_kapi::wait::Wait;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::{asender, connect, receive};
use crate::objects::resource::Resource;

/// Starts the thread, after the previous one of this connection has ended.
pub(crate) fn start(resource: &Arc<Resource>, peer: PeerIx) {
    let previous = resource.threads.lock().receiver.take();
    drop(previous);
    {
        let mut inner = resource.inner.lock();
        inner.closing_when_sent = false;
        inner.closing = false;
    }
    let this = resource.clone();
    let thread = KThread::spawn(fmt!("drbd_r_{}", resource.label()), move |_| {
        let _noio = NoIoScope::enter();
        run(&this, peer);
    });
    match thread {
        Ok(thread) => resource.threads.lock().receiver = Some(thread),
        Err(e) => {
            pr_err!("{}: no receiver thread: {:?}; try connect again\n", resource.label(), e);
            resource.step(Input::ConnectFailed { peer });
            resource.step(Input::ReceiverGone { peer });
        }
    }
}

fn run(resource: &Arc<Resource>, peer: PeerIx) {
    loop {
        match wish(resource, peer) {
            ReceiverWish::Exit => break,
            ReceiverWish::Run => attempt(resource, peer),
            ReceiverWish::Close | ReceiverWish::Pause => close(resource, peer),
        }
    }
    resource.step(Input::ReceiverGone { peer });
}

/// Waits until the core knows what is next.
fn wish(resource: &Resource, peer: PeerIx) -> ReceiverWish {
    let mut wish = ReceiverWish::Pause;
    let _ = resource.changed.wait_until(Wait::Idle, None, || {
        wish = resource.wish(peer);
        wish != ReceiverWish::Pause
    });
    wish
}

/// One connection, from the first attempt to its end.
fn attempt(resource: &Arc<Resource>, peer: PeerIx) {
    match connect::establish(resource, peer) {
        connect::Outcome::Up(sockets) => serve(resource, peer, sockets),
        connect::Outcome::Aborted => close(resource, peer),
        connect::Outcome::Failed => {
            resource.step(Input::ConnectFailed { peer });
        }
    }
}

fn serve(resource: &Arc<Resource>, peer: PeerIx, up: connect::Established) {
    let sockets = Arc::new(up.sockets, GFP_KERNEL);
    let Ok(sockets) = sockets else { return };
    let asender = asender::start(resource, &sockets);
    resource.inner.lock().sockets = Some(sockets.clone());
    resource.measure_all();
    resource.step(Input::Connected {
        peer,
        apv: sockets.apv,
        features: sockets.features,
        arbiter: up.arbiter,
    });
    if asender.is_ok() {
        receive::until_lost(resource, &sockets, Sock::Data);
    } else {
        resource.step(Input::Lost { peer, why: drbd_core::node::Lost::Broken });
    }
    sockets.shutdown();
    // Joins it: the core must not hear of packets after `Closed`.
    drop(asender);
    close(resource, peer);
}

/// Ends the connection: nobody uses the sockets any more when the core hears of it.
fn close(resource: &Arc<Resource>, peer: PeerIx) {
    {
        let mut inner = resource.inner.lock();
        inner.closing_when_sent = false;
        inner.closing = true;
    }
    resource.data_ready.set();
    resource.meta_ready.set();
    let _ = resource.changed.wait_until(Wait::Idle, None, || {
        let mut inner = resource.inner.lock();
        let quiet = inner.sending.iter().all(|s| !s);
        if quiet {
            inner.sockets = None;
            for queue in &mut inner.queues {
                queue.clear();
            }
            inner.closing = false;
        }
        quiet
    });
    resource.step(Input::Closed { peer });
}

