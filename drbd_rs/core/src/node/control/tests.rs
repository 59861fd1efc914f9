// SPDX-License-Identifier: GPL-2.0

//! The control part alone: answers to administrators, what a disk is worth, two fresh nodes.
//!
//! The host records effects and answers metadata I/O at once; a wire carries packets over.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use super::super::io::*;
use super::super::note::Note;
use super::super::request::Moved;
use super::super::{
    Backing, BackingStorage, PeerDevice, Resource, Storage, Store, VolumeStorage, PEER,
};
use super::admin::{self, Command, Devices};
use super::disk::BackingLimits;
use crate::meta::layout::{Devices as Capacities, Kind, Layout, Striping};
use crate::meta::superblock::{Flags as Md, Superblock, MAGIC_08};
use crate::nl::conf::{DiskConf, NetConf, ResourceOpts};
use crate::nl::{ErrCode, Str};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, Ss, State};
use crate::time::{Duration, Instant};
use crate::units::{Minor, Sectors, Vnr};
use crate::wire::{feature, Header, Packet, ReqReply};

struct VecStore;

impl Store for VecStore {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

type Machine = Resource<VecStore>;

const SIZE: Sectors = Sectors(81_920);
const VOL: VolIx = VolIx(0);

struct TestHost {
    now: Instant,
    seed: u64,
    effects: Vec<Effect>,
}

impl Host for TestHost {
    fn now(&self) -> Instant {
        self.now
    }
    fn random(&mut self) -> u64 {
        self.seed += 0x1000;
        self.seed
    }
    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }
    fn room(&self) -> usize {
        MAX_EFFECTS - self.effects.len()
    }
}

struct Node {
    m: Machine,
    h: TestHost,
    done: Vec<(u32, i32, Option<Note>)>,
    sent: VecDeque<Effect>,
    log: Vec<String>,
    next_op: u32,
}

fn slots<T: Clone>(slot: T, n: usize) -> Vec<T> {
    vec![slot; n]
}

impl Node {
    fn new(seed: u64) -> Node {
        use crate::store::slab::Slot;
        let storage = Storage {
            requests: (0..64).map(|_| Slot::default()).collect(),
            peer_requests: (0..64).map(|_| Slot::default()).collect(),
            peer_waiting: (0..64).map(|_| None).collect(),
            sent_epochs: (0..64).map(|_| None).collect(),
        };
        let volumes = (0..2).map(|_| None).collect();
        let mut node = Node {
            m: Resource::new(
                ResourceOpts::default(),
                volumes,
                vec![super::super::Connection::new()],
                storage,
            ),
            h: TestHost {
                now: Instant(1_000_000_000_000),
                seed,
                effects: Vec::new(),
            },
            done: Vec::new(),
            sent: VecDeque::new(),
            log: Vec::new(),
            next_op: 0,
        };
        let writes = (0..64).map(|_| Default::default()).collect();
        let added = node.m.add_volume(
            Minor(1),
            Vnr(0),
            VolumeStorage {
                writes,
                peers: vec![PeerDevice::new()],
            },
            &mut node.h,
        );
        assert!(matches!(added, Ok(VOL)));
        node
    }

    fn carry_out(&mut self) {
        self.step(Input::Tick);
        for _ in 0..1000 {
            let effects = std::mem::take(&mut self.h.effects);
            if effects.is_empty() {
                return;
            }
            for e in effects {
                self.one(e);
            }
            self.step(Input::Tick);
        }
        panic!("it never ends");
    }

    fn one(&mut self, e: Effect) {
        match e {
            Effect::Meta { io, op, .. } => {
                let page = [0; 4096];
                let read = matches!(op, MetaOp::ReadBitmap { .. });
                self.step(Input::MetaDone {
                    io,
                    page: read.then_some(&page),
                    result: Ok(()),
                });
            }
            Effect::Send { .. } => self.sent.push_back(e),
            Effect::AdminDone { op, code, info } => self.done.push((op.0, code, info)),
            Effect::Log { note, .. } => self.log.push(note.to_string()),
            Effect::DropBacking { vol } => drop(self.m.take_backing(vol)),
            Effect::CloseSockets { peer } => self.step(Input::Closed { peer }),
            _ => {}
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let _ = self.m.step(input, &mut self.h);
    }

    fn order(&mut self, command: Command) -> i32 {
        self.next_op += 1;
        let op = self.next_op;
        self.m.command(OpId(op), command, &mut self.h);
        self.carry_out();
        self.answer(op)
    }

    fn answer(&self, op: u32) -> i32 {
        let all: Vec<_> = self.done.iter().filter(|d| d.0 == op).collect();
        assert_eq!(all.len(), 1, "one answer to {op}: {:?}", self.done);
        all[0].1
    }

    fn attach(&mut self, sb: &Superblock) -> i32 {
        let mut page = [0; 4096];
        sb.encode(&mut page);
        page[60..64].copy_from_slice(&sb.magic.to_be_bytes());
        let needs = match admin::attach_needs(&conf(), devices(), Sectors(0), limits(), &page) {
            Ok(needs) => needs,
            Err((code, _)) => return code.number(),
        };
        let storage = BackingStorage {
            al: (0..needs.al_slots).map(|_| Default::default()).collect(),
            words: slots(0, usize::try_from(needs.bitmap.words).unwrap()),
            pages: slots(
                Default::default(),
                usize::try_from(needs.bitmap.pages).unwrap(),
            ),
            extents: (0..needs.extents).map(|_| Default::default()).collect(),
        };
        let backing: Backing<VecStore> = Backing::new(&needs, storage).unwrap();
        self.next_op += 1;
        let op = self.next_op;
        if let Err(refused) = self.m.attach(OpId(op), VOL, Box::new(backing), &mut self.h) {
            return refused.code;
        }
        self.carry_out();
        self.answer(op)
    }

    fn disk(&self) -> Disk {
        self.m.state(VOL).disk
    }
}

fn conf() -> DiskConf {
    DiskConf {
        meta_dev_idx: -2,
        ..DiskConf::default()
    }
}

fn devices() -> Devices {
    Devices {
        backing: SIZE,
        meta: Sectors(4096),
        same: false,
    }
}

fn limits() -> BackingLimits {
    BackingLimits {
        max_bio: 1 << 20,
        logical_block: 512,
        ..BackingLimits::default()
    }
}

/// As `drbdmeta create-md` leaves it.
fn fresh() -> Superblock {
    let capacities = Capacities {
        backing: SIZE,
        meta: Sectors(4096),
    };
    let l = Layout::compute(Kind::FlexExternal, capacities, Striping::DEFAULT).unwrap();
    Superblock {
        uuid: [crate::uuid::JUST_CREATED, 0, 0, 0],
        flags: Md::AL_CLEAN,
        magic: MAGIC_08,
        md_size: l.md_size,
        al_offset: l.al_offset,
        al_nr_extents: 257,
        bm_offset: l.bm_offset,
        bm_bytes_per_bit: 4096,
        al_stripes: 1,
        al_stripe_size_4k: 8,
        ..Superblock::default()
    }
}

fn with_flags(flags: Md) -> Superblock {
    Superblock {
        la_size: SIZE,
        uuid: [0x10, 0, 0, 0],
        flags: flags.with(Md::AL_CLEAN),
        ..fresh()
    }
}

#[test]
fn what_an_attached_disk_is_worth() {
    let good = Md::CONSISTENT.with(Md::WAS_UP_TO_DATE);
    for (sb, disk) in [
        (fresh(), Disk::Inconsistent),
        (with_flags(Md::CONSISTENT), Disk::Outdated),
        (with_flags(good), Disk::UpToDate),
    ] {
        let mut n = Node::new(1);
        assert_eq!(n.attach(&sb), ErrCode::NoError.number(), "{:?}", n.log);
        assert_eq!(n.disk(), disk);
        assert_eq!(n.m.vol(VOL).unwrap().size, SIZE);
        assert_eq!(n.attach(&sb), ErrCode::DiskConfigured.number());
        assert_eq!(
            n.order(Command::Detach {
                vol: VOL,
                force: false
            }),
            1
        );
        assert_eq!(n.disk(), Disk::Diskless);
        assert!(n.m.vol(VOL).unwrap().backing.is_none());
        assert_eq!(
            n.order(Command::Detach {
                vol: VOL,
                force: false
            }),
            2
        );
    }
}

#[test]
fn bad_metadata_is_refused_with_its_code() {
    let mut n = Node::new(1);
    let none = Superblock {
        magic: 0,
        ..fresh()
    };
    assert_eq!(n.attach(&none), ErrCode::MdInvalid.number());
    let unclean = Superblock {
        flags: Md::default(),
        ..fresh()
    };
    assert_eq!(n.attach(&unclean), ErrCode::MdUnclean.number());
    let shrunk = Superblock {
        la_size: Sectors(SIZE.0 + 8),
        ..with_flags(Md::CONSISTENT)
    };
    assert_eq!(n.attach(&shrunk), ErrCode::ImplicitShrink.number());
    assert_eq!(n.disk(), Disk::Diskless);
    assert!(n.m.vol(VOL).unwrap().backing.is_none());
}

#[test]
fn primary_needs_good_data_or_force() {
    let primary = |force| Command::Primary { vol: VOL, force };
    let mut n = Node::new(1);
    assert_eq!(n.order(primary(true)), Ss::NoUpToDateDisk.number());
    n.attach(&fresh());
    assert_eq!(n.order(primary(false)), Ss::NoUpToDateDisk.number());
    assert_eq!(n.order(primary(true)), Ss::Success.number(), "{:?}", n.log);
    assert_eq!(n.disk(), Disk::UpToDate);
    let uuids = n.m.disk(VOL).unwrap().uuids;
    assert_eq!(uuids.current & 1, 1);
    assert_eq!(uuids.bitmap, crate::uuid::JUST_CREATED);
    assert_eq!(n.order(primary(false)), Ss::NothingToDo.number());
    n.step(Input::Opened {
        vol: VOL,
        open: true,
    });
    let secondary = Command::Secondary { vol: VOL };
    assert_eq!(n.order(secondary), Ss::DeviceInUse.number());
    n.step(Input::Opened {
        vol: VOL,
        open: false,
    });
    assert_eq!(n.order(secondary), Ss::Success.number());
    assert_eq!(n.m.disk(VOL).unwrap().uuids.current & 1, 0);
}

/// All bits were set on the disk before, but not on this one.
#[test]
fn the_activity_log_of_another_disk_counts_again() {
    let mut n = Node::new(1);
    for (flags, suspended) in [(Md::FULL_SYNC, true), (Md::CONSISTENT, false)] {
        n.attach(&with_flags(flags));
        assert_eq!(n.m.vol(VOL).unwrap().ctl.al_suspended, suspended);
        n.order(Command::Detach {
            vol: VOL,
            force: false,
        });
    }
}

/// It gives up at its own time, though nothing else happens that could wake the machine.
#[test]
fn an_order_does_not_wait_for_sizes_for_ever() {
    let mut n = Node::new(1);
    n.m.vol_mut(VOL).unwrap().ctl.sizes_due = true;
    let secondary = Command::Secondary { vol: VOL };
    n.m.command(OpId(1), secondary, &mut n.h);
    n.carry_out();
    assert!(n.done.is_empty());
    n.h.now = n.m.deadline().expect("a time to give up");
    n.carry_out();
    assert_eq!(n.answer(1), Ss::NothingToDo.number());
}

/// As with the C driver; tools show them, and what was read and written goes on.
#[test]
fn a_connection_begins_to_count_anew() {
    let mut n = Node::new(1);
    for what in [Moved::Sent, Moved::Received, Moved::Read, Moved::Written] {
        n.m.count_moved(VOL, what, Sectors(8));
    }
    let conf = NetConf::default();
    assert_eq!(n.order(Command::Connect { peer: PEER, conf }), 1);
    let counts = n.m.io_counts(VOL);
    assert_eq!((counts.sent, counts.received), (Sectors(0), Sectors(0)));
    assert_eq!((counts.read, counts.written), (Sectors(8), Sectors(8)));
}

#[test]
fn refusals() {
    let mut n = Node::new(1);
    let connect = |conf| Command::Connect { peer: PEER, conf };
    let two = NetConf {
        two_primaries: true,
        wire_protocol: 1,
        ..NetConf::default()
    };
    assert_eq!(n.order(connect(two)), ErrCode::NotProtoC.number());
    let ahead = NetConf {
        on_congestion: 1,
        ..NetConf::default()
    };
    assert_eq!(n.order(connect(ahead)), ErrCode::CongNotProtoA.number());
    let digests = NetConf {
        integrity_alg: Str::new(b"rot13").unwrap(),
        ..NetConf::default()
    };
    assert_eq!(n.order(connect(digests)), ErrCode::IntegrityAlg.number());
    assert_eq!(n.order(verify()), Ss::NeedConnection.number());
    let options = Command::NetOptions {
        peer: PEER,
        conf: NetConf::default(),
    };
    assert_eq!(n.order(options), ErrCode::InvalidRequest.number());
    let invalidate = Command::Invalidate { vol: VOL };
    assert_eq!(n.order(invalidate), ErrCode::NoDisk.number());
    assert_eq!(
        n.order(Command::ResumeSync { vol: VOL }),
        ErrCode::PauseIsClear.number()
    );
    assert_eq!(n.order(connect(NetConf::default())), 1);
    assert_eq!(
        n.order(connect(NetConf::default())),
        ErrCode::NetConfigured.number()
    );
    let gone = Command::DelVolume { vol: VolIx(7) };
    assert_eq!(n.order(gone), ErrCode::MinorInvalid.number());
}

fn verify() -> Command {
    Command::Verify {
        vol: VOL,
        start: crate::units::Sector(0),
        stop: crate::units::Sector(u64::MAX),
    }
}

/// Carries all packets over until nobody says anything more.
fn talk(a: &mut Node, b: &mut Node) {
    for _ in 0..200 {
        a.carry_out();
        b.carry_out();
        let from_a: Vec<_> = a.sent.drain(..).collect();
        let from_b: Vec<_> = b.sent.drain(..).collect();
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (packets, to) in [(from_a, &mut *b), (from_b, &mut *a)] {
            for p in packets {
                deliver(p, to);
            }
        }
    }
    panic!("they never stop");
}

fn deliver(e: Effect, to: &mut Node) {
    if let Effect::Send {
        sock, vnr, packet, ..
    } = e
    {
        receive(to, sock, vnr, packet);
    }
}

fn receive(to: &mut Node, sock: Sock, vnr: u16, packet: Packet) {
    let header = Header {
        volume: Vnr(vnr),
        command: packet.command(101).number(),
        length: 0,
        header_len: 16,
    };
    to.step(Input::Received {
        peer: PEER,
        sock,
        header,
        packet,
        buf: None,
        body: &[],
        intact: true,
    });
    to.carry_out();
}

fn join(a: &mut Node, b: &mut Node, confs: [NetConf; 2]) {
    for (n, conf) in [&mut *a, &mut *b].into_iter().zip(confs) {
        assert_eq!(n.order(Command::Connect { peer: PEER, conf }), 1);
        assert_eq!(n.m.conn(PEER).unwrap().ctl.cstate, Conn::WFConnection);
    }
    for (n, arbiter) in [(&mut *a, true), (&mut *b, false)] {
        n.step(Input::Connected {
            peer: PEER,
            apv: 101,
            features: feature::ALL,
            arbiter,
        });
    }
    talk(a, b);
}

#[test]
fn two_fresh_nodes_connect_and_part() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.attach(&fresh());
    b.attach(&fresh());
    join(&mut a, &mut b, [NetConf::default(); 2]);
    for n in [&a, &b] {
        let s = n.m.state(VOL);
        assert_eq!(s.conn, Conn::Connected, "{:?}", n.log);
        assert_eq!((s.disk, s.pdsk), (Disk::Inconsistent, Disk::Inconsistent));
        assert_eq!(s.peer, Role::Secondary);
        assert!(!n.m.conn(PEER).unwrap().ctl.state_sent);
    }
    // B goes; A is left trying.
    b.next_op += 1;
    let op = b.next_op;
    let command = Command::Disconnect {
        peer: PEER,
        force: false,
    };
    b.m.command(OpId(op), command, &mut b.h);
    talk(&mut a, &mut b);
    b.step(Input::ReceiverGone { peer: PEER });
    b.carry_out();
    assert_eq!(b.answer(op), ErrCode::NoError.number(), "{:?}", b.log);
    assert_eq!(b.m.state(VOL).conn, Conn::StandAlone);
    assert_eq!(a.m.state(VOL).conn, Conn::WFConnection, "{:?}", a.log);
}

/// The peer's word, as far as it counts here.
fn hears(n: &mut Node, disk: Disk) {
    let state = State {
        conn: Conn::Connected,
        disk,
        pdsk: Disk::UpToDate,
        peer: Role::Secondary,
        ..State::INITIAL
    };
    let word = state.to_word();
    let taken = n.m.recv_state(VOL, crate::wire::State { word }, &mut n.h);
    assert!(taken.is_ok());
    n.carry_out();
}

/// What the peer says when it has left the handshake must not come when both disks count as good.
/// If something of that kind does all the same, and the peer is good again with a later word, what
/// was written in between is on one disk only: they connect anew.
#[test]
fn a_first_resync_is_skipped_when_the_peer_is_connected() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.attach(&fresh());
    b.attach(&fresh());
    join(&mut a, &mut b, [NetConf::default(); 2]);
    let peers = &mut a.m.vol_mut(VOL).unwrap().peers;
    assert!(core::mem::take(&mut peers[0].ctl.greeted));
    a.next_op += 1;
    let command = Command::NewCurrentUuid {
        vol: VOL,
        clear_bitmap: true,
    };
    a.m.command(OpId(a.next_op), command, &mut a.h);
    a.carry_out();
    assert!(a.done.iter().all(|d| d.0 != a.next_op), "it waits");
    hears(&mut a, Disk::Inconsistent);
    talk(&mut a, &mut b);
    assert_eq!(
        a.answer(a.next_op),
        ErrCode::NoError.number(),
        "{:?}",
        a.log
    );
    for n in [&a, &b] {
        let s = n.m.state(VOL);
        assert_eq!((s.disk, s.pdsk), (Disk::UpToDate, Disk::UpToDate));
    }
    // Nothing was written in between.
    hears(&mut a, Disk::Inconsistent);
    assert_eq!(a.m.state(VOL).pdsk, Disk::Inconsistent);
    hears(&mut a, Disk::UpToDate);
    assert_eq!(a.m.state(VOL).conn, Conn::Connected);
    hears(&mut a, Disk::Inconsistent);
    a.m.uuid_new_current(VOL, &mut a.h);
    hears(&mut a, Disk::UpToDate);
    assert_eq!(a.m.state(VOL).conn, Conn::WFConnection, "{:?}", a.log);
}

/// Two nodes in sync that are told to disconnect at the same moment; the first is the arbiter.
fn two_that_go() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    for n in [&mut a, &mut b] {
        n.attach(&with_flags(Md::CONSISTENT.with(Md::WAS_UP_TO_DATE)));
    }
    join(&mut a, &mut b, [NetConf::default(); 2]);
    for n in [&mut a, &mut b] {
        n.next_op += 1;
        let command = Command::Disconnect {
            peer: PEER,
            force: false,
        };
        n.m.command(OpId(n.next_op), command, &mut n.h);
        n.carry_out();
    }
    (a, b)
}

fn both_are_gone(a: &mut Node, b: &mut Node) {
    for n in [a, b] {
        n.h.now = n.h.now.plus(Duration::millis(200));
        n.carry_out();
        n.step(Input::ReceiverGone { peer: PEER });
        n.carry_out();
        let said = n.answer(n.next_op);
        assert_eq!(said, ErrCode::NoError.number(), "{:?}", n.log);
        assert_eq!(n.m.state(VOL).conn, Conn::StandAlone);
    }
}

/// What the arbiter asks for comes late, as it comes on the other socket than its answers.
#[test]
fn two_that_go_at_once_both_go() {
    let (mut a, mut b) = two_that_go();
    let late = std::mem::take(&mut a.sent);
    for _ in 0..4 {
        for p in std::mem::take(&mut b.sent) {
            deliver(p, &mut a);
        }
        for p in std::mem::take(&mut a.sent) {
            deliver(p, &mut b);
        }
    }
    assert!(b.m.state(VOL).conn < Conn::Connected, "{:?}", b.log);
    for p in late {
        deliver(p, &mut b);
    }
    talk(&mut a, &mut b);
    both_are_gone(&mut a, &mut b);
}

/// An arbiter that goes itself refuses, if it is a C node. It is asked again.
#[test]
fn a_refusal_because_of_concurrent_changes_is_not_the_last_word() {
    let (mut a, mut b) = two_that_go();
    let late = std::mem::take(&mut a.sent);
    for _ in 0..4 {
        for p in std::mem::take(&mut b.sent) {
            let Effect::Send { packet, .. } = &p else {
                continue;
            };
            assert!(matches!(packet, Packet::ConnStChgReq(_)), "{packet:?}");
            let not_now = Packet::ConnStChgReply(ReqReply {
                retcode: Ss::ConcurrentStChg.number(),
            });
            receive(&mut b, Sock::Meta, 0, not_now);
        }
        b.h.now = b.h.now.plus(Duration::millis(200));
        b.carry_out();
    }
    assert_eq!(b.m.state(VOL).conn, Conn::Connected);
    for p in late {
        deliver(p, &mut b);
    }
    talk(&mut a, &mut b);
    both_are_gone(&mut a, &mut b);
}

/// The administrator is killed before the peer answers, which begins a full sync that nobody wants.
#[test]
fn a_resync_that_nobody_asks_for_any_more_ends() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    for n in [&mut a, &mut b] {
        n.attach(&with_flags(Md::CONSISTENT.with(Md::WAS_UP_TO_DATE)));
    }
    join(&mut a, &mut b, [NetConf::default(); 2]);
    assert_eq!(b.m.state(VOL).conn, Conn::Connected, "{:?}", b.log);
    b.next_op += 1;
    let op = OpId(b.next_op);
    b.m.command(op, Command::Invalidate { vol: VOL }, &mut b.h);
    b.carry_out();
    b.m.cancel(op, &mut b.h);
    b.carry_out();
    assert_eq!(b.answer(op.0), ErrCode::Intr.number());
    talk(&mut a, &mut b);
    assert!(
        a.log.iter().any(|l| l.contains("-> StartingSyncS")),
        "{:?}",
        a.log
    );
    assert_eq!(b.m.state(VOL).conn, Conn::WFConnection, "{:?}", b.log);
    assert_eq!(b.disk(), Disk::UpToDate);
}

/// The peer has not heard so far that this disk is gone.
#[test]
fn a_node_without_a_disk_is_no_target() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    for n in [&mut a, &mut b] {
        n.attach(&with_flags(Md::CONSISTENT.with(Md::WAS_UP_TO_DATE)));
    }
    join(&mut a, &mut b, [NetConf::default(); 2]);
    let force = true;
    b.order(Command::Detach { vol: VOL, force });
    assert!(b.disk() < Disk::Inconsistent);
    b.sent.clear();
    a.next_op += 1;
    let command = Command::InvalidatePeer { vol: VOL };
    a.m.command(OpId(a.next_op), command, &mut a.h);
    a.carry_out();
    for p in std::mem::take(&mut a.sent) {
        deliver(p, &mut b);
    }
    let replies = b.sent.iter().filter_map(|e| match e {
        Effect::Send { packet, .. } => Some(packet),
        _ => None,
    });
    let refused = ReqReply {
        retcode: Ss::NoLocalDisk.number(),
    };
    let refused = Packet::StateChgReply(refused);
    assert_eq!(replies.collect::<Vec<_>>(), [&refused], "{:?}", b.log);
}

/// What the peer can take is kept in the metadata: a node that attaches without the peer must not
/// offer less to its applications than it did before.
#[test]
fn what_the_peer_takes_outlives_the_connection() {
    let stored = |n: &Node| n.m.disk(VOL).map(|d| d.superblock().la_peer_max_bio_size);
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    a.attach(&fresh());
    assert_eq!((stored(&a), a.m.max_bio(VOL)), (Some(4096), 4096));
    b.attach(&fresh());
    join(&mut a, &mut b, [NetConf::default(); 2]);
    assert_eq!(stored(&a), Some(1 << 20));
    let again = Superblock {
        la_peer_max_bio_size: stored(&a).unwrap(),
        ..fresh()
    };
    let mut alone = Node::new(3);
    alone.attach(&again);
    assert_eq!(alone.m.max_bio(VOL), 1 << 20);

    // A disk that comes while the peer is there takes over what the peer said.
    let (mut c, mut d) = (Node::new(4), Node::new(5));
    d.attach(&fresh());
    join(&mut c, &mut d, [NetConf::default(); 2]);
    c.attach(&fresh());
    talk(&mut c, &mut d);
    assert_eq!(stored(&c), Some(1 << 20), "{:?}", c.log);
}

#[test]
fn different_settings_mean_stand_alone() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let other = NetConf {
        wire_protocol: 1,
        ..NetConf::default()
    };
    join(&mut a, &mut b, [NetConf::default(), other]);
    for n in [&mut a, &mut b] {
        assert_eq!(n.m.receiver_wish(PEER), ReceiverWish::Exit);
        n.step(Input::ReceiverGone { peer: PEER });
        n.carry_out();
        assert_eq!(n.m.state(VOL).conn, Conn::StandAlone);
        assert!(n.log.iter().any(|l| l == "incompatible protocol settings"));
    }
}

/// How many seconds a node is patient with a peer that answers pings, and nothing else.
fn patience(n: &mut Node) -> u64 {
    n.step(Input::Connected {
        peer: PEER,
        apv: 101,
        features: feature::ALL,
        arbiter: true,
    });
    n.carry_out();
    for secs in 0..1000 {
        if n.m.conn(PEER).unwrap().ctl.cstate != Conn::WFReportParams {
            assert_eq!(n.m.conn(PEER).unwrap().ctl.cstate, Conn::WFConnection);
            return secs;
        }
        n.h.now = n.h.now.plus(Duration::secs(1));
        n.carry_out();
        let sent: Vec<_> = n.sent.drain(..).collect();
        for e in sent {
            if matches!(
                e,
                Effect::Send {
                    packet: Packet::Ping,
                    ..
                }
            ) {
                receive(n, Sock::Meta, 0, Packet::PingAck);
            }
        }
    }
    1000
}

#[test]
fn a_peer_that_does_not_go_on_is_left() {
    let mut n = Node::new(1);
    n.attach(&with_flags(Md::CONSISTENT.with(Md::WAS_UP_TO_DATE)));
    let conf = NetConf::default();
    assert_eq!(n.order(Command::Connect { peer: PEER, conf }), 1);
    assert_eq!([patience(&mut n), patience(&mut n)], [300, 600]);
    // It might be shot for that.
    n.m.disk_mut(VOL).unwrap().conf.fencing = 2;
    assert_eq!(patience(&mut n), 1000);
}
