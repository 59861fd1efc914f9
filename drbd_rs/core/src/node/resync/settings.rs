// SPDX-License-Identifier: GPL-2.0

//! The settings that a resync looks at, and what it must know of the rest of the node.

use crate::limits::MAX_BIO_SIZE;
use crate::meta::superblock::Flags as Md;
use crate::nl::conf::{DiskConf, NetConf};
use crate::state::{conn, Fencing};
use crate::units::{BmBit, Minor};

use super::super::io::{PeerIx, VolIx};
use super::super::{Resource, Store};
use super::rate::RateConf;
use super::Snapshot;

impl<S: Store> Resource<S> {
    fn disk_conf(&self, vol: VolIx) -> Option<&DiskConf> {
        Some(&self.disk(vol)?.conf)
    }

    pub(super) fn net_conf(&self, peer: PeerIx) -> Option<&NetConf> {
        self.conns.get(usize::from(peer.0))?.ctl.conf.as_ref()
    }

    pub(super) fn rate_conf(&self, vol: VolIx) -> RateConf {
        self.disk_conf(vol)
            .map_or(RateConf::default(), |c| RateConf {
                plan_ahead: c.c_plan_ahead,
                delay_target: c.c_delay_target,
                fill_target: c.c_fill_target,
                max_rate: c.c_max_rate,
                min_rate: c.c_min_rate,
                resync_rate: c.resync_rate,
            })
    }

    /// `max-buffers`: pages of 4 KiB.
    pub(super) fn max_buffers(&self, peer: PeerIx) -> u32 {
        self.net_conf(peer).map_or(0, |c| c.max_buffers)
    }

    pub(super) fn use_rle(&self, peer: PeerIx) -> bool {
        self.net_conf(peer).is_some_and(|c| c.use_rle)
    }

    pub(super) fn disk_flushes(&self, vol: VolIx) -> bool {
        self.disk_conf(vol).is_some_and(|c| c.disk_flushes)
    }

    /// Size of a thin request in bytes; 0: none are made.
    pub(super) fn rs_discard_granularity(&self, vol: VolIx) -> u32 {
        self.disk_conf(vol).map_or(0, |c| c.rs_discard_granularity)
    }

    /// Largest request in bytes: what this device takes.
    pub(super) fn resync_request_limit(&self, vol: VolIx) -> u32 {
        let own = self.rs_vol(vol).map_or(0, |v| v.ctl.max_bio);
        own.clamp(crate::units::BYTES_PER_BIT, MAX_BIO_SIZE)
    }

    /// The volume for which this one waits.
    pub(super) fn resync_after(&self, vol: VolIx) -> Option<Minor> {
        let minor = self.disk_conf(vol)?.resync_after;
        u32::try_from(minor).ok().map(Minor)
    }

    /// Whether a resync as target compares digests first: `csums-alg`, and only after a crash of
    /// this node if `csums-after-crash-only` says so.
    pub(super) fn compares_digests(&self, vol: VolIx, peer: PeerIx) -> bool {
        let knows = self.connected(peer).is_some_and(|a| a.apv >= 89);
        let crashed = self.rs_vol(vol).is_some_and(|v| v.ctl.crashed_primary);
        self.net_conf(peer).is_some_and(|c| {
            knows && !c.csums_alg.is_empty() && (!c.csums_after_crash_only || crashed)
        })
    }

    /// Whether the superblock asks for a full sync.
    pub(super) fn full_sync_due(&self, vol: VolIx) -> bool {
        self.disk(vol)
            .is_some_and(|d| Md(d.flags).contains(Md::FULL_SYNC))
    }

    /// Whether a volume has a fencing policy.
    pub(super) fn fences_peers(&self) -> bool {
        let mut all = self.volumes.iter().flatten();
        all.any(|v| {
            v.backing
                .as_ref()
                .is_some_and(|b| b.disk.fencing() != Fencing::DontCare)
        })
    }

    /// Whether application writes wait for the activity log, and how many sectors this volume
    /// moved on its disk for anybody.
    pub(super) fn app_pressure(&self, vol: VolIx) -> (bool, u64) {
        let counts = self.io_counts(vol);
        let waiting = self.rs_vol(vol).is_some_and(|v| v.io.waits_for_log());
        let moved = counts.read.0.wrapping_add(counts.written.0);
        (waiting, moved)
    }

    /// How many blocks of 4 KiB differ from the peer's, or may.
    pub fn out_of_sync(&self, vol: VolIx) -> u64 {
        self.rs_vol(vol)
            .and_then(|v| v.backing.as_ref())
            .map_or(0, |b| b.bitmap.weight())
    }

    /// Whether this block differs from the peer's, or may; `None` without a disk or behind its end.
    pub fn is_out_of_sync(&self, vol: VolIx, bit: BmBit) -> Option<bool> {
        self.rs_vol(vol)?.backing.as_ref()?.bitmap.test(bit)
    }

    /// How far the resync of a volume is, for status reports.
    pub(crate) fn resync_snapshot(&self, vol: VolIx) -> Snapshot {
        let mut left = self.out_of_sync(vol);
        let Some(rs) = self.rs(vol) else {
            return Snapshot::default();
        };
        let cursor = match self.rs_conn(vol) {
            conn::State::SyncSource | conn::State::PausedSyncS => rs.source.at,
            conn if conn.is_verify() => {
                left = rs.verify.left;
                let backing = self.rs_vol(vol).and_then(|v| v.backing.as_ref());
                let bits = backing.map_or(0, |b| b.bitmap.bits());
                bits.saturating_sub(left)
            }
            _ => rs.target.cursor.0,
        };
        rs.marks.snapshot(left, rs.rate.want(), cursor)
    }

    /// Requests or replies of the resync that the peer has not answered.
    pub(crate) fn resync_pending(&self, vol: VolIx) -> u32 {
        self.rs(vol).map_or(0, |rs| rs.pending)
    }
}
