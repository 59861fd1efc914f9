// SPDX-License-Identifier: GPL-2.0

//! The worker, `drbd_w_<resource>`: completions of local I/O, timers, and the effects that belong
//! to no I/O path.

use drbd_core::node::{Effect, Input, OpId};
use drbd_kapi::kthread::Stop;
use drbd_kapi::mem;
use drbd_kapi::wait::Wait;
use kernel::sync::Arc;

use crate::errands::Errand;
use crate::exec::now;
use crate::objects::resource::{Answer, Done, Kind, Resource};
use crate::threads::{receiver, sender};
use crate::{admin, log};

/// The body of the thread.
pub(crate) fn work(resource: &Arc<Resource>, stop: &Stop) {
    while !stop.requested() {
        execute_control(resource);
        if let Due::Later(timeout) = due(resource) {
            let queue = &resource.completions.queue;
            let _ = queue.wait_until(Wait::Idle, timeout, || {
                let inner = resource.inner.lock();
                !inner.control.is_empty() || inner.is_due_before_worker()
            });
        }
        // Also when a timer was due: none of them may keep the worker from what it waits for.
        while let Some(done) = resource.completions.queue.pop() {
            finish(resource, done);
        }
    }
    execute_control(resource);
}

/// When the machine has to be told that time has passed.
enum Due {
    /// It was, just now.
    Told,
    /// In so many milliseconds, rounded up; `None`: it waits for no moment.
    Later(Option<u32>),
}

fn due(resource: &Arc<Resource>) -> Due {
    let deadline = {
        let mut inner = resource.inner.lock();
        let deadline = inner.machine.deadline();
        inner.worker_sleeps_until = deadline;
        deadline
    };
    let Some(deadline) = deadline else { return Due::Later(None) };
    let left = deadline.since(now());
    if left.0 == 0 {
        resource.step(Input::Tick);
        return Due::Told;
    }
    Due::Later(Some(u32::try_from(left.as_millis()).unwrap_or(u32::MAX).saturating_add(1)))
}

/// Tells the core about an I/O that is over.
fn finish(resource: &Arc<Resource>, done: Done) {
    let Done { token, result, buf } = done;
    let entry = {
        let mut inner = resource.inner.lock();
        let entry = u32::try_from(token).ok().and_then(|ix| inner.in_flight.remove(ix));
        let Some(entry) = entry else {
            kernel::pr_warn_once!("a completion nobody waits for; please report this\n");
            return;
        };
        entry
    };
    match entry.kind {
        Kind::Local => {
            if let (Some(id), Some(pages)) = (entry.buf, buf) {
                resource.inner.lock().bufs.restore(id.0, pages);
            }
            resource.step(Input::LocalDone { io: entry.io, buf: None, result });
        }
        Kind::Fresh => {
            let id = match (result, buf) {
                (Ok(()), Some(pages)) => resource.keep(pages),
                (Ok(()) | Err(_), _) => None,
            };
            let result = if id.is_none() && result.is_ok() {
                Err(drbd_core::node::IoError::NoMemory)
            } else {
                result
            };
            resource.step(Input::LocalDone { io: entry.io, buf: id, result });
        }
        Kind::Meta { read } => {
            let page = buf.as_ref().filter(|_| read && result.is_ok());
            let page = page.and_then(|b| b.chunks().next());
            let page = page.and_then(|b| <&[u8; 4096]>::try_from(b).ok());
            resource.step(Input::MetaDone { io: entry.io, page, result });
        }
    }
}

/// Executes what steps left for the worker, in order.
fn execute_control(resource: &Arc<Resource>) {
    loop {
        let Ok(effect) = resource.inner.lock().control.remove(0) else { return };
        execute(resource, effect);
    }
}

fn execute(resource: &Arc<Resource>, effect: Effect) {
    match effect {
        Effect::StartReceiver { peer } => receiver::start(resource, peer),
        Effect::CloseSockets { peer: _ } => {
            resource.inner.lock().closing_when_sent = true;
            sender::close_if_sent(resource);
        }
        Effect::SetReadOnly { vol, ro } => {
            if let Some(volume) = resource.volume(vol) {
                volume.disk.set_read_only(ro);
            }
        }
        Effect::SetCapacity { vol, size } => {
            if let Some(volume) = resource.volume(vol) {
                volume.disk.set_capacity(size.0);
            }
        }
        Effect::UpdateLimits { vol } => crate::limits::update(resource, vol),
        Effect::Uevent { vol } => {
            if let Some(volume) = resource.volume(vol) {
                volume.disk.uevent_change();
            }
        }
        Effect::DropBacking { vol } => drop_backing(resource, vol),
        Effect::Helper { id, command, vol } => {
            resource.helpers.push(Errand::Helper { id, command, vol });
        }
        Effect::AdminDone { op, code, info } => answer(resource, op, Answer { code, info }),
        Effect::StateChanged { vol, old, new } => {
            admin::events::state_changed(resource, vol, old, new);
        }
        Effect::SyncProgress { vol } => admin::events::sync_progress(resource, vol),
        Effect::SyncPosted { minor, posted } => {
            resource.registry.posted.post(minor, posted);
            resource.registry.reconsider_pauses();
        }
        Effect::Log { vol, note } => log::note(resource, vol, &note),
        // `StepHost::emit` sends these elsewhere.
        Effect::Send { .. }
        | Effect::Local { .. }
        | Effect::Meta { .. }
        | Effect::Examine { .. }
        | Effect::Complete { .. }
        | Effect::Fill { .. }
        | Effect::Free(_) => {}
    }
}

fn answer(resource: &Resource, op: OpId, answer: Answer) {
    // `Resource::operation` reserved the room.
    let _ = mem::push_within(&mut resource.inner.lock().answers, (op, answer));
    resource.changed.wake_all();
}

/// Takes the disk from below the volume; closing it may wait for I/O, so that is an errand.
/// Not inlined: what the core kept about the disk takes kilobytes of the stack on its way out.
#[inline(never)]
fn drop_backing(resource: &Arc<Resource>, vol: drbd_core::node::VolIx) {
    let storage = resource.inner.lock().machine.take_backing(vol);
    if let Some(backing) = resource.volume(vol).and_then(|v| v.set_backing(None)) {
        resource.errands.push(Errand::Close { _backing: backing });
    }
    drop(storage);
    resource.changed.wake_all();
}

impl Resource {
    /// Stores pages under a number of the core's. `None` without memory.
    pub(crate) fn keep(
        &self,
        pages: drbd_kapi::block::pages::PageBuf,
    ) -> Option<drbd_core::node::BufId> {
        let mut inner = self.inner.lock();
        inner.bufs.reserve(1).ok()?;
        inner.bufs.insert(pages).ok().map(drbd_core::node::BufId)
    }
}
