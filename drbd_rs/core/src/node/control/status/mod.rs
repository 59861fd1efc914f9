// SPDX-License-Identifier: GPL-2.0

//! What the machine tells of itself: snapshots for `/proc/drbd` and netlink, and queue limits.
//!
//! Snapshots are copies. Making one changes nothing.

pub mod proc;

use crate::limits::{MAX_BATCH_BIO_SIZE, MAX_BIO_SIZE, MAX_BIO_SIZE_SAFE};
use crate::nl::conf::{DiskConf, NetConf, ResourceOpts};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{aggregate, Role, State};
use crate::units::{Minor, Sectors, Vnr};
use crate::uuid::UuidSet;
use crate::wire::{self, feature};

use super::super::io::{PeerIx, VolIx};
use super::super::request::Ordering;
use super::super::{Resource, Store, PEER};
use super::Suspended;

/// Most bytes of one discard without FF_WSAME: one extent of the activity log.
const DISCARD_SMALL: u32 = 4 << 20;

/// A volume.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// Minor number.
    pub minor: Minor,
    /// Number in the resource.
    pub vnr: Vnr,
    /// State.
    pub state: State,
    /// Size of the block device.
    pub size: Sectors,
    /// The disk's options; `None` without a disk.
    pub disk_conf: Option<DiskConf>,
    /// UUIDs of the superblock.
    pub uuids: Option<UuidSet>,
    /// Flags of the superblock.
    pub disk_flags: u32,
    /// UUID of the data in use.
    pub ed_uuid: u64,
    /// Bits in the bitmap.
    pub bits: u64,
    /// Bits out of sync.
    pub out_of_sync: u64,
    /// Writes leave the activity log alone.
    pub al_suspended: bool,
    /// Bits of the resync at its start.
    pub rs_total: u64,
    /// Bits that could not be synced.
    pub rs_failed: u64,
    /// Sent, received, written, read.
    pub moved: [Sectors; 4],
    /// Transactions of the activity log, pages of the bitmap written.
    pub md_writes: [u32; 2],
    /// I/O in flight on the own disk.
    pub local: u32,
    /// Application requests that the peer has to answer.
    pub pending: u32,
    /// Resync requests that the peer has to answer.
    pub rs_pending: u32,
    /// Requests of the peer that this node has to answer.
    pub unacked: u32,
    /// Application requests in flight.
    pub in_flight: u32,
    /// Epochs of the peer under way.
    pub epochs: u32,
    /// Bitmap UUID, flags word of the peer's last UUIDS.
    pub peer_flags: u64,
    /// `drbdsetup wait-*`: 0 usual, 1 degraded, 2 the peer is outdated.
    pub timeout_type: u32,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Its state.
    pub cstate: Conn,
    /// Role of the peer.
    pub peer_role: Role,
    /// The options; `None` while it is not configured.
    pub conf: Option<NetConf>,
    /// Agreed protocol version and feature flags.
    pub agreed: Option<(u32, u32)>,
    /// The algorithm of the digests that the peer sends.
    pub peer_integrity: wire::Name64,
}

/// A resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceInfo {
    /// The options.
    pub opts: ResourceOpts,
    /// Primary if any volume is.
    pub role: Role,
    /// `suspend-io`, no data, fencing.
    pub suspended: [bool; 3],
    /// 0 none, 1 drain, 2 flush.
    pub write_ordering: u32,
}

/// Limits of the block device (algorithms.md §11); bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueueLimits {
    /// Largest read or write.
    pub max_bio: u32,
    /// Logical block size.
    pub logical_block: u32,
    /// Physical block size.
    pub physical_block: u32,
    /// Offset of the first aligned block.
    pub alignment_offset: u32,
    /// Smallest preferred request.
    pub io_min: u32,
    /// Optimal request.
    pub io_opt: u32,
    /// Largest discard; 0: none.
    pub max_discard: u32,
    /// Largest zero-out; 0: none.
    pub max_write_zeroes: u32,
    /// A volatile write cache is announced.
    pub write_cache: bool,
    /// FUA is announced.
    pub fua: bool,
    /// It seeks slowly.
    pub rotational: bool,
}

impl<S: Store> Resource<S> {
    /// The volumes that exist.
    pub fn volume_list(&self) -> impl Iterator<Item = VolIx> + '_ {
        (0..self.volume_slots())
            .map(VolIx)
            .filter(|v| self.vol(*v).is_some())
    }

    /// The UUIDs of the disk of a volume, as they are in memory; `None` as long as it attaches.
    pub fn data_uuids(&self, vol: VolIx) -> Option<UuidSet> {
        let v = self.vol(vol)?;
        let shown = v.state.disk != Disk::Attaching;
        v.backing.as_ref().filter(|_| shown).map(|b| b.disk.uuids)
    }

    /// A snapshot of a volume.
    pub fn volume_status(&self, vol: VolIx) -> Option<Volume> {
        let v = self.vol(vol)?;
        let shown = v.state.disk > Disk::Attaching;
        let b = v.backing.as_ref().filter(|_| shown);
        let io = self.io_counts(vol);
        let rs = self.resync_snapshot(vol);
        let timeout_type = if v.state.pdsk == Disk::Outdated {
            2
        } else {
            u32::from(v.ctl.degraded_wfc)
        };
        Some(Volume {
            minor: v.minor,
            vnr: v.vnr,
            state: v.state,
            size: v.size,
            disk_conf: b.map(|b| b.disk.conf),
            uuids: b.map(|b| b.disk.uuids),
            disk_flags: b.map_or(0, |b| b.disk.flags),
            ed_uuid: v.ctl.ed_uuid,
            bits: b.map_or(0, |b| b.bitmap.bits()),
            out_of_sync: b.map_or(0, |b| b.bitmap.weight()),
            al_suspended: v.ctl.al_suspended,
            rs_total: rs.total,
            rs_failed: rs.failed,
            moved: [io.sent, io.received, io.written, io.read],
            md_writes: [io.al_writes, io.bitmap_writes],
            local: io.local,
            pending: io.pending,
            rs_pending: self.resync_pending(vol),
            unacked: io.unacked,
            in_flight: io.in_flight,
            epochs: io.epochs,
            peer_flags: v
                .peers
                .first()
                .and_then(|p| p.ctl.uuids)
                .map_or(0, |u| u.flags),
            timeout_type,
        })
    }

    /// A snapshot of the connection to a peer.
    pub fn connection_status(&self, peer: PeerIx) -> Option<Connection> {
        let c = self.conn(peer)?;
        let sum = aggregate::summarize(c.ctl.cstate, self.states());
        Some(Connection {
            cstate: c.ctl.cstate,
            peer_role: sum.highest.peer,
            conf: c.ctl.conf,
            agreed: c.ctl.agreed.map(|a| (a.apv, a.features)),
            peer_integrity: c.ctl.peer_integrity,
        })
    }

    /// A snapshot of the resource itself.
    pub fn resource_status(&self) -> ResourceInfo {
        let Suspended {
            user,
            no_data,
            fencing,
        } = self.ctl.susp;
        ResourceInfo {
            opts: self.ctl.opts,
            role: aggregate::highest_role(self.states()),
            suspended: [user, no_data, fencing],
            write_ordering: match self.write_ordering() {
                Ordering::None => 0,
                Ordering::Drain => 1,
                Ordering::Flush => 2,
            },
        }
    }

    /// The largest read or write of a volume.
    pub(super) fn max_bio(&self, vol: VolIx) -> u32 {
        let Some(v) = self.vol(vol) else {
            return MAX_BIO_SIZE_SAFE;
        };
        let told = v.peers.first().map_or(0, |p| p.ctl.max_bio);
        let stored = v
            .backing
            .as_ref()
            .map_or(told, |b| b.disk.la_peer_max_bio.max(told));
        let stored = stored.max(MAX_BIO_SIZE_SAFE);
        let peer = match self.agreed(PEER).map(|a| a.apv) {
            None => stored,
            Some(0..=93) => stored.min(32 << 10),
            Some(94) => 32 << 10,
            Some(95..=99) => 128 << 10,
            Some(_) => MAX_BIO_SIZE,
        };
        let own = v
            .backing
            .as_ref()
            .map_or(MAX_BIO_SIZE, |b| b.disk.limits.max_bio);
        // Never below what any block layer needs, and in whole blocks.
        own.min(peer).clamp(MAX_BIO_SIZE_SAFE, MAX_BIO_SIZE) & !0xfff
    }

    /// The limits of the block device now.
    pub fn queue_limits(&self, vol: VolIx) -> QueueLimits {
        let agreed = self.agreed(PEER);
        let has = |flag: u32| agreed.is_some_and(|a| a.features & flag != 0);
        let Some(v) = self.vol(vol) else {
            return QueueLimits::default();
        };
        let own = v.backing.as_ref().map(|b| b.disk.limits);
        let peer = v.peers.first().and_then(|p| p.ctl.limits);
        let l = own.unwrap_or_default();
        let p = peer.unwrap_or_default();
        let can = own.map_or(p.discard_enabled != 0, |l| l.discard);
        let max_discard = match (can && (agreed.is_none() || has(feature::TRIM)), agreed) {
            (false, _) => 0,
            (true, Some(_)) if !has(feature::WSAME) => DISCARD_SMALL,
            (true, _) => MAX_BATCH_BIO_SIZE,
        };
        // A C peer miscounts ZEROES where digests are on (wire.md §6).
        let digests = self
            .conn(PEER)
            .and_then(|c| c.ctl.conf.as_ref())
            .is_some_and(|n| !n.integrity_alg.is_empty());
        let zeroes = has(feature::WZEROES) && !digests;
        let logical = l.logical_block.max(p.logical_block_size).clamp(512, 4096);
        QueueLimits {
            max_bio: v.ctl.max_bio,
            logical_block: logical,
            physical_block: l.physical_block.max(p.physical_block_size).max(logical),
            alignment_offset: l.alignment_offset,
            io_min: l.io_min.max(p.io_min).max(logical),
            io_opt: l.io_opt.max(p.io_opt),
            max_discard,
            max_write_zeroes: if zeroes { MAX_BATCH_BIO_SIZE } else { 0 },
            write_cache: own.is_none_or(|l| l.write_cache),
            fua: own.is_none_or(|l| l.fua),
            rotational: own.is_none_or(|l| l.rotational),
        }
    }

    /// The limits as the peer is told of them.
    pub(super) fn wire_limits(&self, vol: VolIx) -> wire::QueueLimits {
        let q = self.queue_limits(vol);
        let own = self.disk(vol).map(|d| d.limits);
        wire::QueueLimits {
            physical_block_size: q.physical_block,
            logical_block_size: q.logical_block,
            alignment_offset: q.alignment_offset,
            io_min: q.io_min,
            io_opt: q.io_opt,
            discard_enabled: u8::from(own.is_some_and(|l| l.discard)),
            discard_zeroes_data: 0,
            write_same_capable: 0,
        }
    }
}
