// SPDX-License-Identifier: GPL-2.0

//! Writes that were meant for both disks, and are on the peer's alone, as the own one has failed.
//! So is what a flush was to make stable.
//!
//! The peer does not know until it is told, behind the helper local-io-error, and acknowledges what
//! was sent before as if both had it. It begins a generation when it knows. Should both nodes lose
//! their power before that, the own disk comes back as that of the Primary that crashed, good, with
//! the older data, and is the source of a resync. So nobody hears of such a write before the peer
//! has told another generation, for as long as [`PATIENCE`]. If the connection is lost before, it
//! has failed. The C driver tells at once; its worker, which sends, stands still while the helper
//! runs.

use super::request::{Local, Request};

use super::super::control::differs;
use super::super::io::{AppOp, Host, VolIx};
use super::super::{Resource, Store};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::time::{Duration, Instant};

/// How long a write waits for the generation: a helper may take its time, but not for ever.
const PATIENCE: Duration = Duration::secs(60);

/// The own disk was lost in a generation that the peer's has, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LostDisk {
    /// The current UUID of both.
    uuid: u64,
    /// When nothing waits for another one any more.
    until: Instant,
}

/// Whether an application may hear that a write is done which the peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Counts,
    Waits,
    Lost,
}

impl Request {
    /// The own disk does not have the data that the peer's has, or has not flushed them. Not for a
    /// discard, as in `alone.rs`.
    pub(super) fn is_at_peer_alone(&self) -> bool {
        let writes = matches!(
            self.io.op,
            AppOp::Write | AppOp::WriteZeroes { .. } | AppOp::Flush
        );
        writes && self.local != Local::Ok && self.net.is_good()
    }
}

impl<S: Store> Resource<S> {
    /// The state of a volume changes: perhaps its disk is lost, or there is one again.
    pub(crate) fn note_lost_disk(&mut self, vol: VolIx, old: State, new: State, h: &mut impl Host) {
        if (old.disk <= Disk::Failed) == (new.disk <= Disk::Failed) {
            return;
        }
        let good = old.disk == Disk::UpToDate && new.pdsk == Disk::UpToDate;
        let used = new.role.is_primary() && new.conn >= Conn::Connected;
        let shared = good && used && self.peer_shares_generation(vol);
        let until = h.now().plus(PATIENCE);
        let Some(v) = self.io_vol_mut(vol) else {
            return;
        };
        let own = v.backing.as_ref().map(|b| b.disk.uuids.current);
        let lost = own.filter(|_| shared && new.disk <= Disk::Failed);
        v.io.lost = lost.map(|uuid| LostDisk { uuid, until });
    }

    /// The peer tells the name of its data.
    pub(crate) fn note_generation(&mut self, vol: VolIx, current: u64) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.lost = v.io.lost.filter(|lost| !differs(lost.uuid, current));
        }
    }

    /// Whether the application may hear of a write.
    pub(super) fn peers_word(&mut self, r: &Request, h: &mut impl Host) -> Word {
        let Some(lost) = self.io_vol(r.vol).and_then(|v| v.io.lost) else {
            return Word::Counts;
        };
        if !r.is_at_peer_alone() || h.now() >= lost.until {
            return Word::Counts;
        }
        if self.io_state(r.vol).conn < Conn::Connected {
            return Word::Lost;
        }
        if let Some(v) = self.io_vol_mut(r.vol) {
            v.io.alone = true;
            // Whenever it is told: should the disk be attached again, it is not the last one.
            v.ctl.own_lacks |= r.is_write();
        }
        Word::Waits
    }

    /// Whether writes that are at the peer alone wait.
    pub(super) fn awaits_peer(&self, vol: VolIx, now: Instant) -> bool {
        let connected = self.io_state(vol).conn >= Conn::Connected;
        let lost = self.io_vol(vol).and_then(|v| v.io.lost);
        connected && lost.is_some_and(|lost| now < lost.until)
    }

    /// When they wait no more.
    pub(super) fn peer_deadline(&self) -> Option<Instant> {
        let volumes = self.volumes.iter().flatten().filter(|v| v.io.alone);
        volumes.filter_map(|v| Some(v.io.lost?.until)).min()
    }
}
