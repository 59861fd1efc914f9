// SPDX-License-Identifier: GPL-2.0

//! The ring of the activity log: 4 KiB blocks as they may stand on a disk.
//!
//! A checksum keeps random bytes out, so it is put right in most blocks. What a ring says is
//! compared with a plain model: for each slot, the newest mention wins.

use crate::cursor::Cursor;
use drbd_core::meta::al_block::{self, Block, Header, Kind, ReplaySlot, BLOCK};
use drbd_core::meta::crc32c;
use drbd_core::store::lru::FREE;

/// Blocks of the ring: bytes beyond are not looked at.
const RING: usize = 8;
/// Slots that the reader has room for.
const SLOTS: usize = 1300;

/// The target: per block a byte of hints, then 4096 bytes.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    let mut ring = Vec::new();
    while !c.is_empty() && ring.len() < RING {
        let hints = c.u8();
        let mut block: [u8; BLOCK] = c.array();
        if hints & 1 == 0 {
            block[..4].copy_from_slice(&al_block::MAGIC.to_be_bytes());
        }
        if hints & 2 == 0 {
            block[8..12].fill(0);
            let crc = crc32c::update(0, &block);
            block[8..12].copy_from_slice(&crc.to_be_bytes());
        }
        again(&block);
        ring.push(block);
    }
    replay(&ring);
}

/// What is read is written, and read again.
fn again(bytes: &[u8; BLOCK]) {
    let Some(block) = Block::decode(bytes) else {
        return;
    };
    let updates: Vec<_> = block.updates().collect();
    let context: Vec<_> = block.context().collect();
    assert!(updates.len() <= al_block::UPDATES && context.len() <= al_block::CONTEXT);
    let mut out = [0x77; BLOCK];
    al_block::encode(
        &block.header(),
        updates.iter().copied(),
        context.iter().map(|(_, extent)| *extent),
        &mut out,
    );
    let back = Block::decode(&out).expect("an own block");
    assert_eq!(back.header(), block.header());
    assert!(back.updates().eq(updates));
    assert!(back.context().eq(context));
}

/// The number of the newest mention of each slot, and its extent.
fn model(ring: &[[u8; BLOCK]]) -> Vec<Option<(u32, u32)>> {
    let mut slots = vec![None::<(u32, u32)>; SLOTS];
    for block in ring.iter().filter_map(Block::decode) {
        let Header { number, kind, .. } = block.header();
        if kind == Kind::Initialized {
            continue;
        }
        for (slot, extent) in block.context().chain(block.updates()) {
            let Some(known) = slots.get_mut(usize::from(slot)) else {
                continue;
            };
            // Numbers wrap: the sign of the difference says which is newer.
            if known.is_none_or(|(n, _)| number.wrapping_sub(n) as i32 >= 0) {
                *known = Some((number, extent));
            }
        }
    }
    slots
}

fn replay(ring: &[[u8; BLOCK]]) {
    let mut slots = vec![ReplaySlot::EMPTY; SLOTS];
    let seen = al_block::replay(ring.iter(), &mut slots);
    let known = seen.transactions + seen.initialized + seen.corrupt;
    assert_eq!(known as usize, ring.len());
    assert_eq!(seen.newest.is_some(), seen.transactions > 0);
    for (slot, want) in slots.iter().zip(model(ring)) {
        let want = want.map(|(_, extent)| extent).filter(|e| *e != FREE);
        assert_eq!(slot.extent(), want);
    }
}
