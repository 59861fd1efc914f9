// SPDX-License-Identifier: GPL-2.0

//! The ways in which a pair begins, chosen by the knob `begin`. At the end node 0 is Primary, an
//! application works there, and both nodes look for each other.

use crate::jobs::Job;
use crate::run::PATIENCE;
use crate::world::{say, Event, World, VOL};
use drbd_core::node::admin::Command;
use drbd_core::state::conn::State as Conn;
use drbd_core::state::disk::State as Disk;
use drbd_core::time::Duration;

/// I/Os of the first application, ns between them, its mix.
const WORK: Event = Event::Work(30, 3_000_000, 1);

impl World {
    /// Both nodes get up, in one way or another.
    pub(crate) fn begin(&mut self) {
        self.begin_below();
        match self.knobs.begin {
            1 => self.begin_without_resync(),
            2 => self.begin_with_a_fresh_peer(),
            3 => self.begin_apart(),
            4 => self.begin_with_a_copy(),
            5 | 6 => self.begin_diskless(),
            _ => self.begin_together(),
        }
        // Half of the runs begin in the middle of the first resync.
        if self.rng.percent(50) {
            self.await_sync("a first resync");
            self.agreed();
        }
    }

    /// Waits for `what`, which is when both disks are in sync.
    ///
    /// A Primary whose peer is slow may leave it (`on-congestion disconnect`): then somebody has to
    /// connect again.
    pub(crate) fn await_sync(&mut self, what: &str) {
        let end = self.now.plus(Duration::secs(PATIENCE));
        while self.knobs.on_congestion == 2 && !self.is_in_sync() && self.now < end {
            self.run(Duration::secs(1));
            for node in 0..self.nodes.len() {
                if self.nodes[node].state.conn == Conn::StandAlone {
                    self.want(node, Job::Connect(false));
                }
            }
        }
        self.run_for(what, PATIENCE, World::is_in_sync);
    }

    /// As everybody does: connect, force one node, wait for the resync.
    fn begin_together(&mut self) {
        for node in 0..self.nodes.len() {
            self.want_up(node);
        }
        self.run_for("a first connection", PATIENCE, |w| w.both(Conn::Connected));
        self.promote(0, true);
        self.schedule(0, Duration::millis(5), WORK);
    }

    /// The same without an application; ends when both disks are good.
    pub(crate) fn begin_idle(&mut self) {
        for node in 0..self.nodes.len() {
            self.want_up(node);
        }
        self.run_for("a first connection", PATIENCE, |w| w.both(Conn::Connected));
        self.promote(0, true);
        self.await_sync("a first resync");
        self.agreed();
    }

    /// `new-current-uuid --clear-bitmap`: both disks are equal, so nothing is copied.
    fn begin_without_resync(&mut self) {
        for node in 0..self.nodes.len() {
            self.want_up(node);
        }
        self.run_for("a first connection", PATIENCE, |w| w.both(Conn::Connected));
        self.truth.forced = true;
        self.new_uuid(true);
        let end = self.now.plus(Duration::secs(60));
        while !self.is_in_sync() && self.next_before(end) {}
        // If the connection was lost meanwhile it has to be done by force.
        let force = self.nodes[0].state.disk < Disk::UpToDate;
        self.promote(0, force);
        self.schedule(0, Duration::millis(5), WORK);
    }

    /// One node has worked alone for some time when its peer, which has no data, is added.
    fn begin_with_a_fresh_peer(&mut self) {
        self.begin_alone();
        if self.rng.percent(50) {
            self.want(0, Job::Connect(false));
        }
        self.run(Duration::secs(2));
        self.want(0, Job::Connect(false));
        self.want_up(1);
    }

    /// Both are attached, and one is Primary, before they connect for the first time.
    fn begin_apart(&mut self) {
        self.power_on(1);
        self.want(1, Job::Attach);
        self.begin_alone();
        for node in 0..self.nodes.len() {
            self.want(node, Job::Connect(false));
        }
    }

    /// The peer's disk is a copy of the first one, brought by truck; the bitmap knows what was
    /// written since.
    fn begin_with_a_copy(&mut self) {
        self.begin_alone();
        self.run(Duration::secs(1));
        self.run_for("end of all I/O", PATIENCE, |w| {
            let n = &w.nodes[0];
            w.open_ios(0) == 0 && n.writes.is_empty()
        });
        self.want_order(0, Command::Secondary { vol: VOL });
        self.new_uuid(true);
        self.run_for("end of all I/O", PATIENCE, |w| w.nodes[0].writes.is_empty());
        say!(self, "the disk of n0 is copied");
        let mut copy = self.nodes[0].disk.clone();
        copy.flush();
        self.replace_disk(1, copy);
        self.accept_data_of(1);
        self.new_uuid(false);
        self.promote(0, false);
        self.schedule(0, Duration::millis(5), WORK);
        self.want(0, Job::Connect(false));
        self.want_up(1);
    }

    /// They connect before they have their disks.
    fn begin_diskless(&mut self) {
        for node in 0..self.nodes.len() {
            self.power_on(node);
            self.want(node, Job::Connect(false));
        }
        self.run_for("a first connection", PATIENCE, |w| w.both(Conn::Connected));
        for node in 0..self.nodes.len() {
            self.want(node, Job::Attach);
        }
        self.run_for("disks", PATIENCE, |w| {
            let there = |n: usize| w.nodes[n].state.disk == Disk::Inconsistent;
            there(0) && there(1)
        });
        if self.knobs.begin == 5 {
            // Long enough to hear of each other, see regressions/forced-in-a-hurry.plan.
            self.run(Duration::secs(1));
        }
        self.promote(0, true);
        self.schedule(0, Duration::millis(5), WORK);
    }

    /// Node 0 is Primary, its peer is not there; an application works.
    fn begin_alone(&mut self) {
        self.power_on(0);
        self.want(0, Job::Attach);
        self.run_for("a disk", PATIENCE, |w| {
            w.nodes[0].state.disk == Disk::Inconsistent
        });
        self.promote(0, true);
        self.schedule(0, Duration::millis(5), WORK);
        self.run(Duration::millis(200));
    }

    fn promote(&mut self, node: usize, force: bool) {
        self.truth.forced |= force;
        self.want_order(node, Command::Primary { vol: VOL, force });
        if self.knobs.begin != 0 {
            self.idle(node);
        }
    }

    fn new_uuid(&mut self, clear_bitmap: bool) {
        let vol = VOL;
        self.want_order(0, Command::NewCurrentUuid { vol, clear_bitmap });
        self.idle(0);
    }

    /// The administrator of a node has got all answers.
    fn idle(&mut self, node: usize) {
        self.run_for("answers", PATIENCE, |w| {
            let n = &w.nodes[node];
            n.job.is_none() && n.jobs.is_empty()
        });
    }
}
