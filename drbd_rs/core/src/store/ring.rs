// SPDX-License-Identifier: GPL-2.0

//! A first-in first-out queue of bounded length.
//!
//! Invariant: exactly the `len` slots from `head` on, wrapping at the end, are `Some`.

use core::marker::PhantomData;
use core::ops::DerefMut;

use super::{at, usable};

/// A queue of at most as many `T` as the storage has slots; a slot is an `Option`.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Ring<T, S> {
    slots: S,
    head: u32,
    len: u32,
    items: PhantomData<T>,
}

impl<T: core::hash::Hash, S: DerefMut<Target = [Option<T>]>> core::hash::Hash for Ring<T, S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.iter().for_each(|item| item.hash(state));
        self.len.hash(state);
    }
}

impl<T, S: DerefMut<Target = [Option<T>]>> Ring<T, S> {
    /// An empty queue; what `slots` held is dropped.
    pub fn new(slots: S) -> Self {
        let mut ring = Ring {
            slots,
            head: 0,
            len: 0,
            items: PhantomData,
        };
        ring.clear();
        ring
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|s| *s = None);
        self.head = 0;
        self.len = 0;
    }

    /// Slot of the `nth` item from the front.
    fn position(&self, nth: u32) -> usize {
        let sum = u64::from(self.head).saturating_add(u64::from(nth));
        let cap = u64::from(self.capacity());
        crate::units::index(if sum >= cap {
            sum.saturating_sub(cap)
        } else {
            sum
        })
    }

    /// Appends `value`.
    ///
    /// # Errors
    /// Gives `value` back when the queue is full.
    pub fn push_back(&mut self, value: T) -> Result<(), T> {
        if self.len >= self.capacity() {
            return Err(value);
        }
        let ix = self.position(self.len);
        match self.slots.get_mut(ix) {
            Some(slot) => {
                *slot = Some(value);
                self.len = self.len.saturating_add(1);
                Ok(())
            }
            None => Err(value),
        }
    }

    /// Takes the oldest item.
    pub fn pop_front(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let next = self.position(1);
        let value = self.slots.get_mut(at(self.head))?.take();
        self.head = crate::units::saturate_u32(crate::units::widen(next));
        self.len = self.len.saturating_sub(1);
        value
    }

    /// The oldest item.
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// The oldest item, to be changed.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.get_mut(0)
    }

    /// The newest item.
    pub fn back(&self) -> Option<&T> {
        self.get(self.len.checked_sub(1)?)
    }

    /// The newest item, to be changed.
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.get_mut(self.len.checked_sub(1)?)
    }

    /// The `nth` item, the oldest being number 0.
    pub fn get(&self, nth: u32) -> Option<&T> {
        if nth >= self.len {
            return None;
        }
        self.slots.get(self.position(nth))?.as_ref()
    }

    /// The `nth` item, to be changed.
    pub fn get_mut(&mut self, nth: u32) -> Option<&mut T> {
        if nth >= self.len {
            return None;
        }
        let ix = self.position(nth);
        self.slots.get_mut(ix)?.as_mut()
    }

    /// All items, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|nth| self.get(nth))
    }

    /// Number of items.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further item fits.
    pub fn is_full(&self) -> bool {
        self.len >= self.capacity()
    }

    /// Most items that fit.
    pub fn capacity(&self) -> u32 {
        usable(self.slots.len())
    }

    /// Moves everything into another store, keeping the order.
    ///
    /// # Errors
    /// Gives `other` back unused if not everything fits.
    pub fn swap_storage(&mut self, mut other: S) -> Result<S, S> {
        if usable(other.len()) < self.len {
            return Err(other);
        }
        let len = self.len;
        for slot in other.iter_mut() {
            *slot = self.pop_front();
        }
        core::mem::swap(&mut self.slots, &mut other);
        self.head = 0;
        self.len = len;
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn no_room_at_all() {
        let mut ring = Ring::new(Vec::new());
        assert_eq!(ring.push_back(1), Err(1));
        assert_eq!((ring.pop_front(), ring.back()), (None, None));
    }

    proptest! {
        #[test]
        fn behaves_like_a_deque(ops in proptest::collection::vec(0u8..8, 0..300)) {
            let mut ring = Ring::new(vec![None; 5]);
            let mut model = VecDeque::new();
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    0..=3 => {
                        let fits = model.len() < ring.capacity() as usize;
                        prop_assert_eq!(ring.push_back(n).is_ok(), fits);
                        if fits {
                            model.push_back(n);
                        }
                    }
                    4..=6 => prop_assert_eq!(ring.pop_front(), model.pop_front()),
                    _ => {
                        let n = if ring.capacity() == 5 { 9 } else { 5 };
                        prop_assert_eq!(ring.swap_storage(vec![None; n]).is_ok(), model.len() <= n);
                    }
                }
                prop_assert!(ring.iter().eq(model.iter()));
                prop_assert_eq!((ring.front(), ring.back()), (model.front(), model.back()));
                prop_assert_eq!(ring.len() as usize, model.len());
            }
        }
    }
}
