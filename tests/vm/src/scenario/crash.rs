// SPDX-License-Identifier: GPL-2.0
//! Crashes and cuts in the middle of writes and resyncs, each a function of a seed.
//!
//! What has to hold every time: no acknowledged write is lost, only what the activity log and the
//! bitmap name is sent again, in the end both disks are equal byte by byte, and the driver can be
//! unloaded. The moment of the crash and what the disks lose come from the seed; the scheduling of
//! an emulated machine does not, so a seed repeats the kind of a failure rather than its bits.

use std::time::Duration;

use super::{primary_a_in_sync, same_data, two};
use crate::acked::{Job, Ledger};
use crate::client::{Progress, Request};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::rng::Rng;
use crate::switch::Rule;

pub(super) const LONG: Duration = Duration::from_secs(120);
pub(super) const DEVICE: &str = "/dev/drbd0";
/// KiB that one slot of the activity log covers.
pub(super) const EXTENT_KIB: u64 = 4096;
/// Blocks the writers use: two extents of the activity log, so that bounds mean something.
pub(super) const BLOCKS: u64 = 2 * EXTENT_KIB / 4;
/// KiB of writes on their way when a connection breaks, generously.
const IN_FLIGHT_KIB: u64 = 1024;

/// A resource that notices a dead peer within about three seconds.
pub(super) fn quick() -> Resource {
    Resource {
        net: "ping-int 2; ping-timeout 10; timeout 20; connect-int 3; ko-count 1;".into(),
        ..Resource::default()
    }
}

/// Lets the writer work for a while that the seed picks: 0.5 to 3 s.
pub(super) fn let_it_write(node: &Node, rng: &mut Rng) {
    std::thread::sleep(node.patience(Duration::from_millis(500 + rng.below(2500))));
}

/// Takes in what a writer that was cut off had acknowledged.
pub(super) fn collect(ledger: &mut Ledger, mut writer: Request) -> Result<()> {
    if writer.wait(Duration::from_secs(10)) != Progress::Lost {
        let o = writer.output();
        return Err(Error::new(format!(
            "the writer ended by itself: {}",
            o.error_text()
        )));
    }
    let before = ledger.last_seq();
    ledger.add_lines(&writer.output().text())?;
    if ledger.last_seq() <= before {
        return Err(Error::new(
            "nothing was acknowledged: the test proves nothing",
        ));
    }
    Ok(())
}

/// Writes a given number of blocks per writer to the end and takes in the acknowledgements.
pub(super) fn write_some(node: &Node, ledger: &mut Ledger, seed: u64, count: u64) -> Result<()> {
    let job = Job {
        count,
        first_seq: ledger.last_seq() + 1,
        ..Job::endless(DEVICE, BLOCKS, seed)
    };
    let mut writer = node.spawn_writer(&job)?;
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

pub(super) fn check(node: &Node, ledger: &Ledger) -> Result<()> {
    let job = Job::endless(DEVICE, BLOCKS, 0);
    ledger
        .check_lines(&node.read_back(&job)?)
        .map_err(|e| e.context(node.name()))
}

/// Boots a node that was lost and brings r0 up there, without a connection if the wire is cut.
fn come_back(cluster: &Cluster, node: &Node, resource: &Resource) -> Result<()> {
    node.start()?;
    let text = resource.config(&cluster.nodes);
    node.put("/etc/drbd.conf", 0o644, text.as_bytes())?;
    node.must("drbdadm up r0").map(|_| ())
}

pub(super) fn gone(node: &Node) -> Result<Status> {
    drbd::wait_for(node, "the loss of the peer", LONG, |s| {
        s.cs != "Connected" && s.ro.ends_with("/Unknown")
    })
}

pub(super) fn in_sync(cluster: &Cluster) -> Result<()> {
    cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))
}

/// The end of every scenario: `reader` holds all acknowledged writes, then the other one does
/// too, both disks are equal, and nothing keeps the driver.
pub(super) fn finish(
    cluster: &Cluster,
    primary: &Node,
    other: &Node,
    ledger: &Ledger,
) -> Result<()> {
    in_sync(cluster)?;
    check(primary, ledger)?;
    primary.must("drbdadm secondary r0")?;
    other.must("drbdadm primary r0")?;
    check(other, ledger)?;
    other.must("drbdadm secondary r0")?;
    drbd::down_and_unload(cluster)?;
    same_data(cluster)
}

pub(super) fn at_most(what: &str, kib: u64, bound: u64) -> Result<()> {
    if kib <= bound {
        return Ok(());
    }
    Err(Error::new(format!(
        "{what}: {kib} KiB, at most {bound} KiB were to be expected"
    )))
}

/// The primary loses power while it writes. The peer takes over and has every acknowledged write;
/// the lost node returns, replays its activity log and is sent only what log and bitmaps name.
///
/// # Errors
/// The first thing that does not hold.
pub fn primary_lost(cluster: &Cluster, seed: u64) -> Result<()> {
    let [a, b] = two(cluster)?;
    let mut rng = Rng::new(seed);
    let resource = quick();
    primary_a_in_sync(cluster, &resource)?;
    let mut ledger = Ledger::default();
    let writer = a.spawn_writer(&Job::endless(DEVICE, BLOCKS, rng.next_u64()))?;
    let_it_write(a, &mut rng);
    a.crash(rng.next_u64())?;
    collect(&mut ledger, writer)?;

    gone(b)?;
    b.must("drbdadm primary r0")?;
    check(b, &ledger)?;
    write_some(b, &mut ledger, rng.next_u64(), 20)?;
    let of_b = Status::of(b)?.oos;

    // Without the wire the returning node shows what its own log and bitmap say.
    cluster.wire.cut(0, 1);
    come_back(cluster, a, &resource)?;
    let of_a = Status::of(a)?.oos;
    if of_a == 0 {
        return Err(Error::new(
            "the activity log was not replayed: nothing is out of sync",
        ));
    }
    at_most("out of sync after the replay", of_a, 2 * EXTENT_KIB)?;
    cluster.wire.heal();
    in_sync(cluster)?;
    at_most("resynced", Status::of(a)?.nr, of_a + of_b)?;
    finish(cluster, b, a, &ledger)
}

/// The secondary loses power while the primary writes on, without and with the peer. Nothing the
/// peer had acknowledged but not made stable may stay different.
///
/// # Errors
/// The first thing that does not hold.
pub fn secondary_lost(cluster: &Cluster, seed: u64) -> Result<()> {
    let [a, b] = two(cluster)?;
    let mut rng = Rng::new(seed);
    let resource = quick();
    primary_a_in_sync(cluster, &resource)?;
    let mut ledger = Ledger::default();
    // Without O_SYNC nobody asks for a flush: most of what b acknowledged is still volatile there.
    let job = Job {
        sync: false,
        count: 400,
        ..Job::endless(DEVICE, BLOCKS, rng.next_u64())
    };
    let mut writer = a.spawn_writer(&job)?;
    let_it_write(a, &mut rng);
    b.crash(rng.next_u64())?;
    if writer.wait(a.patience(LONG)) != Progress::Ended || writer.output().code != 0 {
        let text = writer.output().error_text();
        return Err(Error::new(format!(
            "the writer did not survive the loss of b: {text}"
        )));
    }
    ledger.add_lines(&writer.output().text())?;
    gone(a)?;
    let expected = Status::of(a)?.oos;
    come_back(cluster, b, &resource)?;
    in_sync(cluster)?;
    at_most("resynced", Status::of(b)?.nr, expected + IN_FLIGHT_KIB)?;
    finish(cluster, a, b, &ledger)
}

/// The wire is cut while the primary writes, in one direction or both as the seed says.
///
/// # Errors
/// The first thing that does not hold.
pub fn wire_cut(cluster: &Cluster, seed: u64) -> Result<()> {
    let [a, b] = two(cluster)?;
    let mut rng = Rng::new(seed);
    primary_a_in_sync(cluster, &quick())?;
    let mut ledger = Ledger::default();
    let job = Job {
        count: 300,
        ..Job::endless(DEVICE, BLOCKS, rng.next_u64())
    };
    let mut writer = a.spawn_writer(&job)?;
    let_it_write(a, &mut rng);
    let cut = Rule {
        cut: true,
        ..Rule::default()
    };
    match rng.below(3) {
        0 => cluster.wire.set(0, 1, cut),
        1 => cluster.wire.set(1, 0, cut),
        _ => cluster.wire.set_both(0, 1, cut),
    }
    if writer.wait(a.patience(LONG)) != Progress::Ended || writer.output().code != 0 {
        let text = writer.output().error_text();
        return Err(Error::new(format!(
            "the writer did not survive the cut: {text}"
        )));
    }
    ledger.add_lines(&writer.output().text())?;
    gone(a)?;
    // The counters only start anew when an administrator attaches or connects.
    let before = gone(b)?.nr;
    let expected = Status::of(a)?.oos;
    at_most("out of sync after the cut", expected, 2 * EXTENT_KIB)?;
    cluster.wire.heal();
    in_sync(cluster)?;
    let of_b = Status::of(b)?;
    if of_b.oos != 0 {
        return Err(Error::new(format!(
            "b is in sync with something out of sync: {of_b:?}"
        )));
    }
    at_most(
        "resynced",
        of_b.nr.saturating_sub(before),
        expected + IN_FLIGHT_KIB,
    )?;
    finish(cluster, a, b, &ledger)
}

/// One side of a running resync loses power: the source (`lose_source`) or the target.
///
/// # Errors
/// The first thing that does not hold.
pub fn lost_in_resync(cluster: &Cluster, seed: u64, lose_source: bool) -> Result<()> {
    let [a, b] = two(cluster)?;
    let mut rng = Rng::new(seed);
    let resource = quick();
    primary_a_in_sync(cluster, &resource)?;
    let mut ledger = Ledger::default();
    write_some(a, &mut ledger, rng.next_u64(), 50)?;
    let slow = "drbdadm disk-options --c-plan-ahead=0 --resync-rate=8M r0";
    cluster.each(|n| n.must(slow).map(|_| ()))?;
    b.must("drbdadm invalidate r0")?;
    let total = drbd::wait_for(b, "a resync", LONG, |s| s.cs == "SyncTarget")?.oos;
    let goal = total / 10 * (3 + rng.below(5));
    let at = drbd::wait_for(b, "part of the resync", LONG, |s| s.oos <= goal)?;
    if at.cs != "SyncTarget" {
        return Err(Error::new(
            "the resync was over too soon: the test proves nothing",
        ));
    }
    let (lost, left) = if lose_source { (a, b) } else { (b, a) };
    lost.crash(rng.next_u64())?;
    gone(left)?;
    if lose_source && b.run("drbdadm primary r0")?.code == 0 {
        return Err(Error::new("b became primary on half a copy"));
    }
    let expected = Status::of(left)?.oos;
    if expected == 0 || expected >= total {
        return Err(Error::new(format!(
            "{expected} of {total} KiB out of sync in the middle"
        )));
    }
    come_back(cluster, lost, &resource)?;
    if lose_source {
        a.must("drbdadm primary r0")?;
    }
    in_sync(cluster)?;
    if !lose_source {
        // The target's bitmap is written out now and then, and not flushed: it may have forgotten
        // all its progress, but there is no more than the device.
        let all = super::data_bytes(b.disk(0).size()) / 1024;
        at_most("resynced", Status::of(b)?.nr, all)?;
    }
    finish(cluster, a, b, &ledger)
}
