// SPDX-License-Identifier: GPL-2.0

//! Online resize: sizes, places, codes, and a power failure at every step of it.

use drbd_core::meta::layout::Striping;
use drbd_core::meta::superblock::Flags;
use drbd_core::nl::conf::ResizeParms;
use drbd_core::node::admin::Command;
use drbd_core::node::AppOp;
use drbd_small::drbdmeta;
use drbd_small::world::VOL;
use drbd_small::World;

/// Blocks of the disks at first: 2 MiB.
const SMALL: u64 = 512;
/// Blocks of a disk that grew, into the second page of the bitmap: 200 MiB.
const LARGE: u64 = 51_200;
/// Blocks of a disk that grew, for what is done often.
const LARGER: u64 = 2048;
/// A disk that grew by so little that old and new metadata overlap.
const LITTLE: u64 = 515;

fn max_size(blocks: u64) -> u64 {
    drbdmeta::layout(blocks * 8, Striping::DEFAULT)
        .first_sector()
        .0
}

/// Two nodes in sync, the first one Primary, some blocks written.
fn pair() -> World {
    let mut w = World::new(SMALL);
    w.boot(0).unwrap();
    w.boot(1).unwrap();
    w.until("connection", |w| w.state(0).conn.name() == "Connected");
    w.must(
        0,
        Command::Primary {
            vol: VOL,
            force: true,
        },
    );
    w.until("in sync", World::in_sync);
    w.settle();
    write(&mut w, 0, &[1, 2, 40]);
    w
}

fn write(w: &mut World, node: usize, blocks: &[u64]) {
    for block in blocks {
        let tag = w
            .oracle
            .values(*block)
            .last()
            .copied()
            .unwrap_or(*block << 8)
            + 1;
        w.submit(node, AppOp::Write, *block, tag);
        w.until("a write", |w| w.nodes[node].apps.is_empty());
    }
    w.settle();
    // What was acknowledged long ago has left the caches.
    for n in &mut w.nodes {
        n.disk.flush();
    }
}

fn grow(w: &mut World, nodes: &[usize], blocks: u64) {
    for n in nodes {
        w.nodes[*n].disk.resize(blocks);
    }
}

fn parms(w: &World, node: usize) -> ResizeParms {
    w.nodes[node].machine.as_ref().unwrap().resize_base(VOL)
}

fn resize(w: &mut World, node: usize, parms: ResizeParms) -> i32 {
    w.nodes[node].measure();
    w.ask(node, Command::Resize { vol: VOL, parms })
}

fn check_metadata(w: &World) {
    for n in 0..2 {
        let Some((sb, l)) = drbdmeta::superblock(&w.nodes[n].disk) else {
            w.fail(&format!("n{n}: no metadata where drbdmeta looks for them"));
        };
        assert_eq!(sb.la_size.0, w.nodes[n].size);
        assert!(!sb.flags.contains(Flags::FULL_SYNC) && !sb.flags.contains(Flags::AL_DISABLED));
        assert_eq!(sb.al_offset, l.al_offset);
    }
}

fn settled(w: &mut World) {
    w.settle();
    w.until("in sync", World::in_sync);
    w.settle();
    w.check_data();
    check_metadata(w);
}

#[test]
fn both_disks_grow() {
    for blocks in [LARGE, LITTLE, SMALL + 1] {
        let mut w = pair();
        grow(&mut w, &[0, 1], blocks);
        let p = parms(&w, 0);
        assert_eq!(resize(&mut w, 0, p), 101);
        let bits = max_size(blocks).div_ceil(8) - max_size(SMALL).div_ceil(8);
        settled(&mut w);
        for n in 0..2 {
            assert_eq!(w.nodes[n].size, max_size(blocks));
            let new = format!("{bits} bits set");
            assert!(
                bits == 0 || w.nodes[n].log.iter().any(|l| l.contains(&new)),
                "only what is new"
            );
        }
        let end = w.nodes[0].size / 8 - 1;
        write(&mut w, 0, &[2, end]);
        settled(&mut w);
    }
}

#[test]
fn new_storage_may_be_declared_clean() {
    let mut w = pair();
    grow(&mut w, &[0, 1], LARGE);
    let p = ResizeParms {
        no_resync: true,
        ..parms(&w, 0)
    };
    assert_eq!(resize(&mut w, 0, p), 101);
    settled(&mut w);
    for n in 0..2 {
        assert_eq!(w.nodes[n].size, max_size(LARGE));
        let suppressed = |l: &String| l.contains("suppressed with --assume-clean");
        assert!(w.nodes[n].log.iter().any(suppressed));
    }
    // What is on disk is the clean bitmap, too.
    w.crash(1, true, |n| n - 1);
    w.boot(1).unwrap();
    settled(&mut w);
}

#[test]
fn one_disk_that_grew_changes_only_its_metadata() {
    for node in 0..2 {
        let mut w = pair();
        grow(&mut w, &[node], LARGE);
        let p = parms(&w, 0);
        assert_eq!(resize(&mut w, 0, p), 101);
        settled(&mut w);
        assert_eq!(w.nodes[0].size, max_size(SMALL));
        // The other one follows, and a resize asked for on the first node makes use of it.
        grow(&mut w, &[1 - node], LARGE);
        assert_eq!(resize(&mut w, 0, p), 101);
        settled(&mut w);
        assert_eq!([0, 1].map(|n| w.nodes[n].size), [max_size(LARGE); 2]);
    }
}

#[test]
fn a_configured_size_shrinks_and_grows() {
    let mut w = pair();
    let p = parms(&w, 0);
    let small = ResizeParms {
        resize_size: 800,
        ..p
    };
    assert_eq!(resize(&mut w, 0, small), 101);
    settled(&mut w);
    assert_eq!([0, 1].map(|n| w.nodes[n].size), [800; 2]);
    // More than there is: the size stays what both have room for.
    let much = ResizeParms {
        resize_size: 1 << 30,
        ..p
    };
    assert_eq!(resize(&mut w, 0, much), 101);
    settled(&mut w);
    assert_eq!([0, 1].map(|n| w.nodes[n].size), [max_size(SMALL); 2]);
    // Disks that became smaller have no room for the device; a size that asks for it is refused.
    let some = ResizeParms {
        resize_size: 2400,
        ..p
    };
    assert_eq!(resize(&mut w, 0, some), 101);
    settled(&mut w);
    grow(&mut w, &[0], 288);
    assert_eq!(resize(&mut w, 0, some), 169);
    assert_eq!(w.nodes[0].size, 2400);
}

#[test]
fn a_write_that_waits_while_the_device_shrinks_fails() {
    let mut w = pair();
    w.nodes[0].measure();
    let p = ResizeParms {
        resize_size: 800,
        ..parms(&w, 0)
    };
    let op = w.order(0, Command::Resize { vol: VOL, parms: p });
    let app = w.submit(0, AppOp::Read, 200, 0);
    assert!(w.nodes[0].apps.contains_key(&app), "it waits");
    w.until("the answer", |w| w.nodes[0].answers.contains_key(&op));
    assert!(w.nodes[0].apps.is_empty());
    settled(&mut w);
}

#[test]
fn the_activity_log_moves() {
    for (stripes, kib) in [(2, 32), (1, 64), (4, 16), (3, 128)] {
        let mut w = pair();
        // Room for the log has to come from the device.
        let p = parms(&w, 0);
        let small = ResizeParms {
            resize_size: 1600,
            ..p
        };
        assert_eq!(resize(&mut w, 0, small), 101);
        settled(&mut w);
        let ring = ResizeParms {
            al_stripes: stripes,
            al_stripe_size: kib,
            ..small
        };
        let one = ResizeParms {
            al_stripes: stripes,
            al_stripe_size: kib,
            ..p
        };
        for n in 0..2 {
            assert_eq!(resize(&mut w, n, ring), 101);
            settled(&mut w);
        }
        assert_eq!(w.nodes[0].size, 1600);
        write(&mut w, 0, &[1, 2, 60]);
        w.submit(0, AppOp::Write, 2, 777);
        w.crash(0, false, |_| 0);
        w.until("loss", |w| w.state(1).conn.name() == "WFConnection");
        w.boot(0).unwrap();
        settled(&mut w);
        w.must(
            0,
            Command::Primary {
                vol: VOL,
                force: false,
            },
        );
        // All that is left is given to the device, or to the old ring.
        assert_eq!(resize(&mut w, 0, one), 101);
        settled(&mut w);
        assert!(w.nodes[0].size > 1600);
        assert_eq!(parms(&w, 0).al_stripes, stripes);
    }
}

#[test]
fn without_the_peer_it_takes_a_word() {
    let mut w = pair();
    w.cut();
    w.settle();
    grow(&mut w, &[0, 1], LARGE);
    let p = parms(&w, 0);
    assert_eq!(resize(&mut w, 0, p), 101);
    assert_eq!(
        w.nodes[0].size,
        max_size(SMALL),
        "the peer's disk was small"
    );
    let ring = ResizeParms { al_stripes: 2, ..p };
    assert_eq!(resize(&mut w, 0, ring), 166);
    let clean = ResizeParms {
        no_resync: true,
        ..p
    };
    assert_eq!(resize(&mut w, 0, clean), 153);
    let force = ResizeParms {
        resize_force: true,
        ..p
    };
    assert_eq!(resize(&mut w, 0, force), 101);
    assert_eq!(w.nodes[0].size, max_size(LARGE));
    let end = w.nodes[0].size / 8 - 1;
    write(&mut w, 0, &[end, 7]);
    w.network = true;
    w.until("in sync", World::in_sync);
    settled(&mut w);
    assert_eq!(w.nodes[1].size, max_size(LARGE));
}

#[test]
fn refusals() {
    let mut w = pair();
    let p = parms(&w, 0);
    let with = |stripes, kib| ResizeParms {
        al_stripes: stripes,
        al_stripe_size: kib,
        ..p
    };
    for (parms, code) in [
        (with(1, 16), 168),
        (with(1024, 32_768), 167),
        (with(u32::MAX, u32::MAX), 167),
        (with(0, 32), 168),
        // 33 KiB, yet only 6 whole blocks.
        (with(3, 11), 168),
        (with(1, 1024), 170),
        (
            ResizeParms {
                resize_size: max_size(SMALL),
                ..with(1, 1024)
            },
            169,
        ),
    ] {
        assert_eq!(resize(&mut w, 0, parms), code, "{parms:?}");
    }
    // The configured size stays, as with the C driver.
    assert_eq!(resize(&mut w, 0, p), 101);
    w.must(0, Command::Secondary { vol: VOL });
    w.settle();
    assert_eq!(resize(&mut w, 0, p), 131);
    w.must(0, Command::InvalidatePeer { vol: VOL });
    w.until("resync", |w| w.state(0).conn.name() > "Connected");
    assert_eq!(w.ask(0, Command::Resize { vol: VOL, parms: p }), 130);
    settled(&mut w);
    w.must(
        1,
        Command::Detach {
            vol: VOL,
            force: false,
        },
    );
    assert_eq!(resize(&mut w, 1, p), 138);
}

/// How a disk looks after a power failure.
#[derive(Clone, Copy, Debug)]
struct Failure {
    /// What it worked on was done.
    all: bool,
    /// Which version of a block stays: by the number of the block in the cache.
    newest: fn(usize) -> bool,
}

const FAILURES: [Failure; 5] = [
    Failure {
        all: false,
        newest: |_| false,
    },
    Failure {
        all: false,
        newest: |_| true,
    },
    Failure {
        all: true,
        newest: |_| true,
    },
    Failure {
        all: true,
        newest: |n| n % 2 == 0,
    },
    Failure {
        all: true,
        newest: |n| n % 3 == 0,
    },
];

/// What happens to the disks, and what is asked for then.
type Case = (&'static [usize], u64, fn(ResizeParms) -> ResizeParms);

/// Runs a resize up to its `steps`th event; false: it was over before.
fn partly(w: &mut World, case: &Case, steps: usize) -> bool {
    grow(w, case.0, case.1);
    w.nodes[0].measure();
    let p = case.2(parms(w, 0));
    w.order(0, Command::Resize { vol: VOL, parms: p });
    for _ in 0..steps {
        match w.events().first() {
            Some(event) => w.happen(*event),
            None => return false,
        }
    }
    true
}

/// Waits for both nodes to be in sync. A node that did not hear of the new, smaller size before it
/// or its peer died refuses to shrink: the administrator has to ask it to.
fn finish(w: &mut World, case: &Case) {
    let alone = |w: &World| (0..2).find(|n| w.state(*n).conn.name() == "StandAlone");
    w.until("in sync, or refused", |w| w.in_sync() || alone(w).is_some());
    w.settle();
    if let Some(n) = alone(w) {
        assert!(case.0.is_empty(), "only shrinking is refused");
        let p = case.2(parms(w, n));
        assert_eq!(resize(w, n, p), 101);
        let (peer, conf) = (drbd_core::node::PEER, w.net_conf);
        w.must(n, Command::Connect { peer, conf });
        w.until("in sync", World::in_sync);
    }
    w.settle();
    w.check_data();
    check_metadata(w);
}

fn crash_everywhere(case: &Case, victims: &[usize]) -> usize {
    let mut tried = 0;
    // Without optimization some of the moments have to do.
    let stride = if cfg!(debug_assertions) { 17 } else { 1 };
    for steps in (0..).step_by(stride) {
        let mut over = false;
        for failure in FAILURES {
            for victim in victims {
                let mut w = pair();
                over = !partly(&mut w, case, steps);
                let who = if *victim == 2 {
                    vec![0, 1]
                } else {
                    vec![*victim]
                };
                for n in &who {
                    let mut at = 0;
                    w.crash(*n, failure.all, |versions| {
                        at += 1;
                        if (failure.newest)(at) {
                            versions - 1
                        } else {
                            0
                        }
                    });
                }
                w.settle();
                for n in who {
                    if w.boot(n).is_none() {
                        w.fail(&format!(
                            "n{n} has no metadata after {steps} steps, {failure:?}"
                        ));
                    }
                }
                finish(&mut w, case);
                tried += 1;
            }
        }
        if over {
            return tried;
        }
    }
    tried
}

#[test]
fn the_power_may_fail_at_any_moment() {
    let cases: [Case; 6] = [
        (&[0, 1], LARGER, |p| p),
        (&[0, 1], LITTLE, |p| p),
        (&[0], SMALL + 1, |p| p),
        (&[1], LITTLE, |p| p),
        (&[], SMALL, |p| ResizeParms {
            resize_size: 1600,
            ..p
        }),
        (&[0, 1], LITTLE, |p| ResizeParms {
            al_stripes: 2,
            al_stripe_size: 16,
            ..p
        }),
    ];
    let mut tried = 0;
    for case in &cases {
        tried += crash_everywhere(case, &[0, 1, 2]);
    }
    println!("{tried} power failures");
    assert!(tried > 100, "{tried}");
}
