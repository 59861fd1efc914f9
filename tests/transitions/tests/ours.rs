// SPDX-License-Identifier: GPL-2.0

//! Our core against what a pair of C nodes did (`tests/golden/transitions`): every recorded state
//! is reached, every recorded order has the same answer there and leads to the same state of both
//! nodes, UUIDs and flags of the superblocks included. What differs is listed, with the reason, in
//! `tests/golden/transitions/differences.txt`, and nothing else.
//!
//! `SHOW=pair` prints what ours do in all states with `pair` in their names, `SHOW=all` in all;
//! `ORDER=detach` only such orders, `LOGS=1` the kernel logs of both nodes as well.

#[path = "ours/clerk.rs"]
mod clerk;
#[path = "ours/differences.rs"]
mod differences;

use clerk::Pair;
use differences::Differences;
use drbd_transitions::outcomes::{Answer, InState, Outcomes};
use drbd_transitions::plan::{Plan, State};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Where a state stands in place of an order.
const IS: &str = "is";

fn reach(state: &State) -> Result<(Pair, InState), String> {
    let mut pair = Pair::new();
    let found = pair.go(&state.path)?;
    Ok((pair, InState::new(found)))
}

/// What ours make of an order, in the words of the file.
fn ours(state: &State, node: usize, order: &str) -> String {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let (mut pair, here) = reach(state)?;
        let answer = Answer::of_code(pair.order(node, order));
        let came = here.after(answer, &pair.rest());
        if std::env::var_os("LOGS").is_some() {
            pair.print_logs();
        }
        Ok::<_, String>(came)
    }));
    match tried {
        Ok(Ok(came)) => came,
        Ok(Err(why)) => why,
        Err(_) => "panics".into(),
    }
}

#[test]
fn every_state_is_reached() {
    let (plan, golden) = (Plan::golden(), Outcomes::golden());
    let differences = Differences::golden();
    let show = std::env::var_os("SHOW").is_some();
    let mut unlike = Vec::new();
    for state in &plan.states {
        match reach(state) {
            Err(why) => unlike.push(format!("{}: {why}", state.name)),
            Ok((_, here)) => {
                let line = here.line();
                if show {
                    println!("{} | is | {line}", state.name);
                }
                let recorded = golden.state(&state.name).unwrap_or(line);
                if recorded != line && !differences.explain(&state.name, IS, line) {
                    unlike.push(format!("{}\n  C    {recorded}\n  ours {line}", state.name));
                }
            }
        }
    }
    println!("{} states, {} recorded", plan.states.len(), golden.states());
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

#[test]
fn every_order_does_what_it_does_with_the_c_driver() {
    let (plan, golden) = (Plan::golden(), Outcomes::golden());
    let differences = Differences::golden();
    let [show, only] = ["SHOW", "ORDER"].map(|v| std::env::var(v).unwrap_or_default());
    let (mut unlike, mut recorded, mut same) = (Vec::new(), 0, 0);
    for state in &plan.states {
        for (node, words) in plan.tried_in(state) {
            let order = Outcomes::order(node, words);
            let known = golden.get(&state.name, &order);
            let here = show == "all" || (!show.is_empty() && state.name.contains(&show));
            let wanted = here && order.contains(&only);
            if known.is_none() && !wanted {
                continue;
            }
            let came = ours(state, node, words);
            if wanted {
                println!("{} | {order} | {came}", state.name);
            }
            let Some(known) = known else { continue };
            recorded += 1;
            let excused = differences.explain(&state.name, &order, &came);
            let same_as_said = differences.has(&state.name, &order) == excused;
            if known == came && same_as_said {
                same += 1;
            } else if !excused {
                let name = &state.name;
                unlike.push(format!("{name} | {order}\n  C    {known}\n  ours {came}"));
            }
        }
    }
    println!("{recorded} orders recorded, {same} the same");
    assert!(unlike.is_empty(), "{}", unlike.join("\n"));
}

/// What was recorded belongs to the plan, and what is excused was recorded.
#[test]
fn nothing_is_left_over() {
    let (plan, golden) = (Plan::golden(), Outcomes::golden());
    let in_plan = |state: &str, order: &str| {
        let state = plan.state(state);
        let tried = state.map(|s| plan.tried_in(s)).unwrap_or_default();
        tried.iter().any(|(n, w)| Outcomes::order(*n, w) == order)
    };
    let strays: Vec<String> = golden
        .orders()
        .filter(|(state, order, _)| !in_plan(state, order))
        .map(|(state, order, _)| format!("{state} | {order}"))
        .collect();
    assert!(strays.is_empty(), "{}", strays.join("\n"));
    let differences = Differences::golden();
    for (state, order, ours) in differences.all() {
        let known = match order {
            IS => golden.state(state),
            _ => golden.get(state, order),
        };
        let differs = known.is_some_and(|known| known != ours);
        assert!(differs, "no difference: {state} | {order}");
    }
}
