// SPDX-License-Identifier: GPL-2.0

//! Administrators: `drbdadm up`, `primary`, `down` and the like, and what tests ask about a node.

use crate::disk::Disk;
use crate::drbdmeta;
use crate::node::{Machine, SimHost, VecStore};
use crate::world::{say, World, VOL};
use drbd_core::bitmap::PageFlags;
use drbd_core::nl::conf::{DiskConf, ResourceOpts};
use drbd_core::node::admin::{attach_needs, BackingLimits, Command, Devices};
use drbd_core::node::VolumeStorage;
use drbd_core::node::{
    AppOp, Backing, BackingStorage, Connection, IoFlags, OpId, PeerDevice, Resource, Storage, PEER,
};
use drbd_core::state::State;
use drbd_core::store::{interval, lru, slab};
use drbd_core::time::Duration;
use drbd_core::units::{BmBit, Minor, Sector, Sectors, Vnr};

/// Requests of applications that a machine knows at once.
const REQUESTS: usize = 512;
/// Requests of the peer that a machine knows at once.
const PEER_REQUESTS: usize = 256;

fn machine(opts: ResourceOpts) -> Machine {
    let storage = Storage {
        requests: (0..REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_requests: (0..PEER_REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_waiting: vec![None; PEER_REQUESTS],
        sent_epochs: vec![None; REQUESTS],
    };
    let volumes = (0..2).map(|_| None).collect();
    Resource::new(opts, volumes, vec![Connection::new()], storage)
}

fn backing(disk: &Disk, conf: &DiskConf, discard: bool) -> Backing<VecStore> {
    let size = disk.size();
    let devices = Devices {
        backing: size,
        meta: size,
        same: true,
    };
    let limits = BackingLimits {
        max_bio: 1 << 20,
        logical_block: 512,
        physical_block: 4096,
        io_min: 512,
        write_cache: true,
        meta_apart: disk.apart,
        fua: true,
        discard,
        discard_granularity: if discard { 4096 } else { 0 },
        ..BackingLimits::default()
    };
    let page = drbdmeta::superblock_page(disk);
    let needs = attach_needs(conf, devices, Sectors(0), limits, &page)
        .map_err(|(code, _)| code)
        .expect("a good superblock");
    let storage = BackingStorage {
        al: vec![lru::Slot::EMPTY; needs.al_slots as usize],
        words: vec![0; needs.bitmap.words as usize],
        pages: vec![PageFlags::EMPTY; needs.bitmap.pages as usize],
        extents: vec![lru::Slot::empty(Default::default()); needs.extents],
    };
    Backing::new(&needs, storage).expect("enough storage")
}

/// How long an administrator waits for an answer.
const PATIENCE: Duration = Duration::secs(120);

impl World {
    /// Gives an order to the machine of a node and waits for the answer.
    pub fn order(&mut self, node: usize, command: Command) -> i32 {
        let op = OpId(self.next_op);
        self.ordered(node, &command);
        self.with_machine(node, |res, host| res.command(op, command, host));
        self.answer(node)
    }

    /// Calls the machine beside its steps and carries out what it wants.
    pub(crate) fn with_machine(
        &mut self,
        node: usize,
        call: impl FnOnce(&mut Machine, &mut SimHost<'_>),
    ) {
        let n = &mut self.nodes[node];
        let now = n.clock.shows(self.now);
        let mut host = SimHost {
            now,
            rng: &mut n.rng,
            effects: Vec::new(),
        };
        let res = n.res.as_mut().expect("the node is up");
        call(res, &mut host);
        let effects = host.effects;
        self.check_uuids(node, &effects);
        self.carry_out_all(node, effects);
    }

    /// Waits for the answer to the last order.
    pub(crate) fn answer(&mut self, node: usize) -> i32 {
        let op = self.next_op;
        self.next_op += 1;
        self.run_until("an answer", PATIENCE, |w| {
            w.nodes[node].answers.get(u64::from(op)).is_some()
        });
        *self.nodes[node]
            .answers
            .get(u64::from(op))
            .expect("an answer")
    }

    fn must(&mut self, node: usize, command: Command) {
        let code = self.order(node, command);
        // SS_ codes of success are 1 and 2, ERR_ codes begin at 101 (NO_ERROR).
        if !matches!(code, 1 | 2 | 3 | 4 | 101) {
            let states = self.describe();
            self.fail(&format!("n{node} {command:?}: code {code}; {states}"));
        }
    }

    /// Powers a node on: the activity log is applied, the machine made, with one volume. Returns
    /// how many extents were hot.
    pub fn power_on(&mut self, node: usize) -> usize {
        assert!(self.nodes[node].res.is_none(), "the node is up already");
        let hot = self.apply_al(node);
        let opts = self.knobs.resource_opts();
        self.nodes[node].freezes = opts.on_no_data == 1;
        self.nodes[node].resumed = false;
        self.nodes[node].res = Some(machine(opts));
        let minor = self.minor(node);
        self.with_machine(node, |res, host| {
            let writes = vec![interval::Slot::EMPTY; REQUESTS + PEER_REQUESTS];
            let storage = VolumeStorage {
                writes,
                peers: vec![PeerDevice::new()],
            };
            let added = res.add_volume(minor, Vnr(0), storage, host);
            assert!(matches!(added, Ok(VOL)), "the first volume");
        });
        hot
    }

    /// Begins to attach the disk.
    pub(crate) fn start_attach(&mut self, node: usize, op: u32) {
        if self.nodes[node].attached {
            // ERR_DISK_CONFIGURED, which the owner finds out by itself.
            self.answered(node, op, 124);
            return;
        }
        // As `drbdadm attach` does it each time.
        self.apply_al(node);
        let conf = self.knobs.disk_conf();
        let discard = self.knobs.discard != 0 || self.knobs.rs_discard != 0;
        let backing = backing(&self.nodes[node].disk, &conf, discard);
        self.nodes[node].attached = true;
        let mut refused = None;
        self.with_machine(node, |res, host| {
            if let Err(no) = res.attach(OpId(op), VOL, Box::new(backing), host) {
                refused = Some(no.code);
            }
        });
        if let Some(code) = refused {
            say!(self, "n{node} attach refused: {code}");
            self.nodes[node].attached = false;
            self.answered(node, op, code);
        }
    }

    /// `drbdadm up`: powers the node on if need be, applies the activity log, attaches, connects.
    /// Returns how many extents were hot.
    pub fn up(&mut self, node: usize) -> usize {
        let hot = self.power_on(node);
        self.start_attach(node, self.next_op);
        let code = self.answer(node);
        if code != 101 {
            self.fail(&format!("n{node} attach: code {code}"));
        }
        self.connect(node);
        hot
    }

    /// `drbdadm primary [--force]`.
    pub fn primary(&mut self, node: usize, force: bool) {
        self.truth.forced |= force;
        self.must(node, Command::Primary { vol: VOL, force });
    }

    /// `drbdadm secondary`.
    pub fn secondary(&mut self, node: usize) {
        self.must(node, Command::Secondary { vol: VOL });
    }

    /// `drbdsetup verify --start --stop`. Returns the code of the answer.
    pub fn verify(&mut self, node: usize, start: Option<Sector>, stop: Option<Sector>) -> i32 {
        let command = self.verify_order(node, start, stop);
        self.order(node, command)
    }

    /// As `drbdsetup` sends it; the driver puts in where the last one ended.
    pub(crate) fn verify_order(
        &self,
        node: usize,
        start: Option<Sector>,
        stop: Option<Sector>,
    ) -> Command {
        let res = self.nodes[node].res.as_ref();
        let last = res.map_or(Sector(0), |r| r.verify_start(VOL));
        Command::Verify {
            vol: VOL,
            start: start.unwrap_or(last),
            stop: stop.unwrap_or(Sector(u64::MAX)),
        }
    }

    /// `drbdsetup resize`, nothing else being said. Returns the code of the answer.
    pub fn resize(&mut self, node: usize) -> i32 {
        self.measure(node);
        let command = self.resize_order(node);
        self.order(node, command)
    }

    /// The same without waiting.
    pub fn start_resize(&mut self, node: usize) {
        let command = self.resize_order(node);
        self.want_order(node, command);
    }

    pub(crate) fn resize_order(&self, node: usize) -> Command {
        let res = self.nodes[node].res.as_ref().expect("the node is up");
        let parms = res.resize_base(VOL);
        Command::Resize { vol: VOL, parms }
    }

    /// The machine hears how large its disk is by now, and gets room for its bitmap.
    pub(crate) fn measure(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let size = n.disk.size();
        let Some(res) = n.res.as_mut() else { return };
        if let Some(need) = res.disk_measured(VOL, size, size) {
            let words = vec![0; need.words as usize];
            let pages = vec![PageFlags::EMPTY; need.pages as usize];
            drop(res.give_bitmap(VOL, words, pages));
        }
    }

    /// The minor number of the volume on a node.
    pub fn minor(&self, node: usize) -> Minor {
        Minor((self.knobs.minor + node as u64) as u32)
    }

    /// Tells a machine whether its volume has to wait for one of another resource.
    pub fn hold_back(&mut self, node: usize, held_back: bool) {
        let minor = self.minor(node);
        if self.nodes[node].res.is_some() {
            self.with_machine(node, |res, host| res.set_held_back(minor, held_back, host));
        }
    }

    /// `drbdadm disconnect`.
    pub fn disconnect(&mut self, node: usize) {
        let peer = PEER;
        self.must(node, Command::Disconnect { peer, force: false });
    }

    /// `drbdadm connect`, if the node is StandAlone.
    pub fn connect(&mut self, node: usize) {
        if self.cstate(node) == "StandAlone" {
            let conf = self.knobs.net_conf(node);
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
        self.nodes[node].switched_off();
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
        self.random_io_of(node, 0);
    }

    /// One random I/O of a mix: 0 reads and writes, 1 flushes and FUA as well, 2 discards as well;
    /// and 256: all in one small place.
    pub(crate) fn random_io_of(&mut self, node: usize, mix: u32) {
        let size = self.size(node).0;
        let n = &self.nodes[node];
        if size == 0 || !n.res.as_ref().is_some_and(Machine::can_submit) {
            return;
        }
        let len = match self.rng.below(10) {
            0 => self.rng.between(1, 256),
            1 | 2 => self.rng.between(1, 16),
            _ => 8,
        };
        let (crowded, mix) = (mix & 256 != 0, mix & 255);
        // Most writes go to a few hot places.
        let at = if crowded {
            self.rng.below(128)
        } else if self.rng.percent(60) {
            self.rng.below(64) * 8 + self.rng.below(4) * (size / 4)
        } else {
            self.rng.below(size)
        };
        let start = at.min(size - len);
        let kind = self.rng.below(100);
        if mix > 0 && kind >= 94 {
            self.submit(node, AppOp::Flush, 0, 0);
            return;
        }
        if mix > 1 && kind >= 91 && self.discards(node) {
            self.submit(node, AppOp::Discard, start & !7, (len + 7) & !7);
            return;
        }
        let max = u64::from(self.max_bio(node)) / 512;
        if kind < 20 {
            self.submit(node, AppOp::Read, start, len.min(max));
            return;
        }
        let fua = mix > 0 && kind < 24;
        let flags = IoFlags {
            fua,
            preflush: fua,
            ..IoFlags::default()
        };
        self.submit_with(node, AppOp::Write, start, len.min(max), flags);
    }

    fn discards(&self, node: usize) -> bool {
        let limits = self.nodes[node].res.as_ref().map(|r| r.queue_limits(VOL));
        limits.is_some_and(|l| l.max_discard > 256 * 512)
    }

    /// The largest request of the block device, bytes.
    pub(crate) fn max_bio(&self, node: usize) -> u32 {
        let limits = self.nodes[node].res.as_ref().map(|r| r.queue_limits(VOL));
        limits.map_or(4096, |l| l.max_bio)
    }

    /// Reads the whole device through the machine.
    pub fn read_everything(&mut self, node: usize) {
        let size = self.size(node).0;
        let mut at = 0;
        while at < size {
            let max = u64::from(self.max_bio(node)) / 512;
            let len = (size - at).min(256).min(max);
            self.submit(node, AppOp::Read, at, len);
            at += len;
            self.run_until("reads", PATIENCE, |w| w.open_ios(node) < 50);
        }
        self.run_until("reads", PATIENCE, |w| w.open_ios(node) == 0);
    }

    /// Whether both nodes are connected, up to date and at rest.
    pub fn is_in_sync(&self) -> bool {
        (0..2).all(|n| self.cstate(n) == "Connected" && self.disks(n) == ("UpToDate", "UpToDate"))
    }

    /// Whether a node holds I/O back, until data are there or somebody says `resume-io`.
    pub fn is_frozen(&self) -> bool {
        self.nodes.iter().any(|n| n.state.is_suspended())
    }

    /// Both devices hold the same.
    pub fn assert_equal_disks(&mut self) {
        let size = self.common_size();
        let found = {
            let (a, b) = (self.data(0, size), self.data(1, size));
            (0..size.0 as usize)
                .find(|at| a[*at] != b[*at])
                .map(|at| (at, a[at], b[at]))
        };
        if let Some((at, a, b)) = found {
            let bits: Vec<_> = (0..2)
                .map(|n| self.is_dirty(n, BmBit(at as u64 / 8)))
                .collect();
            self.fail(&format!("sector {at}: {a:#x} and {b:#x}, dirty {bits:?}"));
        }
    }

    /// Applies the activity log and says how many extents were hot.
    pub(crate) fn apply_al(&mut self, node: usize) -> usize {
        let hot = drbdmeta::apply_al(&mut self.nodes[node].disk);
        say!(self, "n{node} activity log: {hot} extents");
        hot
    }

    /// Size of the device, as applications see it.
    pub fn size(&self, node: usize) -> Sectors {
        match self.nodes[node].size {
            Sectors(0) => self.last_size,
            size => size,
        }
    }

    /// The state of the volume as last reported.
    pub fn state(&self, node: usize) -> State {
        self.nodes[node].state
    }

    /// State of the connection, as a word.
    pub fn cstate(&self, node: usize) -> &'static str {
        self.state(node).conn.name()
    }

    /// Role of the peer, as a word.
    pub fn peer_role(&self, node: usize) -> &'static str {
        self.state(node).peer.name()
    }

    /// States of own and peer's disk, as words.
    pub fn disks(&self, node: usize) -> (&'static str, &'static str) {
        let s = self.state(node);
        (s.disk.name(), s.pdsk.name())
    }

    /// Both nodes in a line.
    pub fn describe(&self) -> String {
        let one = |n: usize| {
            let s = self.state(n);
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
        self.nodes[node]
            .res
            .as_ref()
            .map_or(0, |r| r.out_of_sync(VOL))
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
