// SPDX-License-Identifier: GPL-2.0

//! The owner of the machine: carries out effects and knows what may not happen.

use std::collections::{BTreeMap, VecDeque};

use super::VOLUMES;
use drbd_core::nl::conf::ResourceOpts;
use drbd_core::node::{
    AppIo, BufId, Connection, Data, Effect, Examine, HelperId, Host, Input, IoToken, LocalOp,
    MetaOp, Payload, Progress, Resource, SendToken, Storage, Store, VolIx, MAX_EFFECTS, PEER,
};
use drbd_core::store::slab;
use drbd_core::time::Instant;
use drbd_core::wire::Packet;

/// Storage on the host.
pub struct VecStore;

impl Store for VecStore {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

/// The machine.
pub type Machine = Resource<VecStore>;

/// Requests of applications; few, so that tables fill up.
pub const REQUESTS: usize = 48;
/// Requests of the peer; the least that the core takes is 32.
const PEER_REQUESTS: usize = 40;
/// Steps after one input; a step does at least some of the work.
const STEPS: u32 = 4000;
/// A local I/O under way.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub(super) vol: VolIx,
    pub(super) io: IoToken,
    pub(super) op: LocalOp,
    pub(super) bytes: u32,
    pub(super) data: Data,
}

/// A metadata I/O under way.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub(super) vol: VolIx,
    pub(super) io: IoToken,
    pub(super) op: MetaOp,
}

/// A buffer that is being looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub(super) io: IoToken,
    pub(super) buf: Option<BufId>,
    pub(super) what: Examine,
}

/// A packet that waits for TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) vnr: u16,
    pub(super) packet: Packet,
    pub(super) payload: Payload,
    pub(super) token: SendToken,
}

/// An established connection.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Protocol version.
    pub apv: u32,
    /// Feature flags.
    pub features: u32,
    /// The core wants it closed.
    pub closing: bool,
}

/// What was sent and may be answered.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Volume number.
    pub vnr: u16,
    /// The packet.
    pub packet: Packet,
    /// Bytes of its payload.
    pub bytes: u32,
}

/// What the disk of a volume looks like.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Sectors for data.
    pub data: u64,
    /// First sector behind the metadata.
    pub end: u64,
    /// Sectors of the device.
    pub size: u64,
    /// The metadata may be elsewhere by now: a `resize` was asked for.
    pub moves: bool,
}

/// The owner of a machine.
///
/// Checked after each step: it emitted at most `MAX_EFFECTS`; once idle it is not due; work comes
/// to an end. With each effect: tokens are new, I/O stays in its area, buffers and applications'
/// I/O exist, what is sent can be read by a peer that is as strict as this node, no disk goes away
/// below its I/O, administrators are answered once.
pub struct World {
    /// The machine.
    pub res: Machine,
    /// The time.
    pub now: Instant,
    seed: u64,
    /// I/O of applications under way.
    pub apps: BTreeMap<u32, AppIo>,
    /// Their volumes.
    pub users: BTreeMap<u32, VolIx>,
    /// Buffers and their length in bytes.
    pub(super) bufs: BTreeMap<u32, u32>,
    /// Local I/O under way.
    pub locals: Vec<Local>,
    /// Metadata I/O under way.
    pub metas: Vec<Meta>,
    /// Buffers that are being looked at.
    pub looks: Vec<Look>,
    pub(super) queues: [VecDeque<Queued>; 2],
    /// Helpers under way.
    pub helpers: Vec<HelperId>,
    /// Requests of administrators, and the volume to be deleted.
    pub ops: BTreeMap<u32, Option<VolIx>>,
    /// The last answer.
    pub answer: i32,
    /// The receiver thread runs.
    pub receiver: bool,
    /// Sockets.
    pub link: Option<Link>,
    /// Disks that the worker has to take.
    pub(super) drops: Vec<VolIx>,
    pub(super) capacities: [u64; VOLUMES as usize],
    /// Where the disks are.
    pub places: [Option<Place>; VOLUMES as usize],
    /// Openers of the devices.
    pub openers: [u32; VOLUMES as usize],
    /// What was sent of late.
    pub asked: VecDeque<Asked>,
    numbers: u32,
    steps: u64,
    verbose: bool,
}

/// The owner during one step.
pub struct StepHost<'a> {
    now: Instant,
    seed: &'a mut u64,
    effects: Vec<Effect>,
}

impl Host for StepHost<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        // Marsaglia's xorshift.
        *self.seed ^= *self.seed << 13;
        *self.seed ^= *self.seed >> 7;
        *self.seed ^= *self.seed << 17;
        *self.seed
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
        assert!(self.effects.len() <= MAX_EFFECTS, "a step emits too much");
    }

    fn room(&self) -> usize {
        MAX_EFFECTS - self.effects.len()
    }
}

fn machine() -> Machine {
    let storage = Storage {
        requests: (0..REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_requests: (0..PEER_REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_waiting: vec![None; PEER_REQUESTS],
        sent_epochs: vec![None; REQUESTS],
    };
    let volumes = (0..VOLUMES).map(|_| None).collect();
    let opts = ResourceOpts::default();
    Resource::new(opts, volumes, vec![Connection::new()], storage)
}

impl World {
    /// A resource without volumes.
    pub fn new(seed: u8) -> World {
        World {
            res: machine(),
            now: Instant(1_000_000_000),
            seed: u64::from(seed) + 0x9e37_79b9_7f4a_7c15,
            apps: BTreeMap::new(),
            users: BTreeMap::new(),
            bufs: BTreeMap::new(),
            locals: Vec::new(),
            metas: Vec::new(),
            looks: Vec::new(),
            queues: [VecDeque::new(), VecDeque::new()],
            helpers: Vec::new(),
            ops: BTreeMap::new(),
            answer: 0,
            receiver: false,
            link: None,
            drops: Vec::new(),
            capacities: [0; VOLUMES as usize],
            places: [None; VOLUMES as usize],
            openers: [0; VOLUMES as usize],
            asked: VecDeque::new(),
            numbers: 0,
            steps: 0,
            verbose: std::env::var_os("DRBD_FUZZ_VERBOSE").is_some(),
        }
    }

    /// A number that was not used before.
    pub fn next(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    /// The size of a device, as the block layer knows it; sectors.
    pub fn capacity(&self, vol: VolIx) -> u64 {
        let known = self.capacities.get(usize::from(vol.0));
        known.copied().unwrap_or(0)
    }

    /// One input and all that follows from it at once.
    pub fn step(&mut self, input: Input<'_>) {
        if self.verbose {
            eprintln!("{:?} {input:?}", self.now);
        }
        let progress = self.with(|res, host| res.step(input, host));
        self.until_idle(progress);
    }

    /// Calls the machine beside its steps, and lets it work on what came of it.
    pub fn call<T>(&mut self, f: impl FnOnce(&mut Machine, &mut StepHost<'_>) -> T) -> T {
        let out = self.with(f);
        self.until_idle(Progress::More);
        out
    }

    /// Calls the machine and carries out what it wants.
    fn with<T>(&mut self, f: impl FnOnce(&mut Machine, &mut StepHost<'_>) -> T) -> T {
        let mut host = StepHost {
            now: self.now,
            seed: &mut self.seed,
            effects: Vec::new(),
        };
        let out = f(&mut self.res, &mut host);
        for effect in host.effects {
            if self.verbose {
                eprintln!("    {effect:?}");
            }
            self.carry_out(effect);
        }
        out
    }

    fn until_idle(&mut self, mut progress: Progress) {
        for n in 0.. {
            assert!(n < STEPS, "the machine never comes to rest");
            self.steps += 1;
            if progress == Progress::Idle {
                break;
            }
            progress = self.with(|res, host| res.step(Input::Tick, host));
        }
        if let Some(at) = self.res.deadline() {
            assert!(
                at > self.now,
                "idle, yet due at {at:?}, and it is {:?}",
                self.now
            );
        }
        if self.steps % 16 == 0 {
            self.look();
        }
    }

    /// What administrators and scripts may look at, at any time.
    fn look(&self) {
        for vol in self.res.volume_list() {
            let lines = self.res.proc_lines(vol, self.now, 1);
            assert!(lines.is_some_and(|l| !l.to_string().is_empty()));
            let status = self.res.volume_status(vol).expect("a volume of the list");
            assert!(status.out_of_sync <= status.bits, "{status:?}");
        }
        let _ = (self.res.connection_status(PEER), self.res.resource_status());
    }
}
