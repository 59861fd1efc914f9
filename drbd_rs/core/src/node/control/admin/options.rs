// SPDX-License-Identifier: GPL-2.0

//! `net-options`, `disk-options`, and the checks that `connect` shares.

use crate::meta::superblock::Flags as Md;
use crate::nl::conf::{DiskConf, NetConf};
use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::units::Minor;

use super::super::super::io::{Host, OpId, PeerIx, VolIx};
use super::super::super::note::{Missing, Note};
use super::super::super::request::{digest_bytes, Ordering};
use super::super::super::{After, Resource, Store, PEER};
use super::super::Next;

/// `protocol A`.
const PROTOCOL_A: u32 = 1;
/// `protocol C`.
const PROTOCOL_C: u32 = 3;
/// `fencing resource-and-stonith`.
const STONITH: u32 = 2;

type Refused = (ErrCode, Option<Note>);

impl<S: Store> Resource<S> {
    /// The checks of network options, in the order of the C driver.
    pub(super) fn check_net_options(&self, peer: PeerIx, new: &NetConf) -> Result<(), Refused> {
        let Some(c) = self.conn(peer) else {
            return Err((ErrCode::InvalidRequest, None));
        };
        let old_version = self.agreed(peer).is_some_and(|a| a.apv < 100);
        if let Some(old) = c.ctl.conf.as_ref().filter(|_| old_version) {
            let same = new.wire_protocol == old.wire_protocol
                && new.two_primaries == old.two_primaries
                && new.integrity_alg == old.integrity_alg;
            if c.ctl.cstate == Conn::WFReportParams && !same {
                return Err((ErrCode::NeedApv100, None));
            }
        }
        let primaries = self
            .states()
            .any(|s| s.role.is_primary())
            .then(|| self.states().any(|s| s.peer.is_primary()));
        if !new.two_primaries && primaries == Some(true) {
            return Err((ErrCode::NeedAllowTwoPri, None));
        }
        if new.two_primaries && new.wire_protocol != PROTOCOL_C {
            return Err((ErrCode::NotProtoC, None));
        }
        for v in self.volumes.iter().flatten() {
            let stonith = v
                .backing
                .as_ref()
                .is_some_and(|b| b.disk.conf.fencing == STONITH);
            if new.wire_protocol == PROTOCOL_A && stonith {
                return Err((ErrCode::StonithAndProtA, None));
            }
            if v.state.role.is_primary() && new.discard_my_data {
                return Err((ErrCode::DiscardImpossible, None));
            }
        }
        if new.on_congestion != 0 && new.wire_protocol != PROTOCOL_A {
            return Err((ErrCode::CongNotProtoA, None));
        }
        if digest_bytes(new.integrity_alg.as_bytes()).is_none() {
            return Err((ErrCode::IntegrityAlg, None));
        }
        Ok(())
    }

    pub(super) fn admin_net_options(
        &mut self,
        op: OpId,
        peer: PeerIx,
        mut new: NetConf,
        h: &mut impl Host,
    ) {
        let Some(old) = self.conn(peer).and_then(|c| c.ctl.conf) else {
            let note = Note::NetConfMissing;
            return self.refuse(op, ErrCode::InvalidRequest.number(), Some(note), h);
        };
        new.discard_my_data = old.discard_my_data;
        new.tentative = old.tentative;
        if let Err((code, note)) = self.check_net_options(peer, &new) {
            return self.refuse(op, code.number(), note, h);
        }
        let syncing = self
            .states()
            .any(|s| s.conn.is_sync() && !s.conn.is_verify());
        let verifying = self.states().any(|s| s.conn.is_verify());
        if syncing && new.csums_alg != old.csums_alg {
            return self.answer(op, ErrCode::CsumsResyncRunning, h);
        }
        if verifying && new.verify_alg != old.verify_alg {
            return self.answer(op, ErrCode::VerifyRunning, h);
        }
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.conf = Some(new);
        }
        if let Some(agreed) = self.agreed(peer) {
            if agreed.apv >= 100 {
                self.send_protocol(peer, true, h);
            }
            if let Some(c) = self.conn_mut(peer) {
                c.ctl.params_due = Some(0);
            }
        }
        self.answer(op, ErrCode::NoError, h);
    }

    /// Sends SYNC_PARAM of one more volume, if the options changed. True: it did.
    pub(in super::super) fn params_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        let Some(cursor) = self.conn(peer).and_then(|c| c.ctl.params_due) else {
            return false;
        };
        let next = (cursor..self.volume_slots()).find(|ix| self.vol(VolIx(*ix)).is_some());
        if let Some(c) = self.conn_mut(peer) {
            c.ctl.params_due = next.map(|ix| ix.saturating_add(1));
        }
        match next {
            Some(ix) => {
                self.send_sync_param(VolIx(ix), h);
                // Zeroes have no packet that goes with data-integrity-alg.
                self.reconsider_limits(VolIx(ix), h);
                true
            }
            None => false,
        }
    }

    /// Whether a volume may wait for `after` to be in sync first.
    pub(in super::super) fn check_resync_after(
        &self,
        vol: VolIx,
        after: i32,
    ) -> Result<(), ErrCode> {
        if !(-1..=1_048_575).contains(&after) {
            return Err(ErrCode::ResyncAfter);
        }
        let Some(own) = self.vol(vol).map(|v| v.minor) else {
            return Ok(());
        };
        let mut after = after;
        // Minors of other resources end the chain here; their owner knows them.
        for _ in 0..=self.volume_slots() {
            let Ok(minor) = u32::try_from(after) else {
                return Ok(());
            };
            if Minor(minor) == own {
                return Err(ErrCode::ResyncAfterCycle);
            }
            let next = self.vol_by_minor(Minor(minor)).and_then(|v| self.disk(v));
            match next {
                Some(d) => after = d.conf.resync_after,
                None => return Ok(()),
            }
        }
        Err(ErrCode::ResyncAfterCycle)
    }

    pub(super) fn admin_disk_options(
        &mut self,
        op: OpId,
        vol: VolIx,
        mut new: DiskConf,
        h: &mut impl Host,
    ) {
        let Some(old) = self.disk(vol).map(|d| d.conf) else {
            return self.answer(op, ErrCode::NoDisk, h);
        };
        if new.al_extents != old.al_extents {
            let note = Note::Unsupported(Missing::AlExtents);
            return self.refuse(op, ErrCode::InvalidRequest.number(), Some(note), h);
        }
        if let Err(code) = self.check_resync_after(vol, new.resync_after) {
            return self.answer(op, code, h);
        }
        let proto_a = self
            .conn(PEER)
            .and_then(|c| c.ctl.conf.as_ref())
            .is_some_and(|n| n.wire_protocol == PROTOCOL_A);
        if new.fencing == STONITH && proto_a {
            return self.answer(op, ErrCode::StonithAndProtA, h);
        }
        new.backing_dev = old.backing_dev;
        new.meta_dev = old.meta_dev;
        new.meta_dev_idx = old.meta_dev_idx;
        new.disk_size = old.disk_size;
        new.max_bio_bvecs = old.max_bio_bvecs;
        new.c_plan_ahead = new.c_plan_ahead.min(300);
        if let Some(b) = self.vol_mut(vol).and_then(|v| v.backing.as_mut()) {
            b.disk.conf = new;
            b.disk.sanitize();
            if new.al_updates {
                b.al.set_updates(true);
            }
            let disabled = !new.al_updates || b.al.is_stale();
            b.disk.flags = Md(b.disk.flags).set_to(Md::AL_DISABLED, disabled).0;
        }
        self.ordering_changed(h);
        self.md_dirty(vol, h);
        self.md_sync(vol, After::Control(Next::LogStops { vol }), h);
        if self.state(vol).conn >= Conn::Connected {
            self.send_sync_param(vol, h);
        }
        self.reconsider_pauses(h);
        self.answer(op, ErrCode::NoError, h);
    }

    /// The superblock says whether the activity log counts: only then may it be incomplete. The C
    /// driver does not wait for that.
    pub(in super::super) fn log_stops(&mut self, vol: VolIx, stored: bool) {
        if let Some(b) = self.vol_mut(vol).and_then(|v| v.backing.as_mut()) {
            if stored && !b.disk.conf.al_updates {
                b.al.set_updates(false);
            }
        }
    }

    /// With `al-updates yes` again the log on disk lacks what entered it before. Now it has all of
    /// that. The C driver lets it count at once.
    pub(in super::super) fn log_caught_up(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let Some(b) = self.vol_mut(vol).and_then(|v| v.backing.as_mut()) else {
            return;
        };
        if !ok || !b.disk.conf.al_updates || b.al.is_stale() {
            return;
        }
        b.disk.flags = Md(b.disk.flags).set_to(Md::AL_DISABLED, false).0;
        self.md_dirty(vol, h);
        self.md_sync(vol, After::Nothing, h);
    }

    /// Works out the method of write ordering anew: the strictest that all disks admit.
    pub(super) fn ordering_changed(&mut self, h: &mut impl Host) {
        let mut method = Ordering::Flush;
        for b in self
            .volumes
            .iter()
            .flatten()
            .filter_map(|v| v.backing.as_ref())
        {
            let conf = &b.disk.conf;
            if method == Ordering::Flush && !conf.disk_flushes {
                method = Ordering::Drain;
            }
            if method == Ordering::Drain && !conf.disk_drain {
                method = Ordering::None;
            }
        }
        if self.write_ordering() != method {
            self.log_peer(Note::WriteOrdering(method.name()), h);
        }
        self.set_write_ordering(method);
    }
}
