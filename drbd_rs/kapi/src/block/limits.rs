// SPDX-License-Identifier: GPL-2.0

//! What a block device can take at once.

use crate::shim;
use kernel::{bindings, page::PAGE_SIZE};

/// The limits of a queue, as far as a stacking driver decides on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Smallest unit of I/O, in bytes: a power of two from 512 on.
    pub logical_block_size: u32,
    /// Unit that is written without reading around it, in bytes.
    pub physical_block_size: u32,
    /// Smallest I/O without a penalty, in bytes.
    pub io_min: u32,
    /// Best size of I/O in bytes; 0 means unknown.
    pub io_opt: u32,
    /// Largest request, in sectors of 512 bytes.
    pub max_hw_sectors: u32,
    /// Most pieces of memory in one request.
    pub max_segments: u16,
    /// No piece of memory crosses an address that has these bits all ones.
    pub seg_boundary_mask: usize,
    /// Memory must be aligned to this plus one, in bytes.
    pub dma_alignment: u32,
    /// Where the first physical block starts, in bytes.
    pub alignment_offset: u32,
    /// Largest discard, in sectors; 0 means that there is none.
    pub max_discard_sectors: u32,
    /// Smallest discard, in bytes.
    pub discard_granularity: u32,
    /// Where the first discard unit starts, in bytes.
    pub discard_alignment: u32,
    /// Largest write of zeroes, in sectors; 0 means that there is none.
    pub max_write_zeroes_sectors: u32,
    /// Has a volatile write cache: flushes mean something.
    pub write_cache: bool,
    /// Knows writes that bypass the cache.
    pub fua: bool,
    /// Pages must not change while they are written.
    pub stable_writes: bool,
    /// Seeks cost time.
    pub rotational: bool,
}

impl Limits {
    /// What a new disk has that nothing is known of.
    pub const DEFAULT: Self = Self {
        logical_block_size: 512,
        physical_block_size: 512,
        io_min: 512,
        io_opt: 0,
        max_hw_sectors: 2048,
        max_segments: 128,
        seg_boundary_mask: PAGE_SIZE - 1,
        dma_alignment: 511,
        alignment_offset: 0,
        max_discard_sectors: 0,
        discard_granularity: 0,
        discard_alignment: 0,
        max_write_zeroes_sectors: 0,
        write_cache: true,
        fua: true,
        stable_writes: true,
        rotational: true,
    };

    pub(crate) fn from_raw(lim: &bindings::queue_limits) -> Self {
        let has = |bit| lim.features & bit != 0;
        Self {
            logical_block_size: lim.logical_block_size,
            physical_block_size: lim.physical_block_size,
            io_min: lim.io_min,
            io_opt: lim.io_opt,
            max_hw_sectors: lim.max_hw_sectors,
            max_segments: lim.max_segments,
            seg_boundary_mask: lim.seg_boundary_mask,
            dma_alignment: lim.dma_alignment,
            alignment_offset: lim.alignment_offset,
            max_discard_sectors: lim.max_discard_sectors,
            discard_granularity: lim.discard_granularity,
            discard_alignment: lim.discard_alignment,
            max_write_zeroes_sectors: lim.max_write_zeroes_sectors,
            write_cache: has(shim::FEAT_WRITE_CACHE) && lim.flags & shim::FLAG_CACHE_DISABLED == 0,
            fua: has(shim::FEAT_FUA),
            stable_writes: has(shim::FEAT_STABLE_WRITES),
            rotational: has(bindings::BLK_FEAT_ROTATIONAL),
        }
    }

    /// Everything that is decided before another device's limits are stacked on top.
    pub(crate) fn apply(&self, lim: &mut bindings::queue_limits) {
        lim.logical_block_size = self.logical_block_size;
        lim.physical_block_size = self.physical_block_size;
        lim.io_min = self.io_min;
        lim.io_opt = self.io_opt;
        lim.max_hw_sectors = self.max_hw_sectors;
        lim.max_segments = self.max_segments;
        lim.seg_boundary_mask = self.seg_boundary_mask;
        lim.dma_alignment = self.dma_alignment;
        lim.alignment_offset = self.alignment_offset;
        lim.max_hw_discard_sectors = self.max_discard_sectors;
        lim.discard_granularity = self.discard_granularity;
        lim.discard_alignment = self.discard_alignment;
        lim.features = self.features();
        self.finish(lim);
    }

    /// What holds whatever the device below says.
    pub(crate) fn finish(&self, lim: &mut bindings::queue_limits) {
        lim.max_write_zeroes_sectors = self.max_write_zeroes_sectors;
        lim.max_hw_wzeroes_unmap_sectors = 0;
        if self.stable_writes {
            lim.features |= shim::FEAT_STABLE_WRITES;
        }
        // A unit larger than the largest request cannot be served.
        if lim.discard_granularity >> 9 > lim.max_hw_discard_sectors {
            lim.discard_granularity = 0;
            lim.max_hw_discard_sectors = 0;
        }
    }

    fn features(&self) -> u32 {
        [
            (self.write_cache, shim::FEAT_WRITE_CACHE),
            (self.fua, shim::FEAT_FUA),
            (self.stable_writes, shim::FEAT_STABLE_WRITES),
            (self.rotational, bindings::BLK_FEAT_ROTATIONAL),
        ]
        .iter()
        .fold(0, |all, (on, bit)| if *on { all | bit } else { all })
    }
}
