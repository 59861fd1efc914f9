// SPDX-License-Identifier: GPL-2.0

//! A run as a list of decided things: drawn from a seed, or read from a file.
//!
//! ```text
//! noise 17
//! knobs protocol=1 fencing=2
//! +1500000 write 0 40 100
//! +300 crash 1
//! ```
//!
//! Each line after the first two: microseconds to wait, what, on which node, two numbers. As the
//! list is all there is, lines can be taken out of it one by one.

use crate::dense::{self, is_dense};
use crate::jobs::EXIT;
use crate::knobs::Knobs;
use crate::rng::Rng;

/// Sets the stream of randomness apart that [`Plan::draw_more`] uses.
const LATER: u64 = 0x6c61_7465_7200_0000;
/// The same for [`Plan::draw_wide`].
const WIDE: u64 = 0x7769_6465_0000_0000;
/// The same for [`Plan::draw_stacked`].
const STACKED: u64 = 0x7374_6163_6b00_0000;

macro_rules! ops {
    ($( $(#[$about:meta])* $name:ident = $word:literal, $weight:literal; )+) => {
        /// What can be done to a cluster.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Op {
            $( $(#[$about])* $name, )+
        }

        impl Op {
            /// All, each with its usual weight in a draw.
            pub const ALL: &'static [(Op, u64)] = &[ $( (Op::$name, $weight), )+ ];

            /// The word in a plan.
            pub const fn word(self) -> &'static str {
                match self {
                    $( Op::$name => $word, )+
                }
            }
        }
    };
}

ops! {
    /// An application does `a` I/Os, up to `b` µs apart.
    Work = "work", 60;
    /// `primary`.
    Primary = "primary", 12;
    /// `primary --force`.
    Force = "force", 2;
    /// `secondary`.
    Secondary = "secondary", 6;
    /// `connect`.
    Connect = "connect", 6;
    /// `disconnect`; `a`: by force.
    Disconnect = "disconnect", 5;
    /// `attach`.
    Attach = "attach", 6;
    /// `detach`; `a`: by force.
    Detach = "detach", 4;
    /// `invalidate`.
    Invalidate = "invalidate", 2;
    /// `invalidate-remote`.
    InvalidatePeer = "invalidate-remote", 2;
    /// `outdate`.
    Outdate = "outdate", 2;
    /// `pause-sync`.
    Pause = "pause-sync", 3;
    /// `resume-sync`.
    Resume = "resume-sync", 4;
    /// `suspend-io`.
    Suspend = "suspend-io", 2;
    /// `resume-io`.
    Thaw = "resume-io", 4;
    /// `disk-options`: `a` chooses.
    DiskOptions = "disk-options", 3;
    /// `net-options`: `a` chooses.
    NetOptions = "net-options", 3;
    /// `new-current-uuid`.
    NewUuid = "new-current-uuid", 1;
    /// `down`, in good order.
    Down = "down", 4;
    /// Power on, `attach`, `connect`.
    Up = "up", 14;
    /// The power fails.
    Crash = "crash", 14;
    /// The power of all nodes fails.
    CrashAll = "crash-all", 3;
    /// Nothing reaches the node for `a` ms.
    Cut = "cut", 8;
    /// Nothing reaches either node for `a` ms.
    CutAll = "cut-all", 8;
    /// The connection breaks; bits of `a`: which node hears of it.
    Break = "break", 8;
    /// The receiver of the node stands still for `a` ms.
    Deaf = "deaf", 5;
    /// So many (`a`) I/Os of kind `b` fail: read, write, metadata.
    DiskError = "disk-error", 5;
    /// The disk does nothing for `a` ms.
    Stall = "stall", 5;
    /// One I/O of the disk in `a` takes seconds; 0: none.
    Slow = "slow", 3;
    /// Helpers behave as `a` says.
    Helpers = "helpers", 4;
    /// Roles change in good order.
    Switch = "switch", 8;
    /// Nothing is done for `a` ms.
    Wait = "wait", 30;
    /// `verify` from `a` to `b`, 1/1000 of the device; 0: where the last one ended, to the end.
    Verify = "verify", 0;
    /// The disk becomes larger by `a` sectors; of both nodes if `b`.
    Grow = "grow", 0;
    /// `resize`.
    Resize = "resize", 0;
    /// A resource that has to sync first does so (`a`), or is done with it.
    HoldBack = "hold-back", 0;
    /// Applications on both nodes do `a` I/Os in the same small place; `b`: with flushes.
    WorkBoth = "work-both", 0;
    /// A bit of the next data on the wire flips, if there are digests to find that.
    Flip = "flip", 0;
    /// `disconnect` (`b`: by force) and `connect --discard-my-data`; `a`: `--tentative` instead,
    /// on node 0.
    Give = "give", 0;
    /// The applications on the node close the device, if nothing is under way.
    Close = "close", 0;
    /// `resource-options`: `on-no-data-accessible` is `a`.
    ResourceOptions = "resource-options", 0;
    /// Something happens to the pair below; `a` chooses, `b` is a number for it.
    Below = "below", 0;
}

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// µs after the one before.
    pub after: u64,
    /// What.
    pub op: Op,
    /// On which node.
    pub node: usize,
    /// See the [`Op`].
    pub a: u64,
    /// See the [`Op`].
    pub b: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of all that is not decided here: latencies, UUIDs, places of I/O.
    pub noise: u64,
    /// The world.
    pub knobs: Knobs,
    /// What is done.
    pub actions: Vec<Action>,
}

/// Whether a peer may fall behind.
fn falls_behind(k: &Knobs) -> bool {
    k.on_congestion != 0
}

/// Numbers that fit an action.
fn arguments(op: Op, rng: &mut Rng) -> (u64, u64) {
    match op {
        Op::Work => {
            let n = rng.between(1, 60);
            let calm = [1, 200, 2000, 20_000, 200_000];
            (n, calm[rng.below(5) as usize])
        }
        Op::Disconnect | Op::Detach => (u64::from(rng.percent(30)), 0),
        Op::DiskOptions | Op::NetOptions => (rng.below(8), 0),
        Op::Cut | Op::CutAll | Op::Deaf | Op::Stall | Op::Wait => {
            let span = [5, 300, 3000, 9000, 40_000];
            let span = span[rng.below(5) as usize];
            (1 + rng.below(span), 0)
        }
        Op::Break => (rng.below(4), 0),
        Op::DiskError => (rng.between(1, 3), rng.below(3)),
        Op::Slow => ([0, 8, 64][rng.below(3) as usize], 0),
        Op::Helpers => (rng.below(4), 0),
        // A whole device takes long.
        Op::Verify if rng.percent(10) => (0, 0),
        Op::Verify => {
            let from = rng.below(1000);
            (from, from + rng.between(1, 60))
        }
        Op::HoldBack => (rng.below(2), 0),
        Op::WorkBoth => (rng.between(5, 80), rng.below(2)),
        Op::Give => (u64::from(rng.percent(25)), u64::from(rng.percent(30))),
        Op::ResourceOptions => (rng.below(2), 0),
        Op::Below => (rng.below(8), 1 + rng.below(9000)),
        Op::Grow => (8 * rng.between(100, 4000), u64::from(rng.percent(80))),
        _ => (0, 0),
    }
}

impl Plan {
    /// Draws a run.
    pub fn draw(seed: u64) -> Plan {
        if is_dense(seed) {
            return dense::draw(seed);
        }
        let mut rng = Rng::new(seed);
        let knobs = Knobs::draw(&mut rng);
        // Swarm: of what is not needed for life, each run leaves about half out.
        let weights: Vec<(Op, u64)> = Op::ALL
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(op, weight)| {
                let vital = matches!(op, Op::Work | Op::Up | Op::Wait | Op::Primary);
                (*op, if vital || rng.percent(45) { *weight } else { 0 })
            })
            .collect();
        let sum: u64 = weights.iter().map(|(_, w)| w).sum();
        let mut actions = Vec::new();
        for _ in 0..rng.between(5, 60) {
            let mut at = rng.below(sum);
            let mut op = Op::Wait;
            for (candidate, weight) in &weights {
                if at < *weight {
                    op = *candidate;
                    break;
                }
                at -= weight;
            }
            let span = [100, 5000, 100_000, 2_000_000][rng.below(4) as usize];
            let (a, b) = arguments(op, &mut rng);
            let node = usize::from(rng.percent(50));
            actions.push(Action {
                after: rng.below(span),
                op,
                node,
                a,
                b,
            });
        }
        let mut plan = Plan {
            noise: rng.bits() >> 16,
            knobs,
            actions,
        };
        plan.draw_more(&mut Rng::new(seed ^ LATER));
        plan.draw_wide(&mut Rng::new(seed ^ WIDE));
        plan
    }

    /// In half of the runs, features that came later: seeds keep what they drew before.
    fn draw_more(&mut self, rng: &mut Rng) {
        if rng.percent(50) {
            return;
        }
        self.knobs.draw_more(rng);
        let k = &self.knobs;
        let wanted = [
            (Op::Verify, k.verify != 0),
            (Op::HoldBack, k.resync_after != 0),
            (Op::Grow, k.grows != 0),
            (Op::Resize, k.grows != 0),
        ];
        for (op, wanted) in wanted {
            let most = match (wanted, op) {
                (false, _) => 0,
                (true, Op::Grow) => 2,
                (true, _) => 6,
            };
            for _ in 0..rng.below(most + 1) {
                let (a, b) = arguments(op, rng);
                self.insert(op, (a, b), rng);
            }
        }
    }

    /// Does something somewhere in between.
    fn insert(&mut self, op: Op, (a, b): (u64, u64), rng: &mut Rng) {
        let node = usize::from(rng.percent(50));
        let at = rng.below(self.actions.len() as u64 + 1) as usize;
        let after = rng.below(2_000_000);
        let action = Action {
            after,
            op,
            node,
            a,
            b,
        };
        self.actions.insert(at, action);
    }

    /// In half of the runs, not the same half: ways to begin, two Primaries, congestion, digests,
    /// helpers with any exit code, options that change.
    fn draw_wide(&mut self, rng: &mut Rng) {
        if rng.percent(50) {
            return;
        }
        self.knobs.draw_wide(rng);
        let k = &self.knobs;
        let both = k.two_primaries != 0;
        let wanted = [
            (Op::WorkBoth, 8, both),
            (Op::Primary, 5, both),
            (Op::Work, 6, k.on_congestion != 0),
            (Op::Flip, 4, k.integrity != 0),
            (Op::Give, 3, rng.percent(30)),
            (Op::Close, 3, rng.percent(40)),
            (Op::ResourceOptions, 2, rng.percent(20)),
            (Op::Helpers, 3, rng.percent(40)),
            (Op::DiskOptions, 3, rng.percent(20)),
            (Op::NetOptions, 3, rng.percent(20)),
        ];
        for (op, most, wanted) in wanted {
            for _ in 0..if wanted { 1 + rng.below(most) } else { 0 } {
                let what = match op {
                    Op::Helpers => {
                        let codes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 20, 255];
                        (u64::from(EXIT) + codes[rng.below(11) as usize], 0)
                    }
                    Op::DiskOptions | Op::NetOptions => (8 + rng.below(7), 0),
                    // Faster than the network takes it.
                    Op::Work if falls_behind(&self.knobs) => (rng.between(60, 250), 200),
                    _ => arguments(op, rng),
                };
                self.insert(op, what, rng);
            }
        }
    }

    /// Draws a run of three nodes, stacked.
    pub fn draw_stacked(seed: u64) -> Plan {
        // No dense one.
        let mut plan = Plan::draw(seed.wrapping_mul(8) | 1);
        let rng = &mut Rng::new(seed ^ STACKED);
        let k = &mut plan.knobs;
        // Its metadata would move, and rot has to be there, too.
        (k.stacked, k.grows, k.verify) = (1, 0, 0);
        // Those that go by the order of the usual.
        k.begin &= 1;
        k.size &= !7;
        let moved = [Op::Grow, Op::Resize, Op::Verify];
        plan.actions.retain(|x| !moved.contains(&x.op));
        for _ in 0..rng.between(2, 14) {
            let what = arguments(Op::Below, rng);
            plan.insert(Op::Below, what, rng);
        }
        plan
    }

    /// As text.
    pub fn spell(&self) -> String {
        let mut out = format!("noise {}\nknobs {}\n", self.noise, self.knobs.spell());
        for x in &self.actions {
            out += &format!("+{} {} {} {} {}\n", x.after, x.op.word(), x.node, x.a, x.b);
        }
        out
    }

    /// Reads it back. Lines that begin with `#` say what people should know.
    ///
    /// # Errors
    /// Says which line makes no sense.
    pub fn parse(text: &str) -> Result<Plan, String> {
        let mut plan = Plan {
            noise: 0,
            knobs: Knobs::plain(),
            actions: Vec::new(),
        };
        for line in text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.trim().is_empty())
        {
            let wrong = || format!("not understood: {line}");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("noise") => {
                    plan.noise = words
                        .next()
                        .and_then(|w| w.parse().ok())
                        .ok_or_else(wrong)?;
                }
                Some("knobs") => {
                    for word in words {
                        let (name, value) = word.split_once('=').ok_or_else(wrong)?;
                        plan.knobs.set(name, value.parse().map_err(|_| wrong())?)?;
                    }
                }
                Some(after) => {
                    let after = after.strip_prefix('+').and_then(|a| a.parse().ok());
                    let word = words.next().ok_or_else(wrong)?;
                    let op = Op::ALL.iter().find(|(op, _)| op.word() == word);
                    let n: Vec<u64> = words.filter_map(|w| w.parse().ok()).collect();
                    let (Some(after), Some((op, _)), &[node, a, b]) = (after, op, &n[..]) else {
                        return Err(wrong());
                    };
                    let node = usize::try_from(node).map_err(|_| wrong())?;
                    plan.actions.push(Action {
                        after,
                        op: *op,
                        node,
                        a,
                        b,
                    });
                }
                None => {}
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_back() {
        for seed in 0..50 {
            let plan = Plan::draw(seed);
            assert_eq!(Plan::parse(&plan.spell()), Ok(plan));
        }
    }
}
