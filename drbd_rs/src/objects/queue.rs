// SPDX-License-Identifier: GPL-2.0

//! Packets on their way to a socket, in the order in which the core emitted them.

use drbd_core::node::{Payload, SendToken};
use drbd_core::wire::Packet;
use drbd_kapi::mem;
use kernel::prelude::*;

/// One packet to be sent.
pub(crate) struct Outgoing {
    /// Volume number in the header.
    pub(crate) vnr: u16,
    /// The packet.
    pub(crate) packet: Packet,
    /// What follows it.
    pub(crate) payload: Payload,
    /// Reported when it was handed to TCP.
    pub(crate) token: SendToken,
}

/// A FIFO over a vector that is lengthened explicitly.
///
/// # Invariants
///
/// `len <= slots.len()` and `head < slots.len()` unless the queue has no slots.
pub(crate) struct SendQueue {
    slots: KVVec<Option<Outgoing>>,
    head: usize,
    len: usize,
}

impl SendQueue {
    /// An empty queue without room.
    pub(crate) const fn new() -> Self {
        SendQueue { slots: KVVec::new(), head: 0, len: 0 }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `n` more packets. May sleep.
    pub(crate) fn reserve(&mut self, n: usize) -> Result {
        if self.slots.len().saturating_sub(self.len) >= n {
            return Ok(());
        }
        let wanted = self.slots.len().saturating_mul(2).max(self.len.saturating_add(n));
        let mut slots = KVVec::with_capacity(wanted, GFP_KERNEL)?;
        let mut len = 0usize;
        while let Some(out) = self.pop() {
            mem::push(&mut slots, Some(out), GFP_KERNEL)?;
            len = len.saturating_add(1);
        }
        while slots.len() < wanted {
            mem::push(&mut slots, None, GFP_KERNEL)?;
        }
        self.slots = slots;
        self.head = 0;
        self.len = len;
        Ok(())
    }

    fn slot(&mut self, at: usize) -> Option<&mut Option<Outgoing>> {
        let n = self.slots.len();
        let raw = self.head.saturating_add(at);
        let ix = if raw >= n { raw.saturating_sub(n) } else { raw };
        self.slots.get_mut(ix)
    }

    /// Appends; gives the packet back if no room was reserved.
    pub(crate) fn push(&mut self, out: Outgoing) -> Result<(), Outgoing> {
        if self.len >= self.slots.len() {
            return Err(out);
        }
        let at = self.len;
        match self.slot(at) {
            Some(slot) => {
                *slot = Some(out);
                self.len = self.len.saturating_add(1);
                Ok(())
            }
            None => Err(out),
        }
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        if self.len == 0 {
            return None;
        }
        let out = self.slot(0)?.take();
        self.len = self.len.saturating_sub(1);
        self.head = self.head.saturating_add(1);
        if self.head >= self.slots.len() {
            self.head = 0;
        }
        out
    }

    /// Drops everything that waits.
    pub(crate) fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}
