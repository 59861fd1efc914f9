// SPDX-License-Identifier: GPL-2.0

//! What each order of an administrator does in each stable state of two nodes.
//!
//! `tests/golden/transitions/states.txt` says which states and orders there are ([`plan`]),
//! `outcomes.txt` beside it what came of each with a pair of C nodes ([`outcomes`]). The lab
//! (`tests/vm`) records with this crate, and `tests/ours.rs` reproduces with it: both read the same
//! files, look at nodes with the same eyes ([`picture`]) and wait for the same rest ([`rest`]).

pub mod outcomes;
pub mod picture;
pub mod plan;
pub mod rest;

/// Nodes of a cluster: `a` and `b`.
pub const NODES: [&str; 2] = ["a", "b"];

/// The path of a file in `tests/golden/transitions`.
pub fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../golden/transitions")
        .join(name)
}
