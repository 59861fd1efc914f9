// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition, with a limit in time, in the ways that the kernel crate lacks.

use crate::shim;
use kernel::{
    bindings,
    prelude::*,
    static_lock_class,
    sync::atomic::{Acquire, Atomic, Full, Release},
    time::Msecs,
    types::Opaque,
};

/// What ends a wait besides its condition and its timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The request to stop the thread. For kernel threads: counts neither as load nor as hung.
    Idle,
    /// Nothing. For kernel threads on their way out, and waits whose end is certain.
    IdleDespiteStop,
    /// Any signal.
    Interruptible,
    /// A fatal signal.
    Killable,
}

/// Why a wait is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// The condition holds.
    Ready,
    /// The time is up, and the condition does not hold.
    TimedOut,
    /// A signal or the request to stop, and the condition does not hold.
    Interrupted,
}

impl Wait {
    fn mode(self) -> u32 {
        match self {
            Self::Idle | Self::IdleDespiteStop => shim::TASK_IDLE,
            Self::Interruptible => bindings::TASK_INTERRUPTIBLE,
            Self::Killable => shim::TASK_KILLABLE,
        }
    }

    fn is_over(self) -> bool {
        match self {
            Self::Idle => shim::drbd_shim_kthread_should_stop(),
            Self::IdleDespiteStop => false,
            Self::Interruptible => kernel::current!().signal_pending(),
            Self::Killable => shim::drbd_shim_fatal_signal_pending(),
        }
    }
}

/// Tasks that wait for some condition to become true.
///
/// Unlike a condition variable it has no lock to go with: who changes what conditions depend on
/// calls [`Self::wake_all`] afterwards, and every waiter evaluates its condition again.
///
/// # Invariants
///
/// `head` is an initialized wait queue.
#[pin_data]
pub struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head_t>,
}

// SAFETY: Wait queues are not tied to tasks.
unsafe impl Send for WaitQueue {}
// SAFETY: Wait queues have their own lock.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> impl PinInit<Self> {
        let name = c"drbd_kapi::WaitQueue".as_char_ptr();
        let key = static_lock_class!().as_ptr();
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes and pinned; name and class are static.
            head <- Opaque::ffi_init(move |slot| unsafe {
                bindings::__init_waitqueue_head(slot, name, key)
            }),
        })
    }

    /// Has all waiters look again. From any context.
    pub fn wake_all(&self) {
        let normal = bindings::TASK_INTERRUPTIBLE | bindings::TASK_UNINTERRUPTIBLE;
        // SAFETY: The queue is initialized.
        unsafe { bindings::__wake_up(self.head.get(), normal, 0, core::ptr::null_mut()) };
    }

    /// Waits until `cond` holds, at most for `timeout` milliseconds.
    ///
    /// `cond` is evaluated by this task, as a running one: it may sleep. Changes of what it looks
    /// at have to be ordered before the wake-up (an atomic store, or a lock).
    pub fn wait_until(
        &self,
        how: Wait,
        timeout: Option<Msecs>,
        mut cond: impl FnMut() -> bool,
    ) -> Woken {
        if cond() {
            return Woken::Ready;
        }
        let mut left = timeout.map_or(c_long::MAX, jiffies);
        let mut entry = bindings::wait_queue_entry {
            private: kernel::current!().as_ptr().cast(),
            func: Some(bindings::woken_wake_function),
            ..Default::default()
        };
        let entry = &raw mut entry;
        // SAFETY: The entry stays on this stack until it is removed below, and is not moved.
        unsafe { bindings::add_wait_queue(self.head.get(), entry) };
        let why = loop {
            if cond() {
                break Woken::Ready;
            }
            if left == 0 {
                break Woken::TimedOut;
            }
            if how.is_over() {
                break Woken::Interrupted;
            }
            let heed_stop = how == Wait::Idle;
            // SAFETY: The entry is on a queue with the right wake function.
            left = unsafe { shim::drbd_shim_wait_woken(entry, how.mode(), left, heed_stop) };
        };
        // SAFETY: The entry is on this queue.
        unsafe { bindings::remove_wait_queue(self.head.get(), entry) };
        why
    }
}

fn jiffies(timeout: Msecs) -> c_long {
    let ticks = shim::drbd_shim_msecs_to_jiffies(timeout);
    c_long::try_from(ticks).unwrap_or(c_long::MAX)
}

/// A flag that can be set from any context and waited for.
#[pin_data]
pub struct EventFlag {
    set: Atomic<bool>,
    #[pin]
    queue: WaitQueue,
}

impl EventFlag {
    /// A flag that is not set.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            set: Atomic::new(false),
            queue <- WaitQueue::new(),
        })
    }

    /// Sets the flag and wakes who waits for it.
    pub fn set(&self) {
        self.set.store(true, Release);
        self.queue.wake_all();
    }

    /// True if it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Acquire)
    }

    /// Clears the flag and says whether it was set.
    pub fn take(&self) -> bool {
        // Looking before writing keeps the cache line shared while nothing happens.
        self.is_set() && self.set.xchg(false, Full)
    }

    /// Waits until it is set, at most `timeout` milliseconds, and clears it on [`Woken::Ready`].
    pub fn wait(&self, how: Wait, timeout: Option<Msecs>) -> Woken {
        self.queue.wait_until(how, timeout, || self.take())
    }

    /// Like [`Self::wait`], but leaves it set: for a gate that many pass.
    pub fn wait_set(&self, how: Wait, timeout: Option<Msecs>) -> Woken {
        self.queue.wait_until(how, timeout, || self.is_set())
    }
}
