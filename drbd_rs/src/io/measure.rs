// SPDX-License-Identifier: GPL-2.0

//! Tells the core how large the lower devices are by now, and gives it a larger bitmap if it needs
//! one. The core decides what follows.

use drbd_core::bitmap::{Need, PageFlags};
use drbd_core::node::VolIx;
use drbd_core::units::{index, Sectors};
use drbd_kapi::mem::filled;
use kernel::prelude::*;

use crate::objects::resource::Resource;

/// Storage of a bitmap: words, and flags of pages.
pub(crate) type BitmapStorage = (KVVec<u64>, KVVec<PageFlags>);

/// Storage of a bitmap.
///
/// # Errors
/// ENOMEM: it takes 32 KiB for each GiB of the disk.
pub(crate) fn bitmap(need: Need) -> Result<BitmapStorage> {
    let words = filled(index(need.words), || 0u64)?;
    let pages = filled(index(need.pages), || PageFlags::EMPTY)?;
    Ok((words, pages))
}

impl Resource {
    /// Whether the volume has lower devices.
    pub(crate) fn has_disk(&self, vol: VolIx) -> bool {
        self.volume(vol).is_some_and(|v| v.backing().is_some())
    }

    /// Measures the lower devices of a volume. Without memory for its bitmap the core will refuse
    /// the new size. May sleep.
    #[inline(never)]
    pub(crate) fn measure(&self, vol: VolIx) {
        let Some(backing) = self.volume(vol).and_then(|v| v.backing()) else { return };
        let data = Sectors(backing.data().capacity());
        let meta = Sectors(backing.meta().capacity());
        let need = self.inner.lock().machine.disk_measured(vol, data, meta);
        let Some(need) = need else { return };
        match bitmap(need) {
            Ok((words, pages)) => {
                let unused = self.inner.lock().machine.give_bitmap(vol, words, pages);
                // Freed behind the lock: it may be large.
                drop(unused);
            }
            Err(_) => pr_warn!("drbd {}: no memory for a larger bitmap\n", self.label()),
        }
    }

    /// Measures all volumes: their sizes are about to be told to the peer.
    pub(crate) fn measure_all(&self) {
        let volumes = self.inner.lock().volumes.len();
        for vol in (0..volumes).filter_map(|ix| u16::try_from(ix).ok()) {
            self.measure(VolIx(vol));
        }
    }
}
