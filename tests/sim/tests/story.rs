// SPDX-License-Identifier: GPL-2.0

//! The whole story of two nodes, told once and asserted at every turn.

use drbd_core::node::AppOp;
use drbd_core::time::Duration;
use drbd_core::units::Sectors;
use drbd_sim::knobs::Knobs;
use drbd_sim::World;

/// 40 MiB: three resync extents, ten activity log extents.
const SIZE: Sectors = Sectors(81_920);

fn connected(seed: u64, knobs: Knobs) -> World {
    let mut w = World::new(seed, SIZE);
    w.knobs.protocol = knobs.protocol;
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    assert_eq!(w.disks(0), ("Inconsistent", "Inconsistent"));
    w.primary(0, true);
    w
}

fn in_sync(w: &mut World) {
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w.quiesce();
    w.assert_equal_disks();
}

fn write_for(w: &mut World, node: usize, span: Duration) {
    let end = w.now.plus(span);
    while w.now < end {
        w.random_io(node);
        let pause = Duration(w.rng.below(3_000_000));
        w.run(pause);
    }
}

fn story(protocol: u64) {
    let options = Knobs {
        protocol,
        ..Knobs::plain()
    };
    let mut w = connected(protocol, options);

    // The initial full sync, while the primary writes.
    write_for(&mut w, 0, Duration::secs(2));
    in_sync(&mut w);

    // Replicated writes.
    write_for(&mut w, 0, Duration::secs(1));
    in_sync(&mut w);

    // The network breaks, the primary goes on, only the difference is resynced.
    w.set_network(false);
    write_for(&mut w, 0, Duration::secs(20));
    assert_eq!(w.cstate(0), "WFConnection");
    w.quiesce();
    let dirty = w.bits_set(0);
    assert!(dirty > 0 && dirty < SIZE.bits(), "{dirty} bits");
    w.set_network(true);
    in_sync(&mut w);
    assert!(w.resynced(1) < SIZE.bits(), "only what differs");

    // The secondary crashes in the middle of a resync, which then goes on where it was.
    w.set_network(false);
    write_for(&mut w, 0, Duration::secs(20));
    w.set_network(true);
    w.run_until("resync", Duration::secs(30), |w| {
        w.cstate(1) == "SyncTarget"
    });
    w.run(Duration::millis(150));
    w.crash(1);
    write_for(&mut w, 0, Duration::secs(15));
    w.up(1);
    in_sync(&mut w);

    // The primary crashes while it writes; the secondary takes over.
    for _ in 0..40 {
        w.random_io(0);
    }
    w.run(Duration::millis(2));
    w.crash(0);
    w.run_until("loss of the peer", Duration::secs(60), |w| {
        w.cstate(1) == "WFConnection"
    });
    if protocol != 3 {
        w.accept_data_of(1);
    }
    w.primary(1, false);
    w.read_everything(1);
    write_for(&mut w, 1, Duration::secs(1));
    let replayed = w.up(0);
    if replayed == 0 {
        w.fail("the activity log was not hot");
    }
    in_sync(&mut w);
    w.read_everything(1);

    // The end.
    w.secondary(1);
    w.down(0);
    w.down(1);
    w.assert_equal_disks();
}

#[test]
fn protocol_a() {
    story(1);
}

#[test]
fn protocol_b() {
    story(2);
}

#[test]
fn protocol_c() {
    story(3);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut w = connected(7, Knobs::plain());
        write_for(&mut w, 0, Duration::secs(1));
        in_sync(&mut w);
        (w.now, w.stats.steps, w.data(1, w.last_size).to_vec())
    };
    assert!(run() == run());
}

#[test]
fn one_hundred_seeds_of_trouble() {
    // SIM_SEEDS=from..to looks for more.
    let wanted = std::env::var("SIM_SEEDS").unwrap_or_default();
    let (from, to) = wanted.split_once("..").unwrap_or(("0", "100"));
    for seed in from.parse().unwrap_or(0)..to.parse().unwrap_or(100) {
        drbd_sim::chaos::run(seed);
    }
}

#[test]
fn reads_return_what_was_written() {
    let mut w = connected(3, Knobs::plain());
    w.submit(0, AppOp::Write, 100, 8);
    w.quiesce();
    w.submit(0, AppOp::Read, 96, 16);
    w.quiesce();
    assert_eq!(w.open_ios(0), 0);
}
