// SPDX-License-Identifier: GPL-2.0

//! A queue from interrupt context to a thread.

use crate::{
    mem::filled,
    wait::{Wait, WaitQueue, Woken},
};
use kernel::{alloc::KVVec, new_spinlock_irq, prelude::*, sync::SpinLockIrq, time::Msecs};

/// First in, first out; fed from any context, and never allocating while it is fed.
///
/// Room is made beforehand: with [`Self::new`] or [`Self::reserve`] for as many items as can be on
/// their way at once, [`Self::push`] cannot fail.
#[pin_data]
pub struct CompletionQueue<T: Send + 'static> {
    #[pin]
    ring: SpinLockIrq<Ring<T>>,
    #[pin]
    queue: WaitQueue,
}

/// # Invariants
///
/// The `len` slots from `head` on, around the end, are full, and all others are empty.
struct Ring<T> {
    slots: KVVec<Option<T>>,
    head: usize,
    len: usize,
}

impl<T> Ring<T> {
    fn with_capacity(capacity: usize) -> Result<Self> {
        Ok(Self {
            slots: filled(capacity, || None)?,
            head: 0,
            len: 0,
        })
    }

    fn around(&self, at: usize) -> usize {
        at.checked_sub(self.slots.len()).unwrap_or(at)
    }

    fn push(&mut self, item: T) -> Result<(), T> {
        if self.len == self.slots.len() {
            return Err(item);
        }
        let at = self.around(self.head.saturating_add(self.len));
        match self.slots.get_mut(at) {
            Some(slot) => *slot = Some(item),
            None => return Err(item),
        }
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        let item = self.slots.get_mut(self.head)?.take()?;
        self.head = self.around(self.head.saturating_add(1));
        self.len = self.len.saturating_sub(1);
        Some(item)
    }
}

impl<T: Send + 'static> CompletionQueue<T> {
    /// An empty queue with room for `capacity` items.
    pub fn new(capacity: usize) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ring <- new_spinlock_irq!(Ring::with_capacity(capacity)?, "drbd_kapi::CompletionQueue"),
            queue <- WaitQueue::new(),
        })
    }

    /// Appends an item and wakes who waits. From any context.
    ///
    /// The item comes back if there is no room.
    pub fn push(&self, item: T) -> Result<(), T> {
        self.ring.lock().push(item)?;
        self.queue.wake_all();
        Ok(())
    }

    /// Takes the oldest item.
    pub fn pop(&self) -> Option<T> {
        self.ring.lock().pop()
    }

    /// Takes the oldest item, and waits for one if there is none.
    ///
    /// The error says why there is none.
    pub fn wait_pop(&self, how: Wait, timeout: Option<Msecs>) -> Result<T, Woken> {
        let mut item = None;
        let why = self.queue.wait_until(how, timeout, || {
            item = self.pop();
            item.is_some()
        });
        item.ok_or(why)
    }

    /// Waits until the queue has an item or `also` holds; [`Self::wake`] has it looked at again.
    pub fn wait_until(
        &self,
        how: Wait,
        timeout: Option<Msecs>,
        mut also: impl FnMut() -> bool,
    ) -> Woken {
        self.queue
            .wait_until(how, timeout, || !self.is_empty() || also())
    }

    /// Has waiters look again. From any context.
    pub fn wake(&self) {
        self.queue.wake_all();
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.ring.lock().len
    }

    /// True if no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `capacity` items in all. Process context.
    pub fn reserve(&self, capacity: usize) -> Result {
        let mut other = Ring::with_capacity(capacity)?;
        let mut ring = self.ring.lock();
        if ring.slots.len() < capacity {
            while let Some(item) = ring.pop() {
                // Cannot fail: the other one is larger and was empty.
                let _ = other.push(item);
            }
            core::mem::swap(&mut *ring, &mut other);
        }
        drop(ring);
        // Memory is freed outside the lock.
        drop(other);
        Ok(())
    }
}
