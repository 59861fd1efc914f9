// SPDX-License-Identifier: GPL-2.0

//! A disk of 4 KiB blocks with a volatile cache.
//!
//! A block of data is a number (a tag), a block of metadata its bytes, shared between copies of the
//! disk. What was written and not flushed is remembered, version by version: a power failure keeps
//! any of them.

use drbd_core::meta::superblock::{MAGIC_08, MAGIC_84_UNCLEAN};
use drbd_core::meta::Superblock;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Sectors of a block.
pub const SECTORS: u64 = 8;

/// The bytes of a block of metadata, with their hash.
#[derive(Debug)]
pub struct Page {
    bytes: [u8; 4096],
    hash: u64,
    superblock: Option<Superblock>,
}

/// Contents of a block.
#[derive(Clone, Debug)]
pub enum Content {
    /// Data: what was written.
    Tag(u64),
    /// Metadata.
    Page(Arc<Page>),
}

impl Content {
    /// Metadata.
    pub fn page(bytes: &[u8; 4096]) -> Content {
        let mut hasher = crate::key::Key::new();
        hasher.raw(bytes);
        let superblock = Superblock::decode(bytes);
        let known = superblock.magic == MAGIC_08 || superblock.magic == MAGIC_84_UNCLEAN;
        Content::Page(Arc::new(Page {
            bytes: *bytes,
            hash: hasher.finish(),
            superblock: known.then_some(superblock),
        }))
    }

    /// What an application reads; old metadata are no data.
    pub fn tag(&self) -> u64 {
        match self {
            Content::Tag(tag) => *tag,
            Content::Page(page) => page.hash | 1 << 63,
        }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::Tag(a), Content::Tag(b)) => a == b,
            (Content::Page(a), Content::Page(b)) => a.hash == b.hash,
            (Content::Tag(_), Content::Page(_)) | (Content::Page(_), Content::Tag(_)) => false,
        }
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Content::Tag(tag) => tag.hash(state),
            // Its UUIDs may be given other names.
            Content::Page(page) => match &page.superblock {
                Some(superblock) => superblock.hash(state),
                None => (page.hash as u32, (page.hash >> 32) as u32).hash(state),
            },
        }
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    blocks: u64,
    now: BTreeMap<u64, Content>,
    /// The durable version, then all newer ones.
    cache: BTreeMap<u64, Vec<Content>>,
}

impl Disk {
    /// A device of so many blocks, all zero.
    pub fn new(blocks: u64) -> Disk {
        Disk {
            blocks,
            now: BTreeMap::new(),
            cache: BTreeMap::new(),
        }
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.blocks * SECTORS
    }

    /// Makes it larger or smaller; what lies behind the end is gone.
    pub fn resize(&mut self, blocks: u64) {
        self.blocks = blocks;
        self.now.retain(|at, _| *at < blocks);
        self.cache.retain(|at, _| *at < blocks);
    }

    /// A block.
    pub fn read(&self, block: u64) -> Content {
        assert!(block < self.blocks, "a read behind the end");
        self.now.get(&block).cloned().unwrap_or(Content::Tag(0))
    }

    /// The bytes of a block of metadata; zeroes for anything else.
    pub fn bytes(&self, block: u64) -> [u8; 4096] {
        match self.read(block) {
            Content::Page(page) => page.bytes,
            Content::Tag(_) => [0; 4096],
        }
    }

    /// Writes a block; `durable`: past the cache.
    pub fn write(&mut self, block: u64, new: Content, durable: bool) {
        let old = self.read(block);
        if durable {
            self.cache.remove(&block);
        } else {
            self.cache
                .entry(block)
                .or_insert_with(|| vec![old])
                .push(new.clone());
        }
        self.now.insert(block, new);
    }

    /// Makes all that was written durable.
    pub fn flush(&mut self) {
        self.cache.clear();
    }

    /// The power fails. `pick` chooses one of so many versions of each block in the cache, the
    /// oldest being 0.
    pub fn power_fails(&mut self, mut pick: impl FnMut(usize) -> usize) {
        self.power_fails_at(|_, versions| pick(versions));
    }

    /// The same; `pick` is told the number of the block, too.
    pub fn power_fails_at(&mut self, mut pick: impl FnMut(u64, usize) -> usize) {
        for (block, versions) in std::mem::take(&mut self.cache) {
            let kept = versions[pick(block, versions.len())].clone();
            self.now.insert(block, kept);
        }
    }

    /// Blocks in the cache.
    pub fn dirty(&self) -> usize {
        self.cache.len()
    }
}

impl Hash for Disk {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blocks.hash(state);
        self.now.hash(state);
        self.cache.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_failure_keeps_any_version_since_the_flush() {
        let mut d = Disk::new(4);
        d.write(1, Content::Tag(1), false);
        d.flush();
        d.write(1, Content::Tag(2), false);
        d.write(1, Content::Tag(3), false);
        d.write(2, Content::Tag(4), true);
        for (pick, found) in [(0, 1), (1, 2), (2, 3)] {
            let mut d = d.clone();
            d.power_fails(|n| {
                assert_eq!(n, 3);
                pick
            });
            assert_eq!((d.read(1).tag(), d.read(2).tag()), (found, 4));
        }
    }
}
