// SPDX-License-Identifier: GPL-2.0

//! One node: the machine, its disk, and what waits to happen to it.

use crate::disk::{Content, Disk, SECTORS};
use crate::drbdmeta;
use drbd_core::bitmap::PageFlags;
use drbd_core::digest::Digest;
use drbd_core::nl::conf::{DiskConf, ResourceOpts};
use drbd_core::node::admin::{attach_needs, BackingLimits, Devices};
use drbd_core::node::{
    AppId, AppIo, Backing, BackingStorage, BufId, Connection, Data, Effect, Examine, Examined,
    HelperId, Host, IoFlags, IoToken, LocalOp, MetaOp, PeerDevice, Resource, SendToken, Storage,
    Store, VolumeStorage, MAX_EFFECTS,
};
use drbd_core::store::{interval, lru, slab};
use drbd_core::time::Instant;
use drbd_core::units::{Sector, SectorRange, Sectors};
use drbd_core::wire::Packet;
use std::collections::{BTreeMap, VecDeque};

/// Storage of the machine.
#[derive(Clone, Debug, Hash)]
pub struct VecStore;

impl Store for VecStore {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

/// The machine.
pub type Machine = Resource<VecStore>;

/// Requests that a machine has room for.
const REQUESTS: usize = 16;
/// Requests of the peer that it has room for.
const PEER_REQUESTS: usize = 64;

/// What a step sees of its owner.
pub struct StepHost<'a> {
    now: Instant,
    entropy: &'a mut u64,
    /// What it wants done.
    pub effects: Vec<Effect>,
}

impl<'a> StepHost<'a> {
    /// For one step at this time.
    pub fn new(now: Instant, entropy: &'a mut u64) -> StepHost<'a> {
        StepHost {
            now,
            entropy,
            effects: Vec::new(),
        }
    }
}

impl Host for StepHost<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        // Any two are different, and bit 0 and the top bits are free.
        *self.entropy += 0x100;
        *self.entropy
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
        assert!(self.effects.len() <= MAX_EFFECTS, "a step emits too much");
    }

    fn room(&self) -> usize {
        MAX_EFFECTS - self.effects.len()
    }
}

/// An I/O that the disk works on.
#[derive(Clone, Debug, Hash)]
pub enum DiskIo {
    /// On the data.
    Local {
        /// Its name.
        io: IoToken,
        /// What.
        op: LocalOp,
        /// Where.
        range: SectorRange,
        /// How.
        flags: IoFlags,
        /// Where the data come from or go to.
        data: Data,
        /// What is written, a tag for each block.
        tags: Vec<u64>,
    },
    /// On the metadata.
    Meta {
        /// Its name.
        io: IoToken,
        /// What.
        op: MetaOp,
        /// Where.
        sector: Sector,
        /// How.
        flags: IoFlags,
        /// What is written; nothing for a read.
        page: Content,
    },
}

/// A packet on the wire, and the tags of its data.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Header and fixed part, and what else is no data.
    pub bytes: Vec<u8>,
    /// The same, unless it is a piece of a bitmap.
    pub packet: Option<Packet>,
    /// Data, a tag for each block.
    pub data: Vec<u64>,
}

/// An application's I/O.
#[derive(Clone, Debug)]
pub struct App {
    /// As submitted.
    pub io: AppIo,
    /// Its pages, a tag for each block.
    pub pages: Vec<u64>,
}

/// A node.
#[derive(Clone)]
pub struct Node {
    /// The machine; `None` while the node is down.
    pub machine: Option<Machine>,
    /// Its disk.
    pub disk: Disk,
    /// Sectors that the disk had when the node last had its metadata.
    pub last_size: u64,
    /// Where its random numbers are.
    pub entropy: u64,
    /// I/O that the disk works on, the oldest first.
    pub disk_ios: VecDeque<DiskIo>,
    /// Packets that arrived, by socket.
    pub wire: [VecDeque<Frame>; 2],
    /// Packets that TCP has taken and the machine does not know of yet.
    pub sent: VecDeque<SendToken>,
    /// What was found out about buffers.
    pub looks: VecDeque<(IoToken, Examined)>,
    /// Helpers that run.
    pub helpers: VecDeque<HelperId>,
    /// The receiver runs.
    pub receiver: bool,
    /// The sockets stand.
    pub connected: bool,
    /// The peer has closed its sockets, what is on the wire is the last.
    pub ends: bool,
    /// The sockets are being closed.
    pub closing: bool,
    /// The other end of the sockets is gone, and this node does not know yet.
    pub dead: bool,
    /// Applications' I/O under way.
    pub apps: BTreeMap<u32, App>,
    /// Buffers between disk and peer.
    pub bufs: BTreeMap<u32, Vec<u64>>,
    /// The next buffer.
    pub next_buf: u32,
    /// Answers to administrators.
    pub answers: BTreeMap<u32, i32>,
    /// Size of the block device, sectors.
    pub size: u64,
    /// Lines of its log.
    pub log: Vec<String>,
}

fn fresh_machine() -> Machine {
    let storage = Storage {
        requests: (0..REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_requests: (0..PEER_REQUESTS).map(|_| slab::Slot::EMPTY).collect(),
        peer_waiting: vec![None; PEER_REQUESTS],
        sent_epochs: vec![None; REQUESTS],
    };
    Resource::new(
        ResourceOpts::default(),
        vec![None],
        vec![Connection::new()],
        storage,
    )
}

/// What a volume needs.
pub fn volume_storage() -> VolumeStorage<VecStore> {
    VolumeStorage {
        writes: vec![interval::Slot::EMPTY; REQUESTS + PEER_REQUESTS],
        peers: vec![PeerDevice::new()],
    }
}

impl Node {
    /// A node that is switched off.
    pub fn new(disk: Disk, number: u64) -> Node {
        Node {
            machine: None,
            last_size: disk.sectors(),
            disk,
            entropy: (number + 1) << 32,
            disk_ios: VecDeque::new(),
            wire: Default::default(),
            sent: VecDeque::new(),
            looks: VecDeque::new(),
            helpers: VecDeque::new(),
            receiver: false,
            connected: false,
            ends: false,
            closing: false,
            dead: false,
            apps: BTreeMap::new(),
            bufs: BTreeMap::new(),
            next_buf: 1,
            answers: BTreeMap::new(),
            size: 0,
            log: Vec::new(),
        }
    }

    /// Loads the module.
    pub fn load(&mut self) {
        self.machine = Some(fresh_machine());
    }

    /// Everything but the disk is gone.
    pub fn forget(&mut self) {
        let disk = std::mem::replace(&mut self.disk, Disk::new(0));
        let number = (self.entropy >> 32) - 1;
        let (entropy, last_size) = (self.entropy, self.last_size);
        *self = Node {
            entropy,
            last_size,
            log: std::mem::take(&mut self.log),
            ..Node::new(disk, number)
        };
    }

    /// The disk as `attach` brings it along.
    ///
    /// # Errors
    /// The code that `attach` answers with.
    pub fn backing(&self, conf: &DiskConf) -> Result<Backing<VecStore>, i32> {
        let size = Sectors(self.disk.sectors());
        let devices = Devices {
            backing: size,
            meta: size,
            same: true,
        };
        let limits = BackingLimits {
            max_bio: 1 << 20,
            logical_block: 4096,
            physical_block: 4096,
            io_min: 4096,
            write_cache: true,
            fua: true,
            ..BackingLimits::default()
        };
        let page = drbdmeta::superblock_page(&self.disk);
        let needs = attach_needs(conf, devices, Sectors(0), limits, &page)
            .map_err(|(code, _)| code.number())?;
        let storage = BackingStorage {
            al: vec![lru::Slot::EMPTY; needs.al_slots as usize],
            words: vec![0; needs.bitmap.words as usize],
            pages: vec![PageFlags::EMPTY; needs.bitmap.pages as usize],
            extents: vec![lru::Slot::empty(Default::default()); needs.extents],
        };
        Backing::new(&needs, storage).ok_or(-1)
    }

    /// Tells the machine how large the disk is by now.
    pub fn measure(&mut self) {
        let size = Sectors(self.disk.sectors());
        let Some(m) = self.machine.as_mut() else {
            return;
        };
        let vol = crate::world::VOL;
        if let Some(need) = m.disk_measured(vol, size, size) {
            let words = vec![0; need.words as usize];
            let pages = vec![PageFlags::EMPTY; need.pages as usize];
            drop(m.give_bitmap(vol, words, pages));
        }
    }

    /// What a local I/O writes, a tag for each block.
    pub fn tags(&self, op: LocalOp, data: Data, range: SectorRange) -> Vec<u64> {
        match (op, data) {
            (LocalOp::Write, Data::App(AppId(app)) | Data::Copy(AppId(app))) => {
                self.apps[&app].pages.clone()
            }
            (LocalOp::Write, Data::Buf(BufId(buf))) => self.bufs[&buf].clone(),
            (LocalOp::Discard | LocalOp::ZeroOut { .. }, _) => {
                Node::blocks(range).map(|_| 0).collect()
            }
            (_, _) => Vec::new(),
        }
    }

    /// What was read into a buffer reaches its application.
    pub fn fill(&mut self, app: AppId, buf: BufId) {
        let read = self.bufs.remove(&buf.0).expect("a buffer");
        self.apps.get_mut(&app.0).expect("an I/O").pages = read;
    }

    /// Looks at the content of a buffer.
    pub fn look(&self, buf: Option<BufId>, what: Examine) -> Examined {
        let tags = buf.map_or(&[][..], |BufId(buf)| &self.bufs[&buf]);
        match what {
            Examine::Zeroes => Examined::Zeroes(buf.is_some() && tags.iter().all(|t| *t == 0)),
            Examine::Digest(_) => {
                // Zero is no block's.
                let sum = tags.iter().fold(1, |sum: u64, t| sum.rotate_left(7) ^ t);
                let sum = buf.map_or(0, |_| sum);
                Digest::new(&sum.to_be_bytes()).map_or(Examined::Failed, Examined::Digest)
            }
        }
    }

    /// Keeps data in a buffer.
    pub fn buffer(&mut self, tags: Vec<u64>) -> BufId {
        let id = self.next_buf;
        self.next_buf += 1;
        self.bufs.insert(id, tags);
        BufId(id)
    }

    /// The blocks of a range of whole blocks.
    pub fn blocks(range: SectorRange) -> std::ops::Range<u64> {
        assert!(range.start.0 % SECTORS == 0 && range.len.0 % SECTORS == 0);
        range.start.0 / SECTORS..range.end().0 / SECTORS
    }
}
