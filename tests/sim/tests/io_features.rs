// SPDX-License-Identifier: GPL-2.0

//! Features of the I/O path on two nodes: two Primaries, congestion, integrity.
//!
//! `IO_SEEDS=from..to` looks at more seeds than the few of a normal run.

use drbd_core::node::AppOp;
use drbd_core::time::Duration;
use drbd_core::units::Sectors;
use drbd_sim::knobs::Knobs;
use drbd_sim::World;

/// 20 MiB: two resync extents.
const SIZE: Sectors = Sectors(40_960);

fn seeds(most: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("IO_SEEDS").unwrap_or_default();
    let (from, to) = wanted.split_once("..").unwrap_or(("", ""));
    from.parse().unwrap_or(0)..to.parse().unwrap_or(most)
}

fn connected(seed: u64, knobs: Knobs) -> World {
    let mut w = World::new(seed, SIZE);
    w.knobs = Knobs {
        size: SIZE.0,
        ..knobs
    };
    w.completed = Some(Vec::new());
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    w.primary(0, true);
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w
}

/// I/O that failed.
fn failed(w: &World) -> usize {
    let completed = w.completed.iter().flatten();
    completed.filter(|c| c.2.is_err()).count()
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
    let knobs = Knobs {
        two_primaries: 1,
        ..Knobs::plain()
    };
    let mut w = connected(seed, knobs);
    w.primary(1, false);
    // From a link that is quicker than the disks to one that is much slower.
    w.net.delay = [Duration([1_000, 50_000, 2_000_000][seed as usize % 3]); 2];
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
    assert_eq!(failed(&w), 0, "seed {seed}");
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

/// What a verify says counts among the acknowledgements that the arbiter waits for.
#[test]
fn two_primaries_write_while_a_verify_runs() {
    for seed in 0..6 {
        let knobs = Knobs {
            two_primaries: 1,
            verify: 1,
            c_min_rate: 0,
            ..Knobs::plain()
        };
        let mut w = connected(seed, knobs);
        w.primary(1, false);
        let code = w.verify(seed as usize % 2, None, None);
        assert!(matches!(code, 1 | 3), "verify: {code}");
        for _ in 0..400 {
            let node = w.rng.below(2) as usize;
            crowded_io(&mut w, node, 256);
            let pause = Duration(w.rng.below(10_000_000));
            w.run(pause);
        }
        w.run_until("the end of the verify", Duration::secs(900), |w| {
            w.is_in_sync() && w.open_ios(0) == 0 && w.open_ios(1) == 0
        });
        w.run(Duration::secs(5));
        assert_eq!(failed(&w), 0, "seed {seed}");
        if !w.is_in_sync() || w.net.links != 1 {
            let states = w.describe();
            w.fail(&format!("the connection did not last: {states}"));
        }
        assert_eq!((w.bits_set(0), w.bits_set(1)), (0, 0), "seed {seed}");
        w.assert_equal_disks();
    }
}

/// Writes in bursts until the peer falls behind, then lets it catch up. Says how often it fell.
fn congestion(seed: u64) -> u32 {
    let knobs = Knobs {
        protocol: 1,
        on_congestion: 1,
        cong_fill: 400,
        ..Knobs::plain()
    };
    let mut w = connected(seed, knobs);
    w.net.delay = [Duration(5_000_000); 2];
    let mut fell = 0;
    for _ in 0..w.rng.between(2, 6) {
        let mut ahead = false;
        for _ in 0..w.rng.between(10, 200) {
            w.random_io(0);
            let pause = Duration(w.rng.below(400_000));
            w.run(pause);
            ahead |= w.cstate(0) == "Ahead";
        }
        fell += u32::from(ahead);
        match w.rng.below(8) {
            0 => {
                w.set_network(false);
                let span = Duration(w.rng.below(20_000_000_000));
                w.run(span);
                w.set_network(true);
            }
            1 => {
                w.crash(1);
                let span = Duration(w.rng.below(20_000_000_000));
                w.run(span);
                w.up(1);
            }
            _ => {
                let span = Duration(w.rng.below(3_000_000_000));
                w.run(span);
            }
        }
    }
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w.quiesce();
    assert_eq!((w.bits_set(0), w.bits_set(1)), (0, 0), "seed {seed}");
    w.assert_equal_disks();
    w.read_everything(0);
    w.secondary(0);
    w.down(0);
    w.down(1);
    fell
}

#[test]
fn a_primary_pulls_ahead_of_a_slow_network() {
    let fell: u32 = seeds(60).map(congestion).sum();
    assert!(fell >= 60, "only {fell} times");
}

fn until_ahead(w: &mut World) {
    for _ in 0..2000 {
        if w.cstate(0) == "Ahead" {
            return;
        }
        w.random_io(0);
        w.run(Duration(50_000));
    }
    w.fail("it never pulls ahead");
}

/// What the source says after its SYNC_UUID must not be heard before the target has followed it:
/// here it is ahead again while the target still asks its helper about the resync before.
#[test]
fn a_resync_that_has_hardly_begun_is_left_behind() {
    for seed in 0..20 {
        let knobs = Knobs {
            protocol: 1,
            on_congestion: 1,
            cong_fill: 400,
            ..Knobs::plain()
        };
        let mut w = connected(seed, knobs);
        w.net.delay = [Duration(5_000_000); 2];
        w.nodes[1].trouble.helpers = 500 + 100 * seed as u32;
        for _ in 0..3 {
            until_ahead(&mut w);
            w.run_until("a resync", Duration::secs(60), |w| {
                w.cstate(0) == "SyncSource"
            });
        }
        until_ahead(&mut w);
        w.nodes[1].trouble.helpers = 0;
        w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
        w.quiesce();
        assert_eq!((w.bits_set(0), w.bits_set(1)), (0, 0), "seed {seed}");
        w.assert_equal_disks();
        w.read_everything(0);
    }
}

#[test]
fn too_many_extents_in_use_pull_ahead_as_well() {
    let knobs = Knobs {
        protocol: 1,
        on_congestion: 1,
        cong_extents: 2,
        ..Knobs::plain()
    };
    let mut w = connected(1, knobs);
    for at in 0..4 {
        w.submit(0, AppOp::Write, at * 8192, 8);
    }
    w.run(Duration::millis(2));
    assert_eq!(w.cstate(0), "Ahead");
    // It left the network alone for a second.
    w.run(Duration::millis(900));
    assert_eq!((w.cstate(0), w.cstate(1)), ("Ahead", "Behind"));
    w.run_until("both UpToDate", Duration::secs(10), World::is_in_sync);
    w.assert_equal_disks();
}

#[test]
fn a_congested_connection_may_be_given_up() {
    let knobs = Knobs {
        protocol: 1,
        on_congestion: 2,
        cong_fill: 100,
        ..Knobs::plain()
    };
    let mut w = connected(1, knobs);
    w.net.delay = [Duration::millis(50); 2];
    for _ in 0..30 {
        w.random_io(0);
        w.run(Duration::millis(1));
    }
    w.run(Duration::secs(1));
    assert_eq!(w.cstate(0), "StandAlone");
    w.quiesce();
}

fn guarded() -> Knobs {
    Knobs {
        integrity: 1,
        read_balancing: 2,
        ..Knobs::plain()
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_mended() {
    for seed in seeds(20) {
        // The initial resync is guarded, too.
        let mut w = connected(seed, guarded());
        assert_eq!(w.net.links, 1);
        for round in 2..5 {
            for _ in 0..20 {
                w.random_io(0);
                let pause = Duration(w.rng.below(300_000));
                w.run(pause);
            }
            assert_eq!(w.net.links, round - 1, "undisturbed, it lasts");
            w.net.flip = true;
            w.submit(0, AppOp::Write, 8 * round, 8);
            w.run_until("the end of the connection", Duration::secs(5), |w| {
                w.cstate(1) != "Connected"
            });
            w.run_until("both UpToDate", Duration::secs(60), World::is_in_sync);
            w.quiesce();
            w.assert_equal_disks();
            assert_eq!(w.net.links, round);
        }
        assert_eq!(failed(&w), 0, "seed {seed}");
    }
}

#[test]
fn a_damaged_answer_is_not_passed_on() {
    let mut w = connected(5, guarded());
    w.submit(0, AppOp::Write, 0, 8);
    w.quiesce();
    // By turns: one of the two goes to the peer. The books know at what they return.
    w.net.flip = true;
    w.submit(0, AppOp::Read, 0, 8);
    w.submit(0, AppOp::Read, 0, 8);
    w.run_until("the answers", Duration::secs(5), |w| w.open_ios(0) == 0);
    assert!(!w.net.flip);
    assert_eq!(failed(&w), 0);
    w.run_until("both UpToDate", Duration::secs(60), World::is_in_sync);
    assert_eq!(w.net.links, 2);
}

#[test]
fn zeroes_do_not_go_with_digests() {
    let mut w = connected(6, guarded());
    w.submit(0, AppOp::WriteZeroes { unmap: false }, 0, 8);
    w.submit(0, AppOp::Discard, 64, 8);
    w.quiesce();
    let failed: Vec<_> = w.completed.iter().flatten().map(|c| c.2.is_err()).collect();
    assert_eq!(failed, [true, false]);
    assert_eq!((w.net.links, w.bits_set(0)), (1, 0));
}

/// A disk that stops answering is given up after `disk-timeout`; applications go on with the peer.
fn hung_disk(seed: u64) {
    let knobs = Knobs {
        disk_timeout: 20,
        ..Knobs::plain()
    };
    let mut w = connected(seed, knobs);
    for _ in 0..30 {
        w.random_io(0);
        let pause = Duration(w.rng.below(300_000));
        w.run(pause);
    }
    w.quiesce();
    w.nodes[0].trouble.stalled_until = w.now.plus(Duration::secs(60));
    for _ in 0..30 {
        // Apart from each other: the books do not know of reads that overlap a write in time.
        let half = SIZE.0 / 2 - 512;
        let at = w.rng.below(half - 64);
        match w.rng.below(2) {
            0 => w.submit(0, AppOp::Read, half + at, 8),
            _ => w.submit(0, AppOp::Write, at, 8),
        };
        let pause = Duration(w.rng.below(100_000_000));
        w.run(pause);
    }
    w.run_until("the end of all I/O", Duration::secs(5), |w| {
        w.open_ios(0) == 0
    });
    assert_eq!(w.disks(0), ("Failed", "UpToDate"), "seed {seed}");
    w.read_everything(0);
    // The disk comes back to nobody.
    w.nodes[0].trouble.stalled_until = w.now;
    w.run_until("the end of the disk", Duration::secs(60), |w| {
        w.disks(0).0 == "Diskless"
    });
    w.read_everything(0);
    w.quiesce();
    assert_eq!(failed(&w), 0, "seed {seed}");
}

#[test]
fn a_disk_that_hangs_is_given_up() {
    for seed in seeds(40) {
        hung_disk(seed);
    }
}
