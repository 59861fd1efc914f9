// SPDX-License-Identifier: GPL-2.0

//! A table of objects named by a small id that goes stale when the object is removed.
//!
//! Invariants: every slot is either filled or on the free list, and `len` counts the filled ones. A
//! slot's generation changes with every removal, so an id kept too long finds nothing instead of
//! finding a stranger (until 2^32 removals of the same slot).

use core::marker::PhantomData;
use core::ops::DerefMut;

use super::{at, usable, NIL};

/// The name of an object in a [`Slab`]: its slot and the generation of that slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Index of the slot.
    pub ix: u32,
    /// Generation of the slot at insertion.
    pub gen: u32,
}

crate::key::key! {
    Id { ix }
    names {}
    not { gen }
}

#[derive(Clone, Copy, Debug, Hash)]
enum Content<T> {
    Free { next: u32 },
    Filled(T),
}

/// One place in a [`Slab`].
#[derive(Clone, Copy, Debug)]
pub struct Slot<T> {
    gen: u32,
    content: Content<T>,
}

impl<T> Slot<T> {
    /// A place that was never used.
    pub const EMPTY: Self = Slot {
        gen: 0,
        content: Content::Free { next: NIL },
    };
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A table of at most as many `T` as the storage `S` has slots.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Slab<T, S> {
    slots: S,
    free: u32,
    len: u32,
    items: PhantomData<T>,
}

impl<T: core::hash::Hash, S: DerefMut<Target = [Slot<T>]>> core::hash::Hash for Slab<T, S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.iter().for_each(|item| item.hash(state));
        self.len.hash(state);
    }
}

impl<T, S: DerefMut<Target = [Slot<T>]>> Slab<T, S> {
    /// An empty table; what `slots` held is dropped. Generations found in it are kept.
    pub fn new(slots: S) -> Self {
        let mut slab = Slab {
            slots,
            free: NIL,
            len: 0,
            items: PhantomData,
        };
        slab.clear();
        slab
    }

    /// Removes everything. All ids given out become stale.
    pub fn clear(&mut self) {
        let n = usable(self.slots.len());
        self.free = NIL;
        self.len = 0;
        for ix in (0..n).rev() {
            if let Some(slot) = self.slots.get_mut(at(ix)) {
                if matches!(slot.content, Content::Filled(_)) {
                    slot.gen = slot.gen.wrapping_add(1);
                }
                slot.content = Content::Free { next: self.free };
                self.free = ix;
            }
        }
    }

    /// Stores `value` and names it.
    ///
    /// # Errors
    /// Gives `value` back when every slot is filled.
    pub fn insert(&mut self, value: T) -> Result<Id, T> {
        let ix = self.free;
        let Some(slot) = self.slots.get_mut(at(ix)) else {
            return Err(value);
        };
        let Content::Free { next } = slot.content else {
            return Err(value);
        };
        slot.content = Content::Filled(value);
        self.free = next;
        self.len = self.len.saturating_add(1);
        Ok(Id { ix, gen: slot.gen })
    }

    /// The object of this name, unless it was removed.
    pub fn get(&self, id: Id) -> Option<&T> {
        match self.slots.get(at(id.ix)) {
            Some(Slot {
                gen,
                content: Content::Filled(value),
            }) if *gen == id.gen => Some(value),
            _ => None,
        }
    }

    /// The object of this name, to be changed, unless it was removed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.slots.get_mut(at(id.ix)) {
            Some(Slot {
                gen,
                content: Content::Filled(value),
            }) if *gen == id.gen => Some(value),
            _ => None,
        }
    }

    /// The present name of whatever is in slot `ix`.
    pub fn id_at(&self, ix: u32) -> Option<Id> {
        match self.slots.get(at(ix)) {
            Some(Slot {
                gen,
                content: Content::Filled(_),
            }) => Some(Id { ix, gen: *gen }),
            _ => None,
        }
    }

    /// Takes the object of this name out; its id is stale from now on.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let slot = self.slots.get_mut(at(id.ix))?;
        let freed = Content::Free { next: self.free };
        match core::mem::replace(&mut slot.content, freed) {
            Content::Filled(value) => {
                slot.gen = slot.gen.wrapping_add(1);
                self.free = id.ix;
                self.len = self.len.saturating_sub(1);
                Some(value)
            }
            Content::Free { next } => {
                // `get` has ruled this out; put the link back all the same.
                slot.content = Content::Free { next };
                None
            }
        }
    }

    /// All objects with their names, by rising slot.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        (0..NIL)
            .zip(self.slots.iter())
            .filter_map(|(ix, slot)| match &slot.content {
                Content::Filled(value) => Some((Id { ix, gen: slot.gen }, value)),
                Content::Free { .. } => None,
            })
    }

    /// All objects with their names, to be changed, by rising slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut T)> {
        (0..NIL)
            .zip(self.slots.iter_mut())
            .filter_map(|(ix, slot)| match &mut slot.content {
                Content::Filled(value) => Some((Id { ix, gen: slot.gen }, value)),
                Content::Free { .. } => None,
            })
    }

    /// Number of objects.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most objects that fit.
    pub fn capacity(&self) -> u32 {
        usable(self.slots.len())
    }

    /// Whether no further object fits.
    pub fn is_full(&self) -> bool {
        self.free == NIL
    }

    /// Moves everything into a larger store; ids stay valid.
    ///
    /// # Errors
    /// Gives `larger` back unused if it has fewer slots than the present one.
    pub fn grow(&mut self, mut larger: S) -> Result<S, S> {
        let old = self.capacity();
        if usable(larger.len()) < old {
            return Err(larger);
        }
        for (new, old) in larger.iter_mut().zip(self.slots.iter_mut()) {
            core::mem::swap(new, old);
        }
        for ix in (old..usable(larger.len())).rev() {
            if let Some(slot) = larger.get_mut(at(ix)) {
                slot.content = Content::Free { next: self.free };
                self.free = ix;
            }
        }
        core::mem::swap(&mut self.slots, &mut larger);
        Ok(larger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stale_id_finds_nothing() {
        let mut slab = Slab::new(vec![Slot::EMPTY; 1]);
        let a = slab.insert('a').unwrap();
        assert_eq!(slab.insert('b'), Err('b'));
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b').unwrap();
        assert_eq!((a.ix, slab.remove(a)), (b.ix, None));
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get(b), Some(&'b'));
        slab.clear();
        assert_eq!(slab.get(b), None);
    }

    #[test]
    fn ids_survive_growth() {
        let mut slab = Slab::new(vec![Slot::EMPTY; 2]);
        let ids = [slab.insert(1).unwrap(), slab.insert(2).unwrap()];
        assert!(slab.is_full());
        assert!(slab.grow(vec![Slot::EMPTY; 1]).is_err());
        assert_eq!(slab.grow(vec![Slot::EMPTY; 4]).unwrap().len(), 2);
        assert_eq!(slab.get(ids[1]), Some(&2));
        assert!(slab.insert(3).is_ok() && slab.insert(4).is_ok() && slab.is_full());
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            ops in proptest::collection::vec((any::<bool>(), 0usize..12), 0..200),
        ) {
            let mut slab = Slab::new(vec![Slot::EMPTY; 7]);
            let mut model: Vec<(Id, usize)> = Vec::new();
            let mut gone: Vec<Id> = Vec::new();
            for (n, (insert, pick)) in ops.into_iter().enumerate() {
                if insert {
                    match slab.insert(n) {
                        Ok(id) => model.push((id, n)),
                        Err(_) => prop_assert_eq!(model.len(), 7),
                    }
                } else if !model.is_empty() {
                    let (id, v) = model.remove(pick % model.len());
                    prop_assert_eq!(slab.remove(id), Some(v));
                    gone.push(id);
                }
                prop_assert_eq!(slab.len() as usize, model.len());
                for (id, v) in &model {
                    prop_assert_eq!(slab.get(*id), Some(v));
                    prop_assert_eq!(slab.id_at(id.ix), Some(*id));
                }
                prop_assert!(gone.iter().all(|id| slab.get(*id).is_none()));
                prop_assert_eq!(slab.iter().count(), model.len());
            }
        }
    }
}
