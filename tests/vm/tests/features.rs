// SPDX-License-Identifier: GPL-2.0
//! What DRBD can do beside mirroring, on every pairing of drivers: `make check-features`.

use drbd_lab::scenario::features::{
    admin, disks, in_turn, network, primaries, resync, specs, verify,
};
use drbd_lab::{Cluster, Driver, Kernel, Result};

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &specs(drivers, kernel), scenario);
}

macro_rules! on_every_pair {
    ($($group:ident: $($name:ident)*;)*) => {$($(
        mod $name {
            use super::*;
            use Driver::{Ours, C};

            fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
                let name = format!("features-{}-{with}", stringify!($name));
                run(&name, drivers, kernel, $group::$name);
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
        }
    )*)*};
}

/// All of them on the same machines, which saves their starts.
mod in_turn {
    use super::*;
    use Driver::{Ours, C};

    fn on(with: &str, drivers: [Driver; 2]) {
        let name = format!("features-in_turn-{with}");
        run(&name, drivers, Kernel::Release, in_turn);
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

on_every_pair! {
    verify: finds_and_mends from_here_to_there cut_short;
    resync: checksums pause after_another invalidate;
    network: integrity protocols pull_ahead congestion_disconnects ipv6;
    primaries: two_primaries conflicts split_brain policies;
    disks: resize trim thin io_errors volumes;
    admin: skip_initial_sync suspend_io no_data_accessible outdate;
}
