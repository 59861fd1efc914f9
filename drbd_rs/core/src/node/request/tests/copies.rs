// SPDX-License-Identifier: GPL-2.0

//! Copies that do not keep what was written to them.

use super::*;

/// A write that both disks are to get; the own one has it. With the packet's token.
fn half_done(n: &mut Node) -> (SendToken, Packet) {
    n.warm(1, 0);
    let fx = n.write(2, 8);
    let sent = sent_packet(&fx).unwrap();
    n.sent(sent.0);
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), None);
    sent
}

fn lose_peer(n: &mut Node) -> Vec<Effect> {
    n.r.conns[0].ctl.phase = control::Phase::Closing;
    n.state().conn = Conn::NetworkFailure;
    n.state().pdsk = Disk::DUnknown;
    n.step(|r, h| r.requests_connection_lost(PEER, h))
}

#[test]
fn a_copy_that_is_given_up_is_not_enough() {
    for invalidated in [false, true] {
        let mut n = Node::connected(Role::Primary);
        half_done(&mut n);
        if invalidated {
            let change = control::StateChange::NONE.conn(Conn::StartingSyncT);
            let code =
                n.r.change_state(VOL, change, control::Flags::VERBOSE, &mut n.tape);
            assert!(code.is_success() && n.state().disk == Disk::Outdated);
        }
        let expected = if invalidated {
            Err(IoError::Io)
        } else {
            Ok(())
        };
        assert_eq!(completion(&lose_peer(&mut n)), Some(expected));
        assert!(n.dirty(8));
    }
}

#[test]
fn a_copy_that_is_given_up_does_not_matter_if_the_peer_has_it() {
    let mut n = Node::connected(Role::Primary);
    let (_, packet) = half_done(&mut n);
    let change = control::StateChange::NONE.conn(Conn::StartingSyncT);
    n.r.change_state(VOL, change, control::Flags::VERBOSE, &mut n.tape);
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), Some(Ok(())));
}

#[test]
fn a_frozen_write_is_written_again_on_a_disk_that_was_away() {
    for back in [true, false] {
        let mut n = Node::connected(Role::Primary);
        half_done(&mut n);
        n.state().susp = true;
        assert_eq!(completion(&lose_peer(&mut n)), None);
        // It was detached, and is attached again.
        let v = n.r.volumes[0].as_mut().unwrap();
        v.backing.take();
        v.backing.put(Box::new(backing()));
        if back {
            n.connect();
        }
        n.state().susp = false;
        let thaw = if back {
            Thaw::Resend
        } else {
            Thaw::FailPeerLeg
        };
        let fx = n.step(|r, h| r.thaw_all(thaw, h));
        assert_eq!((completion(&fx), sent_packet(&fx)), (None, None));
        let fx = n.step(|_, _| ());
        let fx = n.meta(meta_token(&fx));
        assert_eq!(sent_packet(&fx).is_some(), back);
        let fx = if let Some((token, packet)) = sent_packet(&fx) {
            n.sent(token);
            assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), None);
            n.recv(ack_for(&packet, Packet::WriteAck))
        } else {
            n.local(local_token(&fx), Ok(()))
        };
        assert_eq!(completion(&fx), Some(Ok(())));
        // Marked when it began anew: until it was under way again no extent of the log stood for it.
        assert!(n.dirty(8));
    }
}

#[test]
fn zeroes_that_fail_here_are_not_read_as_something_else() {
    let zeroes = AppOp::WriteZeroes { unmap: true };
    for (op, good) in [(AppOp::Discard, true), (zeroes, false)] {
        let mut n = Node::connected(Role::Primary);
        n.warm(1, 0);
        let fx = n.submit(2, op, 8, 4096);
        n.local(local_token(&fx), Err(IoError::Io));
        assert_eq!(n.state().disk == Disk::UpToDate, good, "{op:?}");
    }
}
