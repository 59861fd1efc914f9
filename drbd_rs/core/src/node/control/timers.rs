// SPDX-License-Identifier: GPL-2.0

//! Whether the peer still answers: pings, their answers, sends that do not get on.
//!
//! Numbers: wire.md §15. The meta socket must bring something every `ping-int` seconds or answer a
//! ping within `ping-timeout`; traffic on the data socket in the meantime counts as life.

use crate::state::conn::State as Conn;
use crate::time::{Duration, Instant};
use crate::wire::Packet;

use super::super::io::{Host, Lost, PeerIx, Sock};
use super::super::note::Note;
use super::super::{After, Resource, Store};
use super::{Flags, Phase, StateChange};

/// Those that may wait for a ping to be answered at once; more fail at once.
const WAITERS: usize = 32;

/// Pings and their answers on one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ping {
    /// When the meta socket last brought something, or the wait was started.
    idle_since: Instant,
    /// When a ping has to be answered; `None`: none is under way.
    due: Option<Instant>,
    /// The last life sign on the data socket.
    data_at: Instant,
    /// Pings sent and answered on this connection.
    sent: u64,
    answered: u64,
    /// Who waits for which answer.
    waiters: [(u64, After); WAITERS],
    /// The last time a send did not get on, and how often in a row.
    stalled_at: Option<Instant>,
    stalls: u32,
}

impl core::hash::Hash for Ping {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.due.hash(state);
        self.sent.wrapping_sub(self.answered).hash(state);
        for (number, after) in self.waiters {
            if after != After::Nothing {
                (number.wrapping_sub(self.answered), after).hash(state);
            }
        }
        self.stalls.hash(state);
    }
}

impl Ping {
    /// Nothing sent, nobody waits.
    pub(crate) const fn new() -> Ping {
        Ping {
            idle_since: Instant(0),
            due: None,
            data_at: Instant(0),
            sent: 0,
            answered: 0,
            waiters: [(0, After::Nothing); WAITERS],
            stalled_at: None,
            stalls: 0,
        }
    }

    /// A new connection.
    pub(crate) fn start(&mut self, now: Instant) {
        *self = Ping {
            idle_since: now,
            data_at: now,
            ..Ping::new()
        };
    }

    fn take_waiter(&mut self, up_to: u64) -> Option<After> {
        let slot = self
            .waiters
            .iter_mut()
            .find(|(ticket, after)| *ticket <= up_to && *after != After::Nothing)?;
        Some(core::mem::replace(slot, (0, After::Nothing)).1)
    }
}

impl<S: Store> Resource<S> {
    /// Sends a ping; `after` runs when it is answered, or with `ok == false` when the connection
    /// is gone first. Answers come in order: whatever the peer sent before is processed by then.
    pub(crate) fn ping(&mut self, peer: PeerIx, after: After, h: &mut impl Host) {
        if !self.send_ping(peer, h) {
            self.run_after(after, false, h);
            return;
        }
        let stored = self.conn_mut(peer).is_some_and(|c| {
            let p = &mut c.ctl.ping;
            let ticket = p.sent;
            match p.waiters.iter_mut().find(|w| w.1 == After::Nothing) {
                Some(slot) => {
                    *slot = (ticket, after);
                    true
                }
                None => false,
            }
        });
        if !stored {
            self.run_after(after, false, h);
        }
    }

    /// Sends a ping for its own sake; says whether there is somebody to ping.
    pub(crate) fn send_ping(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let now = h.now();
        let Some(c) = self.conn_mut(peer) else {
            return false;
        };
        if c.ctl.phase != Phase::Up {
            return false;
        }
        let limit = c.ctl.conf.as_ref().map_or(5, |n| n.ping_timeo);
        let p = &mut c.ctl.ping;
        p.sent = p.sent.saturating_add(1);
        if p.due.is_none() {
            p.due = Some(now.plus(Duration::tenths(u64::from(limit))));
        }
        self.send_plain(peer, Sock::Meta, 0, Packet::Ping, h);
        true
    }

    pub(super) fn recv_ping(&mut self, peer: PeerIx, h: &mut impl Host) {
        self.send_plain(peer, Sock::Meta, 0, Packet::PingAck, h);
    }

    pub(super) fn recv_ping_ack(&mut self, peer: PeerIx, h: &mut impl Host) {
        let Some(c) = self.conn_mut(peer) else { return };
        let p = &mut c.ctl.ping;
        p.answered = p.answered.saturating_add(1).min(p.sent);
        if p.answered == p.sent {
            p.due = None;
        }
        let up_to = p.answered;
        for _ in 0..WAITERS {
            let Some(after) = self
                .conn_mut(peer)
                .and_then(|c| c.ctl.ping.take_waiter(up_to))
            else {
                return;
            };
            self.run_after(after, true, h);
        }
    }

    /// Tells those who wait for a ping that its answer will not come.
    pub(super) fn pings_lost(&mut self, peer: PeerIx, h: &mut impl Host) {
        for _ in 0..WAITERS {
            let Some(after) = self
                .conn_mut(peer)
                .and_then(|c| c.ctl.ping.take_waiter(u64::MAX))
            else {
                return;
            };
            self.run_after(after, false, h);
        }
    }

    /// Something arrived.
    pub(super) fn peer_lives(&mut self, peer: PeerIx, sock: Sock, now: Instant) {
        if let Some(c) = self.conn_mut(peer) {
            match sock {
                Sock::Data => c.ctl.ping.data_at = now,
                Sock::Meta => c.ctl.ping.idle_since = now,
            }
        }
    }

    /// A send did not progress for `timeout`. At `ko-count` times in a row the peer is given up.
    pub(super) fn send_stalled(&mut self, peer: PeerIx, h: &mut impl Host) {
        let now = h.now();
        let Some(c) = self.conn_mut(peer) else { return };
        let Some(conf) = c.ctl.conf.as_ref() else {
            return;
        };
        let (limit, ko) = (conf.timeout, conf.ko_count);
        let p = &mut c.ctl.ping;
        // Stalls further apart than two timeouts belong to different sends.
        let apart = Duration::tenths(u64::from(limit).saturating_mul(2));
        let fresh = p.stalled_at.is_none_or(|at| now.since(at) > apart);
        p.stalls = if fresh { 1 } else { p.stalls.saturating_add(1) };
        p.stalled_at = Some(now);
        let left = ko.saturating_sub(p.stalls);
        let note = Note::SendExpired { ko: left };
        self.log_peer(note, h);
        if ko != 0 && left == 0 {
            self.connection_timeout(peer, h);
        } else {
            self.send_ping(peer, h);
        }
    }

    /// The peer did not do its part in time.
    pub(crate) fn connection_timeout(&mut self, peer: PeerIx, h: &mut impl Host) {
        self.lost(peer, Lost::Timeout, h);
    }

    pub(super) fn ping_deadline(&self) -> Option<Instant> {
        self.conns
            .iter()
            .filter(|c| c.ctl.phase == Phase::Up)
            .map(|c| match c.ctl.ping.due {
                Some(due) => due,
                None => c.ctl.ping.idle_since.plus(ping_interval(c)),
            })
            .min()
    }

    /// Sends the pings that are due and gives up a peer that did not answer one.
    pub(super) fn ping_tick(&mut self, peer: PeerIx, h: &mut impl Host) {
        let now = h.now();
        let Some(c) = self.conn_mut(peer) else { return };
        if c.ctl.phase != Phase::Up {
            return;
        }
        let interval = ping_interval(c);
        let limit = c.ctl.conf.as_ref().map_or(5, |n| n.ping_timeo);
        let limit = Duration::tenths(u64::from(limit));
        let p = &mut c.ctl.ping;
        match p.due {
            Some(due) if now >= due => {
                // The wait began one limit before it ends.
                let began = Instant(due.0.saturating_sub(limit.0));
                if p.data_at > began || p.idle_since > began {
                    p.due = Some(now.plus(limit));
                    return;
                }
                self.log_peer(Note::PingTimeout, h);
                let change = StateChange::NONE.conn(Conn::NetworkFailure);
                self.change_conn(peer, change, Flags::HARD, h);
            }
            None if now >= p.idle_since.plus(interval) => {
                if p.data_at > p.idle_since {
                    p.idle_since = p.data_at.max(Instant(now.0.saturating_sub(interval.0)));
                    if now < p.idle_since.plus(interval) {
                        return;
                    }
                }
                self.send_ping(peer, h);
            }
            Some(_) | None => {}
        }
    }
}

fn ping_interval(c: &super::super::Connection) -> Duration {
    Duration::secs(u64::from(c.ctl.conf.as_ref().map_or(10, |n| n.ping_int)))
}
