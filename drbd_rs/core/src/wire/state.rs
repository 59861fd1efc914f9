// SPDX-License-Identifier: GPL-2.0

//! Packets that tell the peer about this node's disk and state.

use super::bytes::Writer;
use super::layout::packet;
use super::Malformed;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

packet! {
    /// The generations of the sender's data.
    pub Uuids, UuidsLayout, 48 {
        /// Current UUID; bit 0: the node was primary.
        current: u64 => U64,
        /// Bitmap UUID.
        bitmap: u64 => U64,
        /// Newest UUID of the history.
        history0: u64 => U64,
        /// The one before.
        history1: u64 => U64,
        /// Bits set in the sender's bitmap.
        dirty_bits: u64 => U64,
        /// See [`uuid_flag`].
        flags: u64 => U64,
    }
}

/// Flags of [`Uuids::flags`].
pub mod uuid_flag {
    /// The sender gives up its own data.
    pub const DISCARD_MY_DATA: u64 = 1;
    /// The sender was primary when it crashed.
    pub const CRASHED_PRIMARY: u64 = 2;
    /// The disk that the sender is attaching is inconsistent.
    pub const INCONSISTENT: u64 = 4;
    /// No initial resync is wanted: both disks are declared equal.
    pub const SKIP_INITIAL_SYNC: u64 = 8;
}

packet! {
    /// The fixed part of [`Sizes`].
    SizesHead, SizesLayout, 32 {
        /// Backing size.
        d_size: u64 => U64,
        /// Limit of the user.
        u_size: u64 => U64,
        /// Exported size.
        c_size: u64 => U64,
        /// Largest request.
        max_bio_size: u32 => U32,
        /// Ignored.
        queue_order_type: u16 => U16,
        /// Flags.
        dds_flags: u16 => U16,
    }
}

packet! {
    /// What the sender's backing device likes; behind P_SIZES with [`super::feature::WSAME`].
    pub QueueLimits, QueueLimitsLayout, 24, pad [u8; 1] {
        /// Physical block size in bytes.
        physical_block_size: u32 => U32,
        /// Logical block size in bytes.
        logical_block_size: u32 => U32,
        /// Alignment offset in bytes.
        alignment_offset: u32 => U32,
        /// Smallest preferred request in bytes.
        io_min: u32 => U32,
        /// Optimal request in bytes.
        io_opt: u32 => U32,
        /// Not 0: discards are possible.
        discard_enabled: u8 => u8,
        /// Not 0: discarded blocks read as zero.
        discard_zeroes_data: u8 => u8,
        /// Not 0: WRITE SAME is possible.
        write_same_capable: u8 => u8,
    }
}

/// Flags of [`Sizes::dds_flags`].
pub mod dds_flag {
    /// The user insisted.
    pub const FORCED: u16 = 1;
    /// Do not resync what was added.
    pub const NO_RESYNC: u16 = 2;
}

/// How large the sender's disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Sectors of the backing device; 0 without one.
    pub d_size: u64,
    /// Limit of the user in sectors; 0 for none.
    pub u_size: u64,
    /// Sectors exported now; 0 asks the peer for an answer.
    pub c_size: u64,
    /// Largest request in bytes.
    pub max_bio_size: u32,
    /// Ignored by the receiver.
    pub queue_order_type: u16,
    /// See [`dds_flag`].
    pub dds_flags: u16,
    /// Present exactly if [`super::feature::WSAME`] is agreed on.
    pub limits: Option<QueueLimits>,
}

impl Sizes {
    /// Bytes without the queue limits.
    pub const FIXED: usize = SizesHead::SIZE;
    /// Bytes with the queue limits.
    pub const WITH_LIMITS: usize = 56;

    /// Reads the packet; its length says whether the queue limits are there.
    pub fn decode(bytes: &[u8]) -> Result<Sizes, Malformed> {
        let Some((head, tail)) = bytes.split_at_checked(Self::FIXED) else {
            return Err(Malformed::Length);
        };
        let head = SizesHead::decode(head)?;
        let limits = if tail.is_empty() {
            None
        } else {
            Some(QueueLimits::decode(tail)?)
        };
        Ok(Sizes {
            d_size: head.d_size,
            u_size: head.u_size,
            c_size: head.c_size,
            max_bio_size: head.max_bio_size,
            queue_order_type: head.queue_order_type,
            dds_flags: head.dds_flags,
            limits,
        })
    }

    /// Appends the packet. With [`super::feature::WSAME`] in `features` there are always limits,
    /// all zero where none were given; without it there are none.
    pub fn encode(&self, w: &mut Writer<'_>, features: u32) {
        SizesHead {
            d_size: self.d_size,
            u_size: self.u_size,
            c_size: self.c_size,
            max_bio_size: self.max_bio_size,
            queue_order_type: self.queue_order_type,
            dds_flags: self.dds_flags,
        }
        .encode(w);
        if features & super::feature::WSAME != 0 {
            self.limits.unwrap_or_default().encode(w);
        }
    }
}

packet! {
    /// The sender's state.
    pub State, StateLayout, 4 {
        /// Role, disk, connection and so on, as bit fields.
        word: u32 => U32,
    }
}

packet! {
    /// Asks the peer to agree to a change of state.
    pub ReqState, ReqStateLayout, 8 {
        /// Which bits change.
        mask: u32 => U32,
        /// Their new values.
        val: u32 => U32,
    }
}

packet! {
    /// The new bitmap UUID at the start of a resync.
    pub RsUuid, RsUuidLayout, 8 {
        /// The UUID.
        uuid: u64 => U64,
    }
}
