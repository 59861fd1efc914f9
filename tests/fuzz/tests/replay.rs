// SPDX-License-Identifier: GPL-2.0

//! Seeds and everything that the fuzzer ever found, again: without a fuzzer, on any toolchain.
//!
//! A file in `regressions/<target>/` made that target fail once. It is named after what it showed.
//! One in `known/<target>/` still does.

use std::fs;
use std::path::{Path, PathBuf};

/// The files below `tests/fuzz/<kind>/<target>`, in the order of their names.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(kind)
        .join(target);
    let Ok(found) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut all: Vec<_> = found.map(|e| e.expect("an entry").path()).collect();
    all.sort();
    all
}

fn replay(kind: &str, at_least: usize) {
    for (name, target) in drbd_fuzz::TARGETS {
        let all = inputs(kind, name);
        assert!(all.len() >= at_least, "{kind}/{name}: {} inputs", all.len());
        for path in all {
            let bytes = fs::read(&path).expect("an input");
            // Printed by the test harness if the target panics.
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

#[test]
fn what_was_found_stays_repaired() {
    replay("regressions", 0);
}

/// What is repaired moves to `regressions`.
#[test]
fn what_is_known_to_fail_still_does() {
    for (name, target) in drbd_fuzz::TARGETS {
        for path in inputs("known", name) {
            let bytes = fs::read(&path).expect("an input");
            let fails = std::panic::catch_unwind(|| target(&bytes)).is_err();
            assert!(fails, "{} is repaired", path.display());
        }
    }
}

#[test]
fn seeds_do_no_harm() {
    replay("corpus", 5);
}

#[test]
fn every_folder_has_a_target() {
    for kind in ["regressions", "corpus"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
        for entry in fs::read_dir(folder).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_string_lossy();
            assert!(drbd_fuzz::target(&name).is_some(), "{kind}/{name}");
        }
    }
}
