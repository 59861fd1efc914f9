// SPDX-License-Identifier: GPL-2.0

//! Where our core differs on purpose: `tests/golden/transitions/differences.txt`.
//!
//! `reason KEY TEXT` says why, `STATE | ORDER | KEY | OURS` where, with what ours does instead. So
//! a difference stays the one that was argued for.

use std::collections::{BTreeMap, BTreeSet};

/// The file.
pub struct Differences {
    reasons: BTreeSet<String>,
    lines: BTreeMap<(String, String), (String, String)>,
}

impl Differences {
    /// The file of this repository.
    pub fn golden() -> Differences {
        let path = drbd_transitions::golden("differences.txt");
        let text = std::fs::read_to_string(path).expect("differences.txt");
        let mut all = Differences {
            reasons: BTreeSet::new(),
            lines: BTreeMap::new(),
        };
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            if let Some(reason) = line.strip_prefix("reason ") {
                let (key, _) = reason.split_once(' ').expect("a reason");
                all.reasons.insert(key.into());
                continue;
            }
            let parts: Vec<&str> = line.splitn(4, " | ").collect();
            let [state, order, key, ours] = parts.try_into().expect("four parts");
            assert!(all.reasons.contains(key), "no such reason: {line}");
            all.lines
                .insert((state.into(), order.into()), (key.into(), ours.into()));
        }
        all
    }

    /// Whether it is known that ours does this.
    pub fn explain(&self, state: &str, order: &str, ours: &str) -> bool {
        let found = self.lines.get(&(state.into(), order.into()));
        found.is_some_and(|(_, line)| line == ours)
    }

    /// Whether anything is said about this order.
    pub fn has(&self, state: &str, order: &str) -> bool {
        self.lines.contains_key(&(state.into(), order.into()))
    }

    /// All of them: state, order, what ours does.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let all = self.lines.iter();
        all.map(|((state, order), (_, ours))| (state.as_str(), order.as_str(), ours.as_str()))
    }
}
