// SPDX-License-Identifier: GPL-2.0

//! Neighbours of saved plans: the same story with other times, another order, on the other node, or
//! with something more in between.
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
    if any(8) == 0 && plan.knobs.cache == 1 {
        plan.knobs.cache = 2;
    }
    plan.noise = r.bits() >> 16;
    plan
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
