// SPDX-License-Identifier: GPL-2.0

//! Peers that acknowledge an epoch before it is stable, as the C driver does.

use super::*;
use crate::wire::{ReqReply, ReqState};

/// A write that the disk and the peer have done, in an epoch that the peer acknowledged: its
/// number.
fn heard(n: &mut Node, app: u32, sector: u64) -> BarrierNr {
    let fx = n.write(app, sector);
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    n.local(local_token(&fx), Ok(()));
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), Some(Ok(())));
    let nr = barrier(&fx).unwrap();
    n.recv(barrier_ack(nr, 1));
    nr
}

fn lose(n: &mut Node) {
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.state().conn = Conn::NetworkFailure;
    n.state().pdsk = Disk::DUnknown;
    n.step(|r, h| r.requests_connection_lost(PEER, h));
}

fn questions(fx: &[Effect]) -> usize {
    let nothing = Packet::StateChgReq(ReqState { mask: 0, val: 0 });
    packets(fx).into_iter().filter(|p| *p == nothing).count()
}

#[test]
fn an_epoch_that_nothing_proves_is_lost_with_the_connection() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    heard(&mut n, 2, 8);
    assert_eq!(n.backing().al.used(), 1);
    lose(&mut n);
    assert!(n.dirty(8) && !n.dirty(0));
    assert_eq!(n.backing().al.used(), 0);
}

#[test]
fn an_answer_from_behind_the_barrier_proves_an_epoch() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    heard(&mut n, 2, 8);
    let fx = n.write(3, 16);
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    n.local(local_token(&fx), Ok(()));
    n.recv(ack_for(&packet, Packet::WriteAck));
    lose(&mut n);
    assert!(!n.dirty(8) && n.dirty(16));
}

#[test]
fn the_next_barrier_proves_an_epoch_of_protocol_a() {
    let mut n = Node::connected(Role::Primary);
    n.r.conns[0].ctl.conf.as_mut().unwrap().wire_protocol = 1;
    n.warm(1, 0);
    let mut numbers = Vec::new();
    for i in 0..2 {
        let fx = n.write(2 + i, 8 + u64::from(i) * 8);
        n.local(local_token(&fx), Ok(()));
        let fx = n.sent(sent_packet(&fx).unwrap().0);
        numbers.push(barrier(&fx).unwrap());
    }
    n.recv(barrier_ack(numbers[0], 1));
    assert_eq!(n.r.io.requests.len(), 2);
    n.recv(barrier_ack(numbers[1], 1));
    assert_eq!(n.r.io.requests.len(), 1);
    lose(&mut n);
    assert!(!n.dirty(8) && n.dirty(16));
}

#[test]
fn an_idle_peer_is_asked_once() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    heard(&mut n, 2, 8);
    let due = n.r.request_deadline().unwrap();
    assert_eq!(questions(&n.step(|_, _| ())), 0);
    n.tape.now = due.0;
    assert_eq!(questions(&n.step(|_, _| ())), 1);
    assert_eq!(questions(&n.step(|_, _| ())), 0);
    let nothing = ReqReply { retcode: 2 };
    n.step(|r, h| r.recv_request_reply(PEER, nothing, h));
    assert!(n.r.io.requests.is_empty());
    assert_eq!(n.backing().al.used(), 0);
    lose(&mut n);
    assert!(!n.dirty(8));
}

#[test]
fn nothing_is_due_while_the_peer_can_not_be_asked() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    heard(&mut n, 2, 8);
    let due = n.r.request_deadline();
    n.r.conns[0].ctl.replies_due = 1;
    assert_ne!(n.r.request_deadline(), due);
    n.r.conns[0].ctl.replies_due = 0;
    assert_eq!(n.r.request_deadline(), due);
    n.r.conns[0].ctl.agreed = None;
    assert_ne!(n.r.request_deadline(), due);
}

#[test]
fn whoever_waits_for_the_log_does_not_wait_for_the_question() {
    let mut n = Node::connected(Role::Primary);
    n.backing().al = ActivityLog::new(filled(1, || lru::Slot::EMPTY));
    n.warm(1, 0);
    heard(&mut n, 2, 8);
    // There is no room for a second extent until the first is free.
    let fx = n.write(3, 1 << 20);
    assert_eq!((questions(&fx), has_local(&fx)), (1, false));
    let nothing = ReqReply { retcode: 2 };
    let fx = n.step(|r, h| r.recv_request_reply(PEER, nothing, h));
    meta_token(&fx);
}

/// What the peer's disk had in its cache when it was lost may be nowhere but here.
#[test]
fn an_epoch_without_a_disk_releases_nothing_that_is_frozen() {
    for (completed, susp) in [(false, false), (false, true), (true, true)] {
        let mut n = Node::connected(Role::Primary);
        n.warm(1, 0);
        let fx = n.write(2, 8);
        let (token, packet) = sent_packet(&fx).unwrap();
        n.sent(token);
        n.local(local_token(&fx), Ok(()));
        n.state().susp = susp && !completed;
        let mut fx = n.recv(ack_for(&packet, Packet::WriteAck));
        assert_eq!(completion(&fx).is_some(), completed || !susp);
        n.state().susp = susp;
        if !completed && susp {
            fx = n.step(|r, h| r.new_epoch(h));
        }
        let nr = barrier(&fx).unwrap();
        n.state().pdsk = Disk::Diskless;
        n.stable(nr, 1);
        let frozen = u32::from(susp && !completed);
        assert_eq!((n.dirty(8), n.r.io.requests.len()), (true, frozen));
        let told = n.r.volumes[0].as_ref().unwrap().ctl.frozen_lost;
        assert_eq!(told, completed);
    }
}
