// SPDX-License-Identifier: GPL-2.0

//! What runs go through is what the rules let through, and what wide seeds draw is reached.

use drbd_sim::algebra::{self, Algebra};
use drbd_sim::plan::Plan;
use drbd_sim::run::{quiet_panics, run};
use drbd_sim::stats::Stats;

#[test]
fn states_move_only_as_the_rules_let_them() {
    quiet_panics();
    let mut stats = Stats::default();
    for seed in 300_000..300_150 {
        stats.merge(&run(&Plan::draw(seed), false).stats);
    }
    let legal = Algebra::new();
    for (from, to) in stats.joint.keys() {
        let (a, b) = (algebra::name(*from), algebra::name(*to));
        assert!(legal.moves.contains(&(*from, *to)), "{a} -> {b}");
    }
    for wanted in ["first resync skipped", "bad digest"] {
        assert!(stats.decisions.contains_key(wanted), "no {wanted}");
    }
    assert!(stats.moves.len() >= 12, "{:?}", stats.moves);
}
