// SPDX-License-Identifier: GPL-2.0

//! Patience with a peer that answers pings but does not do its part of a handshake.
//!
//! ```text
//!  a state in which the next step is the peer's ──(5 min, nothing moves)──▶ connect anew
//! ```
//!
//! Between the first word of a connection and the beginning of a resync there are states that only
//! the peer can end. Pings do not tell that it never will, as when the two nodes came to different
//! conclusions, and there is no resync, and no redundancy, for as long as that lasts; so it is with
//! the C driver. Another handshake may do better.
//!
//! A peer that is slow is left alone. Nothing is counted while something is under way here, or I/O
//! is suspended, here or, as far as it has said, at the peer; a bitmap that flows counts as a move;
//! and each time in a row that it happens takes twice as long, since a helper of the peer's may be
//! at work, or its disk. Where peers are fenced by shooting them it is noted only: a Primary might
//! take this for a crash.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Fencing, State};
use crate::time::{Duration, Instant};

use super::super::io::{Host, ReceiverWish, VolIx};
use super::super::note::Note;
use super::super::{Resource, Store, PEER};

/// How long nothing may move, the first time.
const PATIENCE: Duration = Duration::secs(300);
/// It is doubled so often at most.
const DOUBLED: u32 = 3;

/// A wait for the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// Since when, and in which state.
    begun: Option<(Instant, State)>,
    /// How often it was in vain, since one was not.
    vain: u32,
}

impl Wait {
    /// None.
    pub(crate) const NONE: Wait = Wait {
        begun: None,
        vain: 0,
    };

    fn patience(&self) -> Duration {
        PATIENCE.times(1_u64.wrapping_shl(self.vain.min(DOUBLED)))
    }

    fn ends(&self) -> Option<Instant> {
        let (since, _) = self.begun?;
        Some(since.plus(self.patience()))
    }
}

impl<S: Store> Resource<S> {
    pub(super) fn wait_deadline(&self) -> Option<Instant> {
        let volumes = self.volumes.iter().flatten();
        volumes.filter_map(|v| v.ctl.wait.ends()).min()
    }

    /// Looks how long each volume has been waiting for the peer. True: too long, for one of them.
    pub(super) fn waits_pump(&mut self, h: &mut impl Host) -> bool {
        let now = h.now();
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let waits = self.waits_for_peer(vol);
            let Some(v) = self.vol_mut(vol) else { continue };
            let (s, wait) = (v.state, &mut v.ctl.wait);
            if !waits {
                wait.begun = None;
                if s.conn.is_sync() || s.conn.is_verify() {
                    wait.vain = 0;
                }
                continue;
            }
            match wait.begun {
                Some((_, state)) if state == s => {}
                Some(_) | None => wait.begun = Some((now, s)),
            }
            if wait.ends().is_some_and(|at| now >= at) {
                self.waited_in_vain(vol, h);
                return true;
            }
        }
        false
    }

    fn waited_in_vain(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let secs = v.ctl.wait.patience().as_secs();
        v.ctl.wait.vain = v.ctl.wait.vain.saturating_add(1);
        v.ctl.wait.begun = None;
        self.log(vol, Note::WaitedInVain { secs }, h);
        let shoots = |d: &super::Disk| d.fencing() == Fencing::ResourceAndStonith;
        if !self.disk(vol).is_some_and(shoots) {
            self.connect_anew(h);
        }
    }

    /// Whether nothing but a word of the peer's can move this volume on.
    fn waits_for_peer(&self, vol: VolIx) -> bool {
        let Some(v) = self.vol(vol) else {
            return false;
        };
        let s = v.state;
        let turn = match s.conn {
            Conn::WFReportParams => true,
            Conn::WFBitMapS | Conn::WFBitMapT => !self.exchange_moves(vol),
            Conn::WFSyncUUID => !self.resync_begins(vol) && !self.resync_has_name(vol),
            Conn::Connected => s.disk == Disk::Negotiating,
            Conn::StandAlone
            | Conn::Disconnecting
            | Conn::Unconnected
            | Conn::Timeout
            | Conn::BrokenPipe
            | Conn::NetworkFailure
            | Conn::ProtocolError
            | Conn::TearDown
            | Conn::WFConnection
            | Conn::StartingSyncS
            | Conn::StartingSyncT
            | Conn::SyncSource
            | Conn::SyncTarget
            | Conn::VerifyS
            | Conn::VerifyT
            | Conn::PausedSyncS
            | Conn::PausedSyncT
            | Conn::Ahead
            | Conn::Behind => false,
        };
        let holds = s.is_suspended() || v.peers.iter().any(|p| p.ctl.suspended);
        let runs = self.receiver_wish(PEER) == ReceiverWish::Run;
        turn && !holds && runs && self.nothing_begins(vol)
    }

    /// Whether the peer, as it has told, holds its I/O back: it may have to let it go first.
    pub(super) fn note_suspension(&mut self, vol: VolIx, peer: State) {
        for p in self
            .vol_mut(vol)
            .into_iter()
            .flat_map(|v| v.peers.iter_mut())
        {
            p.ctl.suspended = peer.is_suspended();
        }
    }
}
