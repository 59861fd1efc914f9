// SPDX-License-Identifier: GPL-2.0

//! Whether two disks hold the same, as far as that is promised.

use super::{Truth, World};
use crate::world::VOL;
use drbd_core::state::conn::State as Conn;
use drbd_core::units::{BmBit, Sector, SectorRange};

impl Truth {
    /// Two Primaries: a write is under way here that the arbiter has taken for the later one. What
    /// the other node wrote at the same time is over as soon as it hears so; it stands on that
    /// one's disk only, until the winner has reached both.
    fn has_won(&self, sector: u64, found: [(usize, u64); 2]) -> bool {
        let covers = |o: &super::Open| o.range.start.0 <= sector && sector < o.range.end().0;
        let mut winners = self.open.iter().filter(|o| covers(o));
        winners.any(|o| found.iter().any(|(n, v)| *n != o.node && o.is_rival(*v)))
    }
}

impl World {
    /// Both disks are equal outside of what is on its way.
    pub(crate) fn check_equal(&mut self, node: usize, oracle: &str) {
        let peer = self.peer_of(node);
        let size = self.common_size();
        if self.data(node, size) == self.data(peer, size) {
            return;
        }
        let moving = self.on_the_way();
        let found = self
            .data(node, size)
            .iter()
            .zip(self.data(peer, size))
            .enumerate();
        let wrong = found
            .filter(|(at, (a, b))| a != b && !self.truth.is_odd(*at as u32))
            .filter(|(at, (a, b))| !self.is_unwritten(*at, [**a, **b]))
            .filter(|(at, _)| !self.is_ahead(peer, *at as u64))
            .filter(|(at, _)| !self.failed_at_source(peer, *at as u64))
            .filter(|(at, _)| !self.has_left(peer, node, *at as u64))
            .filter(|(at, (a, b))| !self.truth.has_won(*at as u64, [(node, **a), (peer, **b)]))
            // Writes that overlap may be sent in another order than they were made.
            .find(|(_, (a, b))| !moving.contains(**a) && !moving.contains(**b))
            .map(|(at, (a, b))| (at, *a, *b));
        if let Some((at, a, b)) = wrong {
            let bit = BmBit(at as u64 / 8);
            let bits = [node, peer].map(|n| self.is_dirty(n, bit));
            let why = format!("n{node} sector {at}: {a:#x}, n{peer}: {b:#x}, dirty {bits:?}");
            self.violated(oracle, &why);
        }
    }

    /// A source that pulled ahead has said so, and has marked what it keeps to itself: a target
    /// that ends its resync before it hears that is as good as its promise, protocol A.
    fn is_ahead(&self, node: usize, sector: u64) -> bool {
        let bit = BmBit(sector / 8);
        self.nodes[node].state.conn == Conn::Ahead && self.is_dirty(node, bit) == Some(true)
    }

    /// A node that was the other one's peer a moment ago goes on alone, and has marked what it
    /// wrote since; one that is down may have written.
    fn has_left(&self, node: usize, other: usize, sector: u64) -> bool {
        let apart = self.nodes[node].link() != self.nodes[other].link();
        apart && self.is_dirty(node, BmBit(sector / 8)) != Some(false)
    }

    /// A write failed on the disk of a source of a resync: its application was told, and the source
    /// has the block marked, or will when the epoch of the write is over. When its target is done,
    /// this node is Inconsistent.
    fn failed_at_source(&self, node: usize, sector: u64) -> bool {
        let n = &self.nodes[node];
        let source = matches!(n.state.conn, Conn::SyncSource | Conn::PausedSyncS);
        let range = SectorRange::new(Sector(sector), 512);
        let under_way = || n.res.as_ref().is_some_and(|r| r.is_under_way(VOL, range));
        let marked = || self.is_dirty(node, BmBit(sector / 8)) == Some(true);
        n.write_failed && source && (marked() || under_way())
    }

    /// The books of a disk that became the peer's copy say what it has in place of a write of the
    /// peer that has lost, see [`Truth::has_won`].
    pub(super) fn not_overwritten(&mut self, node: usize, data: &[u64]) {
        let peer = self.peer_of(node);
        let theirs = self.data(peer, self.common_size()).to_vec();
        for (sector, (a, b)) in (0u32..).zip(data.iter().zip(&theirs)) {
            let found = [(node, *a), (peer, *b)];
            if a != b && self.truth.has_won(u64::from(sector), found) {
                self.truth.debts[node].add(sector, *a);
            }
        }
    }
}
