// SPDX-License-Identifier: GPL-2.0
//! What DRBD can do beside mirroring, on every pairing of drivers: `make check-features`.

use drbd_lab::scenario::features::{self, admin, disks, network, primaries, resync, specs, verify};
use drbd_lab::{pairings, Cluster, Driver, Kernel, Result};

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &specs(drivers, kernel), scenario);
}

macro_rules! on_every_pair {
    ($($group:ident: $($name:ident)*;)*) => {$($(
        mod $name {
            use super::*;

            fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("features-{}-{with}", stringify!($name));
                run(&name, drivers, kernel, $group::$name);
            }

            pairings!(on: c_c ours_ours ours_c c_ours);
        }
    )*)*};
}

// The first one runs all of them on the same machines, which saves their starts.
on_every_pair! {
    features: in_turn;
    verify: finds_and_mends from_here_to_there cut_short;
    resync: checksums pause after_another invalidate;
    network: integrity protocols pull_ahead congestion_disconnects ipv6;
    primaries: two_primaries conflicts split_brain policies;
    disks: resize trim thin io_errors volumes;
    admin: skip_initial_sync suspend_io no_data_accessible outdate;
}
