// SPDX-License-Identifier: GPL-2.0
//! Taking things down at bad moments, on every kernel.

use drbd_lab::scenario::{pair, teardown};
use drbd_lab::{pairings, Cluster, Driver, Kernel, Result};

const MIB: u64 = 32;

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &pair(drivers, kernel, MIB), scenario);
}

macro_rules! on_every_kernel {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("teardown-{}-{with}", stringify!($name));
                run(&name, drivers, kernel, teardown::$name);
            }

            pairings!(on: c_c ours_ours ours_c c_ours ours_ours_kasan ours_ours_locks);
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
