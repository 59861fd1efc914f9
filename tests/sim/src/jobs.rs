// SPDX-License-Identifier: GPL-2.0

//! Administrators who do not wait, one after the other on each node; and helpers.

use crate::drbdmeta;
use crate::node::Machine;
use crate::world::{say, Event, World, VOL};
use drbd_core::node::admin::Command;
use drbd_core::node::{HelperCommand, HelperId, Input, OpId, PEER};
use drbd_core::state::conn::State as Conn;
use drbd_core::state::disk::State as Disk;
use drbd_core::time::Duration;

/// See [`World::helper`].
pub const EXIT: u32 = 1 << 20;

/// Something an administrator wants of a node.
#[derive(Clone, Debug)]
pub enum Job {
    /// An order to the machine.
    Order(Box<Command>),
    /// `attach`.
    Attach,
    /// `connect`, with `--discard-my-data`.
    Connect(bool),
    /// Switches the machine off in good order if it is Diskless and StandAlone by now.
    Off,
}

impl World {
    /// Wants something of a node.
    pub fn want(&mut self, node: usize, job: Job) {
        if self.nodes[node].res.is_some() {
            self.nodes[node].jobs.push_back(job);
            self.next_job(node);
        }
    }

    /// Wants an order carried out.
    pub fn want_order(&mut self, node: usize, command: Command) {
        self.want(node, Job::Order(Box::new(command)));
    }

    pub(crate) fn next_job(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if n.job.is_some() || n.res.is_none() {
            return;
        }
        let Some(job) = n.jobs.pop_front() else {
            return;
        };
        if let Job::Off = job {
            let ready = n.state.disk == Disk::Diskless && n.state.conn == Conn::StandAlone;
            if ready && !n.attached {
                say!(self, "n{node} is down");
                self.nothing_kept(node);
                let random = self.rng.bits() | 1;
                let n = &mut self.nodes[node];
                n.switched_off();
                if std::mem::take(&mut n.anew) {
                    drbdmeta::recreate_md(&mut n.disk, random);
                }
            }
            return;
        }
        let op = self.next_op;
        self.next_op += 1;
        self.nodes[node].job = Some(op);
        let leaves = matches!(&job, Job::Order(c) if matches!(**c, Command::Secondary { .. }));
        if leaves && self.nodes[node].apps.is_empty() && !self.nodes[node].held {
            self.hold_open(node, false);
        }
        match job {
            Job::Order(mut command) => {
                say!(self, "n{node} order {op}: {}", brief(&command));
                if let Command::Resize { .. } = *command {
                    self.measure(node);
                    *command = self.resize_order(node);
                }
                self.ordered(node, &command);
                self.with_machine(node, |res, host| res.command(OpId(op), *command, host));
            }
            Job::Attach => {
                say!(self, "n{node} order {op}: attach");
                self.start_attach(node, op);
            }
            Job::Connect(discard) => {
                say!(self, "n{node} order {op}: connect {discard}");
                let mut conf = self.knobs.net_conf(node);
                conf.discard_my_data = discard;
                let command = Command::Connect { peer: PEER, conf };
                self.with_machine(node, |res, host| res.command(OpId(op), command, host));
            }
            Job::Off => {}
        }
        // What was refused at once is over.
        self.next_job(node);
    }

    /// Applications open the device, if they may, and close it. Says whether it is open.
    pub(crate) fn hold_open(&mut self, node: usize, open: bool) -> bool {
        let n = &mut self.nodes[node];
        let may = |m: &Machine| m.may_open(VOL, true).is_ok();
        let refused = open && !n.opened && !n.res.as_ref().is_some_and(may);
        if !refused && std::mem::replace(&mut n.opened, open) != open {
            self.step(node, Input::Opened { vol: VOL, open });
        }
        open && !refused
    }

    pub(crate) fn answered(&mut self, node: usize, op: u32, code: i32) {
        self.order_is_over(node);
        // ERR_DATA_NOT_CURRENT
        self.nodes[node].refused = code == 150;
        if self.nodes[node].job == Some(op) {
            self.nodes[node].job = None;
        } else {
            self.nodes[node].answers.insert(u64::from(op), code);
        }
    }

    /// A helper runs. What fence-peer claims it has done: 0 it outdates the peer by other means,
    /// 1 it switches the peer off, 2 it fails, 3 it needs a minute and then is as 0. Others: 0
    /// succeed, 2 fail now and then. Larger numbers: as 0, after so many ms; from [`EXIT`] on: all
    /// exit with the rest as code, whatever is true.
    pub(crate) fn helper(&mut self, node: usize, id: HelperId, command: HelperCommand) {
        say!(self, "n{node} helper {}", command.name());
        self.stats.count("helper");
        let mode = self.nodes[node].trouble.helpers;
        let mut after = Duration::millis(1 + self.rng.below(200));
        let mut code = 0;
        if mode == 3 {
            after = Duration::secs(60);
        } else if mode > 3 && mode < EXIT {
            after = Duration::millis(u64::from(mode));
        }
        if let Some(exit) = mode.checked_sub(EXIT) {
            code = exit as u8;
        } else if command == HelperCommand::FencePeer {
            code = match mode {
                1 => self.shoot(self.peer_of(node)),
                2 => 1,
                _ => self.outdate_peer(self.peer_of(node)),
            };
        } else if mode == 2 && self.rng.percent(20) {
            code = 1;
        }
        self.schedule(node, after, Event::HelperDone(id, code));
    }

    fn shoot(&mut self, peer: usize) -> u8 {
        if self.nodes[peer].res.is_some() {
            self.stats.count("stonith");
            self.crash(peer);
        }
        7
    }

    /// As `drbd-peer-outdater` does it; the state is looked at first.
    fn outdate_peer(&mut self, peer: usize) -> u8 {
        let n = &self.nodes[peer];
        if n.res.is_none() {
            return 5;
        }
        if n.state.role.is_primary() {
            return 6;
        }
        match n.state.disk {
            Disk::Inconsistent => 3,
            Disk::Outdated => 4,
            d if d > Disk::Outdated && n.state.conn < Conn::Connected && n.job.is_none() => {
                let op = self.next_op;
                self.next_op += 1;
                let order = Command::Outdate { vol: VOL };
                self.with_machine(peer, |res, host| res.command(OpId(op), order, host));
                match self.nodes[peer].state.disk {
                    Disk::Outdated => 4,
                    _ => 1,
                }
            }
            _ => 1,
        }
    }
}

/// An order without its options.
fn brief(command: &Command) -> String {
    let text = format!("{command:?}");
    text.split(" {").next().unwrap_or_default().to_string()
}
