// SPDX-License-Identifier: GPL-2.0

//! How far a resync has come, and how fast.
//!
//! Eight marks, at least 3 s apart, remember how much was left when; `/proc/drbd` and the throttle
//! look at the one before the newest. Amounts are bits of the bitmap, 4 KiB each.

use crate::time::{Duration, Instant};

/// Marks kept (DRBD_SYNC_MARKS).
const MARKS: usize = 8;
/// Least time between two marks (DRBD_SYNC_MARK_STEP).
const MARK_STEP: Duration = Duration::secs(3);

/// What was left when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    /// When.
    pub(crate) at: Instant,
    /// Bits left.
    pub(crate) left: u64,
}

/// Progress of a resync, as `/proc/drbd` and netlink show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    /// Bits to sync at the start; 0: no resync.
    pub(crate) total: u64,
    /// Bits that could not be synced.
    pub(crate) failed: u64,
    /// Bits that are out of sync now, failed ones included; bits to compare in a verify.
    pub(crate) left: u64,
    /// When it began.
    pub(crate) start: Instant,
    /// How long it was paused.
    pub(crate) paused: Duration,
    /// All marks, oldest slot first; `last` is the newest.
    pub(crate) marks: [Mark; MARKS],
    /// Index of the newest mark.
    pub(crate) last: u8,
    /// The rate that the controller aims at, KiB/s.
    pub(crate) want: u32,
    /// Where it is: the next bit to ask for, or that was asked for last.
    pub(crate) cursor: u64,
}

/// Progress of a resync.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) total: u64,
    pub(super) failed: u64,
    /// Bits at the source that the target knows nothing of, and that no resync of what a device
    /// has grown by is about.
    pub(super) apart: u64,
    pub(super) start: Instant,
    pub(super) paused: Duration,
    marks: [Mark; MARKS],
    last: u8,
    /// Since when it is paused.
    halted: Option<Instant>,
}

crate::key::key! {
    Marks { total, failed, apart }
    names {}
    not { start, paused, marks, last, halted }
}

impl Marks {
    pub(super) const fn new() -> Marks {
        Marks {
            total: 0,
            failed: 0,
            apart: 0,
            start: Instant(0),
            paused: Duration(0),
            marks: [Mark {
                at: Instant(0),
                left: 0,
            }; MARKS],
            last: 0,
            halted: None,
        }
    }

    /// A resync of `left` bits begins.
    pub(super) fn begin(&mut self, now: Instant, left: u64) {
        *self = Marks {
            total: left,
            start: now,
            marks: [Mark { at: now, left }; MARKS],
            ..Marks::new()
        };
    }

    /// There is no resync any more.
    pub(super) fn end(&mut self) {
        self.total = 0;
        self.failed = 0;
        self.apart = 0;
        self.paused = Duration(0);
        self.halted = None;
    }

    /// `left` bits are left now: makes a mark if it is time for one.
    pub(super) fn advance(&mut self, now: Instant, left: u64) {
        let newest = self.mark(0);
        if self.halted.is_some() || newest.left == left || now.since(newest.at) < MARK_STEP {
            return;
        }
        self.last = self.last.saturating_add(1) & 7;
        if let Some(mark) = self.marks.get_mut(usize::from(self.last)) {
            *mark = Mark { at: now, left };
        }
    }

    /// The mark `back` before the newest.
    pub(super) fn mark(&self, back: u8) -> Mark {
        let ix = usize::from(self.last.wrapping_sub(back) & 7);
        self.marks.get(ix).copied().unwrap_or_default()
    }

    /// The resync is paused; the newest mark moves along, so that the speed shown stays sensible.
    pub(super) fn pause(&mut self, now: Instant) {
        self.halted = Some(now);
        if let Some(mark) = self.marks.get_mut(usize::from(self.last)) {
            mark.at = now;
        }
    }

    /// The resync goes on.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(since) = self.halted.take() {
            self.paused.0 = self.paused.0.saturating_add(now.since(since).0);
        }
    }

    /// How long it ran and how long it was paused, in seconds, the first at least 1.
    pub(super) fn took(&mut self, now: Instant) -> (u64, u64) {
        self.resume(now);
        let all = now.since(self.start);
        let ran = Duration(all.0.saturating_sub(self.paused.0));
        (ran.as_secs().max(1), self.paused.as_secs())
    }

    /// What users see.
    pub(super) fn snapshot(&self, left: u64, want: u32, cursor: u64) -> Snapshot {
        Snapshot {
            total: self.total,
            failed: self.failed,
            left,
            start: self.start,
            paused: self.paused,
            marks: self.marks,
            last: self.last,
            want,
            cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_three_seconds_apart_and_only_on_progress() {
        let at = |s: u64| Instant(s * 1_000_000_000);
        let mut m = Marks::new();
        m.begin(at(10), 1000);
        m.advance(at(12), 900);
        assert_eq!(
            m.mark(0),
            Mark {
                at: at(10),
                left: 1000
            }
        );
        m.advance(at(13), 900);
        assert_eq!(
            m.mark(0),
            Mark {
                at: at(13),
                left: 900
            }
        );
        assert_eq!(
            m.mark(1),
            Mark {
                at: at(10),
                left: 1000
            }
        );
        m.advance(at(20), 900);
        assert_eq!(m.mark(0).at, at(13));
        m.pause(at(21));
        m.advance(at(30), 800);
        assert_eq!(
            m.mark(0),
            Mark {
                at: at(21),
                left: 900
            }
        );
        m.resume(at(31));
        m.advance(at(31), 800);
        assert_eq!(
            m.mark(0),
            Mark {
                at: at(31),
                left: 800
            }
        );
        assert_eq!(m.took(at(41)), (21, 10));
    }

    #[test]
    fn a_resync_of_no_time_took_a_second() {
        let mut m = Marks::new();
        m.begin(Instant(5), 1);
        assert_eq!(m.took(Instant(6)), (1, 0));
    }
}
