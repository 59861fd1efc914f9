// SPDX-License-Identifier: GPL-2.0

//! One block of the activity log's ring on disk (format of 8.4), and what a ring says.
//!
//! A block is 4096 bytes, big endian: the exchanges of one transaction and a window of the extents
//! of all slots as they were before it. Decoding is total: whatever the bytes, the answer is a
//! block or `None`.
//!
//! Not here: the 512-byte sectors of 8.3, see [`super::al_sector`].

use super::crc32c;
use crate::store::lru::FREE;

/// "Activity log transaction" in the first four bytes.
pub const MAGIC: u32 = 0x69cb_65a2;
/// Exchanges that fit into one block.
pub const UPDATES: usize = 64;
/// Slots whose extents one block repeats.
pub const CONTEXT: usize = 919;
/// Bytes of a block.
pub const BLOCK: usize = 4096;

const CRC_AT: usize = 8;
const UPDATE_SLOTS_AT: usize = 36;
const UPDATE_EXTENTS_AT: usize = 164;
const CONTEXT_AT: usize = 420;
const NO_SLOT: u16 = 0xffff;

/// What the block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A transaction; it may have no exchange.
    Update,
    /// Written by drbdmeta into a fresh ring; says nothing.
    Initialized,
}

/// The fixed fields of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the transaction; wraps, to be compared by signed difference.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// Slots of the log, in use or not.
    pub slots: u16,
    /// First slot of the context window.
    pub context_start: u16,
}

/// Writes a block: up to [`UPDATES`] exchanges as (slot, new extent) and the extents of the slots
/// from `context_start` on, [`FREE`] for none and for those that `context` does not name. Further
/// exchanges and slots are ignored. Straight into the block: a stack has no room for the context.
pub fn encode(
    header: &Header,
    updates: impl Iterator<Item = (u16, u32)>,
    context: impl Iterator<Item = u32>,
    block: &mut [u8; BLOCK],
) {
    block.iter_mut().for_each(|b| *b = 0);
    put(
        block,
        UPDATE_SLOTS_AT,
        &[0xff; CONTEXT_AT - UPDATE_SLOTS_AT],
    );
    let mut count = 0_u16;
    let (mut slot_at, mut extent_at) = (UPDATE_SLOTS_AT, UPDATE_EXTENTS_AT);
    for (slot, extent) in updates.take(UPDATES) {
        put(block, slot_at, &slot.to_be_bytes());
        put(block, extent_at, &extent.to_be_bytes());
        slot_at = slot_at.saturating_add(2);
        extent_at = extent_at.saturating_add(4);
        count = count.saturating_add(1);
    }
    put(block, 0, &MAGIC.to_be_bytes());
    put(block, 4, &header.number.to_be_bytes());
    let kind: u16 = match header.kind {
        Kind::Update => 0,
        Kind::Initialized => 0xffff,
    };
    put(block, 12, &kind.to_be_bytes());
    put(block, 14, &count.to_be_bytes());
    put(block, 16, &header.slots.to_be_bytes());
    put(block, 18, &header.context_start.to_be_bytes());
    let tail = block.iter_mut().skip(CONTEXT_AT);
    let all = context.chain(core::iter::repeat(FREE));
    for (to, b) in tail.zip(all.flat_map(u32::to_be_bytes)) {
        *to = b;
    }
    let crc = crc32c::update(0, block);
    put(block, CRC_AT, &crc.to_be_bytes());
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    let rest = block.get_mut(at..).unwrap_or_default();
    for (to, b) in rest.iter_mut().zip(bytes) {
        *to = *b;
    }
}

fn u16_at(block: &[u8; BLOCK], at: usize) -> u16 {
    let mut be = [0_u8; 2];
    be.iter_mut()
        .zip(block.iter().skip(at))
        .for_each(|(to, b)| *to = *b);
    u16::from_be_bytes(be)
}

fn u32_at(block: &[u8; BLOCK], at: usize) -> u32 {
    let mut be = [0_u8; 4];
    be.iter_mut()
        .zip(block.iter().skip(at))
        .for_each(|(to, b)| *to = *b);
    u32::from_be_bytes(be)
}

/// A block whose magic, checksum and counts are right.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    bytes: &'a [u8; BLOCK],
    header: Header,
    updates: u16,
}

impl<'a> Block<'a> {
    /// Reads a block; `None` if it is not one or is damaged.
    pub fn decode(bytes: &'a [u8; BLOCK]) -> Option<Block<'a>> {
        let mut crc = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (CRC_AT..CRC_AT + 4).contains(&at) {
                0
            } else {
                *byte
            };
            crc = crc32c::update(crc, &[byte]);
        }
        let updates = u16_at(bytes, 14);
        if u32_at(bytes, 0) != MAGIC
            || u32_at(bytes, CRC_AT) != crc
            || usize::from(updates) > UPDATES
        {
            return None;
        }
        let kind = match u16_at(bytes, 12) {
            0 => Kind::Update,
            0xffff => Kind::Initialized,
            _ => return None,
        };
        Some(Block {
            bytes,
            updates,
            header: Header {
                number: u32_at(bytes, 4),
                kind,
                slots: u16_at(bytes, 16),
                context_start: u16_at(bytes, 18),
            },
        })
    }

    /// The fixed fields.
    pub const fn header(&self) -> Header {
        self.header
    }

    /// The exchanges: slot and new extent.
    pub fn updates(&self) -> impl Iterator<Item = (u16, u32)> + 'a {
        let bytes = self.bytes;
        let slots = (UPDATE_SLOTS_AT..UPDATE_EXTENTS_AT).step_by(2);
        let extents = (UPDATE_EXTENTS_AT..CONTEXT_AT).step_by(4);
        slots
            .zip(extents)
            .take(usize::from(self.updates))
            .map(move |(s, e)| (u16_at(bytes, s), u32_at(bytes, e)))
    }

    /// The context: slot and extent, [`FREE`] for none, of all slots in the window.
    pub fn context(&self) -> impl Iterator<Item = (u16, u32)> + 'a {
        let bytes = self.bytes;
        (self.header.context_start..self.header.slots)
            .zip((CONTEXT_AT..BLOCK).step_by(4))
            .map(move |(slot, at)| (slot, u32_at(bytes, at)))
    }
}

/// What replay keeps for each slot: its extent and the transaction that said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySlot {
    extent: u32,
    number: Option<u32>,
}

impl ReplaySlot {
    /// A slot of which nothing is known.
    pub const EMPTY: ReplaySlot = ReplaySlot {
        extent: FREE,
        number: None,
    };

    /// The extent that was hot when the node crashed.
    pub fn extent(&self) -> Option<u32> {
        Some(self.extent).filter(|e| *e != FREE)
    }

    /// Takes news in if it is not older than what is known.
    pub(super) fn learn(&mut self, number: u32, extent: u32) {
        if self.number.is_none_or(|known| !is_older(number, known)) {
            self.extent = extent;
            self.number = Some(number);
        }
    }
}

/// Whether transaction `a` was before `b`; numbers wrap.
pub(super) const fn is_older(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) >= 0x8000_0000
}

/// What [`replay`] has seen of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Transactions that are in order.
    pub transactions: u32,
    /// Blocks as drbdmeta leaves them in a fresh ring.
    pub initialized: u32,
    /// Blocks that are damaged or none at all.
    pub corrupt: u32,
    /// Number of the newest transaction.
    pub newest: Option<u32>,
    /// Mentions of slots that the storage does not have; must be zero for the result to be
    /// complete.
    pub lost: u32,
}

/// Works out which extents are hot from the blocks of a ring, in whatever order. `slots` should
/// have 65535 entries or as many as the log has slots.
///
/// The newest mention of a slot counts, and within one block the exchange rather than the context,
/// which is from before it. That is what applying the blocks from the oldest to the newest gives.
pub fn replay<'a>(
    blocks: impl Iterator<Item = &'a [u8; BLOCK]>,
    slots: &mut [ReplaySlot],
) -> Replayed {
    let mut seen = Replayed::default();
    slots.iter_mut().for_each(|s| *s = ReplaySlot::EMPTY);
    for bytes in blocks {
        let Some(block) = Block::decode(bytes) else {
            seen.corrupt = seen.corrupt.saturating_add(1);
            continue;
        };
        let number = block.header.number;
        match block.header.kind {
            Kind::Initialized => {
                seen.initialized = seen.initialized.saturating_add(1);
                continue;
            }
            Kind::Update => seen.transactions = seen.transactions.saturating_add(1),
        }
        if seen.newest.is_none_or(|newest| is_older(newest, number)) {
            seen.newest = Some(number);
        }
        for (slot, extent) in block.context().chain(block.updates()) {
            match slots.get_mut(usize::from(slot)) {
                Some(known) => known.learn(number, extent),
                None if slot == NO_SLOT => (),
                None => seen.lost = seen.lost.saturating_add(1),
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(number: u32) -> Header {
        Header {
            number,
            kind: Kind::Update,
            slots: 1237,
            context_start: 919,
        }
    }

    #[test]
    fn the_layout_is_that_of_the_disk() {
        let mut b = [0xee; BLOCK];
        let mut context = [FREE; CONTEXT];
        context[0] = 0x0a0b_0c0d;
        encode(
            &header(0x0102_0304),
            [(7, 0x0506_0708)].into_iter(),
            context.into_iter(),
            &mut b,
        );
        assert_eq!(b[..8], [0x69, 0xcb, 0x65, 0xa2, 1, 2, 3, 4]);
        assert_eq!(b[12..20], [0, 0, 0, 1, 0x04, 0xd5, 0x03, 0x97]);
        assert_eq!(
            b[20..40],
            [0; 16]
                .iter()
                .chain(&[0, 7, 0xff, 0xff])
                .copied()
                .collect::<Vec<_>>()
        );
        assert_eq!(b[162..170], [0xff, 0xff, 5, 6, 7, 8, 0xff, 0xff]);
        assert_eq!(b[418..426], [0xff, 0xff, 10, 11, 12, 13, 0xff, 0xff]);
        let crc = u32_at(&b, 8);
        b[8..12].fill(0);
        assert_eq!(crc32c::update(0, &b), crc);
    }

    #[test]
    fn a_fresh_ring_says_nothing() {
        let mut b = [0; BLOCK];
        let fresh = Header {
            kind: Kind::Initialized,
            ..header(0)
        };
        encode(
            &fresh,
            [(1, 1)].into_iter(),
            [5; CONTEXT].into_iter(),
            &mut b,
        );
        let mut slots = [ReplaySlot::EMPTY; 1237];
        let seen = replay([&b, &[0; BLOCK]].into_iter(), &mut slots);
        assert_eq!((seen.initialized, seen.corrupt, seen.newest), (1, 1, None));
        assert!(slots.iter().all(|s| s.extent().is_none()));
    }

    #[test]
    fn newer_wins_across_the_wrap() {
        let mut blocks = [[0; BLOCK]; 2];
        let context = [FREE; CONTEXT];
        encode(
            &header(0),
            [(3, 30)].into_iter(),
            context.into_iter(),
            &mut blocks[0],
        );
        encode(
            &header(u32::MAX),
            [(3, 20), (4, 40)].into_iter(),
            context.into_iter(),
            &mut blocks[1],
        );
        let mut slots = [ReplaySlot::EMPTY; 1237];
        let seen = replay(blocks.iter(), &mut slots);
        assert_eq!((seen.newest, seen.transactions, seen.lost), (Some(0), 2, 0));
        assert_eq!((slots[3].extent(), slots[4].extent()), (Some(30), Some(40)));
        assert!(replay(blocks.iter(), &mut slots[..4]).lost > 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn one_flipped_bit_is_noticed(at in 0..BLOCK, bit in 0u8..8, number: u32) {
            let mut b = [0; BLOCK];
            encode(&header(number), [(1, 2)].into_iter(), [3; CONTEXT].into_iter(), &mut b);
            let block = Block::decode(&b).unwrap();
            prop_assert_eq!(block.header(), header(number));
            prop_assert_eq!(block.updates().collect::<Vec<_>>(), vec![(1, 2)]);
            prop_assert_eq!(block.context().count(), 1237 - 919);
            b[at] ^= 1 << bit;
            prop_assert!(Block::decode(&b).is_none());
        }
    }
}
