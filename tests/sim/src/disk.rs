// SPDX-License-Identifier: GPL-2.0

//! A backing device with a volatile write cache.
//!
//! Data sectors hold a 64-bit tag instead of 512 bytes, so that a full sync costs nothing; the
//! tail, where internal metadata lie, holds real bytes. Each sector remembers what was written to
//! it since the last flush; a power failure keeps, sector by sector, any one of these versions or
//! the durable one. So writes are lost, reordered and torn at 512 bytes, as on real disks.

use crate::rng::Rng;
use drbd_core::units::{Sector, SectorRange, Sectors};
use std::collections::BTreeMap;

/// Contents of one sector.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    Tag(u64),
    Bytes(Box<[u8; 512]>),
}

/// The device.
#[derive(Clone)]
pub struct Disk {
    /// What reads see, data part.
    tags: Vec<u64>,
    /// What reads see, metadata part.
    bytes: Vec<u8>,
    /// For each sector written since the last flush: the durable version, then all newer ones.
    cache: BTreeMap<u64, Vec<Content>>,
}

impl Disk {
    /// A device of `size` sectors, of which those from `first_byte` on hold bytes.
    pub fn new(size: Sectors, first_byte: Sector) -> Disk {
        let bytes = (size.0 - first_byte.0) as usize * 512;
        Disk {
            tags: vec![0; first_byte.0 as usize],
            bytes: vec![0; bytes],
            cache: BTreeMap::new(),
        }
    }

    /// Size of the device.
    pub fn size(&self) -> Sectors {
        Sectors((self.tags.len() + self.bytes.len() / 512) as u64)
    }

    /// Tags of data sectors.
    pub fn read(&self, range: SectorRange) -> Vec<u64> {
        let from = range.start.0 as usize;
        self.tags[from..from + range.len.0 as usize].to_vec()
    }

    /// Bytes of the metadata part.
    pub fn read_bytes(&self, sector: Sector, len: usize) -> Vec<u8> {
        let from = (sector.0 as usize - self.tags.len()) * 512;
        self.bytes[from..from + len].to_vec()
    }

    fn content(&self, sector: u64) -> Content {
        match self.tags.get(sector as usize) {
            Some(tag) => Content::Tag(*tag),
            None => {
                let at = (sector as usize - self.tags.len()) * 512;
                let mut bytes = Box::new([0; 512]);
                bytes.copy_from_slice(&self.bytes[at..at + 512]);
                Content::Bytes(bytes)
            }
        }
    }

    fn set(&mut self, sector: u64, new: Content) {
        match new {
            Content::Tag(tag) => self.tags[sector as usize] = tag,
            Content::Bytes(bytes) => {
                let at = (sector as usize - self.tags.len()) * 512;
                self.bytes[at..at + 512].copy_from_slice(&bytes[..]);
            }
        }
    }

    fn write_sector(&mut self, sector: u64, new: Content, fua: bool) {
        if fua {
            self.cache.remove(&sector);
        } else {
            let old = self.content(sector);
            let versions = self.cache.entry(sector).or_insert_with(|| vec![old]);
            versions.push(new.clone());
        }
        self.set(sector, new);
    }

    /// Writes data.
    pub fn write(&mut self, start: Sector, tags: &[u64], fua: bool) {
        for (at, tag) in (start.0..).zip(tags) {
            self.write_sector(at, Content::Tag(*tag), fua);
        }
    }

    /// Writes metadata.
    pub fn write_bytes(&mut self, start: Sector, bytes: &[u8], fua: bool) {
        for (at, chunk) in (start.0..).zip(bytes.chunks(512)) {
            let mut sector = Box::new([0; 512]);
            sector[..chunk.len()].copy_from_slice(chunk);
            self.write_sector(at, Content::Bytes(sector), fua);
        }
    }

    /// Makes everything durable that was written before.
    pub fn flush(&mut self) {
        self.cache.clear();
    }

    /// The power fails: each sector keeps some version that was written since it was durable.
    pub fn power_fails(&mut self, rng: &mut Rng) {
        let keep_all = rng.percent(20);
        for (sector, versions) in std::mem::take(&mut self.cache) {
            let pick = match keep_all {
                true => versions.len() - 1,
                false => rng.below(versions.len() as u64) as usize,
            };
            self.set(sector, versions[pick].clone());
        }
    }

    /// All data tags in front of the metadata.
    pub fn data(&self, size: Sectors) -> &[u64] {
        &self.tags[..size.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushed_writes_survive_and_others_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut d = Disk::new(Sectors(16), Sector(8));
            d.write(Sector(0), &[1, 2], false);
            d.flush();
            d.write(Sector(1), &[3], false);
            d.write(Sector(2), &[4], true);
            d.power_fails(&mut Rng::new(seed));
            let now = d.read(SectorRange::new(Sector(0), 1536));
            assert_eq!((now[0], now[2]), (1, 4));
            assert!(now[1] == 2 || now[1] == 3);
            lost += u32::from(now[1] == 2);
        }
        assert!(lost > 5 && lost < 45);
    }
}
