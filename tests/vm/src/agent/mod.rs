// SPDX-License-Identifier: GPL-2.0
//! What runs inside a node: first as its init ([`boot`]), then serving the host's requests
//! ([`serve`]).
//!
//! It is the only program of ours in the machine and comes in the initial RAM disk, so the root
//! image never depends on it.

pub mod boot;
pub mod serve;
