// SPDX-License-Identifier: GPL-2.0

//! What happens when the network cannot keep up (option `on-congestion`, algorithms.md §7.1).
//!
//! ```text
//!  replicating ─too much on the wire, too many extents in use─▶ Ahead (or Disconnecting)
//!  Ahead: writes are only announced (OUT_OF_SYNC)
//!  Ahead ─nothing of before is unacknowledged, 1 s later─▶ SyncSource
//! ```
//!
//! Differs from the C driver: the way back does not need an acknowledgement of a barrier, which
//! never comes if nothing was in flight when the threshold of extents was reached.

use super::super::control::{Flags, StateChange};
use super::super::io::{Effect, Host, VolIx};
use super::super::note::Note;
use super::super::resync::Side;
use super::super::{Resource, Store, PEER};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::store::slab::Id;
use crate::time::Duration;

/// `on-congestion pull-ahead`; 0 is `block`, 2 `disconnect`.
const PULL_AHEAD: u32 = 1;
/// The first version that knows `Ahead` and `Behind`.
const APV: u32 = 96;
/// How long the network is left alone before the resync starts.
const RECOVERY: Duration = Duration::secs(1);
/// How long the resync is put off while packets are being answered.
const AGAIN: Duration = Duration::millis(100);

impl<S: Store> Resource<S> {
    /// A packet of a request is in TCP's hands.
    pub(super) fn enters_wire(&mut self, id: Id) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        if !r.net.is_live() || core::mem::replace(&mut r.on_wire, true) {
            return;
        }
        let (vol, len) = (r.vol, r.io.range.len.0);
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.on_wire = v.io.on_wire.saturating_add(len);
        }
    }

    /// The live leg of a request to the peer ends: nothing more is expected.
    pub(super) fn leaves_wire(&mut self, id: Id) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        if !r.net.is_live() {
            return;
        }
        let counted = core::mem::take(&mut r.on_wire);
        let (vol, len) = (r.vol, r.io.range.len.0);
        let len = if counted { len } else { 0 };
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.on_wire = v.io.on_wire.saturating_sub(len);
            v.io.live = v.io.live.saturating_sub(1);
        }
    }

    /// Before a write is sent: perhaps too much is under way already.
    pub(super) fn consider_congestion(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(conf) = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref()) else {
            return;
        };
        let (policy, fill, extents) = (conf.on_congestion, conf.cong_fill, conf.cong_extents);
        if policy == 0 || self.connected(PEER).is_none_or(|a| a.apv < APV) {
            return;
        }
        let Some(v) = self.io_vol(vol) else { return };
        let Some(b) = v.backing.as_ref() else { return };
        if v.state.disk != Disk::UpToDate || !v.state.replicates() {
            return;
        }
        // The last writes of a node that is being demoted: the next Primary may be the peer, and
        // needs them. The C driver does not ask.
        if !v.state.role.is_primary() {
            return;
        }
        let full = fill != 0 && v.io.on_wire >= u64::from(fill);
        if !full && b.al.used() < extents {
            return;
        }
        if policy == PULL_AHEAD && self.resync_in_the_way(vol) {
            return;
        }
        self.new_epoch(h);
        let conn = if policy == PULL_AHEAD {
            Conn::Ahead
        } else {
            Conn::Disconnecting
        };
        let change = StateChange::NONE.conn(conn);
        let code = if policy == PULL_AHEAD {
            self.change_state(vol, change, Flags::QUIET, h)
        } else {
            self.change_conn(PEER, change, Flags::QUIET, h)
        };
        if !code.is_success() {
            return;
        }
        if policy == PULL_AHEAD {
            // Before anything is announced: from here on the peer clears no bits.
            self.send_state(vol, self.io_state(vol), h);
        }
        let note = Note::Congested { fill: full };
        let vol = Some(vol);
        h.emit(Effect::Log { vol, note });
    }

    /// The peer may still be writing blocks of the resync. When it is done it clears their bits,
    /// and must not do so behind an announcement that they differ again.
    fn resync_in_the_way(&self, vol: VolIx) -> bool {
        let syncs = self.io_state(vol).conn.is_sync();
        syncs && (self.resync_pending(vol) != 0 || !self.resync_idle(vol))
    }

    /// Looks for the end of the congestion.
    pub(super) fn ahead_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let now = h.now();
        let busy = self
            .io_peer_device(vol, PEER)
            .is_some_and(|p| p.io.unacked != 0);
        let busy = busy || self.resync_pending(vol) != 0 || !self.resync_idle(vol);
        let Some(v) = self.io_vol_mut(vol) else {
            return;
        };
        if v.state.conn != Conn::Ahead {
            v.io.ahead_due = None;
            return;
        }
        // The peer takes the generation that it is ahead by over at the end of the resync.
        let busy = busy || v.io.generation;
        if v.io.ahead_due.is_none() && v.io.live == 0 {
            v.io.ahead_due = Some(now.plus(RECOVERY));
        }
        if v.io.ahead_due.is_none_or(|due| now < due) {
            return;
        }
        if busy {
            v.io.ahead_due = Some(now.plus(AGAIN));
            return;
        }
        // Should the resync not start, the next attempt comes after the same time.
        v.io.ahead_due = Some(now.plus(RECOVERY));
        self.start_resync(vol, Side::Source, h);
    }
}
