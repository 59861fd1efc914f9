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
fn a_copy_that_errors_have_made_bad_is_not_enough() {
    let mut n = Node::connected(Role::Primary);
    half_done(&mut n);
    // As `on-io-error pass_on` has it when another block can not be read.
    n.state().disk = Disk::Inconsistent;
    assert_eq!(completion(&lose_peer(&mut n)), Some(Err(IoError::Io)));
    assert!(n.dirty(8));

    let mut n = Node::connected(Role::Primary);
    let (_, packet) = half_done(&mut n);
    n.state().disk = Disk::Inconsistent;
    let fx = n.recv(ack_for(&packet, Packet::WriteAck));
    assert_eq!(completion(&fx), Some(Ok(())));
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
        assert_eq!(n.dirty(8), !back);
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

#[test]
fn what_the_peer_refused_waits_for_a_generation() {
    let begun = |known: Disk, generation: u64| {
        let mut n = Node::connected(Role::Primary);
        let uuids = &mut n.backing().disk.uuids;
        (uuids.current, uuids.bitmap) = (6, generation);
        let (_, packet) = half_done(&mut n);
        n.state().pdsk = known;
        let fx = n.recv(ack_for(&packet, Packet::NegAck));
        assert!(n.dirty(8));
        (n, fx)
    };
    let (mut n, fx) = begun(Disk::UpToDate, 0);
    assert_eq!(completion(&fx), None);
    let fx = n.meta(meta_token(&fx));
    assert_eq!(completion(&fx), Some(Ok(())));
    let told =
        |e: &Effect| matches!(e, Effect::Send { packet: Packet::Uuids(p), .. } if p.bitmap != 0);
    assert!(fx.iter().any(told));
    // The peer does not have this generation, or its copy is bad: nothing is to be told apart.
    for (known, generation) in [(Disk::UpToDate, 2), (Disk::Inconsistent, 0)] {
        assert_eq!(completion(&begun(known, generation).1), Some(Ok(())));
    }
}

#[test]
fn what_is_refused_after_the_application_knows_is_a_generation() {
    let mut n = Node::connected(Role::Primary);
    let uuids = &mut n.backing().disk.uuids;
    (uuids.current, uuids.bitmap) = (6, 0);
    n.r.conns[0].ctl.conf.as_mut().unwrap().wire_protocol = 1;
    n.warm(1, 0);
    let fx = n.write(2, 8);
    let (token, packet) = sent_packet(&fx).unwrap();
    n.sent(token);
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), Some(Ok(())));
    n.recv(ack_for(&packet, Packet::NegAck));
    assert_ne!(n.backing().disk.uuids.bitmap, 0);
}

#[test]
fn what_is_on_a_disk_that_failed_is_nowhere() {
    for late in [false, true] {
        for there in [false, true] {
            let mut n = Node::connected(Role::Primary);
            n.warm(1, 0);
            let fx = n.write(2, 8);
            let (token, packet) = sent_packet(&fx).unwrap();
            n.sent(token);
            if !late {
                n.local(local_token(&fx), Ok(()));
            }
            n.state().disk = Disk::Failed;
            let answer = if there {
                Packet::WriteAck
            } else {
                Packet::NegAck
            };
            let mut over = completion(&n.recv(ack_for(&packet, answer)));
            if late {
                over = completion(&n.local(local_token(&fx), Ok(())));
            }
            let expected = if there { Ok(()) } else { Err(IoError::Io) };
            assert_eq!(over, Some(expected), "{late} {there}");
        }
    }
}

#[test]
fn what_failed_here_is_marked_at_once() {
    let mut n = Node::connected(Role::Primary);
    n.warm(1, 0);
    let fx = n.write(2, 8);
    n.local(local_token(&fx), Err(IoError::Io));
    assert!(n.dirty(8));
}
