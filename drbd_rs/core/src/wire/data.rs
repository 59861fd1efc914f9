// SPDX-License-Identifier: GPL-2.0

//! Packets of the data socket about blocks. Where a digest or data follow, they travel beside.

use super::bytes::{BarrierNr, BlockId};
use super::layout::packet;
use crate::units::Sector;
use zerocopy::byteorder::big_endian::{U32, U64};

/// Flags of [`Data::flags`].
pub mod dp {
    /// The write is synchronous.
    pub const RW_SYNC: u32 = 2;
    /// The sender is the source of a resync: the write may set its blocks in sync.
    pub const MAY_SET_IN_SYNC: u32 = 4;
    /// The write must be durable before it completes.
    pub const FUA: u32 = 16;
    /// What was written before must be durable before the write.
    pub const FLUSH: u32 = 32;
    /// A discard; with [`ZEROES`]: unmapping is allowed.
    pub const DISCARD: u32 = 64;
    /// Protocol B: answer on receipt. From version 100.
    pub const SEND_RECEIVE_ACK: u32 = 128;
    /// Protocol C: answer when written. From version 100.
    pub const SEND_WRITE_ACK: u32 = 256;
    /// A write of one block's content many times.
    pub const WSAME: u32 = 512;
    /// Zeroes are written.
    pub const ZEROES: u32 = 1024;
}

packet! {
    /// Before the digest and the data of DATA, DATA_REPLY and RS_DATA_REPLY.
    pub Data, DataLayout, 24 {
        /// Where the data belong.
        sector: Sector => U64,
        /// The sender's name for the request.
        block_id: BlockId => [u8; 8],
        /// Counts DATA packets and acks of this volume and connection.
        seq_num: u32 => U32,
        /// See [`dp`].
        flags: u32 => U32,
    }
}

packet! {
    /// TRIM and ZEROES: as [`Data`], with the size in place of data.
    pub Trim, TrimLayout, 28 {
        /// Where the range begins.
        sector: Sector => U64,
        /// The sender's name for the request.
        block_id: BlockId => [u8; 8],
        /// Counts DATA packets and acks of this volume and connection.
        seq_num: u32 => U32,
        /// See [`dp`].
        flags: u32 => U32,
        /// Length in bytes.
        size: u32 => U32,
    }
}

packet! {
    /// Asks for a block, or for a comparison of one; a digest may follow.
    pub BlockReq, BlockReqLayout, 24, pad [u8; 4] {
        /// Where the block lies.
        sector: Sector => U64,
        /// The sender's name for the request; [`BlockId::SYNCER`] for resync and verify.
        block_id: BlockId => [u8; 8],
        /// Length in bytes.
        blksize: u32 => U32,
    }
}

packet! {
    /// Names a range: OUT_OF_SYNC and RS_DEALLOCATED.
    pub BlockDesc, BlockDescLayout, 16, pad [u8; 4] {
        /// Where the range begins.
        sector: Sector => U64,
        /// Length in bytes.
        blksize: u32 => U32,
    }
}

packet! {
    /// Closes an epoch.
    pub Barrier, BarrierLayout, 8, pad [u8; 4] {
        /// The sender's name for the epoch.
        nr: BarrierNr => [u8; 4],
    }
}

packet! {
    /// Ignored by every 8.4 node; kept so that it can be skipped.
    pub DelayProbe, DelayProbeLayout, 8 {
        /// Matches two probes.
        seq_num: u32 => U32,
        /// Microseconds since the reference time.
        offset: u32 => U32,
    }
}
