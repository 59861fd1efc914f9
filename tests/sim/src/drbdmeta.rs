// SPDX-License-Identifier: GPL-2.0

//! What `drbdmeta` does to a disk: `create-md`, `check-resize` and `apply-al`, with internal
//! metadata.

use crate::disk::Disk;
use drbd_core::meta::al_block::{self, ReplaySlot};
use drbd_core::meta::layout::{Devices, Kind, Striping};
use drbd_core::meta::superblock::{Flags, MAGIC_08, MAGIC_84_UNCLEAN};
use drbd_core::meta::{Layout, Superblock};
use drbd_core::units::{Sector, Sectors};

/// Where the metadata of a device of this size lie.
pub fn layout(size: Sectors) -> Layout {
    let devices = Devices {
        backing: size,
        meta: size,
    };
    Layout::compute(Kind::Internal, devices, Striping::DEFAULT).expect("device too small")
}

fn page(disk: &Disk, at: Sector) -> [u8; 4096] {
    disk.read_bytes(at, 4096).try_into().expect("a page")
}

fn write_superblock(disk: &mut Disk, at: Sector, sb: &Superblock) {
    let mut block = [0; 4096];
    sb.encode(&mut block);
    // The core writes what a kernel writes; drbdmeta leaves the clean magic.
    block[60..64].copy_from_slice(&MAGIC_08.to_be_bytes());
    disk.write_bytes(at, &block, true);
}

fn fresh_ring(disk: &mut Disk, l: &Layout) {
    for number in 0..l.striping.blocks() {
        let header = al_block::Header {
            number,
            kind: al_block::Kind::Initialized,
            slots: 0,
            context_start: 0,
        };
        let mut block = [0; 4096];
        al_block::encode(&header, std::iter::empty(), std::iter::empty(), &mut block);
        disk.write_bytes(l.al_block(number), &block, true);
    }
}

/// A fresh device with metadata as `drbdmeta create-md` leaves it.
pub fn create_md(size: Sectors, device_uuid: u64) -> Disk {
    let mut disk = Disk::new(size, layout(size).first_sector());
    recreate_md(&mut disk, device_uuid);
    disk
}

/// `drbdmeta create-md` on a device that had metadata before; the data stay.
pub fn recreate_md(disk: &mut Disk, device_uuid: u64) {
    let l = layout(disk.size());
    fresh_ring(disk, &l);
    for page in 0..l.bitmap_sectors().0 / 8 {
        disk.write_bytes(l.bitmap_page(page), &[0; 4096], true);
    }
    let sb = Superblock {
        uuid: [drbd_core::uuid::JUST_CREATED, 0, 0, 0],
        device_uuid,
        flags: Flags::AL_CLEAN,
        md_size: l.md_size,
        al_offset: l.al_offset,
        al_nr_extents: 257,
        bm_offset: l.bm_offset,
        al_stripes: 1,
        al_stripe_size_4k: 8,
        ..Superblock::default()
    };
    write_superblock(disk, l.superblock, &sb);
}

/// The block with the superblock.
pub fn superblock_page(disk: &Disk) -> [u8; 4096] {
    page(disk, layout(disk.size()).superblock)
}

/// The superblock on the disk.
pub fn superblock(disk: &Disk) -> Superblock {
    Superblock::decode(&superblock_page(disk))
}

/// The same where it was written last: the device may have grown since.
pub fn known_superblock(disk: &Disk) -> Superblock {
    Superblock::decode(&page(disk, layout(disk.there).superblock))
}

/// Metadata on a device of this size: where `drbdmeta` looks, and with the offsets it works out.
fn find(disk: &Disk, size: Sectors) -> Option<Superblock> {
    let l = layout(size);
    let sb = Superblock::decode(&page(disk, l.superblock));
    let magic = sb.magic == MAGIC_08 || sb.magic == MAGIC_84_UNCLEAN;
    let same = (l.al_offset, l.bm_offset, l.md_size) == (sb.al_offset, sb.bm_offset, sb.md_size);
    (magic && same).then_some(sb)
}

/// `drbdmeta check-resize` if the device grew and its metadata did not follow, then `apply-al`:
/// marks everything that was hot when a Primary crashed. Returns how many extents that were.
pub fn apply_al(disk: &mut Disk) -> usize {
    let size = disk.size();
    disk.known = known_size(disk);
    let known = disk.known;
    let hot = apply_al_of(disk, known);
    if known != size {
        move_to_end(disk, known);
    }
    (disk.known, disk.there) = (size, size);
    hot
}

fn move_to_end(disk: &mut Disk, last: Sectors) {
    let mut sb = find(disk, last).expect("metadata at the old end");
    let (old, new) = (layout(last), layout(disk.size()));
    let pages: Vec<[u8; 4096]> = (0..old.bitmap_sectors().0 / 8)
        .map(|n| page(disk, old.bitmap_page(n)))
        .collect();
    for n in 0..new.bitmap_sectors().0 / 8 {
        let bits = pages.get(n as usize).copied().unwrap_or([0; 4096]);
        disk.write_bytes(new.bitmap_page(n), &bits, true);
    }
    fresh_ring(disk, &new);
    (sb.al_offset, sb.bm_offset, sb.md_size) = (new.al_offset, new.bm_offset, new.md_size);
    write_superblock(disk, new.superblock, &sb);
}

fn apply_al_of(disk: &mut Disk, size: Sectors) -> usize {
    let l = layout(size);
    let mut sb = find(disk, size).expect("metadata");
    let mut hot = 0;
    if sb.flags.contains(Flags::PRIMARY_IND) {
        for extent in hot_extents_of(disk, size) {
            hot += 1;
            let byte = extent as usize * 128;
            if (byte / 4096) as u64 >= l.bitmap_sectors().0 / 8 {
                continue;
            }
            let at = l.bitmap_page((byte / 4096) as u64);
            let mut bits = page(disk, at);
            bits[byte % 4096..byte % 4096 + 128].fill(0xff);
            disk.write_bytes(at, &bits, true);
        }
    }
    fresh_ring(disk, &l);
    sb.flags = sb.flags.with(Flags::AL_CLEAN);
    write_superblock(disk, l.superblock, &sb);
    hot
}

/// Where `drbdmeta` finds metadata: at the end, or else where it saw some last. If they are not
/// there either, as a kernel has moved them before the device grew again, an administrator tells it
/// where to look (`lk_bdev`).
fn known_size(disk: &Disk) -> Sectors {
    let places = [disk.size(), disk.known, disk.there];
    let found = places.into_iter().find(|size| find(disk, *size).is_some());
    found.expect("metadata")
}

/// Extents in the activity log on the disk.
pub fn hot_extents(disk: &Disk) -> Vec<u32> {
    hot_extents_of(disk, known_size(disk))
}

fn hot_extents_of(disk: &Disk, size: Sectors) -> Vec<u32> {
    let l = layout(size);
    let sb = find(disk, size).expect("metadata");
    let blocks: Vec<[u8; 4096]> = (0..l.striping.blocks())
        .map(|n| page(disk, l.al_block(n)))
        .collect();
    let mut slots = vec![ReplaySlot::EMPTY; 65_535];
    let seen = al_block::replay(blocks.iter(), &mut slots);
    // While the ring is written anew the superblock says not to trust it.
    assert!(seen.lost == 0 || sb.flags.contains(Flags::AL_DISABLED));
    slots.iter().filter_map(ReplaySlot::extent).collect()
}

/// Whether a block is marked in the bitmap on the disk.
pub fn is_set_on_disk(disk: &Disk, bit: u64) -> bool {
    let byte = page_byte(disk, &layout(known_size(disk)), (bit / 8) as usize);
    byte >> (bit % 8) & 1 == 1
}

/// Set bits in the bitmap on the disk, for a device of `size` sectors.
pub fn weight_on_disk(disk: &Disk, size: Sectors) -> u64 {
    let l = layout(disk.size());
    (0..size.bits())
        .filter(|bit| {
            let byte = (bit / 8) as usize;
            let bits = page_byte(disk, &l, byte);
            bits >> (bit % 8) & 1 == 1
        })
        .count() as u64
}

fn page_byte(disk: &Disk, l: &Layout, byte: usize) -> u8 {
    let at = l.bitmap_page((byte / 4096) as u64);
    disk.read_bytes(at.plus(Sectors((byte % 4096 / 512) as u64)), 512)[byte % 512]
}
