// SPDX-License-Identifier: GPL-2.0

//! The world: two nodes, the clock, and what happens in between.
//!
//! Effects of a step are carried out after it, as in the kernel; whatever takes time becomes an
//! event. Invariant: the same seed and the same calls give the same run.

use crate::disk::Disk;
use crate::drbdmeta;
use crate::node::{App, InFlight, Node, SimHost};
use crate::oracle::Oracle;
use crate::rng::Rng;
use drbd_core::digest::Digest;
use drbd_core::node::{
    AppId, AppIo, AppOp, AppResult, BufId, Data, Effect, Examine, Examined, HelperId, Input,
    IoError, IoFlags, IoToken, LocalOp, Lost, MetaOp, Note, PeerIx, Progress, ReceiverWish, VolIx,
    PEER,
};
use drbd_core::resync_after::Posted;
use drbd_core::time::{Duration, Instant};
use drbd_core::units::{Minor, Sector, SectorRange, Sectors};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// The volume of all tests.
pub const VOL: VolIx = VolIx(0);

/// Lines of the trace that are kept.
const TRACE: usize = 4000;

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The machine asked to be called.
    Tick,
    /// A local I/O is over.
    LocalDone(IoToken, LocalOp, SectorRange, Data, bool),
    /// A metadata I/O is over.
    MetaDone(IoToken, MetaOp, Sector, u32),
    /// The content of a buffer was looked at.
    Examined(IoToken, Examined),
    /// A helper is back.
    HelperDone(HelperId),
    /// The sender of a socket (0 data, 1 meta) of a connection may go on.
    Transmit(usize, u64),
    /// A packet of a socket of a connection arrives.
    Deliver(usize, u64, crate::node::Frame),
    /// The peer's end of this connection was closed.
    Reset(u64),
    /// The sockets are closed.
    Closed,
    /// Both receivers look for each other.
    Dance,
}

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct Network {
    /// Packets pass.
    pub up: bool,
    /// Least time on the way.
    pub delay: Duration,
    /// Random time on top.
    pub jitter: Duration,
    /// Earliest arrival of the next packet, by receiver and socket: packets do not overtake.
    pub arrival: [[Instant; 2]; 2],
    /// Held back while the network is cut, by receiver.
    pub held: [Vec<Event>; 2],
    /// Number of the last connection.
    pub links: u64,
}

/// Everything.
pub struct World {
    /// The nodes.
    pub nodes: [Node; 2],
    /// Virtual time.
    pub now: Instant,
    /// Randomness of everything outside of the machines.
    pub rng: Rng,
    /// The network.
    pub net: Network,
    /// What applications were told.
    pub oracle: Oracle,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, (usize, u64, Event)>,
    seq: u64,
    next_app: u32,
    next_tag: u64,
    trace: VecDeque<String>,
    /// Completed I/O of applications: node, id, result.
    pub completed: Vec<(usize, AppId, AppResult)>,
    /// Steps taken.
    pub steps: u64,
    /// What administrators configure.
    pub options: crate::admin::Options,
    /// Size of the device as last announced.
    pub last_size: Sectors,
    /// Requests of administrators made so far.
    pub(crate) next_op: u32,
    seed: u64,
    /// Some I/O of disks takes seconds.
    pub stalls: bool,
    /// What the machines told of their volumes, see [`drbd_core::resync_after`].
    pub posted: [BTreeMap<Minor, Posted>; 2],
    /// Every effect goes into the trace (`SIM_VERBOSE` in the environment).
    verbose: bool,
}

impl World {
    /// Two fresh nodes with disks of `size` sectors, switched off.
    pub fn new(seed: u64, size: Sectors) -> World {
        let mut rng = Rng::new(seed);
        let mut node = |n: u64| {
            let disk = drbdmeta::create_md(size, rng.bits() | 1);
            Node::new(disk, Rng::new(seed ^ (n << 32)))
        };
        let nodes = [node(1), node(2)];
        World {
            nodes,
            now: Instant(1_000_000_000),
            rng,
            net: Network {
                up: true,
                delay: Duration(50_000),
                jitter: Duration(100_000),
                arrival: [[Instant(0); 2]; 2],
                held: [Vec::new(), Vec::new()],
                links: 0,
            },
            oracle: Oracle::default(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            seq: 0,
            next_app: 1,
            next_tag: 1 << 12,
            trace: VecDeque::new(),
            completed: Vec::new(),
            steps: 0,
            options: crate::admin::Options::default(),
            last_size: Sectors(0),
            next_op: 1,
            stalls: false,
            posted: Default::default(),
            verbose: std::env::var_os("SIM_VERBOSE").is_some(),
            seed,
        }
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let at = self.now.0;
        let (s, us) = (at / 1_000_000_000, at / 1000 % 1_000_000);
        self.trace.push_back(format!("{s:4}.{us:06} {line}"));
    }

    /// How many lines of the trace contain `text`.
    pub fn traced(&self, text: &str) -> usize {
        self.trace.iter().filter(|l| l.contains(text)).count()
    }

    /// Prints the trace and fails.
    pub fn fail(&mut self, why: &str) -> ! {
        for line in &self.trace {
            eprintln!("{line}");
        }
        panic!("seed {}: {why}", self.seed);
    }

    /// Schedules an event of a node.
    pub fn schedule(&mut self, node: usize, after: Duration, event: Event) {
        self.schedule_at(node, self.now.plus(after), event);
    }

    pub(crate) fn schedule_at(&mut self, node: usize, at: Instant, event: Event) {
        self.seq += 1;
        let life = self.nodes[node].life;
        self.events.push(Reverse((at.0, self.seq)));
        self.what.insert(self.seq, (node, life, event));
    }

    /// Lets `span` pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now.plus(span);
        while self.next_before(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, at most `limit`. Fails with `what` if that is not enough.
    pub fn run_until(&mut self, what: &str, limit: Duration, done: impl Fn(&World) -> bool) {
        let end = self.now.plus(limit);
        while !done(self) {
            if !self.next_before(end) {
                let states = self.describe();
                self.fail(&format!("waited in vain for: {what}; {states}"));
            }
        }
    }

    /// One event, if there is one before `end`.
    pub fn next_before(&mut self, end: Instant) -> bool {
        match self.events.peek() {
            Some(Reverse((at, _))) if *at <= end.0 => {}
            _ => return false,
        }
        let Some(Reverse((at, seq))) = self.events.pop() else {
            return false;
        };
        self.now = Instant(at.max(self.now.0));
        if let Some((node, life, event)) = self.what.remove(&seq) {
            if life == self.nodes[node].life {
                self.happen(node, event);
            }
        }
        true
    }

    fn happen(&mut self, node: usize, event: Event) {
        match event {
            Event::Tick => {
                self.nodes[node].tick_at = None;
                self.step(node, Input::Tick);
            }
            Event::LocalDone(io, op, range, data, flush) => {
                self.local_done(node, io, op, range, data, flush);
            }
            Event::MetaDone(io, op, sector, bytes) => self.meta_done(node, io, op, sector, bytes),
            Event::Examined(io, result) => self.step(node, Input::Examined { io, result }),
            Event::HelperDone(id) => self.step(node, Input::HelperDone { id, code: 0 }),
            Event::Transmit(sock, link) => self.transmit(node, sock, link),
            Event::Deliver(sock, link, frame) => self.deliver(node, sock, link, frame),
            Event::Reset(link) => self.reset(node, link),
            Event::Closed => {
                self.nodes[node].closing = false;
                self.step(node, Input::Closed { peer: PEER });
                self.look_for_peer(node);
            }
            Event::Dance => self.dance(node),
        }
    }

    /// One step of a machine, and all that follows at once.
    pub fn step(&mut self, node: usize, input: Input<'_>) {
        let mut input = input;
        for round in 0.. {
            assert!(round < 200_000, "the machine never comes to rest");
            let now = self.now;
            let n = &mut self.nodes[node];
            let Some(res) = n.res.as_mut() else { return };
            let mut host = SimHost {
                now,
                rng: &mut n.rng,
                effects: Vec::new(),
            };
            let progress = res.step(input, &mut host);
            let effects = host.effects;
            self.steps += 1;
            for effect in effects {
                self.carry_out(node, effect);
            }
            match progress {
                Progress::Idle => break,
                Progress::More => input = Input::Tick,
            }
        }
        self.settle(node);
    }

    /// Carries out effects that came from elsewhere than a step.
    pub(crate) fn carry_out_all(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.step(node, Input::Tick);
    }

    /// Timer and receiver, after a step.
    fn settle(&mut self, node: usize) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let Some(res) = n.res.as_ref() else { return };
        if let Some(at) = res.deadline() {
            // Otherwise whoever drives the machine would tick for ever and see to nothing else.
            assert!(at > now, "idle, yet due at {at:?}, and it is {now:?}");
            if n.tick_at.is_none_or(|t| at < t) {
                n.tick_at = Some(at);
                self.schedule_at(node, at, Event::Tick);
            }
        }
        self.receiver(node);
    }

    /// Lets the receiver do what it may. The step for a packet comes back here for the next one.
    pub(crate) fn receiver(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let (Some(res), true) = (n.res.as_ref(), n.receiver) else {
            return;
        };
        match res.receiver_wish(PEER) {
            ReceiverWish::Exit => {
                n.receiver = false;
                self.step(node, Input::ReceiverGone { peer: PEER });
            }
            ReceiverWish::Run => {
                let inbox = n.sockets.as_mut().map(|s| &mut s.inbox);
                if let Some(frame) = inbox.and_then(VecDeque::pop_front) {
                    self.receive(node, 0, frame);
                }
            }
            ReceiverWish::Pause | ReceiverWish::Close => {}
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        if self.verbose {
            self.note(format!("n{node} {effect:?}"));
        }
        match effect {
            Effect::Send { .. } => self.enqueue(node, effect),
            Effect::Local {
                io,
                op,
                range,
                flags,
                data,
                ..
            } => self.submit_local(node, io, op, range, flags, data),
            Effect::Meta {
                io,
                op,
                sector,
                bytes,
                flags,
                ..
            } => self.submit_meta(node, io, op, sector, bytes, flags),
            Effect::Complete { app, result } => self.complete(node, app, result),
            Effect::Free(BufId(buf)) => {
                let was = self.nodes[node].bufs.remove(&buf);
                assert!(was.is_some(), "buffer freed twice");
            }
            Effect::StartReceiver { .. } => {
                self.nodes[node].receiver = true;
                self.look_for_peer(node);
            }
            Effect::CloseSockets { .. } => self.close_sockets(node),
            Effect::SetReadOnly { ro, .. } => self.nodes[node].writable = !ro,
            Effect::SetCapacity { size, .. } => {
                if size.0 != 0 {
                    self.last_size = size;
                }
            }
            Effect::UpdateLimits { .. } | Effect::Uevent { .. } => {}
            Effect::DropBacking { vol } => {
                if let Some(res) = self.nodes[node].res.as_mut() {
                    let _ = res.take_backing(vol);
                }
            }
            Effect::Helper { id, command, .. } => {
                self.note(format!("n{node} helper {}", command.name()));
                self.schedule(node, Duration::millis(1), Event::HelperDone(id));
            }
            Effect::AdminDone { op, code, .. } => {
                self.note(format!("n{node} answers {} with {code}", op.0));
                self.nodes[node].answers.insert(op.0, code);
            }
            Effect::Examine { io, buf, what } => self.examine(node, io, buf, what),
            Effect::SyncPosted { minor, posted } => {
                self.posted[node].insert(minor, posted);
            }
            Effect::StateChanged { .. } | Effect::SyncProgress { .. } => {}
            Effect::Log { note, .. } => {
                if let Note::ResyncBegins { bits, .. } = note {
                    self.nodes[node].resynced = bits;
                }
                self.note(format!("n{node} {note}"));
            }
        }
    }

    fn examine(&mut self, node: usize, io: IoToken, buf: Option<BufId>, what: Examine) {
        let n = &self.nodes[node];
        let data = buf.map(|BufId(buf)| &n.bufs[&buf]);
        let result = match (what, data) {
            (Examine::Zeroes, data) => {
                Examined::Zeroes(data.is_some_and(|d| d.iter().all(|tag| *tag == 0)))
            }
            (Examine::Digest(_), None) => Examined::Digest(Digest::new(&[0; 8]).expect("short")),
            (Examine::Digest(which), Some(data)) => {
                assert!(!n.algorithm(which).is_empty(), "no algorithm for {which:?}");
                // FNV-1a over words: enough to tell tags apart.
                let mix = |sum: u64, tag: &u64| (sum ^ tag).wrapping_mul(0x100_0000_01b3);
                let sum = data.iter().fold(0xcbf2_9ce4_8422_2325, mix);
                Examined::Digest(Digest::new(&sum.to_be_bytes()).expect("short"))
            }
        };
        let after = self.latency();
        self.schedule(node, after, Event::Examined(io, result));
    }

    /// Most I/O is quick, some is not: one in 64 takes up to eight seconds, longer than anything
    /// that the machine puts off.
    fn latency(&mut self) -> Duration {
        if self.stalls && self.rng.below(64) == 0 {
            return Duration(self.rng.below(8_000_000_000));
        }
        Duration(20_000 + self.rng.below(200_000))
    }

    fn submit_local(
        &mut self,
        node: usize,
        io: IoToken,
        op: LocalOp,
        range: SectorRange,
        flags: IoFlags,
        data: Data,
    ) {
        let n = &mut self.nodes[node];
        if op == LocalOp::Flush || flags.preflush {
            // What was completed before is durable at the latest when the flush is answered.
            n.disk.flush();
        }
        let tags = match (op, data) {
            (LocalOp::Write, Data::App(AppId(app))) => n.apps[&app].pages.clone(),
            (LocalOp::Write, Data::Buf(BufId(buf))) => n.bufs[&buf].clone(),
            (LocalOp::Discard | LocalOp::ZeroOut { .. }, _) => vec![0; range.len.0 as usize],
            _ => Vec::new(),
        };
        if !tags.is_empty() {
            assert_eq!(tags.len() as u64, range.len.0, "payload of a local write");
            let write = InFlight {
                start: range.start,
                tags,
                bytes: Vec::new(),
                fua: flags.fua,
            };
            let was = n.writes.insert(Node::key(io), write);
            assert!(was.is_none(), "token {io:?} used twice");
        }
        let after = self.latency();
        let wrote = op == LocalOp::Write || range.len.0 > 0 && op != LocalOp::Read;
        self.schedule(node, after, Event::LocalDone(io, op, range, data, wrote));
    }

    fn local_done(
        &mut self,
        node: usize,
        io: IoToken,
        op: LocalOp,
        range: SectorRange,
        data: Data,
        wrote: bool,
    ) {
        let n = &mut self.nodes[node];
        let mut buf = None;
        if wrote {
            let w = n.writes.remove(&Node::key(io)).expect("a write in flight");
            n.land(w, true);
        } else if op == LocalOp::Read {
            let tags = n.disk.read(range);
            match data {
                Data::App(AppId(app)) => {
                    if let Some(app) = n.apps.get_mut(&app) {
                        app.pages = tags;
                    }
                }
                Data::Fresh => buf = Some(n.buffer(tags)),
                Data::None | Data::Buf(_) => panic!("a read into nowhere"),
            }
        }
        let result = Ok(());
        self.step(node, Input::LocalDone { io, buf, result });
    }

    fn submit_meta(
        &mut self,
        node: usize,
        io: IoToken,
        op: MetaOp,
        sector: Sector,
        bytes: u32,
        flags: IoFlags,
    ) {
        let n = &mut self.nodes[node];
        if flags.preflush {
            n.disk.flush();
        }
        if !matches!(op, MetaOp::ReadBitmap { .. }) {
            let mut page = [0; 4096];
            if let Some(res) = n.res.as_mut() {
                res.fill_page(io, &mut page);
            }
            let write = InFlight {
                start: sector,
                tags: Vec::new(),
                bytes: page[..bytes as usize].to_vec(),
                fua: flags.fua,
            };
            let was = n.writes.insert(Node::key(io), write);
            assert!(was.is_none(), "token {io:?} used twice");
        }
        let after = self.latency();
        self.schedule(node, after, Event::MetaDone(io, op, sector, bytes));
    }

    fn meta_done(&mut self, node: usize, io: IoToken, op: MetaOp, sector: Sector, bytes: u32) {
        let n = &mut self.nodes[node];
        let mut page = [0; 4096];
        let read = matches!(op, MetaOp::ReadBitmap { .. });
        if read {
            let found = n.disk.read_bytes(sector, bytes as usize);
            page[..found.len()].copy_from_slice(&found);
        } else {
            let w = n.writes.remove(&Node::key(io)).expect("a write in flight");
            n.land(w, true);
        }
        let page = read.then_some(&page);
        let result = Ok(());
        self.step(node, Input::MetaDone { io, page, result });
    }

    /// An application submits I/O; `len` in sectors. Returns its name.
    pub fn submit(&mut self, node: usize, op: AppOp, start: u64, len: u64) -> AppId {
        let app = AppId(self.next_app);
        self.next_app += 1;
        let range = SectorRange {
            start: Sector(start),
            len: Sectors(len),
        };
        let flags = IoFlags::default();
        let io = AppIo {
            app,
            op,
            range,
            flags,
        };
        let mut tag = 0;
        let mut pages = vec![0; len as usize];
        if op == AppOp::Write {
            tag = self.next_tag;
            self.next_tag += 1 << 12;
            pages.iter_mut().zip(tag..).for_each(|(p, t)| *p = t);
            self.oracle.submitted(range, tag);
        }
        self.nodes[node].apps.insert(app.0, App { io, tag, pages });
        self.step(node, Input::Submit { vol: VOL, io });
        app
    }

    fn complete(&mut self, node: usize, app: AppId, result: AppResult) {
        let Some(done) = self.nodes[node].apps.remove(&app.0) else {
            self.fail("an I/O completed twice");
        };
        match (done.io.op, result) {
            (AppOp::Write, Ok(())) => self.oracle.acknowledged(done.tag),
            (AppOp::Write, Err(_)) => self.oracle.undecided(done.tag),
            (AppOp::Read, Ok(())) => {
                if let Err(why) = self.oracle.check(done.io.range, &done.pages) {
                    self.fail(&format!("n{node} read {:?}: {why}", done.io.range));
                }
            }
            _ => {}
        }
        if let Err(why) = result {
            self.note(format!(
                "n{node} {:?} {:?}: {why:?}",
                done.io.op, done.io.range
            ));
        }
        self.completed.push((node, app, result));
    }

    /// I/O of applications under way on a node.
    pub fn open_ios(&self, node: usize) -> usize {
        self.nodes[node].apps.len()
    }

    /// The power of a node fails.
    pub fn crash(&mut self, node: usize) {
        self.note(format!("n{node} loses its power"));
        // What was on its way died with the node; what the other one works on goes on.
        let writes = self.nodes[node].apps.values().filter(|a| a.tag != 0);
        writes.for_each(|a| self.oracle.undecided(a.tag));
        let mut rng = self.rng.clone();
        self.nodes[node].power_fails(&mut rng);
        self.rng = rng;
        self.net.held[node].clear();
    }

    /// The device of a node as its disk has it.
    pub fn data(&self, node: usize, size: Sectors) -> &[u64] {
        self.nodes[node].disk.data(size)
    }

    /// Replaces a disk, as an administrator with a screwdriver.
    pub fn replace_disk(&mut self, node: usize, disk: Disk) {
        self.nodes[node].disk = disk;
    }

    /// The seed of this world.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// An error as a disk may report it; here so that tests name it.
    pub const IO_ERROR: IoError = IoError::Io;
    /// The only peer.
    pub const PEER: PeerIx = PEER;

    pub(crate) fn lost(&mut self, node: usize, why: Lost) {
        self.step(node, Input::Lost { peer: PEER, why });
    }
}
