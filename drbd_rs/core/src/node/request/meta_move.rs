// SPDX-License-Identifier: GPL-2.0

//! Holding metadata I/O while the metadata move, and writing the activity log's ring anew.
//!
//! ```text
//!  meta_hold ─▶ Asked ─(nothing in flight)─▶ Held ─rewrite_ring─▶ Ring ─(all blocks)─▶ Held
//!     Held ─erase_superblock─▶ Erasing ─▶ Held
//!     Held ─meta_release─▶ None
//! ```
//!
//! While it is held, no transaction and no page of the bitmap is begun: what would be written goes
//! to a place that is about to become another one. The superblock may be written, by whoever moves.
//!
//! Invariant: whoever waits is told exactly once, also when the disk goes.

use super::meta_io::durable;
use super::token::Name;
use super::UNIT;

use super::super::io::{Host, MetaOp, VolIx};
use super::super::{After, Resource, Store};
use crate::units::Sector;

/// How far the move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hold {
    /// Nothing moves.
    None,
    /// What is in flight has to end first.
    Asked(After),
    /// Nothing is in flight.
    Held,
    /// The superblock in the old place is being overwritten.
    Erasing(After),
    /// The ring is being written.
    Ring {
        /// Blocks still to be written.
        left: u32,
        /// Who waits.
        after: After,
    },
}

impl Hold {
    /// Takes whoever waits.
    pub(super) fn take(&mut self) -> Option<After> {
        match core::mem::replace(self, Hold::None) {
            Hold::Asked(after) | Hold::Erasing(after) | Hold::Ring { after, .. } => Some(after),
            Hold::None | Hold::Held => None,
        }
    }
}

impl<S: Store> Resource<S> {
    /// Lets metadata I/O come to rest; then runs `after`, with `ok`, and holds it until
    /// [`Resource::meta_release`]. Without a disk, or if it is held already, `after` runs without
    /// `ok` and nothing is held.
    pub(crate) fn meta_hold(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        match self.meta(vol) {
            Some(m) if m.hold == Hold::None => m.hold = Hold::Asked(after),
            Some(_) | None => return self.run_soon(after, false, h),
        }
        self.hold_pump(vol, h);
    }

    /// Goes on with what was held.
    pub(crate) fn meta_release(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(after) = self.meta(vol).and_then(|m| m.hold.take()) {
            debug_assert!(false, "released in the middle");
            self.run_soon(after, false, h);
        }
        self.ctl.stirred = true;
    }

    /// Makes the superblock that lies at `old` unreadable, for good; then runs `after`. The
    /// metadata must be held, and the superblock of the new place be stable.
    pub(crate) fn erase_superblock(
        &mut self,
        vol: VolIx,
        old: Sector,
        after: After,
        h: &mut impl Host,
    ) {
        let flags = self
            .io_backing(vol)
            .map(|b| durable(b.disk.conf.md_flushes));
        let (Some(flags), Some(m)) = (flags, self.meta(vol).filter(|m| m.hold == Hold::Held))
        else {
            return self.run_soon(after, false, h);
        };
        m.hold = Hold::Erasing(after);
        let (name, op) = (Name::OldSuperblock(vol), MetaOp::EraseSuperblock);
        self.emit_meta(vol, name, op, old, 4096, flags, h);
    }

    pub(super) fn superblock_erased(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let Some(m) = self.meta(vol) else { return };
        if let Hold::Erasing(after) = m.hold {
            m.hold = Hold::Held;
            self.run_soon(after, ok, h);
        }
    }

    /// Writes every block of the ring, in its place and with the number of the next transaction;
    /// then runs `after`. The metadata must be held. The blocks are not flushed one by one: the
    /// superblock that declares the ring valid flushes them.
    pub(crate) fn rewrite_ring(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        let left = self
            .io_backing(vol)
            .map_or(0, |b| b.disk.layout.striping.blocks());
        match self.meta(vol) {
            Some(m) if m.hold == Hold::Held => m.hold = Hold::Ring { left, after },
            Some(_) | None => return self.run_soon(after, false, h),
        }
        self.hold_pump(vol, h);
    }

    /// Moves the hold on; true if room ran out.
    #[inline(never)]
    pub(super) fn hold_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let Some(m) = self.meta(vol) else {
            return false;
        };
        match m.hold {
            Hold::None | Hold::Held | Hold::Erasing(_) => false,
            Hold::Asked(after) if m.in_flight() == 0 => {
                m.hold = Hold::Held;
                self.run_soon(after, true, h);
                false
            }
            Hold::Asked(_) => false,
            Hold::Ring { left: 0, after } => {
                m.hold = Hold::Held;
                self.run_soon(after, true, h);
                false
            }
            Hold::Ring { .. } if m.is_writing_log() => false,
            Hold::Ring { .. } => {
                if h.room() < UNIT {
                    return true;
                }
                let Some(b) = self.io_backing(vol) else {
                    return false;
                };
                if b.al.rewrite_step(&mut b.meta_io.tx) {
                    self.write_al_block(vol, h);
                }
                false
            }
        }
    }

    /// A block of the ring is written, or not.
    pub(super) fn ring_block_done(&mut self, vol: VolIx, written: bool, h: &mut impl Host) {
        let Some(m) = self.meta(vol) else { return };
        let Hold::Ring { left, after } = m.hold else {
            return;
        };
        if written {
            let left = left.saturating_sub(1);
            m.hold = Hold::Ring { left, after };
            self.hold_pump(vol, h);
        } else {
            m.hold = Hold::Held;
            self.run_soon(after, false, h);
        }
    }
}
