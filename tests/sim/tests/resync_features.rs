// SPDX-License-Identifier: GPL-2.0

//! Checksum-based resync, thin resync, online verify, and `resync-after` between resources.

use drbd_core::node::AppOp;
use drbd_core::resync_after::must_wait;
use drbd_core::time::Duration;
use drbd_core::units::{BmBit, Minor, Sector, Sectors};
use drbd_sim::knobs::Knobs;
use drbd_sim::World;

/// 40 MiB: three resync extents.
const SIZE: Sectors = Sectors(81_920);
const SUCCESS: [i32; 2] = [1, 3];

fn switched_off(seed: u64, knobs: Knobs) -> World {
    let mut w = World::new(seed, SIZE);
    w.knobs = Knobs {
        size: SIZE.0,
        ..knobs
    };
    w
}

/// Two nodes, the first one Primary, connected; the first resync is on its way.
fn connected(seed: u64, knobs: Knobs) -> World {
    let mut w = switched_off(seed, knobs);
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    w.primary(0, true);
    w
}

fn in_sync(w: &mut World) {
    w.run_until("both UpToDate", Duration::secs(300), World::is_in_sync);
    w.quiesce();
    w.assert_equal_disks();
    assert_eq!((w.bits_set(0), w.bits_set(1)), (0, 0));
}

/// Writes some blocks while the network is down; the bits of a whole lot more get set.
fn diverge(w: &mut World) {
    w.set_network(false);
    w.run_until("loss of the peer", Duration::secs(60), |w| {
        w.cstate(0) == "WFConnection" && w.cstate(1) == "WFConnection"
    });
    for n in 0..40 {
        w.submit(0, AppOp::Write, n * 1000, 8);
    }
    w.quiesce();
}

fn sent(w: &World, node: usize) -> u64 {
    let res = w.nodes[node].res.as_ref().expect("up");
    res.volume_status(drbd_sim::world::VOL)
        .expect("volume")
        .moved[0]
        .0
}

fn csums() -> Knobs {
    Knobs {
        csums: 1,
        c_min_rate: 0,
        ..Knobs::plain()
    }
}

#[test]
fn equal_blocks_are_not_sent() {
    // Two fresh disks: everything is out of sync, and everything is equal but what is written.
    let mut w = switched_off(11, csums());
    w.up(0);
    w.primary(0, true);
    for n in 0..10 {
        w.submit(0, AppOp::Write, n * 4096, 8);
    }
    w.quiesce();
    w.up(1);
    w.run_until("resync", Duration::secs(20), |w| {
        w.cstate(1) == "SyncTarget"
    });
    let before = sent(&w, 0);
    in_sync(&mut w);
    let moved = sent(&w, 0) - before;
    assert!((80..20_000).contains(&moved), "{moved} sectors sent");
    assert!(w.resynced(1) >= SIZE.bits() - 100);
    for node in ["n0", "n1"] {
        assert_eq!(w.traced(&format!("{node} 9")), 1, "statistics of {node}");
    }
}

#[test]
fn csums_only_after_a_crash() {
    let mut w = connected(
        12,
        Knobs {
            csums_crash: 1,
            ..csums()
        },
    );
    in_sync(&mut w);
    assert_eq!(w.traced("equal checksums"), 0);
    // The Primary crashes and comes back as target.
    w.submit(0, AppOp::Write, 5000, 8);
    w.run(Duration::millis(5));
    w.crash(0);
    w.run_until("loss of the peer", Duration::secs(60), |w| {
        w.cstate(1) == "WFConnection"
    });
    w.primary(1, false);
    w.up(0);
    in_sync(&mut w);
    assert_eq!(w.traced("equal checksums"), 2);
}

#[test]
fn csums_with_writes_cuts_and_crashes() {
    for seed in 0..20 {
        let mut w = connected(
            seed,
            Knobs {
                csums: 1,
                ..Knobs::plain()
            },
        );
        for round in 0..6 {
            for _ in 0..100 {
                w.random_io(0);
                let pause = Duration(w.rng.below(3_000_000));
                w.run(pause);
            }
            if round % 2 == 0 {
                w.set_network(false);
                w.run(Duration::secs(12));
                w.set_network(true);
            } else {
                w.crash(1);
                w.run(Duration::secs(1));
                w.up(1);
            }
            let span = Duration(w.rng.below(2_000_000_000));
            w.run(span);
        }
        in_sync(&mut w);
    }
}

#[test]
fn zeroes_are_not_sent() {
    let thin = Knobs {
        rs_discard: 65_536,
        c_min_rate: 0,
        ..Knobs::plain()
    };
    let mut w = switched_off(21, thin);
    w.up(0);
    w.primary(0, true);
    for n in 0..10 {
        w.submit(0, AppOp::Write, n * 4096, 8);
    }
    w.quiesce();
    // The target holds rubbish where the source has zeroes.
    for n in 0..500 {
        w.nodes[1].disk.write(Sector(n * 160), &[77; 8], true);
    }
    w.up(1);
    w.run_until("resync", Duration::secs(20), |w| {
        w.cstate(1) == "SyncTarget"
    });
    let before = sent(&w, 0);
    in_sync(&mut w);
    let moved = sent(&w, 0) - before;
    assert!((80..20_000).contains(&moved), "{moved} sectors sent");
}

fn verifying(seed: u64) -> World {
    let mut w = connected(
        seed,
        Knobs {
            verify: 1,
            c_min_rate: 0,
            ..Knobs::plain()
        },
    );
    in_sync(&mut w);
    w
}

fn verify(w: &mut World, node: usize, start: Option<u64>, stop: Option<u64>) {
    let code = w.verify(node, start.map(Sector), stop.map(Sector));
    assert!(SUCCESS.contains(&code), "verify: {code}");
    let (own, peer) = (w.cstate(node), w.cstate(1 - node));
    assert_eq!(own, "VerifyS");
    assert!(matches!(peer, "VerifyT"), "{peer}");
}

fn verified(w: &mut World) {
    w.run_until("the end of the verify", Duration::secs(900), |w| {
        w.is_in_sync()
    });
    w.run(Duration::secs(1));
}

#[test]
fn verify_finds_a_planted_difference() {
    for asks in 0..2 {
        let mut w = verifying(31);
        let lines = w.traced("Out of sync: ");
        assert_eq!(lines, 0);
        // Three neighbours, one alone, the last sector of the device.
        let end = w.last_size.0 - 1;
        for at in [8000, 8009, 8016, 40_001, end] {
            w.rot(1, Sector(at), &[0xbad]);
        }
        verify(&mut w, asks, None, None);
        // Applications go on.
        for _ in 0..50 {
            w.random_io(0);
            w.run(Duration::millis(3));
        }
        verified(&mut w);
        w.quiesce();
        let bits = [8000 / 8, 8009 / 8, 8016 / 8, 40_001 / 8, end / 8];
        let differs = |w: &World, n: usize, bit: u64| w.is_dirty(n, BmBit(bit)) == Some(true);
        // What applications wrote in the meantime need not differ any more.
        let left = |n| bits.iter().filter(|b| differs(&w, n, **b)).count() as u64;
        assert_eq!(left(0), w.bits_set(0));
        assert_eq!(left(1), w.bits_set(1));
        assert_eq!(left(0), left(1));
        assert!(left(0) >= 4, "{} found", left(0));
        assert_eq!(w.traced("start=8000, size=24"), 2, "ranges in the log");
        assert_eq!(w.traced("block out of sync!"), 2);
        assert_eq!(w.traced("helper out-of-sync"), 2);
        // The next resync mends it.
        w.disconnect(1);
        w.connect(1);
        w.connect(0);
        in_sync(&mut w);
    }
}

#[test]
fn verify_stops_and_starts_where_it_is_told() {
    let mut w = verifying(32);
    for at in [800, 8000, 40_000] {
        w.rot(1, Sector(at), &[0xbad]);
    }
    verify(&mut w, 0, Some(4003), Some(16_000));
    verified(&mut w);
    assert_eq!(w.is_dirty(0, BmBit(1000)), Some(true));
    assert_eq!((w.bits_set(0), w.bits_set(1)), (1, 1));
    assert_eq!(w.traced("n0 Online Verify reached sector 16000"), 1);
    // Without a start it goes on from there.
    verify(&mut w, 0, None, None);
    verified(&mut w);
    assert_eq!(w.is_dirty(1, BmBit(5000)), Some(true));
    assert_eq!((w.bits_set(0), w.bits_set(1)), (2, 2));
    // And after the end, from the front.
    verify(&mut w, 0, None, None);
    verified(&mut w);
    assert_eq!((w.bits_set(0), w.bits_set(1)), (3, 3));
}

#[test]
fn a_broken_verify_goes_on_where_it_was() {
    let mut w = verifying(33);
    w.rot(1, Sector(40_000), &[0xbad]);
    verify(&mut w, 0, None, None);
    w.run(Duration::secs(3));
    assert_eq!(w.cstate(0), "VerifyS");
    let code = w.verify(0, None, None);
    assert_eq!(code, 2, "it runs already: nothing to do");
    assert_eq!(w.verify(1, None, None), -8, "it runs from the other side");
    w.disconnect(1);
    w.run(Duration::secs(1));
    assert_eq!(w.traced("n0 Online Verify reached sector"), 1);
    let res = w.nodes[0].res.as_ref().unwrap();
    let start = res.verify_start(drbd_sim::world::VOL).0;
    assert!(start > 0 && start < 40_000, "{start}");
    w.connect(1);
    w.run_until("connection", Duration::secs(60), World::is_in_sync);
    verify(&mut w, 0, None, None);
    verified(&mut w);
    assert_eq!(
        w.traced(&format!("n0 Starting Online Verify from sector {start}")),
        1
    );
    assert_eq!((w.bits_set(0), w.bits_set(1)), (1, 1));
}

#[test]
fn verify_needs_an_algorithm_and_a_peer() {
    let mut w = connected(34, Knobs::plain());
    in_sync(&mut w);
    assert_eq!(w.verify(0, None, None), -14, "no algorithm");
    let mut w = connected(
        34,
        Knobs {
            verify: 1,
            ..Knobs::plain()
        },
    );
    w.run_until("resync", Duration::secs(10), |w| {
        w.cstate(0) == "SyncSource"
    });
    assert_eq!(w.verify(0, None, None), -8, "a resync runs");
    w.disconnect(0);
    assert_eq!(w.verify(0, None, None), -15, "no peer");
}

/// Two resources side by side: the nodes run both, the owner carries messages between them.
fn side_by_side(a: &mut World, b: &mut World, span: Duration) {
    let end = a.now.plus(span);
    while a.now < end {
        for w in [&mut *a, &mut *b] {
            w.run(Duration::millis(10));
        }
        for node in 0..2 {
            let held = [&*a, &*b].map(|w| {
                let lookup = |minor: Minor| {
                    let posted = a.nodes[node].posted.get(&minor);
                    posted.or_else(|| b.nodes[node].posted.get(&minor)).copied()
                };
                let own = w.minor(node);
                must_wait(w.nodes[node].posted.get(&own).and_then(|p| p.after), lookup)
            });
            let [of_a, of_b] = held;
            a.hold_back(node, of_a);
            b.hold_back(node, of_b);
        }
    }
}

#[test]
fn a_resource_waits_for_another_one() {
    let slow = Knobs {
        minor: 10,
        c_min_rate: 0,
        ..Knobs::plain()
    };
    let mut a = connected(41, slow.clone());
    in_sync(&mut a);
    let mut b = switched_off(
        42,
        Knobs {
            minor: 20,
            resync_after: 11,
            ..slow
        },
    );
    b.now = a.now;
    b.up(0);
    b.up(1);
    b.run_until("connection", Duration::secs(20), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    // Both begin a resync; the dependent one pauses on both sides.
    diverge(&mut a);
    for n in 0..20 {
        a.submit(0, AppOp::Write, n * 4000, 256);
    }
    a.quiesce();
    a.set_network(true);
    b.now = a.now;
    a.run_until("resync", Duration::secs(60), |w| {
        w.cstate(1) == "SyncTarget"
    });
    side_by_side(&mut a, &mut b, Duration::millis(20));
    assert_eq!(a.cstate(1), "SyncTarget");
    b.primary(0, true);
    b.run(Duration::millis(300));
    assert_eq!((b.cstate(0), b.cstate(1)), ("PausedSyncS", "PausedSyncT"));
    let bits = b.bits_set(1);
    side_by_side(&mut a, &mut b, Duration::secs(1));
    assert!(b.bits_set(1) == bits || a.is_in_sync(), "{}", b.describe());
    while !a.is_in_sync() {
        side_by_side(&mut a, &mut b, Duration::secs(1));
    }
    side_by_side(&mut a, &mut b, Duration::secs(1));
    assert_eq!((b.cstate(0), b.cstate(1)), ("SyncSource", "SyncTarget"));
    in_sync(&mut b);
}
