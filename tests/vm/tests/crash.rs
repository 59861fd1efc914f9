// SPDX-License-Identifier: GPL-2.0
//! The crash scenarios on every pairing of drivers.
//!
//! `DRBD_LAB_SEED=n` picks the seed, to repeat or to look for more; without it each test has its
//! own fixed one, so that a change of ours and nothing else turns a test red.

use drbd_lab::scenario::{crash, pair};
use drbd_lab::{Cluster, Driver, Kernel, Result};

type Scenario = fn(&Cluster, u64) -> Result<()>;

const MIB: u64 = 64;

fn seed(default: u64) -> u64 {
    std::env::var("DRBD_LAB_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default)
}

fn run(name: &str, drivers: [Driver; 2], default: u64, scenario: Scenario) {
    let seed = seed(default);
    let specs = pair(drivers, Kernel::Release, MIB);
    Cluster::test(name, &specs, |c| {
        scenario(c, seed).map_err(|e| e.context(format!("seed {seed}")))
    });
}

fn source_lost_in_resync(cluster: &Cluster, seed: u64) -> Result<()> {
    crash::lost_in_resync(cluster, seed, true)
}

fn target_lost_in_resync(cluster: &Cluster, seed: u64) -> Result<()> {
    crash::lost_in_resync(cluster, seed, false)
}

macro_rules! on_every_pairing {
    ($($name:ident: $scenario:expr, $seed:expr;)*) => {$(
        mod $name {
            use super::*;
            use Driver::{Ours, C};

            fn on(pairing: &str, drivers: [Driver; 2]) {
                run(&format!("{}-{pairing}", stringify!($name)), drivers, $seed, $scenario);
            }

            #[test]
            fn c_c() {
                on("c-c", [C, C]);
            }

            #[test]
            fn ours_ours() {
                on("ours-ours", [Ours, Ours]);
            }

            #[test]
            fn ours_c() {
                on("ours-c", [Ours, C]);
            }

            #[test]
            fn c_ours() {
                on("c-ours", [C, Ours]);
            }
        }
    )*};
}

on_every_pairing! {
    primary_lost: crash::primary_lost, 1;
    secondary_lost: crash::secondary_lost, 2;
    wire_cut: crash::wire_cut, 3;
    source_lost: source_lost_in_resync, 4;
    target_lost: target_lost_in_resync, 5;
}
