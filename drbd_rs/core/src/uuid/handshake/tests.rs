// SPDX-License-Identifier: GPL-2.0

//! Outcomes of the handshake, stage by stage, and every policy.

use super::super::{AfterSb, Policies};
use super::*;
use conn::State as Conn;

fn uuids(current: u64, bitmap: u64, h0: u64) -> UuidSet {
    UuidSet {
        current,
        bitmap,
        history: [h0, 0],
    }
}

/// Two nodes in split brain (rule 90), both Secondary and UpToDate.
fn split() -> (Local, Remote, HandshakeContext) {
    let own = Local {
        uuids: uuids(0x10, 0x30, 8),
        crashed_primary: false,
        role: Role::Secondary,
        disk: Disk::UpToDate,
        attach_disk: Disk::UpToDate,
        bits: 5,
        discard_my_data: false,
    };
    let peer = Remote {
        uuids: uuids(0x20, 0x30, 8),
        flags: 0,
        bits: 7,
        role: Role::Secondary,
        disk: Disk::UpToDate,
    };
    let ctx = HandshakeContext {
        decide: DecideContext {
            apv: 101,
            write_same: true,
            resolve_conflicts: false,
        },
        always_asbp: false,
        policies: Policies {
            none: AfterSb::Disconnect,
            one: AfterSb::Disconnect,
            two: AfterSb::Disconnect,
        },
        rr_conflict: RrConflict::Disconnect,
        dry_run: false,
        demoted: None,
    };
    (own, peer, ctx)
}

fn go(conn: Conn, full: bool) -> Outcome {
    Outcome::Go(Sync { conn, full })
}

const SOURCE: (Conn, bool) = (Conn::WFBitMapS, false);
const TARGET: (Conn, bool) = (Conn::WFBitMapT, false);

#[test]
fn unsolved_split_brain_is_refused_after_two_helpers() {
    let (own, peer, ctx) = split();
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, Outcome::Refuse(RefusedBecause::SplitBrain));
    let helpers: Vec<_> = h.helpers.iter().map(Helper::name).collect();
    assert_eq!(helpers, ["initial-split-brain", "split-brain"]);
}

#[test]
fn discard_my_data_on_one_side_decides() {
    let (mut own, mut peer, ctx) = split();
    own.discard_my_data = true;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(TARGET.0, TARGET.1));
    assert!(h.notes.solved_by_hand);
    peer.flags = flags::DISCARD_MY_DATA;
    let both = handshake(&own, &peer, &ctx);
    assert_eq!(both.outcome, Outcome::Refuse(RefusedBecause::SplitBrain));
    own.discard_my_data = false;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(SOURCE.0, SOURCE.1));
}

#[test]
fn policies_without_a_primary() {
    let refuse = None;
    // policy, own/peer was Primary, own/peer bits, outcome.
    let table = [
        (AfterSb::Disconnect, 1, 0, 5, 7, refuse),
        (AfterSb::DiscardYoungerPrimary, 0, 1, 9, 7, Some(TARGET)),
        (AfterSb::DiscardYoungerPrimary, 1, 0, 5, 7, Some(SOURCE)),
        (AfterSb::DiscardYoungerPrimary, 1, 1, 5, 7, Some(TARGET)),
        (AfterSb::DiscardOlderPrimary, 0, 1, 5, 7, Some(SOURCE)),
        (AfterSb::DiscardOlderPrimary, 1, 0, 9, 7, Some(TARGET)),
        (AfterSb::DiscardOlderPrimary, 0, 0, 9, 7, Some(SOURCE)),
        (AfterSb::DiscardZeroChanges, 0, 0, 5, 7, refuse),
        (AfterSb::DiscardZeroChanges, 0, 0, 0, 7, Some(TARGET)),
        (AfterSb::DiscardZeroChanges, 0, 0, 5, 0, Some(SOURCE)),
        (AfterSb::DiscardZeroChanges, 0, 0, 0, 0, Some(SOURCE)),
        (AfterSb::DiscardLeastChanges, 0, 0, 5, 7, Some(TARGET)),
        (AfterSb::DiscardLeastChanges, 0, 0, 8, 7, Some(SOURCE)),
        (AfterSb::DiscardLeastChanges, 0, 0, 7, 7, Some(SOURCE)),
        (AfterSb::DiscardLocal, 0, 0, 5, 7, Some(TARGET)),
        (AfterSb::DiscardRemote, 0, 0, 5, 7, Some(SOURCE)),
        (AfterSb::Consensus, 0, 0, 5, 7, refuse),
        (AfterSb::Violently, 0, 0, 5, 7, refuse),
    ];
    for (i, (policy, o, p, own_bits, peer_bits, expected)) in table.into_iter().enumerate() {
        let (mut own, mut peer, mut ctx) = split();
        own.uuids.bitmap |= o;
        peer.uuids.bitmap |= p;
        (own.bits, peer.bits) = (own_bits, peer_bits);
        ctx.policies.none = policy;
        let h = handshake(&own, &peer, &ctx);
        let expected = expected.map_or(Outcome::Refuse(RefusedBecause::SplitBrain), |(c, f)| {
            go(c, f)
        });
        assert_eq!(h.outcome, expected, "row {i}");
        let config_error = matches!(policy, AfterSb::Consensus | AfterSb::Violently);
        assert_eq!(h.notes.config_error, config_error, "row {i}");
    }
}

#[test]
fn ties_and_orders_are_opposite_on_the_two_nodes() {
    for policy in (0..7).filter_map(AfterSb::from_number) {
        for (bits, was) in [((7, 7), (0, 0)), ((0, 0), (1, 1)), ((5, 7), (1, 0))] {
            let run = |swap: bool, policy: AfterSb| {
                let (mut own, mut peer, mut ctx) = split();
                (own.bits, peer.bits) = if swap { (bits.1, bits.0) } else { bits };
                let (o, p) = if swap { (was.1, was.0) } else { was };
                own.uuids.bitmap |= o;
                peer.uuids.bitmap |= p;
                ctx.decide.resolve_conflicts = swap;
                ctx.policies.none = policy;
                handshake(&own, &peer, &ctx).outcome
            };
            let here = run(false, policy);
            let there = run(true, policy.convert_for_peer());
            let opposite = match here {
                Outcome::Go(Sync { conn, full }) if conn == SOURCE.0 => go(TARGET.0, full),
                Outcome::Go(Sync { full, .. }) => go(SOURCE.0, full),
                other => other,
            };
            assert_eq!(there, opposite, "{policy:?} {bits:?} {was:?}");
        }
    }
}

#[test]
fn policies_with_one_primary() {
    let refuse = Outcome::Refuse(RefusedBecause::SplitBrain);
    let lost = Outcome::Refuse(RefusedBecause::TargetIsPrimary);
    let (local, remote) = (AfterSb::DiscardLocal, AfterSb::DiscardRemote);
    // policy, policy without Primaries, this node is the Primary, outcome.
    let table = [
        (AfterSb::Disconnect, local, true, refuse),
        (AfterSb::Consensus, local, true, refuse),
        (AfterSb::Consensus, remote, true, go(SOURCE.0, false)),
        (AfterSb::Consensus, local, false, go(TARGET.0, false)),
        (AfterSb::Consensus, remote, false, refuse),
        (AfterSb::Violently, local, true, lost),
        (AfterSb::Violently, remote, false, go(SOURCE.0, false)),
        (AfterSb::DiscardSecondary, local, true, go(SOURCE.0, false)),
        (
            AfterSb::DiscardSecondary,
            remote,
            false,
            go(TARGET.0, false),
        ),
        (AfterSb::CallHelper, local, true, Outcome::TryDemote),
        (AfterSb::CallHelper, remote, true, go(SOURCE.0, false)),
        (AfterSb::CallHelper, local, false, go(TARGET.0, false)),
        (AfterSb::DiscardLocal, local, false, refuse),
    ];
    for (i, (one, none, primary, expected)) in table.into_iter().enumerate() {
        let (mut own, mut peer, mut ctx) = split();
        if primary {
            own.role = Role::Primary;
        } else {
            peer.role = Role::Primary;
        }
        (ctx.policies.one, ctx.policies.none) = (one, none);
        assert_eq!(handshake(&own, &peer, &ctx).outcome, expected, "row {i}");
    }
}

#[test]
fn a_primary_that_loses_is_demoted_or_its_helper_called() {
    let (mut own, mut peer, mut ctx) = split();
    (own.role, peer.role) = (Role::Primary, Role::Primary);
    ctx.policies.two = AfterSb::CallHelper;
    ctx.policies.none = AfterSb::DiscardLocal;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, Outcome::TryDemote);
    assert!(h.helpers.contains(Helper::InitialSplitBrain));
    ctx.demoted = Some(true);
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(TARGET.0, false));
    assert_eq!(
        (h.helpers.iter().count(), h.notes.solved_by_policy),
        (0, Some(2))
    );
    ctx.demoted = Some(false);
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, Outcome::Refuse(RefusedBecause::SplitBrain));
    let helpers: Vec<_> = h.helpers.iter().collect();
    assert_eq!(helpers, [Helper::PriLostAfterSb, Helper::SplitBrain]);
}

#[test]
fn ambiguous_split_brain_needs_always_asbp_and_a_full_resync() {
    let (mut own, peer, mut ctx) = split();
    own.uuids.bitmap = 0x50;
    ctx.policies.none = AfterSb::DiscardLocal;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.decision.verdict, Verdict::SplitBrainAmbiguous);
    assert_eq!(h.outcome, Outcome::Refuse(RefusedBecause::SplitBrain));
    ctx.always_asbp = true;
    assert_eq!(handshake(&own, &peer, &ctx).outcome, go(TARGET.0, true));
    ctx.always_asbp = false;
    own.disk = Disk::Inconsistent;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(TARGET.0, true));
    assert_eq!(h.helpers, HelperSet::default());
}

#[test]
fn disks_overrule_uuids_and_roles_overrule_both() {
    let (mut own, mut peer, mut ctx) = split();
    own.uuids = uuids(0x10, 0x20, 0);
    peer.uuids = uuids(0x20, 0, 0);
    assert_eq!(handshake(&own, &peer, &ctx).outcome, go(SOURCE.0, false));
    own.disk = Disk::Negotiating;
    own.attach_disk = Disk::Inconsistent;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(TARGET.0, false));
    assert!(h.notes.by_disk_states);
    peer.disk = Disk::Inconsistent;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(
        h.outcome,
        Outcome::Refuse(RefusedBecause::SourceInconsistent)
    );

    (own.uuids, peer.uuids) = (peer.uuids, own.uuids);
    (own.disk, peer.disk, own.role) = (Disk::UpToDate, Disk::UpToDate, Role::Primary);
    for (policy, helpers) in [(RrConflict::Disconnect, 0), (RrConflict::CallHelper, 1)] {
        ctx.rr_conflict = policy;
        let h = handshake(&own, &peer, &ctx);
        assert_eq!(h.outcome, Outcome::Refuse(RefusedBecause::TargetIsPrimary));
        assert_eq!(h.helpers.iter().count(), helpers);
    }
    ctx.rr_conflict = RrConflict::Violently;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, go(TARGET.0, false));
    assert!(h.notes.violates_stable_data);
    (own.disk, ctx.rr_conflict) = (Disk::Inconsistent, RrConflict::Disconnect);
    assert_eq!(handshake(&own, &peer, &ctx).outcome, go(TARGET.0, false));
}

#[test]
fn a_dry_run_only_tells() {
    let (mut own, mut peer, mut ctx) = split();
    ctx.dry_run = true;
    own.uuids = uuids(4, 0, 0);
    let tell = |o: &Local, p: &Remote| handshake(o, p, &ctx).outcome;
    let told = |d| Outcome::Refuse(RefusedBecause::DryRun(d));
    assert_eq!(tell(&own, &peer), told(DryRun::Target { full: true }));
    peer.uuids = uuids(4, 0, 0);
    assert_eq!(tell(&own, &peer), told(DryRun::Connected));
    own.uuids = uuids(0x10, 0, 0);
    assert_eq!(tell(&own, &peer), told(DryRun::Source { full: true }));
}

#[test]
fn what_can_not_be_compared_is_refused() {
    let (mut own, mut peer, mut ctx) = split();
    (own.uuids, peer.uuids) = (uuids(0x10, 0, 8), uuids(0x20, 0, 6));
    (own.uuids.history[1], peer.uuids.history[1]) = (2, 12);
    let refuse = |r| Outcome::Refuse(r);
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, refuse(RefusedBecause::UnrelatedData));
    peer.uuids = uuids(0x10, 0x20, 0);
    ctx.decide.apv = 90;
    let h = handshake(&own, &peer, &ctx);
    assert_eq!(h.outcome, refuse(RefusedBecause::NeedsProtocol(91)));
    peer.uuids.bitmap = 0;
    (peer.flags, peer.role, ctx.decide.write_same) = (2, Role::Primary, false);
    let needs = RefusedBecause::NeedsFeatures {
        apv: 101,
        features: 4,
    };
    assert_eq!(handshake(&own, &peer, &ctx).outcome, refuse(needs));
}
