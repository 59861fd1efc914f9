// SPDX-License-Identifier: GPL-2.0

//! Work that takes long, done by threads of its own: discards, closing of devices; digests; and
//! calls of the user-mode helper.

use drbd_core::limits::discardable;
use drbd_core::node::{
    BufId, Examine, HelperCommand, HelperId, Input, IoError, IoToken, LocalOp, VolIx,
};
use drbd_core::units::{Sector, SectorRange};
use drbd_kapi::block::bdev::BlockDevice;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::kthread::Stop;
use drbd_kapi::mem;
use drbd_kapi::wait::{EventFlag, Wait, WaitQueue};
use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta};
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::{new_mutex, Arc, Mutex};

use crate::helper;
use crate::io::examine;
use crate::objects::backing::{Backing, Sink};
use crate::objects::resource::{Done, Resource};

/// One errand.
pub(crate) enum Errand {
    /// Discard or zero out, then report under `token`.
    Wipe { backing: Arc<Backing>, range: SectorRange, op: LocalOp, token: u64 },
    /// Look at the content of pages and report what was found under `io`.
    Examine { io: IoToken, buf: Option<(BufId, PageBuf)>, what: Examine },
    /// Close the devices.
    Close { _backing: Arc<Backing> },
    /// Call the helper and report its exit code.
    Helper { id: HelperId, command: HelperCommand, vol: Option<VolIx> },
}

/// A queue of errands, worked off in order by one thread.
#[pin_data]
pub(crate) struct Errands {
    #[pin]
    queue: Mutex<KVVec<Errand>>,
    #[pin]
    ready: EventFlag,
    /// Errands that were begun and not finished yet, besides those in the queue.
    running: Atomic<usize>,
    #[pin]
    done: WaitQueue,
}

impl Errands {
    /// An empty queue.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Errands {
            queue <- new_mutex!(KVVec::new(), "drbd_rs::Errands"),
            ready <- EventFlag::new(),
            running: Atomic::new(0),
            done <- WaitQueue::new(),
        })
    }

    /// Appends an errand. May sleep; waits for memory rather than losing it.
    pub(crate) fn push(&self, errand: Errand) {
        let mut queue = self.queue.lock();
        while mem::reserve(&mut *queue, 1, GFP_KERNEL).is_err() {
            drop(queue);
            fsleep(Delta::from_millis(10));
            queue = self.queue.lock();
        }
        // Room was reserved under this very lock.
        let _ = mem::push_within(&mut *queue, errand);
        drop(queue);
        self.ready.set();
    }

    /// Waits until nothing is left to do, or the caller is killed: after a detach the devices are
    /// closed then, and others may open them.
    pub(crate) fn flush(&self) {
        let _ = self.done.wait_until(Wait::Killable, None, || {
            self.queue.lock().is_empty() && self.running.load(Acquire) == 0
        });
    }

    /// The body of the thread: until it is told to stop and nothing is left.
    pub(crate) fn work(&self, resource: &Arc<Resource>, stop: &Stop) {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                let next = queue.remove(0).ok();
                self.running.store(usize::from(next.is_some()), Relaxed);
                next
            };
            match next {
                Some(errand) => {
                    run(resource, errand);
                    self.running.store(0, Release);
                    self.done.wake_all();
                }
                None if stop.requested() => return,
                None => {
                    let _ = self.ready.wait(Wait::Idle, None);
                }
            }
        }
    }
}

fn run(resource: &Arc<Resource>, errand: Errand) {
    match errand {
        Errand::Wipe { backing, range, op, token } => {
            let result = wipe(&backing, range, op);
            let done = Done { token, result, buf: None };
            if resource.completions.queue.push(done).is_err() {
                kernel::pr_warn_once!("the completion queue overflowed; please report this\n");
            }
        }
        Errand::Examine { io, buf, what } => {
            let result = examine::examine(resource, buf.as_ref().map(|(_, pages)| pages), what);
            if let Some((id, pages)) = buf {
                resource.inner.lock().bufs.restore(id.0, pages);
            }
            resource.step(Input::Examined { io, result });
        }
        Errand::Close { _backing } => {}
        Errand::Helper { id, command, vol } => {
            let code = helper::call(resource, command, vol);
            resource.step(Input::HelperDone { id, code });
        }
    }
}

/// Discards what can be discarded and zeroes out the rest, so that both nodes read the same.
fn wipe(backing: &Backing, range: SectorRange, op: LocalOp) -> Result<(), IoError> {
    let dev = backing.data();
    let done = match op {
        LocalOp::Discard => discard(dev, range),
        LocalOp::ZeroOut { unmap } => dev.zeroout_sync(range.start.0, range.len.0, unmap),
        LocalOp::Read | LocalOp::Write | LocalOp::Flush => return Err(IoError::Unsupported),
    };
    done.map_err(|_| IoError::Io)
}

/// Zeroes alone would take space where a disk is thin, and be written where it has no order for
/// them; a discard alone may leave parts of units as they are.
fn discard(dev: &BlockDevice<Sink>, range: SectorRange) -> Result {
    let zero = |start: Sector, end: Sector| match end.0.saturating_sub(start.0) {
        0 => Ok(()),
        len => dev.zeroout_sync(start.0, len, true),
    };
    let end = range.start.plus(range.len);
    let units = dev.discard_units();
    let Some(whole) = units.and_then(|(unit, first)| discardable(range, unit, first)) else {
        return zero(range.start, end);
    };
    zero(range.start, whole.start)?;
    dev.discard_sync(whole.start.0, whole.len.0)?;
    zero(whole.start.plus(whole.len), end)
}
