// SPDX-License-Identifier: GPL-2.0

//! Options, as administrators may set them.

use crate::cursor::Cursor;
use drbd_core::nl::conf::{DiskConf, NetConf, ResourceOpts};
use drbd_core::nl::Str;

/// Options of a connection. As in the driver, they are within their limits.
pub fn net(c: &mut Cursor<'_>) -> NetConf {
    let bits = c.u16();
    let has = |n: u32| bits >> n & 1 != 0;
    let base = NetConf {
        wire_protocol: [3, 3, 2, 1][c.below(4)],
        two_primaries: has(0),
        discard_my_data: has(1),
        always_asbp: has(2),
        tentative: has(3) && has(4),
        use_rle: !has(5),
        csums_after_crash_only: has(6),
        ..NetConf::default()
    };
    if !has(7) {
        return base;
    }
    let alg = |on: bool| Str::new(if on { b"crc32c" } else { b"" }).expect("short");
    NetConf {
        after_sb_0p: c.below(9) as u32,
        after_sb_1p: c.below(9) as u32,
        after_sb_2p: c.below(9) as u32,
        rr_conflict: c.below(5) as u32,
        on_congestion: c.below(3) as u32,
        cong_fill: c.u16().into(),
        cong_extents: 67 + u32::from(c.u8()),
        timeout: c.u8().into(),
        ping_int: c.u8().into(),
        ping_timeo: c.u8().into(),
        ko_count: c.below(4) as u32,
        max_buffers: c.u16().into(),
        max_epoch_size: 1 + c.below(40) as u32,
        verify_alg: alg(has(8)),
        csums_alg: alg(has(9)),
        ..base
    }
    .clamped()
}

/// Options of a disk with internal metadata.
pub fn disk(c: &mut Cursor<'_>) -> DiskConf {
    let bits = c.u8();
    let has = |n: u32| bits >> n & 1 != 0;
    let base = DiskConf {
        meta_dev_idx: -3,
        al_extents: 67,
        ..DiskConf::default()
    };
    if !has(0) {
        return base;
    }
    DiskConf {
        on_io_error: c.below(3) as u32,
        fencing: c.below(3) as u32,
        disk_flushes: !has(1),
        disk_drain: !has(2),
        md_flushes: !has(3),
        al_updates: !has(4),
        disk_timeout: u32::from(c.u8() & 0x3f) * u32::from(has(5)),
        read_balancing: c.below(11) as u32,
        resync_rate: c.u16().into(),
        c_plan_ahead: c.below(3) as u32 * 10,
        c_fill_target: c.u16().into(),
        c_min_rate: c.u16().into(),
        c_max_rate: c.u16().into(),
        rs_discard_granularity: u32::from(c.u8()) << 12,
        disk_size: u64::from(c.u16()) * u64::from(has(6)),
        ..base
    }
    .clamped()
}

/// Options of the resource.
pub fn resource(c: &mut Cursor<'_>) -> ResourceOpts {
    ResourceOpts {
        on_no_data: c.u8().into(),
        ..ResourceOpts::default()
    }
    .clamped()
}
