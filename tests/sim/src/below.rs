// SPDX-License-Identifier: GPL-2.0

//! Three nodes, stacked: the disk of node 0 is the device of another pair.
//!
//! The pair below is a world of its own, with its own books and oracles; both go by one time. What
//! the machine above wants of its disk are I/Os of an application there, on the node that is
//! Primary: the *site*. When the site dies, so does node 0, and it comes back on whichever node of
//! the pair below becomes Primary, with what that one has.
//!
//! The disk of node 0 is a mirror of what the device below holds, brought up to date before the
//! machine hears of the end of an I/O. The pair below writes tags of its own; `written` knows which
//! content of the pair above each of them stands for.

use crate::disk::Disk;
use crate::drbdmeta::layout;
use crate::knobs::Knobs;
use crate::node::Node;
use crate::rng::Rng;
use crate::world::{Event, World};
use drbd_core::node::{AppId, AppOp, IoFlags, LocalOp, MetaOp};
use drbd_core::state::conn::State as Conn;
use drbd_core::state::disk::State as DiskState;
use drbd_core::state::State;
use drbd_core::time::Instant;
use drbd_core::units::{Sector, SectorRange, Sectors};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

mod site;

/// The node above that stands on the pair below.
pub const STACKED: usize = 0;
/// Sets the randomness of the pair below apart.
const BELOW: u64 = 0x6265_6c6f_7700_0000;
/// Sectors that metadata of the pair below take at most, for the sizes that are drawn.
const ROOM: u64 = 240;
/// Sectors in a block of metadata.
const BLOCK: u64 = 8;

/// What the machine above has written with one I/O.
enum Content {
    /// Tags of applications above.
    Data(Vec<u64>),
    /// Metadata.
    Bytes(Vec<u8>),
}

/// An I/O of the machine above that waits, with the life of node 0 that it belongs to.
struct Waiting {
    event: Event,
    life: u64,
    flags: IoFlags,
}

/// One that is under way; those of `drbdmeta` have no event.
struct Order {
    event: Option<Event>,
    life: u64,
    range: SectorRange,
    /// Parts, as the device below limits the size of an I/O.
    parts: Vec<AppId>,
    failed: bool,
}

/// The pair below, and what connects it with the one above.
pub struct Below {
    /// The pair.
    pub world: World,
    /// Its node on which node 0 runs, or ran last.
    site: usize,
    /// Node 0 is to come up as soon as the device is there.
    wanted: bool,
    /// It has been up: what the device holds counts.
    begun: bool,
    /// Its machine had its disk when last looked at.
    attached: bool,
    /// The state in which it died, until it is known what is left of its data.
    died: Option<State>,
    /// Which nodes below have all data.
    safe: [bool; 2],
    waiting: VecDeque<Waiting>,
    /// What `drbdmeta` writes before all that, one block after the other.
    tool: VecDeque<(SectorRange, Vec<u8>)>,
    open: Vec<Order>,
    /// By the tag of the first sector that the pair below has for it: what, from which of its
    /// sectors on.
    written: BTreeMap<u64, (Rc<Content>, usize)>,
}

/// The pair below a pair with these knobs; their size becomes that of its device.
pub(crate) fn build(seed: u64, knobs: &mut Knobs) -> Box<Below> {
    let mut rng = Rng::new(seed ^ BELOW);
    let mut below = Knobs::draw(&mut rng);
    // What it has acknowledged has to be on both nodes, otherwise its site can not move.
    (below.protocol, below.apv, below.features) = (3, 101, 15);
    (below.fencing, below.al_updates) = (0, 1);
    // With `pass_on` an error makes a Primary Inconsistent, also one that is alone: the older copy
    // of its peer counts then, as with the C driver.
    below.on_io_error = below.on_io_error.max(1);
    below.discard = knobs.discard.max(u64::from(knobs.rs_discard != 0));
    below.size = knobs.size + ROOM;
    let size = Sectors(below.size);
    knobs.size = layout(size).max_data_sectors(size).0;
    let mut world = World::with(rng.bits() >> 16, below);
    world.completed = Some(Vec::new());
    world.margin = "    | ";
    Box::new(Below {
        world,
        site: 0,
        wanted: false,
        begun: false,
        attached: false,
        died: None,
        safe: [true; 2],
        waiting: VecDeque::new(),
        tool: VecDeque::new(),
        open: Vec::new(),
        written: BTreeMap::new(),
    })
}

impl Below {
    /// The node whose disk says what the device holds, if there is one by now.
    fn holder(&self) -> Option<usize> {
        let good = |n: usize| self.world.nodes[n].state.disk == DiskState::UpToDate;
        let site = self.world.nodes[self.site].state;
        // A peer that is not connected may be behind, and not know.
        let reached = site.conn >= Conn::Connected && site.pdsk == DiskState::UpToDate;
        let other = 1 - self.site;
        if good(self.site) {
            Some(self.site)
        } else {
            (reached && good(other)).then_some(other)
        }
    }

    /// Puts what the device holds into the mirror; the data sectors that this changes.
    fn mirror(&self, range: SectorRange, disk: &mut Disk) -> Vec<u32> {
        let Some(holder) = self.holder() else {
            return Vec::new();
        };
        let found = self.world.nodes[holder].disk.read(range);
        let mut changed = Vec::new();
        for (at, value) in (range.start.0..).zip(found) {
            let write = self.written.range(..=value).next_back();
            let write = write.filter(|_| value != 0);
            let write =
                write.map(|(first, (what, skip))| (&**what, (value - first) as usize + skip));
            let sector = Sector(at);
            if (at as usize) < disk.data_sectors() {
                let tag = match write {
                    Some((Content::Data(tags), ix)) => tags[ix],
                    _ => 0,
                };
                if disk.read(SectorRange::new(sector, 512)) != [tag] {
                    disk.write(sector, &[tag], true);
                    changed.push(at as u32);
                }
            } else if let Some((Content::Bytes(bytes), ix)) = write {
                disk.write_bytes(sector, &bytes[ix * 512..ix * 512 + 512], true);
            } else {
                disk.write_bytes(sector, &[0; 512], true);
            }
        }
        changed
    }

    /// Gives an I/O to the pair below.
    fn submit(&mut self, mut order: Order, op: AppOp, content: Option<Content>, flags: IoFlags) {
        let w = &mut self.world;
        let max = u64::from(w.max_bio(self.site)) / 512;
        let content = content.map(Rc::new);
        let (first, end) = (order.range.start.0, order.range.end().0);
        let mut at = first;
        loop {
            let len = (end - at).min(max);
            if let Some(content) = &content {
                let part = (content.clone(), (at - first) as usize);
                self.written.insert(w.next_tag, part);
            }
            order
                .parts
                .push(w.submit_with(self.site, op, at, len, flags));
            at += len;
            if at >= end {
                break;
            }
        }
        self.open.push(order);
    }

    /// Gives a block of `drbdmeta` to the pair below.
    fn store(&mut self, range: SectorRange, bytes: Vec<u8>, life: u64) {
        let order = Order {
            event: None,
            life,
            range,
            parts: Vec::new(),
            failed: false,
        };
        let flags = IoFlags {
            fua: true,
            ..IoFlags::default()
        };
        self.submit(order, AppOp::Write, Some(Content::Bytes(bytes)), flags);
    }

    /// The I/O that a part belongs to, if that was its last one.
    fn part_done(&mut self, app: AppId, failed: bool) -> Option<Order> {
        let at = self.open.iter().position(|o| o.parts.contains(&app))?;
        let order = &mut self.open[at];
        order.parts.retain(|part| *part != app);
        order.failed |= failed;
        order.parts.is_empty().then(|| self.open.remove(at))
    }
}

/// What an event is the end of: where, and 0 for a read, 1 for a write, 2 for metadata.
fn place(event: &Event) -> (SectorRange, usize) {
    match event {
        Event::LocalDone { op, range, .. } => (*range, usize::from(*op != LocalOp::Read)),
        Event::MetaDone { sector, bytes, .. } => (SectorRange::new(*sector, *bytes), 2),
        other => panic!("no I/O: {other:?}"),
    }
}

impl World {
    /// Whether the disk of a node is the device of the pair below.
    pub(crate) fn is_stacked(&self, node: usize) -> bool {
        node == STACKED && self.below.is_some()
    }

    /// The disk of a node begins an I/O, the end of which is `event`.
    pub(crate) fn begin_io(&mut self, node: usize, event: Event, flags: IoFlags) {
        if !self.is_stacked(node) {
            let after = self.latency(node);
            self.schedule(node, after, event);
            return;
        }
        let life = self.nodes[node].life;
        let below = self.below.as_mut().expect("a pair below");
        below.waiting.push_back(Waiting { event, life, flags });
    }

    /// One event of either pair, if there is one before `end`.
    pub(crate) fn next_of_both(&mut self, end: Instant) -> bool {
        let own = self.next_at();
        let below = &mut self.below.as_mut().expect("a pair below").world;
        let first = below
            .next_at()
            .is_some_and(|at| own.is_none_or(|own| at < own));
        let found = match first {
            true => below.next_before(end),
            false => self.next_own(end),
        };
        self.one_time();
        self.exchange();
        found
    }

    /// Both pairs go by the later one's clock.
    fn one_time(&mut self) {
        let below = &mut self.below.as_mut().expect("a pair below").world;
        let now = self.now.max(below.now);
        (self.now, below.now) = (now, now);
    }

    /// I/O goes down, and its ends come up.
    pub(crate) fn exchange(&mut self) {
        loop {
            self.one_time();
            let (up, attached) = (
                self.nodes[STACKED].res.is_some(),
                self.nodes[STACKED].attached,
            );
            let life = self.nodes[STACKED].life;
            let below = self.below.as_mut().expect("a pair below");
            below.watch();
            below.waiting.retain(|w| w.life == life);
            below.open.retain(|o| o.life == life);
            if attached && !std::mem::replace(&mut below.attached, attached) {
                self.store_tools_writes();
                continue;
            }
            below.attached = attached;
            if !up && std::mem::take(&mut below.world.nodes[below.site].held) {
                below.world.hold_open(below.site, false);
            }
            let ends = below.world.completed.as_mut().map(std::mem::take);
            if let Some(ends) = ends.filter(|list| !list.is_empty()) {
                for (_, app, result) in ends {
                    self.part_done(app, result.is_err());
                }
                continue;
            }
            let tool = below.open.iter().any(|o| o.event.is_none());
            let room = |n: &Node| n.res.as_ref().is_some_and(|r| r.can_submit());
            if tool || !room(&below.world.nodes[below.site]) {
                break;
            }
            if let Some((range, bytes)) = below.tool.pop_front() {
                below.store(range, bytes, life);
                continue;
            }
            let Some(next) = below.waiting.pop_front() else {
                break;
            };
            self.give(next);
        }
        self.bring_up();
    }

    fn give(&mut self, next: Waiting) {
        let (range, _) = place(&next.event);
        let data = |io| {
            self.nodes[STACKED]
                .writes
                .get(Node::key(io))
                .expect("a write")
        };
        let (op, content) = match &next.event {
            Event::LocalDone {
                op: LocalOp::Read, ..
            } => (AppOp::Read, None),
            Event::LocalDone {
                op: LocalOp::Flush, ..
            } => (AppOp::Flush, None),
            Event::LocalDone {
                op: LocalOp::Discard,
                ..
            } => (AppOp::Discard, None),
            Event::LocalDone {
                op: LocalOp::ZeroOut { unmap },
                ..
            } => (AppOp::WriteZeroes { unmap: *unmap }, None),
            Event::LocalDone { io, .. } => {
                (AppOp::Write, Some(Content::Data(data(*io).tags.clone())))
            }
            Event::MetaDone {
                op: MetaOp::ReadBitmap { .. },
                ..
            } => (AppOp::Read, None),
            Event::MetaDone { io, .. } => {
                (AppOp::Write, Some(Content::Bytes(data(*io).bytes.clone())))
            }
            other => panic!("no I/O: {other:?}"),
        };
        let order = Order {
            event: Some(next.event),
            life: next.life,
            range,
            parts: Vec::new(),
            failed: false,
        };
        let below = self.below.as_mut().expect("a pair below");
        below.submit(order, op, content, next.flags);
    }

    fn part_done(&mut self, app: AppId, failed: bool) {
        let below = self.below.as_mut().expect("a pair below");
        let Some(order) = below.part_done(app, failed) else {
            return;
        };
        if order.life != self.nodes[STACKED].life {
            return;
        }
        let Some(event) = order.event else {
            if order.failed {
                // Without what `drbdmeta` was to write nobody may attach the disk: the node is
                // reset, and tries again.
                self.crash(STACKED);
            }
            return;
        };
        let own = &mut self.nodes[STACKED];
        below.mirror(order.range, &mut own.disk);
        // Who had the data may be gone when its word arrives.
        own.stacked = below.holder().is_some();
        if order.failed {
            self.nodes[STACKED].trouble.eio[place(&event).1] += 1;
        }
        self.happen(STACKED, event);
        self.nodes[STACKED].stacked = true;
    }

    /// What `drbdmeta` has written before an attach goes down first of all.
    fn store_tools_writes(&mut self) {
        let disk = &self.nodes[STACKED].disk;
        let (from, end) = (disk.data_sectors() as u64, disk.size().0);
        let mut there = disk.clone();
        let below = self.below.as_mut().expect("a pair below");
        below.tool.clear();
        let mut at = from;
        while at < end {
            let len = BLOCK.min(end - at);
            let range = SectorRange {
                start: Sector(at),
                len: Sectors(len),
            };
            at += len;
            below.mirror(range, &mut there);
            let bytes = disk.read_bytes(range.start, len as usize * 512);
            let same = bytes == there.read_bytes(range.start, len as usize * 512);
            if same && below.holder().is_some() {
                continue;
            }
            below.tool.push_back((range, bytes.to_vec()));
        }
    }
}
