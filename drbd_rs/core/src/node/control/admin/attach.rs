// SPDX-License-Identifier: GPL-2.0

//! `attach`: from an open device with a good superblock to a disk in use.
//!
//! ```text
//!  quiet ─▶ Attaching ─▶ size ─▶ bitmap read (or set and written) ─▶ state decided ─▶ stored
//!     any failure ─▶ Diskless ─▶ dropped ─▶ answer
//! ```

use crate::meta::superblock::{DiskAtAttach, Flags as Md};
use crate::meta::Superblock;
use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as DiskState;
use crate::state::{Fencing, Role, Ss};
use crate::units::Sectors;
use crate::uuid::UuidSet;

use super::super::super::io::{Effect, Host, OpId, VolIx};
use super::super::super::note::Note;
use super::super::super::{Backing, Resource, Store, Volume, PEER};
use super::super::recv_uuids::differs;
use super::super::size::{Determined, Plan};
use super::super::{Flags, StateChange};
use super::{Ask, Event, Kind, Move};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Quiet,
    Asked,
    Sized,
    Bitmap,
    Stored,
    /// The disk goes away again; then the answer is given.
    Failing(i32),
}

/// How far an attach is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Attaching {
    vol: VolIx,
    step: Step,
}

/// An attach that was refused at once; what was brought along is given back.
pub struct AttachRefused<S: Store> {
    /// What to answer with.
    pub code: i32,
    /// Why.
    pub info: Option<Note>,
    /// To be closed and freed.
    pub backing: S::Box<Backing<S>>,
}

impl Attaching {
    fn at(self, step: Step) -> Attaching {
        Attaching { step, ..self }
    }
}

impl<S: Store> Resource<S> {
    /// The checks that come before the devices are opened.
    ///
    /// # Errors
    /// `MINOR_INVALID`, `DISK_CONFIGURED`, `MD_IDX_INVALID`, `STONITH_AND_PROT_A`.
    pub fn attach_check(
        &self,
        vol: VolIx,
        conf: &crate::nl::conf::DiskConf,
    ) -> Result<(), ErrCode> {
        let v = self.vol(vol).ok_or(ErrCode::MinorInvalid)?;
        if v.state.disk > DiskState::Diskless || v.backing.is_some() {
            return Err(ErrCode::DiskConfigured);
        }
        if conf.meta_dev_idx < -3 {
            return Err(ErrCode::MdIdxInvalid);
        }
        let net = self.conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let stonith = Fencing::from_number(conf.fencing) == Some(Fencing::ResourceAndStonith);
        if stonith && net.is_some_and(|n| n.wire_protocol == 1) {
            return Err(ErrCode::StonithAndProtA);
        }
        Ok(())
    }

    /// Begins to attach a disk; answered by [`Effect::AdminDone`] unless refused at once.
    ///
    /// # Errors
    /// As [`Resource::attach_check`], or another request is being worked on.
    pub fn attach(
        &mut self,
        op: OpId,
        vol: VolIx,
        backing: S::Box<Backing<S>>,
        h: &mut impl Host,
    ) -> Result<(), AttachRefused<S>> {
        let refused = |code, info, backing| {
            Err(AttachRefused {
                code,
                info,
                backing,
            })
        };
        if self.ctl.op.is_some() {
            let code = Ss::InTransientState.number();
            return refused(code, Some(Note::Busy), backing);
        }
        if let Err(code) = self.attach_check(vol, &backing.disk.conf) {
            return refused(code.number(), None, backing);
        }
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.demoting = false;
            v.ctl.force_detach = false;
            v.ctl.was_io_error = false;
            v.ctl.was_read_error = false;
            v.ctl.dropped = false;
            v.backing.put(backing);
        }
        let a = Attaching {
            vol,
            step: Step::Begin,
        };
        self.begin(op, Kind::Attach(a), h);
        Ok(())
    }

    pub(super) fn move_attach(&mut self, a: Attaching, event: Event, h: &mut impl Host) -> Move {
        let vol = a.vol;
        match (a.step, event) {
            (Step::Begin, _) => {
                let after = self.operation_goes_on();
                self.gate_close(vol, after, h);
                Move::Io(Kind::Attach(a.at(Step::Quiet)))
            }
            (Step::Quiet, _) => {
                let change = StateChange::NONE.disk(DiskState::Attaching);
                let ask = Ask::volume(vol, change, Flags::VERBOSE);
                Move::Ask(Kind::Attach(a.at(Step::Asked)), ask)
            }
            (Step::Asked, Event::Code(code)) if code.is_success() => self.attach_begins(a, h),
            (Step::Asked, Event::Code(code)) => self.attach_fails(a, code.number(), h),
            (Step::Sized, Event::Io(true)) => self.attach_bitmap(a, h),
            (Step::Sized, _) => self.attach_fails(a, ErrCode::NomemBitmap.number(), h),
            (Step::Bitmap, Event::Io(true)) => self.attach_decides(a, h),
            (Step::Bitmap | Step::Asked, _) => self.attach_fails(a, ErrCode::IoMdDisk.number(), h),
            (Step::Stored, _) => {
                self.gate_open(vol, h);
                h.emit(Effect::Uevent { vol });
                Move::Done(ErrCode::NoError.number())
            }
            (Step::Failing(code), _) => {
                let gone = self
                    .vol(vol)
                    .is_none_or(|v| v.backing.is_none() || v.ctl.dropped);
                if gone {
                    Move::Done(code)
                } else {
                    Move::Poll(Kind::Attach(a))
                }
            }
        }
    }

    fn attach_fails(&mut self, a: Attaching, code: i32, h: &mut impl Host) -> Move {
        self.gate_open(a.vol, h);
        if self.state(a.vol).disk == DiskState::Diskless {
            self.drop_backing(a.vol, h);
        } else {
            let change = StateChange::NONE.disk(DiskState::Diskless);
            self.change_state(a.vol, change, Flags::HARD, h);
        }
        Move::Go(Kind::Attach(a.at(Step::Failing(code))))
    }

    /// The waiter was killed in the middle.
    pub(super) fn attach_dropped(&mut self, a: Attaching, h: &mut impl Host) {
        if !matches!(a.step, Step::Failing(_) | Step::Stored) {
            // Writes and reads under way end by themselves; the disk must not be used.
            let _ = self.attach_fails(a, ErrCode::Intr.number(), h);
        } else if a.step == Step::Stored {
            self.gate_open(a.vol, h);
        }
    }

    /// Attaching: the checks that need the volume's state, then the size.
    fn attach_begins(&mut self, a: Attaching, h: &mut impl Host) -> Move {
        let vol = a.vol;
        let Some(v) = self.vol(vol) else {
            return Move::Done(ErrCode::MinorInvalid.number());
        };
        let Some(b) = v.backing.as_ref() else {
            return self.attach_fails(a, ErrCode::NoDisk.number(), h);
        };
        let s = v.state;
        let conf = b.disk.conf;
        let (la_size, sb) = (b.disk.la_size, b.disk.superblock());
        if let Some(name) = v.lacks_data_in_use(&b.disk.uuids) {
            self.log(vol, Note::OnlyWithUuid(name), h);
            return self.attach_fails(a, ErrCode::DataNotCurrent.number(), h);
        }
        let (now, _) = self.new_dev_size(vol, Sectors(conf.disk_size));
        if sb.flags.contains(Md::CONSISTENT) && now < la_size {
            let last = la_size;
            if now.0 != conf.disk_size {
                self.log(vol, Note::ImplicitShrink { last, now }, h);
                return self.attach_fails(a, ErrCode::ImplicitShrink.number(), h);
            }
            self.log(vol, Note::TruncatingAtAttach { last, now }, h);
        }
        if let Err(code) = self.check_resync_after(vol, conf.resync_after) {
            return self.attach_fails(a, code.number(), h);
        }
        self.recognise_crash(vol, &sb);
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.degraded_wfc = s.role != Role::Primary && sb.was_degraded();
            let told = v.peers.first().map(|p| p.ctl.max_bio);
            if let Some(b) = v.backing.as_mut() {
                // A peer that is there knows better than the metadata.
                if let Some(told) = told.filter(|_| s.conn >= Conn::Connected) {
                    b.disk.la_peer_max_bio = told;
                }
                // Should the size be new, what was on disk no longer counts.
                b.bitmap.set_all();
                b.al.set_updates(conf.al_updates);
            }
        }
        self.ordering_changed(h);
        self.reset_counters(vol);
        self.reconsider_limits(vol, h);
        let then = self.operation_goes_on();
        match self.determine_dev_size(vol, Plan::ATTACH, then, h) {
            Determined::Unchanged => self.attach_bitmap(a, h),
            Determined::Waits => Move::Io(Kind::Attach(a.at(Step::Sized))),
            Determined::Failed(_) => self.attach_fails(a, ErrCode::NomemBitmap.number(), h),
        }
    }

    /// Whether a Primary crashed with this disk, or lost it in a way that comes to the same.
    fn recognise_crash(&mut self, vol: VolIx, sb: &Superblock) {
        let susp_nod = self.ctl.susp.no_data;
        // What waits for this disk is written again. With protocols A and B there may be more that
        // the peer lacks: writes that applications were told of. And what has failed here differs,
        // which only the activity log knows, if there is one; should the peer's disk be lost, too,
        // no generation tells. The C driver forgets all of that.
        let net = self.conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let logged = !sb.flags.contains(Md::AL_DISABLED);
        let sure = logged && net.is_none_or(|n| n.wire_protocol == 3);
        let Some(v) = self.vol_mut(vol) else { return };
        // What the peer refused, or may have lost, is marked here, and no generation was begun for
        // it before the disk went: it is not known to be the last one by now.
        let mut lacks =
            core::mem::take(&mut v.ctl.peer_lacks) | core::mem::take(&mut v.ctl.frozen_lost);
        let primary = v.state.role == Role::Primary;
        // So it is with a generation that was put off until I/O goes on, once this node is not
        // Primary any more, or if I/O went on as the disk was lost.
        if !primary || !v.state.is_suspended() {
            lacks |= core::mem::take(&mut v.ctl.new_current_uuid);
        }
        let running = primary && susp_nod && sure && !v.ctl.marks_lost;
        v.ctl.crashed_primary = sb.flags.contains(Md::CRASHED_PRIMARY)
            || lacks
            || (sb.flags.contains(Md::PRIMARY_IND) && !running);
    }

    fn attach_bitmap(&mut self, a: Attaching, h: &mut impl Host) -> Move {
        let vol = a.vol;
        let Some(v) = self.vol_mut(vol) else {
            return Move::Done(ErrCode::MinorInvalid.number());
        };
        if core::mem::take(&mut v.ctl.grew) {
            v.ctl.resync_after_neg = true;
        }
        let crashed = v.ctl.crashed_primary;
        let flags = Md(self.disk(vol).map_or(0, |d| d.flags));
        let full = flags.contains(Md::FULL_SYNC) || (crashed && flags.contains(Md::AL_DISABLED));
        let after = self.operation_goes_on();
        if full {
            self.log(vol, Note::FullSyncAtAttach, h);
            self.set_all_and_write(vol, after, h);
        } else {
            self.read_bitmap(vol, after, h);
        }
        Move::Io(Kind::Attach(a.at(Step::Bitmap)))
    }

    /// All is read: what is the disk worth?
    fn attach_decides(&mut self, a: Attaching, h: &mut impl Host) -> Move {
        let vol = a.vol;
        let old = self.state(vol);
        let Some(v) = self.vol_mut(vol) else {
            return Move::Done(ErrCode::MinorInvalid.number());
        };
        let Some(b) = v.backing.as_mut() else {
            return Move::Done(ErrCode::NoDisk.number());
        };
        let bits = b.bitmap.weight();
        let all = bits == b.bitmap.bits();
        // The one before may have had all bits set, too; this is about the present one. The C
        // driver keeps it suspended until there is a connection, whatever is attached meanwhile.
        let suspended = all && old.conn < Conn::Connected && !b.disk.limits.caches_apart();
        v.ctl.al_suspended = suspended;
        let sb = b.disk.superblock();
        let pdsk = if sb.flags.contains(Md::PEER_OUT_DATED) {
            DiskState::Outdated
        } else {
            old.pdsk
        };
        // While this disk failed the peer's took what this one lacks, and was lost before it began
        // a generation with that. By their names the two are equal, and by the activity log this
        // one counts. The C driver goes by that.
        let lacks = v.ctl.own_lacks && !differs(v.ctl.ed_uuid, b.disk.uuids.current);
        let disk = match sb.disk_at_attach(b.disk.fencing() != Fencing::DontCare) {
            _ if lacks => DiskState::Inconsistent,
            DiskAtAttach::Inconsistent => DiskState::Inconsistent,
            DiskAtAttach::Outdated => DiskState::Outdated,
            DiskAtAttach::Consistent => DiskState::Consistent,
            DiskAtAttach::UpToDate => DiskState::UpToDate,
        };
        b.disk.flags = Md(b.disk.flags)
            .set_to(Md::AL_DISABLED, !b.disk.conf.al_updates)
            .0;
        let change = if old.conn == Conn::Connected {
            b.disk.decided = Some((disk, pdsk));
            for p in v.peers.iter_mut() {
                p.ctl.uuids = None;
            }
            StateChange::NONE.disk(DiskState::Negotiating)
        } else {
            StateChange::NONE.disk(disk).pdsk(pdsk)
        };
        b.disk.uuids.mark_role(old.role.is_primary());
        if suspended {
            b.al.set_suspended(true);
            self.log(vol, Note::AlSuspended, h);
        }
        self.log(vol, Note::MarkedByBitmap { bits }, h);
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        if code.is_refusal() {
            return self.attach_fails(a, code.number(), h);
        }
        self.md_dirty(vol, h);
        let after = self.operation_goes_on();
        self.md_sync(vol, after, h);
        Move::Io(Kind::Attach(a.at(Step::Stored)))
    }
}

impl<S: Store> Volume<S> {
    /// The name of data that are in use, and that a disk with these UUIDs may lack: it could become
    /// their source, and no good copy would say otherwise.
    ///
    /// Beside a Primary whose copy is bad a disk will do that has come from what this node knows to
    /// have been in use, and from that copy. In a handshake the states of disks win over UUIDs: a
    /// bad copy is made good from an older one, too, so that this is for the attach to see. The C
    /// driver wants the name of the bad copy, and refuses the later one that it lacks.
    fn lacks_data_in_use(&self, uuids: &UuidSet) -> Option<u64> {
        let (s, ed) = (self.state, self.ctl.ed_uuid);
        let in_use = s.role == Role::Primary || s.peer == Role::Primary;
        if s.pdsk == DiskState::UpToDate || ed == 0 || !in_use {
            return None;
        }
        if s.role == Role::Primary || s.pdsk != DiskState::Inconsistent {
            return differs(ed, uuids.current).then_some(ed);
        }
        let bad = self.peers.first().and_then(|p| p.ctl.uuids);
        let names = [ed, bad.map_or(ed, |u| u.current)];
        names.into_iter().find(|name| !uuids.has_been(*name))
    }
}
