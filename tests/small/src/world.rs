// SPDX-License-Identifier: GPL-2.0

//! The world: what can happen, and what follows at once.
//!
//! An event of the world ([`Event`]) makes one thing happen. What follows without any freedom, such
//! as the news that TCP has taken a packet, follows at once.

use crate::disk::{Content, SECTORS};
use crate::drbdmeta;
use crate::node::{App, DiskIo, Frame, Machine, Node, StepHost};
use crate::oracle::Oracle;
use drbd_core::nl::conf::{DiskConf, NetConf};
use drbd_core::node::{
    AppId, AppIo, AppOp, AppResult, BufId, Data, Effect, Input, IoFlags, LocalOp, Lost, MetaOp,
    Note, Payload, PayloadPlan, Progress, ReceiverWish, Sock, VolIx, PEER,
};
use drbd_core::state::State;
use drbd_core::time::{Duration, Instant};
use drbd_core::units::{saturate_u32, Sector, SectorRange, Sectors, Vnr};
use drbd_core::wire::{self, Header, Packet, Socket};
use std::collections::VecDeque;

mod orders;

/// The volume.
pub const VOL: VolIx = VolIx(0);
/// The version and the features that the nodes agree on.
const APV: u32 = wire::APV_MAX;
const FEATURES: u32 = wire::feature::ALL;
/// Steps that may follow one event.
const PATIENCE: u32 = 100_000;

/// Something that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// The oldest I/O of a disk ends.
    Disk(u8),
    /// A packet arrives at a node, on its data (0) or meta (1) socket.
    Packet(u8, u8),
    /// The nodes, which both look for a peer, find each other.
    Connect,
    /// A node learns that the other end of its connection is gone.
    Notice(u8),
    /// Time passes until somebody has to do something.
    Time,
}

/// Two nodes.
#[derive(Clone)]
pub struct World {
    /// The nodes.
    pub nodes: [Node; 2],
    /// The time.
    pub now: Instant,
    /// The nodes can reach each other.
    pub network: bool,
    /// Whose peer closes a connection gets what was sent before, as with TCP; otherwise it is lost.
    pub orderly: bool,
    /// What applications were told.
    pub oracle: Oracle,
    /// The disk's options.
    pub disk_conf: DiskConf,
    /// The connection's options.
    pub net_conf: NetConf,
    /// That the other end of a connection is gone is an event of its own, [`Event::Notice`].
    pub late_news: bool,
    /// Logs are kept.
    pub talks: bool,
    /// Writes that were acknowledged: node, block, tag. For whoever empties it.
    pub acks: Vec<(usize, u64, u64)>,
    /// What the nodes said of each other's data, for whoever empties it.
    pub verdicts: Vec<Note>,
    next_app: u32,
    next_op: u32,
}

impl World {
    /// Two nodes with fresh metadata on disks of so many blocks, switched off.
    pub fn new(blocks: u64) -> World {
        World {
            nodes: [0, 1].map(|n| Node::new(drbdmeta::create_md(blocks), n)),
            now: Instant(1_000_000_000_000),
            network: true,
            orderly: false,
            oracle: Oracle::default(),
            disk_conf: DiskConf {
                meta_dev_idx: -3,
                al_extents: 67,
                ..DiskConf::default()
            },
            net_conf: NetConf::default(),
            late_news: false,
            talks: true,
            acks: Vec::new(),
            verdicts: Vec::new(),
            next_app: 1,
            next_op: 1,
        }
    }

    /// The state of a node's volume.
    pub fn state(&self, node: usize) -> State {
        let status = |m: &Machine| m.volume_status(VOL).map(|v| v.state);
        self.nodes[node]
            .machine
            .as_ref()
            .and_then(status)
            .unwrap_or(State::INITIAL)
    }

    /// Both nodes in a line.
    pub fn describe(&self) -> String {
        let one = |n: usize| {
            let s = self.state(n);
            let bits = self.nodes[n].machine.as_ref().map(|m| m.out_of_sync(VOL));
            let size = self.nodes[n].size;
            format!(
                "n{n} {} {} {}/{} bits {bits:?} size {size}",
                s.role.name(),
                s.conn.name(),
                s.disk.name(),
                s.pdsk.name()
            )
        };
        format!("{}; {}", one(0), one(1))
    }

    /// Fails with the logs of both nodes.
    pub fn fail(&self, why: &str) -> ! {
        for (n, node) in self.nodes.iter().enumerate() {
            for line in &node.log {
                eprintln!("n{n} {line}");
            }
        }
        panic!("{why}; {}", self.describe());
    }

    // ---- what can happen -------------------------------------------------------------------

    /// All events that can happen now, time excepted.
    pub fn events(&self) -> Vec<Event> {
        let mut all = Vec::new();
        for (n, node) in (0_u8..).zip(&self.nodes) {
            if !node.disk_ios.is_empty() {
                all.push(Event::Disk(n));
            }
            let Some(m) = node.machine.as_ref() else {
                continue;
            };
            if !node.connected {
                continue;
            }
            let runs = node.receiver && m.receiver_wish(PEER) == ReceiverWish::Run;
            if runs && !node.wire[0].is_empty() {
                all.push(Event::Packet(n, 0));
            }
            if !node.wire[1].is_empty() {
                all.push(Event::Packet(n, 1));
            }
            if node.dead {
                all.push(Event::Notice(n));
            }
        }
        if self.network && (0..2).all(|n| self.looks_for_peer(n)) {
            all.push(Event::Connect);
        }
        all
    }

    fn looks_for_peer(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        let runs = |m: &Machine| m.receiver_wish(PEER) == ReceiverWish::Run;
        n.machine.as_ref().is_some_and(runs) && n.receiver && !n.connected && !n.closing
    }

    /// Makes it happen.
    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Disk(n) => self.disk_done(usize::from(n), Ok(())),
            Event::Packet(n, sock) => {
                let node = usize::from(n);
                self.packet(node, usize::from(sock));
                let n = &mut self.nodes[node];
                if n.ends && n.wire.iter().all(VecDeque::is_empty) {
                    n.ends = false;
                    self.hang_up(node);
                }
            }
            Event::Connect => self.meet(),
            Event::Notice(n) => self.notice(usize::from(n)),
            Event::Time => self.time_passes(),
        }
    }

    /// Lets things happen in a fixed order until nothing can happen but time.
    pub fn settle(&mut self) {
        for _ in 0..PATIENCE {
            match self.events().first() {
                Some(event) => self.happen(*event),
                None => return,
            }
        }
        self.fail("it never comes to rest");
    }

    /// As [`World::settle`], with time passing, until `done`.
    pub fn until(&mut self, what: &str, done: impl Fn(&World) -> bool) {
        for _ in 0..PATIENCE {
            if done(self) {
                return;
            }
            match self.events().first() {
                Some(event) => self.happen(*event),
                None => self.time_passes(),
            }
        }
        self.fail(&format!("waited in vain for: {what}"));
    }

    /// Lets things happen, and time pass, for so long.
    pub fn run(&mut self, span: Duration) {
        let end = self.now.plus(span);
        for _ in 0..PATIENCE {
            let due = |n: &Node| n.machine.as_ref().and_then(Machine::deadline);
            let next = self.nodes.iter().filter_map(due).min();
            match self.events().first() {
                Some(event) => self.happen(*event),
                None if next.is_some_and(|at| at <= end) => self.time_passes(),
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        self.fail("time does not pass");
    }

    /// Time passes until the next deadline of a machine.
    fn time_passes(&mut self) {
        let due = |n: &Node| n.machine.as_ref().and_then(Machine::deadline);
        let Some(next) = self.nodes.iter().filter_map(due).min() else {
            self.fail("nothing will ever happen again");
        };
        self.now = self.now.max(next);
        for n in 0..2 {
            if due(&self.nodes[n]).is_some_and(|at| at <= self.now) {
                self.step(n, Input::Tick);
            }
        }
    }

    /// When a node has something to do without being told, unless that is further away than
    /// `patience`.
    pub fn due(&self, node: usize, patience: Duration) -> Option<Instant> {
        let due = self.nodes[node].machine.as_ref()?.deadline()?;
        (due <= self.now.plus(patience)).then_some(due)
    }

    /// Time passes for one node until it has something to do.
    pub fn wait_for(&mut self, node: usize) {
        if let Some(due) = self.nodes[node]
            .machine
            .as_ref()
            .and_then(Machine::deadline)
        {
            self.now = self.now.max(due);
            self.step(node, Input::Tick);
        }
    }

    // ---- machines ---------------------------------------------------------------------------

    /// One step and what follows at once.
    pub fn step(&mut self, node: usize, input: Input<'_>) {
        let mut input = input;
        loop {
            let now = self.now;
            let n = &mut self.nodes[node];
            let Some(m) = n.machine.as_mut() else { return };
            let mut host = StepHost::new(now, &mut n.entropy);
            let progress = m.step(input, &mut host);
            let effects = host.effects;
            self.carry_out(node, effects);
            match progress {
                Progress::Idle => break,
                Progress::More => input = Input::Tick,
            }
        }
        self.follow_up(node);
    }

    fn follow_up(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some(m) = n.machine.as_ref() else { return };
        if let Some(token) = n.sent.pop_front() {
            self.step(node, Input::Sent { peer: PEER, token });
        } else if let Some((io, result)) = n.looks.pop_front() {
            self.step(node, Input::Examined { io, result });
        } else if let Some(id) = n.helpers.pop_front() {
            self.step(node, Input::HelperDone { id, code: 0 });
        } else if n.closing {
            n.closing = false;
            self.step(node, Input::Closed { peer: PEER });
        } else if n.receiver && m.receiver_wish(PEER) == ReceiverWish::Exit {
            n.receiver = false;
            self.step(node, Input::ReceiverGone { peer: PEER });
        }
    }

    /// Talks to a machine beside its steps.
    pub(crate) fn with(&mut self, node: usize, call: impl FnOnce(&mut Machine, &mut StepHost<'_>)) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let mut host = StepHost::new(now, &mut n.entropy);
        let m = n.machine.as_mut().expect("the node is up");
        call(m, &mut host);
        let effects = host.effects;
        self.carry_out(node, effects);
        self.step(node, Input::Tick);
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.one(node, effect);
        }
    }

    fn one(&mut self, node: usize, effect: Effect) {
        let n = &mut self.nodes[node];
        match effect {
            Effect::Send { .. } => self.send(node, effect),
            Effect::Local {
                io,
                op,
                range,
                flags,
                data,
                ..
            } => {
                let tags = n.tags(op, data, range);
                n.disk_ios.push_back(DiskIo::Local {
                    io,
                    op,
                    range,
                    flags,
                    data,
                    tags,
                });
            }
            Effect::Meta { .. } => self.meta_io(node, effect),
            Effect::Complete { app, result } => self.complete(node, app, result),
            Effect::Fill { app, buf } => n.fill(app, buf),
            Effect::Examine { io, buf, what } => {
                let found = n.look(buf, what);
                n.looks.push_back((io, found));
            }
            Effect::Free(BufId(buf)) => drop(n.bufs.remove(&buf)),
            Effect::StartReceiver { .. } => n.receiver = true,
            Effect::CloseSockets { .. } => self.close(node),
            Effect::SetCapacity { size, .. } => n.size = size.0,
            Effect::DropBacking { vol } => {
                if let Some(m) = n.machine.as_mut() {
                    drop(m.take_backing(vol));
                }
            }
            Effect::Helper { id, .. } => n.helpers.push_back(id),
            Effect::AdminDone { op, code, .. } => drop(n.answers.insert(op.0, code)),
            Effect::Log { note, .. } => self.hear(node, note),
            Effect::SetReadOnly { .. }
            | Effect::UpdateLimits { .. }
            | Effect::Uevent { .. }
            | Effect::StateChanged { .. }
            | Effect::SyncPosted { .. }
            | Effect::SyncProgress { .. } => {}
        }
    }

    fn meta_io(&mut self, node: usize, effect: Effect) {
        #[rustfmt::skip]
        let Effect::Meta { io, op, sector, flags, .. } = effect else { return };
        let n = &mut self.nodes[node];
        let mut page = Content::Tag(0);
        if let Some(m) = n.machine.as_mut() {
            if !matches!(op, MetaOp::ReadBitmap { .. }) {
                let mut bytes = [0; 4096];
                m.fill_page(io, &mut bytes);
                page = Content::page(&bytes);
            }
        }
        n.disk_ios.push_back(DiskIo::Meta {
            io,
            op,
            sector,
            flags,
            page,
        });
    }

    fn hear(&mut self, node: usize, note: Note) {
        if self.talks {
            self.nodes[node].log.push(note.to_string());
        }
        if matches!(note, Note::SplitBrain | Note::Unrelated) {
            self.verdicts.push(note);
        }
    }

    /// The oldest I/O of a disk ends.
    pub fn disk_done(&mut self, node: usize, result: AppResult) {
        let n = &mut self.nodes[node];
        let Some(done) = n.disk_ios.pop_front() else {
            return;
        };
        match done {
            DiskIo::Local {
                io,
                op,
                range,
                flags,
                data,
                tags,
            } => {
                if op == LocalOp::Flush || flags.preflush {
                    n.disk.flush();
                }
                for (block, tag) in Node::blocks(range).zip(&tags) {
                    n.disk.write(block, Content::Tag(*tag), flags.fua);
                }
                let mut buf = None;
                if op == LocalOp::Read {
                    let read = Node::blocks(range).map(|b| n.disk.read(b).tag()).collect();
                    match data {
                        Data::App(AppId(app)) => {
                            if let Some(app) = n.apps.get_mut(&app) {
                                app.pages = read;
                            }
                        }
                        Data::Fresh | Data::Copy(_) => buf = Some(n.buffer(read)),
                        Data::None | Data::Buf(_) => panic!("a read into nowhere"),
                    }
                }
                self.step(node, Input::LocalDone { io, buf, result });
            }
            DiskIo::Meta {
                io,
                op,
                sector,
                flags,
                page,
            } => {
                if flags.preflush {
                    n.disk.flush();
                }
                let block = sector.0 / SECTORS;
                let read = matches!(op, MetaOp::ReadBitmap { .. });
                let found = if read {
                    n.disk.bytes(block)
                } else {
                    n.disk.write(block, page, flags.fua);
                    [0; 4096]
                };
                let page = read.then_some(&found);
                self.step(node, Input::MetaDone { io, page, result });
            }
        }
    }

    fn send(&mut self, node: usize, effect: Effect) {
        let Effect::Send {
            sock,
            vnr,
            packet,
            payload,
            token,
            ..
        } = effect
        else {
            return;
        };
        let n = &mut self.nodes[node];
        if !n.connected {
            return;
        }
        let ix = usize::from(sock == Sock::Meta);
        let mut frames = Vec::new();
        let mut buf = [0; 4096];
        let mut tail = Vec::new();
        let data = match payload {
            Payload::None => Vec::new(),
            Payload::Digest(digest) => {
                tail = digest.as_bytes().to_vec();
                Vec::new()
            }
            Payload::App { app, .. } => n.apps[&app.0].pages.clone(),
            Payload::Buf(BufId(buf)) => n.bufs[&buf].clone(),
            Payload::Bitmap { vol } => {
                while let Some(len) = n
                    .machine
                    .as_mut()
                    .and_then(|m| m.bitmap_chunk(vol, &mut buf))
                {
                    frames.push(Frame {
                        bytes: buf[..len].to_vec(),
                        packet: None,
                        data: Vec::new(),
                    });
                }
                Vec::new()
            }
        };
        if !matches!(payload, Payload::Bitmap { .. }) {
            let bytes = saturate_u32((data.len() * 4096 + tail.len()) as u64);
            let len = packet.encode(APV, FEATURES, Vnr(vnr), bytes, &mut buf);
            frames.push(Frame {
                bytes: [&buf[..len], &tail].concat(),
                packet: Some(packet),
                data,
            });
        }
        if token.0 != 0 {
            n.sent.push_back(token);
        }
        let dead = n.dead;
        let peer = &mut self.nodes[1 - node];
        if peer.connected && !dead {
            peer.wire[ix].extend(frames);
        }
    }

    fn meet(&mut self) {
        for n in &mut self.nodes {
            n.connected = true;
            n.ends = false;
            n.wire = Default::default();
        }
        for node in 0..2 {
            self.nodes[node].measure();
            let input = Input::Connected {
                peer: PEER,
                apv: APV,
                features: FEATURES,
                arbiter: node == 0,
            };
            self.step(node, input);
        }
    }

    fn close(&mut self, node: usize) {
        self.nodes[node].closing = true;
        self.nodes[node].sent.clear();
        if std::mem::take(&mut self.nodes[node].connected) {
            self.nodes[node].wire = Default::default();
            let dead = std::mem::take(&mut self.nodes[node].dead);
            let peer = &mut self.nodes[1 - node];
            peer.ends = !dead && self.orderly && peer.wire.iter().any(|w| !w.is_empty());
            if !dead && !peer.ends {
                self.hang_up(1 - node);
            }
        }
    }

    /// The other end of the connection is gone.
    fn hang_up(&mut self, node: usize) {
        if self.late_news {
            self.nodes[node].dead |= self.nodes[node].connected;
        } else {
            self.notice(node);
        }
    }

    fn notice(&mut self, node: usize) {
        if self.nodes[node].connected {
            self.nodes[node].dead = true;
            let why = Lost::Broken;
            self.step(node, Input::Lost { peer: PEER, why });
        }
    }

    /// Cuts the network: both ends notice at once, what was under way is lost.
    pub fn cut(&mut self) {
        self.network = false;
        if self.late_news {
            self.nodes
                .iter_mut()
                .for_each(|n| n.wire = Default::default());
        }
        for node in 0..2 {
            self.hang_up(node);
        }
    }

    fn packet(&mut self, node: usize, ix: usize) {
        let Some(frame) = self.nodes[node].wire[ix].pop_front() else {
            return;
        };
        let on = [Socket::Data, Socket::Meta][ix];
        let header = Header::decode(APV, &frame.bytes).expect("a header");
        let command = wire::Command::from_number(header.command).expect("a command");
        let split = command
            .check_length(on, header.length, FEATURES)
            .expect("a length");
        let rest = &frame.bytes[header.header_len..];
        let (fixed, body) = rest.split_at((split.body as usize).min(rest.len()));
        let packet = Packet::decode(&header, fixed, APV).expect("a packet");
        let n = &mut self.nodes[node];
        let Some(m) = n.machine.as_ref() else { return };
        let measures = m.wants_measures(&header, &packet).is_some();
        let mut buf = None;
        match m.payload(&header, &packet) {
            PayloadPlan::None | PayloadPlan::Body { .. } => {}
            PayloadPlan::Buffer { .. } => buf = Some(n.buffer(frame.data)),
            PayloadPlan::App { app, .. } => {
                if let Some(app) = n.apps.get_mut(&app.0) {
                    app.pages = frame.data;
                }
            }
            PayloadPlan::Violation => {
                let why = Lost::Protocol;
                return self.step(node, Input::Lost { peer: PEER, why });
            }
        }
        if measures {
            n.measure();
        }
        let input = Input::Received {
            peer: PEER,
            sock: [Sock::Data, Sock::Meta][ix],
            header,
            packet,
            buf,
            body,
            intact: true,
        };
        self.step(node, input);
    }

    // ---- applications -------------------------------------------------------------------------

    /// An application writes or reads a block. Returns its name.
    pub fn submit(&mut self, node: usize, op: AppOp, block: u64, tag: u64) -> u32 {
        let app = self.next_app;
        self.next_app += 1;
        let io = AppIo {
            app: AppId(app),
            op,
            range: SectorRange {
                start: Sector(block * SECTORS),
                len: Sectors(SECTORS),
            },
            flags: IoFlags::default(),
        };
        if op == AppOp::Write {
            self.oracle.submitted(block, tag);
        }
        let pages = vec![tag];
        self.nodes[node].apps.insert(app, App { io, pages });
        self.step(node, Input::Submit { vol: VOL, io });
        app
    }

    fn complete(&mut self, node: usize, app: AppId, result: AppResult) {
        let Some(done) = self.nodes[node].apps.remove(&app.0) else {
            self.fail("an I/O completed twice");
        };
        let block = done.io.range.start.0 / SECTORS;
        let tag = done.pages.first().copied().unwrap_or(0);
        match (done.io.op, result) {
            (AppOp::Write, Ok(())) => {
                self.oracle.acknowledged(block, tag);
                self.acks.push((node, block, tag));
            }
            (AppOp::Read, Ok(())) => {
                if !self.oracle.permits(block, tag) {
                    let values = self.oracle.values(block).to_vec();
                    self.fail(&format!("n{node} reads {tag} in {block}, not {values:?}"));
                }
                self.oracle.settled(block, tag);
            }
            (_, _) => {}
        }
    }

    /// The power of a node fails; `pick` as in [`crate::disk::Disk::power_fails`]. Of the I/O that
    /// the disk works on nothing, or all, was done.
    pub fn crash(&mut self, node: usize, all: bool, mut pick: impl FnMut(usize) -> usize) {
        self.crash_at(node, all, |_, versions| pick(versions));
    }

    /// The same; `pick` is told the number of the block, too.
    pub fn crash_at(&mut self, node: usize, all: bool, pick: impl FnMut(u64, usize) -> usize) {
        while all && !self.nodes[node].disk_ios.is_empty() {
            let n = &mut self.nodes[node];
            match n.disk_ios.pop_front() {
                Some(DiskIo::Local {
                    op,
                    range,
                    flags,
                    tags,
                    ..
                }) => {
                    if op == LocalOp::Flush || flags.preflush {
                        n.disk.flush();
                    }
                    for (block, tag) in Node::blocks(range).zip(&tags) {
                        n.disk.write(block, Content::Tag(*tag), flags.fua);
                    }
                }
                Some(DiskIo::Meta {
                    op,
                    sector,
                    flags,
                    page,
                    ..
                }) if !matches!(op, MetaOp::ReadBitmap { .. }) => {
                    // What is on the medium is there in the order that was asked for.
                    if flags.preflush {
                        n.disk.flush();
                    }
                    n.disk.write(sector.0 / SECTORS, page, flags.fua);
                }
                Some(DiskIo::Meta { .. }) | None => {}
            }
        }
        self.nodes[node].disk.power_fails_at(pick);
        self.nodes[node].forget();
        self.hang_up(1 - node);
    }

    /// Whether both are connected, up to date and at rest.
    pub fn in_sync(&self) -> bool {
        let good = |s: State| {
            s.conn.name() == "Connected"
                && s.disk.name() == "UpToDate"
                && s.pdsk.name() == "UpToDate"
        };
        (0..2).all(|n| good(self.state(n)) && self.nodes[n].apps.is_empty())
    }

    /// Checks that both disks have, in every block that was ever written, the same value, and one
    /// that may be there.
    pub fn check_data(&mut self) {
        let blocks: Vec<u64> = self.oracle.written().collect();
        for block in blocks {
            let found = [0, 1].map(|n| self.nodes[n].disk.read(block).tag());
            if found[0] != found[1] {
                self.fail(&format!("block {block} differs: {found:?}"));
            }
            if !self.oracle.permits(block, found[0]) {
                let values = self.oracle.values(block).to_vec();
                self.fail(&format!("block {block} has {}, not {values:?}", found[0]));
            }
            self.oracle.settled(block, found[0]);
        }
    }
}
