// SPDX-License-Identifier: GPL-2.0

//! What happened, in numbers: events, faults, transitions of states, rules of the handshake.

use crate::algebra::{joint, Joint};
use crate::cover::decision;
use drbd_core::node::Note;
use drbd_core::state::{conn, disk, Role, State};
use std::collections::BTreeMap;

/// Rules of the UUID handshake and their results, as in state.md §6a.
pub const RULES: &[(u32, i32)] = &[
    (10, 0),
    (20, -2),
    (30, -1091),
    (30, 2),
    (34, 1),
    (35, -1),
    (36, 1),
    (37, -1),
    (40, 0),
    (40, 1),
    (40, -1),
    (41, -66_661),
    (41, -100),
    (41, -1),
    (41, 1),
    (50, -1),
    (51, -1091),
    (51, -1),
    (60, -2),
    (70, 1),
    (71, -1091),
    (71, 1),
    (80, 2),
    (90, 100),
    (100, -100),
    (100, -1000),
];

/// Counters of one run or of many.
#[derive(Default, Clone, Debug)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    /// Events.
    pub events: u64,
    /// Steps of machines.
    pub steps: u64,
    /// I/Os of applications.
    pub ios: u64,
    /// Sectors that lost unflushed data at crashes.
    pub lost_sectors: u64,
    /// Packets that a machine did not want.
    pub unwanted: u64,
    /// Split brains found.
    pub split_brains: u64,
    /// UUIDs in the history that were seen nowhere before.
    pub odd_uuids: u64,
    /// Faults and orders by kind.
    pub done: BTreeMap<&'static str, u64>,
    conn: [[u64; 24]; 24],
    disk: [[u64; 9]; 9],
    pdsk: [[u64; 9]; 9],
    role: [[u64; 3]; 3],
    /// Rules of the handshake and their results.
    pub rules: BTreeMap<(u32, i32), u64>,
    /// Moves of the state as a whole.
    pub joint: BTreeMap<(Joint, Joint), u64>,
    /// Moves of UUIDs, see [`crate::moves`].
    pub moves: BTreeMap<&'static str, u64>,
    /// See [`crate::cover::DECISIONS`].
    pub decisions: BTreeMap<&'static str, u64>,
}

fn add<const N: usize>(to: &mut [[u64; N]; N], from: &[[u64; N]; N]) {
    to.iter_mut()
        .flatten()
        .zip(from.iter().flatten())
        .for_each(|(t, f)| *t += f);
}

fn more<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (what, n) in from {
        *to.entry(*what).or_default() += n;
    }
}

fn pairs<const N: usize>(what: &str, m: &[[u64; N]; N], name: impl Fn(usize) -> String) -> String {
    let mut out = String::new();
    for (old, row) in m.iter().enumerate() {
        let to: Vec<String> = row
            .iter()
            .enumerate()
            .filter(|(_, n)| **n != 0)
            .map(|(new, n)| format!("{} {n}", name(new)))
            .collect();
        if !to.is_empty() {
            out += &format!("  {what} {:<13} -> {}\n", name(old), to.join(", "));
        }
    }
    out
}

impl Stats {
    /// A rule decided.
    pub fn rule(&mut self, rule: u32, result: i32) {
        *self.rules.entry((rule, result)).or_default() += 1;
    }

    /// Something was done to the cluster.
    pub fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// A UUID moved.
    pub fn uuid_move(&mut self, kind: &'static str) {
        *self.moves.entry(kind).or_default() += 1;
    }

    /// A line for the log: it may tell of a decision.
    pub fn noted(&mut self, note: &Note) {
        if let Some(decision) = decision(note) {
            *self.decisions.entry(decision).or_default() += 1;
        }
    }

    /// A volume changed its state.
    pub fn state_changed(&mut self, old: &State, new: &State) {
        let (from, to) = (joint(old), joint(new));
        if from != to {
            *self.joint.entry((from, to)).or_default() += 1;
        }
        let (a, b) = (old.conn.number() as usize, new.conn.number() as usize);
        self.conn[a][b] += u64::from(a != b);
        let (a, b) = (old.disk.number() as usize, new.disk.number() as usize);
        self.disk[a][b] += u64::from(a != b);
        let (a, b) = (old.pdsk.number() as usize, new.pdsk.number() as usize);
        self.pdsk[a][b] += u64::from(a != b);
        let (a, b) = (old.role.number() as usize, new.role.number() as usize);
        self.role[a][b] += u64::from(a != b);
    }

    /// Adds the numbers of another run.
    pub fn merge(&mut self, other: &Stats) {
        self.runs += other.runs;
        self.time += other.time;
        self.events += other.events;
        self.steps += other.steps;
        self.ios += other.ios;
        self.lost_sectors += other.lost_sectors;
        self.unwanted += other.unwanted;
        self.split_brains += other.split_brains;
        self.odd_uuids += other.odd_uuids;
        more(&mut self.done, &other.done);
        more(&mut self.rules, &other.rules);
        more(&mut self.joint, &other.joint);
        more(&mut self.moves, &other.moves);
        more(&mut self.decisions, &other.decisions);
        add(&mut self.conn, &other.conn);
        add(&mut self.disk, &other.disk);
        add(&mut self.pdsk, &other.pdsk);
        add(&mut self.role, &other.role);
    }

    /// Pairs of states that were gone through.
    pub fn transitions(&self) -> usize {
        let count = |n: &u64| usize::from(*n != 0);
        self.conn.iter().flatten().map(count).sum::<usize>()
            + self.disk.iter().flatten().map(count).sum::<usize>()
            + self.pdsk.iter().flatten().map(count).sum::<usize>()
            + self.role.iter().flatten().map(count).sum::<usize>()
    }

    /// One line for people who wait.
    pub fn line(&self, seconds: f64) -> String {
        format!(
            "{} runs, {:.1} simulated hours, {} events ({:.0}/s), {} I/Os, {} transitions",
            self.runs,
            self.time as f64 / 3.6e12,
            self.events,
            self.events as f64 / seconds.max(0.001),
            self.ios,
            self.transitions()
        )
    }

    /// All of it, for reading.
    pub fn table(&self, seconds: f64) -> String {
        let mut out = format!("{}\n", self.line(seconds));
        out += &format!(
            "  {} steps, {} sectors lost from caches, {} split brains, {} unwanted packets, \
             {} odd UUIDs\n",
            self.steps, self.lost_sectors, self.split_brains, self.unwanted, self.odd_uuids
        );
        let done: Vec<String> = self.done.iter().map(|(w, n)| format!("{w} {n}")).collect();
        out += &format!("faults and orders: {}\ntransitions:\n", done.join(", "));
        let conn = |n| {
            conn::State::from_number(n as u8)
                .map_or("?", |s| s.name())
                .to_string()
        };
        let disk = |n| {
            disk::State::from_number(n as u8)
                .map_or("?", |s| s.name())
                .to_string()
        };
        let role = |n| {
            Role::from_number(n as u8)
                .map_or("?", |s| s.name())
                .to_string()
        };
        out += &pairs("conn", &self.conn, conn);
        out += &pairs("disk", &self.disk, disk);
        out += &pairs("pdsk", &self.pdsk, disk);
        out += &pairs("role", &self.role, role);
        let rules: Vec<String> = self
            .rules
            .iter()
            .map(|((r, v), n)| format!("{r}({v}) {n}"))
            .collect();
        out += &format!("rules of the handshake: {}\n", rules.join(", "));
        out
    }
}
