// SPDX-License-Identifier: GPL-2.0

//! Groups that configure: what requests bring.
//!
//! Numbers, defaults and limits are those of the in-tree 8.4 driver and of drbd-utils.

use super::schema::group;
use super::value::Value;
use super::{Bin, Str};

group! {
    /// What a request or a message is about.
    CfgContext = 2 "cfg_context" {
        /// Volume; [`super::NO_VOLUME`] means none.
        1 ctx_volume: Option<u32> = 0 [];
        /// Name of the resource.
        2 ctx_resource_name: Option<Str<128>> = 0 [];
        /// Own address: a `struct sockaddr`.
        3 ctx_my_addr: Option<Bin<128>> = 0 [];
        /// Address of the peer.
        4 ctx_peer_addr: Option<Bin<128>> = 0 [];
    }
}

group! {
    /// Options of a disk.
    DiskConf = 3 "disk_conf" {
        /// Path of the backing device.
        1 backing_dev: Str<128> = 0 [REQUIRED INVARIANT];
        /// Path of the device with the metadata.
        2 meta_dev: Str<128> = 0 [REQUIRED INVARIANT];
        /// Index in it, or -1 internal, -2 flexible external, -3 flexible internal.
        3 meta_dev_idx: i32 = 0 [REQUIRED INVARIANT];
        /// Size wanted in sectors; 0: all.
        4 disk_size: u64 = 0 [MANDATORY INVARIANT] 0 ..= 2199023255552;
        /// Obsolete.
        5 max_bio_bvecs: u32 = 0 [MANDATORY INVARIANT] 0 ..= 128;
        /// 0 pass on, 1 call helper, 2 detach.
        6 on_io_error: u32 = 2 [MANDATORY DEFAULT] 0 ..= 2;
        /// 0 do not care, 1 resource only, 2 resource and stonith.
        7 fencing: u32 = 0 [MANDATORY DEFAULT] 0 ..= 2;
        /// KiB/s, where `c_plan_ahead` is 0.
        8 resync_rate: u32 = 250 [MANDATORY DEFAULT] 1 ..= 4194304;
        /// Minor to wait for; -1: none.
        9 resync_after: i32 = -1 [MANDATORY DEFAULT] -1 ..= 1048575;
        /// Extents in the activity log.
        10 al_extents: u32 = 1237 [MANDATORY DEFAULT] 67 ..= 65534;
        /// Planning horizon of the resync controller in 0.1 s.
        11 c_plan_ahead: u32 = 20 [MANDATORY DEFAULT] 0 ..= 300;
        /// Delay wanted in 0.1 s.
        12 c_delay_target: u32 = 10 [MANDATORY DEFAULT] 1 ..= 100;
        /// Data wanted in flight in sectors.
        13 c_fill_target: u32 = 100 [MANDATORY DEFAULT] 0 ..= 1048576;
        /// Highest resync rate in KiB/s.
        14 c_max_rate: u32 = 102400 [MANDATORY DEFAULT] 250 ..= 4194304;
        /// Resync rate beside application I/O in KiB/s.
        15 c_min_rate: u32 = 250 [MANDATORY DEFAULT] 0 ..= 4194304;
        /// Write ordering by barriers; obsolete.
        16 disk_barrier: bool = 0 [MANDATORY DEFAULT];
        /// Write ordering by flushes.
        17 disk_flushes: bool = 1 [MANDATORY DEFAULT];
        /// Write ordering by waiting.
        18 disk_drain: bool = 1 [MANDATORY DEFAULT];
        /// Flush the metadata device.
        19 md_flushes: bool = 1 [MANDATORY DEFAULT];
        /// Patience with the disk in 0.1 s; 0: endless.
        20 disk_timeout: u32 = 0 [MANDATORY DEFAULT] 0 ..= 6000;
        /// Where to read: 0 here, 1 at the peer, and so on.
        21 read_balancing: u32 = 0 [DEFAULT] 0 ..= 10;
        /// Keep the activity log on disk.
        23 al_updates: bool = 1 [DEFAULT];
        /// Aligned discards count as zeroing.
        24 discard_zeroes_if_aligned: bool = 1 [DEFAULT];
        /// Size of thin resync requests in bytes; 0: none.
        25 rs_discard_granularity: u32 = 0 [DEFAULT] 0 ..= 1048576;
        /// Obsolete.
        26 disable_write_same: bool = 0 [DEFAULT];
    }
}

group! {
    /// Options of a resource.
    ResourceOpts = 4 "resource_opts" {
        /// Processors for the threads, as a hexadecimal mask.
        1 cpu_mask: Str<32> = 0 [MANDATORY DEFAULT];
        /// Without any good disk: 0 fail, 1 suspend.
        2 on_no_data: u32 = 0 [MANDATORY DEFAULT] 0 ..= 1;
    }
}

group! {
    /// Options of a connection.
    NetConf = 5 "net_conf" {
        /// Key of the authentication.
        1 shared_secret: Str<64> = 0 [MANDATORY SENSITIVE DEFAULT];
        /// Digest of the authentication.
        2 cram_hmac_alg: Str<64> = 0 [MANDATORY DEFAULT];
        /// Digest over data on the wire.
        3 integrity_alg: Str<64> = 0 [MANDATORY DEFAULT];
        /// Digest of online verify.
        4 verify_alg: Str<64> = 0 [MANDATORY DEFAULT];
        /// Digest of checksum-based resync.
        5 csums_alg: Str<64> = 0 [MANDATORY DEFAULT];
        /// 1, 2, 3 for A, B, C.
        6 wire_protocol: u32 = 3 [MANDATORY DEFAULT] 1 ..= 3;
        /// Between attempts to connect, in s.
        7 connect_int: u32 = 10 [MANDATORY DEFAULT] 1 ..= 120;
        /// Patience with the peer in 0.1 s.
        8 timeout: u32 = 60 [MANDATORY DEFAULT] 1 ..= 600;
        /// Idle time before a ping in s.
        9 ping_int: u32 = 10 [MANDATORY DEFAULT] 1 ..= 120;
        /// Patience with a ping in 0.1 s.
        10 ping_timeo: u32 = 5 [MANDATORY DEFAULT] 1 ..= 300;
        /// Send buffer in bytes; 0: automatic.
        11 sndbuf_size: u32 = 0 [MANDATORY DEFAULT] 0 ..= 10485760;
        /// Receive buffer in bytes; 0: automatic.
        12 rcvbuf_size: u32 = 0 [MANDATORY DEFAULT] 0 ..= 10485760;
        /// Timeouts before the peer is given up; 0: never.
        13 ko_count: u32 = 7 [MANDATORY DEFAULT] 0 ..= 200;
        /// Pages for received data.
        14 max_buffers: u32 = 2048 [MANDATORY DEFAULT] 32 ..= 131072;
        /// Most writes in an epoch.
        15 max_epoch_size: u32 = 2048 [MANDATORY DEFAULT] 1 ..= 20000;
        /// Unused.
        16 unplug_watermark: u32 = 128 [MANDATORY DEFAULT] 1 ..= 131072;
        /// Split brain without a primary.
        17 after_sb_0p: u32 = 0 [MANDATORY DEFAULT];
        /// Split brain with one primary.
        18 after_sb_1p: u32 = 0 [MANDATORY DEFAULT];
        /// Split brain with two primaries.
        19 after_sb_2p: u32 = 0 [MANDATORY DEFAULT];
        /// Roles against the direction of a resync.
        20 rr_conflict: u32 = 0 [MANDATORY DEFAULT];
        /// 0 block, 1 pull ahead, 2 disconnect.
        21 on_congestion: u32 = 0 [MANDATORY DEFAULT] 0 ..= 2;
        /// Congested at so many sectors in flight.
        22 cong_fill: u32 = 0 [MANDATORY DEFAULT] 0 ..= 20971520;
        /// Congested at so many active extents.
        23 cong_extents: u32 = 1237 [MANDATORY DEFAULT] 67 ..= 65534;
        /// Both nodes may be primary.
        24 two_primaries: bool = 0 [MANDATORY DEFAULT];
        /// Give up own data, once.
        25 discard_my_data: bool = 0 [MANDATORY INVARIANT];
        /// Cork the data socket.
        26 tcp_cork: bool = 1 [MANDATORY DEFAULT];
        /// Apply the policies even to unrelated histories.
        27 always_asbp: bool = 0 [MANDATORY DEFAULT];
        /// Only see what would happen.
        28 tentative: bool = 0 [MANDATORY INVARIANT];
        /// Compress bitmaps.
        29 use_rle: bool = 1 [MANDATORY DEFAULT];
        /// Checksums only after a crash.
        33 csums_after_crash_only: bool = 0 [DEFAULT];
        /// Before fresh sockets are checked, in 0.1 s; 0: as `ping_timeo`.
        34 sock_check_timeo: u32 = 0 [DEFAULT] 0 ..= 300;
    }
}

group! {
    /// How to become primary.
    SetRoleParms = 6 "set_role_parms" {
        /// Even without good data.
        1 assume_uptodate: bool = 0 [MANDATORY];
    }
}

group! {
    /// How to resize.
    ResizeParms = 7 "resize_parms" {
        /// Size wanted in sectors; 0: all.
        1 resize_size: u64 = 0 [MANDATORY];
        /// Even without the peer.
        2 resize_force: bool = 0 [MANDATORY];
        /// Assume that what is new is in sync.
        3 no_resync: bool = 0 [MANDATORY];
        /// Stripes of the activity log.
        4 al_stripes: u32 = 1 [DEFAULT] 1 ..= 1024;
        /// Size of a stripe in KiB.
        5 al_stripe_size: u32 = 32 [DEFAULT] 4 ..= 16777216;
    }
}

group! {
    /// What to verify. The stop sector is the greatest number by default, in the caller.
    StartOvParms = 9 "start_ov_parms" {
        /// First sector.
        1 ov_start_sector: u64 = 0 [MANDATORY];
        /// Sector to stop before.
        2 ov_stop_sector: u64 = 0 [MANDATORY];
    }
}

group! {
    /// How to begin a new data generation.
    NewCUuidParms = 10 "new_c_uuid_parms" {
        /// Declare everything in sync.
        1 clear_bm: bool = 0 [MANDATORY];
    }
}

group! {
    /// How to disconnect.
    DisconnectParms = 12 "disconnect_parms" {
        /// Without asking the peer.
        1 force_disconnect: bool = 0 [MANDATORY];
    }
}

group! {
    /// How to detach.
    DetachParms = 13 "detach_parms" {
        /// Without waiting for I/O.
        1 force_detach: bool = 0 [MANDATORY];
    }
}
