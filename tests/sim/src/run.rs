// SPDX-License-Identifier: GPL-2.0

//! Carries a plan out, ends it in peace, and makes a failing one shorter.
//!
//! After the last action all faults stop, and a careful administrator brings the cluster back: that
//! has to succeed in bounded time, and both disks have to be equal then.

use crate::drbdmeta;
use crate::jobs::Job;
use crate::node::Node;
use crate::plan::{Action, Op, Plan};
use crate::stats::Stats;
use crate::world::{say, Event, Violation, World, VOL};
use drbd_core::nl::conf::NetConf;
use drbd_core::node::admin::Command;
use drbd_core::node::{AppOp, PEER};
use drbd_core::state::conn::State as Conn;
use drbd_core::state::disk::State as Disk;
use drbd_core::time::{Duration, Instant};
use drbd_core::units::{BmBit, Sector, SectorRange, Sectors};
use std::cell::RefCell;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// The first version of the protocol whose nodes can verify.
const VERIFIES: u32 = 88;
/// Sectors among which some rot.
const ROTTEN: u64 = 1000;
/// What no application has written.
const ROT: u64 = u64::MAX;
/// Sectors in a block of the bitmap.
const BLOCK: u64 = 8;

/// How long the cluster may need to find back, in simulated seconds.
pub(crate) const PATIENCE: u64 = 1800;

thread_local! {
    /// Where the last panic of this thread happened.
    static PANIC: RefCell<Option<Violation>> = const { RefCell::new(None) };
}

/// How a run ended.
pub struct Outcome {
    /// What went wrong.
    pub violation: Option<Violation>,
    /// Numbers, also of a run that failed.
    pub stats: Box<Stats>,
    /// The trace, if one was wanted.
    pub trace: Vec<String>,
}

/// Keeps panics of runs off the terminal; they are reported as violations.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
        let text = info
            .payload()
            .downcast_ref::<&str>()
            .map(ToString::to_string);
        let text = text.or_else(|| info.payload().downcast_ref::<String>().cloned());
        let why = text.unwrap_or_default();
        let oracle = format!("panic at {place}");
        PANIC.with(|p| *p.borrow_mut() = Some(Violation { oracle, why }));
    }));
}

/// Carries a plan out.
pub fn run(plan: &Plan, tracing: bool) -> Outcome {
    let mut w = World::with(plan.noise, plan.knobs.clone());
    w.tracing = tracing;
    w.verbose = tracing && std::env::var_os("SIM_VERBOSE").is_some();
    let result = catch_unwind(AssertUnwindSafe(|| {
        w.begin();
        for action in &plan.actions {
            w.run(Duration(action.after * 1000));
            w.act(action);
        }
        w.end_in_peace();
    }));
    let violation = result
        .err()
        .map(|payload| match payload.downcast::<Violation>() {
            Ok(violation) => *violation,
            Err(_) => PANIC.with(|p| p.borrow_mut().take()).unwrap_or(Violation {
                oracle: "panic".into(),
                why: String::new(),
            }),
        });
    w.stats.runs = 1;
    w.stats.time = w.now.0;
    let trace = w.whole_trace();
    Outcome {
        violation,
        stats: w.stats,
        trace,
    }
}

/// Takes out of a failing plan whatever it fails without, in the same way. Tries for so many runs.
pub fn shrink(plan: &Plan, oracle: &str, tries: usize) -> Plan {
    let fails = |p: &Plan| run(p, false).violation.is_some_and(|v| v.oracle == oracle);
    let mut best = plan.clone();
    let mut left = tries;
    let mut chunk = best.actions.len().div_ceil(2).max(1);
    while left > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.actions.len() && left > 0 {
            let mut next = best.clone();
            let end = (at + chunk).min(next.actions.len());
            let waited: u64 = next.actions.drain(at..end).map(|a| a.after).sum();
            // The time that passed may be what matters.
            let mut patient = next.clone();
            if let Some(following) = patient.actions.get_mut(at) {
                following.after += waited;
            }
            left -= 1;
            if fails(&next) {
                best = next;
                shorter = true;
            } else if fails(&patient) {
                best = patient;
                shorter = true;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && !shorter {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    if tries == 0 {
        return best;
    }
    plain_knobs(best, fails)
}

/// Puts back to the usual what need not be unusual.
fn plain_knobs(mut best: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    for word in best
        .knobs
        .spell()
        .split(' ')
        .map(str::to_string)
        .collect::<Vec<_>>()
    {
        let spelled = best.spell().replacen(&format!(" {word}"), "", 1);
        if let Ok(next) = Plan::parse(&spelled) {
            if next != best && next.knobs.fit() && fails(&next) {
                best = next;
            }
        }
    }
    best
}

impl World {
    pub(crate) fn run_for(&mut self, what: &str, seconds: u64, done: impl Fn(&World) -> bool) {
        let end = self.now.plus(Duration::secs(seconds));
        while !done(self) {
            if !self.next_before(end) {
                let why = format!("no {what} in {seconds} s; {}", self.describe());
                self.violated("the cluster gets on", &why);
            }
        }
    }

    pub(crate) fn both(&self, conn: Conn) -> bool {
        self.nodes.iter().all(|n| n.state.conn == conn)
    }

    pub(crate) fn want_up(&mut self, node: usize) {
        if self.nodes[node].res.is_some() {
            return;
        }
        if self.is_stacked(node) {
            self.want_site();
        } else {
            self.power_on(node);
            self.want(node, Job::Attach);
            self.want(node, Job::Connect(false));
        }
    }

    fn want_down(&mut self, node: usize) {
        let vol = VOL;
        self.want_order(node, Command::Secondary { vol });
        self.want_order(
            node,
            Command::Disconnect {
                peer: PEER,
                force: false,
            },
        );
        self.want_order(node, Command::Detach { vol, force: false });
        self.want(node, Job::Off);
    }

    /// Does one thing.
    pub fn act(&mut self, x: &Action) {
        say!(self, "--- {} n{} {} {}", x.op.word(), x.node, x.a, x.b);
        self.stats.count(x.op.word());
        let (node, vol) = (x.node, VOL);
        let span = Duration::millis(x.a);
        match x.op {
            Op::Work => {
                let primary = (0..2).find(|n| self.nodes[*n].state.role.is_primary());
                let both = self.nodes.iter().all(|n| n.state.role.is_primary());
                let node = if both { node } else { primary.unwrap_or(node) };
                let mix = 1 + self.knobs.discard as u32;
                self.schedule(node, Duration(1), Event::Work(x.a as u32, x.b * 1000, mix));
            }
            Op::WorkBoth => {
                let places = 1 << 8 | x.b as u32 & 1;
                for node in 0..self.nodes.len() {
                    self.schedule(node, Duration(1), Event::Work(x.a as u32, 300_000, places));
                }
            }
            Op::Close => {
                if self.nodes[node].apps.is_empty() {
                    self.hold_open(node, false);
                }
            }
            Op::Below => self.act_below(x),
            Op::Flip => self.net.flip |= self.nodes.iter().all(|n| n.digests),
            Op::Up => self.want_up(node),
            Op::Down => self.want_down(node),
            Op::Crash => self.power_cut(node),
            Op::CrashAll => (0..self.nodes.len()).for_each(|n| self.power_cut(n)),
            Op::Cut => self.cut_for(node, span),
            Op::CutAll => {
                self.cut_for(0, span);
                self.cut_for(1, span);
            }
            Op::Break => self.break_link([x.a & 1 != 0, x.a & 2 != 0]),
            Op::Deaf => {
                self.nodes[node].trouble.deaf_until = self.now.plus(span);
                self.schedule(node, Duration(span.0 + 1), Event::Wake);
            }
            Op::DiskError => {
                let kind = (x.b as usize).min(2);
                self.nodes[node].trouble.eio[kind] += x.a as u32;
            }
            Op::Stall => self.nodes[node].trouble.stalled_until = self.now.plus(span),
            Op::Slow => self.nodes[node].trouble.slow = x.a,
            Op::Helpers => self.nodes[node].trouble.helpers = x.a as u32,
            Op::Wait => self.run(span),
            // A stacked device does not.
            Op::Grow if self.below.is_some() => {}
            Op::Grow => {
                let both = (0..2).filter(|n| *n == node || x.b != 0);
                both.for_each(|n| self.grow(n, x.a));
            }
            Op::HoldBack => self.hold_back(node, x.a != 0),
            Op::Attach => self.want(node, Job::Attach),
            Op::Connect => self.want(node, Job::Connect(false)),
            Op::Switch => {
                let primary = (0..2).find(|n| self.nodes[*n].state.role.is_primary());
                let from = primary.unwrap_or(node);
                self.want_order(from, Command::Secondary { vol });
                self.run(Duration::millis(200));
                self.want_order(1 - from, Command::Primary { vol, force: false });
            }
            _ => self.order_of(x),
        }
    }

    /// The orders that are one command.
    fn order_of(&mut self, x: &Action) {
        let (vol, peer, force) = (VOL, PEER, x.a & 1 != 0);
        let command = match x.op {
            Op::Primary => Command::Primary { vol, force: false },
            Op::Force => Command::Primary { vol, force: true },
            Op::Secondary => Command::Secondary { vol },
            Op::Disconnect => Command::Disconnect { peer, force },
            Op::Detach => Command::Detach { vol, force },
            Op::Invalidate => Command::Invalidate { vol },
            Op::InvalidatePeer => Command::InvalidatePeer { vol },
            Op::Outdate => Command::Outdate { vol },
            Op::Pause => Command::PauseSync { vol },
            Op::Resume => Command::ResumeSync { vol },
            Op::Suspend => Command::SuspendIo { vol },
            Op::Thaw => Command::ResumeIo { vol },
            Op::Give => {
                // Two that only try do so for ever, as with the C driver.
                let conf = NetConf {
                    discard_my_data: x.a == 0,
                    tentative: x.a != 0 && x.node == 0,
                    ..self.knobs.net_conf(x.node)
                };
                let force = x.b != 0;
                self.want_order(x.node, Command::Disconnect { peer, force });
                Command::Connect { peer, conf }
            }
            Op::NewUuid => Command::NewCurrentUuid {
                vol,
                clear_bitmap: false,
            },
            Op::Resize if self.nodes[x.node].res.is_some() => self.resize_order(x.node),
            Op::Verify => {
                let place = |n: u64| Sector(n * self.last_size.0 / 1000);
                let start = (x.a != 0).then(|| place(x.a));
                let stop = (x.b != 0).then(|| place(x.b));
                self.verify_order(x.node, start, stop)
            }
            _ => match self.options_of(x) {
                Some(command) => command,
                None => return,
            },
        };
        let frees = [Op::Force, Op::Invalidate, Op::InvalidatePeer, Op::NewUuid];
        self.truth.forced |= frees.contains(&x.op);
        self.want_order(x.node, command);
    }

    /// The orders that change options; `a` chooses.
    fn options_of(&self, x: &Action) -> Option<Command> {
        Some(match x.op {
            Op::ResourceOptions => {
                let mut opts = self.knobs.resource_opts();
                opts.on_no_data = x.a as u32 & 1;
                Command::ResourceOptions { opts }
            }
            Op::DiskOptions => {
                let mut conf = self.knobs.disk_conf();
                match x.a {
                    0 => conf.c_min_rate = 0,
                    1 => conf.c_plan_ahead = 0,
                    2 => conf.c_max_rate = 1000,
                    3 => conf.al_updates = false,
                    4 => conf.on_io_error = 0,
                    5 => conf.read_balancing = 3,
                    6 => conf.resync_rate = 10_000,
                    8 => conf.fencing = 0,
                    9 => conf.fencing = 1,
                    10 => conf.on_io_error = 1,
                    11 => conf.c_fill_target = 0,
                    12 => conf.c_delay_target = 100,
                    13 => conf.disk_timeout = 30,
                    14 => conf.al_updates = true,
                    _ => {}
                }
                Command::DiskOptions { vol: VOL, conf }
            }
            Op::NetOptions => {
                let mut conf = self.knobs.net_conf(x.node);
                match x.a {
                    0 => conf.ko_count = 1,
                    1 => conf.ping_int = 1,
                    2 => conf.timeout = 20,
                    3 => conf.max_epoch_size = 2,
                    4 => conf.use_rle = false,
                    5 => conf.max_buffers = 32,
                    8 => conf.rr_conflict = 10,
                    9 => conf.after_sb_1p = 8,
                    10 => conf.after_sb_2p = 10,
                    11 => conf.always_asbp = true,
                    12 => conf.cong_fill = 100,
                    13 => conf.two_primaries = self.knobs.protocol == 3,
                    14 => conf.on_congestion = 0,
                    _ => {}
                }
                Command::NetOptions { peer: PEER, conf }
            }
            _ => return None,
        })
    }

    fn power_cut(&mut self, node: usize) {
        if self.nodes[node].res.is_some() {
            self.crash(node);
        }
    }

    fn cut_for(&mut self, node: usize, span: Duration) {
        if !self.net.cut[node] {
            self.cut(node, true);
            self.schedule_free(self.now.plus(span), node);
        }
    }

    /// From here on nothing fails any more.
    pub(crate) fn faults_stop(&mut self) {
        say!(self, "--- faults stop");
        self.net.lame = 0;
        for node in 0..self.nodes.len() {
            self.cut(node, false);
            let t = &mut self.nodes[node].trouble;
            *t = Default::default();
            self.hold_back(node, false);
            self.schedule(node, Duration(1), Event::Wake);
        }
    }

    /// All faults stop; then everything has to be well in bounded time.
    pub(crate) fn end_in_peace(&mut self) {
        self.faults_stop();
        self.faults_stop_below();
        let began = self.now;
        let links = self.net.links;
        let mut calm = 0;
        while calm < 3 {
            self.run(Duration::secs(1));
            // A disk that still holds a write back may be given up for that.
            let quiet = (0..2).all(|n| {
                let node = &self.nodes[n];
                self.open_ios(n) == 0 && node.jobs.is_empty() && node.writes.is_empty()
            });
            let well = quiet && !self.is_frozen() && self.is_calm_below();
            calm = if self.is_in_sync() && self.are_linked() && well {
                calm + 1
            } else {
                0
            };
            let seconds = self.now.since(began).as_secs();
            if calm == 0 {
                self.care_below(seconds);
                self.care(seconds);
            }
            if seconds > PATIENCE {
                let why = self.describe();
                self.violated("the cluster finds back", &why);
            }
            if self.net.links > links + 400 {
                let why = self.describe();
                self.violated("no endless reconnects", &why);
            }
        }
        // A bit that was to flip and had no data to flip in. What follows has no administrator: two
        // Primaries that lose their connection are split, and need one.
        self.net.flip = false;
        self.agreed();
        self.same_uuids();
        self.know_each_other();
        self.leave_nothing();
        let reader = usize::from(self.nodes[1].state.role.is_primary());
        if self.nodes[reader].state.role.is_primary() {
            self.read_everything(reader);
            if self.knobs.grows != 0 {
                self.resize_takes_all(reader);
            }
            if self.knobs.verify != 0 && self.net.agreed.0 >= VERIFIES {
                self.verify_finds_all(reader);
            }
        }
        self.end_below();
    }

    /// What a node has heard of its peer is true: by that it refuses to become Primary, or pauses.
    /// An order that is still carried out, on a slow disk, tells at its end.
    fn know_each_other(&mut self) {
        self.run_for("word of roles and pauses", 60, |w| {
            (0..2).all(|node| {
                let (own, peer) = (w.nodes[node].state, w.nodes[1 - node].state);
                own.peer == peer.role && own.peer_isp == (peer.user_isp || peer.aftr_isp)
            })
        });
    }

    /// The device takes up what both disks have room for, and what is new becomes the same.
    fn resize_takes_all(&mut self, primary: usize) {
        say!(self, "--- all there is");
        for node in 0..self.nodes.len() {
            if self.nodes[node].state.user_isp {
                self.want_order(node, Command::ResumeSync { vol: VOL });
            }
        }
        let room = |n: &Node| {
            let size = n.disk.size();
            drbdmeta::layout(size).max_data_sectors(size)
        };
        let room = room(&self.nodes[0]).min(room(&self.nodes[1]));
        for _ in 0..10 {
            let order = self.resize_order(primary);
            self.want_order(primary, order);
            self.run(Duration::secs(2));
            self.await_sync("rest");
            if self.nodes.iter().all(|n| n.size == room) {
                break;
            }
        }
        let sizes = [self.nodes[0].size, self.nodes[1].size];
        if sizes != [room; 2] {
            let why = format!("{sizes:?} instead of {room:?}");
            self.violated(
                "after a resize devices have what both disks have room for",
                &why,
            );
        }
        self.check_equal(0, "what a resize added is synchronised");
        self.read_everything(primary);
    }

    /// Changes blocks behind the back of everybody: a verify that is told where to look has to find
    /// them, and nothing else.
    fn verify_finds_all(&mut self, primary: usize) {
        say!(self, "--- blocks rot");
        let (asks, bits) = (self.rng.below(2) as usize, self.common_size().bits());
        let dirty = |w: &World, node: usize| -> Vec<u64> {
            let set = |bit: &u64| w.is_dirty(node, BmBit(*bit)) == Some(true);
            (0..bits).filter(set).collect()
        };
        let size = self.common_size().0;
        let first = self.rng.below(size);
        let end = size.min(first + ROTTEN);
        let mut expected = [dirty(self, 0), dirty(self, 1)];
        for _ in 0..self.rng.between(1, 9) {
            let at = Sector(self.rng.between(first, end - 1));
            self.rot(1 - primary, at, &[ROT]);
            expected.iter_mut().for_each(|bits| bits.push(at.bit().0));
        }
        if self.rng.percent(50) {
            let places = [first, end - 1].map(|at| Sector(at / BLOCK * BLOCK));
            self.misdirect(primary, places);
            expected
                .iter_mut()
                .for_each(|bits| bits.extend(places.map(|at| at.bit().0)));
        }
        // A connection that dies a late death may take some orders.
        for _ in 0..10 {
            let order = self.verify_order(asks, Some(Sector(first)), Some(Sector(end)));
            self.want_order(asks, order);
            self.run(Duration::secs(1));
            if self.nodes[asks].state.conn == Conn::VerifyS {
                break;
            }
            self.await_sync("rest");
        }
        self.await_sync("end of the verify");
        self.run(Duration::secs(1));
        // With protocols A and B a disk may have to write what applications are done with.
        self.run_for("rest", PATIENCE, |w| {
            (0..2).all(|n| w.open_ios(n) == 0) && !w.is_on_the_way()
        });
        for (node, expected) in expected.iter().enumerate() {
            let found = dirty(self, node);
            let more = found.iter().find(|bit| !expected.contains(bit));
            let differs = |bit: &u64| {
                let (at, end) = (*bit as usize * 8, size as usize);
                let of = |n: usize| &self.data(n, Sectors(size))[at..end.min(at + 8)];
                of(0) != of(1)
            };
            let all = (0..bits).filter(differs);
            let less = all.clone().find(|bit| !found.contains(bit));
            if more.is_some() || less.is_some() {
                let why = format!("n{node}: {more:?} is too much, {less:?} was not found");
                self.violated("verify finds what differs, and nothing else", &why);
            }
        }
    }

    /// A write of the Primary to the first of two places lands at the second one at the peer.
    fn misdirect(&mut self, primary: usize, [meant, found]: [Sector; 2]) {
        let peer = 1 - primary;
        say!(
            self,
            "n{peer} writes to sector {} instead of {}",
            found.0,
            meant.0
        );
        self.truth
            .may_rot([meant, found].map(|at| SectorRange::new(at, 4096)));
        self.nodes[peer].trouble.misdirected = Some([meant, found]);
        self.submit(primary, AppOp::Write, meant.0, BLOCK);
        self.run_for("a misdirected write", PATIENCE, |w| {
            w.open_ios(primary) == 0 && w.nodes[peer].trouble.misdirected.is_none()
        });
    }

    /// A connection that is dead, and of which nobody knows so far, is no end.
    fn are_linked(&self) -> bool {
        let link = self.nodes[0].link();
        let alive = |n: &Node| {
            n.sockets
                .as_ref()
                .is_some_and(|s| s.link == link && !s.dead)
        };
        link != 0 && self.nodes.iter().all(alive)
    }

    /// No buffers and no I/O are left over.
    fn leave_nothing(&mut self) {
        // The superblock may be on its way, or a digest be computed.
        self.run_for("end of all writes", 60, |w| {
            w.nodes
                .iter()
                .all(|n| n.writes.is_empty() && n.bufs.is_empty())
        });
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            if !n.bufs.is_empty() || !n.writes.is_empty() {
                let why = format!(
                    "n{node}: {} buffers, {} writes",
                    n.bufs.len(),
                    n.writes.len()
                );
                self.violated("buffers are freed", &why);
            }
        }
    }

    /// What a careful administrator does about what he sees.
    pub(crate) fn care(&mut self, second: u64) {
        // "To resolve this both sides have to support ...": then they will.
        self.net.update |= std::mem::take(&mut self.too_old);
        for node in 0..self.nodes.len() {
            if self.nodes[node].res.is_none() {
                self.want_up(node);
                continue;
            }
            if self.nodes[node].job.is_some() || !self.nodes[node].jobs.is_empty() {
                continue;
            }
            let s = self.nodes[node].state;
            if self.nodes[node].refused && s.role.is_primary() {
                // What the applications saw is nowhere any more: they have to end.
                if s.is_suspended() {
                    self.want_order(node, Command::ResumeIo { vol: VOL });
                }
                self.want_down(node);
            } else if self.unrelated && node == self.loser() {
                self.unrelated = false;
                self.nodes[node].anew = true;
                self.want_down(node);
            } else if s.disk == Disk::Diskless && !self.nodes[node].attached {
                // A peer that is there refuses this disk: what is to become of the two copies is
                // decided when they connect.
                if s.conn >= Conn::Connected && second % 40 == 30 {
                    let force = true;
                    self.want_order(node, Command::Secondary { vol: VOL });
                    self.want_order(node, Command::Disconnect { peer: PEER, force });
                }
                self.want(node, Job::Attach);
            } else if s.conn == Conn::StandAlone {
                // A split brain that nothing solved: one side loses, in turns if it is refused.
                let p = self.nodes[self.peer_of(node)].state.disk;
                let peer = self.peer_of(node);
                let turn = node == 0 || self.nodes[peer].state.conn != Conn::StandAlone;
                if s.disk.max(p) == Disk::Inconsistent && second % 40 == 10 && turn {
                    // Neither can be the source for the other.
                    self.truth.forced = true;
                    let force = true;
                    self.want_order(peer, Command::Secondary { vol: VOL });
                    self.want_order(node, Command::Secondary { vol: VOL });
                    self.want_order(node, Command::Primary { vol: VOL, force });
                }
                let loser = second % 40 >= 20;
                let victim = loser && node == (second / 40 % 2) as usize;
                if victim && s.is_suspended() {
                    self.want_order(node, Command::ResumeIo { vol: VOL });
                }
                if victim && s.role.is_primary() {
                    self.want_order(node, Command::Secondary { vol: VOL });
                }
                self.want(node, Job::Connect(victim));
            } else if s.susp || s.susp_nod || s.susp_fen {
                self.want_order(node, Command::ResumeIo { vol: VOL });
            } else if s.user_isp {
                self.want_order(node, Command::ResumeSync { vol: VOL });
            } else if second % 60 == 59 {
                self.help(node);
            }
        }
    }

    /// Whose data an administrator gives up if he has to choose: not those in use.
    fn loser(&self) -> usize {
        usize::from(!self.nodes[1].state.role.is_primary())
    }

    /// Cases in which DRBD waits for a decision.
    fn help(&mut self, node: usize) {
        let s = self.nodes[node].state;
        let p = self.nodes[self.peer_of(node)].state;
        let best = s.disk.max(p.disk) < Disk::Consistent;
        let turn = self.rng.percent(50);
        if s.conn == Conn::Connected && best && s.role.is_primary() {
            self.want_order(node, Command::Secondary { vol: VOL });
        } else if s.conn == Conn::Connected && best && s.disk == Disk::Inconsistent && turn {
            // Nobody has good data any more.
            self.truth.forced = true;
            self.want_order(
                node,
                Command::Primary {
                    vol: VOL,
                    force: true,
                },
            );
        }
        let idle = s.conn == Conn::Connected && p.conn == Conn::Connected;
        if idle && s.disk == Disk::UpToDate && p.disk < Disk::UpToDate && p.disk > Disk::Attaching {
            self.stats.count("stuck pair reconnected");
            self.want_order(
                node,
                Command::Disconnect {
                    peer: PEER,
                    force: true,
                },
            );
        }
    }

    /// Heals what leads to a node at some moment, whatever happens to the node meanwhile.
    fn schedule_free(&mut self, at: Instant, node: usize) {
        self.healing.push((at, node));
    }
}
