// SPDX-License-Identifier: GPL-2.0

//! What administrators do: orders and their answers, from power-on to `attach`.

use super::{World, VOL};
use crate::drbdmeta;
use crate::node::volume_storage;
use drbd_core::node::admin::Command;
use drbd_core::node::{OpId, PEER};
use drbd_core::units::{Minor, Vnr};

impl World {
    /// Gives an order; its number is that of the answer.
    pub fn order(&mut self, node: usize, command: Command) -> u32 {
        let op = self.next_op;
        self.next_op += 1;
        self.with(node, |m, host| m.command(OpId(op), command, host));
        op
    }

    /// Gives an order and waits for the answer.
    pub fn ask(&mut self, node: usize, command: Command) -> i32 {
        let op = self.order(node, command);
        self.until("an answer", |w| w.nodes[node].answers.contains_key(&op));
        self.nodes[node].answers[&op]
    }

    /// As [`World::ask`], and it has to succeed.
    pub fn must(&mut self, node: usize, command: Command) {
        let code = self.ask(node, command);
        if !matches!(code, 1 | 2 | 101) {
            self.fail(&format!("n{node} {command:?}: {code}"));
        }
    }

    /// Powers a node on: applies the activity log, attaches, connects. `None`: `drbdmeta` finds
    /// nothing that it can use.
    pub fn boot(&mut self, node: usize) -> Option<()> {
        self.load(node)?;
        let code = self.attach(node);
        if code != 101 {
            self.fail(&format!("n{node} attach: {code}"));
        }
        let conf = self.net_conf;
        self.must(node, Command::Connect { peer: PEER, conf });
        Some(())
    }

    /// Applies the activity log, loads the module and adds the volume.
    pub fn load(&mut self, node: usize) -> Option<()> {
        let n = &mut self.nodes[node];
        drbdmeta::apply_al(&mut n.disk, n.last_size)?;
        n.last_size = n.disk.sectors();
        n.load();
        self.add_volume(node);
        Some(())
    }

    /// `drbdsetup new-minor`.
    pub fn add_volume(&mut self, node: usize) {
        self.with(node, |m, host| {
            let added = m.add_volume(Minor(0), Vnr(0), volume_storage(), host);
            assert!(matches!(added, Ok(VOL)));
        });
    }

    /// `drbdsetup attach`.
    pub fn attach(&mut self, node: usize) -> i32 {
        let op = match self.order_attach(node) {
            Ok(op) => op,
            Err(code) => return code,
        };
        self.until("attach", |w| w.nodes[node].answers.contains_key(&op));
        self.nodes[node].answers[&op]
    }

    /// Asks for it and returns the number of the answer.
    ///
    /// # Errors
    /// The code with which it is refused at once.
    pub fn order_attach(&mut self, node: usize) -> Result<u32, i32> {
        let backing = self.nodes[node].backing(&self.disk_conf)?;
        let op = self.next_op;
        self.next_op += 1;
        let mut refused = None;
        self.with(node, |m, host| {
            let done = m.attach(OpId(op), VOL, Box::new(backing), host);
            refused = done.err().map(|no| no.code);
        });
        refused.map_or(Ok(op), Err)
    }
}
