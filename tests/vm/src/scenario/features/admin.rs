// SPDX-License-Identifier: GPL-2.0
//! Orders of an administrator that neither move data nor roles, and what they answer.

use std::time::Duration;

use super::{
    both, connection, disks, ended, ends_with, ensure, equal, finish, in_sync, primary_a, rot,
    still_waits, sum, write_chunks, writing, DEVICE, LONG,
};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::scenario::two;

/// Fresh disks that are declared equal are UpToDate at once, and nothing is copied: a difference
/// is still there, and a verify finds it.
///
/// # Errors
/// The first thing that does not hold.
pub fn skip_initial_sync(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    super::resource("verify-alg crc32c;").configure(cluster)?;
    rot(b, 50)?;
    drbd::create_and_up(cluster)?;
    ends_with(a, "drbdadm primary r0", 17)?;
    a.must("drbdadm new-current-uuid --clear-bitmap r0/0")?;
    in_sync(cluster)?;
    for node in [a, b] {
        let status = Status::of(node)?;
        equal("KiB moved", status.ns + status.nr, 0)?;
        equal("KiB out of sync", status.oos, 0)?;
    }
    let uuids = |n: &Node| drbd::generation(n).map(|g| drbd::uuids(&g));
    ensure(
        cluster,
        uuids(a)? == uuids(b)?,
        "both are of one generation",
    )?;
    ensure(
        cluster,
        b.disk(0).peek(50)?.iter().all(|x| *x == 0xff),
        "b keeps what it had",
    )?;
    // Once data have a history, it is too late for that.
    a.must("drbdadm primary r0")?;
    ends_with(a, "drbdadm new-current-uuid --clear-bitmap r0/0", 10)?;
    write_chunks(a, DEVICE, 16, 4)?;
    a.must("drbdadm disk-options --c-plan-ahead=0 --resync-rate=100M r0 && drbdadm verify r0")?;
    connection(a, "Connected")?;
    equal("KiB that a verify finds", Status::of(a)?.oos, 4)?;
    connection(b, "Connected")?;
    a.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    in_sync(cluster)?;
    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    write_chunks(a, DEVICE, 2, 1)?;
    b.must("drbdadm connect r0")?;
    finish(cluster)
}

/// While I/O is suspended it waits, and nothing is lost of it.
///
/// # Errors
/// The first thing that does not hold.
pub fn suspend_io(cluster: &Cluster) -> Result<()> {
    let [a, _] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    let before = sum(a, DEVICE)?;
    a.must("drbdadm suspend-io r0")?;
    drbd::wait_for(a, "a suspension", LONG, |s| s.flags.starts_with('s'))?;
    let mut write = a.spawn(&writing(DEVICE, 3, 2))?;
    let mut read = a.spawn(&format!("dd if={DEVICE} of=/dev/null count=8 iflag=direct"))?;
    still_waits(&mut write, "a write")?;
    still_waits(&mut read, "a read")?;
    a.must("drbdadm resume-io r0")?;
    let codes = [ended(a, write, "a write")?, ended(a, read, "a read")?];
    ensure(
        cluster,
        codes == [0, 0],
        &format!("they end with {codes:?}"),
    )?;
    drbd::wait_for(a, "no suspension", LONG, |s| s.flags.starts_with('r'))?;
    ensure(cluster, sum(a, DEVICE)? != before, "it was written")?;
    finish(cluster)
}

/// Without any data I/O waits until there are some again, or fails, as the policy says.
///
/// # Errors
/// The first thing that does not hold.
pub fn no_data_accessible(cluster: &Cluster) -> Result<()> {
    let [a, _] = two(cluster)?;
    let resource = Resource {
        options: "on-no-data-accessible suspend-io;".into(),
        ..super::resource("")
    };
    primary_a(cluster, &resource)?;
    write_chunks(a, DEVICE, 0, 4)?;
    a.must("drbdadm detach r0")?;
    disks(a, "Diskless/UpToDate")?;
    cluster.wire.cut(0, 1);
    connection(a, "WFConnection")?;
    drbd::wait_for(a, "a suspension", LONG, |s| s.flags.starts_with('s'))?;
    let mut write = a.spawn(&writing(DEVICE, 2, 1))?;
    still_waits(&mut write, "a write")?;
    cluster.wire.heal();
    let code = ended(a, write, "a write")?;
    ensure(cluster, code == 0, &format!("the write ends with {code}"))?;
    a.must("drbdadm attach r0")?;
    in_sync(cluster)?;

    both(
        cluster,
        "drbdadm resource-options --on-no-data-accessible=io-error r0",
    )?;
    a.must("drbdadm detach r0")?;
    disks(a, "Diskless/UpToDate")?;
    cluster.wire.cut(0, 1);
    connection(a, "WFConnection")?;
    ends_with(a, &format!("{} 2>&1", writing(DEVICE, 2, 1)), 1)?;
    cluster.wire.heal();
    connection(a, "Connected")?;
    write_chunks(a, DEVICE, 2, 1)?;
    a.must("drbdadm attach r0")?;
    finish(cluster)
}

/// What `drbdadm` answers to questions about a node.
fn answers(node: &Node, role: &str, cstate: &str, dstate: &str) -> Result<()> {
    for (question, answer) in [("role", role), ("cstate", cstate), ("dstate", dstate)] {
        let command = format!("drbdadm {question} r0");
        let mut said = String::new();
        let end = std::time::Instant::now() + node.patience(Duration::from_secs(20));
        while said != answer {
            if std::time::Instant::now() > end {
                let text = format!("{}: {question} is {said}, not {answer}", node.name());
                return Err(Error::new(text));
            }
            said = node.must(&command)?.trim().to_owned();
        }
    }
    Ok(())
}

/// A node that is outdated says so, does not become Primary, and forgets it when it has the new
/// data.
///
/// # Errors
/// The first thing that does not hold.
pub fn outdate(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    answers(a, "Primary/Secondary", "Connected", "UpToDate/UpToDate")?;
    answers(b, "Secondary/Primary", "Connected", "UpToDate/UpToDate")?;
    b.must("drbdadm disconnect r0")?;
    answers(a, "Primary/Unknown", "WFConnection", "UpToDate/DUnknown")?;
    ends_with(a, "drbdadm outdate r0", 17)?;
    b.must("drbdadm outdate r0")?;
    answers(b, "Secondary/Unknown", "StandAlone", "Outdated/DUnknown")?;
    ends_with(b, "drbdadm primary r0", 17)?;
    // The disk knows it, too.
    b.must(
        "drbdadm down r0 && drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0 && \
         drbdadm attach r0",
    )?;
    answers(b, "Secondary/Unknown", "StandAlone", "Outdated/DUnknown")?;
    ends_with(b, "drbdadm primary r0", 17)?;
    write_chunks(a, DEVICE, 0, 2)?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    answers(b, "Secondary/Primary", "Connected", "UpToDate/UpToDate")?;
    a.must("drbdadm secondary r0")?;
    b.must("drbdadm primary r0")?;
    answers(b, "Primary/Secondary", "Connected", "UpToDate/UpToDate")?;
    // Offline the tools do it, and the driver believes them.
    b.must("drbdadm secondary r0")?;
    both(cluster, "drbdadm down r0")?;
    b.must("drbdadm outdate r0")?;
    let said = b.must("drbdadm dstate r0")?;
    ensure(cluster, said.contains("Outdated"), &said)?;
    both(cluster, "drbdadm up r0")?;
    finish(cluster)
}
