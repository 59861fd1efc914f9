// SPDX-License-Identifier: GPL-2.0
//! Taking things down at bad moments: it succeeds, within a bounded time, and leaves nothing.
//!
//! Every scenario ends in `round`: the driver is unloaded on both nodes, nothing of it is left,
//! it is loaded anew, and the resource comes up and into sync from what is on the disks. The state
//! of the data is compared at the very end, byte by byte.

use std::time::{Duration, Instant};

use super::{primary_a_in_sync, same_data, two};
use crate::acked::{Job, Ledger};
use crate::client::Progress;
use crate::cluster::Cluster;
use crate::disk::Failures;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::switch::Rule;

const LONG: Duration = Duration::from_secs(120);
/// How long a command that ends something may take where nothing is out of order.
const PROMPT: Duration = Duration::from_secs(10);
/// The same where a peer that does not answer has to be found out first: ping-int plus
/// ping-timeout of [`quick`], and once more for the answer that was awaited.
const SILENT_PEER: Duration = Duration::from_secs(15);
const DEVICE: &str = "/dev/drbd0";
const BLOCKS: u64 = 1024;
const BROKEN: Failures = Failures {
    reads: true,
    writes: true,
};
const CUT: Rule = Rule {
    cut: true,
    delay: Duration::ZERO,
    loss_permille: 0,
};

/// A resource that notices a dead peer within about three seconds.
fn quick() -> Resource {
    Resource {
        net: "ping-int 2; ping-timeout 10; timeout 20; connect-int 3; ko-count 1;".into(),
        disk: "on-io-error detach;".into(),
        ..Resource::default()
    }
}

/// Runs a command that has to succeed within `limit` (more on a checked kernel).
fn timed(node: &Node, command: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    node.must_for(command, limit)?;
    let took = start.elapsed();
    println!("{}: {took:.1?}: {command}", node.name());
    Ok(())
}

fn down(node: &Node, limit: Duration) -> Result<()> {
    timed(node, "drbdadm down r0", limit)?;
    // The name of a thread is all that shows it.
    node.must("! grep -E '^drbd_' /proc/[0-9]*/comm")?;
    node.must("test -z \"$(grep -E '^ *[0-9]+: ' /proc/drbd)\"")?;
    node.must("test ! -e /sys/block/drbd0 && test ! -e /sys/block/vdc/holders/drbd0")
        .map(|_| ())
}

fn reload(node: &Node) -> Result<()> {
    timed(
        node,
        "rmmod $(lsmod | grep -o -w -e '^drbd' -e '^drbd_rs')",
        PROMPT,
    )?;
    node.must("! grep -w -e '^drbd' -e '^drbd_rs' /proc/modules && test ! -e /proc/drbd")?;
    node.load_driver()
}

/// Both nodes are down: unload, load, up, in sync, down again; the disks are equal.
fn round(cluster: &Cluster) -> Result<()> {
    cluster.each(reload)?;
    cluster.each(|n| n.must("drbdadm up r0").map(|_| ()))?;
    cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))?;
    cluster.each(|n| down(n, PROMPT))?;
    cluster.each(reload)?;
    same_data(cluster)
}

fn refused(node: &Node, command: &str) -> Result<()> {
    let start = Instant::now();
    if node.run(command)?.code == 0 {
        return Err(Error::new(format!(
            "{}: not refused: {command}",
            node.name()
        )));
    }
    println!(
        "{}: {:.1?}: refused: {command}",
        node.name(),
        start.elapsed()
    );
    Ok(())
}

fn in_sync(cluster: &Cluster) -> Result<()> {
    cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))
}

/// Waits for a writer that has to end by itself without an error.
fn ended(node: &Node, mut writer: crate::client::Request, ledger: &mut Ledger) -> Result<()> {
    let progress = writer.wait(node.patience(LONG));
    let o = writer.output();
    if progress != Progress::Ended || o.code != 0 {
        return Err(Error::new(format!(
            "{}: writer: {progress:?} {}",
            node.name(),
            o.error_text()
        )));
    }
    ledger.add_lines(&o.text())
}

fn some_writes(count: u64, first_seq: u64) -> Job {
    Job {
        count,
        first_seq,
        ..Job::endless(DEVICE, BLOCKS, 7)
    }
}

fn check(node: &Node, ledger: &Ledger) -> Result<()> {
    let lines = node.read_back(&Job::endless(DEVICE, BLOCKS, 7))?;
    ledger
        .check_lines(&lines)
        .map_err(|e| e.context(node.name()))
}

/// A node that waits for its peer, as Secondary and as Primary.
///
/// # Errors
/// The first thing that does not hold.
pub fn without_peer(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    a.must("drbdadm secondary r0")?;
    down(b, PROMPT)?;
    drbd::wait_for(a, "the loss of b", LONG, |s| s.cs == "WFConnection")?;
    down(a, PROMPT)?;
    reload(a)?;
    a.must("drbdadm up r0")?;
    a.must("drbdadm primary --force r0")?;
    down(a, PROMPT)?;
    a.must("drbdadm up r0")?;
    timed(a, "drbdadm disconnect r0", PROMPT)?;
    timed(a, "drbdadm detach r0", PROMPT)?;
    down(a, PROMPT)?;
    round(cluster)
}

/// A mounted device keeps everything up; once it is not mounted, a connected Primary goes.
///
/// # Errors
/// The first thing that does not hold.
pub fn in_use(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    a.must_for("mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 /mnt", LONG)?;
    refused(a, "drbdadm down r0")?;
    refused(a, "drbdadm secondary r0")?;
    refused(a, "rmmod drbd_rs || rmmod drbd")?;
    a.must("echo 1 > /mnt/1 && sync")?;
    // What `down` had undone before it was refused, `adjust` brings back.
    a.must("umount /mnt")?;
    a.must("drbdadm adjust r0")?;
    b.must("drbdadm adjust r0")?;
    in_sync(cluster)?;
    a.must("mount /dev/drbd0 /mnt && test \"$(cat /mnt/1)\" = 1")?;
    // The disk below a mounted device may go while the peer has a good one.
    timed(a, "drbdadm detach r0", PROMPT)?;
    a.must("echo 2 > /mnt/2 && sync && echo 3 > /proc/sys/vm/drop_caches && cat /mnt/1")?;
    a.must("drbdadm attach r0")?;
    in_sync(cluster)?;
    a.must("umount /mnt")?;
    down(a, PROMPT)?;
    drbd::wait_for(b, "the loss of a", LONG, |s| s.cs == "WFConnection")?;
    down(b, PROMPT)?;
    round(cluster)
}

/// Both sides of a resync, and the disk below each of them.
///
/// # Errors
/// The first thing that does not hold.
pub fn in_resync(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let slowly = |total: bool| -> Result<u64> {
        let slow = "drbdadm disk-options --c-plan-ahead=0 --resync-rate=1M r0";
        cluster.each(|n| n.must(slow).map(|_| ()))?;
        if total {
            b.must("drbdadm invalidate r0")?;
        }
        let at = drbd::wait_for(b, "a resync", LONG, |s| s.cs == "SyncTarget")?.oos;
        drbd::wait_for(b, "progress", LONG, |s| s.oos < at)?;
        drbd::wait_for(a, "a resync", LONG, |s| s.cs == "SyncSource").map(|_| at)
    };
    let total = slowly(true)?;
    down(b, PROMPT)?;
    b.must("drbdadm up r0")?;
    let left = slowly(false)?;
    if left > total {
        return Err(Error::new(format!("{left} of {total} KiB after a restart")));
    }
    down(a, PROMPT)?;
    drbd::wait_for(b, "the loss of a", LONG, |s| s.cs == "WFConnection")?;
    a.must("drbdadm up r0")?;
    slowly(false)?;
    timed(b, "drbdadm detach r0", PROMPT)?;
    b.must("drbdadm attach r0")?;
    slowly(false)?;
    timed(b, "drbdadm disconnect r0", PROMPT)?;
    b.must("drbdadm connect r0")?;
    slowly(false)?;
    // The only good copy: it must not go while the peer needs it, but `down` takes it in order.
    cluster.each(|n| down(n, SILENT_PEER))?;
    round(cluster)
}

/// The peer does not answer any more.
///
/// # Errors
/// The first thing that does not hold.
pub fn frozen_peer(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let mut ledger = Ledger::default();
    let writer = a.spawn_writer(&some_writes(300, 1))?;
    std::thread::sleep(a.patience(Duration::from_millis(500)));
    b.freeze(true)?;
    ended(a, writer, &mut ledger)?;
    check(a, &ledger)?;
    b.freeze(false)?;
    in_sync(cluster)?;
    b.freeze(true)?;
    // Nothing was found out yet when the command comes.
    timed(a, "drbdadm disconnect r0", SILENT_PEER)?;
    b.freeze(false)?;
    a.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    b.freeze(true)?;
    down(a, SILENT_PEER)?;
    b.freeze(false)?;
    drbd::wait_for(b, "the loss of a", LONG, |s| s.cs == "WFConnection")?;
    down(b, PROMPT)?;
    round(cluster)
}

/// The wire is cut in the middle of writes: they end well, and so does everything after.
///
/// # Errors
/// The first thing that does not hold.
pub fn cut_wire(cluster: &Cluster) -> Result<()> {
    let [a, _] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let mut ledger = Ledger::default();
    let writer = a.spawn_writer(&some_writes(300, 1))?;
    std::thread::sleep(a.patience(Duration::from_millis(500)));
    cluster.wire.set_both(0, 1, CUT);
    refused(a, "drbdadm down r0")?;
    ended(a, writer, &mut ledger)?;
    check(a, &ledger)?;
    cluster.each(|n| down(n, SILENT_PEER))?;
    cluster.wire.heal();
    round(cluster)
}

/// The disk refuses everything, below a Primary and below a Secondary.
///
/// # Errors
/// The first thing that does not hold.
pub fn failing_disk(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let mut ledger = Ledger::default();
    let writer = a.spawn_writer(&some_writes(200, 1))?;
    std::thread::sleep(a.patience(Duration::from_millis(300)));
    a.disk(0).fail(BROKEN);
    ended(a, writer, &mut ledger)?;
    drbd::wait_for(a, "the loss of the disk", LONG, |s| {
        s.ds.starts_with("Diskless")
    })?;
    check(a, &ledger)?;
    a.disk(0).fail(Failures::default());
    a.must("drbdadm attach r0")?;
    in_sync(cluster)?;
    // Nobody noticed yet when it is to go.
    a.disk(0).fail(BROKEN);
    down(a, PROMPT)?;
    a.disk(0).fail(Failures::default());
    b.disk(0).fail(BROKEN);
    let _ = b.run("drbdadm detach r0")?;
    down(b, PROMPT)?;
    b.disk(0).fail(Failures::default());
    cluster.each(reload)?;
    cluster.each(|n| n.must("drbdadm up r0").map(|_| ()))?;
    in_sync(cluster)?;
    a.must("drbdadm primary r0")?;
    check(a, &ledger)?;
    cluster.each(|n| down(n, PROMPT))?;
    round(cluster)
}

/// The disk is slow, and writes are on their way when things are to go.
///
/// # Errors
/// The first thing that does not hold.
pub fn slow_disk(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let mut ledger = Ledger::default();
    for node in [a, b] {
        let writer = a.spawn_writer(&some_writes(10, ledger.last_seq() + 1))?;
        node.disk(0).slow_down(Duration::from_millis(300));
        refused(a, "drbdadm down r0")?;
        ended(a, writer, &mut ledger)?;
        timed(node, "drbdadm detach r0", PROMPT)?;
        node.must("drbdadm adjust r0")?;
        in_sync(cluster)?;
        down(node, SILENT_PEER)?;
        node.disk(0).slow_down(Duration::ZERO);
        node.must("drbdadm up r0")?;
        in_sync(cluster)?;
        a.must("drbdadm primary r0")?;
    }
    check(a, &ledger)?;
    let status = Status::of(b)?;
    if status.oos != 0 {
        return Err(Error::new(format!("b: {status:?}")));
    }
    cluster.each(|n| down(n, PROMPT))?;
    round(cluster)
}

/// A driver with a resource cannot be unloaded, in use or not.
///
/// # Errors
/// The first thing that does not hold.
pub fn unload_configured(cluster: &Cluster) -> Result<()> {
    let [a, _] = two(cluster)?;
    primary_a_in_sync(cluster, &quick())?;
    let unload = "rmmod $(lsmod | grep -o -w -e '^drbd' -e '^drbd_rs')";
    cluster.each(|n| refused(n, unload))?;
    a.must("drbdadm secondary r0")?;
    cluster.each(|n| refused(n, unload))?;
    in_sync(cluster)?;
    cluster.each(|n| down(n, PROMPT))?;
    round(cluster)
}
