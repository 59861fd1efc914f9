// SPDX-License-Identifier: GPL-2.0

//! How large the device is (algorithms.md §10), and the writes that a new size needs.
//!
//! ```text
//!  gate ─▶ metadata held ─▶ superblock "do not trust" ─▶ (old superblock erased)
//!       ─▶ ring ─▶ bitmap ─▶ superblock ─▶ device
//! ```
//!
//! A size, a place of the metadata or a ring that differs from what is on disk goes through these
//! steps, each durable before the next; all of it is written from memory, nothing is copied. The
//! first superblock lies in the new place already and says that bitmap and log are not to be
//! trusted: whatever a crash leaves behind it, the next attach begins with a full resync, and
//! before it the old metadata are untouched. Then the old superblock is overwritten, which the C
//! driver leaves: should the device grow once more while nobody looks, drbdmeta would find it where
//! it saw one last, and take metadata of long ago for those of today. The device has a new size
//! only when all is stored. Meanwhile no application I/O is admitted and the receiver waits, but
//! for the gate, where what is in flight may need what the peer has sent: a read that it answers, a
//! verify or resync that locks an extent. Nothing has changed yet at that moment; only SIZES, and
//! writes beyond the device, are kept for later. The C driver waits for I/O in the receiver. So
//! does this where the peer has no disk, as the next that it says may begin an exchange of bitmaps.
//!
//! The C driver works the place of the metadata out anew whenever it looks at the size, and so does
//! this: a backing device that grew has its internal metadata moved to the new end even if the
//! device keeps its size, since drbdmeta looks for them there. Only attaching takes them where
//! drbdmeta has found them a moment before.

use crate::meta::layout::{Kind, Striping};
use crate::meta::Layout;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::units::{Sector, Sectors};

use super::super::io::{Effect, Host, VolIx};
use super::super::note::Note;
use super::super::request::Pages;
use super::super::{After, Resource, Store};
use super::recv_sizes::told_size_counts;
use super::{IoErrorKind, Next};

/// A change of size under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resize {
    step: Step,
    /// Which of the continuations is awaited; older ones mean nothing.
    turn: u32,
    /// The size to come.
    size: Sectors,
    /// Where the metadata will be.
    layout: Layout,
    /// They are somewhere else now.
    moved: bool,
    /// Where a superblock is left behind.
    leaves: Option<Sector>,
    /// New bits count as out of sync.
    set_new: bool,
    /// Another ring was asked for.
    new_ring: bool,
    /// The device grew.
    grew: bool,
    /// What goes on afterwards.
    then: After,
}

impl Resize {
    /// It waits for I/O of applications, part of which may wait for the peer.
    pub(crate) fn waits_for_io(&self) -> bool {
        self.step == Step::Gate
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Gate,
    Hold,
    Flagged,
    Erased,
    Ring,
    Bitmap,
    Stored,
}

/// How the size is to be determined.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Plan {
    /// The peer is assumed to have room (`DDSF_FORCED`).
    pub(super) forced: bool,
    /// New bits stay clear (`DDSF_NO_RESYNC`).
    pub(super) no_resync: bool,
    /// The metadata stay where the superblock says.
    pub(super) in_place: bool,
    /// The device keeps its size, whatever there is room for.
    pub(super) keep_size: bool,
    /// Another ring for the activity log.
    pub(super) striping: Option<Striping>,
}

impl Plan {
    /// For a disk that is being attached.
    pub(super) const ATTACH: Plan = Plan {
        forced: false,
        no_resync: false,
        in_place: true,
        keep_size: false,
        striping: None,
    };

    /// For a connection that begins.
    const GREETING: Plan = Plan {
        in_place: false,
        keep_size: true,
        ..Plan::ATTACH
    };
}

/// Why a size is not taken. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unsized {
    /// There is no memory, or no room on disk, for the bitmap of that size.
    Bitmap,
    /// What was asked for does not fit behind the new metadata.
    NoFit,
    /// The device would shrink without having been told to.
    Shrink,
}

/// What determining the size came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Determined {
    /// Nothing had to be written.
    Unchanged,
    /// The writes are under way.
    Waits,
    /// No.
    Failed(Unsized),
}

impl<S: Store> Resource<S> {
    /// The size that own disk, with metadata in `layout`, peer's disk, last agreement and
    /// `configured` size lead to. `forced`: the peer is assumed to have room.
    fn size_with(
        &self,
        vol: VolIx,
        layout: Option<Layout>,
        configured: Sectors,
        forced: bool,
    ) -> (Sectors, Option<Note>) {
        let Some(v) = self.vol(vol) else {
            return (Sectors(0), None);
        };
        let disk = v.backing.as_ref().map(|b| &b.disk);
        let own = disk.map_or(Sectors(0), |d| {
            layout
                .unwrap_or(d.layout)
                .max_data_sectors(d.devices.backing)
        });
        let agreed = disk.map_or(Sectors(0), |d| d.la_size);
        let mut peer = v.peers.first().map_or(Sectors(0), |p| p.ctl.size);
        if v.state.conn < Conn::Connected && forced {
            peer = own;
        }
        dev_size(own, peer, agreed, configured)
    }

    /// As things are, with this configured size.
    pub(super) fn new_dev_size(&self, vol: VolIx, configured: Sectors) -> (Sectors, Option<Note>) {
        self.size_with(vol, None, configured, false)
    }

    /// Brings the device to the size it should have now.
    pub(super) fn determine_dev_size(
        &mut self,
        vol: VolIx,
        plan: Plan,
        then: After,
        h: &mut impl Host,
    ) -> Determined {
        let Some(d) = self.disk(vol) else {
            return Determined::Unchanged;
        };
        let (old, devices, before) = (d.layout, d.devices, d.la_size);
        let conf = Sectors(d.conf.disk_size);
        let striping = plan.striping.unwrap_or(old.striping);
        let layout = if plan.in_place {
            old
        } else {
            match Layout::compute(old.kind, devices, striping) {
                Some(layout) => layout,
                None => return Determined::Failed(Unsized::NoFit),
            }
        };
        if plan.forced && self.state(vol).conn < Conn::Connected {
            self.log(vol, Note::ForcedResize, h);
        }
        let (size, note) = if plan.keep_size && before.0 != 0 {
            (before.min(layout.max_data_sectors(devices.backing)), None)
        } else {
            self.size_with(vol, Some(layout), conf, plan.forced)
        };
        if let Some(note) = note {
            self.log(vol, note, h);
        }
        if size.0 == 0 && before.0 != 0 {
            return Determined::Failed(Unsized::NoFit);
        }
        if size < before {
            if plan.striping.is_some() && conf.0 == 0 {
                self.log(vol, Note::ShrinkNeedsSize(size), h);
                return Determined::Failed(Unsized::Shrink);
            }
            if conf > size {
                return Determined::Failed(Unsized::NoFit);
            }
        }
        let resize = Resize {
            step: Step::Gate,
            turn: 0,
            size,
            layout,
            moved: layout.superblock != old.superblock || layout.md_size != old.md_size,
            leaves: left_behind(&old, &layout, devices.backing),
            set_new: !plan.no_resync,
            new_ring: plan.striping.is_some(),
            grew: size > before && before.0 != 0,
            then,
        };
        self.take_size(vol, resize, before, h)
    }

    /// Checks that the bitmap has room for the size, and begins to write whatever is new.
    fn take_size(
        &mut self,
        vol: VolIx,
        r: Resize,
        before: Sectors,
        h: &mut impl Host,
    ) -> Determined {
        let size = r.size;
        let Some(v) = self.vol_mut(vol) else {
            return Determined::Unchanged;
        };
        let Some(b) = v.backing.as_mut() else {
            return Determined::Unchanged;
        };
        // A sector of the bitmap holds 4096 bits.
        let on_disk = r.layout.bitmap_sectors().0.saturating_mul(4096);
        if size.bits() > on_disk || !b.bitmap.has_room_for(size) {
            self.log(vol, Note::BitmapTooSmall { size }, h);
            return Determined::Failed(Unsized::Bitmap);
        }
        if size != before || r.moved || r.new_ring {
            self.begin_resize(vol, r, h);
            return Determined::Waits;
        }
        // With the room that was just found this succeeds.
        let fits = b.bitmap.capacity() == size || b.bitmap.resize(size, true).is_ok();
        debug_assert!(fits);
        let bits = b.bitmap.bits();
        if v.size != size {
            self.set_capacity(vol, size, h);
            let capacity = size;
            self.log(vol, Note::BitmapSized { capacity, bits }, h);
        }
        Determined::Unchanged
    }

    fn begin_resize(&mut self, vol: VolIx, resize: Resize, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        debug_assert!(v.ctl.resize.is_none());
        v.ctl.resize = Some(resize);
        let after = self.next_turn(vol);
        // Nothing in flight has to do with a disk that is not in use yet. It may wait for the peer,
        // whose next words, behind the size, end the attach.
        if self.state(vol).disk == Disk::Negotiating {
            self.gate_close_at_once(vol);
            self.run_soon(after, true, h);
        } else {
            self.gate_close(vol, after, h);
        }
    }

    /// Puts the metadata where they belong before the peer is told how much room there is: the size
    /// that both nodes work out from what they tell each other has to be the same one. (The C
    /// driver does this when it hears of the peer's sizes, and may so arrive at another size than
    /// its peer.) True: that takes a while, ask again.
    pub(super) fn relocates(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let Some(v) = self.vol(vol) else { return false };
        if v.ctl.resize.is_some() {
            return true;
        }
        // A backing device that shrank below its data is left alone: what was there is lost, and
        // metadata at its end would only hide that.
        let elsewhere = v.backing.as_ref().is_some_and(|b| {
            let (l, devices) = (b.disk.layout, b.disk.devices);
            let here = Layout::compute(l.kind, devices, l.striping);
            let fits = |here: &Layout| here.max_data_sectors(devices.backing) >= b.disk.la_size;
            here.is_some_and(|here| here != l && fits(&here))
        });
        let usable = v.state.disk >= Disk::Inconsistent;
        usable
            && elsewhere
            && self.determine_dev_size(vol, Plan::GREETING, After::Nothing, h) == Determined::Waits
    }

    /// The continuation of the step to come. The counter outlives the resize, so that what an
    /// abandoned one left behind moves no other one on.
    fn next_turn(&mut self, vol: VolIx) -> After {
        let Some(v) = self.vol_mut(vol) else {
            return After::Nothing;
        };
        v.ctl.resize_turn = v.ctl.resize_turn.wrapping_add(1);
        let turn = v.ctl.resize_turn;
        if let Some(r) = v.ctl.resize.as_mut() {
            r.turn = turn;
        }
        After::Control(Next::Resize { vol, turn })
    }

    /// The next step of a change of size.
    pub(super) fn resize_goes_on(&mut self, vol: VolIx, turn: u32, ok: bool, h: &mut impl Host) {
        let Some(v) = self.vol(vol) else { return };
        let Some(r) = v.ctl.resize.filter(|r| r.turn == turn) else {
            return;
        };
        if !ok && r.step == Step::Gate {
            // The gate was not closed.
            let Some(v) = self.vol_mut(vol) else { return };
            v.ctl.resize = None;
            return self.run_after(r.then, false, h);
        }
        // A disk that has failed meanwhile gives the device no other size: the peer, which is about
        // to hear of that, may keep the one that it has. The C driver cannot be interrupted here.
        let lost = matches!(v.state.disk, Disk::Failed | Disk::Diskless);
        if !ok || lost || v.backing.is_none() {
            if ok && r.step == Step::Hold {
                // It is held from this moment on. Nobody else would release what the disk has to
                // write before it goes.
                self.meta_release(vol, h);
            }
            return self.resize_abandoned(vol, h);
        }
        let again = self.next_turn(vol);
        match r.step {
            Step::Gate => {
                self.resize_step(vol, Step::Hold);
                self.meta_hold(vol, again, h);
            }
            Step::Hold => {
                self.resize_step(vol, Step::Flagged);
                self.put_size(vol, &r, h);
                self.md_sync(vol, again, h);
            }
            Step::Flagged => {
                self.resize_step(vol, Step::Erased);
                match r.leaves {
                    Some(old) => self.erase_superblock(vol, old, again, h),
                    None => self.run_after(again, true, h),
                }
            }
            Step::Erased => {
                self.resize_step(vol, Step::Ring);
                self.rewrite_ring(vol, again, h);
            }
            Step::Ring => {
                self.resize_step(vol, Step::Bitmap);
                self.meta_release(vol, h);
                let pages = if r.moved { Pages::All } else { Pages::Changed };
                self.write_bitmap(vol, pages, again, h);
            }
            Step::Bitmap => {
                self.resize_step(vol, Step::Stored);
                if let Some(d) = self.disk_mut(vol) {
                    d.moving = false;
                }
                self.md_sync(vol, again, h);
            }
            Step::Stored => self.resize_ends(vol, &r, h),
        }
    }

    /// The end of the device to come, while a change of size is under way.
    pub(in super::super) fn size_to_come(&self, vol: VolIx) -> Option<Sectors> {
        self.vol(vol)?.ctl.resize.map(|r| r.size)
    }

    fn resize_step(&mut self, vol: VolIx, step: Step) {
        if let Some(r) = self.vol_mut(vol).and_then(|v| v.ctl.resize.as_mut()) {
            r.step = step;
        }
    }

    /// From here on memory has the new size and place; the disk follows.
    fn put_size(&mut self, vol: VolIx, r: &Resize, h: &mut impl Host) {
        let Some(b) = self.vol_mut(vol).and_then(|v| v.backing.as_mut()) else {
            return;
        };
        let sized = b.disk.la_size != r.size;
        b.disk.layout = r.layout;
        b.disk.la_size = r.size;
        b.disk.moving = true;
        let before = b.bitmap.capacity();
        // The storage was measured when the size was determined, and never shrinks.
        let fits = b.bitmap.capacity() == r.size || b.bitmap.resize(r.size, r.set_new).is_ok();
        debug_assert!(fits);
        if let Some(v) = self.vol_mut(vol) {
            let first = v.ctl.grown_from.unwrap_or(before).min(before);
            v.ctl.grown_from = (first < r.size).then_some(first);
        }
        let why = match (sized, r.moved) {
            (true, true) => "size changed and md moved",
            (true, false) => "size changed",
            (false, _) => "md moved",
        };
        self.log(vol, Note::WritingBitmap(why), h);
    }

    fn resize_ends(&mut self, vol: VolIx, r: &Resize, h: &mut impl Host) {
        if r.new_ring {
            let ring = r.layout.striping;
            self.log(vol, Note::NewAlLayout(ring), h);
        }
        let Some(v) = self.vol_mut(vol) else { return };
        v.ctl.resize = None;
        v.ctl.grew |= r.grew;
        if v.size != r.size {
            self.set_capacity(vol, r.size, h);
        }
        self.gate_open(vol, h);
        self.run_after(r.then, true, h);
    }

    /// The disk is lost, or a write failed: it is given up, and what is on it asks for a full sync.
    pub(super) fn resize_abandoned(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let Some(r) = v.ctl.resize.take() else { return };
        self.forget(After::Control(Next::Resize { vol, turn: r.turn }));
        let half_done = match r.step {
            Step::Gate | Step::Hold => false,
            Step::Flagged | Step::Erased | Step::Ring => {
                self.meta_release(vol, h);
                true
            }
            Step::Bitmap | Step::Stored => true,
        };
        if half_done && self.state(vol).disk > Disk::Failed {
            self.io_error(vol, IoErrorKind::Meta, h);
        }
        self.gate_open(vol, h);
        self.run_after(r.then, false, h);
    }

    /// The block device has this size from now on.
    pub(super) fn set_capacity(&mut self, vol: VolIx, size: Sectors, h: &mut impl Host) {
        if let Some(v) = self.vol_mut(vol) {
            v.size = size;
        }
        h.emit(Effect::SetCapacity { vol, size });
        self.log(vol, Note::SizeNow(size), h);
    }

    /// Whether own and peer's copy are both there to be synchronised.
    pub(super) fn both_disks(&self, vol: VolIx) -> bool {
        let s = self.state(vol);
        s.disk >= Disk::Inconsistent && s.pdsk >= Disk::Inconsistent
    }

    /// The sizes of the lower devices as they are now; also before a `resize` that is then refused,
    /// so that not each moment is one to take them over. Returns the storage to be handed in by
    /// [`Resource::give_bitmap`] should the bitmap need more than it has.
    pub fn disk_measured(
        &mut self,
        vol: VolIx,
        backing: Sectors,
        meta: Sectors,
    ) -> Option<crate::bitmap::Need> {
        let v = self.vol_mut(vol)?;
        if told_size_counts(v.state) {
            return None;
        }
        let connects = v.state.conn == crate::state::conn::State::WFReportParams;
        let b = v.backing.as_mut()?;
        let d = &b.disk.devices;
        v.ctl.outgrown |= connects && (d.backing, d.meta) != (backing, meta);
        b.disk.devices.backing = backing;
        b.disk.devices.meta = meta;
        let most = match b.disk.layout.kind {
            Kind::Internal => backing.min(crate::limits::MAX_SECTORS_FLEX),
            Kind::FlexExternal => {
                // A sector of bitmap covers 32768 sectors.
                let covered = Sectors(meta.0.saturating_mul(32_768));
                backing.min(covered).min(crate::limits::MAX_SECTORS_FLEX)
            }
            Kind::Indexed(_) => backing.min(crate::limits::MAX_SECTORS_INDEXED),
        };
        (!b.bitmap.has_room_for(most)).then(|| crate::bitmap::Need::of(most))
    }

    /// Larger storage for the bitmap. What is not used any more, or not at all, comes back to be
    /// freed.
    pub fn give_bitmap(
        &mut self,
        vol: VolIx,
        words: S::Vec<u64>,
        pages: S::Vec<crate::bitmap::PageFlags>,
    ) -> (S::Vec<u64>, S::Vec<crate::bitmap::PageFlags>) {
        match self.vol_mut(vol).and_then(|v| v.backing.as_mut()) {
            Some(b) => match b.bitmap.swap_storage(words, pages) {
                Ok(old) | Err(old) => old,
            },
            None => (words, pages),
        }
    }
}

/// Where a superblock lies that will be none any more, if the device still reaches so far.
fn left_behind(old: &Layout, new: &Layout, backing: Sectors) -> Option<Sector> {
    let there = old
        .superblock
        .0
        .checked_add(8)
        .is_some_and(|end| end <= backing.0);
    let moves = matches!(old.kind, Kind::Internal) && new.superblock != old.superblock;
    (there && moves).then_some(old.superblock)
}

/// The formula. `own`, `peer`: capacities, 0 without a disk; `agreed`: last size; `configured`: 0
/// for none.
fn dev_size(
    own: Sectors,
    peer: Sectors,
    agreed: Sectors,
    configured: Sectors,
) -> (Sectors, Option<Note>) {
    let mut note = None;
    let limit = |size: Sectors, by: Sectors| if by.0 != 0 { size.min(by) } else { size };
    let size = if own.0 != 0 && peer.0 != 0 {
        own.min(peer)
    } else if agreed.0 != 0 {
        limit(limit(agreed, own), peer)
    } else if own.0 != 0 {
        own
    } else {
        peer
    };
    if size.0 == 0 {
        note = Some(Note::BothDiskless);
    }
    if configured.0 == 0 {
        return (size, note);
    }
    if configured > size {
        let note = Note::RequestedTooBig {
            wanted: configured,
            max: size,
        };
        return (size, Some(note));
    }
    (configured, note)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(own: u64, peer: u64, agreed: u64, configured: u64) -> u64 {
        let s = |n| Sectors(n);
        dev_size(s(own), s(peer), s(agreed), s(configured)).0 .0
    }

    #[test]
    fn both_known_means_the_smaller() {
        assert_eq!(size(100, 80, 0, 0), 80);
        assert_eq!(size(100, 200, 50, 0), 100);
    }

    #[test]
    fn alone_the_last_agreement_counts() {
        assert_eq!(size(100, 0, 80, 0), 80);
        assert_eq!(size(60, 0, 80, 0), 60);
        assert_eq!(size(0, 70, 80, 0), 70);
        assert_eq!(size(100, 0, 0, 0), 100);
        assert_eq!(size(0, 0, 0, 0), 0);
    }

    #[test]
    fn the_configured_size_limits_but_never_adds() {
        assert_eq!(size(100, 80, 0, 40), 40);
        assert_eq!(size(100, 80, 0, 90), 80);
    }
}
