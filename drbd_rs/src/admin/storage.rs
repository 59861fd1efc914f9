// SPDX-License-Identifier: GPL-2.0

//! Memory for the core's machine: it never allocates, so its limits are set here.

use drbd_core::nl::conf::ResourceOpts;
use drbd_core::node::admin::AttachNeeds;
use drbd_core::node::{self, BackingStorage, Connection, PeerDevice, Storage, VolumeStorage, PEERS};
use drbd_core::store::{interval, slab};
use drbd_kapi::mem::{filled, NoIoScope};
use kernel::prelude::*;

use crate::io::measure;
use crate::objects::resource::Machine;
use crate::objects::store::KernelStore;

/// Application I/O under way in a resource, with what waits for the end of its epoch. The C driver
/// knows no such limit, but its block layer seldom gets that far.
const REQUESTS: usize = 16_384;
/// Requests of the peer under way: `max-buffers` of its side limits it to far less.
const PEER_REQUESTS: usize = 8_192;
/// Volumes that a resource has room for at first.
const VOLUMES: usize = 8;
/// Local I/O that may be in flight at once, whose results wait for the worker: one for each request
/// on either side, and metadata.
pub(super) const COMPLETIONS: usize = REQUESTS + PEER_REQUESTS + 4_096;

/// A machine without volumes. Boxed, and not inlined: it is large, and the stack is not.
#[inline(never)]
pub(super) fn machine(opts: ResourceOpts) -> Result<KBox<Machine>> {
    let _noio = NoIoScope::enter();
    let storage = Storage {
        requests: filled(REQUESTS, || slab::Slot::EMPTY)?,
        peer_requests: filled(PEER_REQUESTS, || slab::Slot::EMPTY)?,
        peer_waiting: filled(PEER_REQUESTS, || None)?,
        sent_epochs: filled(REQUESTS, || None)?,
    };
    let volumes = filled(VOLUMES, || None)?;
    let conns = filled(PEERS, || const { Connection::new() })?;
    Ok(KBox::new(node::Resource::new(opts, volumes, conns, storage), GFP_KERNEL)?)
}

/// A list of volumes with twice the room of one of `len`.
pub(super) fn volumes(len: usize) -> Result<KVVec<Option<node::Volume<KernelStore>>>> {
    filled(len.saturating_mul(2).max(VOLUMES), || None)
}

/// What the machine keeps about a volume: among others, the ranges that are being written.
#[inline(never)]
pub(super) fn volume() -> Result<VolumeStorage<KernelStore>> {
    Ok(VolumeStorage {
        writes: filled(REQUESTS + PEER_REQUESTS, || interval::Slot::EMPTY)?,
        peers: filled(PEERS, || const { PeerDevice::new() })?,
    })
}

/// A disk for the machine.
///
/// # Errors
/// ENOMEM: the bitmap takes 32 KiB for each GiB of the disk.
pub(super) fn backing(needs: &AttachNeeds) -> Result<node::Backing<KernelStore>> {
    let slots = usize::try_from(needs.al_slots).map_err(|_| ENOMEM)?;
    let al = filled(slots, Default::default)?;
    let extents = filled(needs.extents, Default::default)?;
    let (words, pages) = measure::bitmap(needs.bitmap)?;
    node::Backing::new(needs, BackingStorage { al, words, pages, extents }).ok_or(ENOMEM)
}
