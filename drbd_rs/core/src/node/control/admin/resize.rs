// SPDX-License-Identifier: GPL-2.0

//! `resize`: another size for the device, another ring for its activity log.
//!
//! ```text
//!  checks ─▶ configured size ─▶ (another resize ends) ─▶ size written ─▶ peer told ─▶ answer
//! ```
//!
//! The owner measures the lower devices first ([`Resource::disk_measured`]). The peer hears of it
//! by UUIDS and SIZES; that SIZES has no current size, which makes the peer answer with its own,
//! and only with that answer may this node grow to what both have room for.
//!
//! Two requests that the C driver grants are refused here, as both make metadata that no driver can
//! use again: a ring too small for the `al-extents` in use, and any other ring than the default one
//! for indexed metadata.

use crate::meta::layout::{Kind as Place, Striping};
use crate::nl::conf::ResizeParms;
use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::Role;
use crate::wire::state::dds_flag;

use super::super::super::io::{Host, OpId, VolIx};
use super::super::super::note::Note;
use super::super::super::{Resource, Store, PEER};
use super::super::size::{Determined, Plan, Unsized};
use super::{Event, Kind, Move};

/// `--assume-clean` needs a peer that understands the flag.
const APV_NO_RESYNC: u32 = 93;
/// Largest ring, KiB.
const RING_MAX_KIB: u32 = 16 << 20;
/// Smallest ring, KiB.
const RING_MIN_KIB: u32 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Sized,
}

/// How far a resize is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Resizing {
    vol: VolIx,
    plan: Plan,
    step: Step,
}

impl Resizing {
    fn dds_flags(&self) -> u16 {
        let flag = |on: bool, flag: u16| if on { flag } else { 0 };
        flag(self.plan.forced, dds_flag::FORCED) | flag(self.plan.no_resync, dds_flag::NO_RESYNC)
    }
}

impl<S: Store> Resource<S> {
    /// What a `resize` that says nothing asks for: no limit, the ring as it is.
    pub fn resize_base(&self, vol: VolIx) -> ResizeParms {
        let ring = self
            .disk(vol)
            .map_or(Striping::DEFAULT, |d| d.layout.striping);
        ResizeParms {
            resize_size: 0,
            resize_force: false,
            no_resync: false,
            al_stripes: ring.stripes(),
            al_stripe_size: ring.stripe_blocks().saturating_mul(4),
        }
    }

    pub(super) fn admin_resize(
        &mut self,
        op: OpId,
        vol: VolIx,
        parms: ResizeParms,
        h: &mut impl Host,
    ) {
        let striping = match self.check_resize(vol, &parms) {
            Ok(striping) => striping,
            Err((code, info)) => return self.refuse(op, code.number(), info, h),
        };
        if let Some(d) = self.disk_mut(vol) {
            d.known = d.devices.backing;
            // As the C driver: it stays, whatever comes of the rest.
            d.conf.disk_size = parms.resize_size;
        }
        let r = Resizing {
            vol,
            plan: Plan {
                forced: parms.resize_force,
                no_resync: parms.no_resync,
                striping,
                ..Plan::default()
            },
            step: Step::Begin,
        };
        self.begin(op, Kind::Resize(r), h);
    }

    /// The ring that is wanted, if it is another one.
    fn check_resize(
        &self,
        vol: VolIx,
        parms: &ResizeParms,
    ) -> Result<Option<Striping>, (ErrCode, Option<Note>)> {
        let refuse = |code| Err((code, None));
        let s = self.state(vol);
        let Some(d) = self.disk(vol).filter(|_| s.disk >= Disk::Inconsistent) else {
            return refuse(ErrCode::NoDisk);
        };
        if s.conn > Conn::Connected {
            return refuse(ErrCode::ResizeResync);
        }
        if s.role == Role::Secondary && s.peer == Role::Secondary {
            return refuse(ErrCode::NoPrimary);
        }
        let apv = self.conn(PEER).map_or(0, |c| c.ctl.last_apv);
        if parms.no_resync && apv < APV_NO_RESYNC {
            return refuse(ErrCode::NeedApv93);
        }
        let now = d.layout.striping;
        let blocks = parms.al_stripe_size >> 2;
        if (parms.al_stripes, blocks) == (now.stripes(), now.stripe_blocks()) {
            return Ok(None);
        }
        let kib = parms.al_stripes.checked_mul(parms.al_stripe_size);
        if kib.is_none_or(|kib| kib > RING_MAX_KIB) {
            return refuse(ErrCode::MdLayoutTooBig);
        }
        if kib.is_some_and(|kib| kib < RING_MIN_KIB) {
            return refuse(ErrCode::MdLayoutTooSmall);
        }
        if s.conn != Conn::Connected && !parms.resize_force {
            return refuse(ErrCode::MdLayoutConnected);
        }
        if matches!(d.layout.kind, Place::Indexed(_)) {
            return Err((ErrCode::MdLayoutTooBig, Some(Note::RingIsFixed)));
        }
        // A stripe that is no whole number of blocks is cut to one.
        let ring = Striping::new(parms.al_stripes, blocks).filter(|_| blocks != 0);
        let Some(ring) = ring else {
            return refuse(ErrCode::MdLayoutTooSmall);
        };
        let (slots, most) = (d.al_extents, ring.max_al_extents());
        if slots > most {
            let note = Note::RingTooSmall { slots, most };
            return Err((ErrCode::MdLayoutTooSmall, Some(note)));
        }
        Ok(Some(ring))
    }

    pub(super) fn move_resize(&mut self, mut r: Resizing, event: Event, h: &mut impl Host) -> Move {
        let vol = r.vol;
        match (r.step, event) {
            (Step::Begin, _) => {
                if self.vol(vol).is_some_and(|v| v.ctl.resize.is_some()) {
                    // One that the peer's sizes led to.
                    return Move::Poll(Kind::Resize(r));
                }
                if self.state(vol).disk < Disk::Inconsistent {
                    return Move::Done(ErrCode::NoDisk.number());
                }
                r.step = Step::Sized;
                let then = self.operation_goes_on();
                match self.determine_dev_size(vol, r.plan, then, h) {
                    Determined::Waits => Move::Io(Kind::Resize(r)),
                    Determined::Unchanged => self.resize_told(&r, h),
                    Determined::Failed(why) => Move::Done(
                        match why {
                            Unsized::Bitmap => ErrCode::NomemBitmap,
                            Unsized::NoFit => ErrCode::MdLayoutNoFit,
                            Unsized::Shrink => ErrCode::ImplicitShrink,
                        }
                        .number(),
                    ),
                }
            }
            (Step::Sized, Event::Io(true)) => self.resize_told(&r, h),
            (Step::Sized, _) => Move::Done(ErrCode::IoMdDisk.number()),
        }
    }

    /// The device has its size here: now the peer.
    fn resize_told(&mut self, r: &Resizing, h: &mut impl Host) -> Move {
        let vol = r.vol;
        let Some(v) = self.vol_mut(vol) else {
            return Move::Done(ErrCode::MinorInvalid.number());
        };
        let grew = core::mem::take(&mut v.ctl.grew);
        let asks = v.state.pdsk >= Disk::Negotiating;
        if v.state.conn == Conn::Connected {
            v.ctl.resize_pending |= grew;
            v.ctl.sizes_due = asks;
            if !self.md_begins(vol) {
                // One that is on its way to the disk is told when it is there. The C driver does
                // not wait.
                self.send_uuids(vol, 0, h);
            }
            // Without a disk the peer has no size to answer with, and a C driver would take the
            // room on this disk for the size of the device.
            self.send_sizes_as(vol, r.dds_flags(), asks, h);
        }
        Move::Done(ErrCode::NoError.number())
    }
}
