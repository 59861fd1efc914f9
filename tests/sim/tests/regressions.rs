// SPDX-License-Identifier: GPL-2.0

//! Runs that once failed, as lists of what was done; and the list of planted bugs still fits.

use drbd_sim::mutants;
use drbd_sim::plan::Plan;
use drbd_sim::run::run;
use std::path::{Path, PathBuf};

fn here(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(what)
}

fn plans(folder: &str) -> Vec<(PathBuf, Plan)> {
    let mut found = Vec::new();
    // Nothing may be known to fail: then there is no folder.
    for entry in std::fs::read_dir(here(folder)).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a text");
        let plan = Plan::parse(&text).expect("a plan");
        found.push((path, plan));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let plans = plans("regressions");
    assert!(!plans.is_empty());
    for (path, plan) in plans {
        assert!(plan.knobs.fit(), "{}: its world", path.display());
        if let Some(v) = run(&plan, false).violation {
            panic!("{}: {}: {}", path.display(), v.oracle, v.why);
        }
    }
}

/// A bug in this folder that is fixed moves to `regressions`.
#[test]
fn what_is_known_to_fail_still_does() {
    for (path, plan) in plans("known") {
        assert!(
            run(&plan, false).violation.is_some(),
            "{} is fixed",
            path.display()
        );
    }
}

#[test]
fn the_same_plan_gives_the_same_run() {
    for seed in [1, 2, 3] {
        let plan = Plan::draw(seed);
        let (a, b) = (run(&plan, false), run(&plan, true));
        assert_eq!(
            (a.stats.events, a.stats.steps),
            (b.stats.events, b.stats.steps)
        );
        assert!(a.trace.is_empty() && !b.trace.is_empty());
        assert_eq!(a.violation, b.violation);
    }
}

#[test]
fn planted_bugs_fit_the_source() {
    let text = std::fs::read_to_string(here("mutants.txt")).expect("the list");
    let all = mutants::parse(&text);
    assert!(all.len() >= 25, "{} mutants", all.len());
    for m in all {
        let path = here("../../drbd_rs/core/src").join(&m.file);
        let source = std::fs::read_to_string(path).expect("a source");
        assert!(
            m.apply(&source).is_some(),
            "{} does not fit any more",
            m.name
        );
    }
}
