// SPDX-License-Identifier: GPL-2.0

//! Administrators: `drbdadm up`, `primary`, `down` and the like, and what tests ask about a node.

use crate::drbdmeta;
use crate::node::{Machine, SimHost};
use crate::world::{World, VOL};
use drbd_core::node::admin::Command;
use drbd_core::node::{AppOp, OpId, PEER};
use drbd_core::time::Duration;
use drbd_core::units::{BmBit, Sectors};

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// 1, 2, 3 for A, B, C.
    pub protocol: u32,
    /// `c-min-rate`, KiB/s.
    pub c_min_rate: u32,
    /// `al-extents`.
    pub al_extents: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            protocol: 3,
            c_min_rate: 250,
            al_extents: 67,
        }
    }
}

/// How long an administrator waits for an answer.
const PATIENCE: Duration = Duration::secs(120);

impl World {
    /// Gives an order to the machine of a node and waits for the answer.
    pub fn order(&mut self, node: usize, command: Command) -> i32 {
        let op = OpId(self.next_op);
        self.with_machine(node, |res, host| res.command(op, command, host));
        self.answer(node)
    }

    /// Calls the machine beside its steps and carries out what it wants.
    pub(crate) fn with_machine(
        &mut self,
        node: usize,
        call: impl FnOnce(&mut Machine, &mut SimHost<'_>),
    ) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let mut host = SimHost {
            now,
            rng: &mut n.rng,
            effects: Vec::new(),
        };
        let res = n.res.as_mut().expect("the node is up");
        call(res, &mut host);
        let effects = host.effects;
        self.carry_out_all(node, effects);
    }

    /// Waits for the answer to the last order.
    pub(crate) fn answer(&mut self, node: usize) -> i32 {
        let op = self.next_op;
        self.next_op += 1;
        self.run_until("an answer", PATIENCE, |w| {
            w.nodes[node].answers.contains_key(&op)
        });
        self.nodes[node].answers[&op]
    }

    fn must(&mut self, node: usize, command: Command) {
        let code = self.order(node, command);
        // SS_ codes of success are 1 and 2, ERR_ codes begin at 101 (NO_ERROR).
        if !matches!(code, 1 | 2 | 3 | 4 | 101) {
            let states = self.describe();
            self.fail(&format!("n{node} {command:?}: code {code}; {states}"));
        }
    }

    /// `drbdadm primary [--force]`.
    pub fn primary(&mut self, node: usize, force: bool) {
        self.must(node, Command::Primary { vol: VOL, force });
    }

    /// `drbdadm secondary`.
    pub fn secondary(&mut self, node: usize) {
        self.must(node, Command::Secondary { vol: VOL });
    }

    /// `drbdadm disconnect`.
    pub fn disconnect(&mut self, node: usize) {
        let peer = PEER;
        self.must(node, Command::Disconnect { peer, force: false });
    }

    /// `drbdadm connect`, if the node is StandAlone.
    pub fn connect(&mut self, node: usize) {
        if self.cstate(node) == "StandAlone" {
            let conf = self.net_conf();
            self.must(node, Command::Connect { peer: PEER, conf });
        }
    }

    /// `drbdadm down`.
    pub fn down(&mut self, node: usize) {
        if self.cstate(node) != "StandAlone" {
            self.disconnect(node);
        }
        self.must(
            node,
            Command::Detach {
                vol: VOL,
                force: false,
            },
        );
        self.run_until("the disk to be free", PATIENCE, |w| {
            w.disks(node).0 == "Diskless"
        });
        self.must(node, Command::DelVolume { vol: VOL });
        self.nodes[node].res = None;
        self.nodes[node].life += 1;
    }

    /// Lets everything that was submitted come to its end.
    pub fn quiesce(&mut self) {
        self.run_until("the end of all I/O", Duration::secs(300), |w| {
            w.open_ios(0) == 0 && w.open_ios(1) == 0
        });
        // Acknowledgements, barriers, bits.
        self.run(Duration::secs(2));
    }

    /// One random read or write.
    pub fn random_io(&mut self, node: usize) {
        let size = self.size(node).0;
        if size == 0 || self.nodes[node].res.is_none() {
            return;
        }
        let len = match self.rng.below(10) {
            0 => self.rng.between(1, 256),
            1 | 2 => self.rng.between(1, 16),
            _ => 8,
        };
        // Most writes go to a few hot places.
        let at = if self.rng.percent(60) {
            self.rng.below(64) * 8 + self.rng.below(4) * (size / 4)
        } else {
            self.rng.below(size)
        };
        let start = at.min(size - len);
        let op = if self.rng.percent(20) {
            AppOp::Read
        } else {
            AppOp::Write
        };
        if self.nodes[node].res.as_ref().is_some_and(Machine::can_submit) {
            self.submit(node, op, start, len);
        }
    }

    /// Reads the whole device through the machine.
    pub fn read_everything(&mut self, node: usize) {
        let size = self.size(node).0;
        let mut at = 0;
        while at < size {
            let len = (size - at).min(256);
            self.submit(node, AppOp::Read, at, len);
            at += len;
            self.run_until("reads", PATIENCE, |w| w.open_ios(node) < 50);
        }
        self.run_until("reads", PATIENCE, |w| w.open_ios(node) == 0);
    }

    /// Whether both nodes are connected, up to date and at rest.
    pub fn is_in_sync(w: &World) -> bool {
        (0..2).all(|n| w.cstate(n) == "Connected" && w.disks(n) == ("UpToDate", "UpToDate"))
    }

    /// Both devices hold the same.
    pub fn assert_equal_disks(&mut self) {
        let size = self.last_size;
        let found = {
            let (a, b) = (self.data(0, size), self.data(1, size));
            (0..size.0 as usize).find(|at| a[*at] != b[*at]).map(|at| (at, a[at], b[at]))
        };
        if let Some((at, a, b)) = found {
            let bits: Vec<_> = (0..2).map(|n| self.is_dirty(n, BmBit(at as u64 / 8))).collect();
            self.fail(&format!("sector {at}: {a:#x} and {b:#x}, dirty {bits:?}"));
        }
    }

    /// The guarantees of protocol A or B do not reach this far: takes the data as they are.
    pub fn accept_data_of(&mut self, node: usize) {
        let data = self.data(node, self.last_size).to_vec();
        self.oracle.accept(&data);
    }

    /// Applies the activity log and says how many extents were hot.
    pub(crate) fn apply_al(&mut self, node: usize) -> usize {
        let hot = drbdmeta::apply_al(&mut self.nodes[node].disk);
        self.note(format!("n{node} activity log: {hot} extents"));
        hot
    }

    /// Size of the device, as applications see it.
    pub fn size(&self, node: usize) -> Sectors {
        let _ = node;
        self.last_size
    }

    /// State of the connection, as a word.
    pub fn cstate(&self, node: usize) -> &'static str {
        self.nodes[node].state.conn.name()
    }

    /// States of own and peer's disk, as words.
    pub fn disks(&self, node: usize) -> (&'static str, &'static str) {
        let s = self.nodes[node].state;
        (s.disk.name(), s.pdsk.name())
    }

    /// Both nodes in a line.
    pub fn describe(&self) -> String {
        let one = |n: usize| {
            let s = self.nodes[n].state;
            let (disk, pdsk) = self.disks(n);
            let ios = self.open_ios(n);
            let bits = self.bits_set(n);
            let (role, conn) = (s.role.name(), self.cstate(n));
            format!("n{n} {role} {conn} {disk}/{pdsk} {ios} I/Os, {bits} bits")
        };
        format!("{}; {}", one(0), one(1))
    }

    /// Bits that are set in the bitmap of a node.
    pub fn bits_set(&self, node: usize) -> u64 {
        self.nodes[node].res.as_ref().map_or(0, |r| r.out_of_sync(VOL))
    }

    /// Whether a block is marked out of sync; `None` if the node does not know.
    pub fn is_dirty(&self, node: usize, bit: BmBit) -> Option<bool> {
        self.nodes[node].res.as_ref()?.is_out_of_sync(VOL, bit)
    }

    /// Bits that the last resync of a node began with.
    pub fn resynced(&self, node: usize) -> u64 {
        self.nodes[node].resynced
    }
}
