// SPDX-License-Identifier: GPL-2.0

//! Neighbours of saved plans: the same story with other times, another order, on the other node, or
//! with something more in between. Each second one may also be two stories, one after the other,
//! or take place in the world of another.
//!
//! Where one bug was there is often another one. A plan that once failed leads to where nodes
//! rarely come; a few changes to it find there what fresh seeds need a hundred times longer for.

use crate::plan::{Action, Plan};
use crate::rng::Rng;

/// Sets the stream of randomness apart from that of the plans.
const STREAM: u64 = 0x7661_7279_0000_0000;
/// A wait becomes so many tenths as long.
const TENTHS: [u64; 8] = [0, 1, 5, 9, 10, 11, 20, 40];
/// So many µs are added to it.
const MORE: [u64; 4] = [0, 1, 50, 1000];

/// A variation of one of these plans, of which there is at least one; the same one for a seed as
/// long as the plans are the same.
pub fn vary(plans: &[Plan], seed: u64) -> Plan {
    let mut r = Rng::new(seed ^ STREAM);
    let mut any = |n: usize| r.below(n.max(1) as u64) as usize;
    let mut plan = plans[any(plans.len())].clone();
    for _ in 0..=any(4) {
        change(&mut plan.actions, plans, &mut any);
    }
    if seed % 2 == 1 {
        mix(&mut plan, plans, &mut any);
    }
    if any(8) == 0 && plan.knobs.cache == 1 {
        plan.knobs.cache = 2;
    }
    plan.noise = r.bits() >> 16;
    plan
}

/// Joins it to another story, or puts it into another world.
fn mix(plan: &mut Plan, plans: &[Plan], any: &mut impl FnMut(usize) -> usize) {
    if any(2) == 0 {
        let cut = any(plan.actions.len() + 1);
        if any(2) == 0 {
            plan.actions.truncate(cut);
        }
        plan.actions.extend(&plans[any(plans.len())].actions);
    }
    if any(3) != 0 {
        plan.knobs = plans[any(plans.len())].knobs.clone();
    }
}

fn change(actions: &mut Vec<Action>, plans: &[Plan], any: &mut impl FnMut(usize) -> usize) {
    let at = any(actions.len());
    let Some(action) = actions.get_mut(at) else {
        return;
    };
    match any(20) {
        0..=7 => {
            let tenths = TENTHS[any(TENTHS.len())];
            action.after = (action.after * tenths / 10 + MORE[any(MORE.len())]).max(1);
        }
        8..=10 => action.node = 1 - action.node.min(1),
        11..=16 => {
            let other = &plans[any(plans.len())].actions;
            if let Some(more) = other.get(any(other.len())) {
                actions.insert(at, *more);
            }
        }
        17 => {
            actions.remove(at);
        }
        _ if at > 0 => actions.swap(at, at - 1),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans of different worlds and lengths.
    fn stories() -> Vec<Plan> {
        (0..40).map(Plan::draw).collect()
    }

    #[test]
    fn worlds_of_variations_are_ones_that_drbd_takes() {
        let plans = stories();
        for seed in 0..1000 {
            let plan = vary(&plans, seed);
            assert!(plan.knobs.fit(), "{}", plan.spell());
            assert_eq!(Plan::parse(&plan.spell()).as_ref(), Ok(&plan));
            assert_eq!(vary(&plans, seed), plan);
        }
    }

    #[test]
    fn each_second_variation_may_be_a_mixture() {
        let (short, long) = (4, 40);
        let mut plans = stories();
        for (n, plan) in plans.iter_mut().enumerate() {
            // Nothing but a mixture is longer than that, and each world says which one it is.
            plan.actions.truncate(long);
            plan.knobs = crate::knobs::Knobs::plain();
            plan.knobs.size = 1000 + n as u64;
            plan.actions.iter_mut().for_each(|x| x.node = n);
        }
        let (mut joined, mut moved) = (0, 0);
        for seed in 0..1000 {
            let plan = vary(&plans, seed);
            let joins = plan.actions.len() > long + short;
            let home = plan.knobs.size - 1000;
            let moves = plan.actions.iter().all(|x| x.node as u64 != home);
            assert!(seed % 2 == 1 || !joins && !moves, "{}", plan.spell());
            joined += usize::from(joins);
            moved += usize::from(moves);
        }
        assert!(joined > 20 && moved > 20, "{joined} {moved}");
    }
}
