// SPDX-License-Identifier: GPL-2.0

//! Queue limits of `/dev/drbd<minor>`: what the core allows, stacked on what the disk below can do.

use drbd_core::node::VolIx;
use drbd_kapi::block::limits::Limits;
use kernel::prelude::*;

use crate::objects::backing::Sink;
use crate::objects::resource::Resource;

/// Bytes of a sector.
const SECTOR: u32 = 512;

/// Publishes the limits that hold now.
pub(crate) fn update(resource: &Resource, vol: VolIx) {
    let Some(volume) = resource.volume(vol) else { return };
    let wish = {
        let inner = resource.inner.lock();
        let core = inner.machine.queue_limits(vol);
        Limits {
            logical_block_size: core.logical_block,
            physical_block_size: core.physical_block,
            io_min: core.io_min,
            io_opt: core.io_opt,
            max_hw_sectors: core.max_bio / SECTOR,
            alignment_offset: core.alignment_offset,
            max_discard_sectors: core.max_discard / SECTOR,
            discard_granularity: if core.max_discard == 0 { 0 } else { core.logical_block },
            max_write_zeroes_sectors: core.max_write_zeroes / SECTOR,
            write_cache: core.write_cache,
            fua: core.fua,
            rotational: core.rotational,
            // The same pages go to the disk and to the peer.
            stable_writes: true,
            ..Limits::DEFAULT
        }
    };
    let backing = volume.backing();
    let below = backing.as_ref().map(|b| &**b.data());
    if let Err(e) = volume.disk.update_limits::<Sink>(&wish, below) {
        pr_err!(
            "drbd {}/{} drbd{}: queue limits were refused: {}\n",
            resource.label(),
            volume.vnr.0,
            volume.minor.0,
            e.to_errno()
        );
    }
}
