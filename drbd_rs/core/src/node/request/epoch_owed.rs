// SPDX-License-Identifier: GPL-2.0

//! Barrier acknowledgements that are put off for the sake of a C peer.
//!
//! A C sender counts the writes of an epoch that it still knows when the acknowledgement comes, and
//! ends the connection if the number is another. A write that lost against one of this node's
//! (`conflict.rs`) is forgotten there at the latest when that one has been answered. So until then
//! the acknowledgement of its epoch, and of those behind, stays here, but not for ever: the winner
//! may be waiting at a C peer behind a request of a resync, and that for the acknowledgement. As
//! long as it waits for an answer to the winner itself, so long does this. Then a C peer connects
//! anew; this driver counts as the peer does, and goes on.

use super::epoch_send::up_to;
use super::UNIT;

use super::super::io::{Host, PeerIx, Sock};
use super::super::{Resource, Store};
use crate::store::slab::Id;
use crate::time::{Duration, Instant};
use crate::wire::{BarrierAck, Packet};

/// Acknowledgements, and reasons to put them off, that fit; with more the oldest one leaves.
const PLACES: usize = 16;

/// For `ko-count 0`, which sets no limit: the default of `ko-count`.
const KO_COUNT: u32 = 7;

/// What is put off and why.
#[derive(Clone, Copy)]
pub(super) struct Owed {
    /// Number of the epoch and its acknowledgement, in order.
    acks: [Option<(u32, BarrierAck)>; PLACES],
    /// An epoch that lost a write, and the own write that won.
    yields: [Option<(u32, Id)>; PLACES],
    /// When the oldest acknowledgement leaves in any case; `None`: it does not wait.
    until: Option<Instant>,
}

impl core::hash::Hash for Owed {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let name = |n: u32, state: &mut H| {
            crate::key::name(crate::key::PEER_EPOCH, u64::from(n), state);
        };
        for (number, ack) in self.acks.iter().flatten() {
            name(*number, state);
            ack.hash(state);
        }
        for (number, winner) in self.yields.iter().flatten() {
            name(*number, state);
            winner.hash(state);
        }
        self.until.hash(state);
    }
}

impl Owed {
    pub(super) const NOTHING: Owed = Owed {
        acks: [None; PLACES],
        yields: [None; PLACES],
        until: None,
    };

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.acks.fill(None);
        self.yields.fill(None);
        self.until = None;
    }

    /// A write of epoch `number` lost against `winner`.
    pub(super) fn lost(&mut self, number: u32, winner: Id) {
        if let Some(free) = self.yields.iter_mut().find(|y| y.is_none()) {
            *free = Some((number, winner));
        }
    }

    fn front(&self) -> Option<(u32, BarrierAck)> {
        self.acks.first().copied().flatten()
    }

    fn is_full(&self) -> bool {
        self.acks.last().is_some_and(Option::is_some)
    }

    fn pop(&mut self) {
        if let Some(first) = self.acks.first_mut() {
            *first = None;
        }
        self.acks.rotate_left(1);
        self.until = None;
    }

    /// Takes an acknowledgement in; the oldest one leaves if there is no place.
    fn push(&mut self, number: u32, ack: BarrierAck) -> Option<BarrierAck> {
        let leaves = self.front().filter(|_| self.is_full()).map(|(_, ack)| ack);
        if leaves.is_some() {
            self.pop();
        }
        if let Some(free) = self.acks.iter_mut().find(|a| a.is_none()) {
            *free = Some((number, ack));
        }
        leaves
    }

    /// The oldest acknowledgement, if no write of its epoch or an earlier one is `open`, or it has
    /// waited long enough.
    fn due(
        &mut self,
        now: Instant,
        patience: Duration,
        open: impl Fn(Id) -> bool,
    ) -> Option<BarrierAck> {
        let (number, ack) = self.front()?;
        for y in &mut self.yields {
            *y = y.filter(|(_, winner)| open(*winner));
        }
        let held = self.yields.iter().flatten().any(|(n, _)| up_to(*n, number));
        if held && now < *self.until.get_or_insert(now.plus(patience)) {
            return None;
        }
        self.pop();
        Some(ack)
    }

    /// When the oldest one leaves, if it waits.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.until
    }
}

impl<S: Store> Resource<S> {
    /// Epoch `number` of the peer is finished.
    pub(super) fn owe_barrier_ack(
        &mut self,
        peer: PeerIx,
        number: u32,
        ack: BarrierAck,
        h: &mut impl Host,
    ) {
        let owed = self.io_epochs(peer).map(|e| &mut e.received.owed);
        if let Some(ack) = owed.and_then(|o| o.push(number, ack)) {
            self.send_plain(peer, Sock::Meta, 0, Packet::BarrierAck(ack), h);
        }
        self.owed_pump(peer, h);
    }

    /// How long an acknowledgement is put off at most: `timeout` times `ko-count`.
    fn patience_with_winners(&self, peer: PeerIx) -> Duration {
        let conf = self.io_conn(peer).and_then(|c| c.ctl.conf.as_ref());
        let (timeout, ko_count) = conf.map_or((0, 0), |c| (c.timeout, c.ko_count));
        let ko_count = if ko_count == 0 { KO_COUNT } else { ko_count };
        Duration::tenths(u64::from(timeout).saturating_mul(u64::from(ko_count)))
    }

    /// Sends what has not to wait any more; true if room ran out.
    pub(super) fn owed_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let conn = self.conns.get(usize::from(peer.0));
        if conn.is_none_or(|c| c.epochs.received.owed.front().is_none()) {
            // As nearly always; this runs with every step.
            return false;
        }
        let now = h.now();
        let patience = self.patience_with_winners(peer);
        loop {
            let requests = &self.io.requests;
            let undecided = |id: Id| requests.get(id).is_some_and(|r| r.net.is_undecided());
            let Some(c) = self.conns.get_mut(usize::from(peer.0)) else {
                return false;
            };
            let Some(ack) = c.epochs.received.owed.due(now, patience, undecided) else {
                return false;
            };
            self.send_plain(peer, Sock::Meta, 0, Packet::BarrierAck(ack), h);
            if h.room() < UNIT {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::BarrierNr;

    #[test]
    fn acknowledgements_wait_for_the_winner_and_keep_their_order() {
        let id = |ix| Id { ix, gen: 1 };
        let ack = |nr| BarrierAck {
            nr: BarrierNr(nr),
            set_size: 1,
        };
        let (now, patience) = (Instant(1), Duration::secs(42));
        let mut owed = Owed::NOTHING;
        owed.lost(5, id(1));
        assert_eq!(owed.push(4, ack(40)), None);
        assert_eq!(owed.push(5, ack(50)), None);
        assert_eq!(owed.push(6, ack(60)), None);
        assert_eq!(owed.due(now, patience, |_| true), Some(ack(40)));
        assert_eq!(owed.due(now, patience, |_| true), None);
        assert_eq!(owed.due(now, patience, |i| i == id(2)), Some(ack(50)));
        assert_eq!(owed.due(now, patience, |_| true), Some(ack(60)));
        assert_eq!(owed.due(now, patience, |_| true), None);
        // With too many the oldest goes.
        owed.lost(7, id(1));
        for n in 0..16 {
            assert_eq!(owed.push(7 + n, ack(n)), None);
        }
        assert_eq!(owed.push(23, ack(16)), Some(ack(0)));
        // Each waits for a while only.
        assert_eq!(owed.due(now, patience, |_| true), None);
        let later = now.plus(patience);
        assert_eq!(owed.deadline(), Some(later));
        assert_eq!(owed.due(later, patience, |_| true), Some(ack(1)));
        assert_eq!(owed.due(later, patience, |_| true), None);
    }
}
