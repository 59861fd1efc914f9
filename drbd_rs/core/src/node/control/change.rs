// SPDX-License-Identifier: GPL-2.0

//! The one place that changes a state.
//!
//! What the rules of [`crate::state`] allow is stored here, with the effects that belong to the
//! same moment ([`effects::Now`]). What may take time ([`effects::Later`]) is queued for
//! `after_change.rs`, as are the log line and the event: a change of many volumes must not need
//! more room than a step has.

use crate::state::aggregate;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::effects::{effects, Later, Now};
use crate::state::log::Parts;
use crate::state::request::{check_connection, check_volume};
pub(crate) use crate::state::StateChange;
use crate::state::{evaluate, meta_flags, Context, Fencing, Flags as Rules, New, Ss, State};

use super::super::io::{Effect, Host, PeerIx, VolIx};
use super::super::note::Note;
use super::super::{Resource, Store, PEER};
use super::Suspended;

/// How a change is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flags {
    /// It has happened: only the hard rules apply.
    pub(crate) hard: bool,
    /// A refusal is logged.
    pub(crate) verbose: bool,
    /// Volumes too bad to be outdated ignore that part of the request.
    pub(crate) ignore_outdate_failure: bool,
}

impl Flags {
    /// A wish; a refusal stays between the two.
    pub(crate) const QUIET: Flags = Flags {
        hard: false,
        verbose: false,
        ignore_outdate_failure: false,
    };
    /// A wish; a refusal is logged.
    pub(crate) const VERBOSE: Flags = Flags {
        verbose: true,
        ..Flags::QUIET
    };
    /// A fact.
    pub(crate) const HARD: Flags = Flags {
        hard: true,
        ..Flags::QUIET
    };

    const fn rules(self) -> Rules {
        Rules {
            hard: self.hard,
            ignore_outdate_failure: self.ignore_outdate_failure,
        }
    }
}

impl<S: Store> Resource<S> {
    /// The state of a volume, that of an unconfigured one if it does not exist.
    pub(crate) fn state(&self, vol: VolIx) -> State {
        self.vol(vol).map_or(State::INITIAL, |v| v.state)
    }

    /// What the rules look at besides the state.
    pub(super) fn context(&self, vol: VolIx) -> Context {
        let Some(v) = self.vol(vol) else {
            return Context::BARE;
        };
        let ctx = Context {
            suspend_on_no_data: self.ctl.opts.on_no_data == 1,
            open: v.ctl.opened != 0,
            attach: v.backing.as_ref().and_then(|b| b.disk.decision(v)),
            fencing: v
                .backing
                .as_ref()
                .map_or(Fencing::DontCare, |b| b.disk.fencing()),
            any_peer_primary: self
                .volumes
                .iter()
                .flatten()
                .any(|v| v.state.peer.is_primary()),
            ..Context::BARE
        };
        let Some(c) = self.conn(PEER) else { return ctx };
        Context {
            has_net_conf: c.ctl.conf.is_some(),
            two_primaries: c.ctl.conf.as_ref().is_some_and(|n| n.two_primaries),
            has_verify_alg: c
                .ctl
                .conf
                .as_ref()
                .is_some_and(|n| !n.verify_alg.is_empty()),
            apv: c.ctl.agreed.map_or(0, |a| a.apv),
            state_sent: c.ctl.state_sent,
            ..ctx
        }
    }

    /// Changes the state of one volume, on this node alone.
    pub(crate) fn change_state(
        &mut self,
        vol: VolIx,
        change: StateChange,
        flags: Flags,
        h: &mut impl Host,
    ) -> Ss {
        if self.vol(vol).is_none() {
            return Ss::NothingToDo;
        }
        let old = self.state(vol);
        match evaluate(old, change, flags.rules(), self.context(vol)) {
            Ok(new) => {
                self.commit(vol, old, new, Parts::VOLUME, h);
                new.code
            }
            Err(refusal) => {
                if flags.verbose && !refusal.by_hard_rule {
                    let note = Note::ChangeRefused {
                        code: refusal.code,
                        old,
                        wanted: refusal.wanted,
                    };
                    self.log(vol, note, h);
                }
                refusal.code
            }
        }
    }

    /// Changes the state of the connection and of all volumes with it, on this node alone.
    pub(crate) fn change_conn(
        &mut self,
        peer: PeerIx,
        change: StateChange,
        flags: Flags,
        h: &mut impl Host,
    ) -> Ss {
        let Some(old) = self.conn(peer).map(|c| c.ctl.cstate) else {
            return Ss::NothingToDo;
        };
        let checked =
            check_connection(old, change).and_then(|()| match self.check_volumes(change, flags) {
                code if code.is_refusal() => Err(code),
                _ => Ok(()),
            });
        if let Err(code) = checked {
            if flags.verbose {
                let note = Note::ConnChangeRefused {
                    code,
                    old,
                    wanted: change.conn,
                };
                self.log_peer(note, h);
            }
            return code;
        }
        self.commit_conn(peer, old, change, flags, h);
        Ss::Success
    }

    /// The first refusal over all volumes; `Success` if there is none.
    pub(super) fn check_volumes(&self, change: StateChange, flags: Flags) -> Ss {
        let refusal = self.volumes.iter().enumerate().find_map(|(ix, v)| {
            let old = v.as_ref()?.state;
            let vol = VolIx(u16::try_from(ix).ok()?);
            check_volume(old, change, flags.rules(), self.context(vol)).err()
        });
        refusal.map_or(Ss::Success, |r| r.code)
    }

    fn commit_conn(
        &mut self,
        peer: PeerIx,
        old: Conn,
        change: StateChange,
        flags: Flags,
        h: &mut impl Host,
    ) {
        let now = h.now();
        self.ctl.stirred = true;
        let before = aggregate::summarize(old, self.states());
        if let (Some(c), Some(new)) = (self.conn_mut(peer), change.conn) {
            if old != Conn::WFReportParams && new == Conn::WFReportParams {
                c.ctl.last_reconnect = now;
            }
            c.ctl.cstate = new;
        }
        let mut volumes: u16 = 0;
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let Some(old) = self.vol(vol).map(|v| v.state) else {
                continue;
            };
            volumes = volumes.saturating_add(1);
            let ctx = self.context(vol);
            // All volumes were asked before; hard facts bind those that changed since.
            let new = match check_volume(old, change, flags.rules(), ctx) {
                Ok(new) => new,
                Err(_) => match evaluate(old, change, Rules::HARD, ctx) {
                    Ok(new) => new,
                    Err(_) => continue,
                },
            };
            self.commit(vol, old, new, before.common.rest(), h);
        }
        if volumes == 0 {
            self.commit_susp(change);
        }
        let cstate = change.conn.unwrap_or(old);
        let after = aggregate::summarize(cstate, self.states());
        let parts = Parts {
            susp: true,
            ..before.common
        };
        let note = Note::StateChanged {
            old: before.first,
            new: after.highest,
            parts,
        };
        self.log_peer(note, h);
        if volumes == 0 && before.first != after.first {
            h.emit(Effect::StateChanged {
                vol: None,
                old: before.first,
                new: after.first,
            });
        }
        if let Some(c) = self.conn_mut(peer) {
            let fx = aggregate::connection_effects(before.first.conn, after.highest);
            c.ctl.after.add(fx);
        }
    }

    /// The suspend flags of a resource without volumes.
    fn commit_susp(&mut self, change: StateChange) {
        let s = &mut self.ctl.susp;
        s.user = change.susp.unwrap_or(s.user);
        s.no_data = change.susp_nod.unwrap_or(s.no_data);
        s.fencing = change.susp_fen.unwrap_or(s.fencing);
    }

    pub(super) fn states(&self) -> impl Iterator<Item = State> + '_ {
        self.volumes.iter().flatten().map(|v| v.state)
    }

    /// Stores a new state and does what belongs to the same moment.
    fn commit(&mut self, vol: VolIx, old: State, new: New, parts: Parts, h: &mut impl Host) {
        if !new.changed {
            return;
        }
        let apv = self.agreed(PEER).map_or(0, |a| a.apv);
        let fx = effects(old, new.state, apv);
        self.ctl.susp = Suspended {
            user: new.state.susp,
            no_data: new.state.susp_nod,
            fencing: new.state.susp_fen,
        };
        self.ctl.stirred = true;
        let susp = self.ctl.susp;
        for v in self.volumes.iter_mut().flatten() {
            v.state.susp = susp.user;
            v.state.susp_nod = susp.no_data;
            v.state.susp_fen = susp.fencing;
        }
        self.note_lost_disk(vol, old, new.state, h);
        // Looks at every request: only where the answer counts.
        let lacks = self.vol(vol).is_some_and(|v| v.ctl.peer_lacks);
        let refused = lacks && new.state.both_good() && self.has_refused(vol, false);
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.demoting |= meta_flags::log_counts(old) && !meta_flags::log_counts(new.state);
            if !old.role.is_primary() && new.state.role.is_primary() {
                v.ctl.promoted_disk = old.disk != new.state.disk;
            }
            // Nothing that the peer refused before is missing there any more, if nothing is marked.
            let marked = v.backing.as_ref().is_some_and(|b| b.bitmap.weight() != 0);
            v.ctl.peer_lacks &= marked || refused || old.both_good() || !new.state.both_good();
            v.ctl.bad_source &= new.state.conn > Conn::Connected;
            v.ctl.end_untold |= fx.later.contains(Later::SendStateSyncDone);
            v.ctl.end_untold &= new.state.conn >= Conn::Connected;
            v.state = new.state;
            v.ctl.after.push(old, new.state, new.warning, parts, apv);
        }
        if old.replicates() && !new.state.replicates() {
            self.replication_stops(vol);
        }
        self.copies_are_given_up(vol, old, new.state);
        if old.disk >= Disk::Inconsistent && new.state.disk < Disk::Inconsistent {
            self.tell_flushed(vol, false, h);
        }
        if new.state.suspends_anew(old) {
            self.freezes_again();
        }
        for now in fx.now.iter() {
            self.carry_out(vol, now, h);
        }
    }

    fn carry_out(&mut self, vol: VolIx, now: Now, h: &mut impl Host) {
        match now {
            // The queue of deferred effects holds the backing device; resync watches the state
            // by itself; the life cycle of the receiver follows the state in `connect.rs`.
            Now::HoldBackingDevice
            | Now::ForgetResyncDone
            | Now::LogAttachedUuids
            | Now::ResyncContinues
            | Now::KickResyncTimer
            | Now::ResyncPauses
            | Now::StopReceiver
            | Now::RestartReceiver => {}
            Now::KeepVerifyPosition => self.verify_ends(vol, h),
            Now::StartVerifySource => self.verify_begins(vol, true, h),
            Now::StartVerifyTarget => self.verify_begins(vol, false, h),
            Now::NewEpoch => self.new_epoch(h),
            Now::LeftReportParams => {
                let waiting = self.states().any(|s| s.conn == Conn::WFReportParams);
                if let (false, Some(c)) = (waiting, self.conn_mut(PEER)) {
                    c.ctl.state_sent = false;
                }
            }
            Now::RecomputeMetaFlags => self.recompute_md_flags(vol, h),
            Now::AdoptDataUuid => {
                if let Some(v) = self.vol_mut(vol) {
                    if let Some(b) = v.backing.as_ref() {
                        v.ctl.ed_uuid = b.disk.uuids.current;
                    }
                    v.ctl.own_lacks = false;
                }
            }
            Now::ConsiderResync => {
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.consider_resync = true;
                }
            }
            Now::ConnectionUp => {
                let resumed = self.vol_mut(vol).is_some_and(|v| {
                    if let Some(b) = v.backing.as_mut() {
                        b.al.set_suspended(false);
                    }
                    core::mem::take(&mut v.ctl.al_suspended)
                });
                if resumed {
                    self.log(vol, Note::AlResumed, h);
                }
                if let Some(c) = self.conn_mut(PEER) {
                    c.ctl.connect_count = c.ctl.connect_count.wrapping_add(1);
                }
            }
            Now::NoteAttachTime => {
                let now = h.now();
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.attached_at = now;
                }
            }
        }
    }

    /// Brings the flags of the superblock in line with the state.
    pub(super) fn recompute_md_flags(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        if v.state.disk < Disk::Inconsistent {
            return;
        }
        let Some(b) = v.backing.as_mut() else { return };
        let flags = meta_flags::recompute(v.state, b.disk.flags, v.ctl.crashed_primary);
        // The bits of what a Primary without a disk has written here are in memory only until the
        // connection has been torn down: the activity log counts until then. The C driver calls it
        // void at once.
        let leaves = v.state.conn.is_broken() || v.state.conn == Conn::Disconnecting;
        let flags = if v.ctl.demoting {
            flags | meta_flags::PRIMARY_IND
        } else if leaves {
            flags | b.disk.flags & meta_flags::PRIMARY_IND
        } else {
            flags
        };
        if flags & meta_flags::PRIMARY_IND == 0 {
            b.meta_io.log_counts = false;
            b.meta_io.log_counts_in_flight = false;
        }
        if flags != b.disk.flags {
            b.disk.flags = flags;
            self.md_dirty(vol, h);
        }
    }
}
