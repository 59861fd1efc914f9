// SPDX-License-Identifier: GPL-2.0

//! What may be done to the world, or happen in it, and a world to do it to.

use crate::drbdmeta;
use crate::ghost::{Ghost, Verdict};
use crate::key::Key;
use crate::world::{Event, World, VOL};
use drbd_core::nl::ErrCode;
use drbd_core::node::admin::Command;
use drbd_core::node::{AppOp, PEER};
use drbd_core::state::{conn, disk, Role, State};
use drbd_core::time::Duration;
use std::hash::{Hash, Hasher};

/// What survives a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// What was flushed.
    Flushed,
    /// All, and what the disk was working on.
    All,
    /// The newest metadata, and of the data what was flushed.
    Metadata,
    /// The newest data, and of the metadata what was flushed.
    Data,
}

impl Power {
    const ALL: [Power; 4] = [Power::Flushed, Power::All, Power::Metadata, Power::Data];
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Something happens by itself.
    Inner(Event),
    /// Time passes, and this node has something to do.
    Wait(u8),
    /// An application writes a block.
    Write(u8, u8),
    /// `drbdsetup primary`.
    Primary(u8),
    /// `drbdsetup secondary`.
    Secondary(u8),
    /// `drbdsetup connect`.
    Join(u8),
    /// `drbdsetup disconnect`.
    Leave(u8),
    /// `drbdadm attach`.
    Attach(u8),
    /// `drbdsetup detach`.
    Detach(u8),
    /// The network fails.
    Cut,
    /// It works again.
    Heal,
    /// The power of a node fails.
    Crash(u8, Power),
    /// It comes back: apply-al, attach, connect.
    Boot(u8),
}

/// The largest number of blocks.
pub const BLOCKS: u8 = 3;

/// All steps, in the order of their numbers.
fn catalogue() -> Vec<Act> {
    use Act::*;
    let mut all = vec![Inner(Event::Connect), Cut, Heal];
    for n in 0..2 {
        all.extend([0, 1].map(|sock| Inner(Event::Packet(n, sock))));
        all.extend([Inner(Event::Disk(n)), Inner(Event::Notice(n)), Wait(n)]);
        all.extend((0..BLOCKS).map(|b| Write(n, b)));
        all.extend([
            Primary(n),
            Secondary(n),
            Join(n),
            Leave(n),
            Attach(n),
            Detach(n),
        ]);
        all.extend(Power::ALL.map(|p| Crash(n, p)));
        all.push(Boot(n));
    }
    all
}

impl Act {
    /// Its number in a path.
    pub fn number(self) -> u8 {
        let at = catalogue().iter().position(|a| *a == self);
        at.expect("in the catalogue") as u8
    }

    /// The step with this number.
    pub fn from_number(number: u8) -> Option<Act> {
        catalogue().get(usize::from(number)).copied()
    }

    /// Whether it happens by itself.
    pub fn is_inner(self) -> bool {
        matches!(self, Act::Inner(_) | Act::Wait(_))
    }
}

/// What the world is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Blocks that are written to.
    pub blocks: u8,
    /// Writes under way at once on a node.
    pub writes: usize,
    /// Administrators attach and detach, connect and disconnect, too.
    pub admin: bool,
    /// They detach even while a resync begins, runs or ends.
    pub rash: bool,
    /// What survives a power failure.
    pub powers: usize,
}

/// A world with its observer, and administrators who wait for answers.
#[derive(Clone)]
pub struct Run {
    /// The world.
    pub world: World,
    /// Who knows it all.
    pub ghost: Ghost,
    asked: [Option<u32>; 2],
    booting: [bool; 2],
    /// Applications have closed the device, for the node to become Secondary.
    closed: [bool; 2],
    next_tag: u64,
    shape: Shape,
}

/// Timers that are further away are not waited for: those are pings on an idle connection.
const PATIENCE: Duration = Duration::secs(9);
/// Events that may follow one step.
const MOST: u32 = 5_000;

impl Run {
    /// Two nodes in sync, the first one Primary, nothing written.
    pub fn new(shape: Shape) -> Run {
        // The smallest disk that has room for metadata; the device is smaller still.
        let mut w = World::new(256);
        w.disk_conf.disk_size = u64::from(shape.blocks.max(2)) * crate::disk::SECTORS;
        w.disk_conf.resync_rate = 1 << 20;
        w.disk_conf.al_extents = 7;
        w.disk_conf.c_plan_ahead = 0;
        w.disk_conf.c_min_rate = 0;
        w.talks = false;
        for n in 0..2 {
            w.boot(n).expect("metadata");
        }
        w.until("connection", |w| w.state(0).conn == conn::State::Connected);
        let (vol, force) = (VOL, true);
        w.must(0, Command::Primary { vol, force });
        w.until("in sync", World::in_sync);
        w.settle();
        for n in 0..2 {
            w.nodes[n].answers.clear();
            w.nodes[n].disk.flush();
        }
        w.verdicts.clear();
        let mut run = Run {
            ghost: Ghost::new(&w, u64::from(shape.blocks)),
            world: w,
            asked: [None; 2],
            booting: [false; 2],
            closed: [false; 2],
            next_tag: 1 << 40,
            shape,
        };
        run.settle().expect("a good beginning");
        run.world.late_news = true;
        run
    }

    /// What makes two runs the same.
    pub fn key(&self) -> u64 {
        let mut key = Key::of_world(&self.world);
        self.ghost.add_to(&mut key);
        for n in 0..2 {
            (self.asked[n].is_some(), self.booting[n], self.closed[n]).hash(&mut key);
        }
        key.finish()
    }

    /// What can happen by itself. Time passes only when nothing else can happen.
    pub fn inner(&self) -> Vec<Act> {
        let mut all: Vec<Act> = self.world.events().into_iter().map(Act::Inner).collect();
        if all.is_empty() {
            let due = |n: &u8| self.world.due(usize::from(*n), PATIENCE).is_some();
            all.extend((0..2).filter(due).map(Act::Wait));
        }
        all
    }

    /// What may be done to it.
    pub fn outer(&self) -> Vec<Act> {
        let w = &self.world;
        let mut all = vec![if w.network { Act::Cut } else { Act::Heal }];
        for n in 0..2_u8 {
            self.outer_of(n, &mut all);
        }
        all
    }

    fn outer_of(&self, n: u8, all: &mut Vec<Act>) {
        let node = &self.world.nodes[usize::from(n)];
        let Some(machine) = &node.machine else {
            all.push(Act::Boot(n));
            return;
        };
        let s = self.world.state(usize::from(n));
        let powers = &Power::ALL[..self.shape.powers];
        all.extend(powers.iter().map(|p| Act::Crash(n, *p)));
        let primary = s.role == Role::Primary;
        let open = primary && !self.closed[usize::from(n)];
        if open && node.apps.len() < self.shape.writes && machine.can_submit() && node.size != 0 {
            all.extend((0..self.shape.blocks).map(|b| Act::Write(n, b)));
        }
        if self.asked[usize::from(n)].is_some() || self.booting[usize::from(n)] {
            return;
        }
        match primary {
            false => all.push(Act::Primary(n)),
            true if node.apps.is_empty() => all.push(Act::Secondary(n)),
            true => {}
        }
        if !self.shape.admin {
            return;
        }
        // Not while something else goes on: docs/search.md lists what comes of that.
        let calm = |n: usize| {
            let s = self.world.state(n);
            let good = [s.disk, s.pdsk] == [disk::State::UpToDate; 2];
            good && s.conn == conn::State::Connected
        };
        match s.disk {
            disk::State::Diskless => all.push(Act::Attach(n)),
            _ if self.shape.rash || calm(0) && calm(1) => all.push(Act::Detach(n)),
            _ => {}
        }
        all.push(match s.conn {
            conn::State::StandAlone => Act::Join(n),
            _ => Act::Leave(n),
        });
    }

    /// Whether it can be done now.
    pub fn allows(&self, act: Act) -> bool {
        let all = if act.is_inner() {
            self.inner()
        } else {
            self.outer()
        };
        all.contains(&act)
    }

    /// Does it.
    ///
    /// # Errors
    /// The promise that is broken now.
    pub fn act(&mut self, act: Act) -> Verdict {
        match act {
            Act::Inner(event) => self.world.happen(event),
            Act::Wait(n) => self.world.wait_for(usize::from(n)),
            Act::Write(n, b) => self.write(usize::from(n), u64::from(b)),
            Act::Primary(n) => self.ask(
                n,
                Command::Primary {
                    vol: VOL,
                    force: false,
                },
            ),
            Act::Secondary(n) => {
                self.closed[usize::from(n)] = true;
                self.ask(n, Command::Secondary { vol: VOL });
            }
            Act::Detach(n) => self.ask(
                n,
                Command::Detach {
                    vol: VOL,
                    force: false,
                },
            ),
            Act::Leave(n) => self.ask(
                n,
                Command::Disconnect {
                    peer: PEER,
                    force: false,
                },
            ),
            Act::Join(n) => self.join(n),
            Act::Attach(n) => self.attach(usize::from(n))?,
            Act::Cut => self.world.cut(),
            Act::Heal => self.world.network = true,
            Act::Crash(n, power) => self.crash(usize::from(n), power),
            Act::Boot(n) => {
                let n = usize::from(n);
                if self.world.load(n).is_none() {
                    return Err(format!("n{n} has no usable metadata"));
                }
                self.booting[n] = true;
                self.attach(n)?;
            }
        }
        self.answers()?;
        self.world.oracle = Default::default();
        self.ghost.look(&mut self.world)?;
        if self.is_stable() {
            self.ghost.at_rest(&self.world)?;
        }
        Ok(())
    }

    fn write(&mut self, n: usize, block: u64) {
        self.next_tag += 1;
        self.ghost.submitted(&self.world, n, block, self.next_tag);
        self.world.submit(n, AppOp::Write, block, self.next_tag);
    }

    fn ask(&mut self, n: u8, command: Command) {
        let op = self.world.order(usize::from(n), command);
        self.asked[usize::from(n)] = Some(op);
    }

    fn join(&mut self, n: u8) {
        let (peer, conf) = (PEER, self.world.net_conf);
        self.ask(n, Command::Connect { peer, conf });
    }

    fn attach(&mut self, n: usize) -> Verdict {
        let node = &mut self.world.nodes[n];
        drbdmeta::apply_al(&mut node.disk, node.last_size).ok_or("no usable metadata")?;
        match self.world.order_attach(n) {
            Ok(op) => self.asked[n] = Some(op),
            // The one before is still on its way out; it is tried again.
            Err(code) if code == ErrCode::DiskConfigured.number() => {}
            Err(code) => return Err(format!("n{n}: attach is refused: {code}")),
        }
        Ok(())
    }

    fn crash(&mut self, n: usize, power: Power) {
        self.asked[n] = None;
        self.booting[n] = false;
        self.closed[n] = false;
        let data = u64::from(self.shape.blocks);
        self.world
            .crash_at(n, power != Power::Flushed, |block, versions| {
                let kept = match power {
                    Power::Flushed => false,
                    Power::All => true,
                    Power::Metadata => block >= data,
                    Power::Data => block < data,
                };
                if kept {
                    versions - 1
                } else {
                    0
                }
            });
        self.ghost.crashed(&self.world, n);
    }

    fn answers(&mut self) -> Verdict {
        for n in 0..2_u8 {
            let i = usize::from(n);
            let Some(op) = self.asked[i] else { continue };
            let Some(code) = self.world.nodes[i].answers.remove(&op) else {
                continue;
            };
            self.asked[i] = None;
            self.closed[i] = false;
            if std::mem::take(&mut self.booting[i]) {
                if code != 101 {
                    return Err(format!("n{n}: attach fails: {code}"));
                }
                self.join(n);
                return self.answers();
            }
        }
        Ok(())
    }

    /// Whether nothing happens by itself.
    pub fn is_stable(&self) -> bool {
        self.inner().is_empty()
    }

    /// Lets things happen by themselves, always the first of those that can.
    ///
    /// # Errors
    /// The promise that is broken, or it does not end.
    pub fn settle(&mut self) -> Verdict {
        for _ in 0..MOST {
            match self.inner().first() {
                Some(act) => self.act(*act)?,
                None => return Ok(()),
            }
        }
        Err("it never comes to rest".into())
    }

    /// Faults end, administrators do what they would: both have to be in sync in the end, or to
    /// have found a split brain that is one.
    ///
    /// # Errors
    /// The promise that is broken, or where it is stuck.
    pub fn recovers(&mut self) -> Verdict {
        self.ghost.split_told = false;
        for _ in 0..8 {
            self.settle()?;
            if self.world.in_sync() {
                return Ok(());
            }
            if self.ghost.split() && self.parted() {
                return Ok(());
            }
            let mut todo = vec![Act::Heal, Act::Boot(0), Act::Boot(1), Act::Attach(0)];
            todo.extend([Act::Attach(1), Act::Join(0), Act::Join(1)]);
            // Of two Primaries one steps back; if one has no disk it is that one.
            let primary = |n: usize| self.world.state(n).role == Role::Primary;
            if primary(0) && primary(1) {
                let diskless = self.world.state(0).disk < disk::State::Inconsistent;
                todo.insert(0, Act::Secondary(u8::from(!diskless)));
            }
            let mut any = false;
            for act in todo {
                if self.outer_full().contains(&act) {
                    self.act(act)?;
                    self.settle()?;
                    any = true;
                }
            }
            if !any {
                break;
            }
        }
        self.settle()?;
        if self.world.in_sync() || self.ghost.split() && self.parted() {
            return Ok(());
        }
        Err("it does not recover".into())
    }

    fn outer_full(&self) -> Vec<Act> {
        let mut full = self.clone();
        full.shape.admin = true;
        full.outer()
    }

    fn parted(&self) -> bool {
        // An attach that meets a split brain ends without a disk, and connected.
        let refused = |s: State| self.ghost.split_told && s.disk == disk::State::Diskless;
        (0..2)
            .map(|n| self.world.state(n))
            .any(|s| s.conn == conn::State::StandAlone || refused(s))
    }

    /// The state of both nodes in a line, and what each of them may have.
    pub fn describe(&self) -> String {
        format!("{}; {}", self.world.describe(), self.ghost)
    }
}
