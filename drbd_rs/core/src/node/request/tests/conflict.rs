// SPDX-License-Identifier: GPL-2.0

//! Two Primaries, congestion, and disks that hang, as one node sees them.

use super::*;

const BOTH: u32 = dp::SEND_WRITE_ACK;

/// A Primary with a Primary peer and a warm extent. The peer's packets are numbered by the test.
fn one_of_two(arbiter: bool) -> Node {
    let mut n = Node::connected(Role::Primary);
    let c = &mut n.r.conns[0].ctl;
    c.conf.as_mut().unwrap().two_primaries = true;
    c.agreed.as_mut().unwrap().arbiter = arbiter;
    n.state().peer = Role::Primary;
    n.warm(1, 0);
    n
}

impl Node {
    fn peer_writes(&mut self, sector: u64, id: u64, seq_num: u32) -> Vec<Effect> {
        let p = Packet::Data(Data {
            seq_num,
            ..data(sector, id, BOTH)
        });
        let buf = BufId(u32::try_from(id).unwrap());
        self.step(|r, h| {
            let taken = r.recv_request_packet(VOL, &p, Some((buf, 4096)), true, h);
            assert_eq!(taken, Ok(()));
        })
    }

    fn seen(&self) -> u32 {
        self.r.volumes[0].as_ref().unwrap().peers[0].io.peer_seq
    }
}

#[test]
fn the_arbiter_refuses_what_is_covered_by_its_own_write() {
    let mut n = one_of_two(true);
    let own = n.write(2, 8);
    assert!(has_local(&own));
    let fx = n.peer_writes(8, 7, n.seen() + 1);
    assert!(matches!(packets(&fx)[..], [Packet::Superseded(a)] if a.block_id == BlockId(7)));
    assert!(!has_local(&fx) && fx.contains(&Effect::Free(BufId(7))));
    // Its epoch holds nothing, and is not acknowledged.
    let fx = n.recv(Packet::Barrier(Barrier { nr: BarrierNr(3) }));
    assert!(packets(&fx).is_empty() && !n.r.request_rx_paused());
}

#[test]
fn the_arbiter_lets_the_peer_repeat_what_is_not() {
    let mut n = one_of_two(true);
    n.write(2, 8);
    let seq = n.seen() + 1;
    let fx = n.peer_writes(12, 7, seq);
    assert!(matches!(packets(&fx)[..], [Packet::RetryWrite(_)]));
    n.r.conns[0].ctl.agreed.as_mut().unwrap().apv = 99;
    n.r.conns[0].ctl.conf.as_mut().unwrap().wire_protocol = 3;
    let fx = n.peer_writes(12, 8, seq + 1);
    assert!(matches!(packets(&fx)[..], [Packet::Superseded(_)]));
}

/// The end of an epoch may wait for what a request of a resync is in front of.
#[test]
fn a_write_that_both_have_is_not_under_way() {
    for two in [true, false] {
        let mut n = one_of_two(false);
        n.r.conns[0].ctl.conf.as_mut().unwrap().two_primaries = two;
        let own = n.write(2, 8);
        let busy = |n: &mut Node| n.backing().al.is_busy(AlExtent(0));
        let (token, packet) = sent_packet(&own).unwrap();
        n.sent(token);
        n.local(local_token(&own), Ok(()));
        assert!(busy(&mut n));
        n.recv(ack_for(&packet, Packet::WriteAck));
        assert_eq!(busy(&mut n), !two);
        assert!(n.backing().al.is_used(AlExtent(0)));
    }
}

#[test]
fn the_arbiter_waits_for_acknowledgements_that_came_first() {
    let mut n = one_of_two(true);
    let own = n.write(2, 8);
    let (token, packet) = sent_packet(&own).unwrap();
    n.sent(token);
    let seq = n.seen() + 1;
    // The peer has written it, and then something newer; the second packet is faster.
    assert!(n.peer_writes(8, 7, seq + 1).is_empty());
    assert!(n.r.request_rx_paused());
    let Packet::WriteAck(mut ack) = ack_for(&packet, Packet::WriteAck) else {
        panic!()
    };
    ack.seq_num = seq;
    let fx = n.recv(Packet::WriteAck(ack));
    // Still not: the older data may reach the own disk last.
    assert!(!has_local(&fx) && packets(&fx).is_empty());
    let fx = n.local(local_token(&own), Ok(()));
    assert!(has_local(&fx));
    let token = fx.iter().find_map(|e| match e {
        Effect::Local {
            io,
            data: super::super::super::io::Data::Buf(BufId(7)),
            ..
        } => Some(*io),
        _ => None,
    });
    let fx = n.local(token.unwrap(), Ok(()));
    assert!(matches!(packets(&fx)[..], [Packet::WriteAck(_), ..]));
}

#[test]
fn acknowledgements_that_never_come_end_the_connection() {
    let mut n = one_of_two(true);
    let seq = n.seen() + 5;
    assert!(n.peer_writes(8, 7, seq).is_empty());
    let due = n.r.request_deadline().unwrap();
    // ping-timeout is half a second.
    assert!(due.0 <= 500_000_000, "{due:?}");
    n.tape.now = due.0;
    n.step(|_, _| {});
    assert_eq!(n.r.conns[0].ctl.cstate, Conn::ProtocolError);
}

#[test]
fn the_other_one_waits_for_the_decision_and_repeats_its_write() {
    let mut n = one_of_two(false);
    let own = n.write(2, 8);
    let (token, packet) = sent_packet(&own).unwrap();
    n.sent(token);
    assert!(n.peer_writes(12, 7, 1).is_empty());
    assert!(n.recv(ack_for(&packet, Packet::RetryWrite)).is_empty());
    assert!(n.violates(ack_for(&packet, Packet::RetryWrite)));
    // The peer's write follows the own one on the disk, and the own one that again.
    let fx = n.local(local_token(&own), Ok(()));
    assert_eq!(completion(&fx), None);
    let fx = n.local(local_token(&fx), Ok(()));
    assert!(matches!(
        packets(&fx)[..],
        [Packet::WriteAck(_), Packet::Data(_)]
    ));
    assert!(n.finish(&fx));
    assert!(!n.dirty(8) && n.r.io.requests.is_empty());
    assert!(n.r.volumes[0].as_ref().unwrap().io.writes.is_empty());
}

#[test]
fn a_superseded_write_is_complete() {
    let mut n = one_of_two(false);
    let own = n.write(2, 8);
    let (token, packet) = sent_packet(&own).unwrap();
    n.sent(token);
    n.recv(ack_for(&packet, Packet::Superseded));
    let fx = n.local(local_token(&own), Ok(()));
    assert_eq!(completion(&fx), Some(Ok(())));
    // It counts in no epoch: there is none to be acknowledged.
    assert_eq!(barrier(&fx), None);
    assert!(n.r.io.requests.is_empty() && !n.dirty(8));
}

#[test]
fn an_own_write_waits_for_the_peers_and_keeps_its_extents() {
    let mut n = one_of_two(true);
    let peers = n.peer_writes(8, 7, n.seen() + 1);
    assert!(has_local(&peers));
    // What comes later waits at the door.
    assert!(n.write(2, 12).is_empty());
    let fx = n.local(local_token(&peers), Ok(()));
    assert!(matches!(
        packets(&fx)[..],
        [Packet::WriteAck(_), Packet::Data(_)]
    ));
    assert!(has_local(&fx));
}

#[test]
fn the_end_of_the_connection_frees_those_who_wait() {
    let mut n = one_of_two(false);
    let own = n.write(2, 8);
    let (token, packet) = sent_packet(&own).unwrap();
    n.sent(token);
    assert!(n.peer_writes(12, 7, 1).is_empty());
    n.recv(ack_for(&packet, Packet::RetryWrite));
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.r.conns[0].ctl.agreed = None;
    let s = n.state();
    (s.conn, s.pdsk) = (Conn::WFConnection, Disk::DUnknown);
    let fx = n.step(|r, h| r.requests_connection_lost(PEER, h));
    assert!(fx.contains(&Effect::Free(BufId(7))));
    let fx = n.local(local_token(&own), Ok(()));
    assert_eq!(completion(&fx), Some(Ok(())));
    assert!(n.dirty(8) && n.r.io.requests.is_empty());
}

#[test]
fn congestion_is_counted_from_tcp_until_it_is_stable() {
    let mut n = Node::connected(Role::Primary);
    let conf = n.r.conns[0].ctl.conf.as_mut().unwrap();
    (conf.wire_protocol, conf.on_congestion, conf.cong_fill) = (1, 1, 16);
    let on_wire = |n: &Node| n.r.volumes[0].as_ref().unwrap().io.on_wire;
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    assert_eq!(on_wire(&n), 0);
    let (token, _) = sent_packet(&fx).unwrap();
    n.local(local_token(&fx), Ok(()));
    let fx = n.sent(token);
    let first = barrier(&fx).unwrap();
    assert_eq!(on_wire(&n), 8);
    let fx = n.write(2, 8);
    n.sent(sent_packet(&fx).unwrap().0);
    assert_eq!(on_wire(&n), 16);
    // That is enough: the third one is only announced, behind the state.
    let fx = n.write(3, 16);
    assert!(matches!(
        packets(&fx)[..],
        [Packet::State(_), Packet::Barrier(_), Packet::OutOfSync(_)]
    ));
    assert_eq!(n.state().conn, Conn::Ahead);
    assert!(n.dirty(16));
    n.stable(first, 1);
    assert_eq!(on_wire(&n), 8);
    assert_eq!(n.r.volumes[0].as_ref().unwrap().io.ahead_due, None);
    let second = barrier(&fx).unwrap();
    n.stable(second, 1);
    let due = n.r.volumes[0].as_ref().unwrap().io.ahead_due;
    assert_eq!((on_wire(&n), due), (0, Some(Instant(1_000_000_000))));
}

#[test]
fn a_read_by_way_of_a_copy_ends_without_the_disk() {
    let mut n = Node::connected(Role::Primary);
    n.backing().disk.conf.disk_timeout = 10;
    let fx = n.submit(1, AppOp::Read, 8, 4096);
    let io = local_token(&fx);
    let data = super::super::super::io::Data::Copy(AppId(1));
    assert!(fx
        .iter()
        .any(|e| matches!(e, Effect::Local { data: d, .. } if *d == data)));
    n.state().disk = Disk::Failed;
    let fx = n.step(|r, h| r.requests_disk_failed(VOL, h));
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    let Packet::DataRequest(p) = packet else {
        panic!()
    };
    let reply = Packet::DataReply(Data {
        flags: 0,
        seq_num: 0,
        ..data_reply(p)
    });
    let fx = n.recv(reply);
    assert_eq!(completion(&fx), Some(Ok(())));
    assert_eq!(n.r.local_refs(VOL), 1);
    // The disk answers at last; what it read is of no use.
    let fx = n.step(|r, h| r.local_done(io, Some(BufId(9)), Ok(()), h));
    assert!(fx.contains(&Effect::Free(BufId(9))));
    assert!(n.r.io.requests.is_empty() && n.r.local_refs(VOL) == 0);
}

fn data_reply(p: BlockReq) -> Data {
    Data {
        sector: p.sector,
        block_id: p.block_id,
        seq_num: 0,
        flags: 0,
    }
}

#[test]
fn a_copy_fills_the_pages_before_the_read_completes() {
    let mut n = Node::connected(Role::Primary);
    n.backing().disk.conf.disk_timeout = 10;
    let io = local_token(&n.submit(1, AppOp::Read, 8, 4096));
    let fx = n.step(|r, h| r.local_done(io, Some(BufId(9)), Ok(()), h));
    let fill = Effect::Fill {
        app: AppId(1),
        buf: BufId(9),
    };
    assert!(matches!(fx[..], [first, Effect::Complete { .. }, ..] if first == fill));
    // Without memory for a copy the pages have to do.
    let io = local_token(&n.submit(2, AppOp::Read, 8, 4096));
    let fx = n.local(io, Err(IoError::NoMemory));
    let data = super::super::super::io::Data::App(AppId(2));
    assert!(matches!(fx[..], [Effect::Local { data: d, .. }] if d == data));
    assert_eq!(n.r.local_refs(VOL), 1);
}
