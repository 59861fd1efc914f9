// SPDX-License-Identifier: GPL-2.0

//! What each rule of the comparison means, for people who have to act on it.
//!
//! The sentences say why the rule fits, what each side would lose, and what to do next. They speak
//! to the one who reads them on this node.

use super::decide::{Rule, Verdict};

/// Three sentences about a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was found.
    pub why: &'static str,
    /// What each side loses.
    pub loss: &'static str,
    /// What to do.
    pub next: &'static str,
}

/// Explains a decision.
pub const fn explain(rule: Rule, verdict: Verdict) -> Explanation {
    Explanation {
        why: why(rule, verdict),
        loss: loss(verdict),
        next: next(verdict),
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
             did not hear of, and has caught up on that now."
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

const fn loss(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoSync => "Neither side loses anything.",
        Verdict::Source => "The peer gets the blocks that differ; this node loses nothing.",
        Verdict::FullSource => {
            "The whole disk of the peer is overwritten; this node loses nothing."
        }
        Verdict::Target => "This node gets the blocks that differ; the peer loses nothing.",
        Verdict::FullTarget => {
            "The whole disk of this node is overwritten; the peer loses nothing."
        }
        Verdict::SplitBrain => {
            "One side will lose everything it wrote since the two parted. Nothing is lost yet."
        }
        Verdict::SplitBrainAmbiguous => {
            "One side will lose everything it wrote on its own, and its whole disk may have to be \
             overwritten. Nothing is lost yet."
        }
        Verdict::Unrelated => "All data of one side would be lost. Nothing is lost yet.",
        Verdict::NeedsProtocol(_) | Verdict::NeedsFeatures { .. } => "Nothing is lost yet.",
    }
}

const fn next(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NoSync => "Nothing is to be done.",
        Verdict::Source | Verdict::FullSource | Verdict::Target | Verdict::FullTarget => {
            "The resync starts by itself; do not trust the target on its own before it is done."
        }
        Verdict::SplitBrain | Verdict::SplitBrainAmbiguous => {
            "Unless a policy decides, choose the node whose writes are to go, save what matters \
             there, run 'drbdadm connect --discard-my-data' on it and 'drbdadm connect' on the \
             other."
        }
        Verdict::Unrelated => {
            "Check that the right disks are configured on both nodes; if they are, prepare the \
             disk that is to be overwritten with 'drbdadm create-md'."
        }
        Verdict::NeedsProtocol(_) | Verdict::NeedsFeatures { .. } => {
            "Update the node with the older version, then connect again."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_own_reason() {
        let rules = [
            10, 20, 30, 34, 35, 36, 37, 40, 41, 50, 51, 60, 70, 71, 80, 90, 100,
        ];
        let mut seen = std::collections::BTreeSet::new();
        for rule in rules {
            let e = explain(Rule(rule), Verdict::Target);
            assert!(seen.insert(e.why), "rule {rule}");
            assert!(e.why.ends_with('.') && e.loss.ends_with('.') && e.next.ends_with('.'));
        }
        assert!(!seen.contains(explain(Rule(7), Verdict::NoSync).why));
    }
}
