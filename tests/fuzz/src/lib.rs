// SPDX-License-Identifier: GPL-2.0

//! Targets of the fuzzer: each takes bytes and panics when the core did something wrong.
//!
//! The functions know no fuzzer. `src/bin/fuzz.rs` hands them to libFuzzer, `tests/replay.rs` to
//! `cargo test` with what was found earlier. Whatever the bytes, the same bytes give the same run.

pub mod al_block;
pub mod bitmap;
pub mod cursor;
pub mod handshake;
pub mod netlink;
pub mod node;
pub mod superblock;
pub mod wire;

/// A target.
pub type Target = fn(&[u8]);

/// Every target with its name, which is also that of its folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("wire", wire::run),
    ("handshake", handshake::run),
    ("superblock", superblock::run),
    ("al_block", al_block::run),
    ("netlink", netlink::run),
    ("bitmap", bitmap::run),
    ("node", node::run),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
}
