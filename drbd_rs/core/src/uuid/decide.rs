// SPDX-License-Identifier: GPL-2.0

//! What two UUID sets say about two copies: a numbered table, the first rule that fits decides.
//!
//! Bit 0 never counts when names are compared. The numbers of the rules are those of the C driver:
//! people know them from its log.
//!
//! Two nodes do not always conclude opposite things, see the tests: damaged or forged sets can
//! make both of them target. The disk states are then the second line of defence.

use super::{flags, name, UuidSet, JUST_CREATED, NEW_BITMAP_OFFSET};

/// Protocol version and feature flag (write-same) that rule 41 asks for.
const NEEDED_APV: u32 = 101;
const NEEDED_FEATURE: u32 = 4;

/// What one node brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its UUIDs.
    pub uuids: UuidSet,
    /// Whether it crashed as Primary: own flag in memory, or the peer's flag
    /// [`flags::CRASHED_PRIMARY`].
    pub crashed_primary: bool,
    /// Whether it is Primary now.
    pub primary: bool,
}

impl Node {
    /// The peer, from what `P_UUIDS` and `P_STATE` said.
    pub const fn peer(uuids: UuidSet, uuid_flags: u64, primary: bool) -> Node {
        Node {
            uuids,
            crashed_primary: uuid_flags & flags::CRASHED_PRIMARY != 0,
            primary,
        }
    }
}

/// What the connection adds to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DecideContext {
    /// The agreed protocol version.
    pub apv: u32,
    /// Whether the feature write-same was agreed on; stands for a recent peer.
    pub write_same: bool,
    /// Whether this node is the one that resolves conflicts (exactly one of the two is).
    pub resolve_conflicts: bool,
}

/// What follows for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The copies have the same data.
    NoSync,
    /// Become source; the bitmap tells what to send.
    Source,
    /// Become source of everything.
    FullSource,
    /// Become target; the bitmap tells what to get.
    Target,
    /// Become target of everything.
    FullTarget,
    /// Both sides wrote since they last met; the policies may decide.
    SplitBrain,
    /// As before, but what they have in common is longer ago: decides the administrator, or with
    /// `always-asbp` the policies, at the price of a full resync.
    SplitBrainAmbiguous,
    /// The copies never had anything in common.
    Unrelated,
    /// The rule needs this protocol version on both sides.
    NeedsProtocol(u32),
    /// The rule needs this protocol version and these feature flags on both sides.
    NeedsFeatures {
        /// Protocol version.
        apv: u32,
        /// Bits of the feature flags.
        features: u32,
    },
}

impl Verdict {
    /// The number that the C driver logs (`uuid_compare()=…`).
    pub fn number(self) -> i32 {
        let negative = |n: u32| i32::try_from(n).unwrap_or(i32::MAX).saturating_neg();
        match self {
            Verdict::NoSync => 0,
            Verdict::Source => 1,
            Verdict::FullSource => 2,
            Verdict::Target => -1,
            Verdict::FullTarget => -2,
            Verdict::SplitBrain => 100,
            Verdict::SplitBrainAmbiguous => -100,
            Verdict::Unrelated => -1000,
            Verdict::NeedsProtocol(apv) => negative(apv.saturating_add(1000)),
            Verdict::NeedsFeatures { apv, features } => {
                negative(0x10000 | (apv & 0xff) | (features & 0xff) << 8)
            }
        }
    }
}

/// The number of a rule, for the log and for [`explain`](super::explain).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule(pub u16);

/// What [`decide`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What follows.
    pub verdict: Verdict,
    /// The rule that said so.
    pub rule: Rule,
    /// The own UUIDs after a missed event was made up for; to be stored.
    pub own_fix: Option<UuidSet>,
    /// What the peer's UUIDs are after a missed event was made up for; to be remembered.
    pub peer_fix: Option<UuidSet>,
}

impl Decision {
    const fn new(rule: u16, verdict: Verdict) -> Decision {
        Decision {
            verdict,
            rule: Rule(rule),
            own_fix: None,
            peer_fix: None,
        }
    }

    const fn fix_own(mut self, uuids: UuidSet) -> Decision {
        self.own_fix = Some(uuids);
        self
    }

    const fn fix_peer(mut self, uuids: UuidSet) -> Decision {
        self.peer_fix = Some(uuids);
        self
    }
}

/// Older peers can not follow a correction of UUIDs.
const fn can_correct(apv: u32) -> bool {
    apv >= 91
}

const NEEDS_91: Verdict = Verdict::NeedsProtocol(91);

/// Compares the two copies.
pub fn decide(own: &Node, peer: &Node, ctx: DecideContext) -> Decision {
    let (o, p) = (&own.uuids, &peer.uuids);
    let (own_current, peer_current) = (name(o.current), name(p.current));
    let own_new = own_current == JUST_CREATED;
    let peer_new = peer_current == JUST_CREATED;

    if own_new && peer_new {
        return Decision::new(10, Verdict::NoSync);
    }
    if (own_new || own_current == 0) && !peer_new {
        return Decision::new(20, Verdict::FullTarget);
    }
    if !own_new && (peer_new || peer_current == 0) {
        return Decision::new(30, Verdict::FullSource);
    }
    if own_current == peer_current {
        return same_current(own, peer, ctx);
    }
    if let Some(decision) = peer_is_ahead(o, p, ctx) {
        return decision;
    }
    if let Some(decision) = own_is_ahead(o, p, ctx) {
        return decision;
    }
    if name(o.bitmap) == name(p.bitmap) && name(o.bitmap) != 0 {
        return Decision::new(90, Verdict::SplitBrain);
    }
    if o.history.iter().any(|old| in_history(*old, p)) {
        return Decision::new(100, Verdict::SplitBrainAmbiguous);
    }
    Decision::new(100, Verdict::Unrelated)
}

fn in_history(uuid: u64, set: &UuidSet) -> bool {
    set.history.iter().any(|old| name(*old) == name(uuid))
}

/// Rules 34 to 41: the same generation on both sides.
fn same_current(own: &Node, peer: &Node, ctx: DecideContext) -> Decision {
    let (o, p) = (&own.uuids, &peer.uuids);
    if p.bitmap == 0 && o.bitmap != 0 {
        if !can_correct(ctx.apv) {
            return Decision::new(30, NEEDS_91);
        }
        return match missed_resync_end(o, p) {
            Some(fixed) => Decision::new(34, Verdict::Source).fix_own(fixed),
            None => Decision::new(36, Verdict::Source),
        };
    }
    if o.bitmap == 0 && p.bitmap != 0 {
        if !can_correct(ctx.apv) {
            return Decision::new(30, NEEDS_91);
        }
        return match missed_resync_end(p, o) {
            Some(fixed) => Decision::new(35, Verdict::Target).fix_peer(fixed),
            None => Decision::new(37, Verdict::Target),
        };
    }
    if !own.crashed_primary && !peer.crashed_primary {
        return Decision::new(40, Verdict::NoSync);
    }
    if own.primary || peer.primary {
        return Decision::new(41, crashed_with_primary(own, peer, ctx));
    }
    let verdict = match (own.crashed_primary, peer.crashed_primary) {
        (true, false) => Verdict::Source,
        (false, true) => Verdict::Target,
        (true, true) if ctx.resolve_conflicts => Verdict::Target,
        (true, true) => Verdict::Source,
        (false, false) => Verdict::NoSync,
    };
    Decision::new(40, verdict)
}

/// Rule 41: somebody crashed as Primary, and somebody is Primary now.
fn crashed_with_primary(own: &Node, peer: &Node, ctx: DecideContext) -> Verdict {
    if !ctx.write_same {
        return Verdict::NeedsFeatures {
            apv: NEEDED_APV,
            features: NEEDED_FEATURE,
        };
    }
    match (own.primary, peer.primary) {
        (true, true) => Verdict::SplitBrainAmbiguous,
        (true, false) => Verdict::Source,
        (false, true) | (false, false) => Verdict::Target,
    }
}

/// The set of a source that missed the end of a resync which its target `done` has seen.
fn missed_resync_end(source: &UuidSet, done: &UuidSet) -> Option<UuidSet> {
    let [source_younger, _] = source.history;
    let [younger, older] = done.history;
    (name(source.bitmap) == name(younger) && name(source_younger) == name(older)).then_some(
        UuidSet {
            bitmap: 0,
            history: [source.bitmap, source_younger],
            ..*source
        },
    )
}

/// The set of a source whose `P_SYNC_UUID` never reached `target`: as before that resync.
fn undo_sync_start(source: &UuidSet, target: &UuidSet, apv: u32) -> Option<UuidSet> {
    let [younger, older] = source.history;
    if name(target.current) != name(younger) {
        return None;
    }
    let [target_younger, _] = target.history;
    let lost = if apv < 96 {
        name(target_younger) == name(older)
    } else {
        name(younger).wrapping_add(NEW_BITMAP_OFFSET) == name(source.bitmap)
    };
    lost.then_some(UuidSet {
        bitmap: younger,
        history: [older, older],
        ..*source
    })
}

/// Rules 50 to 60: the own generation is one of the peer's older ones.
fn peer_is_ahead(o: &UuidSet, p: &UuidSet, ctx: DecideContext) -> Option<Decision> {
    if name(o.current) == name(p.bitmap) {
        return Some(Decision::new(50, Verdict::Target));
    }
    if let Some(fixed) = undo_sync_start(p, o, ctx.apv) {
        return Some(if can_correct(ctx.apv) {
            Decision::new(51, Verdict::Target).fix_peer(fixed)
        } else {
            Decision::new(51, NEEDS_91)
        });
    }
    in_history(o.current, p).then_some(Decision::new(60, Verdict::FullTarget))
}

/// Rules 70 to 80: the peer's generation is one of the own older ones.
fn own_is_ahead(o: &UuidSet, p: &UuidSet, ctx: DecideContext) -> Option<Decision> {
    if name(o.bitmap) == name(p.current) {
        return Some(Decision::new(70, Verdict::Source));
    }
    if let Some(fixed) = undo_sync_start(o, p, ctx.apv) {
        return Some(if can_correct(ctx.apv) {
            Decision::new(71, Verdict::Source).fix_own(fixed)
        } else {
            Decision::new(71, NEEDS_91)
        });
    }
    in_history(p.current, o).then_some(Decision::new(80, Verdict::FullSource))
}

#[cfg(test)]
mod tests;
