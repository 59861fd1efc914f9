// SPDX-License-Identifier: GPL-2.0

//! The search: every state that a number of outer steps can lead to.
//!
//! Outer steps are faults, orders and writes; what happens by itself costs nothing. Level `k` are
//! the states that need `k` outer steps; it is complete before level `k + 1` begins, so that the
//! first violation found has the fewest outer steps.
//!
//! A state is stored as its key, its predecessor and the step between them: 13 bytes and what the
//! table of keys wastes. To go on from it, it is made again. States are numbered in the order of a
//! walk through the tree of predecessors and taken up in that order, so that each of them is made
//! again about once per level.

use crate::ghost::Verdict;
use crate::script::{Act, Run, Shape};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

/// How much of what happens by itself is tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Every order of all events, outer steps between any two.
    Every,
    /// One order of events, outer steps between any two.
    Fixed,
    /// Outer steps only when nothing happens by itself.
    Rest,
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the world is like.
    pub shape: Shape,
    /// Which orders of events.
    pub grain: Grain,
    /// Most outer steps.
    pub depth: usize,
    /// Ends with so many states, though not complete.
    pub most: usize,
    /// Of the stable states, one in so many is asked whether it recovers.
    pub recover: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Steps made, those included that led to a known state.
    pub steps: u64,
    /// States of each level.
    pub levels: Vec<usize>,
    /// States in which nothing happens by itself.
    pub stable: usize,
    /// Those that were asked whether they recover.
    pub recovered: usize,
    /// The end of `most` was not reached.
    pub complete: bool,
    /// The first violation: what, and the path to it.
    pub violation: Option<(String, Vec<Act>)>,
    /// Seconds.
    pub seconds: f64,
}

/// Keys are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, i: u64) {
        self.0 = i;
    }
}

/// The search in progress.
pub struct Search {
    plan: Plan,
    seen: HashSet<u64, BuildHasherDefault<AsIs>>,
    parents: Vec<u32>,
    acts: Vec<u8>,
    /// The states from the first one to the present one, with their numbers.
    path: Vec<(u32, Run)>,
    report: Report,
    start: Instant,
}

/// The search is over.
struct Over;

impl Search {
    /// Searches.
    pub fn run(plan: Plan, mut progress: impl FnMut(&Report)) -> Report {
        let start = Instant::now();
        let mut search = Search {
            plan,
            seen: HashSet::default(),
            parents: Vec::new(),
            acts: Vec::new(),
            path: Vec::new(),
            report: Report::default(),
            start,
        };
        let first = Run::new(plan.shape);
        search.seen.insert(first.key());
        search.parents.push(0);
        search.acts.push(u8::MAX);
        search.path.push((0, first));
        search.report.complete = search.levels(&mut progress).is_ok();
        search.report.states = search.parents.len();
        search.report.seconds = search.start.elapsed().as_secs_f64();
        search.report
    }

    fn levels(&mut self, progress: &mut impl FnMut(&Report)) -> Result<(), Over> {
        let mut from = 0;
        for _ in 0..self.plan.depth {
            let to = self.parents.len();
            if from == to {
                return Ok(());
            }
            self.report.levels.push(to - from);
            self.tell(progress);
            for at in from..to {
                self.level(at as u32)?;
                if at % 64 == 0 && self.start.elapsed().as_secs_f64() > self.report.seconds + 20.0 {
                    self.tell(progress);
                }
            }
            from = to;
        }
        self.report.levels.push(self.parents.len() - from);
        self.tell(progress);
        Ok(())
    }

    fn tell(&mut self, progress: &mut impl FnMut(&Report)) {
        self.report.states = self.parents.len();
        self.report.seconds = self.start.elapsed().as_secs_f64();
        progress(&self.report);
    }

    /// Makes a state again; it is the last one of the path then.
    fn reach(&mut self, at: u32) -> Result<(), Over> {
        let mut todo = Vec::new();
        let mut ancestor = at;
        loop {
            while self.path.last().is_some_and(|(top, _)| *top > ancestor) {
                self.path.pop();
            }
            if self.path.last().is_some_and(|(top, _)| *top == ancestor) {
                break;
            }
            todo.push(ancestor);
            ancestor = self.parents[ancestor as usize];
        }
        for number in todo.into_iter().rev() {
            let act = Act::from_number(self.acts[number as usize]).expect("a step");
            let mut run = self.path.last().expect("the first state").1.clone();
            run.act(act).expect("what went well before");
            self.path.push((number, run));
        }
        Ok(())
    }

    /// All outer steps from a state, and what follows by itself.
    fn level(&mut self, at: u32) -> Result<(), Over> {
        self.reach(at)?;
        let outer = self.path.last().expect("a state").1.outer();
        for act in outer {
            let from = self.path.last().expect("a state").1.clone();
            let Some(next) = self.step(at, from, act)? else {
                continue;
            };
            self.follow(next)?;
        }
        Ok(())
    }

    /// What may happen by itself, as far as the plan looks at it.
    fn inner(&self, run: &Run) -> Vec<Act> {
        let mut all = match self.plan.grain {
            Grain::Rest => Vec::new(),
            Grain::Every | Grain::Fixed => run.inner(),
        };
        if self.plan.grain == Grain::Fixed {
            all.truncate(1);
        }
        all
    }

    /// Follows a new state wherever it leads by itself.
    fn follow(&mut self, first: (u32, Run)) -> Result<(), Over> {
        let inner = self.inner(&first.1);
        let mut stack = vec![(first.0, first.1, inner)];
        while let Some((at, run, todo)) = stack.last_mut() {
            let Some(act) = todo.pop() else {
                stack.pop();
                continue;
            };
            let (at, last) = (*at, todo.is_empty());
            let from = if last {
                // Not needed again.
                let (_, run, _) = stack.pop().expect("the top");
                run
            } else {
                run.clone()
            };
            if let Some((number, run)) = self.step(at, from, act)? {
                let inner = self.inner(&run);
                stack.push((number, run, inner));
            }
        }
        Ok(())
    }

    /// One step; `None` if it leads to a state that is known.
    fn step(&mut self, at: u32, from: Run, act: Act) -> Result<Option<(u32, Run)>, Over> {
        self.report.steps += 1;
        let mut run = from;
        let rest = self.plan.grain == Grain::Rest;
        let tried = guarded(|| {
            run.act(act)?;
            if rest {
                run.settle()?;
            }
            Ok(())
        });
        if let Err(why) = tried {
            return self.violated(at, act, why);
        }
        let key = run.key();
        if !self.seen.insert(key) {
            return Ok(None);
        }
        let number = self.parents.len() as u32;
        self.parents.push(at);
        self.acts.push(act.number());
        if run.is_stable() {
            self.report.stable += 1;
            if self.plan.recover != 0 && key % self.plan.recover == 0 {
                self.report.recovered += 1;
                if let Err(why) = guarded(|| run.clone().recovers()) {
                    return self.violated(at, act, why);
                }
            }
        }
        if self.parents.len() >= self.plan.most {
            return Err(Over);
        }
        Ok(Some((number, run)))
    }

    fn violated<T>(&mut self, at: u32, act: Act, why: String) -> Result<T, Over> {
        let mut path = vec![act];
        let mut at = at;
        while at != 0 {
            path.push(Act::from_number(self.acts[at as usize]).expect("a step"));
            at = self.parents[at as usize];
        }
        path.reverse();
        self.report.violation = Some((why, path));
        Err(Over)
    }
}

/// A panic is a violation, too.
fn guarded(f: impl FnOnce() -> Verdict) -> Verdict {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(text.unwrap_or_else(|| "a panic".into()))
    })
}

/// Goes a path again, with the words of both nodes; returns what goes wrong at its end. Steps that
/// are not possible are left out.
pub fn replay(plan: &Plan, path: &[Act], mut say: impl FnMut(&str)) -> Verdict {
    let mut run = Run::new(plan.shape);
    run.world.talks = true;
    let rest = plan.grain == Grain::Rest;
    let mut verdict;
    for act in path {
        if !run.allows(*act) {
            continue;
        }
        say(&format!("--- {act:?}"));
        verdict = guarded(|| {
            run.act(*act)?;
            if rest {
                run.settle()?;
            }
            Ok(())
        });
        for n in 0..2 {
            for line in std::mem::take(&mut run.world.nodes[n].log) {
                say(&format!("n{n}: {line}"));
            }
        }
        say(&run.describe());
        if verdict.is_err() {
            return verdict;
        }
    }
    say("--- it is left alone");
    verdict = guarded(|| run.recovers());
    for n in 0..2 {
        for line in std::mem::take(&mut run.world.nodes[n].log) {
            say(&format!("n{n}: {line}"));
        }
    }
    say(&run.describe());
    verdict
}

/// Leaves out of a path what is not needed for it to end in a violation.
pub fn shorten(plan: &Plan, path: &[Act]) -> Vec<Act> {
    let mut path = path.to_vec();
    let mut at = path.len();
    while at > 0 {
        at -= 1;
        let mut less = path.clone();
        less.remove(at);
        if replay(plan, &less, |_| {}).is_err() {
            path = less;
        }
    }
    path
}
