// SPDX-License-Identifier: GPL-2.0

//! The threads that live as long as their resource.

use drbd_core::node::Sock;
use drbd_kapi::kthread::{KThread, Stop};
use drbd_kapi::mem::{self, NoIoScope};
use kernel::prelude::*;
use kernel::sync::Arc;

use super::{sender, worker};
use crate::objects::resource::Resource;

type Body = fn(&Arc<Resource>, &Stop);

/// Prefix of the name and body of each.
const THREADS: [(&str, Body); 6] = [
    ("drbd_w", worker::work),
    ("drbd_s", |r, s| sender::work(r, Sock::Data, s)),
    ("drbd_as", |r, s| sender::work(r, Sock::Meta, s)),
    ("drbd_d", |r, s| r.errands.work(r, s)),
    ("drbd_h", |r, s| r.helpers.work(r, s)),
    ("drbd_c", |r, s| r.examiner.work(r, s)),
];

/// Starts all of them, or none.
pub(crate) fn start(resource: &Arc<Resource>) -> Result {
    for (prefix, body) in THREADS {
        let this = resource.clone();
        let thread = KThread::spawn(fmt!("{}_{}", prefix, resource.label()), move |stop| {
            let _noio = NoIoScope::enter();
            body(&this, stop);
        });
        let kept = thread.and_then(|t| {
            mem::push(&mut resource.threads.lock().standing, t, GFP_KERNEL)
        });
        if let Err(e) = kept {
            stop(resource);
            return Err(e);
        }
    }
    Ok(())
}

/// Stops and joins all threads of a resource that has no connection, volume or I/O any more.
pub(crate) fn stop(resource: &Resource) {
    let receiver = resource.threads.lock().receiver.take();
    drop(receiver);
    // Last started, first stopped: the worker outlives those who feed it.
    loop {
        let thread = resource.threads.lock().standing.pop();
        match thread {
            Some(thread) => drop(thread),
            None => return,
        }
    }
}
