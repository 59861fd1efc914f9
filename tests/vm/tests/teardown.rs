// SPDX-License-Identifier: GPL-2.0
//! Taking things down at bad moments, on every kernel.

use drbd_lab::scenario::{pair, teardown};
use drbd_lab::{Cluster, Driver, Kernel, Result};

const MIB: u64 = 32;

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &pair(drivers, kernel, MIB), scenario);
}

macro_rules! on_every_kernel {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;
            use Driver::{Ours, C};

            fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("teardown-{}-{with}", stringify!($name));
                run(&name, drivers, kernel, teardown::$name);
            }

            #[test]
            fn c_c() {
                on("c-c", [C, C], Kernel::Release);
            }

            #[test]
            fn ours_ours() {
                on("ours-ours", [Ours, Ours], Kernel::Release);
            }

            #[test]
            fn ours_c() {
                on("ours-c", [Ours, C], Kernel::Release);
            }

            #[test]
            fn c_ours() {
                on("c-ours", [C, Ours], Kernel::Release);
            }

            #[test]
            fn ours_ours_kasan() {
                on("ours-ours-kasan", [Ours, Ours], Kernel::Kasan);
            }

            #[test]
            fn ours_ours_locks() {
                on("ours-ours-locks", [Ours, Ours], Kernel::Locks);
            }
        }
    )*};
}

on_every_kernel! {
    without_peer
    in_use
    in_resync
    frozen_peer
    cut_wire
    failing_disk
    slow_disk
    unload_configured
}
