// SPDX-License-Identifier: GPL-2.0

//! The peer could not read or write, and its disk counts as good: the news of that disk is on its
//! way, on the other socket.
//!
//! With `on-no-data-accessible suspend-io` that news may be what suspends I/O, and then no
//! application hears of an error. So what was refused goes back to the door, and that stays shut
//! until the news is there, or, should it have come first, for a moment. The C driver reads again
//! at once and as often as it takes, and lets writes fail.

use super::request::Request;

use super::super::io::{AppOp, Host, VolIx};
use super::super::{Resource, Store, PEER};
use crate::state::disk::State as Disk;
use crate::store::slab::Id;
use crate::time::{Duration, Instant};

/// How long the news may take before the peer is asked again.
const PATIENCE: Duration = Duration::millis(250);
/// How often it is asked again, for a minute in all: a source of a resync whose disk passes errors
/// on stays as it is, and a receiver that stands still reads the news late.
const TRIES: u8 = 240;

impl<S: Store> Resource<S> {
    /// Whether the error that a request has come to, as the peer has refused it, is nothing to
    /// tell an application for now. Discards may fail on a good disk.
    pub(super) fn waits_for_news(&self, r: &Request, refused: bool) -> bool {
        let tried = match r.io.op {
            AppOp::Read => !r.io.flags.rahead,
            AppOp::Write => true,
            AppOp::Discard | AppOp::WriteZeroes { .. } | AppOp::Flush => false,
        };
        let freezes = self.ctl.opts.on_no_data == 1 && self.io_state(r.vol).role.is_primary();
        let again = refused && tried && r.refusals < TRIES;
        again && freezes && self.counts_on_peer(r.vol)
    }

    fn counts_on_peer(&self, vol: VolIx) -> bool {
        self.io_state(vol).pdsk == Disk::UpToDate && self.connected(PEER).is_some()
    }

    /// Keeps the door shut until the peer has told what is wrong.
    pub(super) fn await_news(&mut self, id: Id, h: &mut impl Host) {
        let until = h.now().plus(PATIENCE);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.refusals = r.refusals.saturating_add(1);
        let vol = r.vol;
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.news_by = Some(until);
        }
    }

    /// Opens the door when it has, or seems to have done so before.
    pub(super) fn news_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(until) = self.io_vol(vol).and_then(|v| v.io.news_by) else {
            return;
        };
        if h.now() >= until || !self.counts_on_peer(vol) {
            if let Some(v) = self.io_vol_mut(vol) {
                v.io.news_by = None;
            }
        }
    }

    /// When a door opens next.
    pub(super) fn news_deadline(&self) -> Option<Instant> {
        let volumes = self.volumes.iter().flatten();
        volumes.filter_map(|v| v.io.news_by).min()
    }
}
