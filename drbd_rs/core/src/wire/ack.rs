// SPDX-License-Identifier: GPL-2.0

//! Packets of the meta socket: acknowledgements and replies.

use super::bytes::{BarrierNr, BlockId, Writer};
use super::layout::packet;
use super::Malformed;
use crate::units::Sector;
use zerocopy::byteorder::big_endian::{U32, U64};

packet! {
    /// Any acknowledgement of a block, positive or not.
    pub BlockAck, BlockAckLayout, 24 {
        /// Where the block lies.
        sector: Sector => U64,
        /// The id that the request carried.
        block_id: BlockId => [u8; 8],
        /// Length in bytes.
        blksize: u32 => U32,
        /// Counts DATA packets and acks of this volume and connection.
        seq_num: u32 => U32,
    }
}

packet! {
    /// An epoch is on stable storage.
    pub BarrierAck, BarrierAckLayout, 8 {
        /// The name that the barrier carried.
        nr: BarrierNr => [u8; 4],
        /// Writes in the epoch.
        set_size: u32 => U32,
    }
}

packet! {
    /// The answer to a request for a state change.
    pub ReqReply, ReqReplyLayout, 4 {
        /// DRBD's SS_ number: 1 and above are success.
        retcode: i32 => U32,
    }
}

packet! {
    /// [`OvResult`] with its verdict as a number.
    RawOvResult, RawOvResultLayout, 24 {
        /// Where the block lies.
        sector: Sector => U64,
        /// 4711 or 4712: the only block id in network byte order.
        verdict: u64 => U64,
        /// Length in bytes.
        blksize: u32 => U32,
        /// Counts DATA packets and acks of this volume and connection.
        seq_num: u32 => U32,
    }
}

/// What online verify found out about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OvVerdict {
    /// Both nodes have the same data.
    InSync,
    /// They differ.
    OutOfSync,
}

/// The source of a verify tells the target what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OvResult {
    /// Where the block lies.
    pub sector: Sector,
    /// Same or not.
    pub verdict: OvVerdict,
    /// Length in bytes.
    pub blksize: u32,
    /// Counts DATA packets and acks of this volume and connection.
    pub seq_num: u32,
}

impl OvResult {
    /// Bytes on the wire.
    pub const SIZE: usize = RawOvResult::SIZE;

    /// Reads the packet. As in the C driver, all but 4712 means "in sync".
    pub fn decode(bytes: &[u8]) -> Result<OvResult, Malformed> {
        let raw = RawOvResult::decode(bytes)?;
        Ok(OvResult {
            sector: raw.sector,
            verdict: if raw.verdict == 4712 {
                OvVerdict::OutOfSync
            } else {
                OvVerdict::InSync
            },
            blksize: raw.blksize,
            seq_num: raw.seq_num,
        })
    }

    /// Appends the packet.
    pub fn encode(&self, w: &mut Writer<'_>) {
        RawOvResult {
            sector: self.sector,
            verdict: match self.verdict {
                OvVerdict::InSync => 4711,
                OvVerdict::OutOfSync => 4712,
            },
            blksize: self.blksize,
            seq_num: self.seq_num,
        }
        .encode(w);
    }
}
