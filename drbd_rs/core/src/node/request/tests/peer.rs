// SPDX-License-Identifier: GPL-2.0

//! The peer's I/O on this node's disk, and its epochs.

use super::*;

#[test]
fn a_peer_write_is_acknowledged_before_its_epoch() {
    let mut n = Node::connected(Role::Secondary);
    let fx = n.recv_data(0, 7, dp::SEND_WRITE_ACK);
    assert!(n.backing().al.used() == 0);
    let token = local_token(&fx);
    assert!(packets(&n.recv(Packet::Barrier(Barrier { nr: BarrierNr(9) }))).is_empty());
    assert!(n.r.request_rx_paused());
    let fx = n.local(token, Ok(()));
    assert!(matches!(packets(&fx)[..], [Packet::WriteAck(a)] if a.block_id == BlockId(7)));
    assert!(fx.iter().any(|e| matches!(e, Effect::Free(BufId(7)))));
    // The flush comes first, then the acknowledgement of the epoch.
    let flush = local_token(&fx);
    let fx = n.local(flush, Ok(()));
    assert_eq!(packets(&fx), [barrier_ack(BarrierNr(9), 1)]);
    assert!(!n.r.request_rx_paused());
}

#[test]
fn a_failed_flush_lowers_the_method() {
    let mut n = Node::connected(Role::Secondary);
    let fx = n.recv_data(0, 7, 0);
    n.local(local_token(&fx), Ok(()));
    let fx = n.recv(Packet::Barrier(Barrier { nr: BarrierNr(9) }));
    n.local(local_token(&fx), Err(IoError::Io));
    assert_eq!(n.r.write_ordering(), Ordering::Drain);
    let fx = n.recv_data(0, 8, 0);
    n.local(local_token(&fx), Ok(()));
    let fx = n.recv(Packet::Barrier(Barrier { nr: BarrierNr(10) }));
    assert_eq!(packets(&fx), [barrier_ack(BarrierNr(10), 1)]);
}

#[test]
fn a_write_behind_an_unfinished_epoch_waits() {
    let mut n = Node::connected(Role::Secondary);
    n.r.io.ordering = Ordering::Drain;
    let first = n.recv_data(0, 7, 0);
    n.recv(Packet::Barrier(Barrier { nr: BarrierNr(1) }));
    assert!(!has_local(&n.recv_data(0, 8, 0)));
    let fx = n.local(local_token(&first), Ok(()));
    assert_eq!(packets(&fx), [barrier_ack(BarrierNr(1), 1)]);
    assert!(has_local(&fx));
}

#[test]
fn a_failed_peer_write_is_refused_and_marked() {
    let mut n = Node::connected(Role::Secondary);
    n.backing().disk.conf.on_io_error = 0;
    let fx = n.recv_data(8, 7, 0);
    let fx = n.local(local_token(&fx), Err(IoError::Io));
    assert!(matches!(packets(&fx)[..], [Packet::NegAck(_), ..]));
    assert!(n.dirty(8));
}

#[test]
fn the_only_copy_goes_through_the_log() {
    let mut n = Node::connected(Role::Secondary);
    n.state().pdsk = Disk::Diskless;
    let fx = n.recv_data(8, 7, dp::SEND_WRITE_ACK | dp::MAY_SET_IN_SYNC);
    assert!(!has_local(&fx) && n.r.request_rx_paused());
    assert!(n.dirty(8));
    let fx = n.meta(meta_token(&fx));
    assert_eq!(n.backing().al.used(), 1);
    let fx = n.local(local_token(&fx), Ok(()));
    assert!(matches!(packets(&fx)[..], [Packet::WriteAck(_)]));
    assert_eq!((n.backing().al.used(), n.dirty(8)), (0, true));
}

#[test]
fn a_node_without_a_disk_refuses_and_counts() {
    let mut n = Node::connected(Role::Secondary);
    n.state().disk = Disk::Diskless;
    let fx = n.recv_data(8, 7, dp::SEND_WRITE_ACK);
    assert!(matches!(packets(&fx)[..], [Packet::NegAck(_)]));
    let fx = n.recv(Packet::Barrier(Barrier { nr: BarrierNr(3) }));
    assert_eq!(packets(&fx), [barrier_ack(BarrierNr(3), 1)]);
}

#[test]
fn peer_reads() {
    let mut n = Node::connected(Role::Secondary);
    let req = |sector, blksize| {
        Packet::DataRequest(BlockReq {
            sector: Sector(sector),
            block_id: BlockId(5),
            blksize,
        })
    };
    let fx = n.recv(req(0, 4096));
    let io = local_token(&fx);
    let fx = n.step(|r, h| r.local_done(io, Some(BufId(3)), Ok(()), h));
    let (token, packet) = sent_packet(&fx).unwrap();
    assert!(matches!(packet, Packet::DataReply(p) if p.block_id == BlockId(5)));
    assert_eq!(n.sent(token), [Effect::Free(BufId(3))]);
    assert!(n.violates(req(SIZE.0, 4096)) && n.violates(req(0, 0)) && n.violates(req(0, 100)));
    n.state().disk = Disk::Inconsistent;
    assert!(matches!(
        packets(&n.recv(req(0, 4096)))[..],
        [Packet::NegDreply(_)]
    ));
    assert!(n.r.io.peer_requests.is_empty());
}

#[test]
fn the_end_of_a_connection_waits_for_the_disk() {
    let mut n = Node::connected(Role::Secondary);
    n.r.io.ordering = Ordering::Drain;
    let active = n.recv_data(0, 1, dp::SEND_WRITE_ACK);
    n.recv(Packet::Barrier(Barrier { nr: BarrierNr(1) }));
    n.recv_data(8, 2, dp::SEND_WRITE_ACK);
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    let fx = n.step(|r, h| r.requests_connection_lost(PEER, h));
    assert_eq!(fx, [Effect::Free(BufId(2))]);
    assert_ne!(n.r.conns[0].epochs.losing, Losing::No);
    let fx = n.local(local_token(&active), Ok(()));
    assert_eq!(fx, [Effect::Free(BufId(1))]);
    assert_eq!(n.r.conns[0].epochs.losing, Losing::No);
    assert!(n.r.io.peer_requests.is_empty());
    assert_eq!(n.r.io_counts(VOL).unacked, 0);
}
