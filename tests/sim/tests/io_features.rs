// SPDX-License-Identifier: GPL-2.0

//! Features of the I/O path on two nodes: two Primaries, congestion, integrity.
//!
//! `IO_SEEDS=from..to` looks at more seeds than the few of a normal run.

use drbd_core::node::AppOp;
use drbd_core::time::Duration;
use drbd_core::units::Sectors;
use drbd_sim::admin::Options;
use drbd_sim::World;

/// 20 MiB: two resync extents.
const SIZE: Sectors = Sectors(40_960);

fn seeds(most: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("IO_SEEDS").unwrap_or_default();
    let (from, to) = wanted.split_once("..").unwrap_or(("", ""));
    from.parse().unwrap_or(0)..to.parse().unwrap_or(most)
}

fn connected(seed: u64, options: Options) -> World {
    let mut w = World::new(seed, SIZE);
    w.options = options;
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    w.primary(0, true);
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w
}

/// A write or discard of random length in a small place, so that most of them meet others.
fn crowded_io(w: &mut World, node: usize, span: u64) {
    let len = match w.rng.below(4) {
        0 => w.rng.between(1, 64),
        1 => w.rng.between(1, 9),
        _ => 8,
    };
    let start = w.rng.below(span);
    let op = match w.rng.below(20) {
        0 => AppOp::Discard,
        1 => AppOp::WriteZeroes { unmap: false },
        _ => AppOp::Write,
    };
    w.submit(node, op, start, len);
}

fn two_primaries(seed: u64) {
    let options = Options {
        net: |n| n.two_primaries = true,
        ..Options::default()
    };
    let mut w = connected(seed, options);
    w.primary(1, false);
    // From a link that is quicker than the disks to one that is much slower.
    w.net.delay = Duration([1_000, 50_000, 2_000_000][seed as usize % 3]);
    w.net.jitter = Duration([20_000, 100_000, 5_000_000][seed as usize / 3 % 3]);
    let span = [8, 32, 256][seed as usize / 9 % 3];
    for _ in 0..w.rng.between(20, 120) {
        for _ in 0..w.rng.below(4) {
            let node = w.rng.below(2) as usize;
            crowded_io(&mut w, node, span);
        }
        let pause = Duration(w.rng.below(600_000));
        w.run(pause);
    }
    w.run_until("the end of all I/O", Duration::secs(20), |w| {
        w.open_ios(0) == 0 && w.open_ios(1) == 0
    });
    let failed: Vec<_> = w.completed.iter().filter(|c| c.2.is_err()).collect();
    assert!(failed.is_empty(), "seed {seed}: {failed:?}");
    w.run(Duration::secs(5));
    if !w.is_in_sync() || w.net.links != 1 {
        let states = w.describe();
        w.fail(&format!("the connection did not last: {states}"));
    }
    assert_eq!((w.bits_set(0), w.bits_set(1)), (0, 0), "seed {seed}");
    w.assert_equal_disks();
    w.secondary(0);
    w.secondary(1);
    w.down(0);
    w.down(1);
}

#[test]
fn two_primaries_write_to_the_same_blocks() {
    for seed in seeds(150) {
        two_primaries(seed);
    }
}
