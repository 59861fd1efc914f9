// SPDX-License-Identifier: GPL-2.0

//! Every policy in every situation, against a model that counts as the C driver does, but for a
//! Primary that cannot be demoted: it does not ask whether `discard-my-data` was given. And the two
//! nodes against each other.
//!
//! In the model +1 is "this node is the source", −1 "the target", ±2 the same with a full sync, 100
//! and −100 a split brain, `NO` a refusal.

use super::super::{AfterSb, Policies};
use super::*;
use conn::State as Conn;

const NO: i32 = i32::MIN;

/// What decides in a split brain.
#[derive(Clone, Copy, Debug)]
struct Case {
    policies: [u32; 3],
    primary: [bool; 2],
    was_primary: [bool; 2],
    bits: [u64; 2],
    discards: [bool; 2],
    arbiter: bool,
    ambiguous: bool,
    always_asbp: bool,
    rr_conflict: u32,
    demotes: bool,
}

fn all_cases() -> impl Iterator<Item = Case> {
    let bools = || [false, true].into_iter();
    let pairs = move || bools().flat_map(move |a| bools().map(move |b| [a, b]));
    let policies = (0..=10).flat_map(|zero| {
        // The policies for one and two Primaries see only these of the first one's values.
        let others = if [0, 1, 4, 5, 6].contains(&zero) {
            0..=10
        } else {
            0..=0
        };
        others.map(move |other| [zero, other, other])
    });
    let bits = [[0, 0], [0, 7], [5, 0], [5, 7], [7, 5], [7, 7]];
    policies.flat_map(move |policies| {
        pairs().flat_map(move |primary| {
            // Only the age of the Primaries looks at the second.
            let aged = matches!(policies[0], 1 | 2);
            let were = pairs().filter(move |w| aged || *w == [false, false]);
            were.flat_map(move |was_primary| {
                bits.into_iter().flat_map(move |bits| {
                    pairs().flat_map(move |discards| {
                        (0..48_u32).map(move |n| Case {
                            policies,
                            primary,
                            was_primary,
                            bits,
                            discards,
                            arbiter: n & 1 != 0,
                            ambiguous: n & 2 != 0,
                            always_asbp: n & 4 != 0,
                            demotes: n & 8 != 0,
                            rr_conflict: [0, 9, 10][(n >> 4) as usize],
                        })
                    })
                })
            })
        })
    })
}

/// After-sb-0pri.
fn zero(c: &Case) -> i32 {
    let [own, peer] = c.bits;
    let tie = if c.arbiter { -1 } else { 1 };
    let fewest = match own.cmp(&peer) {
        std::cmp::Ordering::Less => -1,
        std::cmp::Ordering::Greater => 1,
        std::cmp::Ordering::Equal => tie,
    };
    match (c.policies[0], c.was_primary) {
        (1, [false, true]) | (2, [true, false]) => -1,
        (1, [true, false]) | (2, [false, true]) => 1,
        (1 | 2 | 4, _) => fewest,
        (3, _) if own != 0 && peer != 0 => -100,
        (3, _) => fewest,
        (5, _) => -1,
        (6, _) => 1,
        (_, _) => -100,
    }
}

/// A Primary that loses has to be demoted.
fn helped(c: &Case, hg: i32, primary: bool) -> (i32, bool) {
    match (hg == -1 && primary, c.demotes) {
        (true, true) => (hg, true),
        (true, false) => (NO, false),
        (false, _) => (hg, false),
    }
}

/// The policies: the decision, and whether this node was demoted for it.
fn policies(c: &Case) -> (i32, bool) {
    let hg = zero(c);
    match (c.primary, c.policies[1]) {
        ([false, false], _) => (hg, false),
        ([true, true], 9) => helped(c, hg, true),
        ([true, true], 10) => (hg, false),
        ([true, true], _) => (-100, false),
        ([own, _], 7) => (
            if (hg == -1 && !own) || (hg == 1 && own) {
                hg
            } else {
                -100
            },
            false,
        ),
        ([own, _], 8) => (if own { 1 } else { -1 }, false),
        ([own, _], 9) => helped(c, hg, own),
        ([_, _], 10) => (hg, false),
        ([_, _], _) => (-100, false),
    }
}

fn model(c: &Case) -> i32 {
    let mut hg = if c.ambiguous { -100 } else { 100 };
    let mut demoted = false;
    if !c.ambiguous || c.always_asbp {
        (hg, demoted) = policies(c);
        if hg == NO {
            return NO;
        }
        if hg.abs() < 100 && c.ambiguous {
            hg *= 2;
        }
    }
    if hg.abs() == 100 {
        hg = match c.discards {
            [true, false] => -1,
            [false, true] => 1,
            [_, _] => return NO,
        };
    }
    if hg < 0 && c.primary[0] && !demoted && c.rr_conflict != 10 {
        return NO;
    }
    hg
}

fn set(current: u64, bitmap: u64, was_primary: bool) -> UuidSet {
    UuidSet {
        current,
        bitmap: bitmap | u64::from(was_primary),
        history: [8, 0],
    }
}

fn role(primary: bool) -> Role {
    if primary {
        Role::Primary
    } else {
        Role::Secondary
    }
}

/// What the node `me` of the two does.
fn ours(c: &Case, me: usize) -> i32 {
    let them = 1 - me;
    // Equal bitmap UUIDs are a split brain; common history makes an ambiguous one.
    let bitmaps = if c.ambiguous {
        [0x30, 0x50]
    } else {
        [0x30, 0x30]
    };
    let own = Local {
        uuids: set(0x10 << me, bitmaps[me], c.was_primary[me]),
        crashed_primary: false,
        role: role(c.primary[me]),
        disk: Disk::UpToDate,
        attach_disk: Disk::UpToDate,
        bits: c.bits[me],
        discard_my_data: c.discards[me],
    };
    let peer = Remote {
        uuids: set(0x10 << them, bitmaps[them], c.was_primary[them]),
        flags: u64::from(c.discards[them]),
        bits: c.bits[them],
        role: role(c.primary[them]),
        disk: Disk::UpToDate,
    };
    let policy = |n: u32| {
        let policy = AfterSb::from_number(n).unwrap();
        if me == 0 {
            policy
        } else {
            policy.convert_for_peer()
        }
    };
    let mut ctx = HandshakeContext {
        decide: DecideContext {
            apv: 101,
            write_same: true,
            resolve_conflicts: c.arbiter == (me == 0),
        },
        always_asbp: c.always_asbp,
        policies: Policies {
            none: policy(c.policies[0]),
            one: policy(c.policies[1]),
            two: policy(c.policies[2]),
        },
        rr_conflict: RrConflict::from_number(c.rr_conflict).unwrap(),
        dry_run: false,
        demoted: None,
    };
    let mut h = handshake(&own, &peer, &ctx);
    if h.outcome == Outcome::TryDemote {
        ctx.demoted = Some(c.demotes);
        h = handshake(&own, &peer, &ctx);
    }
    match h.outcome {
        Outcome::Go(Sync { conn, full }) => {
            let hg = match conn {
                Conn::WFBitMapS => 1,
                Conn::WFBitMapT => -1,
                _ => 0,
            };
            if full {
                hg * 2
            } else {
                hg
            }
        }
        Outcome::Refuse(_) => NO,
        Outcome::TryDemote => panic!("it asks twice"),
    }
}

#[test]
fn every_policy_in_every_situation() {
    let mut seen = 0_u32;
    for c in all_cases() {
        assert_eq!(ours(&c, 0), model(&c), "{c:?}");
        seen += 1;
    }
    assert!(seen > 100_000, "{seen}");
}

/// Two nodes with the same configuration never both become source, and never both become target; a
/// node that refuses ends the connection for both.
#[test]
fn the_two_nodes_agree() {
    for c in all_cases() {
        let (a, b) = (ours(&c, 0), ours(&c, 1));
        assert!(a == NO || b == NO || a == -b, "{a} {b} {c:?}");
    }
}
