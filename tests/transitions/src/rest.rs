// SPDX-License-Identifier: GPL-2.0

//! When a cluster has come to rest: nothing that can be seen has changed for a while.
//!
//! How long a while depends on what is seen. A resync with a rate of 1 KiB/s never begins, so that
//! it is a state to rest in, but it takes longer to be sure of that.

use crate::picture::Proc;
use std::time::Duration;

/// After so long there is no rest to be hoped for.
const HOPELESS: Duration = Duration::from_secs(20);

/// What is seen of both nodes.
pub type Sight = [Option<Proc>; 2];

/// Waits for rest.
#[derive(Debug, Default)]
pub struct Rest {
    began: Option<Duration>,
    seen: Option<(Duration, Sight)>,
}

/// Whether to look on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Once more, later.
    Again,
    /// They rest.
    Rested,
    /// They will not come to rest.
    Restless,
}

impl Rest {
    /// What was seen at `now`, on any clock.
    pub fn look(&mut self, now: Duration, sight: Sight) -> Look {
        let began = *self.began.get_or_insert(now);
        let changed = self.seen.as_ref().is_none_or(|(_, seen)| *seen != sight);
        let wait = patience(&sight);
        if changed {
            self.seen = Some((now, sight));
        }
        let since = self.seen.as_ref().map_or(now, |(since, _)| *since);
        if now.saturating_sub(since) >= wait {
            Look::Rested
        } else if now.saturating_sub(began) >= HOPELESS {
            Look::Restless
        } else {
            Look::Again
        }
    }
}

/// How long what is seen has to stay as it is.
fn patience(sight: &Sight) -> Duration {
    let cs = sight.each_ref().map(|p| p.as_ref().map_or("", |p| &p.cs));
    if cs == ["WFConnection", "WFConnection"] {
        // They will find each other.
        return Duration::from_secs(5);
    }
    let linked = |cs: &str| matches!(cs, "Connected" | "PausedSyncS" | "PausedSyncT");
    let alone = |cs: &str| matches!(cs, "" | "Unconfigured" | "StandAlone" | "WFConnection");
    let calm = cs.iter().all(|c| linked(c)) || cs.iter().all(|c| alone(c));
    let passing = |d: &str| matches!(d, "Attaching" | "Failed" | "Negotiating");
    let disks = |p: &Proc| passing(p.disks().0) || passing(p.disks().1);
    if calm && !sight.iter().flatten().any(disks) {
        Duration::from_millis(250)
    } else {
        Duration::from_millis(1200)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(cs: [&str; 2]) -> Sight {
        cs.map(|cs| {
            let ds = "UpToDate/UpToDate";
            let text = format!("0: cs:{cs} ro:Primary/Secondary ds:{ds} C r-----\n");
            Proc::parse(&text, 0)
        })
    }

    fn rest_after(cs: [&str; 2]) -> u64 {
        let mut rest = Rest::default();
        (0..)
            .map(|n| n * 50)
            .find(|ms| rest.look(Duration::from_millis(*ms), sight(cs)) == Look::Rested)
            .unwrap()
    }

    #[test]
    fn what_may_move_is_watched_longer() {
        assert_eq!(rest_after(["Connected", "Connected"]), 250);
        assert_eq!(rest_after(["StandAlone", "WFConnection"]), 250);
        assert_eq!(rest_after(["WFConnection", "WFConnection"]), 5000);
        assert_eq!(rest_after(["Connected", "WFConnection"]), 1200);
        assert_eq!(rest_after(["SyncSource", "SyncTarget"]), 1200);
    }

    #[test]
    fn every_change_begins_anew_and_not_for_ever() {
        let mut rest = Rest::default();
        let words = ["Unconnected", "WFConnection"];
        let looks: Vec<Look> = (0..500)
            .map(|n| {
                let now = Duration::from_millis(n * 100);
                rest.look(now, sight([words[n as usize % 2], "StandAlone"]))
            })
            .collect();
        let end = looks.iter().position(|l| *l != Look::Again).unwrap();
        assert_eq!((end, looks[end]), (200, Look::Restless));
    }
}
