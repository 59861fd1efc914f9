// SPDX-License-Identifier: GPL-2.0

//! Disks that grow while nodes use them, are switched off or lose their power.
//!
//! Each single step of a resize, and each way in which it can be broken off, is tried by
//! `tests/small`; here it happens among everything else.

use drbd_core::node::AppOp;
use drbd_core::time::Duration;
use drbd_core::units::Sectors;
use drbd_sim::drbdmeta;
use drbd_sim::plan::{Action, Op, Plan};
use drbd_sim::run::run;
use drbd_sim::World;

/// 10 MiB.
const SIZE: Sectors = Sectors(20_480);
/// `NO_ERROR`.
const DONE: i32 = 101;

fn pair(seed: u64) -> World {
    let mut w = World::new(seed, SIZE);
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    w.primary(0, true);
    rest(&mut w);
    w
}

fn rest(w: &mut World) {
    w.run(Duration::secs(2));
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w.quiesce();
    w.assert_equal_disks();
}

fn room(w: &World, node: usize) -> Sectors {
    let size = w.nodes[node].disk.size();
    drbdmeta::layout(size).max_data_sectors(size)
}

fn sizes(w: &World) -> [Sectors; 2] {
    [w.size(0), w.size(1)]
}

#[test]
fn what_both_disks_have_is_taken_and_synchronised() {
    let mut w = pair(1);
    let old = w.size(0);
    w.grow(0, 20_000);
    w.grow(1, 16_000);
    assert_eq!(w.resize(0), DONE);
    for n in 0..100 {
        w.submit(0, AppOp::Write, n * 40, 8);
        w.run(Duration::millis(2));
    }
    rest(&mut w);
    assert!(w.size(0) > old);
    assert_eq!(sizes(&w), [room(&w, 1); 2]);
    w.read_everything(0);
}

#[test]
fn one_disk_that_grew_is_not_enough() {
    let mut w = pair(2);
    let old = w.size(0);
    w.grow(0, 20_000);
    assert_eq!(w.resize(0), DONE);
    rest(&mut w);
    assert_eq!(sizes(&w), [old; 2]);
    // The other one follows while its node is switched off.
    w.crash(1);
    w.grow(1, 20_000);
    w.run(Duration::secs(30));
    w.up(1);
    rest(&mut w);
    assert_eq!(w.resize(0), DONE);
    rest(&mut w);
    assert_eq!(sizes(&w), [room(&w, 0); 2]);
}

#[test]
fn power_fails_while_the_metadata_move() {
    for seed in 0..150 {
        let mut w = pair(seed);
        w.grow(0, 20_000);
        w.grow(1, 20_000);
        let victim = (seed % 2) as usize;
        w.start_resize(0);
        w.run(Duration(seed * 30_000));
        w.crash(victim);
        w.run(Duration::secs(20));
        w.up(victim);
        if victim == 0 {
            w.run_until("a peer", Duration::secs(60), |w| w.cstate(0) == "Connected");
            w.primary(0, false);
        }
        rest(&mut w);
        assert_eq!(w.resize(0), DONE, "seed {seed}");
        rest(&mut w);
        assert_eq!(sizes(&w), [room(&w, 0); 2], "seed {seed}");
        w.read_everything(0);
    }
}

#[test]
fn a_plan_may_grow_disks() {
    let mut plan = Plan::parse("noise 5\nknobs grows=1 verify=1").expect("a plan");
    for (op, node, a, b) in [
        (Op::Grow, 0, 8000, 0),
        (Op::Work, 0, 40, 2000),
        (Op::Resize, 1, 0, 0),
        (Op::Grow, 1, 4000, 0),
        (Op::Resize, 0, 0, 0),
        (Op::Crash, 1, 0, 0),
    ] {
        let after = 500_000;
        plan.actions.push(Action {
            after,
            op,
            node,
            a,
            b,
        });
    }
    assert_eq!(run(&plan, false).violation, None);
}
