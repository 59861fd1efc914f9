// SPDX-License-Identifier: GPL-2.0

//! I/O of one node, with a host that records what it is asked for and a peer that is played.

use super::super::io::*;
use super::super::{control, resync, Backing, PeerDevice, Resource, Store, VolumeStorage, PEER};
use super::*;
use crate::al::ActivityLog;
use crate::bitmap::{BitSpan, Bitmap, PageFlags};
use crate::meta::layout::{Devices, Kind, Layout, Striping};
use crate::meta::Superblock;
use crate::nl::conf::{DiskConf, NetConf, ResourceOpts};
use crate::resync_extents::ResyncExtents;
use crate::state::conn::State as Conn;
use crate::state::{meta_flags, Role};
use crate::store::lru;
use crate::units::{AlExtent, BmBit, Minor, Sector, SectorRange, Sectors};
use crate::wire::data::dp;
use crate::wire::{Barrier, BarrierAck, BarrierNr, BlockAck, BlockId, BlockReq, Data, Packet};

mod at_peer;
mod caches;
mod conflict;
mod copies;
mod gate;
mod news;
mod peer;
mod proof;
mod protocol_a;

struct Heap;

impl Store for Heap {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

#[derive(Default)]
struct Tape {
    now: u64,
    effects: Vec<Effect>,
    used: usize,
}

impl Host for Tape {
    fn now(&self) -> Instant {
        Instant(self.now)
    }
    fn random(&mut self) -> u64 {
        4
    }
    fn emit(&mut self, effect: Effect) {
        self.used += 1;
        assert!(self.used <= MAX_EFFECTS);
        self.effects.push(effect);
    }
    fn room(&self) -> usize {
        MAX_EFFECTS - self.used
    }
}

const VOL: VolIx = VolIx(0);
const SIZE: Sectors = Sectors(1 << 21);

struct Node {
    r: Resource<Heap>,
    tape: Tape,
}

fn filled<T>(n: usize, f: impl Fn() -> T) -> Vec<T> {
    (0..n).map(|_| f()).collect()
}

fn backing() -> Backing<Heap> {
    let devices = Devices {
        backing: Sectors(SIZE.0 + 4096),
        meta: Sectors(SIZE.0 + 4096),
    };
    let layout = Layout::compute(Kind::Internal, devices, Striping::DEFAULT).unwrap();
    let need = crate::bitmap::Need::of(SIZE);
    let words = vec![0; usize::try_from(need.words).unwrap()];
    let flags = vec![PageFlags::EMPTY; usize::try_from(need.pages).unwrap()];
    let Ok(bitmap) = Bitmap::new(SIZE, words, flags) else {
        panic!()
    };
    let sb = Superblock::decode(&[0; 4096]);
    let conf = DiskConf::default();
    let mut disk = control::Disk::new(conf, &sb, layout, devices, Default::default());
    // The generation of a Primary that was alone once.
    disk.uuids.bitmap = 2;
    Backing {
        disk,
        al: ActivityLog::new(filled(67, || lru::Slot::EMPTY)),
        bitmap,
        extents: ResyncExtents::new(filled(61, crate::resync_extents::Slot::default)),
        meta_io: MetaIo::new(),
    }
}

impl Node {
    /// A node with a good disk, alone.
    fn new(role: Role) -> Node {
        let storage = Storage {
            requests: filled(64, || Slot::EMPTY),
            peer_requests: filled(64, || Slot::EMPTY),
            peer_waiting: vec![None; 64],
            sent_epochs: vec![None; 64],
        };
        let conns = filled(1, Connection::new);
        let mut r: Resource<Heap> =
            Resource::new(ResourceOpts::default(), filled(1, || None), conns, storage);
        let mut tape = Tape::default();
        let writes = filled(64, || interval::Slot::EMPTY);
        assert!(r
            .add_volume(
                Minor(0),
                Vnr(0),
                VolumeStorage {
                    writes,
                    peers: vec![PeerDevice::new()]
                },
                &mut tape
            )
            .is_ok());
        let v = r.volumes[0].as_mut().unwrap();
        let mut disk = backing();
        if role == Role::Primary {
            // As the superblock says since the promotion.
            disk.disk.flags = meta_flags::PRIMARY_IND;
            disk.meta_io.log_counts = true;
        }
        v.backing.put(Box::new(disk));
        v.size = SIZE;
        v.state.role = role;
        v.state.disk = Disk::UpToDate;
        r.conns[0].ctl.conf = Some(NetConf::default());
        Node { r, tape }
    }

    /// A node with a good disk, connected to a good peer.
    fn connected(role: Role) -> Node {
        let mut n = Node::new(role);
        n.connect();
        n
    }

    fn connect(&mut self) {
        let c = &mut self.r.conns[0].ctl;
        c.phase = control::Phase::Up;
        c.agreed = Some(control::Agreed {
            apv: 101,
            features: 15,
            arbiter: false,
        });
        c.cstate = Conn::WFReportParams;
        let s = &mut self.r.volumes[0].as_mut().unwrap().state;
        s.conn = Conn::Connected;
        s.pdsk = Disk::UpToDate;
        self.r.requests_connected(PEER);
    }

    fn state(&mut self) -> &mut State {
        &mut self.r.volumes[0].as_mut().unwrap().state
    }

    fn backing(&mut self) -> &mut Backing<Heap> {
        self.r.volumes[0]
            .as_mut()
            .unwrap()
            .backing
            .as_mut()
            .unwrap()
    }

    fn dirty(&mut self, sector: u64) -> bool {
        self.backing().bitmap.test(BmBit(sector / 8)).unwrap()
    }

    /// Runs `f` as one step, and the pump behind it until it rests.
    fn step(&mut self, f: impl FnOnce(&mut Resource<Heap>, &mut Tape)) -> Vec<Effect> {
        self.tape.used = 0;
        f(&mut self.r, &mut self.tape);
        loop {
            let more = self.r.request_pump(&mut self.tape);
            if !more {
                break;
            }
            self.tape.used = 0;
        }
        core::mem::take(&mut self.tape.effects)
            .into_iter()
            .filter(|e| !matches!(e, Effect::Log { .. }))
            .collect()
    }

    fn submit(&mut self, app: u32, op: AppOp, sector: u64, bytes: u32) -> Vec<Effect> {
        let io = AppIo {
            app: AppId(app),
            op,
            range: SectorRange::new(Sector(sector), bytes),
            flags: IoFlags::default(),
        };
        self.step(|r, h| r.submit(VOL, io, h))
    }

    fn write(&mut self, app: u32, sector: u64) -> Vec<Effect> {
        self.submit(app, AppOp::Write, sector, 4096)
    }

    fn local(&mut self, io: IoToken, result: AppResult) -> Vec<Effect> {
        self.step(|r, h| r.local_done(io, None, result, h))
    }

    fn meta(&mut self, io: IoToken) -> Vec<Effect> {
        self.step(|r, h| r.meta_done(io, None, Ok(()), h))
    }

    fn recv(&mut self, packet: Packet) -> Vec<Effect> {
        self.step(|r, h| assert_eq!(r.recv_request_packet(VOL, &packet, None, true, h), Ok(())))
    }

    fn violates(&mut self, packet: Packet) -> bool {
        let mut taken = Ok(());
        self.step(|r, h| taken = r.recv_request_packet(VOL, &packet, None, true, h));
        taken.is_err()
    }

    fn sent(&mut self, token: SendToken) -> Vec<Effect> {
        self.step(|r, h| r.packet_sent(PEER, token, h))
    }

    /// Brings the extent of `sector` into the log by a write of its own.
    fn warm(&mut self, app: u32, sector: u64) {
        let fx = self.write(app, sector);
        let fx = self.meta(meta_token(&fx));
        assert!(self.finish(&fx));
    }

    /// The peer says that an epoch is stable, and shows it.
    fn stable(&mut self, nr: BarrierNr, writes: u32) {
        self.recv(barrier_ack(nr, writes));
        self.step(|r, h| r.epoch_proven(PEER, h));
    }

    /// Answers everything that a write waits for, up to the barrier acknowledgement.
    fn finish(&mut self, fx: &[Effect]) -> bool {
        let mut done = Vec::new();
        if let Some((token, packet)) = sent_packet(fx) {
            done.extend(self.sent(token));
            done.extend(self.recv(ack_for(&packet, Packet::WriteAck)));
        }
        done.extend(self.local(local_token(fx), Ok(())));
        if let Some(nr) = barrier(&done) {
            self.stable(nr, 1);
        }
        completion(&done) == Some(Ok(()))
    }
}

fn meta_token(fx: &[Effect]) -> IoToken {
    let found = fx.iter().find_map(|e| match e {
        Effect::Meta { io, .. } => Some(*io),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no metadata in {fx:?}"))
}

fn local_token(fx: &[Effect]) -> IoToken {
    let found = fx.iter().find_map(|e| match e {
        Effect::Local { io, .. } => Some(*io),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no local I/O in {fx:?}"))
}

fn has_local(fx: &[Effect]) -> bool {
    fx.iter().any(|e| matches!(e, Effect::Local { .. }))
}

fn sent_packet(fx: &[Effect]) -> Option<(SendToken, Packet)> {
    fx.iter().find_map(|e| match e {
        Effect::Send { token, packet, .. } if *token != SendToken(0) => Some((*token, *packet)),
        _ => None,
    })
}

fn packets(fx: &[Effect]) -> Vec<Packet> {
    fx.iter()
        .filter_map(|e| match e {
            Effect::Send { packet, .. } => Some(*packet),
            _ => None,
        })
        .collect()
}

fn barrier(fx: &[Effect]) -> Option<BarrierNr> {
    packets(fx).iter().find_map(|p| match p {
        Packet::Barrier(b) => Some(b.nr),
        _ => None,
    })
}

fn completion(fx: &[Effect]) -> Option<AppResult> {
    fx.iter().find_map(|e| match e {
        Effect::Complete { result, .. } => Some(*result),
        _ => None,
    })
}

fn barrier_ack(nr: BarrierNr, set_size: u32) -> Packet {
    Packet::BarrierAck(BarrierAck { nr, set_size })
}

fn ack_for(packet: &Packet, ack: fn(BlockAck) -> Packet) -> Packet {
    let (sector, block_id) = match packet {
        Packet::Data(p) => (p.sector, p.block_id),
        Packet::DataRequest(p) => (p.sector, p.block_id),
        _ => panic!("{packet:?}"),
    };
    ack(BlockAck {
        sector,
        block_id,
        blksize: 4096,
        seq_num: 1,
    })
}

fn data(sector: u64, id: u64, flags: u32) -> Data {
    Data {
        sector: Sector(sector),
        block_id: BlockId(id),
        seq_num: 1,
        flags,
    }
}

impl Node {
    fn recv_data(&mut self, sector: u64, id: u64, flags: u32) -> Vec<Effect> {
        let p = Packet::Data(data(sector, id, flags));
        let buf = BufId(u32::try_from(id).unwrap());
        self.step(|r, h| {
            assert_eq!(
                r.recv_request_packet(VOL, &p, Some((buf, 4096)), true, h),
                Ok(())
            );
        })
    }
}

#[test]
fn data_moves_only_behind_the_activity_log() {
    let mut n = Node::connected(Role::Primary);
    let fx = n.write(1, 0);
    assert!(!has_local(&fx) && packets(&fx).is_empty());
    // Nothing was evicted: the block is written at once, durably.
    assert!(matches!(
        fx.as_slice(),
        [Effect::Meta {
            op: MetaOp::WriteAl,
            flags: IoFlags {
                fua: true,
                preflush: true,
                ..
            },
            ..
        }]
    ));
    // A second extent has to wait for the next transaction, a second write in this one too.
    assert!(n.write(2, 8192).is_empty());
    assert!(n.write(3, 8).is_empty());
    let fx = n.meta(meta_token(&fx));
    let locals = fx
        .iter()
        .filter(|e| matches!(e, Effect::Local { .. }))
        .count();
    assert_eq!(locals, 2, "{fx:?}");
    assert_eq!(packets(&fx).len(), 2);
    let fx = n.meta(meta_token(&fx));
    assert!(has_local(&fx));
    // A hit goes on at once.
    assert!(has_local(&n.write(4, 16)));
}

#[test]
fn protocol_c_completes_on_both_legs_and_lives_until_the_barrier_ack() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    let (token, packet) = sent_packet(&fx).unwrap();
    assert!(n.sent(token).is_empty());
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), None);
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), Some(Ok(())));
    let nr = barrier(&fx).unwrap();
    assert_eq!(n.backing().al.used(), 1);
    assert!(n.violates(barrier_ack(BarrierNr(nr.0.wrapping_add(1)), 1)));
    assert!(n.violates(barrier_ack(nr, 2)));
    n.stable(nr, 1);
    assert_eq!(n.backing().al.used(), 0);
    assert!(!n.dirty(8));
    assert!(n.violates(ack_for(&packet, Packet::WriteAck)));
    assert!(n.r.io.requests.is_empty() && n.r.io.log.oldest().is_none());
}

#[test]
fn a_peer_that_refuses_leaves_a_mark_at_once_and_the_reference_until_the_barrier() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    n.recv(ack_for(&packet, Packet::NegAck));
    let fx = n.local(local_token(&fx), Ok(()));
    assert_eq!(completion(&fx), Some(Ok(())));
    assert_eq!((n.dirty(8), n.backing().al.used()), (true, 1));
    n.stable(barrier(&fx).unwrap(), 1);
    assert_eq!((n.dirty(8), n.backing().al.used()), (true, 0));
}

#[test]
fn without_a_peer_every_write_is_marked() {
    let mut n = Node::new(Role::Primary);
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    assert!(packets(&fx).is_empty());
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), Some(Ok(())));
    assert!(n.dirty(0));
    assert_eq!(n.backing().al.used(), 0);
    assert!(n.r.io.requests.is_empty());
}

#[test]
fn overlapping_writes_follow_each_other() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let first = n.write(2, 8);
    assert!(n.submit(3, AppOp::Write, 12, 4096).is_empty());
    assert!(has_local(&n.write(4, 64)));
    let (token, packet) = sent_packet(&first).unwrap();
    n.sent(token);
    n.local(local_token(&first), Ok(()));
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert!(has_local(&fx), "{fx:?}");
    // In an epoch of its own, behind a barrier.
    assert!(matches!(packets(&fx)[0], Packet::Barrier(_)));
}

#[test]
fn epochs_count_what_was_sent() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx: Vec<_> = (0..3)
        .map(|i| n.write(10 + i, 8 + u64::from(i) * 8))
        .collect();
    assert!(fx.iter().all(|f| barrier(f).is_none()));
    let (token, packet) = sent_packet(&fx[1]).unwrap();
    n.sent(token);
    n.local(local_token(&fx[1]), Ok(()));
    let done = n.recv(ack_for(&packet, Packet::WriteAck));
    let nr = barrier(&done).unwrap();
    for f in [&fx[0], &fx[2]] {
        let (token, packet) = sent_packet(f).unwrap();
        n.sent(token);
        n.recv(ack_for(&packet, Packet::WriteAck));
        assert_eq!(barrier(&n.local(local_token(f), Ok(()))), None);
    }
    n.stable(nr, 3);
    assert!(n.r.io.requests.is_empty());
}

#[test]
fn a_barrier_ack_before_the_write_ack_is_a_violation() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    n.sent(sent_packet(&fx).unwrap().0);
    n.r.new_epoch(&mut n.tape);
    let fx = n.step(|_, _| ());
    let nr = barrier(&fx).unwrap();
    n.step(|r, h| {
        let _ = r.recv_request_packet(VOL, &barrier_ack(nr, 1), None, true, h);
        r.epoch_proven(PEER, h);
    });
    assert_eq!(n.r.conns[0].ctl.cstate, Conn::ProtocolError);
}

#[test]
fn a_flush_closes_the_epoch_and_goes_to_the_disk() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    n.write(2, 8);
    let fx = n.submit(3, AppOp::Flush, 0, 0);
    assert!(barrier(&fx).is_some());
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), Some(Ok(())));
}

#[test]
fn a_flush_without_a_disk_is_over_at_once() {
    for op in [AppOp::Flush, AppOp::Discard] {
        let mut n = Node::connected(Role::Primary);
        n.state().disk = Disk::Diskless;
        n.write(3, 0);
        let fx = n.submit(4, op, 0, 0);
        assert_eq!(completion(&fx), Some(Ok(())));
        assert!(!has_local(&fx));
        assert_eq!(n.r.io.requests.len(), 1);
    }
}

#[test]
fn a_failed_read_is_marked_and_asked_of_the_peer() {
    let mut n = Node::connected(Role::Primary);
    n.backing().disk.conf.on_io_error = 0;
    let fx = n.submit(1, AppOp::Read, 0, 4096);
    let fx = n.local(local_token(&fx), Err(IoError::Io));
    assert_eq!(completion(&fx), None);
    assert!(n.dirty(0));
    let (token, packet) = sent_packet(&fx).unwrap();
    let Packet::DataRequest(req) = packet else {
        panic!()
    };
    n.sent(token);
    let reply = Packet::DataReply(data(0, req.block_id.0, 0));
    assert_eq!(completion(&n.recv(reply)), Some(Ok(())));
    assert!(n.violates(reply));
    assert!(n.r.io.requests.is_empty());
}

#[test]
fn a_read_that_fails_on_both_sides_fails() {
    let mut n = Node::connected(Role::Primary);
    n.backing().disk.conf.on_io_error = 0;
    let fx = n.submit(1, AppOp::Read, 0, 4096);
    let fx = n.local(local_token(&fx), Err(IoError::Io));
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    let fx = n.recv(ack_for(&packet, Packet::NegDreply));
    assert_eq!(completion(&fx), Some(Err(IoError::Io)));
    assert!(n.r.io.requests.is_empty());
}

#[test]
fn an_inconsistent_disk_is_read_where_it_is_clean() {
    let mut n = Node::connected(Role::Primary);
    n.state().disk = Disk::Inconsistent;
    n.state().conn = Conn::SyncTarget;
    let span = BitSpan::new(BmBit(1), BmBit(1)).unwrap();
    n.backing().bitmap.set(span);
    assert!(has_local(&n.submit(1, AppOp::Read, 0, 4096)));
    assert!(!has_local(&n.submit(2, AppOp::Read, 0, 8192)));
    assert!(!has_local(&n.submit(3, AppOp::Read, 8, 512)));
}

#[test]
fn a_lost_connection_completes_what_the_disk_has_and_marks_it() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    n.local(local_token(&fx), Ok(()));
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.state().conn = Conn::NetworkFailure;
    n.state().pdsk = Disk::DUnknown;
    // Not before the sender stands still: the pages are still queued.
    assert!(n.step(|_, _| ()).is_empty());
    let fx = n.step(|r, h| r.requests_connection_lost(PEER, h));
    assert_eq!(completion(&fx), Some(Ok(())));
    assert!(n.dirty(8));
    assert_eq!(n.backing().al.used(), 0);
}

#[test]
fn suspended_io_is_frozen_and_sent_again() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    n.sent(sent_packet(&fx).unwrap().0);
    n.local(local_token(&fx), Ok(()));
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.state().conn = Conn::NetworkFailure;
    n.state().pdsk = Disk::DUnknown;
    n.state().susp_fen = true;
    assert!(n
        .step(|r, h| r.requests_connection_lost(PEER, h))
        .is_empty());
    assert!(n.write(3, 16).is_empty());
    assert!(!n.dirty(8));
    n.connect();
    let fx = n.step(|r, h| r.thaw_all(Thaw::Resend, h));
    let (token, packet) = sent_packet(&fx).unwrap();
    assert!(matches!(packet, Packet::Data(p) if p.sector == Sector(8)));
    n.state().susp_fen = false;
    let fx = n.step(|_, _| ());
    assert!(has_local(&fx), "the new one follows: {fx:?}");
    n.sent(token);
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), Some(Ok(())));
}

#[test]
fn a_suspended_write_without_data_waits_for_the_disk() {
    let mut n = Node::new(Role::Primary);
    n.backing().disk.conf.on_io_error = 0;
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    n.state().susp_nod = true;
    assert_eq!(
        completion(&n.local(local_token(&fx), Err(IoError::Io))),
        None
    );
    n.state().disk = Disk::UpToDate;
    let fx = n.step(|r, h| r.thaw_all(Thaw::RestartLocal, h));
    assert!(!has_local(&fx), "it begins anew, with the activity log");
    n.state().susp_nod = false;
    let fx = n.step(|_, _| ());
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), Some(Ok(())));
}

#[test]
fn a_new_primary_stores_that_its_log_counts_before_it_writes() {
    let mut n = Node::connected(Role::Primary);
    n.backing().meta_io.log_counts = false;
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    assert!(!has_local(&fx) && packets(&fx).is_empty());
    let fx = n.meta(meta_token(&fx));
    assert!(has_local(&fx) && sent_packet(&fx).is_some());
}

#[test]
fn evicted_bitmap_pages_are_stable_before_the_block() {
    let mut n = Node::new(Role::Primary);
    // 67 slots: the 68th extent evicts the first one, whose page has been marked meanwhile.
    for i in 0..67 {
        let fx = n.write(i, u64::from(i) * 8192);
        let fx = n.meta(meta_token(&fx));
        n.local(local_token(&fx), Ok(()));
    }
    let fx = n.write(99, 67 * 8192);
    let [Effect::Meta {
        op: MetaOp::WriteBitmap { page: 0 },
        io,
        ..
    }] = fx[..]
    else {
        panic!("{fx:?}")
    };
    let mut page = [0; 4096];
    n.r.fill_page(io, &mut page);
    assert_eq!(page[0] & 1, 1);
    let fx = n.meta(io);
    assert!(matches!(
        fx[..],
        [Effect::Meta {
            op: MetaOp::WriteAl,
            ..
        }]
    ));
    assert!(has_local(&n.meta(meta_token(&fx))));
}

#[test]
fn a_transaction_that_fails_ends_in_an_error_not_in_a_write() {
    let mut n = Node::new(Role::Primary);
    let fx = n.write(1, 0);
    let io = meta_token(&fx);
    let fx = n.step(|r, h| r.meta_done(io, None, Err(IoError::Io), h));
    assert!(!has_local(&fx));
    assert_eq!(completion(&fx), Some(Err(IoError::Io)));
    assert_eq!(n.state().disk, Disk::Failed);
}

#[test]
fn superblock_writes_join() {
    let mut n = Node::new(Role::Secondary);
    let first = n.step(|r, h| r.md_sync(VOL, After::Nothing, h));
    assert_eq!(first.len(), 1);
    assert!(n.step(|r, h| r.md_sync(VOL, After::Nothing, h)).is_empty());
    assert!(n.step(|r, h| r.md_sync(VOL, After::Nothing, h)).is_empty());
    // What was asked for meanwhile needs a write of its own: the page may have been filled before.
    assert_eq!(n.meta(meta_token(&first)).len(), 1);
    assert!(n.meta(meta_token(&first)).is_empty());
    n.step(|r, h| r.md_dirty(VOL, h));
    assert_eq!(n.r.request_deadline(), Some(Instant(5_000_000_000)));
    n.tape.now = 5_000_000_000;
    assert_eq!(n.step(|_, _| ()).len(), 1);
    assert!(!n.r.md_is_dirty(VOL));
}

/// Whoever drives the machine steps as long as something is due: what waits for a slow disk must
/// not be (seen in a VM: the worker never got to the completion that it waited for).
#[test]
fn a_superblock_that_is_due_again_while_it_is_written_is_no_timer() {
    let mut n = Node::new(Role::Secondary);
    let first = n.step(|r, h| r.md_sync(VOL, After::Nothing, h));
    n.step(|r, h| r.md_dirty(VOL, h));
    n.tape.now = n.r.request_deadline().unwrap().0;
    assert!(n.step(|_, _| ()).is_empty());
    assert_eq!(n.r.request_deadline(), None);
    assert_eq!(n.meta(meta_token(&first)).len(), 1);
}

#[test]
fn bitmap_jobs_write_what_changed() {
    let mut n = Node::new(Role::Secondary);
    let span = BitSpan::new(BmBit(0), BmBit(0)).unwrap();
    n.backing().bitmap.set(span);
    let fx = n.step(|r, h| r.write_bitmap(VOL, Pages::Changed, After::Nothing, h));
    assert!(matches!(
        fx[..],
        [Effect::Meta {
            op: MetaOp::WriteBitmap { page: 0 },
            ..
        }]
    ));
    n.meta(meta_token(&fx));
    assert!(n
        .step(|r, h| r.write_bitmap(VOL, Pages::Changed, After::Nothing, h))
        .is_empty());
    let fx = n.step(|r, h| r.write_bitmap(VOL, Pages::All, After::Nothing, h));
    assert_eq!(fx.len(), 8);
    assert_eq!(n.r.io_counts(VOL).bitmap_writes, 9);
}

#[test]
fn a_slow_peer_is_given_up() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    n.sent(sent_packet(&fx).unwrap().0);
    // 6 s, seven times.
    for s in 1..=42 {
        n.tape.now = s * 1_000_000_000;
        n.step(|_, _| ());
        assert_eq!(n.r.conns[0].ctl.cstate, Conn::WFReportParams);
    }
    n.tape.now = 44_000_000_000;
    n.step(|_, _| ());
    assert_eq!(n.r.conns[0].ctl.cstate, Conn::Timeout);
}

#[test]
fn steps_stay_within_their_room() {
    let mut n = Node::new(Role::Primary);
    let fx = n.write(0, 0);
    for i in 1..60 {
        assert!(n.write(i, u64::from(i) * 8).is_empty());
    }
    // Sixty writes go on at once; the tape checks the bound of each step.
    let fx = n.meta(meta_token(&fx));
    assert_eq!(
        fx.iter()
            .filter(|e| matches!(e, Effect::Local { .. }))
            .count(),
        60
    );
}
