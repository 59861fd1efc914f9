// SPDX-License-Identifier: GPL-2.0

//! Plans that do much in little time, in small worlds.
//!
//! What [`Plan::draw`] usually does is spread over seconds: by then most of what it has begun is
//! over. Here most things happen within milliseconds of each other, on devices of a few extents,
//! with more orders and failing disks and less quiet time, so that resyncs, generations and frozen
//! I/O meet.
//!
//! Each eighth seed draws one, from a stream of randomness of its own: all others mean what they
//! did before. Each second of these also does what [`Plan::draw`] has learnt later: see [`MORE`].

use crate::knobs::Knobs;
use crate::plan::{Action, Op, Plan};
use crate::rng::Rng;

/// Sets the stream of randomness apart.
const DENSE: u64 = 0x6465_6e73_6500_0000;
/// Every so many seeds one is dense.
const EVERY: u64 = 8;
/// Which of them.
const WHICH: u64 = 6;
/// Every so many seeds one is dense, and does [`MORE`].
const WIDE_EVERY: u64 = 2 * EVERY;
/// Which of them.
const WIDE_WHICH: u64 = WHICH + EVERY;

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

/// What is done besides in each second one, as far as its world has what it takes.
const MORE: &[(Op, u64)] = &[
    (Op::Verify, 8),
    (Op::Grow, 6),
    (Op::Resize, 14),
    (Op::HoldBack, 5),
    (Op::WorkBoth, 10),
    (Op::Give, 4),
    (Op::Close, 3),
    (Op::DiskOptions, 4),
    (Op::NetOptions, 4),
    (Op::Flip, 4),
];

/// Whether a seed draws such a plan.
pub fn is_dense(seed: u64) -> bool {
    seed % EVERY == WHICH
}

/// Whether the plan of a dense seed does [`MORE`].
fn is_wide(seed: u64) -> bool {
    seed % WIDE_EVERY == WIDE_WHICH
}

/// Whether a world has what it takes for [`MORE`].
fn suits(k: &Knobs, op: Op) -> bool {
    match op {
        Op::Verify => k.verify != 0,
        Op::Grow | Op::Resize => k.grows != 0,
        Op::HoldBack => k.resync_after != 0,
        Op::WorkBoth => k.two_primaries != 0,
        Op::Flip => k.integrity != 0,
        _ => true,
    }
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
        Op::ResourceOptions | Op::HoldBack => (rng.below(2), 0),
        Op::DiskOptions | Op::NetOptions => (rng.below(15), 0),
        Op::Verify if rng.percent(30) => (0, 0),
        Op::Verify => {
            let from = rng.below(1000);
            (from, from + rng.between(1, 200))
        }
        Op::WorkBoth => (rng.between(5, 60), rng.below(2)),
        Op::Give => (u64::from(rng.percent(25)), u64::from(rng.percent(30))),
        Op::Grow => (8 * rng.between(10, 600), u64::from(rng.percent(80))),
        _ => (0, 0),
    }
}

/// Draws such a plan.
pub(crate) fn draw(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ DENSE);
    let mut knobs = Knobs::draw_dense(&mut rng);
    let mut more: &[(Op, u64)] = &[];
    if is_wide(seed) {
        knobs.draw_dense_wide(&mut rng);
        more = MORE;
    }
    let weights: Vec<(Op, u64)> = OPS
        .iter()
        .chain(more.iter().filter(|(op, _)| suits(&knobs, *op)))
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
        let seeds = (0..8000).filter(|seed| is_dense(*seed));
        let (mut ops, mut wide_ops) = (Vec::new(), Vec::new());
        for seed in seeds {
            let plan = Plan::draw(seed);
            assert!(plan.knobs.fit(), "{}", plan.spell());
            assert!(plan.actions.len() >= 6);
            assert_eq!(Plan::parse(&plan.spell()).as_ref(), Ok(&plan));
            let ops = if is_wide(seed) {
                &mut wide_ops
            } else {
                &mut ops
            };
            ops.extend(plan.actions.iter().map(|x| x.op));
        }
        for (op, _) in OPS {
            assert!(ops.contains(op), "no {}", op.word());
            assert!(wide_ops.contains(op), "no {} in wide ones", op.word());
        }
        for (op, _) in MORE {
            assert!(!ops.contains(op), "{}", op.word());
            assert!(wide_ops.contains(op), "no {}", op.word());
        }
    }

    #[test]
    fn each_second_dense_seed_is_wide() {
        let wide = (0..8000).filter(|seed| is_wide(*seed));
        assert!(wide.clone().all(is_dense));
        assert_eq!(wide.count(), 500);
    }

    #[test]
    fn what_is_done_besides_fits_the_world() {
        for seed in (0..8000).filter(|seed| is_wide(*seed)) {
            let plan = Plan::draw(seed);
            for action in &plan.actions {
                assert!(suits(&plan.knobs, action.op), "{}", plan.spell());
            }
        }
    }
}
