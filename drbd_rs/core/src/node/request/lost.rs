// SPDX-License-Identifier: GPL-2.0

//! The end of a connection, seen from I/O.
//!
//! Begins when both sockets are closed and the sender stands still: from then on nobody touches
//! pages or buffers that were queued. What the peer had begun on the disk is waited for. Own
//! requests lose their leg to the peer, except while I/O is suspended: then they are frozen, to be
//! sent again or given up when it is resumed.

use super::peer_write::{PeerRequest, Stage};
use super::request::{Answer, Request, Stage as ReqStage};
use super::UNIT;

use super::super::control::Next as ControlNext;
use super::super::io::{Host, PeerIx};
use super::super::{After, Resource, Store};
use crate::store::slab::Id;

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Losing {
    /// It has not ended.
    No,
    /// Requests of the peer go, those on the disk are waited for.
    PeerIo,
    /// Own requests lose their leg, or are frozen.
    OwnIo,
}

impl<S: Store> Resource<S> {
    /// The connection to `peer` is closed. Runs [`ControlNext::RequestsQuiet`] when nothing of it
    /// is left.
    pub(crate) fn requests_connection_lost(&mut self, peer: PeerIx, h: &mut impl Host) {
        if let Some(e) = self.io_epochs(peer) {
            e.losing = Losing::PeerIo;
            e.incarnation = e.incarnation.wrapping_add(1);
        }
        self.lost_pump(peer, h);
    }

    /// A new connection stands: sequence numbers and epochs begin anew.
    pub(crate) fn requests_connected(&mut self, peer: PeerIx) {
        self.reset_sent_epochs(peer);
        for vol in self.io_volumes() {
            if let Some(p) = self.io_peer_device(vol, peer) {
                p.io.seq = 0;
                p.io.peer_seq = 0;
            }
        }
    }

    /// Goes on with the end of a connection; true if room ran out.
    #[inline(never)]
    pub(super) fn lost_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let Some(losing) = self.io_conn(peer).map(|c| c.epochs.losing) else {
            return false;
        };
        match losing {
            Losing::No => false,
            Losing::PeerIo => self.lose_peer_io(peer, h),
            Losing::OwnIo => self.lose_own_io(peer, h),
        }
    }

    fn lose_peer_io(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        self.io.peer_waiting.clear();
        self.io.patience = None;
        let idle = |r: &PeerRequest| matches!(r.stage, Stage::Waiting | Stage::Replying);
        loop {
            let next = self.io.peer_requests.iter().find(|(_, r)| idle(r));
            let Some(id) = next.map(|(id, _)| id) else {
                break;
            };
            if h.room() < UNIT {
                return true;
            }
            self.forget_peer_request(id, h);
        }
        let flushes = self
            .io_conn(peer)
            .map_or(0, |c| c.epochs.received.flushes());
        if self.peer_active(peer) != 0 || flushes != 0 {
            return false;
        }
        for vol in self.io_volumes() {
            if let Some(p) = self.io_peer_device(vol, peer) {
                p.io.unacked = 0;
            }
        }
        self.reset_received_epochs(peer);
        self.reset_sent_epochs(peer);
        if let Some(e) = self.io_epochs(peer) {
            e.losing = Losing::OwnIo;
        }
        self.lose_own_io(peer, h)
    }

    fn lose_own_io(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let frozen = self
            .volumes
            .iter()
            .flatten()
            .any(|v| v.state.is_suspended());
        let mut at = self.io.log.oldest();
        while let Some(id) = at {
            let Some(r) = self.io.requests.get(id) else {
                break;
            };
            at = r.newer;
            if !r.net.is_queued() && (frozen || !r.net.is_live()) {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            if frozen {
                if let Some(r) = self.io.requests.get_mut(id) {
                    r.net.set_sent();
                }
                self.settle(id, h);
            } else if self.is_worth_nothing(id) {
                self.begin_anew(id, h);
            } else {
                self.net_lost(id, h);
            }
        }
        if let Some(e) = self.io_epochs(peer) {
            e.losing = Losing::No;
        }
        self.run_soon(After::Control(ControlNext::RequestsQuiet { peer }), true, h);
        false
    }

    /// Whether only the peer could have had a write, though the own disk says that it has it: that
    /// one was lost and is back. As with what was frozen, which is the same if I/O goes on a moment
    /// before the connection has come to its end.
    fn is_worth_nothing(&self, id: Id) -> bool {
        let open = |r: &&Request| r.stage == ReqStage::Active && !r.completed && r.net.is_live();
        let request = self.io.requests.get(id).filter(open);
        request.is_some_and(|r| self.is_stale(r) && self.io_has_disk(r.vol))
    }

    /// The leg to the peer is gone for good: whatever the peer said, its copy may lack the data.
    pub(super) fn net_lost(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.net.set_sent();
        if !r.net.is_live() {
            // Finished before; only the sender had not said so.
            self.settle(id, h);
            return;
        }
        r.release = true;
        r.postponed = false;
        self.net_answer(id, Answer::Lost);
        self.net_finish(id);
        self.settle(id, h);
    }
}
