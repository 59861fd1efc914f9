// SPDX-License-Identifier: GPL-2.0

//! Time as the core sees it: an argument, never read from a clock.

/// A moment, in nanoseconds of a monotonic clock of the caller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl core::hash::Hash for Instant {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        crate::key::name(crate::key::MOMENT, self.0, state);
    }
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub u64);

impl Instant {
    /// The moment `d` later; saturates at the end of time.
    pub const fn plus(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(d.0))
    }

    /// The time since `earlier`; zero if that lies ahead.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }
}

impl Duration {
    /// A span of `ms` milliseconds.
    pub const fn millis(ms: u64) -> Duration {
        Duration(ms.saturating_mul(1_000_000))
    }

    /// A span of `s` seconds.
    pub const fn secs(s: u64) -> Duration {
        Duration(s.saturating_mul(1_000_000_000))
    }

    /// A span of `ds` tenths of a second, the unit of most of DRBD's timeouts.
    pub const fn tenths(ds: u64) -> Duration {
        Duration(ds.saturating_mul(100_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// `n` times as long; saturates.
    pub const fn times(self, n: u64) -> Duration {
        Duration(self.0.saturating_mul(n))
    }
}
