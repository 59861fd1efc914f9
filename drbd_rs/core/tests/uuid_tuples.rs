// SPDX-License-Identifier: GPL-2.0

//! What two nodes conclude from each other's UUIDs: our decisions against those that a pair of C
//! nodes logged (`tests/golden/uuid/tuples.txt`, recorded by `drbd-lab golden-uuid`).
//!
//! The column with our conclusions was computed by an independent program when the tuples were
//! chosen, so it stands for something as long as the C driver's is empty.

use drbd_core::uuid::{decide, DecideContext, Node, UuidSet};
use std::collections::BTreeMap;

/// Number and rule.
type Conclusion = (i32, u16);

struct Tuple {
    name: String,
    apv: u32,
    nodes: [Node; 2],
    ours: [Conclusion; 2],
    recorded: [Option<Conclusion>; 2],
}

fn node(uuids: &str, flags: &str) -> Node {
    let words: Vec<u64> = uuids
        .split(':')
        .map(|w| u64::from_str_radix(w, 16).expect("a UUID"))
        .collect();
    let [current, bitmap, younger, older] = words.try_into().expect("four UUIDs");
    Node {
        uuids: UuidSet {
            current,
            bitmap,
            history: [younger, older],
        },
        crashed_primary: flags.contains('c'),
        primary: flags.contains('P'),
    }
}

fn conclusion(word: &str) -> Option<Conclusion> {
    let (number, rule) = word.split_once('/')?;
    Some((number.parse().ok()?, rule.parse().ok()?))
}

fn tuples() -> Vec<Tuple> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/uuid/tuples.txt"
    );
    let text = std::fs::read_to_string(path).expect("the tuples");
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, apv, a, a_flags, b, b_flags, ours_a, ours_b, c_a, c_b] =
                words.try_into().expect("ten columns");
            Tuple {
                name: name.into(),
                apv: apv.parse().expect("a version"),
                nodes: [node(a, a_flags), node(b, b_flags)],
                ours: [ours_a, ours_b].map(|w| conclusion(w).expect("a conclusion")),
                recorded: [c_a, c_b].map(conclusion),
            }
        })
        .collect()
}

/// What both nodes conclude; `b_decides`: b is the one that resolves conflicts.
fn conclude(t: &Tuple, b_decides: bool) -> [Conclusion; 2] {
    [0, 1].map(|me| {
        let ctx = DecideContext {
            apv: t.apv,
            write_same: true,
            resolve_conflicts: b_decides == (me == 1),
        };
        let d = decide(&t.nodes[me], &t.nodes[1 - me], ctx);
        (d.verdict.number(), d.rule.0)
    })
}

#[test]
fn our_conclusions_are_those_of_the_c_driver() {
    let mut recorded = 0;
    for t in tuples() {
        assert_eq!(conclude(&t, true), t.ours, "{}", t.name);
        let [Some(a), Some(b)] = t.recorded else {
            continue;
        };
        recorded += 1;
        // Who resolves conflicts is a matter of which connection stood first.
        let ours = [conclude(&t, false), conclude(&t, true)];
        assert!(
            ours.contains(&[a, b]),
            "{}: {a:?} {b:?}, ours {ours:?}",
            t.name
        );
    }
    println!("{recorded} tuples recorded with the C driver");
}

#[test]
fn the_tuples_cover_every_rule_and_version() {
    let mut rules: BTreeMap<u16, u32> = BTreeMap::new();
    let mut versions: BTreeMap<u32, u32> = BTreeMap::new();
    for t in tuples() {
        for (_, rule) in t.ours {
            *rules.entry(rule).or_default() += 1;
        }
        *versions.entry(t.apv).or_default() += 1;
    }
    for rule in [
        10, 20, 30, 34, 35, 36, 37, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100,
    ] {
        assert!(rules.get(&rule).is_some_and(|n| *n >= 4), "rule {rule}");
    }
    assert!(versions[&101] >= 150, "{versions:?}");
    assert!(versions[&95] > 0 && versions[&90] > 0);
}
