// SPDX-License-Identifier: GPL-2.0

//! Whether every block that differs is marked, looked at whenever the power fails.
//!
//! Two copies that were equal once may differ where a bit is set in either bitmap, where a write of
//! an application is under way (its extents are in the activity log until the peer says that it is
//! stable), and, on a node that is down and was Primary, in the extents of the activity log on its
//! disk. A block that differs and is none of these stays so after the next resync: this is found
//! here at once, and not only if somebody reads it.
//!
//! Not looked at: copies that have nothing in common yet or are to be copied in full, and sectors
//! that were discarded.

use crate::drbdmeta;
use crate::world::{World, VOL};
use drbd_core::meta::superblock::Flags;
use drbd_core::units::{BmBit, Sector, SectorRange};
use drbd_core::uuid::JUST_CREATED;

/// Sectors in a block of the bitmap.
const BLOCK: u64 = 8;
/// Blocks in an extent of the activity log.
const EXTENT: u64 = 1024;

/// What the disk of a node says.
struct OnDisk {
    hot: Vec<u32>,
    primary: bool,
}

impl World {
    /// See the head of this file.
    pub(crate) fn check_marks(&mut self) {
        let size = self.last_size;
        if self.truth.forced || size.0 == 0 || self.data(0, size) == self.data(1, size) {
            return;
        }
        let mut disks = Vec::new();
        for n in &self.nodes {
            let sb = drbdmeta::superblock(&n.disk);
            let primary = sb.flags.contains(Flags::PRIMARY_IND);
            let unlogged = primary && sb.flags.contains(Flags::AL_DISABLED);
            let fresh = matches!(sb.uuid[0] & !1, 0 | JUST_CREATED);
            if fresh || unlogged || sb.flags.contains(Flags::FULL_SYNC) {
                return;
            }
            let hot = drbdmeta::hot_extents(&n.disk);
            disks.push(OnDisk { hot, primary });
        }
        let pairs = self.data(0, size).iter().zip(self.data(1, size));
        let found = (0u64..)
            .zip(pairs)
            .filter(|(at, (a, b))| a != b && !self.truth.is_zeroed(*at as u32))
            .map(|(at, (a, b))| (at, *a, *b))
            .find(|(at, ..)| (0..2).all(|n| !self.is_marked(n, at / BLOCK, &disks[n])));
        if let Some((at, a, b)) = found {
            let why = format!("sector {at}: {a:#x} and {b:#x}; {}", self.describe());
            self.violated("what differs is marked", &why);
        }
    }

    /// Whether a node knows that a block may differ.
    fn is_marked(&self, node: usize, block: u64, on_disk: &OnDisk) -> bool {
        let n = &self.nodes[node];
        let start = Sector(block * BLOCK);
        if let Some(res) = n.res.as_ref() {
            let under_way = res.is_under_way(VOL, SectorRange::new(start, 4096));
            match res.is_out_of_sync(VOL, BmBit(block)) {
                Some(dirty) => return dirty || under_way,
                None if under_way => return true,
                None => {}
            }
        }
        let logged = on_disk.primary && on_disk.hot.contains(&((block / EXTENT) as u32));
        logged || drbdmeta::is_set_on_disk(&n.disk, block)
    }
}
