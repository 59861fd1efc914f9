// SPDX-License-Identifier: GPL-2.0

//! The world: nodes, the clock, and what happens in between.
//!
//! Effects of a step are carried out after it, as in the kernel; whatever takes time becomes an
//! event. Invariant: the same seed and the same calls give the same run.

use crate::below::{self, Below, STACKED};
use crate::disk::Disk;
use crate::drbdmeta;
use crate::knobs::Knobs;
use crate::moves::Ledger;
use crate::net::Network;
use crate::node::{Frame, Node, SimHost};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::stats::Stats;
use crate::truth::Truth;
use drbd_core::node::{
    AppId, AppResult, BufId, Effect, Examined, HelperId, Input, IoToken, LocalOp, Lost, MetaOp,
    Note, Progress, ReceiverWish, VolIx, PEER,
};
use drbd_core::time::{Duration, Instant};
use drbd_core::units::{Sector, SectorRange, Sectors};
use std::collections::VecDeque;

/// The volume of all tests.
pub const VOL: VolIx = VolIx(0);

/// Lines of the trace that are kept.
const TRACE: usize = 20_000;

/// Adds a line to the trace, if there is one.
macro_rules! say {
    ($w:expr, $($text:tt)*) => {
        if $w.tracing {
            let line = format!($($text)*);
            $w.note(line);
        }
    };
}
pub(crate) use say;

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// The machine asked to be called; only the last such request counts.
    Tick(u64),
    /// A local I/O is over.
    LocalDone {
        /// Which.
        io: IoToken,
        /// What it was.
        op: LocalOp,
        /// Where.
        range: SectorRange,
        /// With which data.
        data: drbd_core::node::Data,
    },
    /// A metadata I/O is over.
    MetaDone {
        /// Which.
        io: IoToken,
        /// What it was.
        op: MetaOp,
        /// Where.
        sector: Sector,
        /// How much.
        bytes: u32,
    },
    /// The content of a buffer was looked at.
    Examined(IoToken, Examined),
    /// A helper is back.
    HelperDone(HelperId, u8),
    /// The sender of a socket (0 data, 1 meta) of a connection may go on.
    Transmit(usize, u64),
    /// A packet of a socket of a connection arrives.
    Deliver(usize, u64, Frame),
    /// The machine hears that this connection stands.
    Ready(u64, bool),
    /// The peer's end of this connection was closed.
    Reset(u64),
    /// The sockets are closed.
    Closed,
    /// This node looks for its peer.
    Dance,
    /// The receiver may go on.
    Wake,
    /// An application goes on: I/Os left, pause between them in ns, mix.
    Work(u32, u64, u32),
}

/// What a run that went wrong leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property that does not hold, or where the code gave up.
    pub oracle: String,
    /// What was found.
    pub why: String,
}

/// Everything.
pub struct World {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Virtual time.
    pub now: Instant,
    /// Randomness of everything outside of the machines.
    pub rng: Rng,
    /// The network.
    pub net: Network,
    /// What applications were told, and what disks owe.
    pub truth: Truth,
    /// What is known of the nodes' UUIDs.
    pub(crate) ledger: Ledger,
    /// What administrators configure, and how the world is.
    pub knobs: Knobs,
    /// What happened, in numbers.
    pub stats: Box<Stats>,
    pub(crate) events: Queue<(usize, u64, Event)>,
    pub(crate) next_app: u32,
    pub(crate) next_tag: u64,
    trace: VecDeque<String>,
    /// A trace is kept.
    pub tracing: bool,
    /// A test tells a story: what goes wrong is for people.
    story: bool,
    /// Every effect goes into the trace.
    pub verbose: bool,
    /// The pair that node 0 stands on, if there are three.
    pub(crate) below: Option<Box<Below>>,
    /// What lines of the trace begin with.
    pub(crate) margin: &'static str,
    /// Completed I/O of applications: node, id, result; if somebody wants to know.
    pub completed: Option<Vec<(usize, AppId, AppResult)>>,
    /// Size of the device as last announced.
    pub last_size: Sectors,
    /// Requests of administrators made so far.
    pub(crate) next_op: u32,
    /// The nodes found that their data have nothing in common.
    pub(crate) unrelated: bool,
    /// They found that they are too old to know what to do.
    pub(crate) too_old: bool,
    /// Cuts that end at some moment: when, what leads to which node.
    pub(crate) healing: Vec<(Instant, usize)>,
    seed: u64,
}

impl World {
    /// Two fresh nodes with disks of `size` sectors, switched off; with a trace.
    pub fn new(seed: u64, size: Sectors) -> World {
        let mut knobs = Knobs::plain();
        knobs.size = size.0;
        let mut w = World::with(seed, knobs);
        w.tracing = true;
        w.story = true;
        w.verbose = std::env::var_os("SIM_VERBOSE").is_some();
        w
    }

    /// Two fresh nodes in a world of this kind, switched off; without a trace.
    pub fn with(seed: u64, mut knobs: Knobs) -> World {
        let below = (knobs.stacked != 0).then(|| below::build(seed, &mut knobs));
        let mut rng = Rng::new(seed);
        let mut nodes = Vec::new();
        for n in 0..2u64 {
            let mut disk = drbdmeta::create_md(Sectors(knobs.size), rng.bits() | 1);
            disk.volatile = knobs.cache != 0;
            disk.apart = knobs.cache == 2;
            let mut node = Node::new(disk, Rng::new(seed ^ ((n + 1) << 32)));
            node.clock = knobs.clock(n as usize);
            nodes.push(node);
        }
        if below.is_some() {
            nodes[STACKED].stacked = true;
            (nodes[STACKED].disk.volatile, nodes[STACKED].disk.apart) = (false, false);
        }
        World {
            below,
            margin: "",
            truth: Truth::new(nodes.len(), knobs.size as usize),
            nodes,
            now: Instant(1_000_000_000),
            rng,
            net: Network::new(&knobs),
            ledger: Ledger::default(),
            knobs,
            stats: Box::default(),
            events: Queue::default(),
            next_app: 1,
            next_tag: 1 << 12,
            trace: VecDeque::new(),
            tracing: false,
            story: false,
            verbose: false,
            completed: None,
            last_size: Sectors(0),
            next_op: 1,
            unrelated: false,
            too_old: false,
            healing: Vec::new(),
            seed,
        }
    }

    /// The node at the other end of the only connection of a node.
    pub fn peer_of(&self, node: usize) -> usize {
        1 - node
    }

    /// Adds a line to the trace.
    pub fn note(&mut self, line: String) {
        // Who repeats himself is cut short.
        if self.trace.back().is_some_and(|last| last.ends_with(&line)) {
            return;
        }
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let at = self.now.0;
        let (s, us) = (at / 1_000_000_000, at / 1000 % 1_000_000);
        let margin = self.margin;
        self.trace
            .push_back(format!("{s:4}.{us:06} {margin}{line}"));
    }

    /// The trace so far.
    pub fn trace(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().map(String::as_str)
    }

    /// The same, with that of the pair below.
    pub(crate) fn whole_trace(&self) -> Vec<String> {
        let below = self.below.iter().flat_map(|b| b.world.trace());
        let mut lines: Vec<String> = self.trace().chain(below).map(str::to_string).collect();
        // Stable, and the time comes first.
        lines.sort_by(|a, b| a.get(..11).cmp(&b.get(..11)));
        lines
    }

    /// How many lines of the trace contain `text`.
    pub fn traced(&self, text: &str) -> usize {
        self.trace.iter().filter(|l| l.contains(text)).count()
    }

    /// Ends the run: a property does not hold.
    pub fn violated(&mut self, oracle: &str, why: &str) -> ! {
        let oracle = oracle.to_string();
        say!(self, "VIOLATED {oracle}: {why}");
        if self.verbose {
            self.trace.iter().for_each(|line| eprintln!("{line}"));
        }
        if self.story {
            self.fail(&format!("{oracle}: {why}"));
        }
        let why = why.to_string();
        std::panic::panic_any(Violation { oracle, why })
    }

    /// Prints the trace and fails, for tests that tell a story.
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
        let life = self.nodes[node].life;
        self.events.push(at, (node, life, event));
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
        match self.below {
            Some(_) => self.next_of_both(end),
            None => self.next_own(end),
        }
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let healing = self.healing.iter().map(|(at, _)| *at).min();
        self.events.next_at().into_iter().chain(healing).min()
    }

    /// One event of these nodes.
    pub(crate) fn next_own(&mut self, end: Instant) -> bool {
        let next = self.events.next_at();
        if let Some(ix) = self
            .healing
            .iter()
            .position(|(at, _)| next.is_none_or(|n| *at <= n))
        {
            if self.healing[ix].0 <= end {
                let (at, node) = self.healing.swap_remove(ix);
                self.now = at.max(self.now);
                self.cut(node, false);
                return true;
            }
        }
        if next.is_none_or(|at| at > end) {
            return false;
        }
        let Some((at, (node, life, event))) = self.events.pop() else {
            return false;
        };
        self.now = at.max(self.now);
        if life == self.nodes[node].life {
            self.happen(node, event);
        }
        true
    }

    pub(crate) fn happen(&mut self, node: usize, event: Event) {
        if let Event::Tick(nr) = event {
            if nr != self.nodes[node].tick_nr {
                return;
            }
        }
        self.stats.events += 1;
        match event {
            Event::Tick(_) => {
                self.nodes[node].tick_at = None;
                self.step(node, Input::Tick);
            }
            Event::LocalDone {
                io,
                op,
                range,
                data,
            } => self.local_done(node, io, op, range, data),
            Event::MetaDone {
                io,
                op,
                sector,
                bytes,
            } => {
                self.meta_done(node, io, op, sector, bytes);
            }
            Event::Examined(io, result) => self.step(node, Input::Examined { io, result }),
            Event::HelperDone(id, code) => self.step(node, Input::HelperDone { id, code }),
            Event::Transmit(sock, link) => self.transmit(node, sock, link),
            Event::Deliver(sock, link, frame) => self.deliver(node, sock, link, frame),
            Event::Ready(link, arbiter) => self.link_ready(node, link, arbiter),
            Event::Reset(link) => self.reset(node, link),
            Event::Closed => {
                self.nodes[node].closing = false;
                self.step(node, Input::Closed { peer: PEER });
                self.look_for_peer(node);
            }
            Event::Dance => self.dance(node),
            Event::Wake => self.receiver(node),
            Event::Work(left, pause, mix) => self.work(node, left, pause, mix),
        }
    }

    /// One step of a machine, and all that follows at once.
    pub fn step(&mut self, node: usize, input: Input<'_>) {
        let mut input = input;
        for round in 0.. {
            if round >= 3000 {
                self.violated(
                    "a machine comes to rest",
                    "it wants one step after the other",
                );
            }
            let n = &mut self.nodes[node];
            let now = n.clock.shows(self.now);
            let Some(res) = n.res.as_mut() else { return };
            let effects = std::mem::take(&mut n.spare);
            let rng = &mut n.rng;
            let mut host = SimHost { now, rng, effects };
            let progress = res.step(input, &mut host);
            let mut effects = host.effects;
            self.stats.steps += 1;
            self.check_uuids(node, &effects);
            for effect in effects.drain(..) {
                self.carry_out(node, effect);
            }
            self.nodes[node].spare = effects;
            match progress {
                Progress::Idle => break,
                Progress::More => input = Input::Tick,
            }
        }
        self.check_done(node);
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
        let n = &mut self.nodes[node];
        let now = n.clock.shows(self.now);
        let Some(res) = n.res.as_ref() else { return };
        if let Some(at) = res.deadline() {
            if at <= now {
                // Whoever drives the machine would tick for ever and see to nothing else.
                let why = format!("n{node} is idle, yet due at {at:?}, and it is {now:?}");
                self.violated("an idle machine waits for the future", &why);
            }
            if n.tick_at.is_none_or(|t| at < t) {
                n.tick_at = Some(at);
                n.tick_nr += 1;
                let nr = n.tick_nr;
                let at = n.clock.reaches(at);
                self.schedule_at(node, at, Event::Tick(nr));
            }
        }
        if self.nodes[node].receiving {
            return;
        }
        self.receiver(node);
        if !self.nodes[node].jobs.is_empty() {
            self.next_job(node);
        }
    }

    /// Lets the receiver do what it may, one packet after the other.
    pub(crate) fn receiver(&mut self, node: usize) {
        if std::mem::replace(&mut self.nodes[node].receiving, true) {
            return;
        }
        while self.receiver_goes_on(node) {}
        self.nodes[node].receiving = false;
    }

    /// One packet; whether there was one.
    fn receiver_goes_on(&mut self, node: usize) -> bool {
        let n = &mut self.nodes[node];
        let (Some(res), true) = (n.res.as_ref(), n.receiver) else {
            return false;
        };
        match res.receiver_wish(PEER) {
            ReceiverWish::Exit => {
                n.receiver = false;
                self.step(node, Input::ReceiverGone { peer: PEER });
                true
            }
            ReceiverWish::Run => {
                if n.trouble.deaf_until > self.now {
                    return false;
                }
                let sockets = n.sockets.as_mut().filter(|s| s.ready);
                let frame = sockets.and_then(|s| s.inbox.pop_front());
                let found = frame.is_some();
                if let Some(frame) = frame {
                    self.receive(node, 0, frame);
                }
                found
            }
            ReceiverWish::Pause | ReceiverWish::Close => false,
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        if self.verbose {
            say!(self, "n{node} {effect:?}");
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
            } => {
                self.submit_local(node, io, op, range, flags, data);
            }
            Effect::Meta {
                io,
                op,
                sector,
                bytes,
                flags,
                ..
            } => {
                self.submit_meta(node, io, op, sector, bytes, flags);
            }
            Effect::Complete { app, result } => self.complete(node, app, result),
            Effect::Fill {
                app: AppId(app),
                buf: BufId(buf),
            } => self.fill(node, app, buf),
            Effect::Free(BufId(buf)) => self.free(node, buf),
            Effect::StartReceiver { .. } => {
                self.nodes[node].receiver = true;
                self.look_for_peer(node);
            }
            Effect::CloseSockets { .. } => self.close_sockets(node),
            Effect::SetReadOnly { ro, .. } => self.nodes[node].writable = !ro,
            Effect::SetCapacity { size, .. } => {
                self.nodes[node].size = size;
                if size.0 != 0 {
                    self.last_size = size;
                }
            }
            Effect::UpdateLimits { .. } | Effect::Uevent { .. } => {}
            Effect::DropBacking { vol } => self.drop_backing(node, vol),
            Effect::Helper { id, command, .. } => self.helper(node, id, command),
            Effect::AdminDone { op, code, .. } => {
                say!(self, "n{node} answers {} with {code}", op.0);
                self.answered(node, op.0, code);
            }
            Effect::StateChanged {
                vol: Some(_),
                old,
                new,
            } => self.state_changed(node, old, new),
            Effect::Examine { io, buf, what } => self.examine(node, io, buf, what),
            Effect::SyncPosted { minor, posted } => {
                self.nodes[node].posted.insert(minor, posted);
            }
            Effect::StateChanged { .. } | Effect::SyncProgress { .. } => {}
            Effect::Log { note, .. } => {
                say!(self, "n{node} {note}");
                self.noted(node, note);
            }
        }
    }

    fn free(&mut self, node: usize, buf: u32) {
        if self.nodes[node].bufs.remove(u64::from(buf)).is_none() {
            self.violated("buffers are freed once", &format!("n{node} buffer {buf}"));
        }
    }

    fn drop_backing(&mut self, node: usize, vol: VolIx) {
        if let Some(res) = self.nodes[node].res.as_mut() {
            let _ = res.take_backing(vol);
            self.nodes[node].attached = false;
        }
        // The next one may be there before the machine does anything else.
        self.check_uuids(node, &[]);
    }

    fn noted(&mut self, node: usize, note: Note) {
        self.stats.noted(&note);
        match note {
            Note::NeedsProtocol(_) | Note::NeedsFeatures { .. } => self.too_old = true,
            Note::ResyncBegins { bits, .. } => self.nodes[node].resynced = bits,
            Note::Compared { result, rule } => {
                self.truth.rule = rule;
                self.stats.rule(rule, result);
            }
            Note::SplitBrain | Note::Unrelated => {
                self.unrelated |= note == Note::Unrelated;
                self.split_brain(node, note);
            }
            Note::WaitedInVain { secs } => {
                let why = format!("n{node} waits for {secs} s: {:?}", self.state(node));
                self.violated("it is nobody's turn in vain", &why);
            }
            Note::Violated {
                why: drbd_core::node::Violation::Digest,
                ..
            } if self.net.flipped > 0 => self.net.flipped -= 1,
            Note::Violated { packet, why } => {
                let text = format!("n{node}: {packet:?}: {why:?}");
                self.violated("nodes keep to the protocol", &text);
            }
            _ => {}
        }
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

    pub(crate) fn lost(&mut self, node: usize, why: Lost) {
        self.step(node, Input::Lost { peer: PEER, why });
    }
}
