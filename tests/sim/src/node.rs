// SPDX-License-Identifier: GPL-2.0

//! One node: the machine, its disk, and what the kernel would keep for it.

use crate::disk::Disk;
use crate::rng::Rng;
use drbd_core::node::{
    AppIo, BufId, DigestFor, Effect, Host, IoToken, Resource, SendToken, Sock, Store, MAX_EFFECTS,
};
use drbd_core::time::Instant;
use drbd_core::wire::Name64;
use std::collections::{HashMap, VecDeque};

/// Storage of the machine on the host.
pub struct VecStore;

impl Store for VecStore {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

/// The machine.
pub type Machine = Resource<VecStore>;

/// What an effect-emitting step sees.
pub struct SimHost<'a> {
    /// Virtual time.
    pub now: Instant,
    /// Randomness of the machine.
    pub rng: &'a mut Rng,
    /// What it wants done.
    pub effects: Vec<Effect>,
}

impl Host for SimHost<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        self.rng.bits()
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
        assert!(self.effects.len() <= MAX_EFFECTS, "a step emits too much");
    }

    fn room(&self) -> usize {
        MAX_EFFECTS - self.effects.len()
    }
}

/// An application's I/O.
#[derive(Clone, Debug)]
pub struct App {
    /// As submitted.
    pub io: AppIo,
    /// Tag of its first sector, for a write.
    pub tag: u64,
    /// Contents of its pages.
    pub pages: Vec<u64>,
}

/// A packet on the wire: header, fixed part and control bytes as bytes, data as tags.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Header and everything that is no data.
    pub bytes: Vec<u8>,
    /// Data.
    pub data: Vec<u64>,
}

/// A packet that waits for TCP.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The effect that asked for it.
    pub effect: Effect,
    /// The token to report.
    pub token: SendToken,
}

/// A local write that the disk has not finished.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Where.
    pub start: drbd_core::units::Sector,
    /// Data, for the data area.
    pub tags: Vec<u64>,
    /// Bytes, for the metadata area.
    pub bytes: Vec<u8>,
    /// Durable when done.
    pub fua: bool,
}

/// The sockets of a node.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Which connection this end belongs to.
    pub link: u64,
    /// Queues of sender and asender.
    pub out: [VecDeque<Queued>; 2],
    /// A transmission is scheduled.
    pub busy: [bool; 2],
    /// Received and not yet taken, data socket.
    pub inbox: VecDeque<Frame>,
}

/// A node.
pub struct Node {
    /// The machine; `None` while the node is down.
    pub res: Option<Machine>,
    /// Its backing device.
    pub disk: Disk,
    /// Counts boots.
    pub life: u64,
    /// Randomness of its machine.
    pub rng: Rng,
    /// Buffers that travel between disk and peer.
    pub bufs: HashMap<u32, Vec<u64>>,
    /// The next buffer's number.
    pub next_buf: u32,
    /// Applications' I/O under way.
    pub apps: HashMap<u32, App>,
    /// Writes on their way to the disk.
    pub writes: HashMap<u64, InFlight>,
    /// The receiver thread runs.
    pub receiver: bool,
    /// Established sockets.
    pub sockets: Option<Sockets>,
    /// The sockets are being closed.
    pub closing: bool,
    /// It will look for its peer.
    pub dancing: bool,
    /// When the next tick is scheduled.
    pub tick_at: Option<Instant>,
    /// Answers to administrators.
    pub answers: HashMap<u32, i32>,
    /// The device is writable.
    pub writable: bool,
    /// Bits that the last resync began with.
    pub resynced: u64,
}

impl Node {
    /// A node that is switched off.
    pub fn new(disk: Disk, rng: Rng) -> Node {
        Node {
            res: None,
            disk,
            life: 0,
            rng,
            bufs: HashMap::new(),
            next_buf: 1,
            apps: HashMap::new(),
            writes: HashMap::new(),
            receiver: false,
            sockets: None,
            closing: false,
            dancing: false,
            tick_at: None,
            answers: HashMap::new(),
            writable: false,
            resynced: 0,
        }
    }

    /// Keeps data in a fresh buffer.
    pub fn buffer(&mut self, data: Vec<u64>) -> BufId {
        let id = self.next_buf;
        self.next_buf = self.next_buf.wrapping_add(1);
        self.bufs.insert(id, data);
        BufId(id)
    }

    /// The algorithm that the machine wants digests to be made by.
    pub fn algorithm(&self, which: DigestFor) -> Name64 {
        let name = self.res.as_ref().map(|r| r.algorithm(which));
        name.unwrap_or(Name64::EMPTY)
    }

    /// The power fails: whatever was not on the medium is at risk.
    pub fn power_fails(&mut self, rng: &mut Rng) {
        let mut writes: Vec<_> = self.writes.drain().collect();
        writes.sort_by_key(|(token, _)| *token);
        for (_, w) in writes {
            if rng.percent(50) {
                self.land(w, false);
            }
        }
        self.disk.power_fails(rng);
        self.res = None;
        self.life += 1;
        self.bufs.clear();
        self.apps.clear();
        self.receiver = false;
        self.sockets = None;
        self.closing = false;
        self.dancing = false;
        self.tick_at = None;
        self.writable = false;
        self.answers.clear();
    }

    /// A write reaches the disk.
    pub fn land(&mut self, w: InFlight, durable: bool) {
        let fua = w.fua && durable;
        if w.bytes.is_empty() {
            self.disk.write(w.start, &w.tags, fua);
        } else {
            self.disk.write_bytes(w.start, &w.bytes, fua);
        }
    }

    /// The index of a socket's queue.
    pub fn queue(sock: Sock) -> usize {
        match sock {
            Sock::Data => 0,
            Sock::Meta => 1,
        }
    }

    /// The key of a write in flight.
    pub fn key(io: IoToken) -> u64 {
        io.0
    }
}
