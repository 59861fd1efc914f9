// SPDX-License-Identifier: GPL-2.0

//! One administrator at a time: who changes a resource waits for their turn.
//!
//! Generic netlink lets requests run in parallel, so that one that waits long (for a peer, a slow
//! disk, a helper) holds up nobody who asks about or changes anything else. A mutex would not do:
//! whoever waits must be killable.

use drbd_kapi::wait::{Wait, WaitQueue, Woken};
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use super::resource::Resource;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Taken,
    /// The resource is gone: nobody's turn comes any more.
    Over,
}

/// Whose turn it is.
#[pin_data]
pub(crate) struct Turn {
    #[pin]
    state: Mutex<State>,
    #[pin]
    changed: WaitQueue,
}

impl Turn {
    /// Nobody's turn.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Turn {
            state <- new_mutex!(State::Free, "drbd_rs::Turn"),
            changed <- WaitQueue::new(),
        })
    }

    /// Sends away who waits, now and later. For the one whose turn it is, or with nobody left.
    pub(crate) fn end(&self) {
        *self.state.lock() = State::Over;
        self.changed.wake_all();
    }

    fn try_take(&self) -> State {
        let mut state = self.state.lock();
        let was = *state;
        if was == State::Free {
            *state = State::Taken;
        }
        was
    }
}

/// A turn; it ends with this value.
pub(crate) struct Held {
    resource: Arc<Resource>,
}

impl Held {
    /// Waits for the turn to change `resource`.
    ///
    /// # Errors
    /// EINTR if the caller is killed, ENOENT if the resource goes away meanwhile.
    pub(crate) fn take(resource: &Arc<Resource>) -> Result<Held> {
        let turn = &resource.turn;
        let mut was = State::Taken;
        let woken = turn.changed.wait_until(Wait::Killable, None, || {
            was = turn.try_take();
            was != State::Taken
        });
        match (woken, was) {
            (Woken::Ready, State::Free) => Ok(Held { resource: resource.clone() }),
            (Woken::Ready, State::Over | State::Taken) => Err(ENOENT),
            (Woken::TimedOut | Woken::Interrupted, _) => Err(EINTR),
        }
    }

    /// Whether it is the turn of this resource.
    pub(crate) fn is_of(&self, resource: &Arc<Resource>) -> bool {
        Arc::ptr_eq(&self.resource, resource)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let turn = &self.resource.turn;
        let mut state = turn.state.lock();
        if *state == State::Taken {
            *state = State::Free;
        }
        drop(state);
        turn.changed.wake_all();
    }
}
