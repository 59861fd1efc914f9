// SPDX-License-Identifier: GPL-2.0
//! Bad input: a peer that breaks the protocol, and an administrator who makes mistakes.

use drbd_lab::scenario::bad_peer::{self, Moment};
use drbd_lab::scenario::same_words;
use drbd_lab::{Cluster, Kernel};

const PROGRAM: &str = env!("CARGO_BIN_EXE_drbd-lab-hostile");

/// The seed of the random packets: `DRBD_LAB_SEED`, or a fixed one.
fn seed() -> u64 {
    let set = std::env::var("DRBD_LAB_SEED").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// Random streams per test: `DRBD_LAB_STREAMS`, or a few.
fn streams() -> u64 {
    let set = std::env::var("DRBD_LAB_STREAMS").ok();
    set.and_then(|s| s.parse().ok()).unwrap_or(10)
}

fn bad_peer(name: &str, moment: Moment) {
    Cluster::test(name, &bad_peer::specs(Kernel::Release), |c| {
        bad_peer::run(c, moment, PROGRAM, seed(), streams())
    });
}

#[test]
fn a_peer_breaks_the_protocol_with_a_primary() {
    bad_peer("bad-peer-primary", Moment::Primary);
}

#[test]
fn a_peer_breaks_the_protocol_with_a_fresh_node() {
    bad_peer("bad-peer-fresh", Moment::Fresh);
}

#[test]
fn mistakes_are_answered_as_by_the_c_driver() {
    Cluster::test("mistakes", &same_words::specs(), same_words::mistakes);
}

#[test]
fn states_are_shown_as_by_the_c_driver() {
    Cluster::test("views", &same_words::specs(), same_words::views);
}
