// SPDX-License-Identifier: GPL-2.0

//! Protocol A: done when the own disk and TCP have it.

use super::*;

#[test]
fn protocol_a_waits_for_tcp_only() {
    let mut n = Node::connected(Role::Primary);
    n.r.conns[0].ctl.conf.as_mut().unwrap().wire_protocol = 1;
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    assert!(fx.iter().any(|e| matches!(
        e,
        Effect::Send {
            payload: Payload::App { splice: false, .. },
            ..
        }
    )));
    let (token, packet) = sent_packet(&fx).unwrap();
    let Packet::Data(p) = packet else { panic!() };
    assert_eq!(p.flags & (dp::SEND_WRITE_ACK | dp::SEND_RECEIVE_ACK), 0);
    assert_eq!(completion(&n.local(local_token(&fx), Ok(()))), None);
    let fx = n.sent(token);
    assert_eq!(completion(&fx), Some(Ok(())));
    // It failed there after all.
    n.recv(ack_for(&packet, Packet::NegAck));
    n.stable(barrier(&fx).unwrap(), 1);
    assert!(n.dirty(0) && n.r.io.requests.is_empty());
}

#[test]
fn protocol_a_waits_for_the_peer_if_the_own_disk_failed() {
    for certain in [true, false] {
        let mut n = Node::connected(Role::Primary);
        n.r.conns[0].ctl.conf.as_mut().unwrap().wire_protocol = 1;
        let fx = n.write(1, 0);
        let fx = n.meta(meta_token(&fx));
        let (token, packet) = sent_packet(&fx).unwrap();
        assert_eq!(completion(&n.sent(token)), None);
        let fx = n.local(local_token(&fx), Err(IoError::Io));
        assert_eq!(completion(&fx), None);
        let nr = barrier(&fx).unwrap();
        if certain {
            n.recv(barrier_ack(nr, 1));
            let fx = n.step(|r, h| r.epoch_proven(PEER, h));
            assert_eq!(completion(&fx), None);
            // It has heard of that, too.
            let fx = n.step(|r, _| r.note_generation(VOL, 0x100));
            assert_eq!(completion(&fx), Some(Ok(())));
        } else {
            let fx = n.recv(ack_for(&packet, Packet::NegAck));
            assert_eq!(completion(&fx), Some(Err(IoError::Io)));
        }
    }
}
