// SPDX-License-Identifier: GPL-2.0

//! What a run uses: options of DRBD and the kind of world, as numbers with names.
//!
//! A seed draws them (swarm testing: each run has a few kinds of trouble, not a little of all), a
//! plan that was saved spells those that differ from the usual.

use crate::node::Clock;
use crate::rng::Rng;
use drbd_core::nl::conf::{DiskConf, NetConf, ResourceOpts};
use drbd_core::nl::Str;

/// The first protocol that can do without a first resync.
const SKIPS_RESYNC: u64 = 90;
/// The first protocol in which a write that meets another one can be sent again.
const RETRIES: u64 = 100;
/// The first protocol with digests of data.
const KNOWS_INTEGRITY: u64 = 87;

macro_rules! knobs {
    ($( $(#[$about:meta])* $name:ident = $usual:literal; )+) => {
        /// The numbers.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Knobs {
            $( $(#[$about])* pub $name: u64, )+
        }

        impl Knobs {
            /// As administrators usually have them.
            pub fn plain() -> Knobs {
                Knobs { $( $name: $usual, )+ }
            }

            /// Those that differ from the usual, in the form `name=number`.
            pub fn spell(&self) -> String {
                let mut out = String::new();
                $( if self.$name != $usual {
                    out += &format!(" {}={}", stringify!($name), self.$name);
                } )+
                out.trim().to_string()
            }

            /// Sets one by its name.
            ///
            /// # Errors
            /// There is none of this name.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
                match name {
                    $( stringify!($name) => self.$name = value, )+
                    _ => return Err(format!("no knob is called {name}")),
                }
                Ok(())
            }
        }
    };
}

knobs! {
    /// Backing device, sectors.
    size = 20480;
    /// The disks have a volatile cache; 2: so have those on which their metadata are.
    cache = 1;
    /// The disks can discard.
    discard = 0;
    /// `protocol`: 1, 2, 3 for A, B, C.
    protocol = 3;
    /// Agreed protocol version.
    apv = 101;
    /// Agreed feature flags.
    features = 15;
    /// `al-extents`.
    al_extents = 67;
    /// `al-updates`.
    al_updates = 1;
    /// `c-plan-ahead`.
    c_plan_ahead = 20;
    /// `c-fill-target`, sectors.
    c_fill_target = 100;
    /// `c-delay-target`, 0.1 s.
    c_delay_target = 10;
    /// `c-min-rate`, KiB/s.
    c_min_rate = 250;
    /// `c-max-rate`, KiB/s.
    c_max_rate = 102400;
    /// `resync-rate`, KiB/s.
    resync_rate = 250;
    /// `fencing`.
    fencing = 0;
    /// `on-io-error`.
    on_io_error = 2;
    /// `disk-timeout`, 0.1 s.
    disk_timeout = 0;
    /// `disk-flushes`.
    disk_flushes = 1;
    /// `read-balancing`.
    read_balancing = 0;
    /// `on-no-data-accessible`.
    on_no_data = 0;
    /// `timeout`, 0.1 s.
    timeout = 60;
    /// `ko-count`.
    ko_count = 7;
    /// `ping-int`, s.
    ping_int = 10;
    /// `ping-timeout`, 0.1 s.
    ping_timeo = 5;
    /// `connect-int`, s.
    connect_int = 10;
    /// `max-epoch-size`.
    max_epoch_size = 2048;
    /// `max-buffers`.
    max_buffers = 2048;
    /// `use-rle`.
    use_rle = 1;
    /// `after-sb-0pri`.
    after_sb_0p = 0;
    /// `after-sb-1pri`.
    after_sb_1p = 0;
    /// `after-sb-2pri`.
    after_sb_2p = 0;
    /// `always-asbp`.
    always_asbp = 0;
    /// `rr-conflict`.
    rr_conflict = 0;
    /// `allow-two-primaries`.
    two_primaries = 0;
    /// `on-congestion`: 1 pull-ahead, 2 disconnect.
    on_congestion = 0;
    /// `congestion-fill`, sectors.
    cong_fill = 0;
    /// `congestion-extents`.
    cong_extents = 1237;
    /// `data-integrity-alg`: 1 is md5.
    integrity = 0;
    /// `csums-alg`: 1 is crc32c.
    csums = 0;
    /// `csums-after-crash-only`.
    csums_crash = 0;
    /// `verify-alg`: 1 is crc32c.
    verify = 0;
    /// `rs-discard-granularity`.
    rs_discard = 0;
    /// `resync-after`: a minor and one more; 0: none.
    resync_after = 0;
    /// Disks may become larger; in the end the device takes up what there is.
    grows = 0;
    /// Node 0 stands on a pair of its own, see `below.rs`.
    stacked = 0;
    /// Minor of the volume on node 0; node 1 has the next one.
    minor = 0;
    /// How the pair begins, see `begin.rs`: 0 together, 1 without a first resync, 2 with a fresh
    /// peer, 3 apart, 4 with a copied disk, 5 without disks, 6 the same in a hurry.
    begin = 0;
    /// Way to node 0, µs.
    delay0 = 50;
    /// Way to node 1, µs.
    delay1 = 50;
    /// Random part of the way, µs.
    jitter = 100;
    /// A byte on the wire, ns.
    byte_ns = 1;
    /// Connections that come up for one end only, percent.
    lame = 0;
    /// How fast the clock of node 0 is: millionths + 100000.
    ppm0 = 100000;
    /// The same of node 1.
    ppm1 = 100000;
    /// What the clock of node 1 shows at the beginning, ns.
    offset1 = 0;
}

impl Knobs {
    /// The clock of a node.
    pub fn clock(&self, node: usize) -> Clock {
        let (ppm, offset) = if node == 0 {
            (self.ppm0, 0)
        } else {
            (self.ppm1, self.offset1)
        };
        Clock {
            offset,
            ppm: ppm as i64 - 100_000,
        }
    }

    /// Whether DRBD takes these options together.
    pub fn fit(&self) -> bool {
        let congestion = self.on_congestion == 0 || self.protocol == 1;
        let stonith = self.fencing != 2 || self.protocol != 1;
        let both = self.two_primaries == 0 || self.protocol == 3;
        congestion && stonith && both
    }

    /// Options of the connection.
    pub fn net_conf(&self, node: usize) -> NetConf {
        // What is local here is remote there.
        let after_sb_0p = match (self.after_sb_0p, node) {
            (5, 1) => 6,
            (6, 1) => 5,
            (other, _) => other,
        };
        let algorithm = |on, name: &[u8]| match on {
            0 => Str::EMPTY,
            _ => Str::new(name).expect("short"),
        };
        NetConf {
            wire_protocol: self.protocol as u32,
            timeout: self.timeout as u32,
            ko_count: self.ko_count as u32,
            ping_int: self.ping_int as u32,
            ping_timeo: self.ping_timeo as u32,
            connect_int: self.connect_int as u32,
            max_epoch_size: self.max_epoch_size as u32,
            max_buffers: self.max_buffers as u32,
            use_rle: self.use_rle != 0,
            after_sb_0p: after_sb_0p as u32,
            after_sb_1p: self.after_sb_1p as u32,
            after_sb_2p: self.after_sb_2p as u32,
            always_asbp: self.always_asbp != 0,
            rr_conflict: self.rr_conflict as u32,
            two_primaries: self.two_primaries != 0,
            on_congestion: self.on_congestion as u32,
            cong_fill: self.cong_fill as u32,
            cong_extents: self.cong_extents as u32,
            integrity_alg: algorithm(self.integrity, b"md5"),
            csums_alg: algorithm(self.csums, b"crc32c"),
            csums_after_crash_only: self.csums_crash != 0,
            verify_alg: algorithm(self.verify, b"crc32c"),
            ..NetConf::default()
        }
    }

    /// Options of the disks.
    pub fn disk_conf(&self) -> DiskConf {
        DiskConf {
            meta_dev_idx: -3,
            al_extents: self.al_extents as u32,
            al_updates: self.al_updates != 0,
            c_plan_ahead: self.c_plan_ahead as u32,
            c_fill_target: self.c_fill_target as u32,
            c_delay_target: self.c_delay_target as u32,
            c_min_rate: self.c_min_rate as u32,
            c_max_rate: self.c_max_rate as u32,
            resync_rate: self.resync_rate as u32,
            fencing: self.fencing as u32,
            on_io_error: self.on_io_error as u32,
            disk_timeout: self.disk_timeout as u32,
            disk_flushes: self.disk_flushes != 0,
            read_balancing: self.read_balancing as u32,
            rs_discard_granularity: self.rs_discard as u32,
            resync_after: self.resync_after as i32 - 1,
            ..DiskConf::default()
        }
    }

    /// Options of the resource.
    pub fn resource_opts(&self) -> ResourceOpts {
        ResourceOpts {
            on_no_data: self.on_no_data as u32,
            ..ResourceOpts::default()
        }
    }

    /// Draws what came later than the others.
    pub fn draw_more(&mut self, rng: &mut Rng) {
        self.csums = u64::from(rng.percent(40));
        self.csums_crash = u64::from(rng.percent(20));
        self.verify = u64::from(rng.percent(60));
        self.rs_discard = [0, 0, 4096, 65_536, 1 << 20][rng.below(5) as usize];
        // Of a minor that no node has.
        self.grows = u64::from(rng.percent(40));
        self.resync_after = [0, 0, 78][rng.below(3) as usize];
        if self.cache == 1 && rng.percent(40) {
            self.cache = 2;
        }
    }

    /// Draws how the pair begins, and what two Primaries, a slow peer or a split brain need.
    pub fn draw_wide(&mut self, rng: &mut Rng) {
        let pick = |rng: &mut Rng, of: &[u64]| of[rng.below(of.len() as u64) as usize];
        self.begin = pick(rng, &[0, 0, 1, 2, 3, 4, 5]);
        if self.apv < SKIPS_RESYNC && self.begin == 1 {
            self.begin = 0;
        }
        match rng.below(4) {
            0 => {
                // Older ones give up what conflicts in part, see docs/correctness.md.
                self.apv = self.apv.max(RETRIES);
                self.protocol = 3;
                self.two_primaries = 1;
            }
            1 => {
                self.protocol = 1;
                self.read_balancing = 0;
                self.fencing = self.fencing.min(1);
                self.on_congestion = pick(rng, &[1, 1, 1, 2]);
                self.cong_fill = pick(rng, &[0, 64, 400, 2000]);
                self.cong_extents = pick(rng, &[2, 3, 5, 1237]);
            }
            _ => {}
        }
        if self.apv >= KNOWS_INTEGRITY && rng.percent(30) {
            self.integrity = 1;
        }
        if rng.percent(60) {
            // A few that make no sense as well.
            self.after_sb_0p = pick(rng, &[0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 8]);
            self.after_sb_1p = pick(rng, &[0, 7, 7, 8, 8, 9, 9, 10, 10, 1]);
            self.after_sb_2p = pick(rng, &[0, 9, 9, 9, 10, 10, 10, 8]);
            self.rr_conflict = pick(rng, &[0, 9, 10]);
            self.always_asbp = rng.below(2);
        }
        if rng.percent(30) {
            self.c_plan_ahead = pick(rng, &[1, 5, 20, 100]);
            self.c_fill_target = pick(rng, &[0, 8, 1000, 20_000]);
            self.c_delay_target = pick(rng, &[1, 5, 100]);
        }
    }

    /// Draws a small world, for a plan that does much in little time.
    pub fn draw_dense(rng: &mut Rng) -> Knobs {
        let mut k = Knobs::plain();
        let pick = |rng: &mut Rng, of: &[u64]| of[rng.below(of.len() as u64) as usize];
        k.size = pick(rng, &[4000, 4000, 9000]);
        k.protocol = pick(rng, &[1, 2, 3, 3, 3]);
        if rng.percent(25) {
            k.protocol = 3;
            k.two_primaries = 1;
        }
        let (protocol, both) = (k.protocol, k.two_primaries != 0);
        let fencing: &[u64] = if protocol == 1 { &[1] } else { &[1, 2] };
        let balancing: &[u64] = if protocol == 3 { &[1, 2, 3] } else { &[0] };
        let versions: &[u64] = match both {
            true => &[100],
            false => &[86, 91, 95, 96, 99, 100],
        };
        let mut some = |name: &str, percent: u64, of: &[u64]| {
            if rng.percent(percent) {
                k.set(name, pick(rng, of)).expect("a knob");
            }
        };
        some("resync_rate", 50, &[4000, 100_000]);
        some("on_no_data", 30, &[1]);
        some("fencing", 30, fencing);
        some("on_io_error", 35, &[0, 1]);
        some("al_updates", 20, &[0]);
        some("csums", 20, &[1]);
        some("cache", 35, &[0, 2, 2]);
        some("begin", 20, &[1, 2, 3, 4]);
        some("timeout", 30, &[10, 30]);
        some("lame", 20, &[50]);
        some("max_buffers", 20, &[32]);
        some("disk_timeout", 15, &[30]);
        some("read_balancing", 20, balancing);
        some("discard", 15, &[1]);
        some("after_sb_0p", 30, &[1, 2, 3, 4]);
        some("apv", 20, versions);
        if k.begin == 1 && k.apv < SKIPS_RESYNC {
            k.begin = 0;
        }
        if k.protocol == 1 && rng.percent(30) {
            k.on_congestion = 1;
            k.cong_extents = pick(rng, &[2, 3]);
        }
        k
    }

    /// Draws what came later than [`Knobs::draw_dense`].
    pub fn draw_dense_wide(&mut self, rng: &mut Rng) {
        self.verify = rng.below(2);
        self.grows = rng.below(2);
        // Of a minor that no node has.
        self.resync_after = [0, 0, 78][rng.below(3) as usize];
        if self.apv >= KNOWS_INTEGRITY && rng.percent(15) {
            self.integrity = 1;
        }
    }

    /// Draws a world: usual in most things, unusual in some.
    pub fn draw(rng: &mut Rng) -> Knobs {
        let mut k = Knobs::plain();
        let pick = |rng: &mut Rng, of: &[u64]| of[rng.below(of.len() as u64) as usize];
        k.size = pick(rng, &[9_000, 20_480, 20_480, 40_960, 74_001]);
        k.protocol = pick(rng, &[1, 2, 3, 3, 3]);
        k.cache = pick(rng, &[0, 1, 1]);
        k.c_min_rate = pick(rng, &[0, 250, 4000]);
        k.resync_rate = pick(rng, &[250, 4000, 100_000]);
        let mut some = |name: &str, percent: u64, of: &[u64]| {
            if rng.percent(percent) {
                k.set(name, pick(rng, of)).expect("a knob");
            }
        };
        some("apv", 30, &[86, 90, 91, 94, 95, 96, 97, 99, 100, 101]);
        some("features", 20, &[0, 1, 4, 7, 8, 11]);
        some("discard", 40, &[1]);
        some("al_extents", 20, &[68, 257, 1237]);
        some("al_updates", 5, &[0]);
        some("c_plan_ahead", 20, &[0, 1, 5, 300]);
        some("c_max_rate", 20, &[250, 1000, 700_000]);
        some("fencing", 25, &[1, 2]);
        some("on_io_error", 30, &[0, 1]);
        some("disk_timeout", 10, &[30, 100]);
        some("disk_flushes", 0, &[0]);
        some("read_balancing", 20, &[1, 2, 3, 4, 5, 8]);
        some("on_no_data", 30, &[1]);
        some("timeout", 30, &[10, 30, 100]);
        some("ko_count", 30, &[0, 1, 2, 20]);
        some("ping_int", 30, &[1, 3, 30]);
        some("ping_timeo", 30, &[1, 20, 50]);
        some("max_epoch_size", 30, &[1, 3, 20]);
        some("max_buffers", 20, &[32, 100]);
        some("use_rle", 30, &[0]);
        some("after_sb_0p", 40, &[1, 2, 3, 4, 5, 6]);
        some("after_sb_1p", 40, &[7, 8, 9, 10]);
        some("after_sb_2p", 40, &[9, 10]);
        some("always_asbp", 20, &[1]);
        some("rr_conflict", 30, &[9, 10]);
        some("delay0", 30, &[5, 1000, 20_000]);
        some("delay1", 30, &[5, 1000, 20_000]);
        some("jitter", 20, &[1, 5000, 30_000]);
        some("byte_ns", 20, &[10, 80]);
        some("lame", 20, &[10, 50]);
        some("ppm0", 20, &[90_000, 99_990, 110_000, 150_000]);
        some("ppm1", 20, &[90_000, 100_010, 110_000, 50_000]);
        some("offset1", 30, &[5_000_000_000, 86_400_000_000_000]);
        if k.fencing == 2 && k.protocol == 1 {
            k.protocol = 2;
        }
        // A read at the peer may overtake a write there that was acknowledged earlier than that.
        if k.protocol != 3 {
            k.read_balancing = 0;
        }
        k
    }
}
