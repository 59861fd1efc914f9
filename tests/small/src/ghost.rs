// SPDX-License-Identifier: GPL-2.0

//! What only an observer outside of both nodes knows: whose data are which, and what was promised.
//!
//! Each node has a history of its own: which values each block of its disk may have. They part
//! when one node is Primary without the other, and become one again when a resync ends. Everything
//! that is checked follows from DRBD's promises:
//!
//! - A disk that says UpToDate has, in every block, a value that its history permits: what was
//!   acknowledged while both were UpToDate and connected (protocol C) is on both.
//! - A node with acknowledged writes that the other one does not have never becomes its target.
//! - Nobody speaks of split brain unless both have moved on, and never of unrelated data.
//! - Two disks that are connected, UpToDate and at rest are equal.
//! - With both nodes down, bitmaps and activity logs cover every block that differs.

use crate::disk::{Disk, SECTORS};
use crate::drbdmeta;
use crate::key::Key;
use crate::world::World;
use drbd_core::node::{AppOp, Note};
use drbd_core::state::{conn, disk, Role, State};
use std::hash::Hash;

/// What is known of a node.
#[derive(Clone, Debug, Default, Hash)]
struct History {
    /// What each block may be.
    may: Vec<Vec<u64>>,
    /// Applications may have used these data while the other disk did not follow.
    moved_on: bool,
    /// A write was acknowledged meanwhile.
    wrote: bool,
    /// Being overwritten by the peer's.
    target: bool,
    /// What the peer's blocks might be when the peer was last connected.
    offered: Vec<Vec<u64>>,
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Ghost {
    of: [History; 2],
    before: [State; 2],
    /// Somebody spoke of a split brain that is one, since this was last reset.
    pub split_told: bool,
}

/// What went wrong.
pub type Verdict = Result<(), String>;

fn primary(s: State) -> bool {
    s.role == Role::Primary
}

fn up_to_date(s: State) -> bool {
    s.disk == disk::State::UpToDate
}

fn linked(s: State) -> bool {
    s.conn >= conn::State::Connected
}

fn in_sync(s: State) -> bool {
    s.conn == conn::State::Connected && up_to_date(s) && s.pdsk == disk::State::UpToDate
}

impl std::fmt::Display for Ghost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |name, set| if set { name } else { "" };
        for (n, h) in self.of.iter().enumerate() {
            let flags = [
                names(" moved on", h.moved_on),
                names(" wrote", h.wrote),
                names(" target", h.target),
            ];
            write!(f, "n{n} may be {:x?}{} ", h.may, flags.concat())?;
        }
        Ok(())
    }
}

impl Ghost {
    /// Of two nodes in sync.
    pub fn new(w: &World, blocks: u64) -> Ghost {
        let now = |n: usize| (0..blocks).map(move |b| vec![w.nodes[n].disk.read(b).tag()]);
        let of = |n: usize| History {
            may: now(n).collect(),
            offered: now(1 - n).collect(),
            ..History::default()
        };
        Ghost {
            of: [of(0), of(1)],
            before: [w.state(0), w.state(1)],
            split_told: false,
        }
    }

    /// Whether both went their own way.
    pub fn split(&self) -> bool {
        self.of.iter().all(|h| h.moved_on)
    }

    /// Adds itself to the key of the world.
    pub fn add_to(&self, key: &mut Key) {
        self.of.hash(key);
    }

    /// A write is under way: it may reach the peer, too, if that is connected.
    pub fn submitted(&mut self, w: &World, node: usize, block: u64, tag: u64) {
        for n in 0..2 {
            let reaches = n == node || linked(w.state(node)) && !w.nodes[node].dead;
            if let Some(values) = self.of[n].may.get_mut(block as usize).filter(|_| reaches) {
                values.push(tag);
            }
        }
        if let Some(values) = self.of[node].offered.get_mut(block as usize) {
            values.push(tag);
        }
    }

    fn acknowledged(&mut self, w: &World, node: usize, block: u64, tag: u64) {
        let peer = 1 - node;
        let s = w.state(node);
        let promised = |h: &mut History| {
            if let Some(values) = h.may.get_mut(block as usize) {
                if let Some(at) = values.iter().position(|v| *v == tag) {
                    values.drain(..at);
                }
            }
        };
        let alive = linked(s) && !w.nodes[node].dead && w.nodes[peer].machine.is_some();
        if up_to_date(s) {
            promised(&mut self.of[node]);
        }
        if alive && s.pdsk == disk::State::UpToDate {
            promised(&mut self.of[peer]);
        }
        let holder = if up_to_date(s) { node } else { peer };
        // The target of a resync that is done has it as well, whether or not the source has heard
        // of that.
        let theirs = w.state(peer);
        let both = alive && up_to_date(s) && up_to_date(theirs) && linked(theirs);
        self.of[holder].wrote |= self.of[holder].moved_on && !both;
    }

    /// A node lost its power, and its cache with it.
    pub fn crashed(&mut self, w: &World, node: usize) {
        for (b, values) in (0..).zip(&mut self.of[node].may) {
            let found = w.nodes[node].disk.read(b).tag();
            if !values.contains(&found) {
                values.insert(0, found);
            }
        }
    }

    fn settle(&mut self, w: &World, node: usize) {
        for (b, values) in (0..).zip(&mut self.of[node].may) {
            *values = vec![w.nodes[node].disk.read(b).tag()];
        }
    }

    /// After each step: takes over what happened, and judges it.
    ///
    /// # Errors
    /// Says which promise was broken.
    pub fn look(&mut self, w: &mut World) -> Verdict {
        let now = [w.state(0), w.state(1)];
        self.still_to_come(w, now);
        self.offer(w, now);
        for (node, block, tag) in std::mem::take(&mut w.acks) {
            self.acknowledged(w, node, block, tag);
        }
        self.offer(w, now);
        for n in 0..2 {
            self.step(w, n, now)?;
        }
        for note in std::mem::take(&mut w.verdicts) {
            let both = self.of[0].moved_on && self.of[1].moved_on;
            if note != Note::SplitBrain || !both {
                return Err(format!("a false verdict: {note}"));
            }
            self.split_told = true;
        }
        self.before = now;
        for (n, state) in now.into_iter().enumerate() {
            if up_to_date(state) {
                self.readable(w, n)?;
            }
        }
        if in_sync(now[0]) && in_sync(now[1]) {
            self.joined()?;
        }
        if w.nodes.iter().all(|n| n.machine.is_none()) {
            covered(w, self.of[0].may.len() as u64)?;
        }
        Ok(())
    }

    /// A write that waited while the peer was lost may reach it when it is back.
    fn still_to_come(&mut self, w: &World, now: [State; 2]) {
        for n in (0..2).filter(|n| linked(now[*n]) && !w.nodes[*n].dead) {
            let writes = w.nodes[n].apps.values();
            for app in writes.filter(|a| a.io.op == AppOp::Write) {
                let block = app.io.range.start.0 / SECTORS;
                let Some(values) = self.of[1 - n].may.get_mut(block as usize) else {
                    continue;
                };
                let new = app.pages.iter().filter(|tag| !values.contains(*tag));
                let new: Vec<u64> = new.copied().collect();
                values.extend(new);
            }
        }
    }

    fn offer(&mut self, w: &World, now: [State; 2]) {
        for n in 0..2 {
            let peer = 1 - n;
            let reaches = linked(now[peer]) && !w.nodes[peer].dead;
            if reaches && self.of[n].offered != self.of[peer].may {
                self.of[n].offered = self.of[peer].may.clone();
            }
        }
    }

    fn step(&mut self, w: &World, n: usize, now: [State; 2]) -> Verdict {
        let (was, is) = (self.before[n], now[n]);
        // Who is at work on these data, and is the other disk following?
        // It also is when the peer is lost, though the node be Secondary within the same step.
        let lost = primary(was) && linked(was) && !linked(is);
        let alone = primary(is) && !(linked(is) && is.pdsk == disk::State::UpToDate);
        if up_to_date(is) && (alone || lost) {
            self.of[n].moved_on = true;
        }
        // A Primary without a disk uses these. It may have asked whether it may detach, and keep
        // its disk: then nobody has moved on.
        let peer = now[1 - n];
        let serves = is.peer == Role::Primary && is.pdsk < disk::State::Inconsistent;
        let gone = w.nodes[1 - n].machine.is_none() || peer.disk < disk::State::Inconsistent;
        if serves && gone && up_to_date(is) && linked(is) {
            self.of[n].moved_on = true;
        }
        // What applications read from now on stays, unless the peer's last write is still at work.
        let idle = w.nodes[n].apps.is_empty() && w.nodes[n].disk_ios.is_empty();
        if primary(is) && !primary(was) && up_to_date(is) && idle {
            self.settle(w, n);
        }
        let targets = |s: State| {
            matches!(
                s.conn,
                conn::State::WFBitMapT | conn::State::SyncTarget | conn::State::PausedSyncT
            )
        };
        if targets(is) && !targets(was) && self.of[n].wrote {
            return Err(format!("n{n} has writes of its own and becomes target"));
        }
        if is.conn == conn::State::SyncTarget {
            self.of[n].target = true;
        }
        if up_to_date(is) && !up_to_date(was) && w.nodes[n].machine.is_some() {
            self.becomes_good(n, is);
        }
        Ok(())
    }

    fn becomes_good(&mut self, n: usize, is: State) {
        let peer = 1 - n;
        if linked(is) && is.pdsk == disk::State::UpToDate {
            let [me, other] = [n, peer].map(|i| self.of[i].moved_on);
            // A write of the peer's that came after the end of the connection is not here.
            if std::mem::take(&mut self.of[n].target) || other && !me {
                self.of[n] = History {
                    may: self.of[n].offered.clone(),
                    offered: self.of[n].offered.clone(),
                    ..History::default()
                };
                // The peer may never hear of the end, but has nothing to itself.
                self.of[peer].wrote = false;
            } else if other || !me {
                let theirs = self.of[peer].may.clone();
                for (mine, theirs) in self.of[n].may.iter_mut().zip(theirs) {
                    let new: Vec<u64> = theirs.into_iter().filter(|t| !mine.contains(t)).collect();
                    mine.splice(0..0, new);
                }
            }
        }
    }

    fn readable(&self, w: &World, n: usize) -> Verdict {
        for (b, values) in (0..).zip(&self.of[n].may) {
            let found = w.nodes[n].disk.read(b).tag();
            if !values.contains(&found) {
                return Err(format!(
                    "n{n} is UpToDate with {found:x} in block {b}, not one of {values:x?}"
                ));
            }
        }
        Ok(())
    }

    /// Both say that they have the same data.
    fn joined(&mut self) -> Verdict {
        if self.of.iter().all(|h| h.wrote) {
            return Err("both have writes of their own and call themselves in sync".into());
        }
        for h in &mut self.of {
            (h.moved_on, h.wrote, h.target) = (false, false, false);
        }
        Ok(())
    }

    /// Both are connected, UpToDate and at rest.
    ///
    /// # Errors
    /// They differ, or have what must not be.
    pub fn at_rest(&mut self, w: &World) -> Verdict {
        if !w.in_sync() {
            return Ok(());
        }
        for b in 0..self.of[0].may.len() {
            let found = [0, 1].map(|n: usize| w.nodes[n].disk.read(b as u64).tag());
            if found[0] != found[1] {
                return Err(format!("in sync, but block {b} is {found:x?}"));
            }
            for h in &mut self.of {
                if !h.may[b].contains(&found[0]) {
                    let may = &h.may[b];
                    return Err(format!(
                        "in sync with {found:x?} in {b}, not one of {may:x?}"
                    ));
                }
            }
        }
        for n in 0..2 {
            self.settle(w, n);
        }
        Ok(())
    }
}

/// Bits that a node knows after a power failure; `None`: all.
fn known(disk: &Disk) -> Option<Vec<u8>> {
    let mut disk = disk.clone();
    let last = disk.sectors();
    drbdmeta::apply_al(&mut disk, last)?;
    let (sb, layout) = drbdmeta::superblock(&disk)?;
    if sb
        .flags
        .contains(drbd_core::meta::superblock::Flags::FULL_SYNC)
    {
        return None;
    }
    let page = layout.bitmap_page(0).0 / crate::disk::SECTORS;
    Some(disk.bytes(page).to_vec())
}

/// Both are down: what differs is marked.
fn covered(w: &World, blocks: u64) -> Verdict {
    let bits = [0, 1].map(|n: usize| known(&w.nodes[n].disk));
    let has = |bits: &Option<Vec<u8>>, b: u64| match bits {
        Some(bytes) => bytes[(b / 8) as usize] >> (b % 8) & 1 == 1,
        None => true,
    };
    for b in 0..blocks {
        let found = [0, 1].map(|n: usize| w.nodes[n].disk.read(b).tag());
        if found[0] != found[1] && !bits.iter().any(|bits| has(bits, b)) {
            return Err(format!("block {b} is {found:x?} and marked nowhere"));
        }
    }
    Ok(())
}
