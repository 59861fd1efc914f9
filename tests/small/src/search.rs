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
//! again about once per level. Threads share the tables and divide each level among them; each
//! numbers what it finds from blocks of its own, so that the order holds within a block.

use crate::ghost::Verdict;
use crate::script::{Act, Run, Shape};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// Threads that search.
    pub threads: usize,
    /// Ends with so many bytes of memory in use.
    pub memory: u64,
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
    /// Neither `most` nor `memory` ended it.
    pub complete: bool,
    /// The first violation: what, and the path to it.
    pub violation: Option<(String, Vec<Act>)>,
    /// Seconds.
    pub seconds: f64,
    /// Memory in use, bytes.
    pub memory: u64,
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

type Keys = HashSet<u64, BuildHasherDefault<AsIs>>;

/// Pieces of the table of keys, so that threads do not wait for each other, and it grows smoothly.
const PIECES: usize = 256;
/// Numbers that a thread takes at once.
const BLOCK: u32 = 256;
/// States of a level that a thread takes up at once.
const CHUNK: usize = 16;
/// Time between two reports, seconds.
const REPORT: f64 = 20.0;
/// No step: the first state, or a number that is not used.
const NONE: u8 = u8::MAX;
/// A path of machines, cloned and moved about.
const STACK: usize = 256 << 20;

/// Where each state comes from, by its number.
#[derive(Default)]
struct Tree {
    parents: Vec<u32>,
    acts: Vec<u8>,
}

/// The search in progress.
pub struct Search {
    plan: Plan,
    first: Run,
    seen: Vec<Mutex<Keys>>,
    tree: Mutex<Tree>,
    states: AtomicUsize,
    /// The next state of the level that nobody has taken up.
    next: AtomicUsize,
    over: AtomicBool,
    report: Mutex<Report>,
    start: Instant,
}

/// The search is over.
struct Over;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory in use, bytes; 0 if nobody knows.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse().ok());
    pages.map_or(0, |n: u64| n * 4096)
}

impl Search {
    /// Searches.
    pub fn run(plan: Plan, mut progress: impl FnMut(&Report)) -> Report {
        let search = Search {
            plan,
            first: Run::new(plan.shape),
            seen: (0..PIECES).map(|_| Mutex::default()).collect(),
            tree: Mutex::default(),
            states: AtomicUsize::new(1),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            report: Mutex::default(),
            start: Instant::now(),
        };
        search.is_new(search.first.key());
        lock(&search.tree).parents.push(0);
        lock(&search.tree).acts.push(NONE);
        search.levels(&mut progress);
        search.tell(&mut |_| {});
        let mut report = lock(&search.report).clone();
        report.complete = !search.over.load(Relaxed);
        report
    }

    fn levels(&self, progress: &mut impl FnMut(&Report)) {
        let mut before = 0;
        let mut from = 0;
        for level in 0..=self.plan.depth {
            let to = lock(&self.tree).parents.len();
            let states = self.states.load(Relaxed);
            lock(&self.report).levels.push(states - before);
            self.tell(progress);
            if states == before || level == self.plan.depth || self.over.load(Relaxed) {
                return;
            }
            self.level(from..to, progress);
            (before, from) = (states, to);
        }
    }

    /// All outer steps from the states of a level, and what follows by itself.
    fn level(&self, numbers: Range<usize>, progress: &mut impl FnMut(&Report)) {
        self.next.store(numbers.start, Relaxed);
        std::thread::scope(|scope| {
            for _ in 1..self.plan.threads {
                let work = || Worker::new(self).work(numbers.end, &mut || {});
                let thread = std::thread::Builder::new().stack_size(STACK);
                thread.spawn_scoped(scope, work).expect("a thread");
            }
            let mut told = self.start.elapsed().as_secs_f64();
            Worker::new(self).work(numbers.end, &mut || {
                if self.start.elapsed().as_secs_f64() > told + REPORT {
                    self.tell(progress);
                    told = self.start.elapsed().as_secs_f64();
                    if memory() > self.plan.memory {
                        self.over.store(true, Relaxed);
                    }
                }
            });
        });
    }

    fn tell(&self, progress: &mut impl FnMut(&Report)) {
        let mut report = lock(&self.report);
        report.states = self.states.load(Relaxed);
        report.seconds = self.start.elapsed().as_secs_f64();
        report.memory = memory();
        progress(&report);
    }

    fn is_new(&self, key: u64) -> bool {
        let piece = &self.seen[(key >> 32) as usize % PIECES];
        lock(piece).insert(key)
    }
}

/// A thread of the search.
struct Worker<'a> {
    search: &'a Search,
    /// The states from the first one to the present one, with their numbers.
    path: Vec<(u32, Run)>,
    /// Numbers that are its own.
    block: Range<u32>,
    steps: u64,
    stable: usize,
    recovered: usize,
}

impl<'a> Worker<'a> {
    fn new(search: &'a Search) -> Worker<'a> {
        Worker {
            search,
            path: vec![(0, search.first.clone())],
            block: 0..0,
            steps: 0,
            stable: 0,
            recovered: 0,
        }
    }

    /// Takes up states before number `end` until there are no more.
    fn work(mut self, end: usize, chunk_done: &mut impl FnMut()) {
        loop {
            let from = self.search.next.fetch_add(CHUNK, Relaxed);
            if from >= end || self.search.over.load(Relaxed) {
                return;
            }
            let some = (from..end.min(from + CHUNK)).try_for_each(|at| self.outer(at as u32));
            let mut report = lock(&self.search.report);
            report.steps += std::mem::take(&mut self.steps);
            report.stable += std::mem::take(&mut self.stable);
            report.recovered += std::mem::take(&mut self.recovered);
            drop(report);
            if some.is_err() {
                self.search.over.store(true, Relaxed);
                return;
            }
            chunk_done();
        }
    }

    /// Makes a state again; it is the last one of the path then.
    fn reach(&mut self, at: u32) {
        let mut todo = Vec::new();
        let mut ancestor = at;
        let tree = lock(&self.search.tree);
        loop {
            // A predecessor has the smaller number.
            while self.path.last().is_some_and(|(top, _)| *top > ancestor) {
                self.path.pop();
            }
            if self.path.last().is_some_and(|(top, _)| *top == ancestor) {
                break;
            }
            todo.push((ancestor, tree.acts[ancestor as usize]));
            ancestor = tree.parents[ancestor as usize];
        }
        drop(tree);
        for (number, act) in todo.into_iter().rev() {
            let act = Act::from_number(act).expect("a step");
            let mut run = self.path.last().expect("the first state").1.clone();
            run.act(act).expect("what went well before");
            if self.search.plan.grain == Grain::Rest {
                run.settle().expect("what went well before");
            }
            self.path.push((number, run));
        }
    }

    /// All outer steps from a state, and what follows by itself.
    fn outer(&mut self, at: u32) -> Result<(), Over> {
        if at != 0 && lock(&self.search.tree).acts[at as usize] == NONE {
            return Ok(());
        }
        self.reach(at);
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
        let mut all = match self.search.plan.grain {
            Grain::Rest => Vec::new(),
            Grain::Every | Grain::Fixed => run.inner(),
        };
        if self.search.plan.grain == Grain::Fixed {
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
        self.steps += 1;
        let mut run = from;
        let plan = &self.search.plan;
        let tried = guarded(|| {
            run.act(act)?;
            if plan.grain == Grain::Rest {
                run.settle()?;
            }
            Ok(())
        });
        if let Err(why) = tried {
            return self.violated(at, act, why);
        }
        let key = run.key();
        if !self.search.is_new(key) {
            return Ok(None);
        }
        let number = self.keep(at, act);
        if run.is_stable() {
            self.stable += 1;
            if plan.recover != 0 && key % plan.recover == 0 {
                self.recovered += 1;
                if let Err(why) = guarded(|| run.clone().recovers()) {
                    return self.violated(at, act, why);
                }
            }
        }
        let states = self.search.states.fetch_add(1, Relaxed) + 1;
        if states >= plan.most || self.search.over.load(Relaxed) {
            return Err(Over);
        }
        Ok(Some((number, run)))
    }

    /// Stores where a state comes from; returns its number.
    fn keep(&mut self, parent: u32, act: Act) -> u32 {
        let mut tree = lock(&self.search.tree);
        let number = self.block.next().unwrap_or_else(|| {
            let first = tree.parents.len() as u32;
            let len = tree.parents.len() + BLOCK as usize;
            tree.parents.resize(len, 0);
            tree.acts.resize(len, NONE);
            self.block = first + 1..first + BLOCK;
            first
        });
        tree.parents[number as usize] = parent;
        tree.acts[number as usize] = act.number();
        number
    }

    fn violated<T>(&mut self, at: u32, act: Act, why: String) -> Result<T, Over> {
        let mut path = vec![act];
        let mut at = at;
        let tree = lock(&self.search.tree);
        while at != 0 {
            path.push(Act::from_number(tree.acts[at as usize]).expect("a step"));
            at = tree.parents[at as usize];
        }
        path.reverse();
        let mut report = lock(&self.search.report);
        report.violation.get_or_insert((why, path));
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
    for act in path {
        if !run.allows(*act) {
            continue;
        }
        say(&format!("--- {act:?}"));
        let verdict = guarded(|| {
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
        verdict?;
    }
    say("--- it is left alone");
    let verdict = guarded(|| run.recovers());
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
