// SPDX-License-Identifier: GPL-2.0
//! Online verify: it reads all that it was told to, finds what differs and nothing else, and the
//! next connection mends it.

use super::{
    both, connection, ensure, equal, finish, in_sync, primary_a, rot, write_chunks, DEVICE,
};
use crate::cluster::Cluster;
use crate::drbd::{Resource, Status};
use crate::error::Result;
use crate::node::Node;
use crate::scenario::{data_bytes, two};

fn resource() -> Resource {
    Resource {
        handlers: "out-of-sync \"date >> /run/out-of-sync\";".into(),
        ..super::resource("verify-alg crc32c;")
    }
}

/// Runs a verify to its end; the KiB that each node knows to differ then have to be `expected`.
/// Returns how many bytes the nodes have read for it.
fn verify(cluster: &Cluster, node: &Node, command: &str, expected: u64) -> Result<[u64; 2]> {
    let [a, b] = two(cluster)?;
    let read = || [a, b].map(|n| n.disk(0).stats().read);
    let before = read();
    node.must(command)?;
    cluster.each(|n| connection(n, "Connected").map(|_| ()))?;
    for n in [a, b] {
        let status = Status::of(n)?;
        let right = status.oos == expected && status.ds == "UpToDate/UpToDate";
        let what = format!("{command}: {expected} KiB should be out of sync, and disks good");
        ensure(cluster, right, &what)?;
    }
    let after = read();
    Ok([after[0] - before[0], after[1] - before[1]])
}

/// Equal disks are equal; three places that rot are found, and mended by the next connection, which
/// sends nothing else.
///
/// # Errors
/// The first thing that does not hold.
pub fn finds_and_mends(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &resource())?;
    write_chunks(a, DEVICE, 0, 16)?;
    let all = data_bytes(a.disk(0).size());
    for read in verify(cluster, a, "drbdadm verify r0", 0)? {
        ensure(cluster, read >= all, &format!("read {read} of {all} bytes"))?;
    }
    both(cluster, "test ! -e /run/out-of-sync")?;
    let last = all / 4096 - 1;
    for block in [5, 1000, 1001, 1002, 1003, last] {
        rot(b, block)?;
    }
    verify(cluster, a, "drbdadm verify r0", 24)?;
    cluster.each(|n| n.wait_until("test -e /run/out-of-sync", super::LONG))?;
    a.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    in_sync(cluster)?;
    equal("KiB sent to mend", Status::of(a)?.ns, 24)?;
    verify(cluster, b, "drbdadm verify r0", 0)?;
    finish(cluster)
}

/// Only what lies between start and stop is compared. What the Secondary asks for counts alike.
///
/// # Errors
/// The first thing that does not hold.
pub fn from_here_to_there(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &resource())?;
    let all = data_bytes(a.disk(0).size());
    for block in [10, 2000, 3000] {
        rot(b, block)?;
    }
    // Sectors: blocks 2500 to the end, 0 to 1000, 1500 to 2500.
    let part = verify(cluster, a, "drbdsetup verify 0 --start=20000", 4)?;
    for read in part {
        let what = format!("read {read} bytes of the last 1586 blocks");
        ensure(cluster, read >= 1500 * 4096 && read < all / 2, &what)?;
    }
    verify(cluster, b, "drbdsetup verify 0 --start=0 --stop=8000", 8)?;
    verify(
        cluster,
        b,
        "drbdsetup verify 0 --start=12000 --stop=20000",
        12,
    )?;
    a.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    finish(cluster)
}

/// A verify that loses its connection half way ends, and another one finds all.
///
/// # Errors
/// The first thing that does not hold.
pub fn cut_short(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &resource())?;
    rot(b, 3)?;
    rot(b, 4000)?;
    both(
        cluster,
        "drbdadm disk-options --c-plan-ahead=0 --resync-rate=1M r0",
    )?;
    a.must("drbdadm verify r0")?;
    connection(a, "VerifyS")?;
    connection(b, "VerifyT")?;
    write_chunks(a, DEVICE, 4, 1)?;
    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    both(
        cluster,
        "drbdadm disk-options --c-plan-ahead=0 --resync-rate=100M r0",
    )?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    equal("KiB out of sync", Status::of(a)?.oos, 0)?;
    // What was found before the cut is mended by now.
    a.must("drbdsetup verify 0 --start=0")?;
    cluster.each(|n| connection(n, "Connected").map(|_| ()))?;
    let left = Status::of(a)?.oos;
    ensure(cluster, left == 4 || left == 8, "one or two blocks differ")?;
    a.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    finish(cluster)
}
