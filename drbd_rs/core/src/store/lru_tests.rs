// SPDX-License-Identifier: GPL-2.0

//! The set against the rules of algorithms.md §1, written once more with plain vectors.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug, Default)]
struct Elem {
    old: Option<u32>,
    new: Option<u32>,
    refs: u32,
}

/// The rules with vectors: `recent` holds the unreferenced committed labels, the newest first.
#[derive(Default)]
struct Model {
    elems: Vec<Elem>,
    recent: Vec<u32>,
    max_pending: usize,
    starving: bool,
    locked: bool,
    c: Counters,
}

impl Model {
    fn pending(&self) -> usize {
        self.elems.iter().filter(|e| e.old != e.new).count()
    }

    fn get(&mut self, label: u32, change: bool, cumulative: bool) -> Result<bool, Refused> {
        if self.starving {
            self.c.starving += 1;
            return Err(Refused::Starving);
        }
        if let Some(e) = self.elems.iter_mut().find(|e| e.new == Some(label)) {
            let committed = e.old == e.new;
            if !committed && !cumulative {
                return Err(Refused::Uncommitted);
            }
            e.refs += 1;
            self.c.hits += 1;
            self.recent.retain(|l| *l != label);
            return Ok(committed);
        }
        self.c.misses += 1;
        if !change {
            return Err(Refused::Miss);
        }
        if self.locked {
            self.c.locked += 1;
            return Err(Refused::Locked);
        }
        let free = self.elems.iter().position(|e| e.new.is_none());
        let victim = self.recent.last().copied();
        let Some(at) = free.or(self.elems.iter().position(|e| e.new == victim)) else {
            self.starving = true;
            return Err(Refused::Starving);
        };
        if self.pending() >= self.max_pending {
            return Err(Refused::PendingFull);
        }
        if free.is_none() {
            self.recent.pop();
        }
        self.elems[at].new = Some(label);
        self.elems[at].refs = 1;
        Ok(false)
    }

    fn commit(&mut self) {
        for e in self.elems.iter_mut().filter(|e| e.old != e.new) {
            e.old = e.new;
            self.c.changed += 1;
            if e.refs == 0 {
                self.starving = false;
            }
        }
    }

    fn put(&mut self, label: u32) {
        let e = self
            .elems
            .iter_mut()
            .find(|e| e.new == Some(label))
            .unwrap();
        e.refs -= 1;
        if e.refs == 0 {
            self.recent.insert(0, label);
            self.starving = false;
        }
    }
}

fn labels(lru: &Lru<u32, Vec<Slot<u32>>>) -> Vec<(u32, u32, u32)> {
    let mut all: Vec<_> = lru
        .slots()
        .map(|(_, s)| (s.new_number(), s.number(), s.refs()))
        .collect();
    all.sort_unstable();
    all
}

proptest! {
    #[test]
    fn follows_the_rules(ops in proptest::collection::vec((0u8..10, 0u32..9), 0..200)) {
        let n = 5;
        let mut lru = Lru::new(vec![Slot::EMPTY; n], 3);
        let elems = vec![Elem::default(); n];
        let mut model = Model { elems, max_pending: 3, ..Model::default() };
        for (op, label) in ops {
            match op {
                0..=2 => {
                    let (change, cumulative) = (op > 0, op > 1);
                    let got = match op {
                        0 => lru.try_get(label),
                        1 => lru.get(label),
                        _ => lru.get_cumulative(label),
                    };
                    prop_assert_eq!(got.map(|g| g.committed), model.get(label, change, cumulative));
                }
                3..=6 => {
                    let used = |e: &&Elem| e.new == Some(label) && e.refs > 0 && e.old == e.new;
                    if model.elems.iter().any(|e| used(&e)) {
                        let ix = lru.find(label).unwrap();
                        prop_assert!(lru.put(ix).is_some());
                        model.put(label);
                    }
                }
                7 => {
                    lru.committed();
                    model.commit();
                }
                8 => {
                    let was = model.locked;
                    prop_assert_eq!(lru.try_lock_for_transaction(), !was);
                    model.locked = true;
                }
                _ => {
                    lru.unlock();
                    model.locked = false;
                }
            }
            let mut wanted: Vec<_> = model.elems.iter()
                .map(|e| (e.new.unwrap_or(FREE), e.old.unwrap_or(FREE), e.refs))
                .collect();
            wanted.sort_unstable();
            prop_assert_eq!(labels(&lru), wanted);
            prop_assert_eq!(lru.counters(), model.c);
            prop_assert_eq!(lru.pending() as usize, model.pending());
            prop_assert_eq!(lru.changes().count(), model.pending());
            let used = model.elems.iter().filter(|e| e.refs > 0).count();
            prop_assert_eq!(lru.used() as usize, used);
            prop_assert_eq!(lru.is_starving(), model.starving);
            for label in 0..9 {
                let held = model.elems.iter().any(|e| e.new == Some(label) && e.refs > 0);
                prop_assert_eq!(lru.is_used(label), held);
            }
        }
        lru.reset();
        prop_assert_eq!(labels(&lru), vec![(FREE, FREE, 0); n]);
        prop_assert_eq!(lru.counters(), Counters::default());
    }
}

#[test]
fn a_reference_dropped_before_the_commit_leaves_an_unused_slot() {
    let mut lru = Lru::new(vec![Slot::EMPTY; 1], 4);
    let got = lru.get(7).unwrap();
    assert!(got.changed && !got.committed);
    assert_eq!(lru.put(got.ix), Some(0));
    assert_eq!(lru.put(got.ix), None);
    assert_eq!(lru.get_cumulative(8), Err(Refused::Starving));
    assert!(!lru.del(got.ix));
    lru.committed();
    assert!(!lru.is_starving() && lru.find(7).is_some() && lru.used() == 0);
    assert!(lru.del(got.ix) && lru.find(7).is_none());
}

#[test]
fn freezing_needs_quiet() {
    let mut lru = Lru::new(vec![Slot::EMPTY; 2], 4);
    assert!(lru.get(1).is_ok() && !lru.try_lock());
    lru.committed();
    lru.unlock();
    assert!(lru.try_lock() && !lru.try_lock_for_transaction());
    assert_eq!(lru.get(2), Err(Refused::Locked));
    assert!(lru.try_get(1).is_ok());
    assert_eq!(
        Lru::<(), Vec<Slot<()>>>::new(Vec::new(), 1).get(3),
        Err(Refused::Starving)
    );
}

#[test]
fn the_free_label_is_never_taken_in() {
    let mut lru = Lru::new(vec![Slot::EMPTY; 2], 4);
    assert_eq!(lru.get(FREE), Err(Refused::Miss));
    assert!(lru.find(FREE).is_none() && !lru.is_used(FREE));
}
