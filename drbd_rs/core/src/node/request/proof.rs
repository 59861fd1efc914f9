// SPDX-License-Identifier: GPL-2.0

//! Whether what the peer called stable is stable.
//!
//! A C peer acknowledges an epoch when its writes have ended, and flushes its disk after that
//! (`receive_Barrier`). Should it lose power in between, the writes may be gone although this node
//! was told to forget them: two disks that both count as up to date would differ. But the C driver
//! flushes in its receiver, which looks at the next packet of the data socket only when the flush
//! has ended. So an epoch counts as stable when the peer has answered anything that was sent behind
//! its barrier: a write of a later epoch, the next barrier, a request for a state change. Until
//! then its writes stay in the transfer log, and a connection that ends marks them out of sync.
//!
//! When nothing more is written, no such answer would come. The peer is asked then, with a request
//! for a state change that changes nothing: the one packet of the data socket that every version
//! answers and that has no effect.

use super::epoch_send::up_to;

use super::super::io::{Host, PeerIx, VolIx};
use super::super::{Resource, Store};
use super::UNIT;
use crate::time::{Duration, Instant};

/// How long an answer is waited for that comes by itself. Writes that follow each other directly
/// prove each other; this is for the last one of many.
const PATIENCE: Duration = Duration::millis(200);

/// The last epoch that the peer acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof {
    /// Its number, while nothing shows that it is stable.
    heard: Option<u32>,
    /// When to ask the peer.
    due: Instant,
    /// When it was asked, while it has not answered.
    asked: Option<Instant>,
}

impl core::hash::Hash for Proof {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.heard.is_some().hash(state);
        if let Some(nr) = self.heard {
            crate::key::name(crate::key::EPOCH, u64::from(nr), state);
        }
        (self.due(), self.asked).hash(state);
    }
}

impl Proof {
    pub(super) const NONE: Proof = Proof {
        heard: None,
        due: Instant(0),
        asked: None,
    };

    /// When the peer is to be asked, if it was not.
    const fn due(&self) -> Option<Instant> {
        match (self.heard, self.asked) {
            (Some(_), None) => Some(self.due),
            (Some(_), Some(_)) | (None, _) => None,
        }
    }

    /// Since when it owes an answer.
    pub(super) const fn asked(&self) -> Option<Instant> {
        self.asked
    }
}

impl<S: Store> Resource<S> {
    /// The peer acknowledged the oldest epoch, so the one before it is stable.
    pub(super) fn epoch_heard(&mut self, peer: PeerIx, nr: u32, h: &mut impl Host) {
        let due = h.now().plus(PATIENCE);
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        e.proof.due = due;
        if let Some(before) = e.proof.heard.replace(nr) {
            e.acked = Some(before);
            self.acked_pump(peer, h);
        }
    }

    /// The peer answered a write of epoch `nr`.
    pub(super) fn epoch_answered(&mut self, peer: PeerIx, nr: u32, h: &mut impl Host) {
        let heard = self.io_conn(peer).and_then(|c| c.epochs.proof.heard);
        if heard.is_some_and(|heard| !up_to(nr, heard)) {
            self.epoch_proven(peer, h);
        }
    }

    /// The peer answered something that was sent behind the barrier of each epoch that it had
    /// acknowledged before.
    pub(crate) fn epoch_proven(&mut self, peer: PeerIx, h: &mut impl Host) {
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        e.proof.asked = None;
        if let Some(heard) = e.proof.heard.take() {
            e.acked = Some(heard);
            self.acked_pump(peer, h);
        }
    }

    /// Somebody waits until all that the peer acknowledged is stable: it is asked without delay.
    pub(crate) fn hurry_proof(&mut self, peer: PeerIx, h: &mut impl Host) {
        let now = h.now();
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        if e.proof.due > now {
            e.proof.due = now;
            // In this step, though others may have had their turn.
            self.ctl.stirred = true;
        }
    }

    /// Asks the peer, if nothing else makes it answer; true if room ran out.
    #[inline(never)]
    pub(super) fn proof_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let Some(due) = self.proof_deadline(peer) else {
            return false;
        };
        let now = h.now();
        let starving = self
            .volumes
            .iter()
            .flatten()
            .any(|v| !v.io.al_wait.is_empty());
        if now < due && !starving {
            return false;
        }
        let Some(vol) = self.oldest_replicated() else {
            // Nothing is left of the epoch.
            self.epoch_proven(peer, h);
            return false;
        };
        if h.room() < UNIT {
            return true;
        }
        if let Some(e) = self.io_epochs(peer) {
            e.proof.asked = Some(now);
        }
        self.ask_for_nothing(peer, vol, h);
        false
    }

    /// When the peer is to be asked. Not while it owes an answer anyway, and not behind the end of
    /// the connection.
    pub(super) fn proof_deadline(&self, peer: PeerIx) -> Option<Instant> {
        self.connected(peer)?;
        let due = self.io_conn(peer)?.epochs.proof.due()?;
        (!self.owes_reply(peer)).then_some(due)
    }

    /// A volume that the peer has for certain.
    fn oldest_replicated(&self) -> Option<VolIx> {
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            if r.is_write() && r.net.is_live() {
                return Some(r.vol);
            }
            at = r.newer;
        }
        None
    }
}
