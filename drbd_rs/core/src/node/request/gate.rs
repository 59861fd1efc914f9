// SPDX-License-Identifier: GPL-2.0

//! Keeping new application I/O out of a volume until what is in flight has ended.
//!
//! The gate is counted: it is open when everybody who closed it has opened it again.

use super::super::io::{Host, VolIx};
use super::super::{After, Resource, Store};

/// Those who may wait for the end of I/O on a volume at once.
pub(super) const WAITERS: usize = 8;

impl<S: Store> Resource<S> {
    /// Admits no new application I/O until [`Resource::gate_open`]; `after` runs, with `ok`, when
    /// none is in flight, or what is in flight is frozen; a resync waits for the end of that, too.
    /// An exchange of bitmaps that was given up still waits: the next one takes its place, so that
    /// a slow disk and a connection that comes and goes do not use up the room.
    /// Without such a volume, or with too many waiting, it runs without `ok` and
    /// nothing was closed.
    pub(crate) fn gate_close(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        let taken = self.io_vol_mut(vol).is_some_and(|v| {
            let waits = matches!(after, After::Resync(_)) && v.io.gate_waiters.contains(&after);
            if !waits {
                let mut waiters = v.io.gate_waiters.iter_mut();
                let Some(free) = waiters.find(|w| **w == After::Nothing) else {
                    return false;
                };
                *free = after;
            }
            v.io.gate = v.io.gate.saturating_add(1);
            true
        });
        if !taken {
            self.run_soon(after, false, h);
        }
    }

    /// The same for somebody whom what is in flight does not concern.
    pub(crate) fn gate_close_at_once(&mut self, vol: VolIx) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.gate = v.io.gate.saturating_add(1);
        }
    }

    /// Takes one [`Resource::gate_close`] back.
    pub(crate) fn gate_open(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(v) = self.io_vol_mut(vol) {
            debug_assert!(v.io.gate > 0);
            v.io.gate = v.io.gate.saturating_sub(1);
        }
        self.admission_pump(vol, h);
    }

    /// Who waits with `after`, for the end of I/O or for a superblock, is no more. The gate stays
    /// as it is. Where I/O hangs, those who give up one after the other would use up the room, and
    /// what comes then would not be waited for.
    pub(crate) fn forget(&mut self, after: After) {
        for v in self.volumes.iter_mut().flatten() {
            for waiter in v.io.gate_waiters.iter_mut().filter(|w| **w == after) {
                *waiter = After::Nothing;
            }
            if let Some(b) = v.backing.as_mut() {
                b.meta_io.forget(after);
            }
        }
    }

    /// Runs those who waited for the end of I/O.
    pub(super) fn gate_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        loop {
            let Some(v) = self.io_vol_mut(vol) else {
                return;
            };
            let idle = v.io.in_flight == 0;
            if !idle && !v.state.is_suspended() || h.room() < super::UNIT {
                return;
            }
            let may = |w: &After| match w {
                After::Nothing => false,
                After::Resync(_) => idle,
                After::Control(_) | After::Request(_) => true,
            };
            let due = v.io.gate_waiters.iter_mut().find(|w| may(w));
            let Some(due) = due else { return };
            let after = core::mem::replace(due, After::Nothing);
            self.run_after(after, true, h);
        }
    }
}
