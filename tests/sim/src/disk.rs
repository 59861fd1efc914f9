// SPDX-License-Identifier: GPL-2.0

//! A backing device with a volatile write cache.
//!
//! Data sectors hold a 64-bit tag instead of 512 bytes, so that a full sync costs nothing; the
//! tail, where internal metadata lie, holds real bytes. What was written since the last flush is
//! remembered; a power failure keeps, sector by sector, any one of these versions or the durable
//! one. So writes are lost, reordered and torn at 512 bytes, as on real disks. A device without a
//! volatile cache loses nothing that it has reported.
//!
//! A device that grew has tags to its new end, and bytes from where its metadata first began: both
//! side by side, as only the machine knows when a sector stops being the one and becomes the other.

use crate::rng::Rng;
use drbd_core::units::{Sector, SectorRange, Sectors};

/// A version of a sector that the power may bring back or take away.
#[derive(Clone, Debug)]
struct Version<T> {
    sector: u32,
    /// What it says; `durable` marks one that survives (older ones are gone then).
    value: T,
    durable: bool,
}

type Bytes = Box<[u8; 512]>;

/// The device.
#[derive(Clone)]
pub struct Disk {
    /// What reads see, data part.
    tags: Vec<u64>,
    /// What reads see, metadata part.
    bytes: Vec<u8>,
    /// Where that begins.
    first_byte: usize,
    /// Sectors when `drbdmeta` found metadata last: what it remembers, as in its `lk_bdev`. It does
    /// not hear of metadata that a kernel has moved.
    pub known: Sectors,
    /// Sectors of a device that ends behind the superblock that was written last.
    pub there: Sectors,
    /// All sizes that it had.
    pub sizes: Vec<Sectors>,
    /// Versions since the last flush in the order of writing; the first one of each sector is
    /// preceded by the durable one.
    data_log: Vec<Version<u64>>,
    meta_log: Vec<Version<Bytes>>,
    /// Data sectors that stand in the log.
    logged: Vec<u64>,
    /// Whether there is a cache that forgets.
    pub volatile: bool,
    /// Whether metadata have a device of their own, so that a flush of the one part leaves the
    /// cache of the other as it is.
    pub apart: bool,
}

impl Disk {
    /// A device of `size` sectors, of which those from `first_byte` on hold bytes.
    pub fn new(size: Sectors, first_byte: Sector) -> Disk {
        let bytes = (size.0 - first_byte.0) as usize * 512;
        Disk {
            tags: vec![0; first_byte.0 as usize],
            bytes: vec![0; bytes],
            first_byte: first_byte.0 as usize,
            known: size,
            there: size,
            sizes: vec![size],
            data_log: Vec::new(),
            meta_log: Vec::new(),
            logged: vec![0; (first_byte.0 as usize).div_ceil(64)],
            volatile: true,
            apart: false,
        }
    }

    /// Size of the device.
    pub fn size(&self) -> Sectors {
        Sectors((self.first_byte + self.bytes.len() / 512) as u64)
    }

    /// The device becomes larger by so many sectors. What lies there, and where the metadata are,
    /// holds rubbish for applications: `rubbish` and what follows.
    pub fn grow(&mut self, by: u64, rubbish: u64) {
        let size = self.size().0 + by;
        let from = self.tags.len() as u64;
        self.tags.extend((from..size).map(|at| rubbish + at));
        self.bytes
            .resize((size as usize - self.first_byte) * 512, 0);
        self.logged.resize((size as usize).div_ceil(64), 0);
        self.sizes.push(Sectors(size));
    }

    /// Tags of data sectors.
    pub fn read(&self, range: SectorRange) -> Vec<u64> {
        let from = range.start.0 as usize;
        self.tags[from..from + range.len.0 as usize].to_vec()
    }

    /// Bytes of the metadata part.
    pub fn read_bytes(&self, sector: Sector, len: usize) -> &[u8] {
        let from = (sector.0 as usize - self.first_byte) * 512;
        &self.bytes[from..from + len]
    }

    /// Writes data.
    pub fn write(&mut self, start: Sector, tags: &[u64], fua: bool) {
        let from = start.0 as usize;
        for (at, tag) in (from..).zip(tags) {
            let (word, bit) = (at / 64, 1u64 << (at % 64));
            let known = self.logged[word] & bit != 0;
            if self.volatile && (known || !fua) {
                let sector = at as u32;
                if !known {
                    self.logged[word] |= bit;
                    let value = self.tags[at];
                    self.data_log.push(Version {
                        sector,
                        value,
                        durable: true,
                    });
                }
                self.data_log.push(Version {
                    sector,
                    value: *tag,
                    durable: fua,
                });
            }
            self.tags[at] = *tag;
        }
    }

    /// Writes metadata.
    pub fn write_bytes(&mut self, start: Sector, bytes: &[u8], fua: bool) {
        for (at, chunk) in (start.0 as usize..).zip(bytes.chunks(512)) {
            let from = (at - self.first_byte) * 512;
            let place = &mut self.bytes[from..from + chunk.len()];
            if self.volatile {
                let known = self.meta_log.iter().any(|v| v.sector == at as u32);
                if !known && !fua {
                    let mut old = Box::new([0; 512]);
                    old[..chunk.len()].copy_from_slice(place);
                    let sector = at as u32;
                    self.meta_log.push(Version {
                        sector,
                        value: old,
                        durable: true,
                    });
                }
                if known || !fua {
                    let mut new = Box::new([0; 512]);
                    new[..chunk.len()].copy_from_slice(chunk);
                    let sector = at as u32;
                    self.meta_log.push(Version {
                        sector,
                        value: new,
                        durable: fua,
                    });
                }
            }
            place.copy_from_slice(chunk);
        }
    }

    /// Makes everything durable that was written before.
    pub fn flush(&mut self) {
        for v in self.data_log.drain(..) {
            self.logged[v.sector as usize / 64] = 0;
        }
        self.meta_log.clear();
    }

    /// A flush of the device with the data.
    pub fn flush_data(&mut self) {
        let meta = std::mem::take(&mut self.meta_log);
        self.flush();
        if self.apart {
            self.meta_log = meta;
        }
    }

    /// A flush of the device with the metadata.
    pub fn flush_meta(&mut self) {
        if self.apart {
            self.meta_log.clear();
        } else {
            self.flush();
        }
    }

    /// The power fails: each sector keeps some version that was written since it was durable.
    /// Returns the data sectors that changed by that.
    pub fn power_fails(&mut self, rng: &mut Rng) -> Vec<u32> {
        let keep_all = rng.percent(20);
        let mut lost = Vec::new();
        for (sector, value) in survivors(&mut self.data_log, keep_all, rng) {
            self.logged[sector as usize / 64] = 0;
            let place = &mut self.tags[sector as usize];
            if *place != value {
                *place = value;
                lost.push(sector);
            }
        }
        for (sector, value) in survivors(&mut self.meta_log, keep_all, rng) {
            let from = (sector as usize - self.first_byte) * 512;
            self.bytes[from..from + 512].copy_from_slice(&value[..]);
        }
        lost
    }

    /// Sectors that hold data, or may do so some day.
    pub fn data_sectors(&self) -> usize {
        self.tags.len()
    }

    /// All data tags in front of the metadata.
    pub fn data(&self, size: Sectors) -> &[u64] {
        &self.tags[..size.0 as usize]
    }
}

/// One version for each sector in the log.
fn survivors<T>(log: &mut Vec<Version<T>>, keep_all: bool, rng: &mut Rng) -> Vec<(u32, T)> {
    let mut log = std::mem::take(log);
    // Stable: the versions of a sector stay in their order.
    log.sort_by_key(|v| v.sector);
    let mut out: Vec<(u32, T)> = Vec::new();
    let mut seen = 0;
    for v in log {
        let same = out.last().is_some_and(|(sector, _)| *sector == v.sector);
        if !same {
            seen = 1;
            out.push((v.sector, v.value));
            continue;
        }
        seen = if v.durable { 1 } else { seen + 1 };
        if keep_all || v.durable || rng.below(seen) == 0 {
            out.pop();
            out.push((v.sector, v.value));
        }
    }
    out
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
            d.apart = seed % 2 == 0;
            d.flush_data();
            d.write(Sector(1), &[3], false);
            d.write(Sector(2), &[4], true);
            d.write(Sector(3), &[5], false);
            d.write(Sector(3), &[6], true);
            if d.apart {
                d.flush_meta();
            }
            d.power_fails(&mut Rng::new(seed));
            let now = d.read(SectorRange::new(Sector(0), 2048));
            assert_eq!((now[0], now[2], now[3]), (1, 4, 6));
            assert!(now[1] == 2 || now[1] == 3);
            lost += u32::from(now[1] == 2);
        }
        assert!(lost > 5 && lost < 45);
    }
}
