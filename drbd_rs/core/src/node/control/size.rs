// SPDX-License-Identifier: GPL-2.0

//! How large the device is (algorithms.md §10), and the writes that a new size needs.
//!
//! A size that differs from the one on disk goes through four steps, each durable before the next:
//! the superblock says that the bitmap is not to be trusted; the bitmap; the superblock with the
//! new size; then the device has it. Meanwhile no application I/O is admitted and the receiver
//! waits.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::units::Sectors;

use super::super::io::{Effect, Host, VolIx};
use super::super::note::Note;
use super::super::request::Pages;
use super::super::{After, Resource, Store};
use super::Next;

use crate::meta::superblock::Flags as Md;

/// A change of size under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resize {
    step: Step,
    /// The size to come.
    size: Sectors,
    /// Flags of the superblock to be restored.
    flags: u32,
    /// The device grew.
    pub(super) grew: bool,
    /// What goes on afterwards.
    then: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Gate,
    Flagged,
    Bitmap,
    Stored,
}

/// What determining the size came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Determined {
    /// Nothing changed.
    Unchanged,
    /// The writes are under way.
    Waits,
    /// There is no room for the bitmap of that size.
    Failed,
}

impl<S: Store> Resource<S> {
    /// The size that own disk, peer's disk, last agreement and `configured` size lead to.
    /// `forced`: the peer is assumed to have room.
    pub(super) fn new_dev_size(
        &self,
        vol: VolIx,
        configured: Sectors,
        forced: bool,
    ) -> (Sectors, Option<Note>) {
        let Some(v) = self.vol(vol) else {
            return (Sectors(0), None);
        };
        let own = v.backing.as_ref().map_or(Sectors(0), |b| b.disk.max_size());
        let agreed = v.backing.as_ref().map_or(Sectors(0), |b| b.disk.la_size);
        let mut peer = v.peers.first().map_or(Sectors(0), |p| p.ctl.size);
        if v.state.conn < Conn::Connected && forced {
            peer = own;
        }
        dev_size(own, peer, agreed, configured)
    }

    /// Brings the device to the size it should have now.
    pub(super) fn determine_dev_size(
        &mut self,
        vol: VolIx,
        forced: bool,
        then: After,
        h: &mut impl Host,
    ) -> Determined {
        let Some(conf) = self.disk(vol).map(|d| Sectors(d.conf.disk_size)) else {
            return Determined::Unchanged;
        };
        let (size, note) = self.new_dev_size(vol, conf, forced);
        if let Some(note) = note {
            self.log(vol, note, h);
        }
        let Some(v) = self.vol_mut(vol) else {
            return Determined::Unchanged;
        };
        let Some(b) = v.backing.as_mut() else {
            return Determined::Unchanged;
        };
        let before = b.disk.la_size;
        if b.bitmap.capacity() != size && b.bitmap.resize(size, true).is_err() {
            return Determined::Failed;
        }
        let bits = b.bitmap.bits();
        if size == before {
            if v.size != size {
                self.set_capacity(vol, size, h);
                let note = Note::BitmapSized {
                    capacity: size,
                    bits,
                };
                self.log(vol, note, h);
            }
            return Determined::Unchanged;
        }
        v.ctl.resize = Some(Resize {
            step: Step::Gate,
            size,
            flags: b.disk.flags,
            grew: size > before && before.0 != 0,
            then,
        });
        self.log(vol, Note::SizeNow(size), h);
        self.gate_close(vol, After::Control(Next::Resize { vol }), h);
        Determined::Waits
    }

    /// The next step of a change of size.
    pub(super) fn resize_goes_on(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let again = After::Control(Next::Resize { vol });
        let Some(v) = self.vol_mut(vol) else { return };
        let Some(r) = v.ctl.resize.as_mut() else {
            return;
        };
        let Some(b) = v.backing.as_mut().filter(|_| ok) else {
            let then = r.then;
            v.ctl.resize = None;
            self.gate_open(vol, h);
            self.run_after(then, false, h);
            return;
        };
        match r.step {
            Step::Gate => {
                r.step = Step::Flagged;
                b.disk.flags |= Md::FULL_SYNC.with(Md::AL_DISABLED).0;
                self.md_sync(vol, again, h);
            }
            Step::Flagged => {
                r.step = Step::Bitmap;
                self.write_bitmap(vol, Pages::All, again, h);
            }
            Step::Bitmap => {
                r.step = Step::Stored;
                b.disk.flags = r.flags;
                b.disk.la_size = r.size;
                self.md_sync(vol, again, h);
            }
            Step::Stored => {
                let (size, then, grew) = (r.size, r.then, r.grew);
                v.ctl.resize = None;
                v.ctl.grew |= grew;
                self.set_capacity(vol, size, h);
                self.gate_open(vol, h);
                self.run_after(then, true, h);
            }
        }
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
