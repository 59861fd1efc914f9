// SPDX-License-Identifier: GPL-2.0
//! A disk with a volatile write cache, as real ones have: a power cut loses what was not flushed.
//!
//! Writes land in memory; a flush (or a write with FUA) puts them into the image file. The node
//! always reads its newest data. [`Disk::power_cut`] keeps, for every block, one of the versions
//! written since the last flush or the flushed one, picked by the seed: any order in which a
//! real disk may have destaged its cache.
//!
//! Blocks of 4 KiB are atomic, as DRBD expects of its metadata blocks. It is not a model of media
//! faults beyond [`Disk::fail`].

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::rng::Rng;

/// Bytes per block of the cache.
pub const BLOCK: usize = 4096;
/// Versions kept per block; older ones are forgotten, which only makes fewer outcomes possible.
const VERSIONS: usize = 4;

/// Which requests the disk refuses with an I/O error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures {
    /// Reads fail.
    pub reads: bool,
    /// Writes, discards and flushes fail.
    pub writes: bool,
}

/// Counters of what the node asked for since the disk was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes read.
    pub read: u64,
    /// Bytes written, discards not counted.
    pub written: u64,
    /// Flushes, including the one that a FUA write implies for itself.
    pub flushes: u64,
}

type Version = Box<[u8; BLOCK]>;

#[derive(Debug)]
struct State {
    /// Block number to the versions written since the last flush, oldest first, never empty.
    cache: BTreeMap<u64, Vec<Version>>,
    failures: Failures,
    delay: Duration,
    flush_delay: Duration,
    /// Nothing becomes stable any more.
    off: bool,
    stats: Stats,
    /// Connections that still serve requests.
    users: usize,
}

/// One disk; shared by the server that QEMU talks to and the test that tortures it.
#[derive(Debug)]
pub struct Disk {
    image: File,
    size: u64,
    state: Mutex<State>,
    idle: Condvar,
}

impl Disk {
    /// A new disk of `size` bytes (a multiple of 4 KiB) full of zeroes, its image at `path`.
    ///
    /// # Errors
    /// Those of creating the file.
    pub fn create(path: &Path, size: u64) -> Result<Self> {
        let image = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .context(path.display())?;
        image.set_len(size)?;
        let state = State {
            cache: BTreeMap::new(),
            failures: Failures::default(),
            delay: Duration::ZERO,
            flush_delay: Duration::ZERO,
            off: false,
            stats: Stats::default(),
            users: 0,
        };
        Ok(Self {
            image,
            size,
            state: Mutex::new(state),
            idle: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another test thread must not hide its own message behind ours.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// From now on refuses what `f` says.
    pub fn fail(&self, f: Failures) {
        self.lock().failures = f;
    }

    /// From now on takes at least `d` for every request.
    pub fn slow_down(&self, d: Duration) {
        self.lock().delay = d;
    }

    /// From now on takes at least `d` more for every flush, during which nothing is stable yet.
    pub fn slow_flushes(&self, d: Duration) {
        self.lock().flush_delay = d;
    }

    /// What was asked of the disk so far.
    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Number of blocks that a power cut may lose now.
    pub fn unflushed(&self) -> usize {
        self.lock().cache.len()
    }

    fn gate(&self, write: bool) -> Result<()> {
        let (failures, delay) = {
            let s = self.lock();
            (s.failures, s.delay)
        };
        std::thread::sleep(delay);
        if (write && failures.writes) || (!write && failures.reads) {
            return Err(Error::new("injected failure"));
        }
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let end = u64::try_from(len).ok().and_then(|l| offset.checked_add(l));
        match end {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(format!(
                "request beyond the end: {offset}+{len}"
            ))),
        }
    }

    /// Reads the newest data into `buf`.
    ///
    /// # Errors
    /// Beyond the end, injected failures, those of the image file.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.gate(false)?;
        self.check(offset, buf.len())?;
        let mut s = self.lock();
        s.stats.read += buf.len() as u64;
        self.image.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        let (first, last) = (offset / BLOCK as u64, end.div_ceil(BLOCK as u64));
        for (block, versions) in s.cache.range(first..last) {
            let Some(newest) = versions.last() else {
                continue;
            };
            let at = block * BLOCK as u64;
            let (from, to) = (at.max(offset), (at + BLOCK as u64).min(end));
            let part = &newest[(from - at) as usize..(to - at) as usize];
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
        }
        Ok(())
    }

    /// Writes to the cache, or with `fua` to stable storage.
    ///
    /// # Errors
    /// Beyond the end, injected failures, those of the image file.
    pub fn write(&self, offset: u64, data: &[u8], fua: bool) -> Result<()> {
        self.gate(true)?;
        self.check(offset, data.len())?;
        let mut s = self.lock();
        s.stats.written += data.len() as u64;
        self.put(&mut s, offset, data)?;
        if fua {
            s.stats.flushes += 1;
            let first = offset / BLOCK as u64;
            let last = (offset + data.len() as u64).div_ceil(BLOCK as u64);
            let blocks: Vec<u64> = s.cache.range(first..last).map(|(b, _)| *b).collect();
            for block in blocks {
                if let Some(v) = s.cache.remove(&block).and_then(|mut v| v.pop()) {
                    self.image
                        .write_all_at(v.as_slice(), block * BLOCK as u64)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a range read as zeroes (discard and write-zeroes alike), through the cache.
    ///
    /// # Errors
    /// As [`Disk::write`].
    pub fn zero(&self, offset: u64, len: u64, fua: bool) -> Result<()> {
        self.gate(true)?;
        let zeroes = vec![0_u8; 1 << 20];
        let mut at = offset;
        let mut left = len;
        while left > 0 {
            let n = left.min(zeroes.len() as u64) as usize;
            self.check(at, n)?;
            self.put(&mut self.lock(), at, &zeroes[..n])?;
            at += n as u64;
            left -= n as u64;
        }
        if fua {
            self.flush()?;
        }
        Ok(())
    }

    /// Puts `data` into the cache block by block.
    fn put(&self, s: &mut State, offset: u64, data: &[u8]) -> Result<()> {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let block = at / BLOCK as u64;
            let inside = (at % BLOCK as u64) as usize;
            let n = rest.len().min(BLOCK - inside);
            let (now, later) = rest.split_at(n);
            let versions = s.cache.entry(block).or_default();
            let mut page: Version = match versions.last() {
                Some(newest) => newest.clone(),
                None => {
                    let mut page = Box::new([0; BLOCK]);
                    self.image
                        .read_exact_at(page.as_mut_slice(), block * BLOCK as u64)?;
                    page
                }
            };
            page[inside..inside + n].copy_from_slice(now);
            if versions.len() == VERSIONS {
                versions.remove(0);
            }
            versions.push(page);
            at += n as u64;
            rest = later;
        }
        Ok(())
    }

    /// Makes everything written so far stable.
    ///
    /// # Errors
    /// Injected failures, those of the image file.
    pub fn flush(&self) -> Result<()> {
        self.gate(true)?;
        let delay = self.lock().flush_delay;
        std::thread::sleep(delay);
        let mut s = self.lock();
        if s.off {
            return Err(Error::new("no power"));
        }
        s.stats.flushes += 1;
        for (block, mut versions) in std::mem::take(&mut s.cache) {
            if let Some(v) = versions.pop() {
                self.image
                    .write_all_at(v.as_slice(), block * BLOCK as u64)?;
            }
        }
        Ok(())
    }

    /// The power goes: a flush that has not ended does nothing. [`Disk::power_cut`] follows.
    pub fn power_off(&self) {
        self.lock().off = true;
    }

    /// Cuts the power: of every unflushed block some version survives, picked by `rng`.
    /// Returns how many blocks did not keep their newest version.
    ///
    /// # Errors
    /// Those of the image file.
    pub fn power_cut(&self, rng: &mut Rng) -> Result<usize> {
        let mut s = self.lock();
        s.off = false;
        let mut lost = 0;
        for (block, versions) in std::mem::take(&mut s.cache) {
            let kept = rng.below(versions.len() as u64 + 1) as usize;
            if kept < versions.len() {
                lost += 1;
            }
            if let Some(v) = kept.checked_sub(1).and_then(|k| versions.get(k)) {
                self.image
                    .write_all_at(v.as_slice(), block * BLOCK as u64)?;
            }
        }
        Ok(lost)
    }

    /// One block as the node would read it now, without counting or failing.
    ///
    /// # Errors
    /// Those of the image file.
    pub fn peek(&self, block: u64) -> Result<Box<[u8; BLOCK]>> {
        let s = self.lock();
        if let Some(v) = s.cache.get(&block).and_then(|v| v.last()) {
            return Ok(v.clone());
        }
        let mut page = Box::new([0; BLOCK]);
        self.image
            .read_exact_at(page.as_mut_slice(), block * BLOCK as u64)?;
        Ok(page)
    }

    /// The first block at which two disks differ below `bytes`, if any.
    ///
    /// # Errors
    /// Those of the image files.
    pub fn first_difference(&self, other: &Disk, bytes: u64) -> Result<Option<u64>> {
        for block in 0..bytes / BLOCK as u64 {
            if self.peek(block)? != other.peek(block)? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Called by a server when a connection starts (`true`) and when it is gone (`false`).
    pub fn in_use(&self, starts: bool) {
        let mut s = self.lock();
        s.users = if starts {
            s.users + 1
        } else {
            s.users.saturating_sub(1)
        };
        self.idle.notify_all();
    }

    /// Waits until no connection serves requests any more.
    ///
    /// # Errors
    /// When that takes more than ten seconds.
    pub fn wait_idle(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        let mut s = self.lock();
        while s.users > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new("a disk is still in use"));
            }
            s = match self.idle.wait_timeout(s, left) {
                Ok((s, _)) => s,
                Err(e) => e.into_inner().0,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str) -> Disk {
        let path = std::env::temp_dir().join(format!("drbd-lab-{}-{name}", std::process::id()));
        let d = Disk::create(&path, 1 << 20).unwrap();
        std::fs::remove_file(path).unwrap();
        d
    }

    fn byte(d: &Disk, at: u64) -> u8 {
        let mut b = [0];
        d.read(at, &mut b).unwrap();
        b[0]
    }

    #[test]
    fn reads_see_the_newest_and_flushed_data_survives() {
        let d = disk("newest");
        d.write(100, &[1; 5000], false).unwrap();
        d.flush().unwrap();
        d.write(4000, &[2; 200], false).unwrap();
        assert_eq!((byte(&d, 99), byte(&d, 100), byte(&d, 4100)), (0, 1, 2));
        assert_eq!((byte(&d, 4200), byte(&d, 5099), byte(&d, 5100)), (1, 1, 0));
        for seed in 0..20 {
            d.power_cut(&mut Rng::new(seed)).unwrap();
            assert_eq!((byte(&d, 100), byte(&d, 5099)), (1, 1));
            assert!(matches!(byte(&d, 4000), 1 | 2));
        }
    }

    #[test]
    fn a_power_cut_leaves_any_version_and_fua_all() {
        let mut seen = [false; 4];
        for seed in 0..100 {
            let d = disk("versions");
            for v in 1..=3 {
                d.write(8192, &[v; 4096], false).unwrap();
            }
            d.write(0, &[9; 512], true).unwrap();
            d.power_cut(&mut Rng::new(seed)).unwrap();
            assert_eq!(byte(&d, 0), 9);
            seen[usize::from(byte(&d, 8192))] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn a_flush_that_the_power_cut_ends_does_nothing() {
        let d = disk("flush");
        d.write(0, &[1; 4096], false).unwrap();
        d.power_off();
        assert!(d.flush().is_err());
        assert_eq!(d.unflushed(), 1);
        d.power_cut(&mut Rng::new(1)).unwrap();
        d.flush().unwrap();
    }

    #[test]
    fn the_end_and_failures_are_errors() {
        let d = disk("end");
        assert!(d.write((1 << 20) - 1, &[0; 2], false).is_err());
        assert!(d.read(u64::MAX, &mut [0; 2]).is_err());
        d.fail(Failures {
            reads: false,
            writes: true,
        });
        assert!(d.write(0, &[0; 2], false).is_err());
        assert!(d.read(0, &mut [0; 2]).is_ok());
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let (a, b) = (disk("a"), disk("b"));
        assert_eq!(a.first_difference(&b, 1 << 20).unwrap(), None);
        b.write(12288, &[1], false).unwrap();
        assert_eq!(a.first_difference(&b, 1 << 20).unwrap(), Some(3));
        assert_eq!(a.first_difference(&b, 12288).unwrap(), None);
    }
}
