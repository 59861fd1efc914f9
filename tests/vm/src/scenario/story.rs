// SPDX-License-Identifier: GPL-2.0
//! The story everybody's first evening with DRBD tells: two nodes, one file system that moves.

use std::time::Duration;

use super::{pair, same_data, two};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, Node};

const LONG: Duration = Duration::from_secs(180);

/// Runs the story on a pair with these drivers and `mib` MiB of disk.
pub fn run(name: &str, drivers: [Driver; 2], kernel: Kernel, mib: u64) {
    Cluster::test(name, &pair(drivers, kernel, mib), story);
}

/// Create, full sync, mkfs, files, move to `b`, compare, write there, move back, compare.
///
/// # Errors
/// The first step that fails.
pub fn story(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    super::primary_a_in_sync(cluster, &Resource::default())?;

    a.must_for("mkfs.ext4 -q /dev/drbd0", LONG)?;
    mount(a)?;
    write_files(a, "first")?;
    let first = sums(a)?;
    hand_over(a, b)?;
    if sums(b)? != first {
        return Err(Error::new("b does not see the files of a"));
    }
    write_files(b, "second")?;
    let second = sums(b)?;
    hand_over(b, a)?;
    if sums(a)? != second {
        return Err(Error::new("a does not see the files of b"));
    }
    a.must("umount /mnt")?;
    a.must_for("fsck.ext4 -f -n /dev/drbd0", LONG)?;
    a.must("drbdadm secondary r0")?;
    drbd::down_and_unload(cluster)?;
    same_data(cluster)
}

fn mount(node: &Node) -> Result<()> {
    node.must("mount /dev/drbd0 /mnt").map(|_| ())
}

fn write_files(node: &Node, dir: &str) -> Result<()> {
    let script = format!(
        "set -e; mkdir -p /mnt/{dir}; cd /mnt/{dir}; \
         for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=f$i bs=64k count=$((i * 4)) status=none; \
         done; cp -r /etc etc; sync"
    );
    node.must_for(&script, LONG).map(|_| ())
}

/// A sum over all files, read from the disk and not from the page cache.
fn sums(node: &Node) -> Result<String> {
    let script = "cd /mnt; echo 3 > /proc/sys/vm/drop_caches; \
                  find . -type f | sort | xargs -d '\\n' cat | sha256sum";
    node.must_for(script, LONG)
}

fn hand_over(from: &Node, to: &Node) -> Result<()> {
    from.must("umount /mnt && drbdadm secondary r0")?;
    to.must("drbdadm primary r0")?;
    mount(to)
}
