// SPDX-License-Identifier: GPL-2.0

//! Names of I/O and packets: the top byte says whose they are, the rest what they name.
//!
//! A name holds the generation of its slot, so that one that comes back late finds nothing instead
//! of a stranger. The spaces of [`IoToken`], [`SendToken`] and block ids are one.

use super::super::io::{IoToken, SendToken, VolIx};
use crate::store::slab::Id;
use crate::units::saturate_u32;
use crate::wire::BlockId;

/// How far the kind is shifted.
pub(crate) const KIND_SHIFT: u32 = 56;
/// Everything of `resync/`.
pub(crate) const RESYNC: u8 = 0x80;

const APP: u8 = 1;
const PEER: u8 = 2;
const FLUSH: u8 = 3;
const SUPERBLOCK: u8 = 4;
const AL_BLOCK: u8 = 5;
const AL_PAGE: u8 = 6;
const BITMAP_PAGE: u8 = 7;
const OLD_SUPERBLOCK: u8 = 8;
const DATA_FLUSH: u8 = 9;
const LOG_FLUSH: u8 = 10;

/// What a token of this part names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A request of an application.
    App(Id),
    /// A request of the peer.
    Peer(Id),
    /// A flush between two epochs of the peer.
    Flush(VolIx),
    /// A flush of the data before the activity log ceases to count.
    DataFlush(VolIx),
    /// One before extents leave it.
    LogFlush(VolIx),
    /// The superblock.
    Superblock(VolIx),
    /// Where the superblock was before the metadata moved.
    OldSuperblock(VolIx),
    /// The block of an activity log transaction.
    AlBlock(VolIx),
    /// A bitmap page that must be stable before the block is written.
    AlPage(VolIx, u32),
    /// A bitmap page of a job.
    BitmapPage(VolIx, u32),
}

impl Name {
    /// The number of this name; never zero, never that of the resync's block id.
    pub(super) fn pack(self) -> u64 {
        let kind = |k: u8| u64::from(k) << KIND_SHIFT;
        let id = |i: Id| (u64::from(i.ix & 0xff_ffff) << 32) | u64::from(i.gen);
        let page = |v: VolIx, p: u32| (u64::from(v.0) << 32) | u64::from(p);
        match self {
            Name::App(i) => kind(APP) | id(i),
            Name::Peer(i) => kind(PEER) | id(i),
            Name::Flush(v) => kind(FLUSH) | page(v, 0),
            Name::DataFlush(v) => kind(DATA_FLUSH) | page(v, 0),
            Name::LogFlush(v) => kind(LOG_FLUSH) | page(v, 0),
            Name::Superblock(v) => kind(SUPERBLOCK) | page(v, 0),
            Name::OldSuperblock(v) => kind(OLD_SUPERBLOCK) | page(v, 0),
            Name::AlBlock(v) => kind(AL_BLOCK) | page(v, 0),
            Name::AlPage(v, p) => kind(AL_PAGE) | page(v, p),
            Name::BitmapPage(v, p) => kind(BITMAP_PAGE) | page(v, p),
        }
    }

    /// What a number names; `None` if it is not of this part.
    pub(super) fn unpack(token: u64) -> Option<Name> {
        let low = saturate_u32(token & 0xffff_ffff);
        let middle = saturate_u32(token >> 32 & 0xff_ffff);
        let id = Id {
            ix: middle,
            gen: low,
        };
        let vol = VolIx(u16::try_from(middle).unwrap_or(u16::MAX));
        match u8::try_from(token >> KIND_SHIFT).ok()? {
            APP => Some(Name::App(id)),
            PEER => Some(Name::Peer(id)),
            FLUSH => Some(Name::Flush(vol)),
            DATA_FLUSH => Some(Name::DataFlush(vol)),
            LOG_FLUSH => Some(Name::LogFlush(vol)),
            SUPERBLOCK => Some(Name::Superblock(vol)),
            OLD_SUPERBLOCK => Some(Name::OldSuperblock(vol)),
            AL_BLOCK => Some(Name::AlBlock(vol)),
            AL_PAGE => Some(Name::AlPage(vol, low)),
            BITMAP_PAGE => Some(Name::BitmapPage(vol, low)),
            _ => None,
        }
    }

    pub(super) fn io(self) -> IoToken {
        IoToken(self.pack())
    }

    pub(super) fn send(self) -> SendToken {
        SendToken(self.pack())
    }
}

/// The id that a request of an application has on the wire.
pub(super) fn block_id(id: Id) -> BlockId {
    BlockId(Name::App(id).pack())
}

/// The request behind an id that the peer echoes.
pub(super) fn of_block_id(id: BlockId) -> Option<Id> {
    match Name::unpack(id.0) {
        Some(Name::App(id)) => Some(id),
        Some(
            Name::Peer(_)
            | Name::Flush(_)
            | Name::DataFlush(_)
            | Name::LogFlush(_)
            | Name::Superblock(_)
            | Name::OldSuperblock(_)
            | Name::AlBlock(_)
            | Name::AlPage(..)
            | Name::BitmapPage(..),
        )
        | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let id = Id {
            ix: 0xff_fffe,
            gen: u32::MAX,
        };
        let vol = VolIx(u16::MAX);
        for name in [
            Name::App(id),
            Name::Peer(id),
            Name::Flush(vol),
            Name::DataFlush(vol),
            Name::LogFlush(vol),
            Name::Superblock(vol),
            Name::OldSuperblock(vol),
            Name::AlBlock(vol),
            Name::AlPage(vol, u32::MAX),
            Name::BitmapPage(vol, 7),
        ] {
            assert_eq!(Name::unpack(name.pack()), Some(name));
            assert_ne!(name.pack(), 0);
        }
        assert_eq!(of_block_id(block_id(id)), Some(id));
        assert_eq!(of_block_id(BlockId::SYNCER), None);
        assert_eq!(Name::unpack(u64::from(RESYNC) << KIND_SHIFT), None);
    }
}
