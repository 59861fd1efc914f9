// SPDX-License-Identifier: GPL-2.0

//! Two Primaries: writes of both sides to the same blocks (wire.md §17).
//!
//! ```text
//!  own write:    extents ─▶ (a peer's write there? Held) ─▶ Active
//!  peer's write: turn by sequence number ─▶ judged against own Active writes there
//!     arbiter, own one undecided ─▶ SUPERSEDED or RETRY_WRITE, nothing is written
//!     otherwise, own one not complete ─▶ waits; but not for one that has to be sent again
//! ```
//!
//! Both disks end up the same because exactly one side decides, and because it decides in the order
//! in which the other one saw things: the arbiter looks at a write only when all acknowledgements
//! that were sent before it have arrived. So an own write that the peer has not answered is
//! concurrent to it, and one that it has answered is older.
//!
//! There is no deadlock: the arbiter waits for disks and for packets under way, never for a
//! decision of the other side, whose acknowledgements do not pass through the receiver that waits.
//! The waits are bounded all the same, by `ping-timeout` and by `timeout` × `ko-count`.
//!
//! Differs from the C driver: it lets a peer's write lose against an own one that the peer has
//! answered but the own disk has not, which leaves the disks different.

use super::peer_write::PeerRequest;
use super::request::{Answer, Local, Stage};
use super::UNIT;

use super::super::io::{Effect, Host, Lost, VolIx};
use super::super::note::Note;
use super::super::{Resource, Store, Violation, PEER};
use crate::store::slab::Id;
use crate::time::{Duration, Instant};
use crate::units::SectorRange;
use crate::wire::{BlockAck, Packet};

/// Marks the keys of the peer's writes in the set of writes in flight.
const OF_PEER: u32 = 1 << 31;

/// What became of a peer's write whose turn it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may go on.
    Comes,
    /// Not yet.
    Waits,
    /// It was answered and forgotten.
    Gone,
}

/// The peer's write at the head of the queue waits; a wait without an end is not noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Patience {
    id: Id,
    for_acks: bool,
    pub(super) until: Instant,
}

/// How a peer's write stands to own writes to the same blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// No conflict, or all own ones will be sent again.
    Go { restarts: bool },
    /// An own one must be complete first.
    Wait,
    /// An own one came first; `covers`: nothing of the peer's would be left.
    Yield {
        own: SectorRange,
        winner: Id,
        covers: bool,
    },
}

const fn is_behind(seq: u32, seen: u32) -> bool {
    let ahead = seq.wrapping_sub(1).wrapping_sub(seen);
    ahead != 0 && ahead < 1 << 31
}

impl<S: Store> Resource<S> {
    /// Whether `allow-two-primaries` is in force.
    pub(super) fn two_primaries(&self) -> bool {
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        conf.is_some_and(|n| n.two_primaries)
    }

    /// What a request of the peer's resync or verify for this range has to wait for, with two
    /// Primaries: own writes there that are not on the own disk. It must not wait for the peer,
    /// which may be waiting for what is behind that request in the receiver; the C driver does,
    /// with `ko-count 0` for ever. Nothing speaks against it: writes nearby are on their way in
    /// front of the answer; and the peer, which keeps the extent locked until it has the answer,
    /// has no write of its own there. A verify compares both disks: for that a write in the block
    /// itself has to be over (`both`), also one that has got past the lock of the extent and waits
    /// for the activity log: it would be sent in front of the answer. `None`: a single Primary, all
    /// that is under way in the extent.
    pub(crate) fn is_written(&self, vol: VolIx, range: SectorRange, both: bool) -> Option<bool> {
        let v = self.io_vol(vol).filter(|_| self.two_primaries())?;
        Some(v.io.writes.overlaps(range).any(|(_, key)| {
            let own = self.io.requests.id_at(key).filter(|_| key & OF_PEER == 0);
            let own = own.and_then(|id| self.io.requests.get(id));
            own.is_some_and(|r| match r.stage {
                Stage::Active => both || r.local != Local::Ok,
                Stage::Transaction => both,
                Stage::Admission | Stage::Conflict | Stage::ActivityLog | Stage::Held => false,
            })
        }))
    }

    /// Notes a sequence number of the peer.
    pub(super) fn see_seq(&mut self, vol: VolIx, seq: u32) {
        let Some(p) = self.io_peer_device(vol, PEER) else {
            return;
        };
        let ahead = seq.wrapping_sub(p.io.peer_seq);
        if ahead != 0 && ahead < 1 << 31 {
            p.io.peer_seq = seq;
            // The patience with the missing ones begins anew.
            if self.io.patience.is_some_and(|p| p.for_acks) {
                self.io.patience = None;
            }
        }
    }

    /// Notes the sequence number of an acknowledgement that belongs to a resync or verify.
    pub(crate) fn see_ack(&mut self, vol: VolIx, packet: &Packet) {
        let seq = match packet {
            Packet::RsWriteAck(a)
            | Packet::NegAck(a)
            | Packet::NegRsDreply(a)
            | Packet::RsIsInSync(a)
            | Packet::RsCancel(a) => a.seq_num,
            Packet::OvResult(result) => result.seq_num,
            _ => return,
        };
        self.see_seq(vol, seq);
    }

    /// Whether the peer's write at the head of the queue may go on, as far as own writes and the
    /// order of packets on the two sockets are concerned.
    pub(super) fn turn_comes(&mut self, id: Id, r: &PeerRequest, h: &mut impl Host) -> Turn {
        if r.cleared || !self.two_primaries() {
            self.io.patience = None;
            return Turn::Comes;
        }
        let Some(agreed) = self.connected(PEER) else {
            // It goes with the connection.
            return Turn::Waits;
        };
        let seen = self
            .io_peer_device(r.vol, PEER)
            .map_or(0, |p| p.io.peer_seq);
        if agreed.arbiter && is_behind(r.seq, seen) {
            return self.turn_waits(id, true, h);
        }
        self.see_seq(r.vol, r.seq);
        match self.judge(r, agreed.arbiter) {
            Judgement::Wait => self.turn_waits(id, false, h),
            Judgement::Yield {
                own,
                winner,
                covers,
            } => {
                self.io.patience = None;
                if let Some(e) = self.io_epochs(PEER) {
                    e.received.owed.lost(r.epoch, winner);
                }
                self.log_conflict(r, own, covers, h);
                let packet = if covers || agreed.apv < 100 {
                    Packet::Superseded
                } else {
                    Packet::RetryWrite
                };
                self.io.peer_waiting.pop_front();
                self.yield_peer_write(id, r, packet, h);
                Turn::Gone
            }
            Judgement::Go { restarts } => {
                if !self.enter_peer_write(id, r, restarts) {
                    return self.turn_waits(id, false, h);
                }
                self.io.patience = None;
                Turn::Comes
            }
        }
    }

    /// Takes a peer's write into the set of writes in flight. False: the set is full.
    fn enter_peer_write(&mut self, id: Id, r: &PeerRequest, restarts: bool) -> bool {
        let sized = r.range.len.0 != 0;
        let Some(Some(v)) = self.volumes.get_mut(usize::from(r.vol.0)) else {
            return false;
        };
        if sized && v.io.writes.insert(r.range, id.ix | OF_PEER).is_err() {
            return false;
        }
        if sized {
            v.io.peer_writes = v.io.peer_writes.saturating_add(1);
        }
        if let Some(r) = self.io.peer_requests.get_mut(id) {
            r.cleared = true;
            r.in_writes = sized;
            r.restarts = restarts;
        }
        true
    }

    /// A peer's write is gone, and so is the patience with what it waited for.
    pub(super) fn turn_over(&mut self, id: Id) {
        if self.io.patience.is_some_and(|p| p.id == id) {
            self.io.patience = None;
        }
    }

    fn turn_waits(&mut self, id: Id, for_acks: bool, h: &mut impl Host) -> Turn {
        let now = h.now();
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let tenths = conf.map_or(0, |n| {
            if for_acks {
                u64::from(n.ping_timeo)
            } else {
                u64::from(n.timeout).saturating_mul(u64::from(n.ko_count))
            }
        });
        if tenths == 0 {
            self.io.patience = None;
            return Turn::Waits;
        }
        let limit = Duration::tenths(tenths);
        let fresh = Patience {
            id,
            for_acks,
            until: now.plus(limit),
        };
        let same = |p: &Patience| p.id == id && p.for_acks == for_acks;
        let patience = *self.io.patience.get_or_insert(fresh);
        if !same(&patience) {
            self.io.patience = Some(fresh);
        } else if now >= patience.until {
            self.io.patience = None;
            let (note, why) = if for_acks {
                (Note::AcksMissing, Lost::Protocol)
            } else {
                let limit = limit.as_millis();
                (Note::RequestTimeout { limit }, Lost::Timeout)
            };
            h.emit(Effect::Log { vol: None, note });
            self.lost(PEER, why, h);
        }
        Turn::Waits
    }

    fn judge(&self, r: &PeerRequest, arbiter: bool) -> Judgement {
        let mut judgement = Judgement::Go { restarts: false };
        let Some(v) = self.io_vol(r.vol) else {
            return judgement;
        };
        for (range, key) in v.io.writes.overlaps(r.range) {
            if key & OF_PEER != 0 {
                judgement = Judgement::Wait;
                continue;
            }
            let Some(winner) = self.io.requests.id_at(key) else {
                continue;
            };
            let Some(own) = self.io.requests.get(winner) else {
                continue;
            };
            if own.stage != Stage::Active || own.completed {
                continue;
            }
            if arbiter && own.net.is_undecided() {
                let covers = range.contains(r.range);
                return Judgement::Yield {
                    own: range,
                    winner,
                    covers,
                };
            }
            let again = own.may_restart();
            judgement = match judgement {
                Judgement::Go { .. } if again => Judgement::Go { restarts: true },
                _ => Judgement::Wait,
            };
        }
        judgement
    }

    fn log_conflict(&self, r: &PeerRequest, own: SectorRange, covers: bool, h: &mut impl Host) {
        if own != r.range {
            let note = Note::ConcurrentWrites {
                own,
                peer: r.range,
                own_first: covers,
            };
            let vol = Some(r.vol);
            h.emit(Effect::Log { vol, note });
        }
    }

    /// A peer's write loses against an own one: it is answered and not written. It does not count
    /// in its epoch, as the peer does not wait for the end of that any more.
    fn yield_peer_write(
        &mut self,
        id: Id,
        r: &PeerRequest,
        packet: fn(BlockAck) -> Packet,
        h: &mut impl Host,
    ) {
        if r.ack {
            self.count_unacked(r.vol, false);
        }
        self.send_ack(r.vol, packet, r.range, r.block_id, h);
        if let Some(e) = self.io_epochs(PEER) {
            e.received.exclude(r.epoch);
        }
        self.forget_peer_request(id, h);
        self.received_epochs_pump(PEER, h);
    }

    /// A peer's write is over, or will not be: own ones to the same blocks may go on.
    pub(super) fn peer_write_leaves(&mut self, id: Id, r: &PeerRequest) {
        if !r.in_writes {
            return;
        }
        if let Some(v) = self.io_vol_mut(r.vol) {
            v.io.writes.remove(r.range, id.ix | OF_PEER);
            v.io.peer_writes = v.io.peer_writes.saturating_sub(1);
            v.io.conflict_ended = true;
        }
        if r.restarts {
            self.restart_postponed(r.vol, r.range);
        }
    }

    /// The peer's write came first: own ones that it told to wait go out again.
    pub(super) fn restart_postponed(&mut self, vol: VolIx, range: SectorRange) {
        let mut at = self
            .io_vol(vol)
            .and_then(|v| v.io.writes.first_overlap(range));
        while let Some(found) = at {
            at = self
                .io_vol(vol)
                .and_then(|v| v.io.writes.next_overlap(range, found));
            let id = self.io.requests.id_at(found.1);
            let Some(id) = id.filter(|_| found.1 & OF_PEER == 0) else {
                continue;
            };
            let Some(r) = self.io.requests.get(id) else {
                continue;
            };
            if r.stage == Stage::Active && r.may_restart() {
                self.restart(id);
            }
        }
    }

    /// Takes a write off the wire and puts it to those that wait for the peer's writes. It keeps
    /// its extents: the two disks differ until it is through.
    pub(super) fn restart(&mut self, id: Id) {
        self.net_answer(id, Answer::Lost);
        self.net_finish(id);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.touched = true;
        r.postponed = false;
        if r.local != Local::Abandoned {
            r.local = Local::None;
        }
        r.net = super::request::Net::None;
        r.sent_at = None;
        self.io.log.remove(&mut self.io.requests, id);
        self.hold(id);
    }

    /// Puts a write that has its extents aside.
    pub(super) fn hold(&mut self, id: Id) {
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.stage = Stage::Held;
        if let Some(Some(v)) = self.volumes.get_mut(usize::from(r.vol.0)) {
            v.io.held.push_back(&mut self.io.requests, id);
        }
    }

    /// Whether a write of the peer to some of these blocks is under way.
    pub(super) fn peer_writes_to(&self, vol: VolIx, range: SectorRange) -> bool {
        self.io_vol(vol).is_some_and(|v| {
            let mut found = v.io.writes.overlaps(range);
            v.io.peer_writes != 0 && found.any(|(_, key)| key & OF_PEER != 0)
        })
    }

    /// Tries those again that were put aside; true if room ran out.
    #[inline(never)]
    pub(super) fn held_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        if self.io_state(vol).is_suspended() || self.io.thaw.blocks() {
            return false;
        }
        let waiting = self.io_vol(vol).map_or(0, |v| v.io.held.len());
        for _ in 0..waiting {
            if h.room() < UNIT {
                return true;
            }
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                return false;
            };
            let Some(id) = v.io.held.pop_front(&mut self.io.requests) else {
                return false;
            };
            self.launch(id, h);
        }
        false
    }

    /// The arbiter has decided against a write of this node.
    ///
    /// # Errors
    /// There is nothing to decide, or this node decides.
    pub(super) fn recv_verdict(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        again: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        self.see_seq(vol, ack.seq_num);
        let id = self.acked_write(vol, &ack).ok_or(Violation::Ack)?;
        let decides = self.connected(PEER).is_some_and(|a| a.arbiter);
        let Some(r) = self.io.requests.get_mut(id) else {
            return Err(Violation::Ack);
        };
        let written = r.expect == super::request::Expect::Written;
        if decides || !written || !r.net.is_undecided() || r.postponed {
            return Err(Violation::Ack);
        }
        let epoch = r.epoch;
        r.postponed = again;
        self.uncount_sent_write(PEER, epoch);
        if !again {
            // The arbiter's own write is on its way and covers all of it.
            self.net_answer(id, Answer::Good);
            self.net_finish(id);
        }
        self.settle(id, h);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_is_not_behind() {
        assert!(!is_behind(5, 4) && !is_behind(4, 4) && !is_behind(1, 0));
        assert!(is_behind(6, 4) && is_behind(2, 0));
        assert!(!is_behind(0, u32::MAX) && is_behind(1, u32::MAX));
    }
}
