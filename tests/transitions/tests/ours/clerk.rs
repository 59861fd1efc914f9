// SPDX-License-Identifier: GPL-2.0

//! Two nodes of our core, and a clerk who understands the orders of the plan.
//!
//! The clerk stands for `drbd_rs/src/admin`: what an order names has to exist, options are put to
//! those that are there, `down` is taken apart. The order of the checks is the same. All that is
//! decided about states is decided by the core.

use drbd_core::nl::conf::{DiskConf, NetConf, ResourceOpts};
use drbd_core::nl::{ErrCode, Str};
use drbd_core::node::admin::Command;
use drbd_core::node::PEER;
use drbd_core::time::Duration;
use drbd_core::units::Sector;
use drbd_small::node::Machine;
use drbd_small::world::VOL;
use drbd_small::{drbdmeta, World};
use drbd_transitions::outcomes::{Answer, Found};
use drbd_transitions::picture::{Generation, Picture, Proc};
use drbd_transitions::plan::Step;
use drbd_transitions::rest::{Look, Rest};
use drbd_transitions::NODES;

/// Blocks of the disks: 4 MiB, as in the lab.
const BLOCKS: u64 = 1024;
/// Between two looks at the nodes.
const LOOK: Duration = Duration::millis(50);
/// Flags of the superblock in the order of `get-gi`.
const FLAGS: [u32; 7] = [0x01, 0x10, 0x02, 0x04, 0x08, 0x20, 0x40];

const OK: i32 = ErrCode::NoError.number();

/// Two nodes.
pub struct Pair {
    world: World,
    /// Nodes that have the volume.
    minor: [bool; 2],
}

type Options<'a> = &'a [&'a str];

impl Pair {
    /// Nothing is configured, and the metadata are fresh.
    pub fn new() -> Pair {
        let mut world = World::new(BLOCKS);
        world.orderly = true;
        Pair {
            world,
            minor: [false; 2],
        }
    }

    /// Does the steps of a path.
    ///
    /// # Errors
    /// The order that was refused, or where there was no rest.
    pub fn go(&mut self, path: &[Step]) -> Result<Found, String> {
        for step in path {
            for node in (0..2).filter(|n| step.on[*n]) {
                for order in &step.orders {
                    let code = self.order(node, order);
                    if Answer::of_code(code).is_refusal() {
                        return Err(format!("{order}: {code}"));
                    }
                }
            }
            if !self.rest().rest {
                return Err(format!("no rest after {:?}", step.orders));
            }
        }
        Ok(self.rest())
    }

    /// Prints the logs of both nodes.
    pub fn print_logs(&self) {
        for (n, node) in self.world.nodes.iter().enumerate() {
            for line in &node.log {
                println!("    {} {line}", NODES[n]);
            }
        }
    }

    /// Waits until the nodes rest, and looks at them.
    pub fn rest(&mut self) -> Found {
        let mut rest = Rest::default();
        loop {
            let now = std::time::Duration::from_nanos(self.world.now.0);
            let look = rest.look(now, [0, 1].map(|n| self.proc(n)));
            if look != Look::Again {
                return Found {
                    nodes: [0, 1].map(|n| Picture {
                        proc: self.proc(n),
                        generation: self.generation(n),
                    }),
                    rest: look == Look::Rested,
                };
            }
            self.world.run(LOOK);
        }
    }

    fn machine(&self, node: usize) -> Option<&Machine> {
        self.world.nodes[node].machine.as_ref()
    }

    fn proc(&self, node: usize) -> Option<Proc> {
        let lines = self.machine(node)?.proc_lines(VOL, self.world.now, 0)?;
        Proc::parse(&lines.to_string(), 0)
    }

    fn generation(&self, node: usize) -> Option<Generation> {
        let status = self.machine(node)?.volume_status(VOL)?;
        let set = status.uuids?;
        let digit = |bit: &u32| {
            if status.disk_flags & bit != 0 {
                '1'
            } else {
                '0'
            }
        };
        Some(Generation {
            uuids: [set.current, set.bitmap, set.history[0], set.history[1]],
            flags: FLAGS.iter().map(digit).collect(),
        })
    }

    /// Gives an order and returns the code of the answer.
    pub fn order(&mut self, node: usize, words: &str) -> i32 {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (name, options) = words.split_first().expect("an order");
        match *name {
            "new-resource" => self.new_resource(node),
            "new-minor" | "del-resource" | "resource-options" | "connect" => {
                if self.machine(node).is_none() {
                    return ErrCode::ResNotKnown.number();
                }
                self.resource_order(node, name, options)
            }
            "down" => self.down(node),
            "disconnect" | "net-options" => {
                let conf = self.net_conf(node);
                let unknown = ErrCode::InvalidRequest.number();
                conf.map_or(unknown, |conf| self.peer_order(node, name, options, conf))
            }
            _ if !self.minor[node] => ErrCode::MinorInvalid.number(),
            _ => self.volume_order(node, name, options),
        }
    }

    fn new_resource(&mut self, node: usize) -> i32 {
        if self.machine(node).is_none() {
            self.world.nodes[node].load();
        }
        OK
    }

    /// The options of the connection, while there is one.
    fn net_conf(&self, node: usize) -> Option<NetConf> {
        self.machine(node)?.connection_status(PEER)?.conf
    }

    fn resource_order(&mut self, node: usize, name: &str, options: Options<'_>) -> i32 {
        match name {
            "new-minor" => {
                if !self.minor[node] {
                    self.world.add_volume(node);
                    self.minor[node] = true;
                }
                OK
            }
            "resource-options" => {
                let on_no_data = u32::from(options == ["--on-no-data-accessible=suspend-io"]);
                let opts = ResourceOpts {
                    on_no_data,
                    ..ResourceOpts::default()
                };
                self.world.ask(node, Command::ResourceOptions { opts })
            }
            "connect" if self.net_conf(node).is_some() => ErrCode::LocalAddr.number(),
            "connect" => {
                let mut conf = NetConf::default();
                options.iter().for_each(|o| set_net(&mut conf, o));
                self.world.ask(node, Command::Connect { peer: PEER, conf })
            }
            _ => self.del_resource(node),
        }
    }

    fn peer_order(&mut self, node: usize, name: &str, opts: Options<'_>, now: NetConf) -> i32 {
        let command = if name == "disconnect" {
            Command::Disconnect {
                peer: PEER,
                force: opts == ["--force=yes"],
            }
        } else {
            let mut conf = now;
            opts.iter().for_each(|o| set_net(&mut conf, o));
            Command::NetOptions { peer: PEER, conf }
        };
        plain(self.world.ask(node, command))
    }

    fn volume_order(&mut self, node: usize, name: &str, options: Options<'_>) -> i32 {
        let vol = VOL;
        let force = options == ["--force=yes"];
        let command = match name {
            "attach" | "re-attach" => return self.attach(node, name == "re-attach", options),
            "del-minor" => return plain(self.del_minor(node)),
            "resize" | "disk-options" | "slow" => return self.disk_order(node, name, options),
            "pause-sync" => return plain(self.world.ask(node, Command::PauseSync { vol })),
            "resume-sync" => return plain(self.world.ask(node, Command::ResumeSync { vol })),
            "new-current-uuid" => {
                let clear_bitmap = options == ["--clear-bitmap=yes"];
                let command = Command::NewCurrentUuid { vol, clear_bitmap };
                return plain(self.world.ask(node, command));
            }
            "primary" => Command::Primary { vol, force },
            "secondary" => Command::Secondary { vol },
            "detach" => Command::Detach { vol, force },
            "invalidate" => Command::Invalidate { vol },
            "invalidate-remote" => Command::InvalidatePeer { vol },
            "outdate" => Command::Outdate { vol },
            "suspend-io" => Command::SuspendIo { vol },
            "resume-io" => Command::ResumeIo { vol },
            "verify" => {
                let last = self.machine(node).map(|m| m.verify_start(VOL));
                Command::Verify {
                    vol,
                    start: last.unwrap_or(Sector(0)),
                    stop: Sector(u64::MAX),
                }
            }
            other => panic!("an order that nobody understands: {other}"),
        };
        self.world.ask(node, command)
    }

    fn attach(&mut self, node: usize, apply: bool, options: Options<'_>) -> i32 {
        let check = |m: &Machine| m.attach_check(VOL, &DiskConf::default());
        if let Some(Err(code)) = self.machine(node).map(check) {
            return code.number();
        }
        if apply {
            let n = &mut self.world.nodes[node];
            let applied = drbdmeta::apply_al(&mut n.disk, n.last_size);
            applied.expect("metadata that drbdmeta can use");
        }
        let mut conf = DiskConf {
            meta_dev_idx: -3,
            c_plan_ahead: 0,
            c_min_rate: 0,
            resync_rate: 4_000_000,
            ..DiskConf::default()
        };
        options.iter().for_each(|o| set_disk(&mut conf, o));
        self.world.disk_conf = conf;
        self.world.attach(node)
    }

    fn disk_order(&mut self, node: usize, name: &str, options: Options<'_>) -> i32 {
        let status = self.machine(node).and_then(|m| m.volume_status(VOL));
        let Some(mut conf) = status.and_then(|v| v.disk_conf) else {
            return ErrCode::NoDisk.number();
        };
        if name == "resize" {
            self.world.nodes[node].measure();
            let parms = self.machine(node).map(|m| m.resize_base(VOL));
            let parms = parms.unwrap_or_default();
            return plain(self.world.ask(node, Command::Resize { vol: VOL, parms }));
        }
        if name == "slow" {
            conf.resync_rate = 1;
        }
        options.iter().for_each(|o| set_disk(&mut conf, o));
        plain(
            self.world
                .ask(node, Command::DiskOptions { vol: VOL, conf }),
        )
    }

    fn del_minor(&mut self, node: usize) -> i32 {
        let code = self.world.ask(node, Command::DelVolume { vol: VOL });
        if !Answer::of_code(code).is_refusal() {
            let machine = self.world.nodes[node].machine.as_mut();
            drop(machine.and_then(|m| m.take_volume(VOL)));
            self.minor[node] = false;
        }
        code
    }

    fn del_resource(&mut self, node: usize) -> i32 {
        if self.net_conf(node).is_some() {
            return ErrCode::NetConfigured.number();
        }
        if self.minor[node] {
            return ErrCode::ResInUse.number();
        }
        self.world.nodes[node].forget();
        OK
    }

    /// Of a resource that nobody knows `drbdsetup` says nothing.
    fn down(&mut self, node: usize) -> i32 {
        if self.machine(node).is_none() {
            return OK;
        }
        let (vol, force) = (VOL, false);
        let secondary = Command::Secondary { vol };
        let disconnect = Command::Disconnect { peer: PEER, force };
        let detach = Command::Detach { vol, force };
        let steps = [
            (self.minor[node], secondary),
            (self.net_conf(node).is_some(), disconnect),
            (self.minor[node], detach),
        ];
        for (needed, command) in steps {
            let code = if needed {
                self.world.ask(node, command)
            } else {
                OK
            };
            if Answer::of_code(code).is_refusal() {
                return code;
            }
        }
        if self.minor[node] {
            let code = self.del_minor(node);
            if Answer::of_code(code).is_refusal() {
                return code;
            }
        }
        self.del_resource(node)
    }
}

/// All kinds of success are one.
fn plain(code: i32) -> i32 {
    if Answer::of_code(code).is_refusal() {
        code
    } else {
        OK
    }
}

fn set_net(conf: &mut NetConf, option: &str) {
    let (key, value) = option.split_once('=').expect("an option");
    match key {
        "--verify-alg" => conf.verify_alg = Str::new(value.as_bytes()).expect("a name"),
        "--csums-alg" => conf.csums_alg = Str::new(value.as_bytes()).expect("a name"),
        "--allow-two-primaries" => conf.two_primaries = value == "yes",
        "--discard-my-data" => conf.discard_my_data = value == "yes",
        "--protocol" => conf.wire_protocol = if value == "A" { 1 } else { 3 },
        _ => panic!("an unknown option: {option}"),
    }
}

fn set_disk(conf: &mut DiskConf, option: &str) {
    match option {
        "--fencing=resource-only" => conf.fencing = 1,
        "--fencing=resource-and-stonith" => conf.fencing = 2,
        "--resync-rate=4000000" => conf.resync_rate = 4_000_000,
        _ => panic!("an unknown option: {option}"),
    }
}
