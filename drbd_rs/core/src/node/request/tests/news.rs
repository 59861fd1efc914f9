// SPDX-License-Identifier: GPL-2.0

//! A peer that could not, before it has said why.

use super::*;

/// A Primary without a disk, whose applications wait while there are no data.
fn freezing() -> Node {
    let mut n = Node::connected(Role::Primary);
    n.r.ctl.opts.on_no_data = 1;
    n.state().disk = Disk::Diskless;
    n
}

/// The peer cannot do what `fx` asks it for.
fn refuse(n: &mut Node, fx: &[Effect]) -> Vec<Effect> {
    let (token, packet) = sent_packet(fx).unwrap();
    n.sent(token);
    let no = match packet {
        Packet::DataRequest(_) => Packet::NegDreply,
        _ => Packet::NegAck,
    };
    n.recv(ack_for(&packet, no))
}

fn later(n: &mut Node) -> Vec<Effect> {
    n.tape.now += 250_000_000;
    n.step(|_, _| ())
}

#[test]
fn what_the_peer_refuses_waits_for_the_news_of_its_disk() {
    for op in [AppOp::Write, AppOp::Read] {
        let mut n = freezing();
        let fx = n.submit(1, op, 8, 4096);
        assert!(packets(&refuse(&mut n, &fx)).is_empty(), "{op:?}");
        assert!(packets(&n.step(|_, _| ())).is_empty());
        assert!(n.r.request_deadline().is_some());
        // The news: applications wait for `resume-io` now.
        n.state().pdsk = Disk::Failed;
        n.state().susp_nod = true;
        assert!(later(&mut n).is_empty());
        n.state().susp_nod = false;
        assert_eq!(completion(&later(&mut n)), Some(Err(IoError::Io)));
    }
}

#[test]
fn a_disk_that_is_back_already_is_asked_again() {
    for op in [AppOp::Write, AppOp::Read] {
        let mut n = freezing();
        let mut fx = n.submit(1, op, 8, 4096);
        for _ in 0..240 {
            assert_eq!(completion(&refuse(&mut n, &fx)), None);
            fx = later(&mut n);
        }
        // A disk that says no again and again is no news.
        assert_eq!(completion(&refuse(&mut n, &fx)), Some(Err(IoError::Io)));
    }
}

#[test]
fn without_the_policy_an_error_is_one() {
    let mut n = freezing();
    n.r.ctl.opts.on_no_data = 0;
    let fx = n.write(1, 8);
    assert_eq!(completion(&refuse(&mut n, &fx)), Some(Err(IoError::Io)));
}
