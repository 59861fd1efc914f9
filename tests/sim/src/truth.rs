// SPDX-License-Identifier: GPL-2.0

//! What applications were told, and so what each disk owes.
//!
//! For each disk and sector it keeps the values that a read from this disk may return: the one
//! whose write was acknowledged last, and those of writes that are under way, failed, or died with
//! their node. Disks have owed-lists of their own, so that the two sides of a split brain can be
//! told apart; a resync hands over the list of its source. Anything else that is read has been
//! lost or came back from the dead.

use crate::net::FLIP;
use crate::node::App;
use crate::world::{say, World, VOL};
use drbd_core::node::{AppId, AppOp, AppResult, Note};
use drbd_core::state::disk::State as Disk;
use drbd_core::state::{conn::State as Conn, State};
use drbd_core::units::{BmBit, Sector, SectorRange, Sectors};
use drbd_core::wire::{OvResult, OvVerdict};
use std::collections::{BTreeMap, BTreeSet};

mod equal;
mod received;

/// What a device that grew has in its new part, with the number of the node and the place.
const RUBBISH: u64 = 1 << 62;

/// Whether nobody has written this.
fn is_rubbish(value: u64) -> bool {
    value & RUBBISH != 0 && value != u64::MAX
}

/// What one disk owes.
#[derive(Clone, Default)]
struct Debt {
    /// By sector, unless it stands in `more`.
    one: Vec<u64>,
    /// Where several values are possible, in the order of their writing.
    more: BTreeMap<u32, Vec<u64>>,
    /// Sectors written by applications of this node since their last flush, in order.
    unflushed: Vec<u32>,
    /// How many were taken off the front of it so far.
    flushed: u64,
}

impl Debt {
    fn may(&self, sector: u32, value: u64) -> bool {
        match self.more.get(&sector) {
            Some(values) => values.contains(&value),
            None => self.one[sector as usize] == value,
        }
    }

    fn oldest(&self, sector: u32) -> u64 {
        let more = self.more.get(&sector).and_then(|v| v.first());
        *more.unwrap_or(&self.one[sector as usize])
    }

    fn add(&mut self, sector: u32, value: u64) {
        let one = self.one[sector as usize];
        if let Some(values) = self.more.get_mut(&sector) {
            if !values.contains(&value) {
                values.push(value);
            }
        } else if one != value {
            self.more.insert(sector, vec![one, value]);
        }
    }

    /// Only those that `keep` says, if it leaves any.
    fn retain(&mut self, sector: u32, mut keep: impl FnMut(usize, u64) -> bool) {
        let Some(values) = self.more.get_mut(&sector) else {
            return;
        };
        let mut ix = 0;
        let before = values.clone();
        values.retain(|v| {
            ix += 1;
            keep(ix - 1, *v)
        });
        match values.len() {
            0 => *values = before,
            1 => {
                self.one[sector as usize] = values[0];
                self.more.remove(&sector);
            }
            _ => {}
        }
    }
}

/// A write that waits for its acknowledgement.
#[derive(Clone)]
struct Open {
    node: usize,
    /// Of its first sector.
    tag: u64,
    range: SectorRange,
    /// What other nodes wrote there at the same time: either may win.
    rivals: Vec<(u64, SectorRange)>,
}

impl Open {
    fn holds((tag, range): (u64, SectorRange), value: u64) -> bool {
        value >= tag && value < tag + range.len.0
    }

    fn is_rival(&self, value: u64) -> bool {
        self.rivals.iter().any(|r| Open::holds(*r, value))
    }
}

/// A read that is under way, and what was overwritten since it began: it may return that.
struct OpenRead {
    app: AppId,
    range: SectorRange,
    old: BTreeSet<(u32, u64)>,
}

/// The books.
pub struct Truth {
    /// The rule by which two nodes were compared last.
    pub(crate) rule: u32,
    debts: Vec<Debt>,
    /// Reads under way.
    reads: Vec<OpenRead>,
    /// Writes that wait for their acknowledgement.
    open: Vec<Open>,
    /// Writes whose node died or gave the connection up, as long as its peer may still get them:
    /// they were made at the same time as any that the peer submits before it has noticed.
    dead: Vec<Open>,
    /// Places that were zeroed lately: what they hold cannot be told apart.
    zeroed: BTreeSet<u32>,
    /// Who was Primary, or changed data, without its peer since they last agreed.
    pub alone: Vec<bool>,
    /// An administrator did something after which all may differ.
    pub forced: bool,
    /// An I/O of some disk has failed.
    pub failed: bool,
    /// Sectors that somebody changed behind the back of DRBD.
    rotten: BTreeSet<u32>,
    /// Where each write begins, by its tag.
    starts: BTreeMap<u64, u64>,
    /// UUIDs that any node ever had, without bit 0.
    uuids: BTreeSet<u64>,
    last: Vec<[u64; 4]>,
}

impl Truth {
    /// Empty disks.
    pub fn new(nodes: usize, sectors: usize) -> Truth {
        let debt = Debt {
            one: vec![0; sectors],
            ..Debt::default()
        };
        Truth {
            rule: 0,
            debts: vec![debt; nodes],
            reads: Vec::new(),
            open: Vec::new(),
            dead: Vec::new(),
            zeroed: BTreeSet::new(),
            alone: vec![false; nodes],
            forced: false,
            failed: false,
            rotten: BTreeSet::new(),
            starts: BTreeMap::new(),
            uuids: BTreeSet::new(),
            last: vec![[0; 4]; nodes],
        }
    }

    /// A write was submitted; sector `n` of it carries `tag + n`.
    pub fn submitted(&mut self, node: usize, range: SectorRange, tag: u64) {
        self.opened(node, range, tag);
        self.starts.insert(tag, range.start.0);
        for debt in &mut self.debts {
            for n in 0..range.len.0 {
                debt.add((range.start.0 + n) as u32, tag + n);
            }
        }
    }

    /// A read was submitted.
    pub fn reading(&mut self, app: AppId, range: SectorRange) {
        let old = BTreeSet::new();
        self.reads.push(OpenRead { app, range, old });
    }

    /// It is over: what it may return although it was overwritten.
    fn read_over(&mut self, app: AppId) -> BTreeSet<(u32, u64)> {
        match self.reads.iter().position(|r| r.app == app) {
            Some(at) => self.reads.swap_remove(at).old,
            None => BTreeSet::new(),
        }
    }

    /// Whether a sector was zeroed lately.
    pub(crate) fn is_zeroed(&self, sector: u32) -> bool {
        self.zeroed.contains(&sector)
    }

    /// A node died: so did its I/O.
    pub fn died(&mut self, apps: &[AppId]) {
        self.reads.retain(|r| !apps.contains(&r.app));
    }

    /// A range is going to be zeroed.
    pub fn zeroing(&mut self, node: usize, range: SectorRange, tag: u64) {
        self.opened(node, range, tag);
        for n in 0..range.len.0 {
            let sector = (range.start.0 + n) as u32;
            self.zeroed.insert(sector);
            self.debts.iter_mut().for_each(|d| d.add(sector, 0));
        }
    }

    fn opened(&mut self, node: usize, range: SectorRange, tag: u64) {
        let all = self.open.iter().chain(&self.dead);
        let others = all.filter(|o| o.node != node);
        let rivals = others
            .filter(|o| o.range.overlaps(range))
            .map(|o| (o.tag, o.range))
            .collect();
        let later = self.open.iter_mut().filter(|o| o.node != node);
        for write in later.filter(|o| o.range.overlaps(range)) {
            write.rivals.push((tag, range));
        }
        self.open.push(Open {
            node,
            tag,
            range,
            rivals,
        });
    }

    /// Another node is writing this sector: it may have taken its write for the later one, and so
    /// have dropped `write` while its own has not reached the disk.
    fn contested(open: &[Open], write: &Open, sector: u32) -> bool {
        let at = u64::from(sector);
        open.iter()
            .filter(|o| o.node != write.node)
            .any(|o| o.range.start.0 <= at && at < o.range.end().0)
    }

    fn close(&mut self, tag: u64) -> Option<Open> {
        let at = self.open.iter().position(|o| o.tag == tag)?;
        Some(self.open.swap_remove(at))
    }

    fn is_open(open: &[Open], value: u64) -> bool {
        open.iter().any(|o| Open::holds((o.tag, o.range), value))
    }

    /// A write was acknowledged: on disk `node`, which holds `found`, what was there before its
    /// submission is gone. Only where the other node took an own write for the later one, and that
    /// is still on its way, the disk may say for so long what it says now.
    fn acknowledged(&mut self, node: usize, write: &Open, found: &[u64]) {
        let (open, range, tag) = (&self.open, write.range, write.tag);
        let there = node != write.node;
        let debt = &mut self.debts[node];
        for read in self.reads.iter_mut().filter(|r| r.range.overlaps(range)) {
            for sector in range.start.0 as u32..range.end().0 as u32 {
                let one = [debt.one[sector as usize]];
                let may = debt.more.get(&sector).map_or(&one[..], |v| &v[..]);
                read.old.extend(may.iter().map(|v| (sector, *v)));
            }
        }
        for (n, found) in (0..range.len.0).zip(found) {
            let sector = (range.start.0 + n) as u32;
            if self.zeroed.contains(&sector) {
                continue;
            }
            let late = there && Truth::contested(open, write, sector);
            let at = debt
                .more
                .get(&sector)
                .and_then(|v| v.iter().position(|v| *v == tag + n));
            let Some(at) = at else { continue };
            // Overlapping writes in flight may be ordered either way.
            debt.retain(sector, |ix, v| {
                let rival = write.is_rival(v) || late && v == *found;
                ix >= at || Truth::is_open(open, v) || rival
            });
        }
    }

    /// It failed, or its node died: it may have happened or not.
    pub fn undecided(&mut self, tag: u64) {
        self.close(tag);
    }

    /// Its node died, or told of an error as it had lost the connection: the peer may still get it.
    pub fn orphaned(&mut self, tag: u64) {
        let write = self.close(tag);
        self.dead.extend(write);
    }

    /// How far a flush that begins now will reach.
    pub fn mark(&self, node: usize) -> u64 {
        let d = &self.debts[node];
        d.flushed + d.unflushed.len() as u64
    }

    fn flushed(&mut self, node: usize, mark: u64) {
        let d = &mut self.debts[node];
        let n = mark.saturating_sub(d.flushed).min(d.unflushed.len() as u64);
        d.unflushed.drain(..n as usize);
        d.flushed += n;
    }

    /// The copy of `to`, with this on its disk, became that of `from`, as far as the device
    /// reaches: what a disk has beyond it stays its own. So does what nobody has written since the
    /// device grew, as long as no resync has come by.
    fn hand_over(&mut self, from: usize, to: usize, data: &[u64]) {
        let end = data.len().min(self.debts[from].one.len());
        let mut more = self.debts[from].more.clone();
        more.retain(|at, _| (*at as usize) < end);
        let one = self.debts[from].one[..end].to_vec();
        let d = &mut self.debts[to];
        d.one[..end].copy_from_slice(&one);
        d.more.retain(|at, _| (*at as usize) >= end);
        d.more.append(&mut more);
        for (owed, found) in d.one.iter_mut().zip(data) {
            if is_rubbish(*owed) && is_rubbish(*found) {
                *owed = *found;
            }
        }
    }

    /// What these places hold is not what DRBD has written there.
    pub(crate) fn may_rot<const N: usize>(&mut self, places: [SectorRange; N]) {
        let sectors = |r: SectorRange| r.start.0 as u32..r.end().0 as u32;
        self.rotten.extend(places.into_iter().flat_map(sectors));
    }

    /// Nobody can say what this sector should hold.
    fn is_odd(&self, sector: u32) -> bool {
        self.zeroed.contains(&sector) || self.rotten.contains(&sector)
    }

    /// Whatever is on this disk counts from now on.
    pub fn accept(&mut self, node: usize, data: &[u64]) {
        let d = &mut self.debts[node];
        d.one.clear();
        d.one.extend_from_slice(data);
        d.more.clear();
    }
}

impl World {
    /// Whether nothing from a peer is on its way to this node any more.
    pub(crate) fn is_apart(conn: Conn) -> bool {
        matches!(
            conn,
            Conn::StandAlone | Conn::Unconnected | Conn::WFConnection
        )
    }

    /// Whether a write is over on a node that has given the connection up, of which the peer has
    /// not heard: it may lie in the network, in front of the news.
    fn may_still_come(&self, node: usize, done: &App) -> bool {
        let other = &self.nodes[self.peer_of(node)];
        let left = self.nodes[node].state.conn < Conn::WFReportParams;
        done.sent && left && !World::is_apart(other.state.conn)
    }

    /// What an application learns.
    pub(crate) fn judge(&mut self, node: usize, done: &App, result: AppResult) {
        let peer = self.peer_of(node);
        match (done.io.op, result) {
            (AppOp::Read, Ok(())) => {
                let old = self.truth.read_over(done.io.app);
                self.check_read(node, done, &old);
            }
            (AppOp::Read, Err(_)) => {
                self.truth.read_over(done.io.app);
            }
            (AppOp::Flush, Ok(())) => self.truth.flushed(node, done.tag),
            (AppOp::Flush, Err(_)) => {}
            (_, Err(_)) if self.may_still_come(node, done) => self.truth.orphaned(done.tag),
            (_, Err(_)) => self.truth.undecided(done.tag),
            (_, Ok(())) => {
                let Some(write) = self.truth.close(done.tag) else {
                    return;
                };
                let (own, other) = (&self.nodes[node], &self.nodes[peer]);
                let good = |s: &State| s.disk == Disk::UpToDate;
                if good(&own.state) && done.good {
                    let first = done.io.range.start.0 as u32;
                    let sectors = first..first + done.io.range.len.0 as u32;
                    self.truth.debts[node].unflushed.extend(sectors);
                    let found = own.disk.read(write.range);
                    self.truth.acknowledged(node, &write, &found);
                }
                let linked = done.link != 0 && done.link == own.link() && done.link == other.link();
                let both = own.state.conn >= Conn::Connected && other.state.conn >= Conn::Connected;
                // A disk that fails tells of it a moment after it has refused a write.
                let fails = self.real_state(peer).is_some_and(|s| !good(&s));
                let told = own.state.pdsk == Disk::UpToDate && good(&other.state) && !fails;
                if good(&own.state) && done.good && other.state.disk <= Disk::Failed {
                    // The other disk is gone, even if this node has not heard of that.
                    self.truth.alone[node] = true;
                }
                if linked && both && told && self.knobs.protocol > 1 {
                    if self.knobs.protocol == 3 {
                        self.check_mirrored(node, done, &write);
                    }
                    let found = self.nodes[peer].disk.read(write.range);
                    self.truth.acknowledged(peer, &write, &found);
                    if self.nodes[peer].state.role.is_primary() {
                        // The other Primary has flushed its own writes, not this one.
                        let first = write.range.start.0 as u32;
                        let sectors = first..first + write.range.len.0 as u32;
                        self.truth.debts[peer].unflushed.extend(sectors);
                    }
                }
                if self.may_still_come(node, done) {
                    self.truth.dead.push(write);
                }
            }
        }
    }

    /// Protocol C: the write is on the disk of the peer when the application hears of it, or one
    /// that the peer made at the same time will be. Where nothing is under way any more, both disks
    /// hold the same, whoever has won.
    fn check_mirrored(&mut self, node: usize, done: &App, write: &Open) {
        let peer = self.peer_of(node);
        let both = [node, peer].map(|n| self.nodes[n].disk.read(write.range));
        let settled = |sector: u64| {
            let covers = |o: &Open| o.range.start.0 <= sector && sector < o.range.end().0;
            !self.truth.open.iter().any(covers) && !self.truth.rotten.contains(&(sector as u32))
        };
        let pairs = (write.range.start.0..).zip(both[0].iter().zip(&both[1]));
        // A discard that fails costs no disk: the block is marked, and undefined for applications.
        let failed = [node, peer].iter().any(|n| self.nodes[*n].write_failed);
        let exact = done.io.op != AppOp::Discard || !failed;
        let mut wrong = pairs.filter(|(sector, (a, b))| a != b && exact && settled(*sector));
        // The write may have cost the node its disk just now: of that it tells after the answer.
        let holds = |m: &crate::node::Machine| {
            let disk = m.volume_status(VOL).map(|v| v.state.disk);
            disk == Some(Disk::UpToDate)
        };
        let holds = || self.nodes[node].res.as_ref().is_some_and(holds);
        let own = done.good && self.nodes[node].state.disk == Disk::UpToDate;
        if let Some((sector, (a, b))) = wrong.next().filter(|_| own && holds()) {
            let why = format!("n{node} sector {sector}: {a:#x}, the peer has {b:#x}, and no more");
            self.violated("protocol C: both disks have what is acknowledged", &why);
        }
        if done.io.op != AppOp::Write {
            return;
        }
        let found = self.nodes[peer].disk.read(done.io.range);
        for (sector, (value, tag)) in (done.io.range.start.0..).zip(found.iter().zip(done.tag..)) {
            let open = &self.truth.open;
            let newer = *value > tag || Truth::is_open(open, *value);
            let late = Truth::contested(open, write, sector as u32);
            let fine = (newer || write.is_rival(*value) || late)
                && self.truth.debts[peer].may(sector as u32, *value);
            if *value != tag && !fine && !self.truth.is_odd(sector as u32) {
                let why = format!("n{node} sector {sector}: {tag:#x}, the peer has {value:#x}");
                self.violated("protocol C: both disks have what is acknowledged", &why);
            }
        }
    }

    fn check_read(&mut self, node: usize, done: &App, old: &BTreeSet<(u32, u64)>) {
        let peer = self.peer_of(node);
        let local = done.good && self.nodes[node].state.disk == Disk::UpToDate;
        let (own, other) = (self.nodes[node].state, self.nodes[peer].state);
        // A Primary whose resync from another Primary was cut off reads what that one had then; it
        // has gone on since, for itself.
        let behind = own.disk == Disk::Inconsistent && own.conn < Conn::Connected;
        if behind && other.role.is_primary() {
            return;
        }
        for (sector, value) in (done.io.range.start.0 as u32..).zip(&done.pages) {
            let fine = self.truth.debts[node].may(sector, *value)
                || old.contains(&(sector, *value))
                || !local && self.truth.debts[peer].may(sector, *value)
                || self.is_unwritten(
                    sector as usize,
                    [*value, self.truth.debts[node].oldest(sector)],
                );
            if !fine && !self.truth.zeroed.contains(&sector) {
                let debt = &self.truth.debts[node];
                let one = [debt.one[sector as usize]];
                let may = debt.more.get(&sector).map_or(&one[..], |v| &v[..]);
                let why = format!("n{node} sector {sector} reads {value:#x}, may be {may:x?}");
                self.violated("reads return what was acknowledged", &why);
            }
        }
    }

    /// A node lost its power, and `lost` sectors of its disk are not what they were.
    pub(crate) fn node_died(&mut self, node: usize, was: State, lost: &[u32]) {
        let unflushed: BTreeSet<u32> = self.truth.debts[node].unflushed.drain(..).collect();
        let primary = was.role.is_primary();
        let durable = was.disk == Disk::UpToDate && !self.truth.forced;
        for sector in lost {
            let value =
                self.nodes[node].disk.data(Sectors(u64::from(*sector) + 1))[*sector as usize];
            let debt = &self.truth.debts[node];
            // Acknowledged, flushed, and gone all the same.
            let one = debt.one[*sector as usize];
            let gone = one != 0 && !debt.more.contains_key(sector) && !unflushed.contains(sector);
            if durable && primary && gone && !self.truth.zeroed.contains(sector) {
                let why = format!("n{node} sector {sector}: {one:#x} became {value:#x}");
                self.violated("what was flushed stays", &why);
            }
            self.truth.debts[node].add(*sector, value);
        }
        if self.knobs.protocol == 2 {
            // What it has received and not written is acknowledged, and goes with the node.
            let known = self.nodes[node].disk.data_sectors();
            let data = self.nodes[node].disk.data(Sectors(known as u64)).to_vec();
            let all = self.truth.debts[node].one.len().min(known);
            for (sector, value) in data.into_iter().enumerate().take(all) {
                self.truth.debts[node].add(sector as u32, value);
            }
        }
        self.stats.lost_sectors += lost.len() as u64;
    }

    /// The state of a volume changed.
    pub(crate) fn state_changed(&mut self, node: usize, old: State, new: State) {
        self.nodes[node].state = new;
        self.data_back(node, new);
        self.stats.state_changed(&old, &new);
        let peer = self.peer_of(node);
        if old.disk == Disk::UpToDate && new.disk != Disk::UpToDate {
            self.nodes[node].reads_failed += 1;
        }
        if old.disk > Disk::Failed && new.disk <= Disk::Failed && self.knobs.protocol == 2 {
            self.received_in_vain(node);
        }
        if World::is_apart(new.conn) {
            // Sockets are closed and what came over them has ended.
            self.truth.dead.retain(|o| o.node == node);
        }
        if new.role.is_primary() && (new.conn < Conn::Connected || new.pdsk != Disk::UpToDate) {
            self.truth.alone[node] = true;
        }
        // What a Primary without a disk writes is on its peer's disk alone.
        let remote = new.conn >= Conn::Connected && new.pdsk == Disk::UpToDate;
        if new.role.is_primary() && new.disk <= Disk::Failed && remote {
            self.truth.alone[peer] = true;
        }
        if new.disk != Disk::UpToDate || old.disk == Disk::UpToDate {
            return;
        }
        let bits = self.bits_set(node);
        let target = matches!(old.conn, Conn::SyncTarget | Conn::PausedSyncT);
        if target && new.conn == Conn::Connected && bits != 0 {
            let why = format!("n{node}: {bits} bits");
            self.violated("a target is done when no bit is left", &why);
        }
        let p = self.nodes[peer].state;
        let linked = self.nodes[node].link() != 0
            && self.nodes[node].link() == self.nodes[peer].link()
            && new.conn >= Conn::Connected;
        if !linked {
            if old.disk == Disk::Inconsistent {
                if target && new.conn == Conn::Connected {
                    // All of the resync was under way when the source left; of one that is paused
                    // applications have written the rest. With protocol A what the target itself
                    // has written may have gone with the connection.
                    if self.knobs.protocol != 1 || !new.role.is_primary() {
                        self.check_equal(node, "the end of a resync makes both disks equal");
                    }
                } else if !self.truth.forced {
                    let why = format!("n{node} {} {}", new.conn, p.disk);
                    self.violated("an Inconsistent disk needs a resync", &why);
                }
                self.accept_data_of(node);
            }
            return;
        }
        if p.disk == Disk::UpToDate && new.conn == Conn::Connected {
            self.check_equal(node, "a disk that becomes UpToDate equals its peer's");
            if p.conn == Conn::Ahead {
                self.accept_data_of(node);
            } else {
                let data = self.data(node, self.common_size()).to_vec();
                self.truth.hand_over(peer, node, &data);
                self.not_received(node, &data);
                self.not_overwritten(node, &data);
            }
        } else if old.disk == Disk::Inconsistent && p.disk < Disk::Consistent {
            self.accept_data_of(node);
        }
    }

    /// Values that are on their way to some disk.
    fn on_the_way(&self) -> Moving {
        let mut moving = Moving::default();
        for n in &self.nodes {
            n.apps
                .iter()
                .filter(|(_, a)| a.tag != 0)
                .for_each(|(_, a)| moving.add(&a.pages));
            n.bufs.iter().for_each(|(_, b)| moving.add(b));
            n.writes.iter().for_each(|(_, w)| moving.add(&w.tags));
            n.sockets
                .iter()
                .flat_map(|s| &s.inbox)
                .for_each(|f| moving.add(&f.data));
        }
        let held = self.net.held.iter().flatten();
        for event in self.events.iter().map(|(_, _, e)| e).chain(held) {
            if let crate::world::Event::Deliver(_, _, frame) = event {
                moving.add(&frame.data);
            }
        }
        moving
    }

    /// The guarantees do not reach this far: takes the data as they are, or will be in a moment.
    pub fn accept_data_of(&mut self, node: usize) {
        self.look_below(node);
        let sectors = self.truth.debts[node].one.len();
        let known = self.nodes[node].disk.data_sectors() as u64;
        let mut data = self.data(node, Sectors(known)).to_vec();
        data.resize(sectors, 0);
        self.truth.accept(node, &data);
        self.under_way(node);
        self.not_received(node, &data);
        // So may be what the other node was told of, and is on its way here.
        let moving = self.on_the_way();
        let other = self.truth.debts[self.peer_of(node)].clone();
        for (sector, one) in (0u32..).zip(&other.one) {
            let more = other.more.get(&sector).into_iter().flatten();
            let coming = more.chain([one]).filter(|v| moving.contains(**v));
            coming.for_each(|v| self.truth.debts[node].add(sector, *v));
        }
        let open: Vec<_> = self.truth.open.clone();
        for Open { tag, range, .. } in open {
            for n in 0..range.len.0 {
                self.truth.debts[node].add((range.start.0 + n) as u32, tag + n);
            }
        }
        // What is to be zeroed carries no tag that could be seen on its way; until both disks agree
        // nobody looks at those places, and then they may have it.
        let zeroed = self.truth.zeroed.iter();
        let debt = &mut self.truth.debts[node];
        zeroed.for_each(|at| debt.add(*at, 0));
    }

    /// A split brain was found: there has to be one. Where two are Primary, and one of them
    /// attaches the disk that it had lost, nobody can tell (rule 41): then none is claimed.
    pub(crate) fn split_brain(&mut self, node: usize, note: Note) {
        self.stats.split_brains += 1;
        let both = self.truth.alone.iter().all(|a| *a);
        let used = |n: &crate::node::Node| n.state.role.is_primary();
        let unsure = self.truth.rule == 41 && self.nodes.iter().all(used);
        if !both && !unsure && !self.truth.forced {
            let why = format!("n{node}: {note}; alone: {:?}", self.truth.alone);
            self.violated("a split brain takes two", &why);
        }
    }

    /// Changes sectors behind the back of DRBD, as only a verify will notice.
    pub fn rot(&mut self, node: usize, at: Sector, values: &[u64]) {
        self.nodes[node].disk.write(at, values, true);
        let bytes = values.len() as u32 * 512;
        self.truth.may_rot([SectorRange::new(at, bytes)]);
    }

    /// The disk of a node becomes larger.
    pub fn grow(&mut self, node: usize, by: u64) {
        let rubbish = RUBBISH | (node as u64) << 40 | self.next_tag << 8;
        let disk = &mut self.nodes[node].disk;
        let old = disk.data_sectors();
        disk.grow(by, rubbish);
        let now = disk.data_sectors();
        for debt in &mut self.truth.debts {
            debt.one.resize(now.max(debt.one.len()), 0);
        }
        // It is no application's, and may be read until one writes there.
        let data = self.nodes[node].disk.data(Sectors(now as u64));
        self.truth.debts[node].one[old..now].copy_from_slice(&data[old..]);
    }

    /// What all devices have that there are.
    pub(crate) fn common_size(&self) -> Sectors {
        let sizes = self.nodes.iter().map(|n| n.size).filter(|s| s.0 != 0);
        sizes.min().unwrap_or(self.last_size)
    }

    /// Nobody has ever written there, and the bitmap knows that the disks may differ. If both disks
    /// are larger than the device when nodes connect, it takes that up without a resync, as the C
    /// driver does: only those that `resize` makes it grow are synchronised at once. What is
    /// written there later is on both disks; what is not may differ until the next resync.
    fn is_unwritten(&self, sector: usize, values: [u64; 2]) -> bool {
        let bit = BmBit(sector as u64 / 8);
        let marked = (0..2).any(|n| self.is_dirty(n, bit) == Some(true));
        values.into_iter().all(is_rubbish) && marked
    }

    /// An online verify says of a block what is true of it: both extents are locked meanwhile, so
    /// nothing changes. What cannot be read counts as different.
    pub(crate) fn check_verdict(&mut self, node: usize, verdict: &OvResult) {
        let peer = self.peer_of(node);
        let (own, other) = (&self.nodes[node], &self.nodes[peer]);
        let linked = own.link() != 0 && own.link() == other.link();
        let runs = own.state.conn == Conn::VerifyS && other.state.conn == Conn::VerifyT;
        if !linked || !runs || self.truth.failed {
            return;
        }
        self.stats.count("block verified");
        let range = SectorRange::new(verdict.sector, verdict.blksize);
        let equal = own.disk.read(range) == other.disk.read(range);
        if equal != (verdict.verdict == OvVerdict::InSync) {
            let why = format!("n{node} {range:?}: {:?}, equal: {equal}", verdict.verdict);
            self.violated("verify finds what differs, and nothing else", &why);
        }
    }

    /// Both disks agree again: what was before does not count any more.
    pub(crate) fn agreed(&mut self) {
        say!(self, "both nodes agree");
        self.check_equal(0, "two UpToDate disks are equal");
        self.truth.alone.fill(false);
        self.truth.forced = false;
        if !self.is_on_the_way() {
            self.truth.zeroed.clear();
        }
        self.nodes.iter_mut().for_each(|n| n.write_failed = false);
    }

    /// The UUIDs that reach a disk are known ones, moved, or one that is new.
    pub(crate) fn superblock_written(&mut self, node: usize, page: &[u8]) {
        let Ok(page) = <&[u8; 4096]>::try_from(page) else {
            return;
        };
        let now = drbd_core::meta::Superblock::decode(page).uuid;
        let before = std::mem::replace(&mut self.truth.last[node], now);
        if now == before {
            return;
        }
        for (slot, uuid) in now.iter().enumerate() {
            let name = uuid & !1;
            let known = self.truth.uuids.contains(&name) || name == 0 || *uuid == 4;
            if !known && slot >= 2 && before != [0; 4] {
                // What was never current nor bitmap cannot be history, unless both moved at once.
                let aged = self
                    .truth
                    .uuids
                    .iter()
                    .any(|u| u.wrapping_add(1 << 48) == name);
                if !aged {
                    self.stats.odd_uuids += 1;
                }
            }
            self.truth.uuids.insert(name);
        }
    }
}

/// Values on their way. A bit that flips on the wire makes no other write of it: who receives that
/// ends the connection, and the sender, which has no acknowledgement, sends the block again with
/// the resync. Until then the write is under way.
#[derive(Default)]
struct Moving(BTreeSet<u64>);

impl Moving {
    fn add(&mut self, values: &[u64]) {
        let sent = values.iter().filter(|v| **v != 0);
        self.0.extend(sent.flat_map(|v| [*v, *v & !FLIP]));
    }

    fn contains(&self, value: u64) -> bool {
        self.0.contains(&value)
    }
}
