// SPDX-License-Identifier: GPL-2.0

//! Looks at a resource: copies of what is told about it, taken under its lock.

use drbd_core::meta::superblock::Flags;
use drbd_core::nl::conf::{DiskConf, ResourceOpts};
use drbd_core::state::State;
use drbd_core::uuid::UuidSet;
use kernel::sync::Arc;

use crate::objects::connection::Setup;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;

/// Flags of a peer device, as PEER_DEVICE_STATISTICS has them.
const PEER_CONNECTED: u32 = 1;
const PEER_OUTDATED: u32 = 2;
const PEER_FULL_SYNC: u32 = 8;

/// The disk of a volume.
#[derive(Clone, Copy)]
pub(super) struct DiskView {
    /// Its options.
    pub(super) conf: DiskConf,
    /// UUIDs of the superblock.
    pub(super) uuids: UuidSet,
    /// Flags of the superblock.
    pub(super) flags: u32,
    /// Bits in the bitmap.
    pub(super) bits_total: u64,
}

impl DiskView {
    /// Current, bitmap and two history UUIDs, as numbers in memory.
    pub(super) fn uuid_bytes(&self) -> [u8; 32] {
        let [younger, older] = self.uuids.history;
        bytes([self.uuids.current, self.uuids.bitmap, younger, older])
    }

    /// The history, in as many bytes as the C driver sends.
    pub(super) fn history_bytes(&self) -> [u8; 32] {
        let [younger, older] = self.uuids.history;
        bytes([younger, older, 0, 0])
    }

    /// What the superblock says about the peer.
    pub(super) fn peer_flags(&self) -> u32 {
        let flags = Flags(self.flags);
        let outdated =
            flags.contains(Flags::CONSISTENT) && !flags.contains(Flags::WAS_UP_TO_DATE);
        let when = |on: bool, flag: u32| if on { flag } else { 0 };
        when(flags.contains(Flags::CONNECTED_IND), PEER_CONNECTED)
            | when(outdated, PEER_OUTDATED)
            | when(flags.contains(Flags::FULL_SYNC), PEER_FULL_SYNC)
    }
}

fn bytes(numbers: [u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    let all = numbers.into_iter().flat_map(u64::to_ne_bytes);
    for (to, from) in out.iter_mut().zip(all) {
        *to = from;
    }
    out
}

/// A volume. Amounts are in sectors.
pub(super) struct VolumeView {
    /// The connection, if it is configured.
    pub(super) setup: Option<Arc<Setup>>,
    /// Options of the resource.
    pub(super) opts: ResourceOpts,
    /// The disk; `None` without one.
    pub(super) disk: Option<DiskView>,
    /// State.
    pub(super) state: State,
    /// Size of the block device.
    pub(super) capacity: u64,
    /// UUID of the data in use.
    pub(super) ed_uuid: u64,
    /// Bits out of sync.
    pub(super) bits_oos: u64,
    /// Bits of the resync at its start.
    pub(super) rs_total: u64,
    /// Bits that could not be synced.
    pub(super) rs_failed: u64,
    /// Sent over the network.
    pub(super) sent: u64,
    /// Received from the network.
    pub(super) received: u64,
    /// Written to the disk.
    pub(super) written: u64,
    /// Read from the disk.
    pub(super) read: u64,
    /// Transactions of the activity log.
    pub(super) al_writes: u64,
    /// Pages of the bitmap written.
    pub(super) bm_writes: u64,
    /// Application requests in flight.
    pub(super) app_bios: u32,
    /// Application requests that the peer has to answer.
    pub(super) app_pending: u32,
    /// Resync requests that the peer has to answer.
    pub(super) resync_pending: u32,
    /// Requests of the peer that this node has to answer.
    pub(super) unacked: u32,
    /// I/O in flight on the own disk.
    pub(super) local_refs: u32,
    /// Application I/O has to wait.
    pub(super) app_blocked: bool,
    /// Writes leave the activity log alone.
    pub(super) al_suspended: bool,
    /// How long to wait for the peer: 0 usual, 1 degraded, 2 the peer is outdated.
    pub(super) timeout_type: u32,
}

impl VolumeView {
    /// `None`: the volume is being removed.
    pub(super) fn of(entry: &MinorEntry) -> Option<VolumeView> {
        let inner = entry.resource.inner.lock();
        let v = inner.machine.volume_status(entry.ix())?;
        let opts = inner.machine.resource_status().opts;
        let setup = inner.setup.clone();
        drop(inner);
        let disk = match (v.disk_conf, v.uuids) {
            (Some(conf), Some(uuids)) => {
                Some(DiskView { conf, uuids, flags: v.disk_flags, bits_total: v.bits })
            }
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        };
        let [sent, received, written, read] = v.moved;
        let [al_writes, bm_writes] = v.md_writes;
        Some(VolumeView {
            setup,
            opts,
            disk,
            state: v.state,
            capacity: v.size.0,
            ed_uuid: v.ed_uuid,
            bits_oos: v.out_of_sync,
            rs_total: v.rs_total,
            rs_failed: v.rs_failed,
            sent: sent.0,
            received: received.0,
            written: written.0,
            read: read.0,
            al_writes: u64::from(al_writes),
            bm_writes: u64::from(bm_writes),
            app_bios: v.in_flight,
            app_pending: v.pending,
            resync_pending: v.rs_pending,
            unacked: v.unacked,
            local_refs: v.local,
            app_blocked: v.state.is_suspended(),
            al_suspended: v.al_suspended,
            timeout_type: v.timeout_type,
        })
    }
}

/// A configured connection.
pub(super) struct ConnectionView {
    /// Its addresses and options.
    pub(super) setup: Arc<Setup>,
    /// The send buffer is full.
    pub(super) congested: bool,
}

impl ConnectionView {
    /// `None`: it is not configured.
    pub(super) fn of(resource: &Resource) -> Option<ConnectionView> {
        let inner = resource.inner.lock();
        let setup = inner.setup.clone()?;
        let sockets = inner.sockets.clone();
        drop(inner);
        // Congested as the C driver counts it: four fifths of the send buffer are in use.
        let congested = sockets.is_some_and(|s| {
            let level = s.data.queue_level();
            level.queued > level.sndbuf.saturating_mul(4) / 5
        });
        Some(ConnectionView { setup, congested })
    }
}

/// A resource by itself.
pub(super) struct ResourceView {
    /// Its options.
    pub(super) opts: ResourceOpts,
    /// 0 none, 1 drain, 2 flush.
    pub(super) write_ordering: u32,
}

impl ResourceView {
    /// A look at it.
    pub(super) fn of(resource: &Resource) -> ResourceView {
        let status = resource.inner.lock().machine.resource_status();
        ResourceView { opts: status.opts, write_ordering: status.write_ordering }
    }
}
