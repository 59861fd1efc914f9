// SPDX-License-Identifier: GPL-2.0

//! The gate, and who waits at it.

use super::*;

#[test]
fn the_gate_waits_for_the_end_of_io() {
    let mut n = Node::new(Role::Primary);
    let fx = n.write(1, 0);
    let fx = n.meta(meta_token(&fx));
    n.step(|r, h| r.gate_close(VOL, After::Nothing, h));
    assert_eq!(n.r.io_vol(VOL).unwrap().io.gate, 1);
    assert!(n.submit(2, AppOp::Read, 8, 4096).is_empty());
    assert!(!has_local(&n.local(local_token(&fx), Ok(()))));
    assert!(has_local(&n.step(|r, h| r.gate_open(VOL, h))));
}

#[test]
fn the_gate_does_not_wait_for_frozen_io() {
    let mut n = Node::new(Role::Primary);
    n.write(1, 0);
    n.state().susp_nod = true;
    n.step(|r, h| {
        let after = After::Control(control::Next::CleanedUp);
        r.gate_close(VOL, after, h);
    });
    let waits = |n: &Node| n.r.io_vol(VOL).unwrap().io.gate_waiters[0] != After::Nothing;
    assert!(!waits(&n));
    n.step(|r, h| r.gate_close(VOL, After::Resync(resync::Next::BitmapGate(VOL)), h));
    assert!(waits(&n));
}

#[test]
fn exchanges_that_were_given_up_take_no_room_at_the_gate() {
    let mut n = Node::new(Role::Primary);
    n.write(1, 0);
    let after = After::Resync(resync::Next::BitmapGate(VOL));
    for _ in 0..2 * super::super::gate::WAITERS {
        n.step(|r, h| r.gate_close(VOL, after, h));
        n.step(|r, h| r.gate_open(VOL, h));
    }
    let v = n.r.io_vol(VOL).unwrap();
    let waiting = v.io.gate_waiters.iter().filter(|w| **w == after).count();
    assert_eq!((v.io.gate, waiting), (0, 1));
}

#[test]
fn administrators_who_were_killed_take_no_room() {
    let mut n = Node::new(Role::Primary);
    let fx = n.write(1, 0);
    n.meta(meta_token(&fx));
    let op = |id| After::Control(control::Next::Operation { op: OpId(id) });
    for id in 0..40 {
        n.step(|r, h| {
            r.gate_close(VOL, op(id), h);
            r.md_sync(VOL, op(id), h);
            r.forget(op(id));
            r.gate_open(VOL, h);
        });
    }
    n.step(|r, h| r.gate_close(VOL, op(40), h));
    n.step(|r, h| r.md_sync(VOL, op(41), h));
    assert_eq!(n.r.io_vol(VOL).unwrap().io.gate, 1);
    let waits = |w: &&After| **w != After::Nothing;
    let gate = n.r.io_vol(VOL).unwrap().io.gate_waiters;
    assert_eq!(gate.iter().filter(waits).count(), 1);
    let m = &mut n.backing().meta_io;
    assert_eq!((m.take_any(), m.take_any()), (Some(op(41)), None));
}
