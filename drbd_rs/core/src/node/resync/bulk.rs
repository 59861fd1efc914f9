// SPDX-License-Identifier: GPL-2.0

//! Setting or clearing all of the bitmap, durably.
//!
//! ```text
//!  set all:   FULL_SYNC into the superblock ─▶ set, write the bitmap ─▶ FULL_SYNC out again
//!  clear all:                                  clear, write the bitmap
//! ```
//!
//! A crash in between leaves FULL_SYNC behind, which forces a full sync: nothing is forgotten.
//! One at a time; the next waits in a short queue.

use super::super::io::{Host, VolIx};
use super::super::request::Pages;
use super::super::{After, Note, Resource, Store};
use super::Next;

/// Operations that may wait.
const QUEUE: usize = 4;

/// What is done to the bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Set,
    Clear,
}

/// Operations on the whole bitmap; the first one runs.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Bulk {
    queue: [Option<(What, After)>; QUEUE],
}

impl Bulk {
    pub(super) const fn new() -> Bulk {
        Bulk {
            queue: [None; QUEUE],
        }
    }

    fn first(&self) -> Option<What> {
        self.queue.first().copied().flatten().map(|(what, _)| what)
    }
}

impl<S: Store> Resource<S> {
    /// Sets all bits and writes them; `after` follows with the outcome. If it fails, the superblock
    /// keeps saying that a full sync is due.
    pub(crate) fn set_all_and_write(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        self.bulk_enqueue(vol, What::Set, after, h);
    }

    /// Clears all bits and writes them; `after` follows with the outcome.
    pub(crate) fn clear_all_and_write(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        self.bulk_enqueue(vol, What::Clear, after, h);
    }

    fn bulk_enqueue(&mut self, vol: VolIx, what: What, after: After, h: &mut impl Host) {
        let free = self.rs_mut(vol).and_then(|rs| {
            (0usize..)
                .zip(&mut rs.bulk.queue)
                .find(|(_, q)| q.is_none())
        });
        match free {
            Some((at, slot)) => {
                *slot = Some((what, after));
                if at == 0 {
                    self.bulk_begin(vol, h);
                }
            }
            None => self.run_after(after, false, h),
        }
    }

    fn bulk_begin(&mut self, vol: VolIx, h: &mut impl Host) {
        match self.rs(vol).and_then(|rs| rs.bulk.first()) {
            Some(What::Set) => {
                self.set_full_sync(vol, true);
                self.md_sync(vol, After::Resync(Next::BulkFlagged(vol)), h);
            }
            Some(What::Clear) => self.bulk_fill(vol, What::Clear, h),
            None => {}
        }
    }

    fn bulk_fill(&mut self, vol: VolIx, what: What, h: &mut impl Host) {
        let Some((_, disk)) = self.rs_disk_mut(vol) else {
            self.bulk_end(vol, false, h);
            return;
        };
        match what {
            What::Set => disk.bitmap.set_all(),
            What::Clear => {
                disk.bitmap.clear_all();
                // It may have been left alone as long as all bits were set.
                disk.al.set_suspended(false);
            }
        }
        let suspended = self
            .volumes
            .get_mut(usize::from(vol.0))
            .and_then(Option::as_mut)
            .filter(|_| what == What::Clear)
            .is_some_and(|v| core::mem::take(&mut v.ctl.al_suspended));
        if suspended {
            self.rs_log(vol, Note::AlResumed, h);
        }
        // What was counted per extent does not hold any more.
        let after = After::Resync(Next::BulkWritten(vol));
        self.write_bitmap(vol, Pages::All, after, h);
    }

    pub(super) fn bulk_flagged(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        if ok {
            self.bulk_fill(vol, What::Set, h);
        } else {
            self.bulk_end(vol, false, h);
        }
    }

    pub(super) fn bulk_written(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        match self.rs(vol).and_then(|rs| rs.bulk.first()) {
            Some(What::Set) if ok => {
                self.set_full_sync(vol, false);
                self.md_sync(vol, After::Resync(Next::BulkDone(vol)), h);
            }
            Some(What::Set | What::Clear) => self.bulk_end(vol, ok, h),
            None => {}
        }
    }

    pub(super) fn bulk_done(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        self.bulk_end(vol, ok, h);
    }

    fn bulk_end(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let done = rs.bulk.queue.first_mut().and_then(Option::take);
        rs.bulk.queue.rotate_left(1);
        // The next one begins before the continuation may queue another.
        self.bulk_begin(vol, h);
        if let Some((_, after)) = done {
            self.run_after(after, ok, h);
        }
    }
}
