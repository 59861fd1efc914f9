// SPDX-License-Identifier: GPL-2.0
//! What happens below the driver: disks that grow, forget on request, or fail in one place; and
//! several of them in one resource.

use std::time::{Duration, Instant};

use super::{
    both, connection, declared_equal, disks, ends_with, ensure, equal, finish, in_sync, primary_a,
    same_disk, sum, write_chunks, CHUNK, CHUNK_BLOCKS, DEVICE, LONG, MIB, NET,
};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::scenario::{data_bytes, two};

/// r0 on a device that the test can change while it is in use, which these commands make.
fn on_a_mapped_device(cluster: &Cluster, made: &str, disk: &str, handlers: &str) -> Result<()> {
    let resource = Resource {
        disk: format!("resync-rate 100M; c-plan-ahead 0; c-min-rate 0; {disk}"),
        handlers: handlers.into(),
        ..super::resource("")
    };
    let text = resource
        .config(&cluster.nodes)
        .replace("/dev/vdc", "/dev/mapper/back");
    cluster.each(|n| n.put("/etc/drbd.conf", 0o644, text.as_bytes()))?;
    both(cluster, made)?;
    drbd::create_and_up(cluster)
}

/// The first sectors of the first disk, as a mapped device.
fn part(sectors: u64) -> String {
    format!("echo 0 {sectors} linear /dev/vdc 0 | dmsetup create back")
}

/// Puts another table below r0.
fn map(node: &Node, table: &str) -> Result<()> {
    node.must(&format!(
        "printf '{table}' | dmsetup reload back && dmsetup resume back"
    ))
    .map(|_| ())
}

/// The size of r0 on both nodes. A Secondary can not be opened to be asked.
fn size_is(cluster: &Cluster, bytes: u64) -> Result<()> {
    let sectors = bytes / 512;
    for node in &cluster.nodes {
        let asked = format!("test $(cat /sys/block/drbd0/size) = {sectors}");
        node.wait_until(&asked, LONG)?;
    }
    Ok(())
}

/// Waits until the disks are in sync and equal: the resync of a new part begins a moment after the
/// part is there.
fn soon_equal(cluster: &Cluster) -> Result<()> {
    let end = Instant::now() + two(cluster)?[0].patience(LONG);
    loop {
        in_sync(cluster)?;
        match same_disk(cluster, 0) {
            Err(e) if Instant::now() > end => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
            Ok(()) => return Ok(()),
        }
    }
}

/// Devices that grow below a Primary: what both have is used, and the new part is the same on both
/// and survives. An explicit size shrinks.
///
/// # Errors
/// The first thing that does not hold.
pub fn resize(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let (half, whole) = (MIB << 19, MIB << 20);
    on_a_mapped_device(cluster, &part(half / 512), "", "")?;
    declared_equal(cluster, "r0/0")?;
    a.must("drbdadm primary r0")?;
    size_is(cluster, data_bytes(half))?;
    let first = data_bytes(half) / CHUNK;
    write_chunks(a, DEVICE, 0, first)?;
    let before = sum(a, &format!("{DEVICE} count={first}"))?;

    let grown = format!("0 {} linear /dev/vdc 0\\n", whole / 512);
    map(a, &grown)?;
    a.must("drbdadm resize r0")?;
    in_sync(cluster)?;
    size_is(cluster, data_bytes(half))?;
    map(b, &grown)?;
    // Rotten where nothing has been used yet: the new part has to be made the same.
    super::rot(b, 3500)?;
    a.must("drbdadm resize r0")?;
    size_is(cluster, data_bytes(whole))?;
    soon_equal(cluster)?;
    ensure(
        cluster,
        sum(a, &format!("{DEVICE} count={first}"))? == before,
        "the data are there",
    )?;
    write_chunks(a, DEVICE, first, 8)?;

    // It is remembered, metadata included.
    a.must("drbdadm secondary r0")?;
    both(cluster, "drbdadm down r0 && drbdadm up r0")?;
    in_sync(cluster)?;
    size_is(cluster, data_bytes(whole))?;
    ends_with(a, "drbdadm resize r0", 10)?;
    b.must("drbdadm primary r0")?;
    let kept = sum(b, &format!("{DEVICE} count={first}"))? == before;
    ensure(cluster, kept, "the data are there after down and up")?;

    b.must("drbdsetup resize 0 --size=8M")?;
    size_is(cluster, 8 << 20)?;
    ends_with(b, &super::writing(DEVICE, 127, 2), 1)?;
    super::rot(a, 4000)?;
    b.must("drbdsetup resize 0")?;
    size_is(cluster, data_bytes(whole))?;
    soon_equal(cluster)?;
    b.must("drbdadm invalidate r0")?;
    ends_with(b, "drbdadm resize r0", 10)?;
    in_sync(cluster)?;
    // What is below goes with the test.
    finish(cluster)
}

/// Whether `count` blocks of both disks are all zeroes.
fn zeroes(cluster: &Cluster, first: u64, count: u64) -> Result<bool> {
    for node in &cluster.nodes {
        for block in first..first + count {
            if node.disk(0).peek(block)?.iter().any(|b| *b != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A discard reaches both disks as what it is, also when the peer hears of it later.
///
/// # Errors
/// The first thing that does not hold.
pub fn trim(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    primary_a(cluster, &super::resource(""))?;
    write_chunks(a, DEVICE, 0, 96)?;
    a.must("test $(cat /sys/block/drbd0/queue/discard_max_bytes) -gt 0")?;
    let written = b.disk(0).stats().written;
    a.must(&format!("blkdiscard -o 1048576 -l 3145728 {DEVICE}"))?;
    ensure(
        cluster,
        zeroes(cluster, 256, 768)?,
        "the discard reached both disks",
    )?;
    let as_data = b.disk(0).stats().written - written;
    ensure(
        cluster,
        as_data < 1 << 20,
        &format!("b wrote {as_data} bytes for a discard"),
    )?;
    for block in [255, 1024] {
        ensure(
            cluster,
            !zeroes(cluster, block, 1)?,
            "its neighbours are there",
        )?;
    }
    same_disk(cluster, 0)?;
    a.must(&format!("blkdiscard -z -o 4194304 -l 524288 {DEVICE}"))?;
    ensure(
        cluster,
        zeroes(cluster, 1024, 128)?,
        "zeroes reached both disks",
    )?;
    same_disk(cluster, 0)?;
    // Not at the bounds of blocks: what is around stays.
    a.must(&format!("blkdiscard -z -o 5243392 -l 8704 {DEVICE}"))?;
    same_disk(cluster, 0)?;
    ensure(
        cluster,
        !zeroes(cluster, 1280, 1)? && zeroes(cluster, 1281, 1)?,
        "half a block",
    )?;

    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    a.must(&format!("blkdiscard -o 0 -l 524288 {DEVICE}"))?;
    let oos = Status::of(a)?.oos;
    ensure(
        cluster,
        oos >= 512,
        "what was discarded alone is out of sync",
    )?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    ensure(cluster, zeroes(cluster, 0, 128)?, "the peer follows")?;
    finish(cluster)
}

/// A thin device of 12 MiB in a pool on the second disk, which gives space out by 64 KiB.
const THIN: &str = "modprobe dm-thin-pool && \
    echo 0 4096 linear /dev/vdd 0 | dmsetup create poolmeta && \
    echo 0 28672 linear /dev/vdd 4096 | dmsetup create pooldata && \
    echo 0 28672 thin-pool /dev/mapper/poolmeta /dev/mapper/pooldata 128 0 | \
    dmsetup create pool && dmsetup message pool 0 'create_thin 0' && \
    echo 0 24576 thin /dev/mapper/pool 0 | dmsetup create back";

/// How many chunks of the pool are taken on each node.
fn taken(cluster: &Cluster) -> Result<[u64; 2]> {
    let [a, b] = two(cluster)?;
    let of = |node: &Node| {
        let said = node.must("dmsetup status pool | cut -d' ' -f6 | cut -d/ -f1")?;
        let number = said.trim().parse();
        number.map_err(|_| Error::new(format!("{}: taken: {said}", node.name())))
    };
    Ok([of(a)?, of(b)?])
}

/// On thin disks neither a resync takes space for what is empty, nor does a discard for what it
/// gives back.
///
/// # Errors
/// The first thing that does not hold.
pub fn thin(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    on_a_mapped_device(cluster, THIN, "rs-discard-granularity 65536;", "")?;
    a.must("drbdadm primary --force r0")?;
    in_sync(cluster)?;
    let empty = taken(cluster)?;
    let what = format!("{empty:?} chunks taken by empty disks");
    ensure(cluster, empty.iter().all(|n| *n < 20), &what)?;
    write_chunks(a, DEVICE, 0, 48)?;
    let full = taken(cluster)?;
    for (before, after) in empty.into_iter().zip(full) {
        let what = format!("{before} chunks taken, {after} with 48 more");
        ensure(cluster, (40..=48).contains(&(after - before)), &what)?;
    }
    // Ends within a chunk at either side.
    a.must(&format!(
        "blkdiscard -o {} -l {} {DEVICE}",
        8 * CHUNK - 4096,
        32 * CHUNK + 8192
    ))?;
    for (before, after) in full.into_iter().zip(taken(cluster)?) {
        let what = format!("{before} chunks taken, {after} after 32 were discarded");
        ensure(cluster, after + 32 == before, &what)?;
    }
    b.must("drbdadm disconnect r0")?;
    connection(a, "WFConnection")?;
    a.must(&format!(
        "blkdiscard -o {} -l {} {DEVICE}",
        44 * CHUNK,
        2 * CHUNK
    ))?;
    b.must("drbdadm connect r0")?;
    in_sync(cluster)?;
    for (before, after) in full.into_iter().zip(taken(cluster)?) {
        let what = format!("{before} chunks taken, {after} after 34 were discarded");
        ensure(cluster, after + 34 == before, &what)?;
    }
    let whole = sum(a, DEVICE)?;
    a.must("drbdadm secondary r0")?;
    b.must("drbdadm primary r0")?;
    ensure(cluster, sum(b, DEVICE)? == whole, "both read the same")?;
    finish(cluster)
}

/// One block of a disk of 16 MiB fails.
fn broken_at(block: u64) -> String {
    let (at, end) = (block * 8, (MIB << 20) / 512);
    format!(
        "0 {at} linear /dev/vdc 0\\n{at} 8 error\\n{next} {rest} linear /dev/vdc {next}\\n",
        next = at + 8,
        rest = end - at - 8
    )
}

/// Blocks that cannot be written or read, on either side and with each policy: applications do not
/// notice.
///
/// # Errors
/// The first thing that does not hold.
pub fn io_errors(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let sectors = (MIB << 20) / 512;
    let mended = format!("0 {sectors} linear /dev/vdc 0\\n");
    let handlers = "local-io-error \"date >> /run/local-io-error\";";
    on_a_mapped_device(cluster, &part(sectors), "on-io-error pass_on;", handlers)?;
    declared_equal(cluster, "r0/0")?;
    a.must("drbdadm primary r0")?;
    write_chunks(a, DEVICE, 0, 32)?;
    let block = 300;
    let chunk = block / CHUNK_BLOCKS;
    let broken = broken_at(block);

    map(b, &broken)?;
    write_chunks(a, DEVICE, chunk, 1)?;
    let bad = disks(a, "UpToDate/Inconsistent")?;
    let right = bad.oos >= 4 && bad.oos <= 64;
    ensure(cluster, right, "what was not written is out of sync")?;
    map(b, &mended)?;
    a.must("drbdadm disconnect r0 && drbdadm connect r0")?;
    in_sync(cluster)?;
    same_disk(cluster, 0)?;

    both(cluster, "drbdadm disk-options --on-io-error=detach r0")?;
    let whole = sum(a, DEVICE)?;
    map(a, &broken)?;
    ensure(cluster, sum(a, DEVICE)? == whole, "the peer's copy is read")?;
    disks(a, "Diskless/UpToDate")?;
    write_chunks(a, DEVICE, chunk, 2)?;
    map(a, &mended)?;
    a.must("drbdadm attach r0")?;
    in_sync(cluster)?;
    same_disk(cluster, 0)?;

    a.must("drbdadm disk-options --on-io-error=call-local-io-error r0")?;
    map(a, &broken)?;
    write_chunks(a, DEVICE, chunk, 1)?;
    a.wait_until("test -e /run/local-io-error", LONG)?;
    disks(a, "Diskless/UpToDate")?;
    map(a, &mended)?;
    a.must("drbdadm attach r0")?;
    finish(cluster)
}

/// r0 with two volumes.
const VOLUMES: &str = "global { usage-count no; }\n\
    resource r0 {\n\
    net { NET }\n\
    disk { resync-rate 100M; c-plan-ahead 0; c-min-rate 0; }\n\
    volume 0 { device /dev/drbd0 minor 0; disk /dev/vdc; meta-disk internal; }\n\
    volume 1 { device /dev/drbd1 minor 1; disk /dev/vdd; meta-disk internal; }\n\
    on a { address 10.77.0.1:7788; } on b { address 10.77.0.2:7788; } }\n";

fn volumes_in_sync(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        for minor in [0, 1] {
            drbd::wait_for_minor(node, minor, "both in sync", LONG, |s| {
                s.cs == "Connected" && s.ds == "UpToDate/UpToDate" && s.oos == 0
            })?;
        }
    }
    Ok(())
}

/// Two volumes have one connection and one role, and each its own disk.
///
/// # Errors
/// The first thing that does not hold.
pub fn volumes(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let devices = [DEVICE, "/dev/drbd1"];
    let text = VOLUMES.replace("NET", NET);
    cluster.each(|n| n.put("/etc/drbd.conf", 0o644, text.as_bytes()))?;
    drbd::create_and_up(cluster)?;
    a.must("drbdadm new-current-uuid --clear-bitmap r0/0")?;
    a.must("drbdadm new-current-uuid --clear-bitmap r0/1")?;
    volumes_in_sync(cluster)?;
    a.must("drbdadm primary r0")?;
    for (first, device) in [0, 7].into_iter().zip(devices) {
        write_chunks(a, device, first, 8)?;
    }
    // One disk goes and comes back; the other volume has nothing to do with it.
    a.must("drbdadm detach r0/1")?;
    let of_1 = Status::of_minor(a, 1)?.ds;
    let right = of_1 == "Diskless/UpToDate" && Status::of(a)?.ds == "UpToDate/UpToDate";
    ensure(cluster, right, "one volume is without its disk")?;
    write_chunks(a, devices[1], 3, 2)?;
    write_chunks(a, devices[0], 3, 2)?;
    a.must("drbdadm attach r0/1")?;
    volumes_in_sync(cluster)?;

    cluster.wire.cut(0, 1);
    for node in [a, b] {
        for minor in [0, 1] {
            let gone = |s: &Status| s.cs == "WFConnection";
            drbd::wait_for_minor(node, minor, "the loss of the peer", LONG, gone)?;
        }
    }
    write_chunks(a, devices[0], 20, 2)?;
    write_chunks(a, devices[1], 30, 3)?;
    equal("KiB out of sync", Status::of(a)?.oos, 2 * CHUNK / 1024)?;
    equal(
        "KiB out of sync",
        Status::of_minor(a, 1)?.oos,
        3 * CHUNK / 1024,
    )?;
    cluster.wire.heal();
    volumes_in_sync(cluster)?;

    let sums = [sum(a, devices[0])?, sum(a, devices[1])?];
    a.must("drbdadm secondary r0")?;
    b.must("drbdadm primary r0")?;
    let seen = [sum(b, devices[0])?, sum(b, devices[1])?];
    ensure(
        cluster,
        sums == seen && sums[0] != sums[1],
        "b has both volumes of a",
    )?;
    same_disk(cluster, 1)?;
    finish(cluster)
}
