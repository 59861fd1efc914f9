// SPDX-License-Identifier: GPL-2.0
//! Handlers that use the tools, and administrators that do not wait for each other.

use drbd_lab::scenario::{fencing, pair};
use drbd_lab::{pairings, Cluster, Driver, Kernel, Result};

fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, scenario: fn(&Cluster) -> Result<()>) {
    Cluster::test(name, &pair(drivers, kernel, 32), scenario);
}

mod peer_is_fenced {
    use super::*;

    fn on(with: &str, drivers: [Driver; 2], kernel: Kernel) {
        let name = format!("fencing-peer_is_fenced-{with}");
        run(&name, drivers, kernel, fencing::peer_is_fenced);
    }

    pairings!(on: c_c ours_ours ours_c ours_ours_locks);
}

/// The C driver holds the lock of all generic netlink families while it detaches.
mod nobody_waits_for_others {
    use super::*;

    #[test]
    fn ours_ours() {
        let name = "fencing-nobody_waits-ours-ours";
        let scenario = fencing::nobody_waits_for_others;
        run(
            name,
            [Driver::Ours, Driver::Ours],
            Kernel::Release,
            scenario,
        );
    }
}
