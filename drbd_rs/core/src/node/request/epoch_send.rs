// SPDX-License-Identifier: GPL-2.0

//! Epochs of the own writes: which of them may depend on which.
//!
//! The transfer log numbers epochs; a new one begins whenever something that was written may be
//! known to somebody. On the wire a barrier separates two epochs, sent before the first write of
//! the later one, or when nothing follows. Each barrier goes into a ring with the number of writes
//! before it; the peer acknowledges in that order, with that number.

use super::proof::Proof;
use super::UNIT;

use super::super::io::{Host, PeerIx, Sock};
use super::super::{Resource, Store, Violation};
use super::request::{Answer, Expect, Local};
use crate::state::disk::State as Disk;
use crate::store::slab::Id;
use crate::time::Instant;
use crate::wire::{Barrier, BarrierAck, BarrierNr, Command, Packet};

/// An epoch that was closed by a barrier and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentEpoch {
    nr: u32,
    writes: u32,
    pub(super) barrier_at: Instant,
}

crate::key::key! {
    SentEpoch { writes }
    names { nr: EPOCH }
    not { barrier_at }
}

/// The epoch that is being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// A write was sent on this connection.
    started: bool,
    nr: u32,
    writes: u32,
}

crate::key::key! {
    Sending { started, writes }
    names { nr: EPOCH }
    not {}
}

impl Sending {
    pub(super) const NEW: Sending = Sending {
        started: false,
        nr: 0,
        writes: 0,
    };
}

/// Whether epoch `a` is `b` or an earlier one; numbers wrap.
pub(super) const fn up_to(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

impl<S: Store> Resource<S> {
    /// Begins a new epoch of the transfer log, unless the open one is empty.
    pub(crate) fn new_epoch(&mut self, _h: &mut impl Host) {
        if self.io.epoch_writes != 0 {
            self.io.epoch_writes = 0;
            self.io.epoch = self.io.epoch.wrapping_add(1);
        }
    }

    /// Before anything of epoch `epoch` is sent: closes the one before.
    pub(super) fn before_send(&mut self, peer: PeerIx, epoch: u32, h: &mut impl Host) {
        let now = h.now();
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        let s = e.sending;
        if !s.started || s.nr == epoch {
            return;
        }
        e.sending = Sending {
            started: true,
            nr: epoch,
            writes: 0,
        };
        if s.writes == 0 {
            return;
        }
        let sent = SentEpoch {
            nr: s.nr,
            writes: s.writes,
            barrier_at: now,
        };
        // Every epoch in the ring has a request in the slab, which is as long.
        let stored = self.io.sent_epochs.push_back(sent);
        debug_assert!(stored.is_ok());
        let packet = Packet::Barrier(Barrier {
            nr: BarrierNr(s.nr),
        });
        self.send_plain(peer, Sock::Data, 0, packet, h);
    }

    /// A write of epoch `epoch` follows.
    pub(super) fn count_sent_write(&mut self, peer: PeerIx, epoch: u32) {
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        if !e.sending.started {
            e.sending = Sending {
                started: true,
                nr: epoch,
                writes: 0,
            };
        }
        e.sending.writes = e.sending.writes.saturating_add(1);
    }

    /// The peer did not take a write of epoch `epoch`: it does not count. An epoch without writes
    /// is not acknowledged.
    pub(super) fn uncount_sent_write(&mut self, peer: PeerIx, epoch: u32) {
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        if e.sending.started && e.sending.nr == epoch {
            e.sending.writes = e.sending.writes.saturating_sub(1);
            return;
        }
        // An empty one goes at once, wherever it is: a write that the peer sends back again and
        // again, as two Primaries do, begins one each time, while the first waits for a slow disk.
        let sent = &mut self.io.sent_epochs;
        for _ in 0..sent.len() {
            let Some(mut e) = sent.pop_front() else { break };
            if e.nr == epoch {
                e.writes = e.writes.saturating_sub(1);
            }
            if e.writes != 0 {
                let stored = sent.push_back(e);
                debug_assert!(stored.is_ok());
            }
        }
    }

    /// Sends the barrier of an epoch that is over although nothing follows it.
    #[inline(never)]
    pub(super) fn close_idle_epoch(&mut self, peer: PeerIx, h: &mut impl Host) {
        let open = self.io.epoch;
        let Some(e) = self.io_conn(peer).map(|c| &c.epochs) else {
            return;
        };
        let s = e.sending;
        let frozen = self.io.thaw.is_running();
        if s.started && s.writes != 0 && s.nr != open && !frozen && self.connected(peer).is_some() {
            self.before_send(peer, open, h);
        }
    }

    /// The peer says that an epoch is stable. See `proof.rs` for what that is worth.
    pub(super) fn recv_barrier_ack(
        &mut self,
        peer: PeerIx,
        ack: BarrierAck,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(oldest) = self.io.sent_epochs.front().copied() else {
            return Err(Violation::BarrierAck);
        };
        if oldest.nr != ack.nr.0 || oldest.writes != ack.set_size {
            return Err(Violation::BarrierAck);
        }
        self.io.sent_epochs.pop_front();
        while self.io.sent_epochs.front().is_some_and(|e| e.writes == 0) {
            self.io.sent_epochs.pop_front();
        }
        self.epoch_heard(peer, oldest.nr, h);
        Ok(())
    }

    /// Takes the writes of stable epochs off the wire; true if room ran out.
    #[inline(never)]
    pub(super) fn acked_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let Some(acked) = self.io_conn(peer).and_then(|c| c.epochs.acked) else {
            return false;
        };
        let mut at = self.io.log.oldest();
        while let Some(id) = at {
            let Some(r) = self.io.requests.get(id).copied() else {
                break;
            };
            if !up_to(r.epoch, acked) {
                break;
            }
            at = r.newer;
            if !r.is_write() || !r.net.is_live() {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            if r.postponed {
                // It does not count in its epoch any more.
                continue;
            }
            if r.net.is_undecided() && r.expect != Expect::Sent {
                // Its acknowledgement had to come first, on the same socket.
                self.protocol_error(peer, Command::BarrierAck, Violation::BarrierAck, h);
                break;
            }
            self.epoch_releases(id, h);
            self.net_finish(id);
            self.settle(id, h);
        }
        if let Some(e) = self.io_epochs(peer) {
            e.acked = None;
        }
        false
    }

    /// I/O that is suspended does not hold back what is stable at the peer. Not so a write that the
    /// peer has refused, or whose disk it has lost since, unflushed: it may be only on a disk that
    /// is gone, or only here, and the peer come back without it. If its application knows of it,
    /// a generation begins before the peer is greeted again, if this node has it: a disk that was
    /// not there is older than the peer's. The C driver lets all of them go.
    fn epoch_releases(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        let s = self.io_state(r.vol);
        let gone = s.pdsk < Disk::Inconsistent;
        if gone && r.io.range.len.0 != 0 {
            // The own disk may be done with it when the connection has long been lost, and with it
            // what is known here of the peer's disk.
            self.set_out_of_sync(r.vol, r.io.range, h);
        }
        let lost = s.is_suspended() && gone;
        if !r.net.is_refused() && !lost {
            if let Some(r) = self.io.requests.get_mut(id) {
                r.release = true;
            }
        } else if lost && r.completed {
            // Without a disk here there is nothing that the peer could get.
            let here = r.local == Local::Ok && s.disk == Disk::UpToDate;
            if let Some(v) = self.io_vol_mut(r.vol) {
                v.ctl.frozen_lost |= here;
            }
        } else if lost {
            self.net_answer(id, Answer::Refused);
        }
    }

    /// A new connection begins with no epoch.
    pub(super) fn reset_sent_epochs(&mut self, peer: PeerIx) {
        self.io.sent_epochs.clear();
        if let Some(e) = self.io_epochs(peer) {
            e.sending = Sending::NEW;
            e.acked = None;
            e.proof = Proof::NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_numbers_wrap() {
        assert!(up_to(5, 5) && up_to(4, 5) && !up_to(6, 5));
        assert!(up_to(u32::MAX, 0) && !up_to(0, u32::MAX));
    }
}
