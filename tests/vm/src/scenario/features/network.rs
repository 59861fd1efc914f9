// SPDX-License-Identifier: GPL-2.0
//! What is agreed for a connection: digests of all data, when a write is done, what to do when the
//! wire is too slow, and addresses.

use std::time::{Duration, Instant};

use super::{
    both, connection, declared_equal, ensure, finish, in_sync, primary_a, same_disk, sum,
    time_blocks, write_chunks, DEVICE, LONG, NET,
};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource, Status};
use crate::error::Result;
use crate::scenario::two;
use crate::switch::Rule;

fn late(milliseconds: u64) -> Rule {
    Rule {
        delay: Duration::from_millis(milliseconds),
        ..Rule::default()
    }
}

/// Writes and resyncs with digests, another digest while connected, and two nodes that want
/// different ones.
///
/// # Errors
/// The first thing that does not hold.
pub fn integrity(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource("data-integrity-alg md5;"))?;
    write_chunks(a, DEVICE, 0, 8)?;
    let other = "drbdadm net-options --data-integrity-alg=crc32c r0";
    a.must(other)?;
    write_chunks(a, DEVICE, 8, 8)?;
    b.must(other)?;
    write_chunks(a, DEVICE, 16, 8)?;
    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    write_chunks(a, DEVICE, 24, 8)?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    // From the other side, past its own disk: reads are answered with digests, too.
    a.must("drbdadm detach r0")?;
    let of_b = sum(a, DEVICE)?;
    write_chunks(a, DEVICE, 32, 4)?;
    a.must("drbdadm attach r0")?;
    in_sync(cluster)?;
    ensure(
        cluster,
        sum(a, DEVICE)? != of_b,
        "four chunks were written meanwhile",
    )?;
    same_disk(cluster, 0)?;

    // One of them notices first, and the other one may go on waiting.
    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    b.must("drbdadm connect --data-integrity-alg=md5 r0")?;
    let end = Instant::now() + a.patience(LONG);
    while Status::of(a)?.cs != "StandAlone" && Status::of(b)?.cs != "StandAlone" {
        ensure(cluster, Instant::now() < end, "two digests are refused")?;
        ensure(
            cluster,
            Status::of(a)?.cs != "Connected",
            "two digests are no connection",
        )?;
    }
    for node in [a, b] {
        node.must("drbdadm disconnect r0 || true")?;
        connection(node, "StandAlone")?;
    }
    both(cluster, "drbdadm connect r0")?;
    finish(cluster)
}

/// A write is done with A when it is on its way, with B when the peer has it, with C when the
/// peer's disk has it. The letter is changed while the nodes are connected.
///
/// # Errors
/// The first thing that does not hold.
pub fn protocols(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let resource = Resource {
        net: "ping-timeout 100; timeout 150; ping-int 20; connect-int 20;".into(),
        protocol: "A".into(),
        ..Resource::default()
    };
    primary_a(cluster, &resource)?;
    let letter = |wanted: &str| {
        cluster.each(|n| drbd::wait_for(n, wanted, LONG, |s| s.protocol == wanted).map(|_| ()))
    };
    letter("A")?;
    // Ten round trips would take 8 s.
    cluster.wire.set_both(0, 1, late(400));
    let took = time_blocks(a, 0, 10)?;
    ensure(
        cluster,
        took < Duration::from_secs(6),
        "A waits for the peer",
    )?;
    cluster.wire.heal();
    for node in [a, b] {
        node.must("drbdadm net-options --protocol=B r0")?;
    }
    letter("B")?;
    cluster.wire.set_both(0, 1, late(400));
    let took = time_blocks(a, 16, 6)?;
    ensure(
        cluster,
        took > Duration::from_millis(4800),
        "B does not wait for the peer",
    )?;
    cluster.wire.heal();
    // Ten requests to this disk take 8 s.
    b.disk(0).slow_down(Duration::from_millis(800));
    let took = time_blocks(a, 32, 10)?;
    b.disk(0).slow_down(Duration::ZERO);
    ensure(
        cluster,
        took < Duration::from_secs(6),
        "B waits for the peer's disk",
    )?;
    for node in [a, b] {
        node.must("drbdadm net-options --protocol=C r0")?;
    }
    letter("C")?;
    b.disk(0).slow_down(Duration::from_millis(800));
    let took = time_blocks(a, 48, 6)?;
    b.disk(0).slow_down(Duration::ZERO);
    ensure(
        cluster,
        took > Duration::from_millis(4800),
        "C does not wait for the peer's disk",
    )?;
    write_chunks(a, DEVICE, 8, 8)?;
    finish(cluster)
}

/// A node that leaves gets the other one's answer each time. Where it is lost the node ends the
/// connection `ping-timeout` later, and drbdadm does not wait for that long.
///
/// # Errors
/// The first thing that does not hold.
pub fn leaving(cluster: &Cluster) -> Result<()> {
    let patient = Resource {
        net: "ping-int 10; ping-timeout 100; timeout 150; connect-int 1;".into(),
        ..Resource::default()
    };
    primary_a(cluster, &patient)?;
    for _ in 0..8 {
        for node in &cluster.nodes {
            node.must("drbdadm disconnect r0")?;
            node.must("drbdadm connect r0")?;
            in_sync(cluster)?;
        }
    }
    finish(cluster)
}

/// A wire that is too slow: the Primary goes ahead, and the peer is brought up when the wire is
/// free.
///
/// # Errors
/// The first thing that does not hold.
pub fn pull_ahead(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    congested(cluster, "pull-ahead")?;
    let ahead = connection(a, "Ahead")?;
    ensure(cluster, ahead.oos > 0, "what was not sent is out of sync")?;
    connection(b, "Behind")?;
    write_chunks(a, DEVICE, 48, 4)?;
    cluster.wire.heal();
    in_sync(cluster)?;
    ensure(
        cluster,
        Status::of(a)?.ro == "Primary/Secondary",
        "the roles are as before",
    )?;
    finish(cluster)
}

/// A wire that is too slow: the Primary ends the connection.
///
/// # Errors
/// The first thing that does not hold.
pub fn congestion_disconnects(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    congested(cluster, "disconnect")?;
    let alone = connection(a, "StandAlone")?;
    ensure(cluster, alone.oos > 0, "what was not sent is out of sync")?;
    write_chunks(a, DEVICE, 48, 4)?;
    cluster.wire.heal();
    connection(b, "WFConnection")?;
    a.must("drbdadm connect r0")?;
    finish(cluster)
}

/// A Primary in sync writes more than a slow wire takes.
fn congested(cluster: &Cluster, policy: &str) -> Result<()> {
    let [a, _] = two(cluster)?;
    let resource = Resource {
        net: format!(
            "on-congestion {policy}; congestion-fill 256k; sndbuf-size 2M; \
             ping-timeout 150; timeout 290; ping-int 30; connect-int 30;"
        ),
        protocol: "A".into(),
        ..Resource::default()
    };
    primary_a(cluster, &resource)?;
    cluster.wire.set_both(0, 1, late(1500));
    write_chunks(a, DEVICE, 0, 32)
}

/// Nodes that have no other addresses than those of IPv6.
///
/// # Errors
/// The first thing that does not hold.
pub fn ipv6(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    for (node, last) in [(a, 1), (b, 2)] {
        node.must(&format!(
            "ip -4 addr flush dev eth0 && ip -6 addr add fd00:77::{last}/64 dev eth0 nodad"
        ))?;
    }
    let text = "global { usage-count no; }\n\
        resource r0 { device /dev/drbd0 minor 0; disk /dev/vdc; meta-disk internal;\n\
        net { NET \
        cram-hmac-alg sha1; shared-secret s3cret; }\n\
        disk { resync-rate 100M; c-plan-ahead 0; c-min-rate 0; }\n\
        on a { address ipv6 [fd00:77::1]:7788; } on b { address ipv6 [fd00:77::2]:7788; } }\n"
        .replace("NET", NET);
    cluster.each(|n| n.put("/etc/drbd.conf", 0o644, text.as_bytes()))?;
    drbd::create_and_up(cluster)?;
    let shown = a.must("drbdsetup show r0")?;
    let right = shown.contains("[fd00:77::1]:7788") && shown.contains("[fd00:77::2]:7788");
    ensure(cluster, right, &shown)?;
    declared_equal(cluster, "r0/0")?;
    a.must("drbdadm primary r0")?;
    write_chunks(a, DEVICE, 0, 8)?;
    cluster.wire.cut(0, 1);
    for node in [a, b] {
        connection(node, "WFConnection")?;
    }
    write_chunks(a, DEVICE, 4, 8)?;
    cluster.wire.heal();
    in_sync(cluster)?;
    both(cluster, "test -z \"$(ip -4 -o addr show dev eth0)\"")?;
    finish(cluster)
}
