// SPDX-License-Identifier: GPL-2.0

//! Where node 0 runs: what becomes of it when a node of the pair below dies, and on which one it
//! comes back. As a cluster manager does it, the pair below is promoted where all data are.

use super::{Below, STACKED};
use crate::jobs::Job;
use crate::plan::{Action, Op};
use crate::world::{say, World, VOL};
use drbd_core::node::admin::Command;
use drbd_core::state::conn::State as Conn;
use drbd_core::state::disk::State as Disk;
use drbd_core::state::State;
use drbd_core::units::{Sector, SectorRange, Sectors};

/// What [`Op::Below`] does, by its first number.
const BELOW: [Op; 8] = [
    Op::Crash,
    Op::Crash,
    Op::Cut,
    Op::Break,
    Op::DiskError,
    Op::Stall,
    Op::Up,
    Op::Switch,
];

impl Below {
    /// The node on which the device is there.
    fn ready(&self) -> Option<usize> {
        let nodes = &self.world.nodes;
        let site = (0..2).find(|n| nodes[*n].state.role.is_primary())?;
        let s = nodes[site].state;
        let good = s.disk == Disk::UpToDate && !s.is_suspended();
        (good && nodes[site].writable && nodes[site].size.0 != 0).then_some(site)
    }

    /// Who has all data by what the Primary knows: whoever was not there does not.
    pub(super) fn watch(&mut self) {
        let nodes = &self.world.nodes;
        if self.world.is_in_sync() {
            self.safe = [true; 2];
        }
        let Some(site) = (0..2).find(|n| nodes[*n].state.role.is_primary()) else {
            return;
        };
        let s = nodes[site].state;
        let there = s.conn >= Conn::Connected && s.pdsk == Disk::UpToDate;
        if !there {
            self.safe[1 - site] = false;
        } else if s.disk != Disk::UpToDate {
            self.safe[site] = false;
        }
    }

    /// A node below loses its power.
    fn dies(&mut self, node: usize) {
        self.watch();
        if self.world.nodes[node].res.is_some() {
            self.world.crash(node);
        }
    }

    /// Makes a node Primary that has all data.
    fn raise(&mut self) {
        self.watch();
        let w = &mut self.world;
        let busy = |n: &crate::node::Node| n.job.is_some() || !n.jobs.is_empty();
        if w.nodes.iter().any(|n| n.state.role.is_primary() || busy(n)) {
            return;
        }
        let first = w.rng.below(2) as usize;
        let good = |n: &usize| w.nodes[*n].state.disk >= Disk::Consistent && self.safe[*n];
        if let Some(node) = [first, 1 - first].into_iter().find(good) {
            w.want_order(
                node,
                Command::Primary {
                    vol: VOL,
                    force: false,
                },
            );
        } else if let Some(node) = [first, 1 - first].into_iter().find(|n| self.safe[*n]) {
            w.want_up(node);
        }
    }
}

impl World {
    /// The pair below gets up, and is the device that node 0 stands on.
    pub(crate) fn begin_below(&mut self) {
        let Some(below) = self.below.as_mut() else {
            return;
        };
        let w = &mut below.world;
        (w.tracing, w.verbose) = (self.tracing, self.verbose);
        w.knobs.begin = 0;
        w.begin_idle();
        below.raise();
        self.now = self.now.max(below.world.now);
    }

    /// Node 0 lost its power, and its site did.
    pub(crate) fn site_dies(&mut self, was: State) {
        let below = self.below.as_mut().expect("a pair below");
        below.died = Some(was);
        below.attached = false;
        below.tool.clear();
        let site = below.site;
        below.world.now = self.now;
        below.dies(site);
    }

    /// Somebody wants node 0 up.
    pub(crate) fn want_site(&mut self) {
        let below = self.below.as_mut().expect("a pair below");
        below.wanted = true;
        below.world.now = self.now;
        below.raise();
        self.exchange();
    }

    /// Node 0 comes up if somebody wants that and the device is there.
    pub(super) fn bring_up(&mut self) {
        let below = self.below.as_mut().expect("a pair below");
        if !below.wanted || self.nodes[STACKED].res.is_some() {
            return;
        }
        let Some(site) = below.ready().filter(|n| below.world.hold_open(*n, true)) else {
            return;
        };
        below.world.nodes[site].held = true;
        (below.site, below.wanted) = (site, false);
        let begun = std::mem::replace(&mut below.begun, true);
        say!(self, "the device is on node {site} of the pair below");
        let lost = match begun {
            true => self.mirror_all(),
            false => Vec::new(),
        };
        let died = self.below.as_mut().and_then(|b| b.died.take());
        self.node_died(STACKED, died.unwrap_or(State::INITIAL), &lost);
        self.check_marks();
        self.power_on(STACKED);
        self.want(STACKED, Job::Attach);
        self.want(STACKED, Job::Connect(false));
    }

    /// What failed while nobody below had the data is there or not, as whoever is back has it.
    pub(crate) fn look_below(&mut self, node: usize) {
        if !self.is_stacked(node) {
            return;
        }
        let disk = &mut self.nodes[node].disk;
        let range = SectorRange {
            start: Sector(0),
            len: Sectors(disk.data_sectors() as u64),
        };
        if let Some(below) = &self.below {
            below.mirror(range, disk);
        }
    }

    /// Brings the whole mirror up to date; the data sectors that this changes.
    fn mirror_all(&mut self) -> Vec<u32> {
        let disk = &mut self.nodes[STACKED].disk;
        let range = SectorRange {
            start: Sector(0),
            len: disk.size(),
        };
        let below = self.below.as_ref().expect("a pair below");
        below.mirror(range, disk)
    }

    /// See [`Op::Below`].
    pub(crate) fn act_below(&mut self, x: &Action) {
        let Some(below) = self.below.as_mut() else {
            return;
        };
        below.world.now = self.now;
        let op = BELOW[x.a as usize % BELOW.len()];
        let node = x.node;
        match op {
            Op::Crash if node == below.site && self.nodes[STACKED].res.is_some() => {
                self.crash(STACKED);
            }
            Op::Crash => below.dies(node),
            Op::Switch => self.move_site(),
            _ => {
                let (a, b) = match op {
                    Op::DiskError => (1 + x.b % 3, x.b / 3 % 3),
                    Op::Break => (x.b % 4, 0),
                    _ => (x.b, 0),
                };
                below.world.act(&Action { op, a, b, ..*x });
            }
        }
        self.exchange();
    }

    /// The device moves in good order, if nobody uses it.
    fn move_site(&mut self) {
        let below = self.below.as_mut().expect("a pair below");
        let free = self.nodes[STACKED].res.is_none() && !below.wanted;
        if free && below.world.is_in_sync() {
            let force = false;
            let (w, from) = (&mut below.world, below.site);
            w.want_order(from, Command::Secondary { vol: VOL });
            w.want_order(1 - from, Command::Primary { vol: VOL, force });
        }
    }

    /// What a careful administrator does about the pair below.
    pub(crate) fn care_below(&mut self, second: u64) {
        let Some(below) = self.below.as_mut() else {
            return;
        };
        below.world.now = self.now;
        let site = &below.world.nodes[below.site];
        if site.refused && site.held {
            // What is above saw data that are nowhere any more: it has to end.
            self.crash(STACKED);
            return;
        }
        // I/O that was frozen for want of data stays so, in C as well, though all data are back.
        if !below.world.is_in_sync() || below.world.is_frozen() {
            below.world.care(second);
        }
        below.raise();
        below.wanted |= self.nodes[STACKED].res.is_none();
        self.exchange();
    }

    /// Faults stop below, too.
    pub(crate) fn faults_stop_below(&mut self) {
        if let Some(below) = self.below.as_mut() {
            below.world.now = self.now;
            below.world.faults_stop();
        }
    }

    /// Whether nothing is to be done about the pair below.
    pub(crate) fn is_calm_below(&self) -> bool {
        self.below.as_ref().is_none_or(|b| {
            b.world.is_in_sync()
                && b.open.is_empty()
                && b.tool.is_empty()
                && b.waiting.is_empty()
                && !b.world.is_frozen()
        })
    }

    /// At rest the device below holds what node 0 has been told; then the pair below rests.
    pub(crate) fn end_below(&mut self) {
        if self.below.is_none() {
            return;
        }
        self.run_for("rest below", 60, World::is_calm_below);
        let lost = self.mirror_all();
        if let Some(at) = lost.first() {
            let why = format!("sector {at} and {} more", lost.len() - 1);
            self.violated("the device below holds what it was given", &why);
        }
        self.check_equal(0, "two UpToDate disks are equal");
        let below = self.below.as_mut().expect("a pair below");
        below.world.now = self.now;
        below.world.end_in_peace();
        let stats = std::mem::take(&mut below.world.stats);
        self.stats.merge(&stats);
    }
}
