// SPDX-License-Identifier: GPL-2.0

//! What will happen, in the order of time; what is due at the same moment in the order of arrival.
//!
//! The heap holds small keys only; events lie still in slots until they are taken.

use drbd_core::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events of type `T`, waiting.
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    seq: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            seq: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds an event.
    pub fn push(&mut self, at: Instant, event: T) {
        self.seq += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 events")
            }
        };
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at.0, self.seq, slot)));
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| Instant(*at))
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take();
        event.map(|event| (Instant(at), event))
    }

    /// All that wait, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}

/// A few things by their number. Few is the point: it is searched from one end to the other.
#[derive(Clone, Debug)]
pub struct Table<T> {
    keys: Vec<u64>,
    values: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table {
            keys: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T> Table<T> {
    fn find(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|k| *k == key)
    }

    /// Adds something; true: there was nothing under this number.
    pub fn insert(&mut self, key: u64, value: T) -> bool {
        let fresh = self.find(key).is_none();
        self.keys.push(key);
        self.values.push(value);
        fresh
    }

    /// What has this number.
    pub fn get(&self, key: u64) -> Option<&T> {
        self.find(key).map(|at| &self.values[at])
    }

    /// What has this number, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.find(key).map(|at| &mut self.values[at])
    }

    /// Takes it out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let at = self.find(key)?;
        self.keys.swap_remove(at);
        Some(self.values.swap_remove(at))
    }

    /// All, in an order that a seed repeats.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.keys.iter().copied().zip(&self.values)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes all out.
    pub fn drain(&mut self) -> Vec<(u64, T)> {
        let keys = std::mem::take(&mut self.keys);
        keys.into_iter().zip(self.values.drain(..)).collect()
    }

    /// Throws all away.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }
}
