// SPDX-License-Identifier: GPL-2.0

//! Superblocks: bytes of a disk, devices of any size, options of any kind.
//!
//! What passes the checks must be usable: everything lies inside its device, data and metadata do
//! not overlap, and the storage that is asked for is in proportion to the device.

use crate::cursor::Cursor;
use drbd_core::meta::layout::{self, Devices as Sizes, Kind, Striping};
use drbd_core::meta::superblock::{Superblock, MAGIC_84_UNCLEAN, SIZE};
use drbd_core::meta::Layout;
use drbd_core::nl::conf::DiskConf;
use drbd_core::node::admin::{attach_needs, superblock_sector, BackingLimits, Devices};
use drbd_core::units::Sectors;

/// The target: index, sizes, then the superblock, most of it made to fit if a hint says so.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    let hints = c.u8();
    let index = i32::from(c.u8()) - 4;
    let mut sizes = || Sectors(c.u64() >> (c.u8() & 63));
    let (backing, meta) = (sizes(), sizes());
    let conf = DiskConf {
        meta_dev_idx: index,
        disk_size: if hints & 1 == 0 { 0 } else { c.u64() },
        al_extents: c.u32(),
        ..DiskConf::default()
    };
    let device = Sectors(if hints & 2 == 0 { 0 } else { c.u64() });
    let mut page: [u8; SIZE] = [0; SIZE];
    let rest = c.rest();
    let len = rest.len().min(SIZE);
    page[..len].copy_from_slice(&rest[..len]);
    again(&page);
    let Some(kind) = Kind::from_index(index) else {
        return;
    };
    let sizes = Sizes { backing, meta };
    let mut sb = Superblock::decode(&page);
    if hints & 4 != 0 {
        fit(&mut sb, kind, sizes, &mut page, hints & 8 != 0);
    }
    if let Ok(layout) = layout::validate(&sb, kind, sizes) {
        usable(&layout, &sb, kind, sizes);
    }
    let devices = Devices {
        backing,
        meta,
        same: hints & 16 != 0 || kind == Kind::Internal,
    };
    attach(&conf, devices, device, &page);
}

fn again(page: &[u8; SIZE]) {
    let sb = Superblock::decode(page);
    let mut out = [0x77; SIZE];
    sb.encode(&mut out);
    let back = Superblock::decode(&out);
    let want = Superblock {
        magic: MAGIC_84_UNCLEAN,
        bm_bytes_per_bit: 4096,
        ..sb
    };
    assert_eq!(back, want);
    let _ = (sb.disk_at_attach(true), sb.disk_at_attach(false));
    assert!(sb.peer_max_bio_size() >= 4096);
}

/// Gives the superblock the layout that drbdmeta would; a random one rarely passes the checks.
fn fit(sb: &mut Superblock, kind: Kind, sizes: Sizes, page: &mut [u8; SIZE], unclean: bool) {
    let striping = Striping::new(sb.al_stripes, sb.al_stripe_size_4k).unwrap_or(Striping::DEFAULT);
    let Some(l) = Layout::compute(kind, sizes, striping) else {
        return;
    };
    sb.md_size = l.md_size;
    (sb.al_offset, sb.bm_offset) = (l.al_offset, l.bm_offset);
    (sb.al_stripes, sb.al_stripe_size_4k) = (striping.stripes(), striping.stripe_blocks());
    sb.bm_bytes_per_bit = 4096;
    sb.encode(page);
    if !unclean {
        page[60..64].copy_from_slice(&drbd_core::meta::superblock::MAGIC_08.to_be_bytes());
        sb.magic = drbd_core::meta::superblock::MAGIC_08;
    }
}

fn usable(l: &Layout, sb: &Superblock, kind: Kind, sizes: Sizes) {
    let max = l.max_data_sectors(sizes.backing);
    assert!(max <= sizes.backing, "more data than disk: {l:?}");
    if kind == Kind::Internal {
        assert!(max.0 <= l.first_sector().0, "data over metadata: {l:?}");
        assert!(l.last_sector().0 < sizes.backing.0, "{l:?}");
    }
    let blocks = l.striping.blocks();
    for number in [0, 1, blocks / 2, blocks - 1, blocks, u32::MAX] {
        let at = l.al_block(number);
        assert!(l.contains_block(at), "activity log outside: {l:?}, {sb:?}");
    }
    let data = sb.la_size.min(max);
    let pages = data.bits().div_ceil(4096 * 8);
    for page in [0, pages / 2, pages.saturating_sub(1)] {
        if page < pages {
            let at = l.bitmap_page(page);
            assert!(at >= l.first_sector() && at <= l.last_sector(), "{l:?}");
        }
    }
}

fn attach(conf: &DiskConf, devices: Devices, device: Sectors, page: &[u8; SIZE]) {
    let at = superblock_sector(conf, devices);
    let limits = BackingLimits::default();
    let Ok(needs) = attach_needs(conf, devices, device, limits, page) else {
        return;
    };
    assert!(at.is_ok(), "a superblock that is nowhere");
    assert!(needs.capacity <= devices.backing);
    assert!(needs.al_slots <= drbd_core::limits::AL_EXTENTS_MAX);
    assert!(needs.al_slots >= 1, "an activity log without a slot");
    // One bit for 4 KiB.
    assert!(needs.bitmap.words <= needs.capacity.0 / 512 + 1);
}
