// SPDX-License-Identifier: GPL-2.0
//! Disks that one driver wrote and the other takes over, after a crash and after an orderly end.
//!
//! Between the two the stock `drbdmeta` reads and repairs the metadata: what it finds there, what
//! the writing driver said last and what the next driver says first have to be the same. What
//! holds after any crash has to hold here too, so the scenario ends like those of
//! [`super::crash`].

use super::crash::{self, Run, EXTENT_KIB};
use crate::cluster::Cluster;
use crate::drbd::{self, MetaData, Resource, Status};
use crate::error::{Error, Result};
use crate::node::Node;

/// `a` loses power as a primary and `b`, having written alone, ends in order or loses power, as
/// the seed says. Both come back with the other driver, without the wire at first, and then
/// resync what the metadata says.
///
/// # Errors
/// The first thing that does not hold.
pub fn driver_changed<'a>(run: &mut Run<'a>) -> Result<&'a Node> {
    let (a, b) = (run.a, run.b);
    let writer = a.spawn_writer(&run.job())?;
    crash::let_it_write(a, &mut run.rng);
    a.crash(run.rng.next_u64())?;
    crash::collect(&mut run.ledger, writer)?;

    crash::gone(b)?;
    b.must("drbdadm primary r0")?;
    crash::check(b, &run.ledger)?;
    run.write_some(false, 20)?;
    run.cluster.wire.cut(0, 1);
    let of_b = if run.rng.below(2) == 0 {
        ended_in_order(run.cluster, b, &run.resource)?
    } else {
        let before = Status::of(b)?.oos;
        b.crash(run.rng.next_u64())?;
        let after = ended_by_a_crash(run.cluster, b, &run.resource)?;
        if after < before {
            return Err(Error::new(format!(
                "b: {before} KiB out of sync, and {after} after the crash"
            )));
        }
        after
    };
    b.must("drbdadm primary r0")?;
    crash::check(b, &run.ledger)?;

    let of_a = ended_by_a_crash(run.cluster, a, &run.resource)?;
    run.cluster.wire.heal();
    crash::in_sync(run.cluster)?;
    crash::at_most("resynced", Status::of(a)?.nr, of_a + of_b)?;
    Ok(b)
}

/// Starts `node` with the other driver and puts the configuration there, no more.
fn start_other(cluster: &Cluster, node: &Node, resource: &Resource) -> Result<()> {
    node.change_driver()?;
    node.start()?;
    let text = resource.config(&cluster.nodes);
    node.put("/etc/drbd.conf", 0o644, text.as_bytes())
}

/// A node that lost power while it was primary starts with the other driver, which sees just what
/// `drbdmeta` made of the activity log. Returns the KiB out of sync.
fn ended_by_a_crash(cluster: &Cluster, node: &Node, resource: &Resource) -> Result<u64> {
    start_other(cluster, node, resource)?;
    if node.run("drbdadm dump-md r0")?.code == 0 {
        return Err(Error::new(format!(
            "{}: the metadata of a lost primary is clean",
            node.name()
        )));
    }
    node.must("drbdadm apply-al r0")?;
    let found = MetaData::of(node)?;
    if found.oos == 0 {
        return Err(Error::new(format!(
            "{}: the activity log was not replayed: nothing is out of sync",
            node.name()
        )));
    }
    crash::at_most("out of sync after the replay", found.oos, 2 * EXTENT_KIB)
        .map_err(|e| e.context(format!("{}: {}", node.name(), found.text)))?;
    up_as_found(node, &found)?;
    Ok(found.oos)
}

/// A node is taken down and starts with the other driver: the metadata says what the first driver
/// said last, survives a dump and a restore, and is what the second one says.
fn ended_in_order(cluster: &Cluster, node: &Node, resource: &Resource) -> Result<u64> {
    let before = Status::of(node)?.oos;
    node.must("drbdadm secondary r0")?;
    // Without the bit that says who is primary: the C driver leaves it set on the disk.
    let uuids_and_flags = || -> Result<_> {
        let g = drbd::generation(node)?;
        let flags: Vec<_> = g.split(':').skip(4).map(str::to_owned).collect();
        Ok((drbd::uuids(&g), flags))
    };
    let said = uuids_and_flags()?;
    node.must("drbdadm down r0")?;
    let left = uuids_and_flags()?;
    same(node, "at the end and on the disk", &said, &left)?;
    node.stop()?;
    start_other(cluster, node, resource)?;
    node.must("drbdadm apply-al r0")?;
    let found = MetaData::of(node)?;
    same(
        node,
        "KiB out of sync before and found",
        &before,
        &found.oos,
    )?;
    // A dump has all but the flags, so what was there is put back afterwards.
    node.must(
        "drbdadm dump-md r0 > /run/md && cp /dev/vdc /run/disk && \
         drbdmeta --force 0 v08 /dev/vdc internal wipe-md && \
         drbdmeta --force 0 v08 /dev/vdc internal restore-md /run/md && \
         drbdadm apply-al r0",
    )?;
    let restored = MetaData::of(node)?;
    same(
        node,
        "dumped and restored",
        &(&found.text, found.oos),
        &(&restored.text, restored.oos),
    )?;
    node.must("cp /run/disk /dev/vdc && sync && rm /run/disk")?;
    up_as_found(node, &found)?;
    Ok(before)
}

/// The driver says of the metadata what `drbdmeta` found in it.
fn up_as_found(node: &Node, found: &MetaData) -> Result<()> {
    node.must("drbdadm up r0")?;
    same(
        node,
        "KiB out of sync found and up",
        &found.oos,
        &Status::of(node)?.oos,
    )?;
    let up = drbd::generation(node)?;
    same(
        node,
        "UUIDs found and up",
        &drbd::uuids(&found.generation),
        &drbd::uuids(&up),
    )
}

fn same<T: PartialEq + std::fmt::Debug>(node: &Node, what: &str, x: &T, y: &T) -> Result<()> {
    if x == y {
        return Ok(());
    }
    Err(Error::new(format!(
        "{}: {what}: {x:?} and {y:?}",
        node.name()
    )))
}
