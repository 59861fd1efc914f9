// SPDX-License-Identifier: GPL-2.0

//! Which values a block may have, after what applications were told.
//!
//! A write that was acknowledged is there; one that was not may be there or not, until a read or
//! an agreement of both nodes shows which.

use std::collections::BTreeMap;

/// What is known of the blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Oracle {
    may: BTreeMap<u64, Vec<u64>>,
}

impl Oracle {
    /// A write is under way.
    pub fn submitted(&mut self, block: u64, tag: u64) {
        self.may.entry(block).or_insert_with(|| vec![0]).push(tag);
    }

    /// It was acknowledged: nothing older may be found any more.
    pub fn acknowledged(&mut self, block: u64, tag: u64) {
        if let Some(values) = self.may.get_mut(&block) {
            if let Some(at) = values.iter().position(|v| *v == tag) {
                values.drain(..at);
            }
        }
    }

    /// Whether the value may be there.
    pub fn permits(&self, block: u64, tag: u64) -> bool {
        match self.may.get(&block) {
            Some(values) => values.contains(&tag),
            None => true,
        }
    }

    /// The value was read: it stays.
    pub fn settled(&mut self, block: u64, tag: u64) {
        if let Some(values) = self.may.get_mut(&block) {
            *values = vec![tag];
        }
    }

    /// The blocks that were ever written.
    pub fn written(&self) -> impl Iterator<Item = u64> + '_ {
        self.may.keys().copied()
    }

    /// What may be found in a block.
    pub fn values(&self, block: u64) -> &[u64] {
        self.may.get(&block).map_or(&[], Vec::as_slice)
    }
}
