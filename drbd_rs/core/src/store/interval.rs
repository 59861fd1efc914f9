// SPDX-License-Identifier: GPL-2.0

//! A set of sector ranges that answers "which is the lowest one that overlaps this".
//!
//! An AVL tree ordered by (first sector, key), each node knowing the greatest end below it. Links
//! are indices into the caller's storage; nothing recurses. Empty ranges are refused: they overlap
//! nothing and would hide others.
//!
//! Invariants: heights of siblings differ by at most one; `max_end` is the greatest end in the
//! subtree; every slot is in the tree or on the free list.

use core::ops::DerefMut;

use super::{at, usable, NIL};
use crate::units::{Sector, SectorRange};

/// One node of an [`IntervalSet`].
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    range: SectorRange,
    key: u32,
    left: u32,
    right: u32,
    parent: u32,
    height: u8,
    max_end: Sector,
}

impl Slot {
    /// A node that is not in the tree.
    pub const EMPTY: Slot = Slot {
        range: SectorRange {
            start: Sector(0),
            len: crate::units::Sectors(0),
        },
        key: 0,
        left: NIL,
        right: NIL,
        parent: NIL,
        height: 1,
        max_end: Sector(0),
    };

    fn order(&self) -> (Sector, u32) {
        (self.range.start, self.key)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Slot::EMPTY
    }
}

/// Why a range was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The range has no sector.
    Empty,
    /// Every slot is taken.
    Full,
    /// There is an entry with the same first sector and the same key.
    Duplicate,
}

/// A set of ranges, each with a key of the caller's, such as the index of a request.
#[derive(Debug)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct IntervalSet<S> {
    slots: S,
    root: u32,
    free: u32,
    len: u32,
}

impl<S: DerefMut<Target = [Slot]>> core::hash::Hash for IntervalSet<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.iter().for_each(|item| item.hash(state));
        self.len.hash(state);
    }
}

impl<S: DerefMut<Target = [Slot]>> IntervalSet<S> {
    /// An empty set.
    pub fn new(slots: S) -> Self {
        let mut set = IntervalSet {
            slots,
            root: NIL,
            free: NIL,
            len: 0,
        };
        set.clear();
        set
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.slots
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.root = NIL;
        self.free = NIL;
        self.len = 0;
        for ix in (0..usable(self.slots.len())).rev() {
            self.release(ix);
        }
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further entry fits.
    pub fn is_full(&self) -> bool {
        self.free == NIL
    }

    /// Takes a range in.
    ///
    /// # Errors
    /// See [`Refused`]; the set is then unchanged.
    pub fn insert(&mut self, range: SectorRange, key: u32) -> Result<(), Refused> {
        if range.len.0 == 0 {
            return Err(Refused::Empty);
        }
        let order = (range.start, key);
        let mut parent = NIL;
        let mut left = false;
        let mut ix = self.root;
        while let Some(slot) = self.slots.get(at(ix)) {
            if slot.order() == order {
                return Err(Refused::Duplicate);
            }
            parent = ix;
            left = order < slot.order();
            ix = if left { slot.left } else { slot.right };
        }
        let new = self.free;
        let Some(slot) = self.slots.get_mut(at(new)) else {
            return Err(Refused::Full);
        };
        self.free = slot.parent;
        *slot = Slot {
            range,
            key,
            parent,
            max_end: range.end(),
            ..Slot::EMPTY
        };
        match self.slots.get_mut(at(parent)) {
            Some(slot) if left => slot.left = new,
            Some(slot) => slot.right = new,
            None => self.root = new,
        }
        self.len = self.len.saturating_add(1);
        self.retrace(parent);
        Ok(())
    }

    /// Takes out the entry with this first sector and key; `false` if there is none.
    pub fn remove(&mut self, range: SectorRange, key: u32) -> bool {
        let Some(ix) = self.locate(range.start, key) else {
            return false;
        };
        let Some(&slot) = self.slots.get(at(ix)) else {
            return false;
        };
        // A node with two children takes over its successor's entry and the successor's node goes.
        let gone = if slot.left != NIL && slot.right != NIL {
            let next = self.leftmost(slot.right);
            let entry = self.slots.get(at(next)).map(|s| (s.range, s.key));
            if let (Some(slot), Some((range, key))) = (self.slots.get_mut(at(ix)), entry) {
                slot.range = range;
                slot.key = key;
            }
            next
        } else {
            ix
        };
        let Some(&Slot {
            left,
            right,
            parent,
            ..
        }) = self.slots.get(at(gone))
        else {
            return false;
        };
        let child = if left != NIL { left } else { right };
        self.replace_child(parent, gone, child);
        self.release(gone);
        self.len = self.len.saturating_sub(1);
        self.retrace(parent);
        true
    }

    /// Whether there is an entry with this first sector and key.
    pub fn contains(&self, range: SectorRange, key: u32) -> bool {
        self.locate(range.start, key).is_some()
    }

    /// The lowest entry that shares a sector with `range`.
    pub fn first_overlap(&self, range: SectorRange) -> Option<(SectorRange, u32)> {
        if range.len.0 == 0 {
            return None;
        }
        self.entry(self.lowest_below(self.root, range)?)
    }

    /// The next entry behind `after`, in order, that shares a sector with `range`. `after` need not
    /// be in the set any more.
    pub fn next_overlap(
        &self,
        range: SectorRange,
        after: (SectorRange, u32),
    ) -> Option<(SectorRange, u32)> {
        if range.len.0 == 0 {
            return None;
        }
        let Some(mut ix) = self.last_up_to((after.0.start, after.1)) else {
            return self.first_overlap(range);
        };
        loop {
            let slot = self.slots.get(at(ix))?;
            if self.reaches_into(slot.right, range) {
                return self.entry(self.lowest_below(slot.right, range)?);
            }
            // Up to the first ancestor that lies behind in order.
            let mut child = ix;
            ix = slot.parent;
            while self.slots.get(at(ix))?.right == child {
                child = ix;
                ix = self.slots.get(at(ix))?.parent;
            }
            let slot = self.slots.get(at(ix))?;
            if slot.range.start >= range.end() {
                return None;
            }
            if slot.range.end() > range.start {
                return self.entry(ix);
            }
        }
    }

    /// All entries that share a sector with `range`, in order.
    pub fn overlaps(&self, range: SectorRange) -> impl Iterator<Item = (SectorRange, u32)> + '_ {
        core::iter::successors(self.first_overlap(range), move |after| {
            self.next_overlap(range, *after)
        })
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (SectorRange, u32)> + '_ {
        self.overlaps(SectorRange {
            start: Sector(0),
            len: crate::units::Sectors(u64::MAX),
        })
    }

    /// Moves everything into a larger store.
    ///
    /// # Errors
    /// Gives `larger` back unused if it has fewer slots than the present one.
    pub fn grow(&mut self, mut larger: S) -> Result<S, S> {
        let old = usable(self.slots.len());
        let new = usable(larger.len());
        if new < old {
            return Err(larger);
        }
        for (to, from) in larger.iter_mut().zip(self.slots.iter()) {
            *to = *from;
        }
        core::mem::swap(&mut self.slots, &mut larger);
        for ix in (old..new).rev() {
            self.release(ix);
        }
        Ok(larger)
    }

    fn entry(&self, ix: u32) -> Option<(SectorRange, u32)> {
        self.slots.get(at(ix)).map(|s| (s.range, s.key))
    }

    fn release(&mut self, ix: u32) {
        let next = self.free;
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            *slot = Slot {
                parent: next,
                ..Slot::EMPTY
            };
            self.free = ix;
        }
    }

    fn locate(&self, start: Sector, key: u32) -> Option<u32> {
        self.last_up_to((start, key)).filter(|ix| {
            self.entry(*ix)
                .is_some_and(|(r, k)| (r.start, k) == (start, key))
        })
    }

    /// The last entry that does not lie behind `order`.
    fn last_up_to(&self, order: (Sector, u32)) -> Option<u32> {
        let mut best = None;
        let mut ix = self.root;
        while let Some(slot) = self.slots.get(at(ix)) {
            if slot.order() <= order {
                best = Some(ix);
                ix = slot.right;
            } else {
                ix = slot.left;
            }
        }
        best
    }

    fn leftmost(&self, mut ix: u32) -> u32 {
        while let Some(slot) = self.slots.get(at(ix)) {
            if slot.left == NIL {
                break;
            }
            ix = slot.left;
        }
        ix
    }

    /// Whether something below `ix` ends behind the start of `range`.
    fn reaches_into(&self, ix: u32, range: SectorRange) -> bool {
        self.slots
            .get(at(ix))
            .is_some_and(|slot| slot.max_end > range.start)
    }

    fn lowest_below(&self, mut ix: u32, range: SectorRange) -> Option<u32> {
        loop {
            let slot = self.slots.get(at(ix))?;
            // If something on the left ends behind our start and yet does not overlap, it starts
            // behind our end, and so does all that follows: no need to come back.
            if self.reaches_into(slot.left, range) {
                ix = slot.left;
            } else if slot.range.start >= range.end() {
                return None;
            } else if slot.range.end() > range.start {
                return Some(ix);
            } else {
                ix = slot.right;
            }
        }
    }

    fn height(&self, ix: u32) -> u8 {
        self.slots.get(at(ix)).map_or(0, |s| s.height)
    }

    /// Brings height and greatest end up to date with the children.
    fn refresh(&mut self, ix: u32) {
        let Some(&Slot {
            left, right, range, ..
        }) = self.slots.get(at(ix))
        else {
            return;
        };
        let height = self.height(left).max(self.height(right)).saturating_add(1);
        let mut max_end = range.end();
        for child in [left, right] {
            if let Some(slot) = self.slots.get(at(child)) {
                max_end = max_end.max(slot.max_end);
            }
        }
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.height = height;
            slot.max_end = max_end;
        }
    }

    fn replace_child(&mut self, parent: u32, old: u32, new: u32) {
        match self.slots.get_mut(at(parent)) {
            Some(slot) if slot.left == old => slot.left = new,
            Some(slot) => slot.right = new,
            None => self.root = new,
        }
        if let Some(slot) = self.slots.get_mut(at(new)) {
            slot.parent = parent;
        }
    }

    /// Lifts the left (or right) child of `ix` into its place and returns it.
    fn rotate(&mut self, ix: u32, lift_left: bool) -> u32 {
        let Some(&slot) = self.slots.get(at(ix)) else {
            return ix;
        };
        let up = if lift_left { slot.left } else { slot.right };
        let Some(lifted) = self.slots.get_mut(at(up)) else {
            return ix;
        };
        let inner = if lift_left {
            core::mem::replace(&mut lifted.right, ix)
        } else {
            core::mem::replace(&mut lifted.left, ix)
        };
        self.replace_child(slot.parent, ix, up);
        if let Some(slot) = self.slots.get_mut(at(ix)) {
            slot.parent = up;
            if lift_left {
                slot.left = inner;
            } else {
                slot.right = inner;
            }
        }
        if let Some(slot) = self.slots.get_mut(at(inner)) {
            slot.parent = ix;
        }
        self.refresh(ix);
        self.refresh(up);
        up
    }

    /// Restores balance and greatest ends from `ix` up to the root.
    fn retrace(&mut self, mut ix: u32) {
        while let Some(&Slot { left, right, .. }) = self.slots.get(at(ix)) {
            let (hl, hr) = (self.height(left), self.height(right));
            if hl > hr.saturating_add(1) {
                let Some(&child) = self.slots.get(at(left)) else {
                    return;
                };
                if self.height(child.right) > self.height(child.left) {
                    self.rotate(left, false);
                }
                ix = self.rotate(ix, true);
            } else if hr > hl.saturating_add(1) {
                let Some(&child) = self.slots.get(at(right)) else {
                    return;
                };
                if self.height(child.left) > self.height(child.right) {
                    self.rotate(right, true);
                }
                ix = self.rotate(ix, false);
            } else {
                self.refresh(ix);
            }
            ix = self.slots.get(at(ix)).map_or(NIL, |s| s.parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Sectors;
    use proptest::prelude::*;

    fn range(start: u64, len: u64) -> SectorRange {
        SectorRange {
            start: Sector(start),
            len: Sectors(len),
        }
    }

    /// Checks order, balance and greatest ends of a subtree; returns (height, nodes, greatest end).
    fn check(set: &IntervalSet<Vec<Slot>>, ix: u32, parent: u32) -> (u8, u32, u64) {
        let Some(slot) = set.slots.get(at(ix)) else {
            return (0, 0, 0);
        };
        assert_eq!(slot.parent, parent);
        let l = check(set, slot.left, ix);
        let r = check(set, slot.right, ix);
        assert!(l.0.abs_diff(r.0) <= 1, "unbalanced");
        let end = slot.range.end().0.max(l.2).max(r.2);
        assert_eq!((slot.height, slot.max_end.0), (l.0.max(r.0) + 1, end));
        (slot.height, l.1 + r.1 + 1, end)
    }

    #[test]
    fn refusals() {
        let mut set = IntervalSet::new(vec![Slot::EMPTY; 1]);
        assert_eq!(set.insert(range(8, 0), 1), Err(Refused::Empty));
        assert_eq!(set.insert(range(8, 8), 1), Ok(()));
        assert_eq!(set.insert(range(8, 16), 1), Err(Refused::Duplicate));
        assert_eq!(set.insert(range(8, 8), 2), Err(Refused::Full));
        assert_eq!(set.first_overlap(range(9, 0)), None);
        assert!(!set.remove(range(8, 8), 2) && set.remove(range(8, 8), 1));
        assert!(set.is_empty() && set.iter().next().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_sorted_list(
            ops in proptest::collection::vec((0u8..3, 0u64..60, 1u64..12, 0u32..4), 0..150),
        ) {
            let mut set = IntervalSet::new(vec![Slot::EMPTY; 24]);
            let mut model: Vec<(SectorRange, u32)> = Vec::new();
            for (op, start, len, key) in ops {
                let r = range(start, len);
                let found = model.iter().position(|(m, k)| (m.start, *k) == (r.start, key));
                prop_assert_eq!(set.contains(r, key), found.is_some());
                match op {
                    0 => {
                        prop_assert_eq!(set.remove(r, key), found.is_some());
                        found.map(|at| model.remove(at));
                    }
                    _ => {
                        let wanted = match (found, model.len()) {
                            (Some(_), _) => Err(Refused::Duplicate),
                            (None, 24) => Err(Refused::Full),
                            (None, _) => Ok(()),
                        };
                        prop_assert_eq!(set.insert(r, key), wanted);
                        if wanted.is_ok() {
                            model.push((r, key));
                            model.sort_by_key(|(m, k)| (m.start, *k));
                        }
                    }
                }
                prop_assert_eq!(check(&set, set.root, NIL).1 as usize, model.len());
                prop_assert!(set.iter().eq(model.iter().copied()));
                let wanted = model.iter().copied().filter(|(m, _)| m.overlaps(r));
                prop_assert!(set.overlaps(r).eq(wanted.clone()));
                // Also from an entry that was never in the set.
                let behind = (range(start + 1, 1), 2);
                let next = wanted.clone().find(|(m, k)| (m.start, *k) > (Sector(start + 1), 2));
                prop_assert_eq!(set.next_overlap(r, behind), next);
            }
            let n = set.len();
            prop_assert!(set.grow(vec![Slot::EMPTY; 99]).is_ok());
            prop_assert_eq!(check(&set, set.root, NIL).1, n);
        }
    }
}
