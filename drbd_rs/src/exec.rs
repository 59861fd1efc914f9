// SPDX-License-Identifier: GPL-2.0

//! Steps of the core's machine, and the execution of what it says.
//!
//! A step runs under the resource's lock; its effects are sorted there: packets into the queues of
//! the senders, I/O into jobs for the thread that stepped, the rest to the worker. Jobs run after
//! the lock was released.

use drbd_core::node::{self, Effect, Host, Input, Progress, MAX_EFFECTS};
use drbd_core::time::Instant;
use drbd_kapi::clock;
use drbd_kapi::mem::{self, NoIoScope};
use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta};
use kernel::sync::Arc;

use crate::io::jobs::{self, Job};
use crate::objects::queue::{Outgoing, SendQueue};
use crate::objects::resource::{Inner, Machine, Resource};

/// The owner of the machine during one step.
pub(crate) struct StepHost<'a> {
    queues: &'a mut [SendQueue; 2],
    control: &'a mut KVec<Effect>,
    batch: &'a mut KVec<Effect>,
    now: Instant,
    room: usize,
    wake: Wake,
}

/// Whom to wake after the step.
#[derive(Clone, Copy, Default)]
struct Wake {
    data: bool,
    meta: bool,
    worker: bool,
}

/// The time, as the core takes it.
pub(crate) fn now() -> Instant {
    Instant(clock::monotonic_ns())
}

impl Host for StepHost<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        clock::random_u64()
    }

    fn room(&self) -> usize {
        self.room
    }

    fn emit(&mut self, effect: Effect) {
        debug_assert!(self.room > 0, "the core emitted more than it published");
        self.room = self.room.saturating_sub(1);
        let lost = match effect {
            Effect::Send { peer: _, sock, vnr, packet, payload, token } => {
                let out = Outgoing { vnr, packet, payload, token };
                let [data, meta] = &mut *self.queues;
                match sock {
                    node::Sock::Data => {
                        self.wake.data = true;
                        data.push(out).is_err()
                    }
                    node::Sock::Meta => {
                        self.wake.meta = true;
                        meta.push(out).is_err()
                    }
                }
            }
            Effect::Local { .. }
            | Effect::Meta { .. }
            | Effect::Examine { .. }
            | Effect::Complete { .. }
            | Effect::Fill { .. }
            | Effect::Free(_) => mem::push_within(self.batch, effect).is_err(),
            Effect::StartReceiver { .. }
            | Effect::CloseSockets { .. }
            | Effect::SetReadOnly { .. }
            | Effect::SetCapacity { .. }
            | Effect::UpdateLimits { .. }
            | Effect::Uevent { .. }
            | Effect::DropBacking { .. }
            | Effect::Helper { .. }
            | Effect::AdminDone { .. }
            | Effect::StateChanged { .. }
            | Effect::SyncProgress { .. }
            | Effect::SyncPosted { .. }
            | Effect::Log { .. } => {
                self.wake.worker = true;
                mem::push_within(self.control, effect).is_err()
            }
        };
        if lost {
            // `reserve` below made room for MAX_EFFECTS of each kind.
            kernel::pr_warn_once!("an effect was lost for want of room; please report this\n");
        }
    }
}

impl Inner {
    /// Makes room for all effects of one step. May sleep, in the caller's `NoIoScope`.
    fn reserve(&mut self) -> Result {
        for queue in &mut self.queues {
            queue.reserve(MAX_EFFECTS)?;
        }
        mem::reserve(&mut self.control, MAX_EFFECTS, GFP_KERNEL)?;
        self.in_flight.reserve(MAX_EFFECTS)?;
        self.bufs.reserve(MAX_EFFECTS)?;
        if self.batch.capacity() < MAX_EFFECTS {
            self.batch = match self.spare.pop() {
                Some(batch) => batch,
                None => KVec::with_capacity(MAX_EFFECTS, GFP_KERNEL)?,
            };
        }
        mem::reserve(&mut self.spare, 1, GFP_KERNEL)?;
        Ok(())
    }

    /// Whether the core wants time to be told before the worker wakes by itself.
    pub(crate) fn is_due_before_worker(&self) -> bool {
        match (self.machine.deadline(), self.worker_sleeps_until) {
            (Some(due), Some(until)) => due < until,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn host(&mut self) -> (&mut Machine, StepHost<'_>) {
        let host = StepHost {
            queues: &mut self.queues,
            control: &mut self.control,
            batch: &mut self.batch,
            now: now(),
            room: MAX_EFFECTS,
            wake: Wake::default(),
        };
        (&mut *self.machine, host)
    }
}

impl Resource {
    /// Tells the machine that something happened, and does what it answers.
    ///
    /// Process context, may sleep. Must not be called with a lock of this driver held.
    pub(crate) fn step(self: &Arc<Self>, input: Input<'_>) {
        self.drive_to_idle(|machine, host| machine.step(input, host));
    }

    /// Like [`Resource::step`] for what is not an input: `f` talks to the machine itself.
    pub(crate) fn drive(self: &Arc<Self>, f: impl FnOnce(&mut Machine, &mut StepHost<'_>)) {
        self.drive_to_idle(|machine, host| {
            f(machine, host);
            Progress::More
        });
    }

    fn drive_to_idle(
        self: &Arc<Self>,
        first: impl FnOnce(&mut Machine, &mut StepHost<'_>) -> Progress,
    ) {
        let _noio = NoIoScope::enter();
        let mut progress = self.one_step(first);
        while progress == Progress::More {
            progress = self.one_step(|machine, host| machine.step(Input::Tick, host));
        }
        self.changed.wake_all();
    }

    fn one_step(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Machine, &mut StepHost<'_>) -> Progress,
    ) -> Progress {
        let (mut batch, progress, wake) = {
            let mut inner = self.inner.lock();
            // A failed reservation is tried again: small allocations of a NOIO scope succeed as
            // soon as any I/O below completes, and losing an effect is never right.
            while inner.reserve().is_err() {
                drop(inner);
                fsleep(Delta::from_millis(10));
                inner = self.inner.lock();
            }
            let (machine, mut host) = inner.host();
            let progress = f(machine, &mut host);
            let mut wake = host.wake;
            // A timer that is due before the worker would look: it has to look again.
            wake.worker |= inner.is_due_before_worker();
            let batch = core::mem::replace(&mut inner.batch, KVec::new());
            (batch, progress, wake)
        };
        if wake.data {
            self.data_ready.set();
        }
        if wake.meta {
            self.meta_ready.set();
        }
        if wake.worker {
            self.completions.queue.wake();
        }
        for effect in batch.drain_all() {
            if let Some(job) = Job::prepare(self, effect) {
                jobs::run(self, job);
            }
        }
        // Its capacity serves the next step.
        let _ = mem::push_within(&mut self.inner.lock().spare, batch);
        progress
    }
}
