// SPDX-License-Identifier: GPL-2.0

//! A random mix of everything that a seed can think of, with the oracle watching.

use crate::world::World;
use drbd_core::time::Duration;
use drbd_core::units::Sectors;

/// 20 MiB: two resync extents.
const SIZE: Sectors = Sectors(40_960);

/// Who is Primary, as the administrator believes.
struct Chaos {
    w: World,
    primary: usize,
}

impl Chaos {
    fn burst(&mut self) {
        let n = self.w.rng.between(1, 60);
        for _ in 0..n {
            self.w.random_io(self.primary);
            let pause = Duration(self.w.rng.below(2_000_000));
            self.w.run(pause);
        }
    }

    fn pause(&mut self) {
        let span = match self.w.rng.below(3) {
            0 => self.w.rng.below(2_000_000),
            1 => self.w.rng.below(300_000_000),
            _ => self.w.rng.below(15_000_000_000),
        };
        self.w.run(Duration(span));
    }

    /// The network fails for a while.
    fn cut(&mut self) {
        self.w.set_network(false);
        self.burst();
        self.pause();
        self.burst();
        self.w.set_network(true);
    }

    /// The secondary loses its power.
    fn crash_secondary(&mut self) {
        let node = 1 - self.primary;
        self.w.crash(node);
        self.burst();
        self.pause();
        self.w.up(node);
    }

    /// The primary loses its power; the secondary takes over if it has all data.
    fn crash_primary(&mut self) {
        let in_sync = self.w.is_in_sync();
        let (old, new) = (self.primary, 1 - self.primary);
        for _ in 0..self.w.rng.below(30) {
            self.w.random_io(old);
        }
        let moment = Duration(self.w.rng.below(3_000_000));
        self.w.run(moment);
        let in_sync = in_sync && self.w.is_in_sync();
        self.w.crash(old);
        if in_sync {
            self.w
                .run_until("loss of the peer", Duration::secs(60), |w| {
                    w.cstate(new) == "WFConnection"
                });
            self.w.primary(new, false);
            self.primary = new;
            self.w.read_everything(new);
            self.burst();
            self.w.up(old);
        } else {
            self.pause();
            self.w.up(old);
            self.w.run_until("a usable disk", Duration::secs(120), |w| {
                w.disks(old).0 == "UpToDate"
            });
            // Nobody had flushed: its disk may have lost what applications were told.
            self.w.accept_data_of(old);
            self.w.primary(old, false);
            self.w.read_everything(old);
        }
    }

    /// The roles change in good order.
    fn switch_over(&mut self) {
        self.settle();
        self.w.secondary(self.primary);
        self.primary = 1 - self.primary;
        let new = self.primary;
        // The news of it may stand behind a flush that takes long; then `primary` is refused.
        self.w
            .run_until("a peer that is Secondary", Duration::secs(60), |w| {
                w.peer_role(new) == "Secondary"
            });
        self.w.primary(new, false);
    }

    /// The administrator disconnects and connects again.
    fn disconnect(&mut self) {
        let node = self.w.rng.below(2) as usize;
        self.w.disconnect(node);
        self.burst();
        self.w.connect(node);
        self.w.connect(1 - node);
    }

    fn settle(&mut self) {
        self.w
            .run_until("both UpToDate", Duration::secs(900), World::is_in_sync);
        self.w.quiesce();
        self.w.assert_equal_disks();
        self.verify();
    }

    /// What is equal is found to be equal, while applications write; from either side.
    fn verify(&mut self) {
        let node = self.w.rng.below(2) as usize;
        let code = self.w.verify(node, None, None);
        assert!(matches!(code, 1 | 3), "verify: {code}");
        self.burst();
        self.w
            .run_until("the end of the verify", Duration::secs(900), |w| {
                w.is_in_sync()
            });
        self.w.quiesce();
        assert_eq!((self.w.bits_set(0), self.w.bits_set(1)), (0, 0));
    }
}

/// One run of trouble; panics, with a trace, when something is wrong.
pub fn run(seed: u64) {
    let mut w = World::new(seed, SIZE);
    w.knobs.c_min_rate = if seed % 3 == 0 { 0 } else { 250 };
    w.knobs.csums = u64::from(seed % 5 == 2);
    w.knobs.rs_discard = if seed % 7 == 3 { 65_536 } else { 0 };
    w.knobs.verify = 1;
    w.up(0);
    w.up(1);
    w.run_until("connection", Duration::secs(60), |w| {
        w.cstate(0) == "Connected" && w.cstate(1) == "Connected"
    });
    w.primary(0, true);
    for n in &mut w.nodes {
        n.trouble.slow = if seed % 4 == 1 { 64 } else { 0 };
    }
    let mut c = Chaos { w, primary: 0 };
    let rounds = c.w.rng.between(3, 9);
    for _ in 0..rounds {
        match c.w.rng.below(10) {
            0 | 1 => c.cut(),
            2 | 3 => c.crash_secondary(),
            4 | 5 => c.crash_primary(),
            6 => c.switch_over(),
            7 => c.disconnect(),
            8 => c.settle(),
            _ => c.pause(),
        }
        c.burst();
    }
    c.settle();
    c.w.read_everything(c.primary);
    c.w.secondary(c.primary);
    c.w.down(0);
    c.w.down(1);
    c.w.assert_equal_disks();
}
