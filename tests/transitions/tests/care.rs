// SPDX-License-Identifier: GPL-2.0

//! Orders that cost data with the C driver and not here: what ours do instead, and why it matters
//! later.

#[path = "ours/clerk.rs"]
mod clerk;

use clerk::Pair;
use drbd_transitions::outcomes::{Answer, Found};
use drbd_transitions::plan::Plan;

const JUST_CREATED: u64 = 4;

fn reach(state: &str) -> Pair {
    let plan = Plan::golden();
    let mut pair = Pair::new();
    let path = &plan.state(state).expect("a state").path;
    if let Err(why) = pair.go(path) {
        pair.print_logs();
        panic!("{state}: {why}");
    }
    pair
}

fn disks(found: &Found) -> [String; 2] {
    let ds = |n: usize| found.nodes[n].proc.as_ref().map(|p| p.ds.clone());
    [0, 1].map(|n| ds(n).unwrap_or_default())
}

fn currents(found: &Found) -> [u64; 2] {
    let current = |n: usize| found.nodes[n].generation.as_ref().map(|g| g.uuids[0]);
    [0, 1].map(|n| current(n).unwrap_or_default() & !1)
}

/// The Primary without a disk lost its only good data to `outdate` on the peer.
#[test]
fn the_only_good_copy_is_not_outdated() {
    for state in ["detached", "detached-primary"] {
        let mut pair = reach(state);
        let before = pair.rest();
        assert_eq!(
            Answer::of_code(pair.order(1, "outdate")),
            Answer::Exit(0, 0)
        );
        assert_eq!(pair.rest(), before, "{state}");
    }
}

/// After an initial resync was skipped, the next one brought the UUID of fresh metadata to its
/// target: to the other node this disk would have looked as if it had never had data.
#[test]
fn what_was_skipped_is_known_to_be_the_same() {
    for (node, order) in [
        (0, "invalidate"),
        (0, "invalidate-remote"),
        (1, "invalidate"),
    ] {
        let mut pair = reach("pair");
        assert!(!Answer::of_code(pair.order(node, order)).is_refusal());
        let found = pair.rest();
        assert_eq!(disks(&found), ["UpToDate/UpToDate", "UpToDate/UpToDate"]);
        let [a, b] = currents(&found);
        assert!(a == b && a != JUST_CREATED, "{a:x} {b:x}");
        let histories = found.nodes.iter().flat_map(|n| n.generation.as_ref());
        let all: Vec<u64> = histories.flat_map(|g| g.uuids).collect();
        assert!(!all.contains(&JUST_CREATED), "{all:x?}");
    }
}

/// A resync is skipped only where both disks are fresh: no peer without a disk becomes UpToDate.
#[test]
fn nothing_is_skipped_without_two_disks() {
    let mut pair = reach("half-pair");
    let before = pair.rest();
    let code = pair.order(0, "new-current-uuid --clear-bitmap=yes");
    assert_eq!(Answer::of_code(code), Answer::of_code(151));
    assert_eq!(pair.rest(), before);
}

/// Who becomes Primary by force where the peer could not be fenced began two generations: what the
/// peer has was forgotten with the first, and the copies passed for unrelated data.
#[test]
fn a_forced_split_brain_is_one() {
    let mut pair = reach("fencing-left-by-secondary");
    let before = pair.rest();
    let code = pair.order(1, "primary --force=yes");
    assert_eq!(Answer::of_code(code), Answer::Exit(0, 0));
    let after = pair.rest();
    let uuids = |f: &Found| f.nodes[1].generation.as_ref().map(|g| g.uuids);
    let (Some(was), Some(is)) = (uuids(&before), uuids(&after)) else {
        panic!("no disk");
    };
    assert_eq!(is[1] & !1, was[0] & !1, "{was:x?} {is:x?}");
    assert_eq!(is[0] & 1, 1);
}

/// A verify of two disks that were never in sync made both of them UpToDate.
#[test]
fn a_verify_makes_no_disk_good() {
    let mut pair = reach("new-pair");
    let before = pair.rest();
    assert_eq!(
        Answer::of_code(pair.order(0, "verify")),
        Answer::of_code(-2)
    );
    assert_eq!(pair.rest(), before);
}
