// SPDX-License-Identifier: GPL-2.0
//! What happens to clusters, as functions of the drivers, the kernel and a seed.
//!
//! A scenario never asks which driver a node runs: what is true of a pair of C nodes has to be
//! true of ours and of every mixture.

pub mod bad_peer;
pub mod bench;
pub mod crash;
pub mod demo;
pub mod exchange;
pub mod features;
pub mod fencing;
pub mod golden;
pub mod same_words;
pub mod shell;
pub mod story;
pub mod teardown;
pub mod transitions;
pub mod uuid_golden;

use std::time::Duration;

use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, NodeSpec};

/// Two nodes, `a` and `b`, with one disk of `mib` MiB each.
pub fn pair(drivers: [Driver; 2], kernel: Kernel, mib: u64) -> [NodeSpec; 2] {
    let [a, b] = drivers;
    [
        NodeSpec::new("a", a, kernel, mib),
        NodeSpec::new("b", b, kernel, mib),
    ]
}

/// A pair that is up, synchronised, with `a` primary. The rate is fixed and high: the default of
/// 250 KiB/s is what production begins with, and the controller slows down on a loaded host.
///
/// # Errors
/// When a step fails.
pub fn primary_a_in_sync(cluster: &Cluster, resource: &Resource) -> Result<()> {
    let mut resource = resource.clone();
    resource
        .disk
        .push_str(" resync-rate 100M; c-plan-ahead 0; c-min-rate 0;");
    resource.configure(cluster)?;
    drbd::create_and_up(cluster)?;
    let [a, _] = two(cluster)?;
    a.must("drbdadm primary --force r0")?;
    cluster.each(|n| drbd::wait_in_sync(n, Duration::from_secs(120)).map(|_| ()))
}

/// The two nodes of a pair.
///
/// # Errors
/// When there are not two.
pub fn two(cluster: &Cluster) -> Result<[&crate::Node; 2]> {
    match cluster.nodes.as_slice() {
        [a, b] => Ok([a, b]),
        _ => Err(Error::new("this scenario is for two nodes")),
    }
}

/// Sector where the data of a disk with internal metadata ends, by the formula of DRBD 8.4: the
/// last whole 4 KiB for the superblock, before it 32 KiB of activity log and the bitmap.
pub fn data_bytes(disk_bytes: u64) -> u64 {
    let sectors = disk_bytes / 512;
    let bitmap = sectors.div_ceil(32768).next_multiple_of(8);
    let superblock = (sectors & !7) - 8;
    (superblock - 64 - bitmap) * 512
}

/// After everything is quiet: both disks hold the same data, byte for byte.
///
/// # Errors
/// Names the first block that differs.
pub fn same_data(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let bytes = data_bytes(a.disk(0).size().min(b.disk(0).size()));
    match a.disk(0).first_difference(b.disk(0), bytes)? {
        None => Ok(()),
        Some(block) => Err(Error::new(format!(
            "the disks differ in 4 KiB block {block}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_data_area_is_that_of_the_worked_examples() {
        assert_eq!(super::data_bytes(1 << 30) / 512, 2_097_016);
        assert_eq!(super::data_bytes(100 << 20) / 512, 204_720);
    }
}
