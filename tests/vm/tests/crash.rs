// SPDX-License-Identifier: GPL-2.0
//! The crash scenarios on every pairing of drivers.
//!
//! `DRBD_LAB_SEED=n` picks the seed, to repeat or to look for more; without it each test has its
//! own fixed one, so that a change of ours and nothing else turns a test red. `DRBD_LAB_ROUNDS=n`
//! picks how often it happens to the same nodes, one after the other; without it once.

use drbd_lab::scenario::crash::{self, Round};
use drbd_lab::scenario::{exchange, pair};
use drbd_lab::{Cluster, Driver, Kernel};

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
            use Driver::{Ours, C};

            fn on(pairing: &str, drivers: [Driver; 2]) {
                on_kernel(pairing, drivers, Kernel::Release);
            }

            fn on_kernel(pairing: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("{}-{pairing}", stringify!($name));
                run(&name, drivers, kernel, $seed, $scenario);
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

            #[test]
            fn ours_ours_kasan() {
                on_kernel("ours-ours-kasan", [Ours, Ours], Kernel::Kasan);
            }

            #[test]
            fn ours_ours_locks() {
                on_kernel("ours-ours-locks", [Ours, Ours], Kernel::Locks);
            }
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

    fn on(name: &str, drivers: [Driver; 2]) {
        run(name, drivers, Kernel::Release, 6, exchange::driver_changed);
    }

    #[test]
    fn ours_c() {
        on("driver_changed-ours-c", [Driver::Ours, Driver::C]);
    }

    #[test]
    fn c_ours() {
        on("driver_changed-c-ours", [Driver::C, Driver::Ours]);
    }
}
