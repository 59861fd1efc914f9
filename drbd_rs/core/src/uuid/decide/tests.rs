// SPDX-License-Identifier: GPL-2.0

//! The table of rules, their order, and where the two nodes disagree.

use super::*;

const CTX: DecideContext = DecideContext {
    apv: 101,
    write_same: true,
    resolve_conflicts: false,
};

fn node(current: u64, bitmap: u64, h0: u64, h1: u64) -> Node {
    Node {
        uuids: UuidSet {
            current,
            bitmap,
            history: [h0, h1],
        },
        crashed_primary: false,
        primary: false,
    }
}

fn rule(own: Node, peer: Node, ctx: DecideContext) -> (u16, i32) {
    let d = decide(&own, &peer, ctx);
    (d.rule.0, d.verdict.number())
}

const OLD: DecideContext = DecideContext { apv: 90, ..CTX };
const V95: DecideContext = DecideContext { apv: 95, ..CTX };
const NEW_BM: u64 = 0x30 + NEW_BITMAP_OFFSET;

/// Own, peer, context, rule and number.
type Row = (Node, Node, DecideContext, (u16, i32));

fn rows() -> [Row; 28] {
    let n = node;
    [
        (n(4, 0, 0, 0), n(5, 0, 0, 0), CTX, (10, 0)),
        (n(4, 0, 0, 0), n(0x10, 0, 0, 0), CTX, (20, -2)),
        (n(0, 0, 0, 0), n(0, 0, 0, 0), CTX, (20, -2)),
        (n(0x10, 0, 0, 0), n(4, 0, 0, 0), CTX, (30, 2)),
        (n(0x10, 0, 0, 0), n(1, 0, 0, 0), CTX, (30, 2)),
        (n(0, 0, 0, 0), n(4, 0, 0, 0), CTX, (30, 2)),
        (n(0x10, 0x20, 0x30, 0), n(0x11, 0, 0x20, 0x30), CTX, (34, 1)),
        (
            n(0x10, 0x20, 0x30, 0),
            n(0x11, 0, 0x20, 0x31),
            OLD,
            (30, -1091),
        ),
        (n(0x10, 0x20, 0x30, 0), n(0x10, 0, 0x20, 0x40), CTX, (36, 1)),
        (
            n(0x10, 0, 0x20, 0x30),
            n(0x10, 0x21, 0x30, 0),
            CTX,
            (35, -1),
        ),
        (
            n(0x10, 0, 0x20, 0x30),
            n(0x10, 0x20, 0x30, 0),
            OLD,
            (30, -1091),
        ),
        (
            n(0x10, 0, 0x20, 0x40),
            n(0x10, 0x20, 0x30, 0),
            CTX,
            (37, -1),
        ),
        (n(0x10, 0x20, 0, 0), n(0x11, 0x20, 0, 0), CTX, (40, 0)),
        (n(0x10, 0x20, 0, 0), n(0x21, 0x10, 0, 0), CTX, (50, -1)),
        (n(0x30, 0, 0, 0), n(0x40, NEW_BM, 0x30, 0x20), CTX, (51, -1)),
        (
            n(0x30, 0, 0x20, 0),
            n(0x40, 0x99, 0x30, 0x20),
            V95,
            (51, -1),
        ),
        (
            n(0x30, 0, 0x20, 0),
            n(0x40, 0x99, 0x30, 0x20),
            OLD,
            (51, -1091),
        ),
        (n(0x30, 0, 0, 0), n(0x40, 0x99, 0x30, 0x20), CTX, (60, -2)),
        (n(0x20, 0, 0, 0), n(0x40, 0x99, 0x30, 0x21), CTX, (60, -2)),
        (n(0x10, 0x21, 0, 0), n(0x20, 0, 0, 0), CTX, (70, 1)),
        (n(0x40, NEW_BM, 0x30, 0x20), n(0x30, 0, 0, 0), CTX, (71, 1)),
        (n(0x40, 0x99, 0x30, 0x20), n(0x30, 0, 0x20, 0), V95, (71, 1)),
        (
            n(0x40, 0x99, 0x30, 0x20),
            n(0x30, 0, 0x20, 0),
            OLD,
            (71, -1091),
        ),
        (n(0x40, 0x99, 0x30, 0x20), n(0x30, 0, 0, 0), CTX, (80, 2)),
        (n(0x10, 0x31, 1, 2), n(0x20, 0x30, 4, 6), CTX, (90, 100)),
        (n(0x10, 0x31, 8, 2), n(0x20, 0x50, 4, 9), CTX, (100, -100)),
        (n(0x10, 0, 8, 2), n(0x20, 0, 4, 6), CTX, (100, -1000)),
        // Two empty histories have zero in common, so C never calls these unrelated.
        (n(0x10, 0, 0, 0), n(0x20, 0, 0, 0), CTX, (100, -100)),
    ]
}

#[test]
fn each_rule() {
    for (i, (own, peer, ctx, expected)) in rows().into_iter().enumerate() {
        assert_eq!(rule(own, peer, ctx), expected, "row {i}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let n = node;
    // 50 before 70: each is what the other's bitmap counts from. Both become target.
    assert_eq!(
        rule(n(0x10, 0x20, 0, 0), n(0x20, 0x10, 0, 0), CTX),
        (50, -1)
    );
    // 50 before 60, 60 before 70 and 90, 70 before 90, 80 before 90.
    assert_eq!(
        rule(n(0x10, 0, 0, 0), n(0x20, 0x10, 0x10, 0), CTX),
        (50, -1)
    );
    let p = n(0x20, 0x30, 0x10, 8);
    assert_eq!(rule(n(0x10, 0x20, 0, 0), p, CTX), (60, -2));
    assert_eq!(rule(n(0x10, 0x30, 0, 0), p, CTX), (60, -2));
    assert_eq!(rule(n(0x18, 0x20, 8, 0), p, CTX), (70, 1));
    assert_eq!(rule(n(0x18, 0x30, 0x20, 8), p, CTX), (80, 2));
    assert_eq!(rule(n(0x18, 0x30, 8, 0), p, CTX), (90, 100));
}

#[test]
fn after_a_crash_with_equal_uuids() {
    let no_ws = DecideContext {
        write_same: false,
        ..CTX
    };
    let dc = DecideContext {
        resolve_conflicts: true,
        ..CTX
    };
    let at = |crashed_primary, primary| Node {
        crashed_primary,
        primary,
        ..node(0x10, 0, 0, 0)
    };
    let (t, f) = (true, false);
    assert_eq!(rule(at(f, t), at(f, t), CTX), (40, 0));
    assert_eq!(rule(at(t, f), at(f, f), CTX), (40, 1));
    assert_eq!(rule(at(f, f), at(t, f), CTX), (40, -1));
    assert_eq!(rule(at(t, f), at(t, f), CTX), (40, 1));
    assert_eq!(rule(at(t, f), at(t, f), dc), (40, -1));
    assert_eq!(rule(at(t, t), at(f, f), no_ws), (41, -66661));
    assert_eq!(rule(at(t, t), at(f, t), CTX), (41, -100));
    assert_eq!(rule(at(f, t), at(t, f), CTX), (41, 1));
    assert_eq!(rule(at(t, f), at(f, t), CTX), (41, -1));
}

#[test]
fn corrections() {
    let fix = |own: Node, peer: Node, ctx| {
        let d = decide(&own, &peer, ctx);
        (d.own_fix, d.peer_fix)
    };
    let source = node(0x10, 0x21, 0x30, 0x40);
    let target = node(0x10, 0, 0x20, 0x30);
    let fixed = Some(node(0x10, 0, 0x21, 0x30).uuids);
    assert_eq!(fix(source, target, CTX), (fixed, None));
    assert_eq!(fix(target, source, CTX), (None, fixed));
    let source = node(0x40, NEW_BM, 0x31, 0x20);
    let target = node(0x30, 0, 0x20, 0);
    let fixed = Some(node(0x40, 0x31, 0x20, 0x20).uuids);
    assert_eq!(fix(source, target, CTX), (fixed, None));
    assert_eq!(fix(target, source, CTX), (None, fixed));
    assert_eq!(fix(source, target, OLD), (None, None));
}

/// All sets over few names, both fresh and zero ones among them.
fn all_sets() -> Vec<Node> {
    let names = [0, JUST_CREATED, 0x30, 0x40, NEW_BM];
    let mut sets = Vec::new();
    for c in names {
        for b in names {
            for h0 in [0, 0x30, 0x40] {
                for h1 in [0, 0x30] {
                    sets.push(node(c, b, h0, h1));
                }
            }
        }
    }
    sets
}

#[test]
fn the_nodes_disagree_only_where_drbd_does() {
    let mut disagreements = std::collections::BTreeMap::new();
    for own in all_sets() {
        for peer in all_sets() {
            let (a, va) = rule(own, peer, CTX);
            let (b, vb) = rule(peer, own, CTX);
            let opposite = match va {
                100 | -100 | -1000 => vb == va,
                _ => vb == -va,
            };
            if !opposite {
                *disagreements.entry((a, b)).or_insert(0) += 1;
                // Never do both of them believe to be the source.
                assert!(
                    !(va > 0 && va < 100 && vb > 0 && vb < 100),
                    "{own:?} {peer:?}"
                );
            }
        }
    }
    let pairs: Vec<_> = disagreements.keys().copied().collect();
    assert_eq!(pairs, EXPECTED_DISAGREEMENTS);
}

/// Pairs of rules by which both nodes become target: two empty sets, and sets of which each holds
/// the other's current UUID among its older ones, as no history of one volume can.
const EXPECTED_DISAGREEMENTS: &[(u16, u16)] = &[
    (20, 20),
    (50, 50),
    (50, 51),
    (50, 60),
    (51, 50),
    (51, 60),
    (60, 50),
    (60, 51),
    (60, 60),
];

/// The C driver's comparison, compiled for the host and run over the same sets, gave this sum of
/// rules, numbers and corrected sets.
const SUM_OF_THE_C_DRIVER: u64 = 2141877235444296425;

#[test]
fn answers_are_those_of_the_c_driver() {
    let names = [0, JUST_CREATED, 0x30, 0x41, NEW_BM];
    let mut sets = Vec::new();
    for c in names {
        for b in names {
            for h0 in [0, 0x31, 0x40] {
                for h1 in [0, 0x30] {
                    sets.push(node(c, b, h0, h1));
                }
            }
        }
    }
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut put = |word: u64| sum = (sum ^ word).wrapping_mul(0x0100_0000_01b3);
    let mut count = 0_u32;
    for apv in [90, 95, 101] {
        for (o, own) in sets.iter().enumerate() {
            for (p, peer) in sets.iter().enumerate() {
                let bit = |n: u32| count >> n & 1 != 0;
                let own = Node {
                    crashed_primary: bit(3),
                    primary: bit(4),
                    ..*own
                };
                let peer = Node::peer(peer.uuids, if bit(0) { 2 } else { 0 }, (o + p) % 3 == 0);
                let ctx = DecideContext {
                    apv,
                    write_same: bit(1),
                    resolve_conflicts: bit(2),
                };
                count += 1;
                let d = decide(&own, &peer, ctx);
                put(u64::from(d.rule.0));
                put(i64::from(d.verdict.number()) as u64);
                let own = d.own_fix.unwrap_or(own.uuids);
                let peer = d.peer_fix.unwrap_or(peer.uuids);
                put(own.current);
                put(peer.current);
                put(own.bitmap);
                put(peer.bitmap);
                for (mine, theirs) in own.history.into_iter().zip(peer.history) {
                    put(mine);
                    put(theirs);
                }
            }
        }
    }
    assert_eq!(sum, SUM_OF_THE_C_DRIVER);
}

/// The versions differ in two places: before 91 nothing is corrected, before 96 a lost
/// `P_SYNC_UUID` is recognized by the history alone.
#[test]
fn every_version_of_the_protocol() {
    for apv in 86..=101 {
        let ctx = DecideContext { apv, ..CTX };
        for (own, peer, _, _) in rows() {
            let d = decide(&own, &peer, ctx);
            let now = decide(&own, &peer, CTX);
            let needs = d.verdict == Verdict::NeedsProtocol(91);
            assert!(!needs || apv < 91);
            assert!(!needs || (d.own_fix, d.peer_fix) == (None, None));
            let corrects = d.own_fix.is_some() || d.peer_fix.is_some();
            assert!(!corrects || apv >= 91);
            if apv >= 96 {
                assert_eq!(d, now);
            }
        }
        let lost = (node(0x30, 0, 0x20, 0), node(0x40, 0x99, 0x30, 0x20));
        let found = rule(lost.0, lost.1, ctx);
        let expected = match apv {
            86..=90 => (51, -1091),
            91..=95 => (51, -1),
            _ => (60, -2),
        };
        assert_eq!(found, expected, "{apv}");
    }
}
