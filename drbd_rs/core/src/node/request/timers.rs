// SPDX-License-Identifier: GPL-2.0

//! Patience with disk and peer (algorithms.md §7.2), and when the pump wants to run again.
//!
//! While requests are in flight they are looked at once a second; that is precise enough for
//! time-outs counted in seconds, and costs one walk over the transfer log.

use super::request::{Answer, Local, Net};
use super::UNIT;

use super::super::control::IoErrorKind;
use super::super::io::{AppOp, Effect, Host, VolIx};
use super::super::note::Note;
use super::super::{Resource, Store, PEER};
use crate::state::disk::State as Disk;
use crate::time::{Duration, Instant};

/// How often requests in flight are looked at.
const LOOK: Duration = Duration::secs(1);

impl<S: Store> Resource<S> {
    /// When [`Resource::request_pump`] has something to do next.
    pub(crate) fn request_deadline(&self) -> Option<Instant> {
        let ahead = self.volumes.iter().flatten();
        let ahead = ahead.filter_map(|v| v.io.ahead_due);
        // A write whose turn has not come goes with the connection, and no patience with it.
        let patience = self.io.patience.map(|p| p.until);
        let patience = patience.filter(|_| self.connected(PEER).is_some());
        self.volumes
            .iter()
            .flatten()
            .filter(|v| !v.ctl.dropped)
            .filter_map(|v| v.backing.as_ref()?.meta_io.due())
            .chain(ahead)
            .chain(self.io.timer_due)
            .chain(patience)
            .chain(self.news_deadline())
            .chain(self.peer_deadline())
            .chain(super::io_peers().filter_map(|peer| self.proof_deadline(peer)))
            .chain(self.conns.iter().filter_map(|c| {
                let rx = &c.epochs.received;
                let unheard = rx.unheard.map(|u| u.until);
                rx.owed.deadline().into_iter().chain(unheard).min()
            }))
            .min()
    }

    /// Looks for requests that take too long; true if room ran out.
    #[inline(never)]
    pub(super) fn request_timers(&mut self, h: &mut impl Host) -> bool {
        let now = h.now();
        let meta = self.meta_may_be_late();
        if self.io.log.oldest().is_none() && !meta {
            self.io.timer_due = None;
            return false;
        }
        let due = *self.io.timer_due.get_or_insert(now.plus(LOOK));
        if now < due {
            return false;
        }
        if h.room() < UNIT {
            return true;
        }
        self.io.timer_due = Some(now.plus(LOOK));
        if self.peer_is_late(now) {
            self.connection_timeout(PEER, h);
        }
        if let Some(vol) = self.late_disk(now).or_else(|| self.late_meta(now)) {
            h.emit(Effect::Log {
                vol: Some(vol),
                note: Note::DiskTimeout,
            });
            self.io_error(vol, IoErrorKind::ForceDetach, h);
        }
        false
    }

    fn peer_is_late(&self, now: Instant) -> bool {
        let Some(c) = self.io_conn(PEER) else {
            return false;
        };
        let Some(conf) = c
            .ctl
            .conf
            .as_ref()
            .filter(|_| self.connected(PEER).is_some())
        else {
            return false;
        };
        let patience =
            Duration::tenths(u64::from(conf.timeout).saturating_mul(u64::from(conf.ko_count)));
        if patience.0 == 0 || now.since(c.ctl.last_reconnect) <= patience {
            return false;
        }
        let late = |since: Instant| now.since(since) > patience;
        let epoch = self.io.sent_epochs.front();
        if epoch.is_some_and(|e| late(e.barrier_at)) || c.epochs.proof.asked().is_some_and(late) {
            return true;
        }
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            at = r.newer;
            let awaited = matches!(
                r.net,
                Net::Live {
                    answer: Answer::Awaited,
                    queued: false,
                }
            );
            if let (true, Some(sent)) = (awaited, r.sent_at) {
                return late(sent);
            }
        }
        false
    }

    /// A volume whose disk has not answered within its `disk-timeout`.
    fn late_disk(&self, now: Instant) -> Option<VolIx> {
        let mut at = self.io.log.oldest();
        while let Some(r) = at.and_then(|id| self.io.requests.get(id)) {
            at = r.newer;
            if r.local != Local::Pending {
                continue;
            }
            let Some(v) = self.io_vol(r.vol) else {
                continue;
            };
            let Some(b) = v.backing.as_ref() else {
                continue;
            };
            let patience = Duration::tenths(u64::from(b.disk.conf.disk_timeout));
            if patience.0 != 0
                && now.since(r.local_at) > patience
                && now.since(v.ctl.attached_at) > patience
                && v.state.disk > Disk::Failed
            {
                return Some(r.vol);
            }
        }
        None
    }

    /// Whether metadata I/O is under way on a disk that is given up if it takes too long.
    fn meta_may_be_late(&self) -> bool {
        let mut disks = self.volumes.iter().flatten();
        disks.any(|v| {
            let b = v.backing.as_ref().filter(|_| !v.ctl.dropped);
            let b = b.filter(|b| b.disk.conf.disk_timeout != 0);
            b.is_some_and(|b| b.meta_io.on_disk != 0) && v.state.disk > Disk::Failed
        })
    }

    /// A volume whose disk has not finished any metadata I/O within its `disk-timeout`.
    fn late_meta(&self, now: Instant) -> Option<VolIx> {
        self.io_volumes().find(|vol| {
            self.io_vol(*vol).is_some_and(|v| {
                let Some(b) = v.backing.as_ref().filter(|_| !v.ctl.dropped) else {
                    return false;
                };
                let patience = Duration::tenths(u64::from(b.disk.conf.disk_timeout));
                patience.0 != 0
                    && b.meta_io.on_disk != 0
                    && now.since(b.meta_io.moved_at) > patience
                    && v.state.disk > Disk::Failed
            })
        })
    }

    /// The disk was given up by force: nothing waits for it any more, but reads straight into the
    /// pages of an application. The disk may still fill these, and they must not have another use
    /// by then; where `disk-timeout` is set there are none.
    pub(crate) fn requests_disk_failed(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.abandon = true;
        }
        self.abandon_pump(vol, h);
    }

    /// Goes on giving up local legs; true if room ran out.
    #[inline(never)]
    pub(super) fn abandon_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        if !self.io_vol(vol).is_some_and(|v| v.io.abandon) {
            return false;
        }
        let mut at = self.io.log.oldest();
        while let Some(id) = at {
            let Some(r) = self.io.requests.get_mut(id) else {
                break;
            };
            at = r.newer;
            let held = r.io.op == AppOp::Read && !r.copied;
            if r.vol != vol || r.local != Local::Pending || held {
                continue;
            }
            if h.room() < UNIT {
                return true;
            }
            r.local = Local::Abandoned;
            self.settle(id, h);
        }
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.abandon = false;
        }
        false
    }
}
