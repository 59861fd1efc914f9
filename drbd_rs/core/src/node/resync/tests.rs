// SPDX-License-Identifier: GPL-2.0

//! Digests, zeroes and verify of one node, with a host that records and a peer that is played.

use super::super::io::*;
use super::super::{control, request, Backing, Connection, PeerDevice, Resource, Storage, Store};
use super::super::{Violation, VolumeStorage, PEER};
use super::*;
use crate::al::ActivityLog;
use crate::bitmap::{Bitmap, PageFlags};
use crate::meta::layout::{Devices, Kind as Placement, Layout, Striping};
use crate::meta::Superblock;
use crate::nl::conf::{DiskConf, NetConf, ResourceOpts};
use crate::nl::Str;
use crate::resync_extents::ResyncExtents;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::store::{interval, lru, slab};
use crate::units::{BmBit, Minor, Sector, Vnr};
use crate::wire::bitmap_chunk::{Chunk, SendCursor};
use crate::wire::{BlockReq, OvResult, OvVerdict};

struct Heap;

impl Store for Heap {
    type Vec<T> = Vec<T>;
    type Box<T> = Box<T>;
}

#[derive(Default)]
struct Tape {
    now: u64,
    effects: Vec<Effect>,
}

impl Host for Tape {
    fn now(&self) -> Instant {
        Instant(self.now)
    }
    fn random(&mut self) -> u64 {
        4
    }
    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
        assert!(self.effects.len() <= MAX_EFFECTS);
    }
    fn room(&self) -> usize {
        MAX_EFFECTS - self.effects.len()
    }
}

const VOL: VolIx = VolIx(0);
/// 4 MiB and a half block.
const SIZE: Sectors = Sectors(8196);
const BITS: u64 = 1025;

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
    let layout = Layout::compute(Placement::Internal, devices, Striping::DEFAULT).unwrap();
    let need = crate::bitmap::Need::of(SIZE);
    let words = vec![0; usize::try_from(need.words).unwrap()];
    let flags = vec![PageFlags::EMPTY; usize::try_from(need.pages).unwrap()];
    let Ok(bitmap) = Bitmap::new(SIZE, words, flags) else {
        panic!()
    };
    let sb = Superblock::decode(&[0; 4096]);
    let conf = DiskConf::default();
    Backing {
        disk: control::Disk::new(conf, &sb, layout, devices, Default::default()),
        al: ActivityLog::new(filled(67, || lru::Slot::EMPTY)),
        bitmap,
        extents: ResyncExtents::new(filled(61, crate::resync_extents::Slot::default)),
        meta_io: request::MetaIo::new(),
    }
}

impl Node {
    /// A node with a good disk, connected to a good peer.
    fn new(apv: u32) -> Node {
        let storage = Storage {
            requests: filled(8, || slab::Slot::EMPTY),
            peer_requests: filled(8, || slab::Slot::EMPTY),
            peer_waiting: vec![None; 8],
            sent_epochs: vec![None; 8],
        };
        let conns = filled(1, Connection::new);
        let mut r: Resource<Heap> =
            Resource::new(ResourceOpts::default(), filled(1, || None), conns, storage);
        let mut tape = Tape::default();
        let room = VolumeStorage {
            writes: filled(8, || interval::Slot::EMPTY),
            peers: vec![PeerDevice::new()],
        };
        assert!(r.add_volume(Minor(7), Vnr(0), room, &mut tape).is_ok());
        let v = r.volumes[0].as_mut().unwrap();
        v.backing.put(Box::new(backing()));
        v.size = SIZE;
        v.state.disk = Disk::UpToDate;
        v.state.pdsk = Disk::UpToDate;
        v.state.conn = Conn::Connected;
        let c = &mut r.conns[0].ctl;
        c.conf = Some(NetConf {
            csums_alg: Str::new(b"md5").unwrap(),
            verify_alg: Str::new(b"crc32c").unwrap(),
            ..NetConf::default()
        });
        c.phase = control::Phase::Up;
        c.agreed = Some(control::Agreed {
            apv,
            features: 15,
            arbiter: false,
        });
        c.cstate = Conn::WFReportParams;
        let mut n = Node { r, tape };
        n.step(|_, _| {});
        n
    }

    /// Runs `f`, then the pump until it rests.
    fn step<T>(&mut self, f: impl FnOnce(&mut Resource<Heap>, &mut Tape) -> T) -> (T, Vec<Effect>) {
        self.tape.effects.clear();
        let out = f(&mut self.r, &mut self.tape);
        let mut all = core::mem::take(&mut self.tape.effects);
        while self.r.resync_pump(&mut self.tape) {
            all.append(&mut self.tape.effects);
        }
        all.append(&mut self.tape.effects);
        all.retain(|e| !matches!(e, Effect::Log { .. } | Effect::SyncPosted { .. }));
        (out, all)
    }

    fn tick(&mut self, millis: u64) -> Vec<Effect> {
        self.tape.now += millis * 1_000_000;
        self.step(|_, _| {}).1
    }

    fn conn(&mut self, conn: Conn) -> Vec<Effect> {
        let source = conn == Conn::VerifyS;
        self.r.volumes[0].as_mut().unwrap().state.conn = conn;
        if !conn.is_verify() {
            return self.step(|_, _| {}).1;
        }
        self.step(|r, h| r.verify_begins(VOL, source, h)).1
    }

    fn recv(&mut self, packet: Packet, body: &[u8]) -> (Result<(), Violation>, Vec<Effect>) {
        self.step(|r, h| r.recv_resync_packet(VOL, &packet, None, body, true, h))
    }

    /// The local disk has read what was asked for.
    fn read(&mut self, io: IoToken, ok: bool) -> Vec<Effect> {
        let (buf, result) = match ok {
            true => (Some(BufId(5)), Ok(())),
            false => (None, Err(IoError::Io)),
        };
        self.step(|r, h| r.resync_local_done(io, buf, result, h)).1
    }

    fn examined(&mut self, io: IoToken, result: Examined) -> Vec<Effect> {
        self.step(|r, h| r.resync_examined(io, result, h)).1
    }

    fn bits(&self) -> u64 {
        self.r.out_of_sync(VOL)
    }
}

fn request(bit: u64) -> BlockReq {
    BlockReq {
        sector: BmBit(bit).sector(),
        block_id: BlockId::SYNCER,
        blksize: if bit == BITS - 1 { 2048 } else { 4096 },
    }
}

fn token_of(fx: &[Effect]) -> IoToken {
    let tokens: Vec<_> = fx
        .iter()
        .filter_map(|e| match e {
            Effect::Local { io, .. } | Effect::Examine { io, .. } => Some(*io),
            _ => None,
        })
        .collect();
    assert_eq!(tokens.len(), 1, "{fx:?}");
    tokens[0]
}

fn packets(fx: &[Effect]) -> Vec<(Packet, Payload)> {
    fx.iter()
        .filter_map(|e| match e {
            Effect::Send {
                packet, payload, ..
            } => Some((*packet, *payload)),
            _ => None,
        })
        .collect()
}

fn digest(n: u8) -> Digest {
    Digest::new(&[n; 4]).unwrap()
}

fn verdict(bit: u64, verdict: OvVerdict, seq_num: u32) -> Packet {
    Packet::OvResult(OvResult {
        sector: BmBit(bit).sector(),
        verdict,
        blksize: request(bit).blksize,
        seq_num,
    })
}

#[test]
fn a_request_with_a_digest_is_answered_by_what_it_says() {
    for (own, equal) in [(digest(1), true), (digest(2), false)] {
        let mut n = Node::new(101);
        n.conn(Conn::SyncSource);
        n.r.volumes[0].as_mut().unwrap().state.pdsk = Disk::Inconsistent;
        let (taken, fx) = n.recv(Packet::CsumRsRequest(request(3)), &[1; 4]);
        assert_eq!(taken, Ok(()));
        let fx = n.read(token_of(&fx), true);
        let what = Examine::Digest(DigestFor::Csums);
        assert!(fx
            .iter()
            .any(|e| matches!(e, Effect::Examine { what: w, buf: Some(_), .. } if *w == what)));
        let fx = n.examined(token_of(&fx), Examined::Digest(own));
        let sent = packets(&fx);
        assert_eq!(sent.len(), 1);
        assert_eq!(matches!(sent[0].0, Packet::RsIsInSync(_)), equal);
        assert_eq!(matches!(sent[0].0, Packet::RsDataReply(_)), !equal);
        assert_eq!(fx.contains(&Effect::Free(BufId(5))), equal);
        assert_eq!(n.r.rs(VOL).unwrap().same, u64::from(equal));
    }
}

#[test]
fn only_zeroes_are_called_zeroes() {
    for zero in [true, false] {
        let mut n = Node::new(101);
        n.conn(Conn::SyncSource);
        n.r.volumes[0].as_mut().unwrap().state.pdsk = Disk::Inconsistent;
        let (_, fx) = n.recv(Packet::RsThinReq(request(3)), &[]);
        let fx = n.read(token_of(&fx), true);
        let fx = n.examined(token_of(&fx), Examined::Zeroes(zero));
        let sent = packets(&fx);
        assert_eq!(matches!(sent[0].0, Packet::RsDeallocated(_)), zero);
        assert_eq!(matches!(sent[0].0, Packet::RsDataReply(_)), !zero);
    }
}

#[test]
fn digests_are_of_a_size_that_there_is() {
    let mut n = Node::new(101);
    n.conn(Conn::VerifyS);
    for body in [&[][..], &[7; 65]] {
        let (taken, _) = n.recv(Packet::CsumRsRequest(request(3)), body);
        assert_eq!(taken, Err(Violation::Digest));
        let (taken, _) = n.recv(Packet::OvReply(request(3)), body);
        assert_eq!(taken, Err(Violation::Digest));
    }
}

#[test]
fn blocks_of_a_verify_are_judged_in_their_order() {
    let mut n = Node::new(101);
    let asked = packets(&n.conn(Conn::VerifyS));
    assert!(asked.len() > 2, "{asked:?}");
    assert_eq!(asked[0].0, Packet::OvRequest(request(0)));
    let reads: Vec<_> = (0..2)
        .map(|bit| token_of(&n.recv(Packet::OvReply(request(bit)), &[1; 4]).1))
        .collect();
    let looks: Vec<_> = reads
        .iter()
        .map(|io| token_of(&n.read(*io, true)))
        .collect();
    // The second one is known first.
    let fx = n.examined(looks[1], Examined::Digest(digest(1)));
    assert_eq!(packets(&fx), []);
    let fx = n.examined(looks[0], Examined::Digest(digest(2)));
    let sent: Vec<_> = packets(&fx).into_iter().map(|p| p.0).collect();
    let wanted = [
        verdict(0, OvVerdict::OutOfSync, 1),
        verdict(1, OvVerdict::InSync, 2),
    ];
    assert_eq!(sent, wanted);
    assert_eq!(n.bits(), 1);
    assert_eq!(n.r.rs(VOL).unwrap().verify.left, BITS - 2);
    // What was compared is not compared again.
    n.step(|r, h| r.verify_ends(VOL, h));
    assert_eq!(n.r.verify_start(VOL), Sector(16));
}

#[test]
fn a_digest_that_nobody_asked_for_marks_nothing() {
    let mut n = Node::new(101);
    let (taken, fx) = n.recv(Packet::OvReply(request(9)), &[1; 4]);
    assert_eq!(taken, Ok(()));
    assert_eq!(packets(&fx)[0].0, verdict(9, OvVerdict::InSync, 1));
    assert_eq!((fx.len(), n.bits()), (1, 0));
}

#[test]
fn a_block_that_cannot_be_read_proves_nothing() {
    let mut n = Node::new(101);
    n.conn(Conn::VerifyT);
    let (_, fx) = n.recv(Packet::OvRequest(request(1024)), &[]);
    // The last block is a short one, and the first request says where the verify starts.
    assert_eq!(n.r.rs(VOL).unwrap().verify.left, 1);
    let fx = n.read(token_of(&fx), false);
    let blank = |e: &Effect| matches!(e, Effect::Examine { buf: None, .. });
    assert!(fx.iter().any(blank), "{fx:?}");
    let zeroes = Digest::new(&[0; 4]).unwrap();
    let look = fx.iter().find(|e| blank(e)).unwrap();
    let fx = n.examined(token_of(&[*look]), Examined::Digest(zeroes));
    let reply = (Packet::OvReply(request(1024)), Payload::Digest(zeroes));
    assert!(packets(&fx).contains(&reply));
}

#[test]
fn without_the_algorithm_nothing_is_judged() {
    let mut n = Node::new(101);
    n.conn(Conn::VerifyS);
    let (_, fx) = n.recv(Packet::OvReply(request(0)), &[1; 4]);
    let fx = n.read(token_of(&fx), true);
    let fx = n.examined(token_of(&fx), Examined::Failed);
    assert_eq!(packets(&fx), []);
    assert_eq!(n.bits(), 0);
    assert_eq!(n.r.conns[0].ctl.cstate, Conn::ProtocolError);
}

#[test]
fn what_old_peers_do_not_know_is_not_used() {
    let stops = |apv| {
        let mut n = Node::new(apv);
        n.r.set_verify_range(VOL, Sector(809), Sector(816));
        let asked = packets(&n.conn(Conn::VerifyS));
        (asked[0].0, asked.len())
    };
    // A start sector since 90, a stop sector since 97, but not in 100.
    assert_eq!(stops(89).0, Packet::OvRequest(request(0)));
    assert_eq!(stops(90).0, Packet::OvRequest(request(101)));
    for apv in [90, 96, 100] {
        assert!(stops(apv).1 > 1, "{apv}");
    }
    for apv in [97, 99, 101] {
        assert_eq!(stops(apv).1, 1, "{apv}");
    }
    assert!(!Node::new(88).r.compares_digests(VOL, PEER));
    assert!(Node::new(89).r.compares_digests(VOL, PEER));
}

#[test]
fn digests_after_a_crash_only() {
    let mut n = Node::new(101);
    let conf = n.r.conns[0].ctl.conf.as_mut().unwrap();
    conf.csums_after_crash_only = true;
    assert!(!n.r.compares_digests(VOL, PEER));
    n.r.volumes[0].as_mut().unwrap().ctl.crashed_primary = true;
    assert!(n.r.compares_digests(VOL, PEER));
}

#[test]
fn a_start_behind_the_end_is_the_last_block() {
    let mut n = Node::new(101);
    n.r.set_verify_range(VOL, Sector(1 << 40), Sector(u64::MAX));
    let asked = packets(&n.conn(Conn::VerifyS));
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].0, Packet::OvRequest(request(BITS - 1)));
    assert_eq!(n.tick(1000).len(), 0);
}

#[test]
fn a_flush_comes_before_the_first_comparison() {
    let mut n = Node::new(101);
    n.r.volumes[0].as_mut().unwrap().state.disk = Disk::Inconsistent;
    n.conn(Conn::SyncTarget);
    n.step(|r, h| {
        r.set_out_of_sync(VOL, SectorRange::new(Sector(800), 4096), h);
        let rs = r.rs_mut(VOL).unwrap();
        rs.marks.begin(h.now(), 1);
        rs.compares = true;
        rs.target.arm(h.now());
        rs.target.begin_comparing(true);
    });
    // The flush was emitted by that step; nothing is read before it is done.
    assert_eq!(n.tick(200), []);
    let flush = token::io(VOL, token::Which::Volume);
    let (_, fx) = n.step(|r, h| r.resync_local_done(flush, None, Ok(()), h));
    let read = token_of(&fx);
    let fx = n.read(read, true);
    let fx = n.examined(token_of(&fx), Examined::Digest(digest(3)));
    let asked = packets(&fx);
    assert_eq!(asked[0].0, Packet::CsumRsRequest(request(100)));
    assert_eq!(asked[0].1, Payload::Digest(digest(3)));
    let (_, fx) = n.recv(
        Packet::RsIsInSync(BlockAck {
            sector: Sector(800),
            block_id: BlockId::SYNCER,
            blksize: 4096,
            seq_num: 1,
        }),
        &[],
    );
    assert_eq!((n.bits(), n.r.rs(VOL).unwrap().same), (0, 1));
    drop(fx);
}

#[test]
fn others_hear_of_what_they_wait_for() {
    let mut n = Node::new(101);
    let posted = |n: &mut Node| {
        n.tape.effects.clear();
        while n.r.resync_pump(&mut n.tape) {}
        let all: Vec<_> = n.tape.effects.drain(..).collect();
        all.into_iter().find_map(|e| match e {
            Effect::SyncPosted { minor, posted } => Some((minor, posted)),
            _ => None,
        })
    };
    assert_eq!(posted(&mut n), None, "nothing new");
    n.r.volumes[0].as_mut().unwrap().state.user_isp = true;
    let busy = Posted {
        after: None,
        busy: true,
    };
    assert_eq!(posted(&mut n), Some((Minor(7), busy)));
    assert_eq!(posted(&mut n), None, "said once");
    assert!(n.r.may_sync_now(VOL));
    let backing = n.r.volumes[0].as_mut().unwrap().backing.as_mut();
    backing.unwrap().disk.conf.resync_after = 9;
    let after = Some(Minor(9));
    assert_eq!(posted(&mut n), Some((Minor(7), Posted { after, ..busy })));
    n.step(|r, h| r.set_held_back(Minor(7), true, h));
    assert!(!n.r.may_sync_now(VOL));
    assert!(n.r.volumes[0].as_ref().unwrap().state.aftr_isp);
    // Without the option nothing is waited for, whatever was said before.
    let backing = n.r.volumes[0].as_mut().unwrap().backing.as_mut();
    backing.unwrap().disk.conf.resync_after = -1;
    n.step(|r, h| r.reconsider_pauses(h));
    assert!(!n.r.volumes[0].as_ref().unwrap().state.aftr_isp);
    let backing = n.r.volumes[0].as_mut().unwrap().backing.as_mut();
    backing.unwrap().disk.conf.resync_after = 9;
    n.step(|r, h| r.set_held_back(Minor(7), false, h));
    assert!(!n.r.volumes[0].as_ref().unwrap().state.aftr_isp);
    // Of others' minors nothing is known here.
    n.step(|r, h| r.set_held_back(Minor(8), true, h));
    assert!(n.r.may_sync_now(VOL));
}

#[test]
fn no_new_size_in_an_exchange_of_bitmaps() {
    let conn_after = |conn, peers_disk| {
        let mut n = Node::new(101);
        let backing = n.r.volumes[0].as_mut().unwrap().backing.as_mut();
        backing.unwrap().disk.la_size = SIZE;
        n.conn(conn);
        let sizes = crate::wire::Sizes {
            d_size: peers_disk,
            c_size: peers_disk,
            max_bio_size: 1 << 20,
            ..Default::default()
        };
        let header = crate::wire::Header {
            volume: Vnr(0),
            command: 0,
            length: 0,
            header_len: 16,
        };
        let input = Input::Received {
            peer: PEER,
            sock: Sock::Data,
            header,
            packet: Packet::Sizes(sizes),
            buf: None,
            body: &[],
            intact: true,
        };
        let _ = n.step(|r, h| r.step(input, h));
        n.r.state(VOL).conn
    };
    for conn in [Conn::WFBitMapS, Conn::WFBitMapT] {
        assert_eq!(conn_after(conn, SIZE.0), conn);
        assert!(
            conn_after(conn, SIZE.0 + 8) < Conn::WFConnection,
            "{conn:?}"
        );
    }
    assert_eq!(conn_after(Conn::SyncSource, SIZE.0 + 8), Conn::SyncSource);
}

/// A bitmap of so many bits, none of them set, as the peer sends it.
fn piece(bits: u64) -> Vec<u8> {
    let mut buf = [0; 4080];
    let chunk = SendCursor::new(bits, 101, true).encode_chunk(&exchange::NoBits(bits), &mut buf);
    assert!(matches!(chunk, Chunk::Compressed { .. }));
    buf[..chunk.len()].to_vec()
}

#[test]
fn without_a_disk_a_bitmap_may_have_any_size() {
    for size in [BITS - 500, BITS + 500] {
        let mut n = Node::new(101);
        let mut hear = |disk, bits| {
            let v = n.r.volumes[0].as_mut().unwrap();
            v.state.disk = disk;
            n.step(|r, h| r.recv_bitmap(VOL, true, &piece(bits), h)).0
        };
        assert_eq!(hear(Disk::Failed, size), Ok(()));
        // The disk is back: what comes now still belongs to the same bitmap.
        assert_eq!(hear(Disk::Negotiating, size), Ok(()));
        assert_eq!(n.r.bitmap_is_over(VOL), Ok(()));
        // The next one is this disk's.
        let mut hear = |bits| n.step(|r, h| r.recv_bitmap(VOL, true, &piece(bits), h)).0;
        assert_eq!(hear(BITS), Ok(()));
        let (heard, over) = (hear(size), n.r.bitmap_is_over(VOL));
        if size > BITS {
            assert_eq!((heard, over), (Err(Violation::Bitmap), Ok(())));
        } else {
            assert_eq!((heard, over), (Ok(()), Err(Violation::Bitmap)));
        }
        assert_eq!(n.r.bitmap_is_over(VOL), Ok(()));
    }
}

#[test]
fn a_resync_that_waits_for_its_helper_does_not_outlive_a_disk() {
    for between in [Disk::UpToDate, Disk::Failed, Disk::Diskless] {
        let mut n = Node::new(101);
        let (_, fx) = n.step(|r, h| r.start_resync(VOL, Side::Source, h));
        let id = fx.iter().find_map(|e| match e {
            Effect::Helper { id, .. } => Some(*id),
            _ => None,
        });
        for disk in [between, Disk::UpToDate] {
            n.r.volumes[0].as_mut().unwrap().state.pdsk = disk;
            n.step(|_, _| {});
        }
        let (id, code) = (id.unwrap(), 0);
        let _ = n.step(|r, h| r.step(Input::HelperDone { id, code }, h));
        let begins = n.r.rs_conn(VOL) == Conn::SyncSource;
        assert_eq!(begins, between == Disk::UpToDate);
    }
}
