// SPDX-License-Identifier: GPL-2.0
//! The fence-peer handler decides, and does not stand in its own way.
//!
//! A real handler asks the tools about the resource and changes others while the request or the
//! thread that called it waits: nothing that it needs may be locked then.

use std::time::Duration;

use super::{crash, primary_a_in_sync, two};
use crate::acked::{Job, Ledger};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::node::Node;

const LONG: Duration = Duration::from_secs(120);
const HANDLER: &str = "/run/fence-peer";

/// The handler: what it could not do within its time ends it with 1, which permits nothing.
fn script(exit: u32) -> String {
    format!(
        "#!/bin/sh\n\
         exec >> /run/fence.log 2>&1\n\
         echo \"called for $DRBD_RESOURCE minor $DRBD_MINOR peer $DRBD_PEER_ADDRESS\"\n\
         sleep 1\n\
         t='timeout 20'\n\
         $t drbdsetup status r0 && $t drbdsetup new-resource other && \\\n\
         $t drbdsetup del-resource other && cat /proc/drbd || exit 1\n\
         echo 'all was answered'\n\
         exit {exit}\n"
    )
}

fn resource() -> Resource {
    let quick = crash::quick();
    Resource {
        disk: format!("fencing resource-only; {}", quick.disk),
        handlers: format!("fence-peer {HANDLER};"),
        ..quick
    }
}

/// The handler ran since it was last looked at, could do all it wanted, and leaves no resource.
fn it_ran(node: &Node) -> Result<()> {
    let log = node.must("cat /run/fence.log && rm /run/fence.log")?;
    if !log.contains("called for r0") || !log.contains("all was answered") {
        return Err(Error::new(format!("{}: the handler: {log}", node.name())));
    }
    node.must("! drbdsetup show | grep -w other").map(|_| ())
}

/// The Primary loses the wire, has its peer fenced and goes on. Another time it loses its power:
/// then the peer may only take over if its own handler permits it.
///
/// # Errors
/// The first thing that does not hold.
pub fn peer_is_fenced(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    // 4: the peer is outdated now. 7: the peer has no power any more.
    a.put(HANDLER, 0o755, script(4).as_bytes())?;
    b.put(HANDLER, 0o755, script(1).as_bytes())?;
    primary_a_in_sync(cluster, &resource())?;
    let mut ledger = Ledger::default();
    crash::write_some(a, &mut ledger, 1, 20)?;
    cluster.wire.cut(0, 1);
    drbd::wait_for(a, "the peer to be outdated", LONG, |s| {
        s.ds == "UpToDate/Outdated"
    })?;
    it_ran(a)?;
    crash::write_some(a, &mut ledger, 2, 20)?;
    cluster.wire.heal();
    crash::in_sync(cluster)?;

    a.crash(1)?;
    crash::gone(b)?;
    if b.run("drbdadm primary r0")?.code == 0 {
        return Err(Error::new("b took over though its handler forbade it"));
    }
    it_ran(b)?;
    b.put(HANDLER, 0o755, script(7).as_bytes())?;
    b.must_for("drbdadm primary r0", LONG)?;
    it_ran(b)?;
    crash::check(b, &ledger)?;
    crash::write_some(b, &mut ledger, 3, 20)?;

    a.start()?;
    a.put(HANDLER, 0o755, script(1).as_bytes())?;
    let text = resource().config(&cluster.nodes);
    a.put("/etc/drbd.conf", 0o644, text.as_bytes())?;
    a.must("drbdadm up r0")?;
    crash::finish(cluster, b, a, &ledger)
}

/// A request of `a` that waits for long holds up nobody who wants something else.
///
/// # Errors
/// The first thing that does not hold.
pub fn nobody_waits_for_others(cluster: &Cluster) -> Result<()> {
    let [a, _] = two(cluster)?;
    primary_a_in_sync(cluster, &resource())?;
    let mut ledger = Ledger::default();
    let job = Job {
        count: 10,
        ..Job::endless("/dev/drbd0", 1024, 3)
    };
    let mut writer = a.spawn_writer(&job)?;
    // All is answered while the detach still runs; else it proves nothing.
    a.disk(0).slow_down(Duration::from_millis(700));
    let out = a.must_for(
        "drbdadm detach r0 & p=$!; sleep 1; \
         timeout 3 drbdsetup new-resource other && timeout 3 drbdsetup del-resource other && \
         timeout 3 drbdsetup status r0 > /dev/null && \
         grep '^State:.[^Z]' /proc/$p/status && wait $p",
        LONG,
    );
    a.disk(0).slow_down(Duration::ZERO);
    out?;
    let _ = writer.wait(a.patience(LONG));
    ledger.add_lines(&writer.output().text())?;
    a.must("drbdadm attach r0")?;
    crash::finish(cluster, a, &cluster.nodes[1], &ledger)
}
