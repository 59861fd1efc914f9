// SPDX-License-Identifier: GPL-2.0

//! Plans that do much in little time, in small worlds.
//!
//! What [`Plan::draw`] usually does is spread over seconds: by then most of what it has begun is
//! over. Here most things happen within milliseconds of each other, on devices of a few extents,
//! with more orders and failing disks and less quiet time, so that resyncs, generations and frozen
//! I/O meet.
//!
//! Each eighth seed draws one, from a stream of randomness of its own: all others mean what they
//! did before.

use crate::knobs::Knobs;
use crate::plan::{Action, Op, Plan};
use crate::rng::Rng;

/// Sets the stream of randomness apart.
const DENSE: u64 = 0x6465_6e73_6500_0000;
/// Every so many seeds one is dense.
const EVERY: u64 = 8;
/// Which of them.
const WHICH: u64 = 6;

/// What is done, and how often.
const OPS: &[(Op, u64)] = &[
    (Op::Work, 40),
    (Op::Force, 5),
    (Op::Primary, 8),
    (Op::Secondary, 4),
    (Op::Connect, 8),
    (Op::Disconnect, 8),
    (Op::Attach, 9),
    (Op::Detach, 9),
    (Op::Invalidate, 4),
    (Op::InvalidatePeer, 4),
    (Op::Suspend, 5),
    (Op::Thaw, 7),
    (Op::Slow, 7),
    (Op::Stall, 6),
    (Op::DiskError, 6),
    (Op::Break, 8),
    (Op::Crash, 5),
    (Op::Up, 9),
    (Op::Cut, 6),
    (Op::Deaf, 4),
    (Op::Switch, 8),
    (Op::Wait, 8),
    (Op::Outdate, 2),
    (Op::Down, 3),
    (Op::Pause, 2),
    (Op::Resume, 3),
    (Op::Helpers, 4),
    (Op::NewUuid, 1),
    (Op::CrashAll, 1),
    (Op::ResourceOptions, 2),
];

/// Whether a seed draws such a plan.
pub fn is_dense(seed: u64) -> bool {
    seed % EVERY == WHICH
}

fn pick(rng: &mut Rng, of: &[u64]) -> u64 {
    of[rng.below(of.len() as u64) as usize]
}

/// Numbers that fit an action.
fn arguments(op: Op, rng: &mut Rng) -> (u64, u64) {
    match op {
        Op::Work => (rng.between(5, 120), pick(rng, &[1, 200, 2000, 20_000])),
        Op::Disconnect | Op::Detach => (u64::from(rng.percent(30)), 0),
        Op::Cut | Op::Deaf | Op::Stall | Op::Wait => {
            let most = pick(rng, &[5, 300, 3000, 9000]);
            (rng.between(1, most), 0)
        }
        Op::Break | Op::Helpers => (rng.below(4), 0),
        Op::DiskError => (rng.between(1, 3), pick(rng, &[0, 1, 1, 1, 2])),
        Op::Slow => (pick(rng, &[0, 4, 8, 64]), 0),
        Op::ResourceOptions => (rng.below(2), 0),
        _ => (0, 0),
    }
}

/// Draws such a plan.
pub(crate) fn draw(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ DENSE);
    let knobs = Knobs::draw_dense(&mut rng);
    let weights: Vec<(Op, u64)> = OPS
        .iter()
        .filter(|(op, _)| {
            let vital = matches!(op, Op::Work | Op::Up | Op::Wait | Op::Primary);
            vital || rng.percent(50)
        })
        .copied()
        .collect();
    let sum: u64 = weights.iter().map(|(_, w)| w).sum();
    let mut actions = Vec::new();
    if rng.percent(60) {
        actions.push(Action {
            after: rng.below(3_000_000),
            op: Op::Work,
            node: 0,
            a: 60,
            b: 200,
        });
    }
    for _ in 0..rng.between(6, 30) {
        let mut at = rng.below(sum);
        let mut chosen = weights.iter().filter(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let op = chosen.next().map_or(Op::Wait, |(op, _)| *op);
        let (a, b) = arguments(op, &mut rng);
        let span = pick(&mut rng, &[100, 5000, 100_000, 1_000_000]);
        actions.push(Action {
            after: rng.below(span),
            op,
            node: rng.below(2) as usize,
            a,
            b,
        });
    }
    Plan {
        noise: rng.bits() >> 16,
        knobs,
        actions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worlds_of_dense_plans_are_ones_that_drbd_takes() {
        let seeds = (0..4000).filter(|seed| is_dense(*seed));
        let mut ops = Vec::new();
        for seed in seeds {
            let plan = Plan::draw(seed);
            assert!(plan.knobs.fit(), "{}", plan.spell());
            assert!(plan.actions.len() >= 6);
            assert_eq!(Plan::parse(&plan.spell()).as_ref(), Ok(&plan));
            ops.extend(plan.actions.iter().map(|x| x.op));
        }
        for (op, _) in OPS {
            assert!(ops.contains(op), "no {}", op.word());
        }
    }
}
