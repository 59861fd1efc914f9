// SPDX-License-Identifier: GPL-2.0
//! What there is to a resync beside its data: digests, pauses, an order, and who asks for one.

use std::time::Duration;

use super::{
    both, connection, disks, ends_with, ensure, equal, finish, in_sync, primary_a, rot, same_disk,
    sum, write_chunks, CHUNK, DEVICE, LONG, NET,
};
use crate::cluster::Cluster;
use crate::drbd::{self, Status};
use crate::error::Result;
use crate::node::Node;
use crate::scenario::{data_bytes, two};

const SLOW: &str = "drbdadm disk-options --c-plan-ahead=0 --resync-rate=1M r0";
const FAST: &str = "drbdadm disk-options --c-plan-ahead=0 --resync-rate=100M r0";

/// Blocks that were written anew with what they held are not sent again.
///
/// # Errors
/// The first thing that does not hold.
pub fn checksums(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource("csums-alg md5;"))?;
    let again = format!("dd if=/run/data of={DEVICE} bs={CHUNK} oflag=direct status=none");
    a.must(&format!(
        "dd if=/dev/urandom of=/run/data bs={CHUNK} count=64 && {again}"
    ))?;
    b.must("drbdadm disconnect r0")?;
    a.must_for(&again, LONG)?;
    write_chunks(a, DEVICE, 0, 2)?;
    ensure(cluster, Status::of(a)?.oos == 4096, "4 MiB are out of sync")?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    // A digest is over up to 1 MiB; 128 KiB are not what they were.
    let got = Status::of(b)?.nr;
    let what = format!("{got} KiB received, of 4096 written and 128 different");
    ensure(cluster, (128..=1024).contains(&got), &what)?;
    finish(cluster)
}

/// Flag number `i` of a node is `flag`.
fn flag(node: &Node, i: usize, flag: char) -> Result<Status> {
    drbd::wait_for(node, &format!("flag {i} {flag}"), LONG, |s| {
        s.flags.chars().nth(i) == Some(flag)
    })
}

/// A resync that is paused stands still, until both have resumed it.
///
/// # Errors
/// The first thing that does not hold.
pub fn pause(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    write_chunks(a, DEVICE, 0, 8)?;
    both(cluster, SLOW)?;
    b.must("drbdadm invalidate r0")?;
    let begun = connection(b, "SyncTarget")?.oos;
    drbd::wait_for(b, "progress", LONG, |s| s.oos < begun)?;
    b.must("drbdadm pause-sync r0")?;
    connection(b, "PausedSyncT")?;
    connection(a, "PausedSyncS")?;
    flag(b, 3, 'u')?;
    flag(a, 2, 'p')?;
    // What was on its way may still arrive.
    std::thread::sleep(b.patience(Duration::from_millis(700)));
    let stands = Status::of(b)?.oos;
    std::thread::sleep(b.patience(Duration::from_millis(2000)));
    ensure(
        cluster,
        stands > 0 && Status::of(b)?.oos == stands,
        "it does not stand still",
    )?;
    write_chunks(a, DEVICE, 8, 1)?;
    ends_with(b, "drbdadm pause-sync r0", 10)?;
    a.must("drbdadm pause-sync r0")?;
    flag(b, 2, 'p')?;
    b.must("drbdadm resume-sync r0")?;
    flag(b, 3, '-')?;
    flag(a, 2, '-')?;
    ensure(
        cluster,
        Status::of(b)?.cs == "PausedSyncT",
        "a still has it paused",
    )?;
    both(cluster, FAST)?;
    a.must("drbdadm resume-sync r0")?;
    ends_with(a, "drbdadm resume-sync r0", 10)?;
    finish(cluster)
}

/// Two resources with a disk each, the second of which waits for the first.
fn one_after_the_other() -> String {
    let resource = |name: &str, minor: u32, disk: &str, options: &str| {
        format!(
            "resource {name} {{ device /dev/drbd{minor} minor {minor}; disk /dev/{disk}; \
             meta-disk internal; net {{ {NET} }} \
             disk {{ c-plan-ahead 0; c-min-rate 0; {options} }} \
             on a {{ address 10.77.0.1:{port}; }} on b {{ address 10.77.0.2:{port}; }} }}\n",
            port = 7788 + minor
        )
    };
    "global { usage-count no; }\n".to_owned()
        + &resource("r0", 0, "vdc", "resync-rate 1M;")
        + &resource("r1", 1, "vdd", "resync-rate 100M; resync-after r0/0;")
}

/// The resync of one resource waits as long as that of another one runs, and goes on by itself.
///
/// # Errors
/// The first thing that does not hold.
pub fn after_another(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let text = one_after_the_other();
    cluster.each(|n| n.put("/etc/drbd.conf", 0o644, text.as_bytes()))?;
    both(cluster, "drbdadm create-md --force all && drbdadm up all")?;
    for (minor, node) in [(0, a), (0, b), (1, a), (1, b)] {
        drbd::wait_for_minor(node, minor, "a connection", LONG, |s| s.cs == "Connected")?;
    }
    // The second begins alone, and has to stop for the first.
    both(
        cluster,
        "drbdadm disk-options --c-plan-ahead=0 --resync-rate=1M r1",
    )?;
    a.must("drbdadm primary --force r1")?;
    drbd::wait_for_minor(b, 1, "a resync", LONG, |s| s.cs == "SyncTarget")?;
    a.must("drbdadm primary --force r0")?;
    for (node, end) in [(a, 'S'), (b, 'T')] {
        let paused = format!("PausedSync{end}");
        let waits = |s: &Status| s.cs == paused && s.flags.chars().nth(1) == Some('a');
        drbd::wait_for_minor(node, 1, "the other resync to end", LONG, waits)?;
    }
    both(cluster, "drbdsetup disk-options 1 --resync-rate=100M")?;
    std::thread::sleep(b.patience(Duration::from_millis(700)));
    let stands = Status::of_minor(b, 1)?.oos;
    std::thread::sleep(b.patience(Duration::from_millis(1500)));
    let (first, second) = (Status::of(b)?, Status::of_minor(b, 1)?);
    let right = first.cs == "SyncTarget" && second.oos == stands && stands > 0;
    ensure(
        cluster,
        right,
        "the first one runs and the second one stands",
    )?;
    both(cluster, FAST)?;
    in_sync(cluster)?;
    for node in [a, b] {
        drbd::wait_for_minor(node, 1, "the second resync", LONG, |s| {
            s.cs == "Connected" && s.ds == "UpToDate/UpToDate" && s.oos == 0
        })?;
    }
    write_chunks(a, "/dev/drbd1", 0, 4)?;
    both(cluster, "drbdadm down r1")?;
    same_disk(cluster, 1)?;
    finish(cluster)
}

/// A disk that is declared bad gets everything from the other one, whoever says so and whoever is
/// Primary.
///
/// # Errors
/// The first thing that does not hold.
pub fn invalidate(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    write_chunks(a, DEVICE, 0, 8)?;
    let before = sum(a, DEVICE)?;
    for (bad, node, order) in [
        (b, b, "drbdadm invalidate r0"),
        (b, a, "drbdadm invalidate-remote r0"),
        (a, a, "drbdadm invalidate r0"),
        (a, b, "drbdadm invalidate-remote r0"),
    ] {
        rot(bad, 40)?;
        rot(bad, 3500)?;
        node.must(order)?;
        in_sync(cluster)?;
        same_disk(cluster, 0)?;
    }
    ensure(
        cluster,
        sum(a, DEVICE)? == before,
        "the data are what they were",
    )?;
    // Alone, nobody could give the data back; the peer's can be given up.
    a.must("drbdadm disconnect r0")?;
    disks(a, "UpToDate/DUnknown")?;
    ends_with(a, "drbdadm invalidate r0", 11)?;
    a.must("drbdadm invalidate-remote r0")?;
    let all = data_bytes(a.disk(0).size()) / 1024;
    equal("KiB out of sync", Status::of(a)?.oos, all)?;
    rot(b, 41)?;
    a.must("drbdadm connect r0")?;
    finish(cluster)
}
