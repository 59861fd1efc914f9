// SPDX-License-Identifier: GPL-2.0

//! Writes that only the peer's disk has.

use super::*;

/// The own disk fails to write what the peer has, which does not know of that. With its tape.
fn failed_here() -> Node {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    assert_eq!(
        completion(&n.local(local_token(&fx), Err(IoError::Io))),
        None
    );
    assert_eq!(n.state().disk, Disk::Failed);
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), None);
    n
}

#[test]
fn waits_for_the_generation_of_the_peer() {
    let mut n = failed_here();
    let own = n.r.data_uuids(VOL).unwrap().current;
    let fx = n.step(|r, _| r.note_generation(VOL, own));
    assert_eq!(completion(&fx), None);
    let fx = n.step(|r, _| r.note_generation(VOL, own ^ 0x100));
    assert_eq!(completion(&fx), Some(Ok(())));
}

#[test]
fn does_not_wait_for_ever() {
    let mut n = failed_here();
    n.tape.now = 59_000_000_000;
    assert_eq!(completion(&n.step(|_, _| ())), None);
    let due = n.r.request_deadline().unwrap().0;
    assert!(due > n.tape.now && due <= 60_000_000_000);
    n.tape.now = 60_000_000_000;
    assert_eq!(completion(&n.step(|_, _| ())), Some(Ok(())));
}

#[test]
fn has_failed_if_the_peer_is_lost_as_well() {
    let mut n = failed_here();
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.state().conn = Conn::NetworkFailure;
    n.state().pdsk = Disk::DUnknown;
    let fx = n.step(|r, h| r.requests_connection_lost(PEER, h));
    assert_eq!(completion(&fx), Some(Err(IoError::Io)));
}
