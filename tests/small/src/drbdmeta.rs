// SPDX-License-Identifier: GPL-2.0

//! What `drbdmeta` does to internal metadata: `create-md`, `check-resize`, `apply-al`.

use crate::disk::{Content, Disk, SECTORS};
use drbd_core::meta::al_block::{self, ReplaySlot};
use drbd_core::meta::layout::{validate, Devices, Kind, Striping};
use drbd_core::meta::superblock::{Flags, MAGIC_08, MAGIC_84_UNCLEAN};
use drbd_core::meta::{Layout, Superblock};
use drbd_core::units::{Sector, Sectors};

fn devices(sectors: u64) -> Devices {
    Devices {
        backing: Sectors(sectors),
        meta: Sectors(sectors),
    }
}

fn block(sector: Sector) -> u64 {
    assert_eq!(sector.0 % SECTORS, 0);
    sector.0 / SECTORS
}

/// The layout of internal metadata on a device of so many sectors.
pub fn layout(sectors: u64, striping: Striping) -> Layout {
    Layout::compute(Kind::Internal, devices(sectors), striping).expect("a device large enough")
}

/// The block with the superblock, for a device of this size.
pub fn superblock_page(disk: &Disk) -> [u8; 4096] {
    let at = layout(disk.sectors(), Striping::DEFAULT).superblock;
    disk.bytes(block(at))
}

fn put_superblock(disk: &mut Disk, at: Sector, sb: &Superblock) {
    let mut page = [0; 4096];
    sb.encode(&mut page);
    page[60..64].copy_from_slice(&MAGIC_08.to_be_bytes());
    disk.write(block(at), Content::page(&page), true);
}

fn fresh_ring(disk: &mut Disk, l: &Layout) {
    for number in 0..l.striping.blocks() {
        let header = al_block::Header {
            number,
            kind: al_block::Kind::Initialized,
            slots: 0,
            context_start: 0,
        };
        let mut page = [0; 4096];
        al_block::encode(&header, std::iter::empty(), std::iter::empty(), &mut page);
        disk.write(block(l.al_block(number)), Content::page(&page), true);
    }
}

/// `create-md` on a fresh device.
pub fn create_md(blocks: u64) -> Disk {
    let mut disk = Disk::new(blocks);
    let l = layout(disk.sectors(), Striping::DEFAULT);
    fresh_ring(&mut disk, &l);
    let sb = Superblock {
        uuid: [drbd_core::uuid::JUST_CREATED, 0, 0, 0],
        device_uuid: 1,
        flags: Flags::AL_CLEAN,
        md_size: l.md_size,
        al_offset: l.al_offset,
        al_nr_extents: 257,
        bm_offset: l.bm_offset,
        al_stripes: 1,
        al_stripe_size_4k: 8,
        ..Superblock::default()
    };
    put_superblock(&mut disk, l.superblock, &sb);
    disk
}

/// What is on a device of this size, as `drbdmeta` finds it: its offsets must be those that it
/// works out by itself.
fn find(disk: &Disk, sectors: u64) -> Option<(Superblock, Layout)> {
    let at = layout(sectors, Striping::DEFAULT).superblock;
    let sb = Superblock::decode(&disk.bytes(block(at)));
    if sb.magic != MAGIC_08 && sb.magic != MAGIC_84_UNCLEAN {
        return None;
    }
    let striping = Striping::new(sb.al_stripes, sb.al_stripe_size_4k)?;
    let l = layout(sectors, striping);
    let same = (l.al_offset, l.bm_offset, l.md_size) == (sb.al_offset, sb.bm_offset, sb.md_size);
    same.then_some((sb, l))
}

/// `check-resize` if need be, then `apply-al`. `last`: the size that the device had when it was
/// last seen, in sectors. Returns the number of hot extents; `None` if there are no metadata, or
/// none that can be used.
pub fn apply_al(disk: &mut Disk, last: u64) -> Option<usize> {
    let size = disk.sectors();
    if find(disk, size).is_none() && size > last {
        let hot = apply_al_of(disk, last)?;
        move_to_end(disk, last);
        return Some(hot);
    }
    apply_al_of(disk, size)
}

fn move_to_end(disk: &mut Disk, last: u64) {
    let (mut sb, old) = find(disk, last).expect("metadata at the old end");
    let new = layout(disk.sectors(), old.striping);
    let pages: Vec<[u8; 4096]> = (0..old.bitmap_sectors().0 / SECTORS)
        .map(|n| disk.bytes(block(old.bitmap_page(n))))
        .collect();
    for n in 0..new.bitmap_sectors().0 / SECTORS {
        let page = pages.get(n as usize).copied().unwrap_or([0; 4096]);
        disk.write(block(new.bitmap_page(n)), Content::page(&page), true);
    }
    fresh_ring(disk, &new);
    (sb.al_offset, sb.bm_offset, sb.md_size) = (new.al_offset, new.bm_offset, new.md_size);
    put_superblock(disk, new.superblock, &sb);
}

fn apply_al_of(disk: &mut Disk, sectors: u64) -> Option<usize> {
    let (mut sb, l) = find(disk, sectors)?;
    let blocks: Vec<[u8; 4096]> = (0..l.striping.blocks())
        .map(|n| disk.bytes(block(l.al_block(n))))
        .collect();
    let mut slots = vec![ReplaySlot::EMPTY; sb.al_nr_extents.max(1) as usize];
    let seen = al_block::replay(blocks.iter(), &mut slots);
    let mut hot = 0;
    if sb.flags.contains(Flags::PRIMARY_IND) {
        // With nothing valid in it drbdmeta gives up, unless it is told to go on; that is what an
        // administrator does here, knowing that FULL_SYNC is set.
        // A ring that is still as drbdmeta made it says that nothing was ever hot.
        let fresh = seen.corrupt == 0 && seen.initialized > 0;
        let usable = seen.transactions > 0 || fresh || sb.flags.contains(Flags::FULL_SYNC);
        assert!(usable, "no usable activity log");
        for extent in slots.iter().filter_map(ReplaySlot::extent) {
            hot += 1;
            let byte = extent as usize * 128;
            let n = (byte / 4096) as u64;
            if n * SECTORS < l.bitmap_sectors().0 {
                let at = block(l.bitmap_page(n));
                let mut bits = disk.bytes(at);
                bits[byte % 4096..byte % 4096 + 128].fill(0xff);
                disk.write(at, Content::page(&bits), true);
            }
        }
    }
    fresh_ring(disk, &l);
    sb.flags = sb.flags.with(Flags::AL_CLEAN);
    put_superblock(disk, l.superblock, &sb);
    let clean = Superblock::decode(&disk.bytes(block(l.superblock)));
    validate(&clean, Kind::Internal, devices(sectors)).ok()?;
    Some(hot)
}

/// The superblock at the place for the present size; `None` if there is none.
pub fn superblock(disk: &Disk) -> Option<(Superblock, Layout)> {
    find(disk, disk.sectors())
}
