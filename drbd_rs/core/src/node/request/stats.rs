// SPDX-License-Identifier: GPL-2.0

//! Numbers for `/proc/drbd` and the status over netlink.

use super::super::io::{Host, VolIx};
use super::super::{Resource, Store, Volume, PEER};
use crate::units::{SectorRange, Sectors};

/// What only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// Sent to the peer, sectors.
    pub(super) sent: Sectors,
    /// Received from the peer, sectors.
    pub(super) received: Sectors,
    /// Written to the own disk, sectors.
    pub(super) written: Sectors,
    /// Read from the own disk, sectors.
    pub(super) read: Sectors,
    /// Bitmap pages written.
    pub(super) bitmap_writes: u32,
}

crate::key::key! {
    Counters {}
    names {}
    not { sent, received, written, read, bitmap_writes }
}

/// What a sector count is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Moved {
    /// Sent to the peer.
    Sent,
    /// Received from the peer.
    Received,
    /// Written to the own disk.
    Written,
    /// Read from the own disk.
    Read,
}

/// The I/O numbers of a volume, as procfs.md names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct IoCounts {
    /// `ns`: sent.
    pub(crate) sent: Sectors,
    /// `nr`: received.
    pub(crate) received: Sectors,
    /// `dw`: written to the disk.
    pub(crate) written: Sectors,
    /// `dr`: read from the disk.
    pub(crate) read: Sectors,
    /// `al`: activity log transactions written.
    pub(crate) al_writes: u32,
    /// `bm`: bitmap pages written.
    pub(crate) bitmap_writes: u32,
    /// `lo`: I/O in flight on the own disk.
    pub(crate) local: u32,
    /// `pe`: requests of applications that the peer has to answer; those of the resync come on top.
    pub(crate) pending: u32,
    /// `ua`: requests of the peer that this node has to answer.
    pub(crate) unacked: u32,
    /// `ap`: requests of applications in flight.
    pub(crate) in_flight: u32,
    /// `ep`: epochs of the peer that are not finished, at least 1.
    pub(crate) epochs: u32,
}

impl<S: Store> Resource<S> {
    /// Counts sectors that moved.
    pub(crate) fn count_moved(&mut self, vol: VolIx, what: Moved, len: Sectors) {
        let Some(v) = self.io_vol_mut(vol) else {
            return;
        };
        let c = &mut v.io.counts;
        let sum = match what {
            Moved::Sent => &mut c.sent,
            Moved::Received => &mut c.received,
            Moved::Written => &mut c.written,
            Moved::Read => &mut c.read,
        };
        sum.0 = sum.0.wrapping_add(len.0);
    }

    /// The numbers of a volume.
    pub(crate) fn io_counts(&self, vol: VolIx) -> IoCounts {
        let Some(v) = self.io_vol(vol) else {
            return IoCounts::default();
        };
        let c = &v.io.counts;
        let peers = || v.peers.iter().map(|p| &p.io);
        IoCounts {
            sent: c.sent,
            received: c.received,
            written: c.written,
            read: c.read,
            al_writes: v.backing.as_ref().map_or(0, |b| b.al.writes()),
            bitmap_writes: c.bitmap_writes,
            local: v.io.local,
            pending: peers().fold(0, |n: u32, p| n.saturating_add(p.pending)),
            unacked: peers().fold(0, |n: u32, p| n.saturating_add(p.unacked)),
            in_flight: v.io.in_flight,
            epochs: self.io_conn(PEER).map_or(1, |c| c.epochs.received.len()),
        }
    }

    /// Requests of applications that the peer has to answer.
    pub(crate) fn network_pending(&self, vol: VolIx) -> u32 {
        self.io_counts(vol).pending
    }

    /// Whether a peer that is there has yet to say of some write that it is stable. Requests that
    /// are frozen since an earlier connection do not count: they go on when somebody thaws them.
    pub(crate) fn peer_lags(&self, vol: VolIx) -> bool {
        let live = self.io_vol(vol).is_some_and(|v| v.io.live != 0);
        let answers = live && self.connected(PEER).is_some();
        answers && (!self.io_state(vol).is_suspended() || self.has_unstable(vol))
    }

    /// The same of what was sent over the connection that stands.
    fn has_unstable(&self, vol: VolIx) -> bool {
        let mut at = self.io.log.oldest();
        while let Some((id, r)) = at.and_then(|id| Some((id, self.io.requests.get(id)?))) {
            at = r.newer;
            let live = r.vol == vol && r.is_write() && r.net.is_live() && !r.postponed;
            if live && self.is_of_this_connection(id) {
                return true;
            }
        }
        false
    }

    /// Whether a write of an application to some of these blocks is under way, or not yet known to
    /// be stable at the peer.
    pub fn is_under_way(&self, vol: VolIx, range: SectorRange) -> bool {
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            at = r.newer;
            if r.vol == vol && r.is_write() && r.io.range.overlaps(range) {
                return true;
            }
        }
        false
    }

    /// A disk was attached: what was counted belongs to another one.
    pub(crate) fn reset_counters(&mut self, vol: VolIx) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.counts = Counters::default();
        }
    }

    /// A connection is configured: what was moved over another one does not count any more.
    pub(crate) fn reset_moved(&mut self) {
        for v in self.volumes.iter_mut().flatten() {
            v.io.counts.sent = Sectors(0);
            v.io.counts.received = Sectors(0);
        }
    }

    /// I/O in flight on the backing device and its metadata; at least one if the resync has any.
    pub(crate) fn local_refs(&self, vol: VolIx) -> u32 {
        let meta = |v: &Volume<S>| v.backing.as_ref().map_or(0, |b| b.meta_io.in_flight());
        self.io_vol(vol).map_or(0, |v| {
            let resync = u32::from(!self.resync_idle(vol));
            v.io.local.saturating_add(meta(v)).saturating_add(resync)
        })
    }

    /// Tells control that a failed disk is not used at the moment, as often as that is seen: the
    /// first time may be too early for it. A disk that is to be dropped is dropped.
    pub(super) fn disk_idle_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        if self.io_vol(vol).is_some_and(|v| v.ctl.drop_due) {
            self.drop_backing(vol, h);
        }
        let failed = self.io_state(vol).disk == crate::state::disk::State::Failed;
        if failed && self.local_refs(vol) == 0 {
            self.local_idle(vol, h);
        }
    }
}
