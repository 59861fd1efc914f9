// SPDX-License-Identifier: GPL-2.0
//! The crash scenarios on every pairing of drivers.
//!
//! `DRBD_LAB_SEED=n` picks the seed, to repeat or to look for more; without it each test has its
//! own fixed one, so that a change of ours and nothing else turns a test red. `DRBD_LAB_ROUNDS=n`
//! picks how often it happens to the same nodes, one after the other; without it once.

use drbd_lab::scenario::crash::{self, Round};
use drbd_lab::scenario::{exchange, pair};
use drbd_lab::{pairings, Cluster, Driver, Kernel};

/// Large enough for a resync that is interrupted at 8 MiB/s.
const MIB: u64 = 32;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default)
}

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, default: u64, round: Round) {
    let seed = number("DRBD_LAB_SEED", default);
    let count = number("DRBD_LAB_ROUNDS", 1);
    let specs = pair(drivers, kernel, MIB);
    Cluster::test(name, &specs, |c| {
        crash::rounds(c, seed, count, round).map_err(|e| e.context(format!("seed {seed}")))
    });
}

macro_rules! on_every_pairing {
    ($($name:ident: $scenario:expr, $seed:expr;)*) => {$(
        mod $name {
            use super::*;

            fn on(pairing: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("{}-{pairing}", stringify!($name));
                run(&name, drivers, kernel, $seed, $scenario);
            }

            pairings!(on: c_c ours_ours ours_c c_ours ours_ours_kasan ours_ours_locks);
        }
    )*};
}

on_every_pairing! {
    primary_lost: crash::primary_lost, 1;
    secondary_lost: crash::secondary_lost, 2;
    lost_in_flush: crash::lost_in_flush, 7;
    wire_cut: crash::wire_cut, 3;
    source_lost: crash::source_lost, 4;
    target_lost: crash::target_lost, 5;
}

/// Each node changes from the one driver to the other, so these two are all there is.
mod driver_changed {
    use super::*;

    fn on(pairing: &str, drivers: [Driver; 2], kernel: Kernel) {
        let name = format!("driver_changed-{pairing}");
        run(&name, drivers, kernel, 6, exchange::driver_changed);
    }

    pairings!(on: ours_c c_ours);
}
