// SPDX-License-Identifier: GPL-2.0

//! Three nodes: a pair that stands on the device of another pair.

use drbd_sim::plan::Plan;
use drbd_sim::run::{quiet_panics, run};
use drbd_sim::stats::Stats;

#[test]
fn a_stacked_pair_keeps_its_promises_while_its_site_moves() {
    quiet_panics();
    let (mut stats, mut moved) = (Stats::default(), 0);
    for seed in 0..120 {
        let outcome = run(&Plan::draw_stacked(seed), true);
        if let Some(v) = outcome.violation {
            panic!("stacked seed {seed}: {}: {}", v.oracle, v.why);
        }
        let places = outcome
            .trace
            .iter()
            .filter_map(|line| line.split_once("device is on node "));
        let places: Vec<&str> = places.map(|(_, place)| place).collect();
        moved += places.windows(2).filter(|two| two[0] != two[1]).count();
        stats.merge(&outcome.stats);
    }
    assert!(moved > 10, "the device moved {moved} times");
    for fault in ["below", "crash", "disk-error", "cut"] {
        assert!(stats.done.contains_key(fault), "no {fault}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = Plan::draw_stacked(7);
    assert_eq!(Plan::parse(&plan.spell()).as_ref(), Ok(&plan));
    let (a, b) = (run(&plan, false), run(&plan, true));
    assert_eq!(
        (a.stats.events, a.stats.steps),
        (b.stats.events, b.stats.steps)
    );
    // Lines of the pair below stand among those of the pair above, in the order of time.
    assert!(b.trace.iter().any(|line| line.contains(" | n0 ")));
    assert!(b
        .trace
        .iter()
        .any(|line| line.contains(" n0 ") && !line.contains('|')));
}
