// SPDX-License-Identifier: GPL-2.0

//! One node: the machine, its disk, its clock, and what the kernel would keep for it.

use crate::disk::Disk;
use crate::jobs::Job;
use crate::queue::Table;
use crate::rng::Rng;
use drbd_core::node::{
    AppIo, BufId, DigestFor, Effect, Host, IoToken, Resource, SendToken, Sock, Store, MAX_EFFECTS,
};
use drbd_core::resync_after::Posted;
use drbd_core::state::State;
use drbd_core::time::Instant;
use drbd_core::units::{Minor, Sector, SectorRange, Sectors};
use drbd_core::wire::{BlockId, Name64};
use std::collections::{BTreeMap, VecDeque};

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
    /// Time by the node's own clock.
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

/// A clock that starts somewhere and runs fast or slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What it shows at the beginning.
    pub offset: u64,
    /// How much it is fast, in millionths.
    pub ppm: i64,
}

impl Clock {
    /// What it shows at a moment of the world.
    pub fn shows(&self, world: Instant) -> Instant {
        let drift = world.0 as i64 * self.ppm / 1_000_000;
        Instant(world.0.saturating_add_signed(drift) + self.offset)
    }

    /// The first moment of the world at which it shows `local` or more.
    pub fn reaches(&self, local: Instant) -> Instant {
        let span = u128::from(local.0.saturating_sub(self.offset)) * 1_000_000;
        let guess = (span / (1_000_000 + self.ppm) as u128) as u64;
        // Rounded down twice.
        let mut at = Instant(guess.saturating_sub(2));
        while self.shows(at) < local {
            at.0 += 1;
        }
        at
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
    /// The connection of the node when it was submitted; 0: none.
    pub link: u64,
    /// Whether the disks were UpToDate then.
    pub good: bool,
    /// The peer has acknowledged it.
    pub answered: bool,
    /// The peer has said that its disk has it, be that as the target of a resync.
    pub taken: bool,
    /// The name by which the peer has its data.
    pub block: Option<BlockId>,
    /// It was given to the sender.
    pub sent: bool,
    /// The epoch that it was sent in, if that is closed.
    pub epoch: Option<u32>,
    /// The last that the peer said of it is that it could not (NEG_ACK).
    pub refused: bool,
    /// The peer had a good disk then: how many reads had failed there.
    pub spare: Option<u64>,
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
    pub start: Sector,
    /// Data, for the data area.
    pub tags: Vec<u64>,
    /// Bytes, for the metadata area.
    pub bytes: Vec<u8>,
    /// Durable when done.
    pub fua: bool,
    /// The peer's, or of a resync.
    pub of_peer: bool,
}

/// The sockets of a node.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// Which connection this end belongs to.
    pub link: u64,
    /// The machine knows of it; until then packets wait.
    pub ready: bool,
    /// Nothing gets through any more, and this end does not know (half-open).
    pub dead: bool,
    /// Queues of sender and asender.
    pub out: [VecDeque<Queued>; 2],
    /// A transmission is scheduled.
    pub busy: [bool; 2],
    /// Since when a sender does not get on, world time.
    pub stuck: [Option<Instant>; 2],
    /// Received and not yet taken, data socket.
    pub inbox: VecDeque<Frame>,
    /// Received before the machine knew, meta socket.
    pub early: VecDeque<Frame>,
}

/// What is wrong with a node for a while.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// So many of the next I/Os fail: reads, writes, metadata.
    pub eio: [u32; 3],
    /// I/O that begins before this moment ends after it.
    pub stalled_until: Instant,
    /// One I/O in so many takes seconds; 0: none.
    pub slow: u64,
    /// A write that begins at the first place lands at the second one.
    pub misdirected: Option<[Sector; 2]>,
    /// The receiver takes nothing off its sockets before this moment.
    pub deaf_until: Instant,
    /// How helpers behave, see [`crate::jobs::helper`].
    pub helpers: u32,
}

/// A node.
pub struct Node {
    /// The machine; `None` while the node is down.
    pub res: Option<Machine>,
    /// Its backing device.
    pub disk: Disk,
    /// Its clock.
    pub clock: Clock,
    /// Counts boots.
    pub life: u64,
    /// Randomness of its machine.
    pub rng: Rng,
    /// Buffers that travel between disk and peer.
    pub bufs: Table<Vec<u64>>,
    /// The next buffer's number.
    pub next_buf: u32,
    /// Applications' I/O under way.
    pub apps: Table<App>,
    /// Writes on their way to the disk.
    pub writes: Table<InFlight>,
    /// The receiver thread runs.
    pub receiver: bool,
    /// It is at work; what it leads to waits for it.
    pub(crate) receiving: bool,
    /// Established sockets.
    pub sockets: Option<Sockets>,
    /// The sockets are being closed.
    pub closing: bool,
    /// It will look for its peer.
    pub dancing: bool,
    /// When the next tick is scheduled, and its number.
    pub tick_at: Option<Instant>,
    /// The number of the tick that counts.
    pub tick_nr: u64,
    /// Answers to administrators: request, code.
    pub answers: Table<i32>,
    /// Data are sent with digests.
    pub digests: bool,
    /// What administrators want one after the other.
    pub jobs: VecDeque<Job>,
    /// The request that is being worked on.
    pub job: Option<u32>,
    /// The machine has its disk.
    pub attached: bool,
    /// The last attach was refused, as applications have seen other data than those on the disk.
    pub refused: bool,
    /// A write has failed on the disk since both agreed.
    pub write_failed: bool,
    /// Reads that the disk has failed, and times that it ceased to be good: what it is asked for
    /// before another one is here may arrive as that is not good yet.
    pub reads_failed: u64,
    /// Applications have to wait while no data can be reached.
    pub freezes: bool,
    /// Until `resume-io` says otherwise, as it has.
    pub resumed: bool,
    /// A write that it has called done in this step, and the peer has not said so.
    pub done: Option<SectorRange>,
    /// Its metadata are to be made anew once it is down.
    pub anew: bool,
    /// Applications have the device open.
    pub opened: bool,
    /// Another resource stands on the device: who demotes the node does not close that.
    pub held: bool,
    /// Its disk is the device of the pair below, see [`crate::below`].
    pub stacked: bool,
    /// The device is writable.
    pub writable: bool,
    /// Bits that the last resync began with.
    pub resynced: u64,
    /// The state of the volume as last reported.
    pub state: State,
    /// Size of the device as last announced; 0: it has none.
    pub size: Sectors,
    /// What the machine told of its volumes, see [`drbd_core::resync_after`].
    pub posted: BTreeMap<Minor, Posted>,
    /// What is wrong with it.
    pub trouble: Trouble,
    /// Spare room for effects.
    pub spare: Vec<Effect>,
}

impl Node {
    /// A node that is switched off.
    pub fn new(disk: Disk, rng: Rng) -> Node {
        Node {
            res: None,
            disk,
            clock: Clock::default(),
            life: 0,
            rng,
            bufs: Table::default(),
            next_buf: 1,
            apps: Table::default(),
            writes: Table::default(),
            receiver: false,
            receiving: false,
            sockets: None,
            closing: false,
            dancing: false,
            tick_at: None,
            tick_nr: 0,
            answers: Table::default(),
            digests: false,
            jobs: VecDeque::new(),
            job: None,
            attached: false,
            refused: false,
            write_failed: false,
            reads_failed: 0,
            freezes: false,
            resumed: false,
            done: None,
            anew: false,
            opened: false,
            held: false,
            stacked: false,
            writable: false,
            resynced: 0,
            state: State::INITIAL,
            size: Sectors(0),
            posted: BTreeMap::new(),
            trouble: Trouble::default(),
            spare: Vec::with_capacity(MAX_EFFECTS),
        }
    }

    /// Keeps data in a fresh buffer.
    pub fn buffer(&mut self, data: Vec<u64>) -> BufId {
        let id = self.next_buf;
        self.next_buf = self.next_buf.wrapping_add(1);
        self.bufs.insert(u64::from(id), data);
        BufId(id)
    }

    /// The algorithm that the machine wants digests to be made by.
    pub fn algorithm(&self, which: DigestFor) -> Name64 {
        let name = self.res.as_ref().map(|r| r.algorithm(which));
        name.unwrap_or(Name64::EMPTY)
    }

    /// The power fails: whatever was not on the medium is at risk. Returns the data sectors that
    /// do not say any more what they said.
    pub fn power_fails(&mut self, rng: &mut Rng) -> Vec<u32> {
        let mut writes = self.writes.drain();
        writes.sort_by_key(|(token, _)| *token);
        for (_, w) in writes {
            if rng.percent(50) {
                self.land(w, false);
            }
        }
        let lost = self.disk.power_fails(rng);
        self.switched_off();
        lost
    }

    /// The machine is gone.
    pub fn switched_off(&mut self) {
        self.res = None;
        self.life += 1;
        self.bufs.clear();
        self.apps.clear();
        self.receiver = false;
        self.sockets = None;
        self.closing = false;
        self.dancing = false;
        self.tick_at = None;
        self.attached = false;
        self.refused = false;
        self.done = None;
        self.opened = false;
        self.held = false;
        self.writable = false;
        self.answers.clear();
        self.jobs.clear();
        self.job = None;
        self.state = State::INITIAL;
        self.size = Sectors(0);
        self.posted.clear();
        self.trouble.deaf_until = Instant(0);
    }

    /// A write reaches the disk.
    pub fn land(&mut self, w: InFlight, durable: bool) {
        if self.stacked {
            // The pair below has it, or not.
            return;
        }
        let fua = w.fua && durable;
        if w.bytes.is_empty() {
            let astray = |[meant, _]: &mut [Sector; 2]| *meant == w.start;
            let astray = self.trouble.misdirected.take_if(astray);
            let start = astray.map_or(w.start, |[_, found]| found);
            self.disk.write(start, &w.tags, fua);
        } else {
            self.disk.write_bytes(w.start, &w.bytes, fua);
        }
    }

    /// The connection this node believes in; 0: none.
    pub fn link(&self) -> u64 {
        self.sockets.as_ref().map_or(0, |s| s.link)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_never_asked_too_early() {
        for ppm in [-100_000, -17, 0, 3, 100_000] {
            let clock = Clock {
                offset: 77_000_123,
                ppm,
            };
            for local in [77_000_123, 80_000_000, 5_000_000_001, 900_000_000_777u64] {
                let at = clock.reaches(Instant(local));
                assert!(clock.shows(at) >= Instant(local), "{ppm} {local}");
                let before = Instant(at.0.saturating_sub(2));
                assert!(
                    at.0 < 2 || clock.shows(before) < Instant(local),
                    "{ppm} {local}"
                );
            }
        }
    }
}
