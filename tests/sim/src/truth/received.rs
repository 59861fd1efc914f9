// SPDX-License-Identifier: GPL-2.0

//! What the protocols A and B promise of writes that are not on the peer's disk yet.

use super::{Truth, World};
use crate::world::Event;
use drbd_core::units::{SectorRange, Sectors};
use std::collections::BTreeSet;

impl World {
    /// Protocol B: if a disk fails, what it was to write and is acknowledged is as lost as with a
    /// power failure. It says what it said before, or any of what was on its way.
    pub(super) fn received_in_vain(&mut self, node: usize) {
        let n = &self.nodes[node];
        let bufs = n.bufs.iter().flat_map(|(_, tags)| tags);
        let writes = n.writes.iter().flat_map(|(_, w)| &w.tags);
        let moving: BTreeSet<u64> = bufs.chain(writes).filter(|t| **t != 0).copied().collect();
        let debt = &mut self.truth.debts[node];
        let known = debt.one.len().min(n.disk.data_sectors());
        let data = n.disk.data(Sectors(known as u64));
        for (sector, found) in (0u32..).zip(data) {
            let one = [debt.one[sector as usize]];
            let owed = debt.more.get(&sector).map_or(&one[..], |v| &v[..]);
            if owed.iter().any(|v| moving.contains(v)) {
                debt.add(sector, *found);
            }
        }
        self.under_way(node);
    }

    /// What the disk works on may be there from now on.
    pub(super) fn under_way(&mut self, node: usize) {
        for (_, w) in self.nodes[node].writes.iter() {
            for (sector, tag) in (w.start.0 as u32..).zip(&w.tags) {
                self.truth.debts[node].add(sector, *tag);
            }
        }
    }

    /// Whether anything may still be on its way to a disk. With protocol A an application has long
    /// heard that its discard is done when the peer's receiver gets to it, behind a slow flush; it
    /// carries no tag that would tell.
    pub(crate) fn is_on_the_way(&self) -> bool {
        let held = self.net.held.iter().flatten();
        let mut events = self.events.iter().map(|(_, _, e)| e).chain(held);
        let sockets = self.nodes.iter().filter_map(|n| n.sockets.as_ref());
        let mut queues = sockets.map(|s| s.inbox.len() + s.out[0].len());
        let moves = |e: &Event| matches!(e, Event::Deliver(0, ..) | Event::LocalDone { .. });
        queues.any(|len| len != 0) || events.any(moves)
    }

    /// A write failed; protocol B may have promised it: see [`World::received_in_vain`].
    pub(crate) fn not_written(&mut self, node: usize, range: SectorRange) {
        if self.knobs.protocol != 2 {
            return;
        }
        let found = self.nodes[node].disk.read(range);
        for (sector, value) in (range.start.0 as u32..).zip(found) {
            self.truth.debts[node].add(sector, value);
        }
    }

    /// Protocol A: what is done at the source of a resync, and is on its way here, a disk does not
    /// owe as soon as the resync ends: it may say what it says now, or any of what comes after that
    /// in the order of writing. What is older than that must not come.
    pub(super) fn not_received(&mut self, node: usize, data: &[u64]) {
        if self.knobs.protocol != 1 {
            return;
        }
        let moving = self.on_the_way();
        let Truth { debts, starts, .. } = &mut self.truth;
        let owes = &mut debts[node];
        for (at, found) in (0u32..).zip(data) {
            owes.add(at, *found);
        }
        for value in moving.0 {
            let written = starts.range(..=value).next_back();
            let Some(at) = written.map(|(tag, start)| start + (value - tag)) else {
                continue;
            };
            if data.get(at as usize).is_some_and(|found| *found < value) {
                owes.add(at as u32, value);
            }
        }
    }
}
