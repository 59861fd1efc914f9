// SPDX-License-Identifier: GPL-2.0

//! What each rule of the comparison means, for people who have to act on it.
//!
//! The sentences say which UUIDs made the rule fit, what that means, what each side loses by what
//! follows, and what to do next. They speak to the one who reads them on this node. In front of
//! them stand the lines of the C driver, which people and test suites look for.

use super::decide::{Rule, Verdict};
use super::handshake::{DryRun, Outcome, RefusedBecause, Sync};
use crate::state::conn::State as Conn;

/// Four sentences about a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Explanation {
    /// Which UUIDs were found equal, or not.
    pub compared: &'static str,
    /// What that means.
    pub why: &'static str,
    /// What each side loses.
    pub loss: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Explains a decision and what came of it.
pub const fn explain(rule: Rule, verdict: Verdict, outcome: Outcome) -> Explanation {
    Explanation {
        compared: compared(rule, verdict),
        why: why(rule, verdict),
        loss: loss(verdict, outcome),
        next: next(outcome),
    }
}

/// The line with which the C driver begins to tell of a rule; empty where it says nothing.
pub const fn first_line(rule: Rule, verdict: Verdict) -> &'static str {
    match (rule.0, verdict) {
        (_, Verdict::NeedsProtocol(_)) => "",
        (34, _) => "was SyncSource, missed the resync finished event, corrected myself:",
        (35, _) => "was SyncTarget, peer missed the resync finished event, corrected peer:",
        (36, _) => "was SyncSource (peer failed to write sync_uuid)",
        (37, _) => "was SyncTarget (failed to write sync_uuid)",
        (41, Verdict::NeedsFeatures { .. }) => {
            "Equivalent unrotated UUIDs, but current primary present."
        }
        (41, Verdict::SplitBrainAmbiguous) => {
            "Equivalent unrotated UUIDs, but both are primary. Can not resolve this."
        }
        (51, _) => "Lost last syncUUID packet, corrected:",
        (71, _) => "Last syncUUID did not get through, corrected:",
        (_, _) => "",
    }
}

const fn compared(rule: Rule, verdict: Verdict) -> &'static str {
    match (rule.0, verdict) {
        (10, _) => "Both current UUIDs say \"just created\".",
        (20, _) => "The own current UUID says \"just created\", or is none.",
        (30, Verdict::NeedsProtocol(_)) => {
            "The current UUIDs are equal, and one node has a bitmap UUID."
        }
        (30, _) => "The peer's current UUID says \"just created\", or is none.",
        (34, _) => {
            "The current UUIDs are equal; the own bitmap and history UUIDs are the history of the \
             peer."
        }
        (35, _) => {
            "The current UUIDs are equal; the peer's bitmap and history UUIDs are the own history."
        }
        (36, _) => "The current UUIDs are equal; only this node has a bitmap UUID.",
        (37, _) => "The current UUIDs are equal; only the peer has a bitmap UUID.",
        (40 | 41, _) => "The current UUIDs are equal, and so is the use of the bitmap UUIDs.",
        (50, _) => "The own current UUID is the peer's bitmap UUID.",
        (51, _) => {
            "The own current UUID is what the peer's bitmap UUID was before its last resync."
        }
        (60, _) => "The own current UUID is in the peer's history.",
        (70, _) => "The own bitmap UUID is the peer's current UUID.",
        (71, _) => {
            "The peer's current UUID is what the own bitmap UUID was before the last resync."
        }
        (80, _) => "The peer's current UUID is in the own history.",
        (90, _) => "The current UUIDs differ, the bitmap UUIDs are equal.",
        (100, Verdict::Unrelated) => "No UUID of one node is known to the other.",
        (100, _) => "Only the histories have a UUID in common.",
        (_, _) => "No rule of this number exists.",
    }
}

const fn why(rule: Rule, verdict: Verdict) -> &'static str {
    match (rule.0, verdict) {
        (10, _) => "Both disks were only just prepared and hold no data yet.",
        (20, _) => "This disk was only just prepared, the peer's holds data.",
        (30, Verdict::NeedsProtocol(_)) => {
            "Both disks name the same data, but one of them also remembers a resync, and the \
             agreed protocol is too old to sort that out."
        }
        (30, _) => "The peer's disk was only just prepared, this one holds data.",
        (34, _) => {
            "Both disks name the same data; this node was the source of a resync whose end it \
             did not hear of, and catches up on that as the next one begins."
        }
        (35, _) => {
            "Both disks name the same data; the peer was the source of a resync whose end it \
             did not hear of."
        }
        (36, _) => {
            "Both disks name the same data, but this node still keeps a list of blocks that the \
             peer may lack."
        }
        (37, _) => {
            "Both disks name the same data, but the peer still keeps a list of blocks that this \
             node may lack."
        }
        (40, Verdict::NoSync) => "Both disks name the same data and no Primary crashed.",
        (40, _) => {
            "Both disks name the same data, but a Primary crashed with writes under way that may \
             have reached only one of them."
        }
        (41, _) => {
            "Both disks name the same data, a Primary crashed with writes under way, and a node \
             is Primary now."
        }
        (50, _) => "The peer went on writing from exactly the data that this node has.",
        (51, _) => {
            "The peer was about to send what this node lacks when the connection broke; it starts \
             over from the same point."
        }
        (60, _) => {
            "This node has data that the peer had earlier, too long ago to know which blocks \
             changed since."
        }
        (70, _) => "This node went on writing from exactly the data that the peer has.",
        (71, _) => {
            "This node was about to send what the peer lacks when the connection broke; it starts \
             over from the same point."
        }
        (80, _) => {
            "The peer has data that this node had earlier, too long ago to know which blocks \
             changed since."
        }
        (90, _) => "Both nodes went on writing from the same data without each other.",
        (100, Verdict::Unrelated) => "The two disks never held the same data.",
        (100, _) => {
            "Both nodes went on writing without each other, and more than once: what they last \
             had in common is no longer marked block by block."
        }
        (_, _) => "No rule of this number exists.",
    }
}

const fn loss(verdict: Verdict, outcome: Outcome) -> &'static str {
    let split = matches!(verdict, Verdict::SplitBrain | Verdict::SplitBrainAmbiguous);
    match (outcome, split) {
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapS,
                ..
            }),
            true,
        ) => "The peer loses all that it wrote on its own; this node loses nothing.",
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapT,
                ..
            }),
            true,
        ) => "This node loses all that it wrote on its own; the peer loses nothing.",
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapS,
                full: true,
            }),
            false,
        ) => "The whole disk of the peer is overwritten; this node loses nothing.",
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapT,
                full: true,
            }),
            false,
        ) => "The whole disk of this node is overwritten; the peer loses nothing.",
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapS,
                ..
            }),
            false,
        ) => "The peer gets the blocks that differ; this node loses nothing.",
        (
            Outcome::Go(Sync {
                conn: Conn::WFBitMapT,
                ..
            }),
            false,
        ) => "This node gets the blocks that differ; the peer loses nothing.",
        (Outcome::Go(_), _) => "Neither side loses anything.",
        (Outcome::TryDemote, _) => "Nothing is lost yet.",
        (Outcome::Refuse(why), _) => refused_loss(verdict, why),
    }
}

const fn refused_loss(verdict: Verdict, why: RefusedBecause) -> &'static str {
    match (why, verdict) {
        (RefusedBecause::DryRun(DryRun::Source { full: true }), _) => {
            "The whole disk of the peer would be overwritten; nothing is lost yet."
        }
        (RefusedBecause::DryRun(DryRun::Source { full: false }), _) => {
            "The peer would get the blocks that differ; nothing is lost yet."
        }
        (RefusedBecause::DryRun(DryRun::Target { full: true }), _) => {
            "The whole disk of this node would be overwritten; nothing is lost yet."
        }
        (RefusedBecause::DryRun(DryRun::Target { full: false }), _) => {
            "This node would get the blocks that differ; nothing is lost yet."
        }
        (RefusedBecause::DryRun(DryRun::Connected), _) => "Neither side would lose anything.",
        (RefusedBecause::UnrelatedData, _) => {
            "All data of one side would be lost. Nothing is lost yet."
        }
        (_, Verdict::SplitBrain) => {
            "One side will lose everything it wrote since the two parted. Nothing is lost yet."
        }
        (_, Verdict::SplitBrainAmbiguous) => {
            "One side will lose everything it wrote on its own, and its whole disk may have to be \
             overwritten. Nothing is lost yet."
        }
        (_, _) => "Nothing is lost yet.",
    }
}

const fn next(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Go(Sync {
            conn: Conn::WFBitMapS | Conn::WFBitMapT,
            ..
        }) => "The resync starts by itself; do not trust the target on its own before it is done.",
        Outcome::Go(_) => "Nothing is to be done.",
        Outcome::TryDemote => "This node gives the role of Primary up.",
        Outcome::Refuse(why) => match why {
            RefusedBecause::SplitBrain => {
                "Choose the node whose writes are to go, save what matters there, run 'drbdadm \
                 connect --discard-my-data' on it and 'drbdadm connect' on the other."
            }
            RefusedBecause::UnrelatedData => {
                "Check that the right disks are configured on both nodes; if they are, prepare \
                 the disk that is to be overwritten with 'drbdadm create-md'."
            }
            RefusedBecause::NeedsProtocol(_) | RefusedBecause::NeedsFeatures { .. } => {
                "Update the node with the older version, then connect again."
            }
            RefusedBecause::SourceInconsistent => {
                "This node's data are the newer ones, but incomplete: find out which node has good \
                 data, and run 'drbdadm invalidate' on the other."
            }
            RefusedBecause::TargetIsPrimary => {
                "Stop what uses the device here, run 'drbdadm secondary', then connect again."
            }
            RefusedBecause::DryRun(_) => "Connect without --tentative to let it happen.",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [u16; 17] = [
        10, 20, 30, 34, 35, 36, 37, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100,
    ];

    fn go(conn: Conn, full: bool) -> Outcome {
        Outcome::Go(Sync { conn, full })
    }

    #[test]
    fn every_rule_has_its_own_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in RULES {
            let e = explain(Rule(rule), Verdict::Target, go(Conn::WFBitMapT, false));
            assert!(seen.insert(e.why), "rule {rule}");
            for s in [e.compared, e.why, e.loss, e.next] {
                assert!(s.ends_with('.') && !s.contains("  "), "{s}");
            }
        }
        let none = explain(Rule(7), Verdict::NoSync, go(Conn::Connected, false));
        assert!(!seen.contains(none.why));
    }

    #[test]
    fn the_loss_is_that_of_what_happens() {
        // Disk states may turn the verdict round.
        let e = explain(Rule(50), Verdict::Target, go(Conn::WFBitMapS, true));
        assert!(e.loss.starts_with("The whole disk of the peer"));
        for verdict in [Verdict::SplitBrain, Verdict::SplitBrainAmbiguous] {
            let e = explain(Rule(90), verdict, go(Conn::WFBitMapT, false));
            assert!(e.loss.starts_with("This node loses all"));
            let refused = Outcome::Refuse(RefusedBecause::SplitBrain);
            let e = explain(Rule(90), verdict, refused);
            assert!(e.loss.ends_with("Nothing is lost yet.") && e.next.contains("discard-my-data"));
        }
        let dry = RefusedBecause::DryRun(DryRun::Target { full: true });
        let e = explain(Rule(60), Verdict::FullTarget, Outcome::Refuse(dry));
        assert!(e.loss.contains("would be overwritten"));
    }

    #[test]
    fn a_verdict_for_want_of_protocol_corrects_nothing() {
        for rule in RULES {
            assert_eq!(first_line(Rule(rule), Verdict::NeedsProtocol(91)), "");
        }
    }
}
