// SPDX-License-Identifier: GPL-2.0
//! Two nodes that are Primary, at one time with a connection, or one after the other without.

use std::time::Duration;

use super::{
    both, connection, disks, ends_with, ensure, finish, in_sync, primary_a, same_disk, sum,
    write_chunks, DEVICE, LONG,
};
use crate::acked::{Job, Ledger};
use crate::client::Progress;
use crate::cluster::Cluster;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::scenario::two;

const ALLOW: &str = "drbdadm net-options --allow-two-primaries=yes r0";

/// Both nodes run their jobs to the end, at the same time; what they were told is done.
fn write_both(cluster: &Cluster, jobs: [&Job; 2]) -> Result<[Ledger; 2]> {
    let [a, b] = two(cluster)?;
    let mut writers = [a.spawn_writer(jobs[0])?, b.spawn_writer(jobs[1])?];
    let mut ledgers = [Ledger::default(), Ledger::default()];
    for (writer, ledger) in writers.iter_mut().zip(&mut ledgers) {
        let progress = writer.wait(a.patience(LONG));
        let out = writer.output();
        if progress != Progress::Ended || out.code != 0 {
            let said = out.error_text();
            return Err(Error::new(format!("a writer: {progress:?} {said}")));
        }
        ledger.add_lines(&out.text())?;
    }
    Ok(ledgers)
}

/// Both nodes write, each reads what the other one wrote, and each may go.
///
/// # Errors
/// The first thing that does not hold.
pub fn two_primaries(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    ends_with(b, "drbdadm primary r0", 11)?;
    // As long as one does not permit it, it is not permitted.
    both(cluster, ALLOW)?;
    b.must("drbdadm primary r0")?;
    for node in [a, b] {
        drbd::wait_for(node, "two Primaries", LONG, |s| s.ro == "Primary/Primary")?;
    }
    let job = |start, seed| Job {
        start,
        count: 40,
        ..Job::endless(DEVICE, 256, seed)
    };
    let (of_a, of_b) = (job(0, 1), job(1024, 2));
    let ledgers = write_both(cluster, [&of_a, &of_b])?;
    for node in [a, b] {
        for (job, ledger) in [&of_a, &of_b].into_iter().zip(&ledgers) {
            let lines = node.read_back(job)?;
            ledger
                .check_lines(&lines)
                .map_err(|e| e.context(node.name()))?;
        }
    }
    for node in [a, b] {
        let status = Status::of(node)?;
        let right = status.cs == "Connected" && status.oos == 0;
        ensure(cluster, right, "connected and nothing out of sync")?;
    }
    // Two of them, and one is enough to keep the other.
    a.must("drbdadm secondary r0")?;
    write_chunks(b, DEVICE, 4, 4)?;
    ensure(
        cluster,
        Status::of(b)?.ro == "Primary/Secondary",
        "b is the Primary now",
    )?;
    a.must("drbdadm primary r0")?;
    ensure(
        cluster,
        sum(a, DEVICE)? == sum(b, DEVICE)?,
        "both read the same",
    )?;
    finish(cluster)
}

/// Both nodes write to the same few blocks: either write may win, but the same one on both.
///
/// # Errors
/// The first thing that does not hold.
pub fn conflicts(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    both(cluster, ALLOW)?;
    b.must("drbdadm primary r0")?;
    let job = |seed, first_seq| Job {
        count: 30,
        sync: false,
        first_seq,
        ..Job::endless(DEVICE, 16, seed)
    };
    let jobs = [job(1, 1), job(2, 1000)];
    write_both(cluster, [&jobs[0], &jobs[1]])?;
    for node in [a, b] {
        drbd::wait_for(node, "rest", LONG, |s| s.pe == 0)?;
        let right = Status::of(node)?.cs == "Connected";
        ensure(cluster, right, "it is still connected")?;
        // None is torn.
        Ledger::default().check_lines(&node.read_back(&jobs[0])?)?;
    }
    ensure(
        cluster,
        sum(a, DEVICE)? == sum(b, DEVICE)?,
        "both read the same",
    )?;
    finish(cluster)
}

/// Both nodes go on alone for a while, each as Primary; `a` remains one if `stays`. `chunks` is
/// what each writes; a sum over what it then has is kept in /run/content. In the end they wait for
/// each other again, with these options for `connect`.
fn go_apart(cluster: &Cluster, options: &str, chunks: [u64; 2], stays: bool) -> Result<()> {
    let [a, b] = two(cluster)?;
    a.must("drbdadm disconnect r0")?;
    b.must("drbdadm disconnect r0")?;
    for (node, count) in [(b, chunks[1]), (a, chunks[0])] {
        node.must("drbdadm primary r0")?;
        if count > 0 {
            write_chunks(node, DEVICE, 2, count)?;
        }
        node.put("/run/content", 0o644, sum(node, DEVICE)?.as_bytes())?;
        if !(stays && std::ptr::eq(node, a)) {
            node.must("drbdadm secondary r0")?;
        }
    }
    both(cluster, &format!("drbdadm connect {options} r0"))
}

/// What a node's own disk reads as, whatever its role is.
fn content(node: &Node) -> Result<String> {
    let primary = Status::of(node)?.ro.starts_with("Primary");
    if primary {
        return sum(node, DEVICE);
    }
    node.must("drbdadm primary r0")?;
    let sum = sum(node, DEVICE)?;
    node.must("drbdadm secondary r0")?;
    Ok(sum)
}

/// Two nodes that were Primary at a time do not connect, until one is told to give its data up.
///
/// # Errors
/// The first thing that does not hold.
pub fn split_brain(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let resource = Resource {
        handlers: "split-brain \"date >> /run/split-brain\";".into(),
        ..super::resource("")
    };
    primary_a(cluster, &resource)?;
    write_chunks(a, DEVICE, 0, 4)?;
    go_apart(cluster, "", [4, 3], true)?;
    let before = sum(a, DEVICE)?;
    // Who finds out first leaves; the other one may go on waiting.
    for node in [a, b] {
        drbd::wait_for(node, "a refusal", LONG, |s| {
            s.cs == "StandAlone" || s.cs == "WFConnection"
        })?;
    }
    a.wait_until("test -e /run/split-brain", LONG)?;
    b.wait_until("test -e /run/split-brain", LONG)?;
    std::thread::sleep(a.patience(Duration::from_secs(2)));
    for node in [a, b] {
        disks(node, "UpToDate/DUnknown")?;
        node.must("drbdadm disconnect r0 || true")?;
        connection(node, "StandAlone")?;
    }
    ensure(
        cluster,
        sum(a, DEVICE)? == before,
        "nobody's data were touched",
    )?;
    b.must("drbdadm connect --discard-my-data r0")?;
    a.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    ensure(cluster, sum(a, DEVICE)? == before, "the data of a survive")?;
    same_disk(cluster, 0)?;
    // It was said for that one time.
    write_chunks(a, DEVICE, 0, 1)?;
    let before = sum(a, DEVICE)?;
    b.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    in_sync(cluster)?;
    ensure(
        cluster,
        sum(a, DEVICE)? == before,
        "the data of a survive again",
    )?;
    finish(cluster)
}

/// The policies decide who gives up: who wrote less, who wrote nothing, who is not Primary.
///
/// # Errors
/// The first thing that does not hold.
pub fn policies(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    a.must("drbdadm secondary r0")?;
    for (options, chunks, stays, winner) in [
        ("--after-sb-0pri=discard-least-changes", [1, 8], false, b),
        ("--after-sb-0pri=discard-zero-changes", [3, 0], false, a),
        ("--after-sb-1pri=discard-secondary", [1, 5], true, a),
    ] {
        go_apart(cluster, options, chunks, stays)?;
        in_sync(cluster)?;
        same_disk(cluster, 0)?;
        let wanted = winner.must("cat /run/content")?;
        let right = content(a)? == wanted;
        ensure(
            cluster,
            right,
            &format!("{options}: {} wins", winner.name()),
        )?;
    }
    finish(cluster)
}
