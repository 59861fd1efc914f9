// SPDX-License-Identifier: GPL-2.0
//! Crashes and cuts in the middle of writes and resyncs, each a function of a seed.
//!
//! What has to hold every time: no acknowledged write is lost, only what the activity log and the
//! bitmap name is sent again, in the end both disks are equal byte by byte, and the driver can be
//! unloaded. The moment of the crash and what the disks lose come from the seed; the scheduling of
//! an emulated machine does not, so a seed repeats the kind of a failure rather than its bits.
//!
//! What a crash does, the next one may stumble over: a run is several rounds on the same nodes, and
//! what was acknowledged in the first has to be there in the last.

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

/// A pair, from round to round.
pub struct Run<'a> {
    pub(super) cluster: &'a Cluster,
    /// Primary at the beginning of each round.
    pub(super) a: &'a Node,
    pub(super) b: &'a Node,
    pub(super) rng: Rng,
    pub(super) resource: Resource,
    pub(super) ledger: Ledger,
}

impl Run<'_> {
    /// Writes without an end, of which nothing was acknowledged yet.
    pub(super) fn job(&mut self) -> Job {
        Job {
            first_seq: self.ledger.last_seq() + 1,
            ..Job::endless(DEVICE, BLOCKS, self.rng.next_u64())
        }
    }

    pub(super) fn write_some(&mut self, on_a: bool, count: u64) -> Result<()> {
        let node = if on_a { self.a } else { self.b };
        let seed = self.rng.next_u64();
        write_some(node, &mut self.ledger, seed, count)
    }
}

/// What a round does. It leaves both nodes in sync and returns who is primary.
pub type Round = for<'a> fn(&mut Run<'a>) -> Result<&'a Node>;

/// A pair in sync goes through `count` rounds; after each both hold all acknowledged writes, and
/// the disks are equal. In the end nothing keeps the driver.
///
/// # Errors
/// The first thing that does not hold, and in which round.
pub fn rounds(cluster: &Cluster, seed: u64, count: u64, round: Round) -> Result<()> {
    let [a, b] = two(cluster)?;
    let resource = quick();
    primary_a_in_sync(cluster, &resource)?;
    let mut run = Run {
        cluster,
        a,
        b,
        rng: Rng::new(seed),
        resource,
        ledger: Ledger::default(),
    };
    for n in 1..=count {
        let mut all = || {
            if n > 1 {
                a.must("drbdadm primary r0")?;
            }
            let primary = round(&mut run)?;
            let other = if std::ptr::eq(primary, a) { b } else { a };
            agreed(cluster, primary, other, &run.ledger)
        };
        all().map_err(|e| e.context(format!("round {n}")))?;
    }
    drbd::down_and_unload(cluster)?;
    same_data(cluster)
}

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

/// Both nodes come in sync, one after the other shows all acknowledged writes, and with nobody
/// primary the disks are equal.
pub(super) fn agreed(
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
    same_data(cluster)
}

/// The end of a scenario: as [`agreed`], and nothing keeps the driver.
pub(super) fn finish(
    cluster: &Cluster,
    primary: &Node,
    other: &Node,
    ledger: &Ledger,
) -> Result<()> {
    agreed(cluster, primary, other, ledger)?;
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
pub fn primary_lost<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    let (a, b) = (run.a, run.b);
    let writer = a.spawn_writer(&run.job())?;
    let_it_write(a, &mut run.rng);
    a.crash(run.rng.next_u64())?;
    collect(&mut run.ledger, writer)?;

    gone(b)?;
    b.must("drbdadm primary r0")?;
    check(b, &run.ledger)?;
    run.write_some(false, 20)?;
    let of_b = Status::of(b)?.oos;

    // Without the wire the returning node shows what its own log and bitmap say.
    run.cluster.wire.cut(0, 1);
    come_back(run.cluster, a, &run.resource)?;
    let of_a = Status::of(a)?.oos;
    if of_a == 0 {
        return Err(Error::new(
            "the activity log was not replayed: nothing is out of sync",
        ));
    }
    at_most("out of sync after the replay", of_a, 2 * EXTENT_KIB)?;
    run.cluster.wire.heal();
    in_sync(run.cluster)?;
    at_most("resynced", Status::of(a)?.nr, of_a + of_b)?;
    Ok(b)
}

/// The secondary loses power while the primary writes on, without and with the peer. Nothing the
/// peer had acknowledged but not made stable may stay different.
///
/// # Errors
/// The first thing that does not hold.
pub fn secondary_lost<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    let (a, b) = (run.a, run.b);
    // Without O_SYNC nobody asks for a flush: most of what b acknowledged is still volatile there.
    let job = Job {
        sync: false,
        count: 400,
        ..run.job()
    };
    let writer = a.spawn_writer(&job)?;
    let_it_write(a, &mut run.rng);
    b.crash(run.rng.next_u64())?;
    survived(a, writer, &mut run.ledger)?;
    gone(a)?;
    let expected = Status::of(a)?.oos;
    come_back(run.cluster, b, &run.resource)?;
    in_sync(run.cluster)?;
    at_most("resynced", Status::of(b)?.nr, expected + IN_FLIGHT_KIB)?;
    Ok(a)
}

/// The secondary loses power while its disk flushes, which takes long there. A C node has said by
/// then that the writes are stable: whoever believes it forgets writes that are lost with the power
/// (two C nodes do).
///
/// # Errors
/// The first thing that does not hold.
pub fn lost_in_flush<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    let flush = Duration::from_millis(200);
    run.b.disk(0).slow_flushes(flush);
    let round = secondary_lost(run);
    run.b.disk(0).slow_flushes(Duration::ZERO);
    round
}

/// Takes in a writer that has to end well though the peer was lost meanwhile.
fn survived(node: &Node, mut writer: Request, ledger: &mut Ledger) -> Result<()> {
    if writer.wait(node.patience(LONG)) != Progress::Ended || writer.output().code != 0 {
        let text = writer.output().error_text();
        return Err(Error::new(format!(
            "the writer did not survive the loss of the peer: {text}"
        )));
    }
    ledger.add_lines(&writer.output().text())
}

/// The wire is cut while the primary writes, in one direction or both as the seed says.
///
/// # Errors
/// The first thing that does not hold.
pub fn wire_cut<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    let (a, b) = (run.a, run.b);
    let job = Job {
        count: 300,
        ..run.job()
    };
    let writer = a.spawn_writer(&job)?;
    let_it_write(a, &mut run.rng);
    let cut = Rule {
        cut: true,
        ..Rule::default()
    };
    let wire = &run.cluster.wire;
    match run.rng.below(3) {
        0 => wire.set(0, 1, cut),
        1 => wire.set(1, 0, cut),
        _ => wire.set_both(0, 1, cut),
    }
    survived(a, writer, &mut run.ledger)?;
    gone(a)?;
    // The counters only start anew when an administrator attaches or connects.
    let before = gone(b)?.nr;
    let expected = Status::of(a)?.oos;
    at_most("out of sync after the cut", expected, 2 * EXTENT_KIB)?;
    wire.heal();
    in_sync(run.cluster)?;
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
    Ok(a)
}

/// The source of a running resync loses power.
///
/// # Errors
/// The first thing that does not hold.
pub fn source_lost<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    lost_in_resync(run, true)
}

/// The target of a running resync loses power.
///
/// # Errors
/// The first thing that does not hold.
pub fn target_lost<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    lost_in_resync(run, false)
}

fn lost_in_resync<'a>(run: &mut Run<'a>, lose_source: bool) -> Result<&'a Node> {
    let (a, b) = (run.a, run.b);
    run.write_some(true, 50)?;
    let slow = "drbdadm disk-options --c-plan-ahead=0 --resync-rate=8M r0";
    run.cluster.each(|n| n.must(slow).map(|_| ()))?;
    b.must("drbdadm invalidate r0")?;
    let total = drbd::wait_for(b, "a resync", LONG, |s| s.cs == "SyncTarget")?.oos;
    let goal = total / 10 * (3 + run.rng.below(5));
    let at = drbd::wait_for(b, "part of the resync", LONG, |s| s.oos <= goal)?;
    if at.cs != "SyncTarget" {
        return Err(Error::new(
            "the resync was over too soon: the test proves nothing",
        ));
    }
    let (lost, left) = if lose_source { (a, b) } else { (b, a) };
    lost.crash(run.rng.next_u64())?;
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
    come_back(run.cluster, lost, &run.resource)?;
    if lose_source {
        a.must("drbdadm primary r0")?;
    }
    in_sync(run.cluster)?;
    if !lose_source {
        // The target's bitmap is written out now and then, and not flushed: it may have forgotten
        // all its progress, but there is no more than the device.
        let all = super::data_bytes(b.disk(0).size()) / 1024;
        at_most("resynced", Status::of(b)?.nr, all)?;
    }
    Ok(a)
}
