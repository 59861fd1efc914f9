// SPDX-License-Identifier: GPL-2.0
//! One scenario for each thing that DRBD can do beside mirroring and failing over: small, and with
//! an outcome that can be counted or compared.
//!
//! All of them run on two nodes with two disks of [`MIB`] MiB each, which pass discards on, and end
//! with disks that are equal byte by byte and a driver that can be unloaded.

pub mod admin;
pub mod disks;
pub mod network;
pub mod primaries;
pub mod resync;
pub mod verify;

use std::time::{Duration, Instant};

use super::{data_bytes, pair, two};
use crate::client::{Progress, Request};
use crate::cluster::Cluster;
use crate::disk::BLOCK;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, Node, NodeSpec};

/// MiB per disk.
pub const MIB: u64 = 16;
const LONG: Duration = Duration::from_secs(90);
const DEVICE: &str = "/dev/drbd0";
/// Bytes that the scenarios write at a time.
const CHUNK: u64 = 64 << 10;
/// Blocks of 4 KiB in a chunk.
const CHUNK_BLOCKS: u64 = CHUNK / BLOCK as u64;

/// The nodes of every scenario here.
pub fn specs(drivers: [Driver; 2], kernel: Kernel) -> [NodeSpec; 2] {
    pair(drivers, kernel, MIB).map(|spec| NodeSpec {
        disks: vec![MIB << 20; 2],
        discards: true,
        // Outcomes are looked for here, not races.
        cpus: 1,
        ..spec
    })
}

/// A connection that notices a dead peer within 15 s, and forgives a host that is busy.
const NET: &str = "ping-int 10; ping-timeout 50; timeout 60; connect-int 10;";

/// A resource with [`NET`], and `net` behind it.
fn resource(net: &str) -> Resource {
    Resource {
        net: format!("{NET} {net}"),
        ..Resource::default()
    }
}

/// A pair that is up and in sync, with `a` Primary. The disks are all zeroes: nothing has to be
/// copied.
fn primary_a(cluster: &Cluster, resource: &Resource) -> Result<()> {
    let rate = "resync-rate 100M; c-plan-ahead 0; c-min-rate 0;";
    let resource = Resource {
        disk: format!("{rate} {}", resource.disk),
        ..resource.clone()
    };
    resource.configure(cluster)?;
    drbd::create_and_up(cluster)?;
    declared_equal(cluster, "r0/0")?;
    two(cluster)?[0].must("drbdadm primary r0").map(|_| ())
}

/// Declares the copies of a volume equal, which both have to agree to at once.
fn declared_equal(cluster: &Cluster, volume: &str) -> Result<()> {
    let [a, _] = two(cluster)?;
    a.must(&format!("drbdadm new-current-uuid --clear-bitmap {volume}"))?;
    in_sync(cluster)
}

/// A scenario.
pub type Scenario = fn(&Cluster) -> Result<()>;

/// All of them, with their names.
pub const ALL: [(&str, Scenario); 26] = [
    ("finds_and_mends", verify::finds_and_mends),
    ("from_here_to_there", verify::from_here_to_there),
    ("cut_short", verify::cut_short),
    ("checksums", resync::checksums),
    ("pause", resync::pause),
    ("after_another", resync::after_another),
    ("invalidate", resync::invalidate),
    ("integrity", network::integrity),
    ("protocols", network::protocols),
    ("pull_ahead", network::pull_ahead),
    ("congestion_disconnects", network::congestion_disconnects),
    ("leaving", network::leaving),
    ("ipv6", network::ipv6),
    ("two_primaries", primaries::two_primaries),
    ("conflicts", primaries::conflicts),
    ("split_brain", primaries::split_brain),
    ("policies", primaries::policies),
    ("resize", disks::resize),
    ("trim", disks::trim),
    ("thin", disks::thin),
    ("io_errors", disks::io_errors),
    ("volumes", disks::volumes),
    ("skip_initial_sync", admin::skip_initial_sync),
    ("suspend_io", admin::suspend_io),
    ("no_data_accessible", admin::no_data_accessible),
    ("outdate", admin::outdate),
];

/// Runs all scenarios one after the other on the same machines, which are started anew after one
/// that failed. `DRBD_LAB_ONLY` picks some: names with commas between.
///
/// # Errors
/// What failed, and how.
pub fn in_turn(cluster: &Cluster) -> Result<()> {
    let only = std::env::var("DRBD_LAB_ONLY").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, scenario) in ALL {
        if !only.is_empty() && !only.split(',').any(|o| o == name) {
            continue;
        }
        let start = Instant::now();
        let result = afresh(cluster).and_then(|()| scenario(cluster));
        let took = start.elapsed();
        match result.and_then(|()| cluster.judge()) {
            Ok(()) => println!("{name}: passed in {took:.0?}"),
            Err(e) => {
                println!("{name}: FAILED in {took:.0?}: {e}");
                failed.push(format!("{name}: {e}"));
                for node in &cluster.nodes {
                    let kept = cluster.dir().join(format!("{name}-{}.state", node.name()));
                    let state = node.run("cat /proc/drbd; dmesg | tail -n 300")?;
                    std::fs::write(kept, state.text())?;
                    node.crash(1)?;
                    node.start()?;
                }
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(failed.join("\n")))
}

/// Whatever was done to the nodes is undone: empty disks, a wire, a driver, an address.
fn afresh(cluster: &Cluster) -> Result<()> {
    cluster.wire.heal();
    cluster.each(|n| {
        n.run(
            "for d in back pool pooldata poolmeta; do test ! -e /dev/mapper/$d || \
             dmsetup remove $d; done; rm -f /run/*-*",
        )?;
        n.must(&format!("ip addr replace {}/24 dev eth0", n.address()))?;
        for i in 0..2 {
            n.disk(i).slow_down(Duration::ZERO);
            n.disk(i).zero(0, n.disk(i).size(), true)?;
        }
        if n.run("test -e /proc/drbd")?.code != 0 {
            n.load_driver()?;
        }
        Ok(())
    })
}

/// Fails with `what` and both nodes' states, unless `holds`.
fn ensure(cluster: &Cluster, holds: bool, what: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    let mut text = what.to_owned();
    for node in &cluster.nodes {
        let state = node.run("tail -n +3 /proc/drbd")?.text();
        text.push_str(&format!("\n{}: {state}", node.name()));
    }
    Err(Error::new(text))
}

/// Fails unless two numbers are equal.
fn equal(what: &str, found: u64, expected: u64) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::new(format!("{what}: {found}, not {expected}")))
}

/// A command that has to end with `code`; what it said.
fn ends_with(node: &Node, command: &str, code: i32) -> Result<String> {
    let out = node.run(command)?;
    let said = format!("{}{}", out.text(), out.error_text());
    if out.code == code {
        return Ok(said);
    }
    Err(Error::new(format!(
        "{}: exit code {}, not {code}, from: {command}\n{said}",
        node.name(),
        out.code
    )))
}

/// Does the same order on both nodes at a time.
fn both(cluster: &Cluster, command: &str) -> Result<()> {
    cluster.each(|n| n.must(command).map(|_| ()))
}

fn in_sync(cluster: &Cluster) -> Result<()> {
    cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))
}

/// Waits for a state of the connection.
fn connection(node: &Node, cs: &str) -> Result<Status> {
    drbd::wait_for(node, cs, LONG, |s| s.cs == cs)
}

/// Waits for states of the disks.
fn disks(node: &Node, ds: &str) -> Result<Status> {
    drbd::wait_for(node, ds, LONG, |s| s.ds == ds)
}

/// Writes `count` chunks of random bytes, from chunk `first` on, past the page cache.
fn write_chunks(node: &Node, device: &str, first: u64, count: u64) -> Result<()> {
    node.must_for(&writing(device, first, count), LONG)
        .map(|_| ())
}

/// The command by which [`write_chunks`] writes.
fn writing(device: &str, first: u64, count: u64) -> String {
    format!(
        "dd if=/dev/urandom of={device} bs={CHUNK} seek={first} count={count} iflag=fullblock \
         oflag=direct conv=notrunc status=none"
    )
}

/// Writes `count` blocks of 4 KiB one after the other and returns how long that took.
fn time_blocks(node: &Node, first: u64, count: u64) -> Result<Duration> {
    let start = Instant::now();
    let command = format!(
        "dd if=/dev/urandom of={DEVICE} bs={BLOCK} seek={first} count={count} oflag=direct \
         status=none"
    );
    node.must_for(&command, LONG)?;
    let took = start.elapsed();
    println!("{}: {count} blocks in {took:.1?}", node.name());
    Ok(took)
}

/// A sum over all that a device holds, past the page cache.
fn sum(node: &Node, device: &str) -> Result<String> {
    let command = format!("dd if={device} bs={CHUNK} iflag=direct status=none | sha256sum");
    node.must_for(&command, LONG)
}

/// A block below the driver changes, which nobody notices.
fn rot(node: &Node, block: u64) -> Result<()> {
    let disk = node.disk(0);
    let bytes: Vec<u8> = disk.peek(block)?.iter().map(|b| !b).collect();
    disk.write(block * BLOCK as u64, &bytes, true)
}

/// A request that still waits after a while, as it has to.
fn still_waits(request: &mut Request, what: &str) -> Result<()> {
    if request.wait(Duration::from_secs(2)) == Progress::Running {
        return Ok(());
    }
    let out = request.output();
    let (code, said) = (out.code, out.error_text());
    Err(Error::new(format!("{what} did not wait: {code} {said}")))
}

/// The exit code of a request that has to end now.
fn ended(node: &Node, mut request: Request, what: &str) -> Result<i32> {
    match request.wait(node.patience(LONG)) {
        Progress::Ended => Ok(request.output().code),
        other => Err(Error::new(format!("{what}: {other:?}"))),
    }
}

/// Disk number `i` of both nodes holds the same data.
fn same_disk(cluster: &Cluster, i: usize) -> Result<()> {
    let [a, b] = two(cluster)?;
    let bytes = data_bytes(a.disk(i).size());
    match a.disk(i).first_difference(b.disk(i), bytes)? {
        None => Ok(()),
        Some(block) => Err(Error::new(format!("disks {i} differ in block {block}"))),
    }
}

/// The end of a scenario: in sync, nothing known to differ, nothing that differs, nobody who keeps
/// the driver.
fn finish(cluster: &Cluster) -> Result<()> {
    in_sync(cluster)?;
    for node in &cluster.nodes {
        drbd::wait_for(node, "nothing on its way", LONG, |s| s.pe == 0)?;
        equal("KiB out of sync at the end", Status::of(node)?.oos, 0)?;
    }
    both(cluster, "drbdadm secondary r0")?;
    same_disk(cluster, 0)?;
    drbd::down_and_unload(cluster)?;
    same_disk(cluster, 0)
}
