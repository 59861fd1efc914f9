// SPDX-License-Identifier: GPL-2.0

//! How fast a resync asks for data: the controller of algorithms.md §5.2 and the throttle of §5.3.
//!
//! The controller wants a constant amount of data on the way (or a constant delay), and spreads
//! each correction over the next `steps` steps of 100 ms, so that it does not swing. All arithmetic
//! is in whole sectors and exact, so that it moves as the C driver's does.
//!
//! Invariant: `total` is the sum of the `steps` slots of the plan.

use crate::time::{Duration, Instant};
use crate::units::{index, saturate_u32};

/// Time between two steps of the controller (SLEEP_TIME of the C driver).
pub(super) const STEP: Duration = Duration::millis(100);
/// Longest `c-plan-ahead`, in steps (config.md).
const MAX_STEPS: usize = 300;
/// Sectors in the block that one bit covers.
const BLOCK: i64 = 8;

/// The settings that the controller looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RateConf {
    /// `c-plan-ahead`: steps of 0.1 s; 0 switches the controller off.
    pub(crate) plan_ahead: u32,
    /// `c-delay-target`: 0.1 s.
    pub(crate) delay_target: u32,
    /// `c-fill-target`: sectors; 0: `delay_target` counts.
    pub(crate) fill_target: u32,
    /// `c-max-rate`: KiB/s.
    pub(crate) max_rate: u32,
    /// `c-min-rate`: KiB/s; 0: never throttle.
    pub(crate) min_rate: u32,
    /// `resync-rate`: KiB/s.
    pub(crate) resync_rate: u32,
}

/// The controller.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Rate {
    plan: [i32; MAX_STEPS],
    steps: u16,
    head: u16,
    total: i64,
    /// Sectors asked for and not answered.
    in_flight: i64,
    /// Sectors answered since the last step.
    sect_in: u32,
    /// Sectors of this node's own resync I/O since the start.
    own: u64,
    /// What the backing device did for others when last looked at, sectors.
    last_events: u64,
    /// The rate aimed at, KiB/s.
    want: u32,
}

impl core::hash::Hash for Rate {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let steps = usize::from(self.steps);
        self.plan.iter().take(steps).for_each(|p| p.hash(state));
        (self.steps, self.head, self.total).hash(state);
        (self.in_flight, self.sect_in).hash(state);
    }
}

impl Rate {
    pub(super) const fn new() -> Rate {
        Rate {
            plan: [0; MAX_STEPS],
            steps: 0,
            head: 0,
            total: 0,
            in_flight: 0,
            sect_in: 0,
            own: 0,
            last_events: 0,
            want: 0,
        }
    }

    /// A resync begins. `events`: sectors that this volume moved for others so far.
    pub(super) fn reset(&mut self, conf: &RateConf, events: u64) {
        self.plan = [0; MAX_STEPS];
        self.steps = u16::try_from(conf.plan_ahead).unwrap_or(u16::MAX).min(300);
        self.head = 0;
        self.total = 0;
        self.in_flight = 0;
        self.sect_in = 0;
        self.own = 0;
        self.last_events = events;
        self.want = 0;
    }

    /// `sectors` were answered.
    pub(super) fn answered(&mut self, sectors: u64) {
        self.sect_in = self.sect_in.saturating_add(saturate_u32(sectors));
    }

    /// All that was asked for is answered. What was counted may say otherwise: a block at the end
    /// of the device is short, an answer to an earlier resync tells nothing of this one. A few
    /// sectors that stay on the way for ever make a plan of many steps ask for nothing, for less
    /// than a block is due in each, and the half lock of the generator keeps applications waiting.
    pub(super) fn nothing_open(&mut self) {
        self.in_flight = i64::from(self.sect_in);
    }

    /// `blocks` of 4 KiB were asked for.
    pub(super) fn asked(&mut self, blocks: u32) {
        let sectors = i64::from(blocks).saturating_mul(BLOCK);
        self.in_flight = self.in_flight.saturating_add(sectors);
    }

    /// This node's resync moved `sectors` on the backing device.
    pub(super) fn moved(&mut self, sectors: u64) {
        self.own = self.own.saturating_add(sectors);
    }

    /// The rate aimed at, KiB/s.
    pub(super) const fn want(&self) -> u32 {
        self.want
    }

    /// One step: how many blocks of 4 KiB to ask for now.
    pub(super) fn step(&mut self, conf: &RateConf, max_buffers: u32) -> u32 {
        let plan_ahead = u16::try_from(conf.plan_ahead).unwrap_or(u16::MAX).min(300);
        if plan_ahead != self.steps {
            self.plan = [0; MAX_STEPS];
            self.steps = plan_ahead;
            self.head = 0;
            self.total = 0;
        }
        let sect_in = i64::from(core::mem::take(&mut self.sect_in));
        self.in_flight = self.in_flight.saturating_sub(sect_in);
        let number = if self.steps == 0 {
            self.want = conf.resync_rate;
            i64::from(conf.resync_rate / 40)
        } else {
            let number = self.control(conf, sect_in) / BLOCK;
            self.want = saturate_u32(u64::try_from(number).unwrap_or(0).saturating_mul(40));
            number
        };
        let cap = i64::from(max_buffers / 2).saturating_sub(self.in_flight / BLOCK);
        u32::try_from(number.min(cap).max(0)).unwrap_or(u32::MAX)
    }

    /// Sectors to ask for in this step.
    fn control(&mut self, conf: &RateConf, sect_in: i64) -> i64 {
        let steps = i64::from(self.steps);
        let per_step = |kib: u32| i64::from(kib).saturating_mul(2) / 10;
        let want = if self.in_flight.saturating_add(sect_in) == 0 {
            per_step(conf.resync_rate).saturating_mul(steps)
        } else if conf.fill_target != 0 {
            i64::from(conf.fill_target)
        } else {
            sect_in.saturating_mul(i64::from(conf.delay_target))
        };
        let correction = want
            .saturating_sub(self.in_flight)
            .saturating_sub(self.total);
        let cps = correction.checked_div(steps).unwrap_or(0);
        let cps = i32::try_from(cps).unwrap_or(if cps < 0 { i32::MIN } else { i32::MAX });
        for slot in self.plan.iter_mut().take(usize::from(self.steps)) {
            *slot = slot.saturating_add(cps);
        }
        let curr = match self.plan.get_mut(usize::from(self.head)) {
            Some(slot) => core::mem::take(slot),
            None => 0,
        };
        self.head = self.head.saturating_add(1);
        if self.head >= self.steps {
            self.head = 0;
        }
        let added = i64::from(cps).saturating_mul(steps);
        self.total = self
            .total
            .saturating_add(added)
            .saturating_sub(i64::from(curr));
        let ask = sect_in.saturating_add(i64::from(curr));
        ask.clamp(0, per_step(conf.max_rate))
    }

    /// Whether the resync is to step aside for applications: they are active, and the resync ran
    /// faster than `c-min-rate` since `mark`. `events` as for [`Rate::reset`], own I/O included.
    pub(super) fn throttled(
        &mut self,
        conf: &RateConf,
        waiting: bool,
        events: u64,
        done: u64,
        took: Duration,
    ) -> bool {
        if conf.min_rate == 0 {
            return false;
        }
        let others = events.saturating_sub(self.own);
        if !waiting && others.saturating_sub(self.last_events) <= 64 {
            return false;
        }
        self.last_events = others;
        let seconds = took.as_secs().max(1);
        let kib = done.checked_div(seconds).unwrap_or(0).saturating_mul(4);
        kib > u64::from(conf.min_rate)
    }

    /// A moment one step from now.
    pub(super) const fn next(now: Instant) -> Instant {
        now.plus(STEP)
    }
}

/// Keeps the widest plan within what an index can name.
const _: () = assert!(index(300) == MAX_STEPS);

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: RateConf = RateConf {
        plan_ahead: 20,
        delay_target: 10,
        fill_target: 100,
        max_rate: 102_400,
        min_rate: 250,
        resync_rate: 250,
    };

    /// The same steps in plain arithmetic, as algorithms.md §5.2 lists them.
    struct Naive {
        plan: std::collections::VecDeque<i64>,
        in_flight: i64,
    }

    impl Naive {
        fn step(&mut self, c: &RateConf, sect_in: i64) -> i64 {
            let steps = self.plan.len() as i64;
            self.in_flight -= sect_in;
            let want = if self.in_flight + sect_in == 0 {
                (c.resync_rate as i64 * 2 / 10) * steps
            } else if c.fill_target != 0 {
                c.fill_target as i64
            } else {
                sect_in * c.delay_target as i64
            };
            let cps = (want - self.in_flight - self.plan.iter().sum::<i64>()) / steps;
            self.plan.iter_mut().for_each(|s| *s += cps);
            let curr = self.plan.pop_front().unwrap();
            self.plan.push_back(0);
            (sect_in + curr).clamp(0, c.max_rate as i64 * 2 / 10) / 8
        }
    }

    #[test]
    fn follows_the_plain_arithmetic() {
        for fill in [0, 100, 4000] {
            let conf = RateConf {
                fill_target: fill,
                resync_rate: 9999,
                ..CONF
            };
            let mut rate = Rate::new();
            rate.reset(&conf, 0);
            let mut naive = Naive {
                plan: vec![0; 20].into(),
                in_flight: 0,
            };
            let mut noise = 12345u32;
            let mut open = 0u32;
            for _ in 0..500 {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let answered = (noise >> 8) % (open + 1);
                open -= answered;
                rate.answered(u64::from(answered) * 8);
                let want = naive.step(&conf, i64::from(answered) * 8);
                let got = rate.step(&conf, u32::MAX);
                assert_eq!(i64::from(got), want);
                rate.asked(got);
                naive.in_flight += want * 8;
                open += got;
            }
        }
    }

    #[test]
    fn reaches_the_fill_target_and_stays() {
        let mut rate = Rate::new();
        let conf = RateConf {
            resync_rate: 4096,
            ..CONF
        };
        rate.reset(&conf, 0);
        // A peer that answers 30 blocks in a step, no more.
        let (mut open, mut answered) = (0u32, 0);
        for _ in 0..400 {
            answered = open.min(30);
            open -= answered;
            rate.answered(u64::from(answered) * 8);
            let asked = rate.step(&conf, 4000);
            rate.asked(asked);
            open += asked;
        }
        assert_eq!(answered, 30);
        let waiting = i64::from(open) * 8 - 240;
        assert!((50..=150).contains(&waiting), "{waiting} sectors in flight");
    }

    #[test]
    fn fixed_rate_and_buffers_limit() {
        let mut rate = Rate::new();
        let conf = RateConf {
            plan_ahead: 0,
            resync_rate: 10_240,
            ..CONF
        };
        rate.reset(&conf, 0);
        assert_eq!(rate.step(&conf, 8000), 256);
        assert_eq!(rate.want(), 10_240);
        rate.asked(256);
        assert_eq!(rate.step(&conf, 600), 44);
    }

    #[test]
    fn what_was_miscounted_does_not_stop_it() {
        let conf = RateConf {
            plan_ahead: 100,
            ..CONF
        };
        for (asked, sectors) in [(1, 40), (7, 48)] {
            let mut rate = Rate::new();
            rate.reset(&conf, 0);
            rate.asked(asked);
            rate.answered(sectors);
            let blocks: Vec<u32> = (0..500).map(|_| rate.step(&conf, 8000)).collect();
            assert_eq!(blocks.last(), Some(&0), "{asked} blocks, {sectors} sectors");
            rate.nothing_open();
            assert!(rate.step(&conf, 8000) > 0);
        }
    }

    #[test]
    fn throttles_only_beside_applications() {
        let mut rate = Rate::new();
        rate.reset(&CONF, 1000);
        let second = Duration::secs(1);
        assert!(!rate.throttled(&CONF, false, 1064, 1 << 20, second));
        assert!(rate.throttled(&CONF, false, 1065, 1 << 20, second));
        assert!(!rate.throttled(&CONF, false, 1065, 1 << 20, second));
        assert!(rate.throttled(&CONF, true, 1065, 63, second));
        assert!(!rate.throttled(&CONF, true, 1065, 62, second));
        rate.moved(1000);
        assert!(!rate.throttled(&CONF, false, 2100, 1 << 20, second));
        let off = RateConf {
            min_rate: 0,
            ..CONF
        };
        assert!(!rate.throttled(&off, true, 9999, 1 << 20, second));
    }
}
