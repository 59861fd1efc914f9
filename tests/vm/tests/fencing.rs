// SPDX-License-Identifier: GPL-2.0
//! Handlers that use the tools, and administrators that do not wait for each other.

use drbd_lab::scenario::{fencing, pair};
use drbd_lab::{Cluster, Driver, Kernel, Result};

use Driver::{Ours, C};

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &pair(drivers, kernel, 32), scenario);
}

mod peer_is_fenced {
    use super::*;

    fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
        let name = format!("fencing-peer_is_fenced-{with}");
        run(&name, drivers, kernel, fencing::peer_is_fenced);
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
    fn ours_ours_locks() {
        on("ours-ours-locks", [Ours, Ours], Kernel::Locks);
    }
}

/// The C driver holds the lock of all generic netlink families while it detaches.
mod nobody_waits_for_others {
    use super::*;

    #[test]
    fn ours_ours() {
        let name = "fencing-nobody_waits-ours-ours";
        let scenario = fencing::nobody_waits_for_others;
        run(name, [Ours, Ours], Kernel::Release, scenario);
    }
}
