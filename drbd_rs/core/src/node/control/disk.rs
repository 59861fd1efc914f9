// SPDX-License-Identifier: GPL-2.0

//! The local disk as the control part sees it: configuration, superblock, failure, the way out.
//!
//! ```text
//!  UpToDate… ─io_error, detach─▶ Failed ─(helper, peer told, metadata)─▶ told
//!     told and no local I/O ─▶ last bitmap ─▶ (FULL_SYNC if that failed) ─▶ Diskless ─▶ dropped
//! ```
//!
//! The superblock's fields are mirrored in [`Disk`]; writing them is `request/meta_io.rs`.

use crate::meta::layout::Devices;
use crate::meta::superblock::Flags as Md;
use crate::meta::{Layout, Superblock};
use crate::nl::conf::DiskConf;
use crate::state::conn::State as Conn;
use crate::state::disk::State as DiskState;
use crate::state::{AttachDecision, Fencing};
use crate::units::{Sectors, BYTES_PER_BIT};
use crate::uuid::UuidSet;

use super::super::io::{Effect, Host, IoError, VolIx};
use super::super::note::Note;
use super::super::request::Pages;
use super::super::{After, Backing, Resource, Store, Volume};
use super::recv_uuids::differs;
use super::{Flags, Next, StateChange};

/// What kind of local I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IoErrorKind {
    /// A read of data.
    Read,
    /// A write of data.
    Write,
    /// Metadata.
    Meta,
    /// The disk was too slow, or the administrator has no patience.
    ForceDetach,
}

/// What the block layer says about the backing device. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackingLimits {
    /// Largest request.
    pub max_bio: u32,
    /// Logical block size.
    pub logical_block: u32,
    /// Physical block size.
    pub physical_block: u32,
    /// Offset of the first aligned block.
    pub alignment_offset: u32,
    /// Smallest preferred request.
    pub io_min: u32,
    /// Optimal request; 0 for none.
    pub io_opt: u32,
    /// Whether discards are possible.
    pub discard: bool,
    /// Granularity of discards.
    pub discard_granularity: u32,
    /// It has a volatile write cache.
    pub write_cache: bool,
    /// Metadata are on another device: a flush of the one leaves the cache of the other as it is.
    pub meta_apart: bool,
    /// It knows FUA.
    pub fua: bool,
    /// It is slow to seek.
    pub rotational: bool,
}

impl BackingLimits {
    /// Whether a flush of the metadata may leave data in a cache: see `request/data_flush.rs`.
    pub(crate) const fn caches_apart(&self) -> bool {
        self.meta_apart && self.write_cache
    }
}

/// Configuration, placement and superblock of an attached disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The options.
    pub(crate) conf: DiskConf,
    /// Where the metadata are.
    pub(crate) layout: Layout,
    /// Capacities.
    pub(crate) devices: Devices,
    /// UUIDs of the superblock.
    pub(crate) uuids: UuidSet,
    /// Flags of the superblock.
    pub(crate) flags: u32,
    /// Identity of the device.
    pub(crate) device_uuid: u64,
    /// The size last agreed upon.
    pub(crate) la_size: Sectors,
    /// Slots of the activity log.
    pub(crate) al_extents: u32,
    /// The largest request that the last peer took, bytes.
    pub(crate) la_peer_max_bio: u32,
    /// What the backing device can do.
    pub(crate) limits: BackingLimits,
    /// Bitmap and activity log on disk are not to be trusted: they are being moved.
    pub(crate) moving: bool,
    /// Capacity of the backing device when the peer was last told of it.
    pub(crate) known: Sectors,
    /// What own and peer's disk would be without a peer, while the handshake decides.
    pub(crate) decided: Option<(DiskState, DiskState)>,
}

crate::key::key! {
    Disk {
        layout, devices, uuids, flags, device_uuid, la_size, al_extents, la_peer_max_bio,
        limits, moving, known, decided
    }
    names {}
    not { conf }
}

/// How far the way out is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum LastWords {
    /// It has not begun.
    #[default]
    None,
    /// The bitmap is being written.
    Bitmap,
    /// The superblock is being written.
    Superblock,
}

impl Disk {
    /// A disk whose superblock was found good.
    pub(crate) fn new(
        conf: DiskConf,
        sb: &Superblock,
        layout: Layout,
        devices: Devices,
        limits: BackingLimits,
    ) -> Disk {
        let [current, bitmap, younger, older] = sb.uuid;
        Disk {
            conf,
            layout,
            devices,
            uuids: UuidSet {
                current,
                bitmap,
                history: [younger, older],
            },
            flags: sb.flags.0,
            device_uuid: sb.device_uuid,
            la_size: sb.la_size,
            al_extents: sb.al_nr_extents,
            la_peer_max_bio: sb
                .la_peer_max_bio_size
                .max(crate::limits::MAX_BIO_SIZE_SAFE),
            limits,
            moving: false,
            known: devices.backing,
            decided: None,
        }
    }

    /// The superblock to be written.
    pub(crate) fn superblock(&self) -> Superblock {
        let [younger, older] = self.uuids.history;
        let flags = Md(self.flags);
        let flags = if self.moving {
            flags.with(Md::FULL_SYNC).with(Md::AL_DISABLED)
        } else {
            flags
        };
        Superblock {
            la_size: self.la_size,
            uuid: [self.uuids.current, self.uuids.bitmap, younger, older],
            device_uuid: self.device_uuid,
            flags,
            magic: 0,
            md_size: self.layout.md_size,
            al_offset: self.layout.al_offset,
            al_nr_extents: self.al_extents,
            bm_offset: self.layout.bm_offset,
            bm_bytes_per_bit: BYTES_PER_BIT,
            la_peer_max_bio_size: self.la_peer_max_bio,
            al_stripes: self.layout.striping.stripes(),
            al_stripe_size_4k: self.layout.striping.stripe_blocks(),
        }
    }

    /// Brings options into the range that the disk admits (algorithms.md §9, metadata.md §5).
    pub(super) fn sanitize(&mut self) {
        let slots = self
            .conf
            .al_extents
            .clamp(crate::limits::AL_EXTENTS_MIN, crate::limits::AL_EXTENTS_MAX)
            .min(self.layout.striping.max_al_extents());
        self.conf.al_extents = slots;
        self.al_extents = slots;
        self.conf.c_plan_ahead = self.conf.c_plan_ahead.min(300);
        let gran = self.limits.discard_granularity.max(1);
        let wish = self.conf.rs_discard_granularity;
        self.conf.rs_discard_granularity = if wish == 0 || !self.limits.discard {
            0
        } else {
            // Rounded up to what the disk can discard; 1 MiB is the most that can be asked for.
            let rounded = wish.max(gran).checked_next_multiple_of(gran);
            rounded.unwrap_or(u32::MAX).min(1 << 20)
        };
    }

    /// The largest device that the disk has room for.
    pub(crate) fn max_size(&self) -> Sectors {
        self.layout.max_data_sectors(self.devices.backing)
    }

    /// The fencing policy.
    pub(crate) fn fencing(&self) -> Fencing {
        Fencing::from_number(self.conf.fencing).unwrap_or(Fencing::DontCare)
    }

    /// What the rules of the state want to know of an attach that waits for the peer.
    pub(super) fn decision<S: Store>(&self, v: &Volume<S>) -> Option<AttachDecision> {
        let (disk, pdsk) = self.decided?;
        Some(AttachDecision {
            disk,
            pdsk,
            data_matches: !differs(v.ctl.ed_uuid, self.uuids.current),
        })
    }
}

impl<S: Store> Resource<S> {
    /// Configuration and superblock of the attached disk.
    pub(crate) fn disk(&self, vol: VolIx) -> Option<&Disk> {
        self.vol(vol)?.backing.as_ref().map(|b| &b.disk)
    }

    /// As [`Resource::disk`], to be changed.
    pub(crate) fn disk_mut(&mut self, vol: VolIx) -> Option<&mut Disk> {
        self.vol_mut(vol)?.backing.as_mut().map(|b| &mut b.disk)
    }

    /// Sets or clears the flag of the superblock that says that all bits count as set.
    pub(crate) fn set_full_sync(&mut self, vol: VolIx, on: bool) {
        if let Some(d) = self.disk_mut(vol) {
            d.flags = Md(d.flags).set_to(Md::FULL_SYNC, on).0;
        }
    }

    /// Local I/O failed: the policy `on-io-error` decides (algorithms.md §13).
    pub(crate) fn io_error(&mut self, vol: VolIx, kind: IoErrorKind, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let (disk, conn) = (v.state.disk, v.state.conn);
        let pass_on = v
            .backing
            .as_ref()
            .is_some_and(|b| b.disk.conf.on_io_error == 0);
        let data = matches!(kind, IoErrorKind::Read | IoErrorKind::Write);
        let mut note = Note::LocalIoFailed {
            detaching: false,
            error: IoError::Io,
        };
        if pass_on && data {
            self.log(vol, note, h);
            if conn.is_verify() {
                // A verify has two good disks, and this one is no longer. The C driver goes on, and
                // calls it UpToDate. In two steps, as the peer knows the end of a verify by two
                // good disks.
                let end = StateChange::NONE.conn(Conn::Connected);
                self.change_state(vol, end, Flags::HARD, h);
            }
            if disk > DiskState::Inconsistent {
                let change = StateChange::NONE.disk(DiskState::Inconsistent);
                self.change_state(vol, change, Flags::HARD, h);
            }
            // The source of a resync has the only good copy. It is that no more when the target is
            // done, which has what failed here; the C driver calls both UpToDate then.
            if let Some(v) = self.vol_mut(vol) {
                v.ctl.bad_source |= v.state.disk == DiskState::UpToDate;
            }
            self.bad_source_ends(vol, h);
            return;
        }
        match kind {
            IoErrorKind::Read => {
                v.ctl.was_io_error = true;
                v.ctl.was_read_error = true;
            }
            IoErrorKind::Write | IoErrorKind::Meta => v.ctl.was_io_error = true,
            IoErrorKind::ForceDetach => {
                v.ctl.was_io_error = true;
                v.ctl.force_detach = true;
                note = Note::ForcedDetach;
            }
        }
        if disk <= DiskState::Failed {
            return;
        }
        if let Note::LocalIoFailed { detaching, .. } = &mut note {
            *detaching = true;
        }
        self.change_state(
            vol,
            StateChange::NONE.disk(DiskState::Failed),
            Flags::HARD,
            h,
        );
        self.log(vol, note, h);
    }

    /// No local I/O is in flight on a failed disk.
    pub(crate) fn local_idle(&mut self, vol: VolIx, h: &mut impl Host) {
        self.consider_diskless(vol, h);
    }

    /// Begins the last writes of a failed disk once everybody has let go of it.
    pub(super) fn consider_diskless(&mut self, vol: VolIx, h: &mut impl Host) {
        if self.local_refs(vol) != 0 {
            return;
        }
        let Some(v) = self.vol_mut(vol) else { return };
        let ready = v.state.disk == DiskState::Failed && v.ctl.failure_told;
        if !ready || v.ctl.last_words != LastWords::None {
            return;
        }
        v.ctl.last_words = LastWords::Bitmap;
        let after = After::Control(Next::LastWords { vol });
        self.write_bitmap(vol, Pages::Changed, after, h);
    }

    /// One of the last writes is over.
    pub(super) fn last_words_said(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let unmarked = v.ctl.last_words == LastWords::Bitmap && !ok && v.ctl.was_read_error;
        if unmarked {
            // Bits that a read error set may be lost: the next resync has to be a full one.
            v.ctl.last_words = LastWords::Superblock;
            self.set_full_sync(vol, true);
            self.md_sync(vol, After::Control(Next::LastWords { vol }), h);
            return;
        }
        v.ctl.last_words = LastWords::None;
        v.ctl.failure_told = false;
        v.ctl.failure_sent = false;
        let change = StateChange::NONE.disk(DiskState::Diskless);
        self.change_state(vol, change, Flags::HARD, h);
    }

    /// Lets the owner close the backing device, as soon as the last I/O to it has ended.
    pub(crate) fn drop_backing(&mut self, vol: VolIx, h: &mut impl Host) {
        let idle = self.local_refs(vol) == 0;
        let Some(v) = self.vol_mut(vol) else { return };
        if v.state.disk != DiskState::Diskless || v.backing.is_none() || v.ctl.dropped {
            v.ctl.drop_due = false;
            return;
        }
        v.ctl.drop_due = !idle;
        if !idle {
            return;
        }
        v.ctl.was_io_error = false;
        v.ctl.was_read_error = false;
        v.ctl.force_detach = false;
        v.ctl.resize_pending = false;
        v.ctl.dropped = true;
        self.resize_abandoned(vol, h);
        h.emit(Effect::DropBacking { vol });
        self.reconsider_limits(vol, h);
    }

    /// The backing device, after [`Effect::DropBacking`]; nothing refers to it any more.
    pub fn take_backing(&mut self, vol: VolIx) -> Option<S::Box<Backing<S>>> {
        let v = self.vol_mut(vol)?;
        if !core::mem::take(&mut v.ctl.dropped) {
            return None;
        }
        v.backing.take()
    }
}
