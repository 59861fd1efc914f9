// SPDX-License-Identifier: GPL-2.0

//! UUIDs only move as DRBD says (metadata.md, state.md §5): looked at after every step.
//!
//! A node's set before and after a step is compared. What is between them has to be a chain of at
//! most three legal moves, each with a reason in the states that the node went through; each is
//! counted by its kind. The rules are written down here once more: nothing of
//! [`drbd_core::uuid`] is asked. Besides:
//!
//! - an attach takes what the superblock on the disk says;
//! - a superblock is never written with a set that the machine has not had, nor with an older one
//!   than before;
//! - what a node began, not by order, is in its superblock before the peer hears of it;
//! - a Primary acknowledges no write that it alone has as long as the bitmap UUID says that the
//!   peer misses nothing;
//! - at rest both nodes have the same current UUID and none for the bitmap.
//!
//! Bit 0, the mark of the role, is no part of a name.

use crate::drbdmeta;
use crate::world::{say, World, VOL};
use drbd_core::meta::Superblock;
use drbd_core::node::admin::Command;
use drbd_core::node::Effect;
use drbd_core::state::disk::State as Disk;
use drbd_core::state::{conn::State as Conn, State};
use drbd_core::time::Duration;
use drbd_core::uuid::UuidSet;
use drbd_core::wire::{Packet, Uuids};
use std::collections::{BTreeSet, VecDeque};

/// Sets of a node that are remembered.
const REMEMBERED: usize = 64;
/// Moves that one step may make.
const CHAIN: u32 = 3;
/// `create-md` leaves this behind: there are no data.
const JUST_CREATED: u64 = 4;
/// The distance of a resync's name from the bitmap UUID it stands for.
const OFFSET: u64 = 1 << 48;

/// All kinds of moves, for the list of those never seen.
pub const KINDS: &[&str] = &[
    "attached",
    "attached, role marked",
    "role marked",
    "generation: the peer misses writes",
    "generation: by force",
    "generation: by force, a bitmap UUID is lost",
    "generation: new-current-uuid",
    "bitmap cleared: new-current-uuid",
    "bitmap forgotten: first resync skipped",
    "bitmap forgotten: both were the source",
    "first resync skipped",
    "bitmap cleared: source is done",
    "source begins, name made up",
    "source begins, name of the bitmap UUID",
    "source undoes a begin (rule 71)",
    "target takes the name",
    "target is done",
];

/// What an administrator waits for that moves UUIDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Nothing,
    Force,
    NewUuid,
}

/// What is known of the UUIDs of one node.
#[derive(Default)]
struct Book {
    /// In memory, while there is a disk.
    held: Option<UuidSet>,
    /// What the machine was in after the step before.
    was: Option<State>,
    /// Those that it had lately, the youngest last, each with its number.
    lately: VecDeque<(u64, UuidSet)>,
    /// Number of the set on the disk.
    stored: u64,
    last: u64,
    /// Names it made up that are not on the disk so far.
    unstored: BTreeSet<u64>,
    /// It is source of a resync that has no name so far.
    unnamed: bool,
    /// That began before the machine told so.
    foreseen: bool,
    /// The peer has refused a write since the generation began (NEG_ACK).
    refused: bool,
    wish: Wish,
}

impl Book {
    fn hold(&mut self, set: UuidSet) {
        self.last += 1;
        self.held = Some(set);
        self.lately.push_back((self.last, set));
        if self.lately.len() > REMEMBERED {
            self.lately.pop_front();
        }
    }
}

/// What is known of all.
#[derive(Default)]
pub struct Ledger {
    books: [Book; 2],
    /// Names that any node ever had.
    seen: BTreeSet<u64>,
    /// Names of resyncs.
    resyncs: BTreeSet<u64>,
}

fn name(uuid: u64) -> u64 {
    uuid & !1
}

fn same(a: u64, b: u64) -> bool {
    name(a) == name(b)
}

fn slots(s: &UuidSet) -> [u64; 4] {
    [s.current, s.bitmap, s.history[0], s.history[1]]
}

fn show(s: &UuidSet) -> String {
    let [c, b, y, o] = slots(s);
    format!("{c:016X}:{b:016X}:{y:016X}:{o:016X}")
}

fn sourcing(conn: Conn) -> bool {
    matches!(conn, Conn::SyncSource | Conn::PausedSyncS)
}

impl Book {
    /// The machine's state after a step, and how often it told that it has become a source. What it
    /// tells may lie behind; each time counts once.
    fn sources(&mut self, real: Option<State>, told: usize) {
        let is = |s: Option<State>| s.is_some_and(|s| sourcing(s.conn));
        let begun = !is(self.was) && is(real);
        let foreseen = usize::from(self.foreseen);
        self.unnamed |= begun || told > foreseen;
        self.foreseen = is(real) && (self.foreseen || begun) && told == 0;
    }
}

/// What a move may be justified by.
struct Facts<'a> {
    /// The states of this step.
    states: Vec<State>,
    book: &'a Book,
    peer: &'a Book,
    ledger: &'a Ledger,
}

type Step = (&'static str, UuidSet);

impl Facts<'_> {
    fn any(&self, is: impl Fn(&State) -> bool) -> bool {
        self.states.iter().any(is)
    }

    fn conn(&self, is: impl Fn(Conn) -> bool) -> bool {
        self.any(|s| is(s.conn))
    }

    /// The peer compares UUIDs with this node.
    fn compares(&self) -> bool {
        self.conn(|c| matches!(c, Conn::WFReportParams | Conn::Connected))
    }

    fn peer_had(&self, is: impl Fn(&UuidSet) -> bool) -> bool {
        self.peer.lately.iter().any(|(_, s)| is(s))
    }

    /// One move from `o` on the way to `n`: all that are legal.
    fn moves(&self, o: UuidSet, n: UuidSet) -> Vec<Step> {
        let mut found: Vec<Step> = Vec::new();
        let all = [
            self.role(o),
            self.generation(o, n),
            self.cleared(o),
            self.forgotten(o),
            self.given_up(o),
            self.skipped(o, n),
            self.undone(o),
            self.target(o, n),
            self.done(o, n),
        ];
        found.extend(all.into_iter().flatten());
        found.extend(self.named(o, n));
        found
    }

    fn role(&self, o: UuidSet) -> Option<Step> {
        let current = o.current ^ 1;
        let fits = self.any(|s| u64::from(s.role.is_primary()) == current & 1);
        fits.then_some(("role marked", UuidSet { current, ..o }))
    }

    /// A new generation: the bitmap counts from the old one.
    fn generation(&self, o: UuidSet, n: UuidSet) -> Option<Step> {
        if self.ledger.seen.contains(&name(n.current)) {
            return None;
        }
        let next = UuidSet {
            current: n.current,
            bitmap: o.current,
            ..o
        };
        let fits = self.any(|s| u64::from(s.role.is_primary()) == n.current & 1);
        // A peer that is Primary without a disk writes here. What it refused this node alone has,
        // even if it was demoted since: without a new generation the copies pass for equal.
        let in_use = self.any(|s| s.role.is_primary() || s.peer.is_primary() || s.is_suspended());
        let in_use = in_use || self.book.refused;
        // A disk that failed while I/O was suspended has frozen writes, and the peer lacks them. So
        // has a Primary that got its disk back meanwhile: it attaches none but the data in use.
        let good = self.any(|s| {
            let back = s.disk == Disk::Consistent && s.role.is_primary();
            s.disk == Disk::UpToDate || (s.disk == Disk::Failed || back) && s.is_suspended()
        });
        let alone = self.any(|s| {
            // A peer that is behind is only told where it misses writes.
            let missed = s.conn == Conn::Connected && s.pdsk != Disk::UpToDate;
            // One that has refused writes says why only when its helper is done.
            let refused = self.book.refused;
            let begins = matches!(s.conn, Conn::StartingSyncS | Conn::WFBitMapS);
            s.conn < Conn::Connected || s.conn == Conn::Ahead || begins || missed || refused
        });
        let why = match self.book.wish {
            Wish::NewUuid if o.bitmap == 0 => "generation: new-current-uuid",
            Wish::Force if o.bitmap == 0 => "generation: by force",
            Wish::Force => "generation: by force, a bitmap UUID is lost",
            _ if o.bitmap == 0 && in_use && good && alone => "generation: the peer misses writes",
            _ => return None,
        };
        fits.then_some((why, next))
    }

    /// The bitmap UUID goes to the history.
    fn cleared(&self, o: UuidSet) -> Option<Step> {
        if o.bitmap == 0 {
            return None;
        }
        let [younger, _] = o.history;
        let next = UuidSet {
            bitmap: 0,
            history: [o.bitmap, younger],
            ..o
        };
        let why = if self.book.wish == Wish::NewUuid {
            "bitmap cleared: new-current-uuid"
        } else if self.conn(sourcing) {
            "bitmap cleared: source is done"
        } else {
            return None;
        };
        Some((why, next))
    }

    fn forgotten(&self, o: UuidSet) -> Option<Step> {
        let fits = self.book.wish == Wish::NewUuid && self.conn(|c| c == Conn::Connected);
        let next = UuidSet { bitmap: 0, ..o };
        (fits && same(o.bitmap, JUST_CREATED))
            .then_some(("bitmap forgotten: first resync skipped", next))
    }

    /// Both have named a resync of the same data: one of the names goes.
    fn given_up(&self, o: UuidSet) -> Option<Step> {
        let named = |p: &UuidSet| same(p.current, o.current) && p.bitmap != 0;
        let both = o.bitmap != 0 && self.peer.lately.back().is_some_and(|(_, p)| named(p));
        let next = UuidSet { bitmap: 0, ..o };
        (both && self.conn(|c| c == Conn::WFReportParams))
            .then_some(("bitmap forgotten: both were the source", next))
    }

    fn skipped(&self, o: UuidSet, n: UuidSet) -> Option<Step> {
        let known = self.peer_had(|p| same(p.current, n.current));
        let fits = o.current == JUST_CREATED && known && self.conn(|c| c == Conn::Connected);
        let next = UuidSet {
            current: n.current,
            bitmap: 0,
            ..o
        };
        fits.then_some(("first resync skipped", next))
    }

    /// The name of a resync takes the place of the bitmap UUID.
    fn named(&self, o: UuidSet, n: UuidSet) -> Vec<Step> {
        let [younger, older] = o.history;
        let made_up = matches!(o.bitmap, 0 | JUST_CREATED);
        let (why, bitmap) = if made_up {
            ("source begins, name made up", n.bitmap)
        } else {
            let named = o.bitmap.wrapping_add(OFFSET);
            ("source begins, name of the bitmap UUID", named)
        };
        // One that derives from a bitmap UUID that is in the history by now was not made up.
        let derived = younger != 0 && same(bitmap, younger.wrapping_add(OFFSET));
        let fresh = bitmap != 0 && !derived && !self.ledger.seen.contains(&name(bitmap));
        if !self.book.unnamed || made_up && !fresh {
            return Vec::new();
        }
        // What the target has stays known until it has heard of the resync. What it had before may
        // stay: the source is not told that the target has taken a name.
        let targets = older != 0 && !same(older, younger) && !same(older, o.bitmap);
        let has = self.peer.lately.back();
        let must = targets && has.is_some_and(|(_, p)| same(p.current, older));
        let may = targets && self.peer_had(|p| same(p.current, older));
        let histories = match o.bitmap {
            0 => vec![o.history],
            old if must => vec![[old, older]],
            old if may => vec![[old, younger], [old, older]],
            old => vec![[old, younger]],
        };
        let step = |history| UuidSet {
            bitmap,
            history,
            ..o
        };
        histories.into_iter().map(|h| (why, step(h))).collect()
    }

    /// The target has never heard that the resync began.
    fn undone(&self, o: UuidSet) -> Option<Step> {
        let [younger, older] = o.history;
        let fits = self.compares() && self.peer_had(|p| same(p.current, younger));
        let next = UuidSet {
            bitmap: younger,
            history: [older, older],
            ..o
        };
        (fits && younger != 0).then_some(("source undoes a begin (rule 71)", next))
    }

    fn target(&self, o: UuidSet, n: UuidSet) -> Option<Step> {
        let known = self.ledger.resyncs.contains(&name(n.current));
        let next = UuidSet {
            current: n.current,
            bitmap: 0,
            ..o
        };
        let waits = self.conn(|c| matches!(c, Conn::WFSyncUUID | Conn::Behind));
        (known && waits).then_some(("target takes the name", next))
    }

    /// The target has all that the source has, and its past.
    fn done(&self, o: UuidSet, n: UuidSet) -> Option<Step> {
        let runs = self.conn(|c| matches!(c, Conn::SyncTarget | Conn::PausedSyncT));
        let [_, older] = n.history;
        let knows = |p: &UuidSet| {
            let past = older == 0 || slots(p).iter().any(|u| same(*u, older));
            same(p.current, n.current) && past
        };
        let next = UuidSet {
            current: n.current,
            bitmap: 0,
            history: [o.current, older],
        };
        (runs && self.peer_had(knows)).then_some(("target is done", next))
    }

    /// The shortest chain of legal moves from `o` to `n`.
    fn explain(&self, o: UuidSet, n: UuidSet, most: u32) -> Option<Vec<&'static str>> {
        if o == n {
            return Some(Vec::new());
        }
        if most == 0 {
            return None;
        }
        let moves = self.moves(o, n);
        if let Some((why, _)) = moves.iter().find(|(_, next)| *next == n) {
            return Some(vec![why]);
        }
        moves
            .into_iter()
            .filter(|(_, next)| *next != o)
            .find_map(|(why, next)| {
                let mut rest = self.explain(next, n, most - 1)?;
                rest.insert(0, why);
                Some(rest)
            })
    }
}

impl World {
    /// An administrator gives an order.
    pub(crate) fn ordered(&mut self, node: usize, command: &Command) {
        self.ledger.books[node].wish = match command {
            Command::Primary { force: true, .. } => Wish::Force,
            Command::NewCurrentUuid { .. } => Wish::NewUuid,
            _ => Wish::Nothing,
        };
        self.ordered_for_applications(node, command);
    }

    /// The order is carried out, or refused.
    pub(crate) fn order_is_over(&mut self, node: usize) {
        self.ledger.books[node].wish = Wish::Nothing;
    }

    /// After a step of the machine, before its effects are carried out.
    pub(crate) fn check_uuids(&mut self, node: usize, effects: &[Effect]) {
        let now = self.nodes[node]
            .res
            .as_ref()
            .and_then(|r| r.data_uuids(VOL));
        let before = self.ledger.books[node].held;
        let real = self.real_state(node);
        let told = effects.iter().filter(|e| {
            matches!(e, Effect::StateChanged { vol: Some(_), old, new }
                if !sourcing(old.conn) && sourcing(new.conn))
        });
        self.ledger.books[node].sources(real, told.count());
        if now != before {
            self.uuids_moved(node, before, now, effects);
        }
        self.ledger.books[node].was = real;
        for effect in effects {
            if let Effect::Send { packet, .. } = effect {
                match packet {
                    Packet::Uuids(p) => self.tells_uuids(node, p),
                    Packet::SyncUuid(p) => {
                        self.tells(node, p.uuid);
                        // It may be the one that an earlier beginning had.
                        self.ledger.books[node].unnamed = false;
                    }
                    _ => {}
                }
            }
        }
    }

    /// What the machine is in; what it tells of that may lie behind.
    pub(crate) fn real_state(&self, node: usize) -> Option<State> {
        let machine = self.nodes[node].res.as_ref();
        machine.and_then(|r| r.volume_status(VOL)).map(|v| v.state)
    }

    fn uuids_moved(
        &mut self,
        node: usize,
        before: Option<UuidSet>,
        now: Option<UuidSet>,
        effects: &[Effect],
    ) {
        let Some(n) = now else {
            self.ledger.books[node].held = None;
            return;
        };
        let Some(o) = before else {
            let there = self.attached_uuids(node, n);
            if there != n {
                self.uuids_moved(node, Some(there), now, effects);
            }
            return;
        };
        // What the node tells of its state may lie behind, as far as helpers take: what a resync
        // ended with counts, not what user space has heard of it.
        let mut states = vec![self.nodes[node].state];
        states.extend(self.ledger.books[node].was);
        states.extend(self.real_state(node));
        states.extend(effects.iter().filter_map(|e| match e {
            Effect::StateChanged {
                vol: Some(_), new, ..
            } => Some(*new),
            _ => None,
        }));
        let facts = Facts {
            states,
            book: &self.ledger.books[node],
            peer: &self.ledger.books[1 - node],
            ledger: &self.ledger,
        };
        let Some(chain) = facts.explain(o, n, CHAIN) else {
            let (s, wish) = (self.nodes[node].state, facts.book.wish);
            let why = format!(
                "n{node} {} -> {}, wish {wish:?}, {} {} {}/{}",
                show(&o),
                show(&n),
                s.role,
                s.conn,
                s.disk,
                s.pdsk
            );
            self.violated("UUIDs only move as they may", &why);
        };
        say!(self, "n{node} UUIDs {}: {}", show(&n), chain.join(", "));
        for kind in chain {
            self.stats.uuid_move(kind);
            // One that is made by force has nothing in it so far: should it be lost, so what.
            let made = if kind == "generation: the peer misses writes" {
                Some(n.current)
            } else if kind.starts_with("source begins") {
                self.ledger.books[node].unnamed = false;
                self.ledger.resyncs.insert(name(n.bitmap));
                Some(n.bitmap)
            } else {
                None
            };
            let book = &mut self.ledger.books[node];
            book.refused &= !kind.starts_with("generation");
            book.unstored.extend(made.map(name));
        }
        self.ledger.seen.extend(slots(&n).map(name));
        self.ledger.books[node].hold(n);
    }

    /// What the disk says is what counts, but for the mark of the role.
    fn attached_uuids(&mut self, node: usize, n: UuidSet) -> UuidSet {
        let [disk, bitmap, younger, older] =
            drbdmeta::known_superblock(&self.nodes[node].disk).uuid;
        let marked = (disk ^ n.current) & 1 != 0;
        let there = UuidSet {
            current: name(disk) | n.current & 1,
            bitmap,
            history: [younger, older],
        };
        self.stats.uuid_move(if marked {
            "attached, role marked"
        } else {
            "attached"
        });
        self.ledger.seen.extend(slots(&there).map(name));
        let book = &mut self.ledger.books[node];
        book.unstored.clear();
        book.unnamed = false;
        book.refused = false;
        book.hold(there);
        // Since the node was here it may have been given back what it had before.
        book.stored = book.last;
        there
    }

    /// A node makes its UUIDs known.
    fn tells_uuids(&mut self, node: usize, p: &Uuids) {
        self.tells(node, p.current);
        self.tells(node, p.bitmap);
    }

    fn tells(&mut self, node: usize, uuid: u64) {
        if self.ledger.books[node].unstored.contains(&name(uuid)) {
            let why = format!("n{node} tells of {uuid:016X}, which is not on its disk");
            self.violated("what a node begins is stored before the peer hears", &why);
        }
    }

    /// The peer could not write.
    pub(crate) fn refused(&mut self, node: usize) {
        self.ledger.books[node].refused = true;
    }

    /// A superblock reaches the disk.
    pub(crate) fn uuids_stored(&mut self, node: usize, page: &[u8]) {
        let Ok(page) = <&[u8; 4096]>::try_from(page) else {
            return;
        };
        let [current, bitmap, younger, older] = Superblock::decode(page).uuid;
        let set = UuidSet {
            current,
            bitmap,
            history: [younger, older],
        };
        let there = drbdmeta::known_superblock(&self.nodes[node].disk).uuid;
        let book = &mut self.ledger.books[node];
        let found = book.lately.iter().rev().find(|(_, s)| *s == set);
        let as_it_was = book.held.is_none() && there.map(name) == slots(&set).map(name);
        match found {
            Some((number, _)) if *number >= book.stored => {
                book.stored = *number;
                for uuid in slots(&set) {
                    book.unstored.remove(&name(uuid));
                }
            }
            // The machine is attaching the disk.
            _ if as_it_was => {}
            found => {
                let (age, stored) = (found.map(|f| f.0), book.stored);
                let why = format!("n{node} {}: {age:?}, on disk: {stored}", show(&set));
                self.violated("superblocks say what UUIDs there are", &why);
            }
        }
    }

    /// A superblock does not reach the disk, which is given up for that. The peer hears of what it
    /// should have said all the same: it must not take an older copy for this one later.
    pub(crate) fn uuids_not_stored(&mut self, node: usize) {
        self.ledger.books[node].unstored.clear();
    }

    /// The UUIDs of a node.
    pub(crate) fn held(&self, node: usize) -> Option<UuidSet> {
        self.ledger.books[node].held
    }

    /// All is well: nobody misses anything.
    pub(crate) fn same_uuids(&mut self) {
        if self.unlike().is_some() {
            // A source that could not read all comes back to that after 10 s.
            self.run(Duration::secs(15));
            self.await_sync("rest");
        }
        if let Some(why) = self.unlike() {
            self.violated("at rest both nodes have the same UUIDs", &why);
        }
    }

    fn unlike(&self) -> Option<String> {
        let both = [0, 1].map(|n| self.ledger.books[n].held);
        let [Some(a), Some(b)] = both else {
            return None;
        };
        let equal = same(a.current, b.current) && a.bitmap == 0 && b.bitmap == 0;
        (!equal).then(|| format!("{} and {}", show(&a), show(&b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drbd_core::state::Role;

    fn set(current: u64, bitmap: u64, history: [u64; 2]) -> UuidSet {
        UuidSet {
            current,
            bitmap,
            history,
        }
    }

    fn state(role: Role, conn: Conn, disk: Disk, pdsk: Disk) -> State {
        State {
            role,
            conn,
            disk,
            pdsk,
            ..State::INITIAL
        }
    }

    fn explained(s: State, ledger: &Ledger, from: UuidSet, to: UuidSet) -> Vec<&'static str> {
        let facts = Facts {
            states: vec![s],
            book: &ledger.books[0],
            peer: &ledger.books[1],
            ledger,
        };
        facts.explain(from, to, CHAIN).unwrap_or_default()
    }

    const OLD: UuidSet = UuidSet {
        current: 0x11,
        bitmap: 0,
        history: [0x20, 0x30],
    };

    #[test]
    fn a_generation_begins_when_the_peer_is_gone() {
        let (l, next) = (Ledger::default(), set(0x51, 0x11, [0x20, 0x30]));
        let good = (Disk::UpToDate, Disk::UpToDate);
        let gone = state(Role::Primary, Conn::NetworkFailure, good.0, Disk::DUnknown);
        assert_eq!(explained(gone, &l, OLD, next).len(), 1);
        let there = state(Role::Primary, Conn::Connected, good.0, good.1);
        assert!(explained(there, &l, OLD, next).is_empty());
        // The old generation must not be forgotten, the role must be marked.
        let lost = set(0x51, 0x11, [0x30, 0]);
        assert!(explained(gone, &l, OLD, lost).is_empty());
        let unmarked = set(0x50, 0x11, [0x20, 0x30]);
        assert!(explained(gone, &l, OLD, unmarked).is_empty());
        // Nor must a name be used again.
        let mut l = l;
        l.seen.insert(0x50);
        assert!(explained(gone, &l, OLD, next).is_empty());
    }

    #[test]
    fn a_source_names_a_resync_once_and_clears_the_name() {
        let mut l = Ledger::default();
        let s = state(
            Role::Secondary,
            Conn::SyncSource,
            Disk::UpToDate,
            Disk::Inconsistent,
        );
        let from = set(0x10, 0x20, [0x30, 0x40]);
        let named = set(0x10, 0x20 + OFFSET, [0x20, 0x30]);
        assert!(explained(s, &l, from, named).is_empty());
        l.books[0].unnamed = true;
        assert_eq!(explained(s, &l, from, named).len(), 1);
        let done = set(0x10, 0, [0x20 + OFFSET, 0x20]);
        assert_eq!(explained(s, &l, named, done).len(), 1);
        let idle = State {
            conn: Conn::VerifyS,
            ..s
        };
        assert!(explained(idle, &l, named, done).is_empty());
    }

    #[test]
    fn a_target_takes_over_what_its_source_had() {
        let mut l = Ledger::default();
        l.books[1].hold(set(0x10, 0x20, [0x30, 0x40]));
        l.resyncs.insert(0x60);
        let waits = state(
            Role::Secondary,
            Conn::WFSyncUUID,
            Disk::Inconsistent,
            Disk::UpToDate,
        );
        let from = set(0x20, 0, [0x30, 0x40]);
        let named = set(0x60, 0, [0x30, 0x40]);
        assert_eq!(explained(waits, &l, from, named).len(), 1);
        let other = set(0x70, 0, [0x30, 0x40]);
        assert!(explained(waits, &l, from, other).is_empty());
        let runs = State {
            conn: Conn::SyncTarget,
            ..waits
        };
        let done = set(0x10, 0, [0x60, 0x20]);
        assert_eq!(explained(runs, &l, named, done).len(), 1);
        let strange = set(0x10, 0, [0x60, 0x99]);
        assert!(explained(runs, &l, named, strange).is_empty());
    }
}
