// SPDX-License-Identifier: GPL-2.0
//! Writes whose acknowledgements reach the host, to prove that none is ever lost.
//!
//! A job covers `blocks` blocks of 4 KiB from `start`, shared out among `threads` writers. Each
//! writer rewrites random blocks of its own share with O_DIRECT and, if asked, O_SYNC; every block
//! carries its number, a sequence number that only grows, and a pattern made of both. After the
//! write returned, and only then, the pair (block, sequence) is sent to the host. Later each
//! block must hold a whole pattern whose sequence is at least the last one acknowledged.
//!
//! A block that holds more than was acknowledged is right (the acknowledgement was cut off), a
//! mixture of two patterns or an older one is not.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::error::{Context, Error, Result};
use crate::rng::Rng;

/// Bytes per block.
pub const BLOCK: usize = 4096;
const MAGIC: u64 = 0x6472_6264_6c61_6231;

/// What to write, and how. Text form (`key=value` words) is the payload of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The device.
    pub path: String,
    /// First block.
    pub start: u64,
    /// Number of blocks, at least 1.
    pub blocks: u64,
    /// Writers at a time, each with its own share of the blocks; at least 1.
    pub threads: u64,
    /// Writes per writer; `u64::MAX` for until killed.
    pub count: u64,
    /// Whether each write also asks for durability (O_SYNC).
    pub sync: bool,
    /// The seed of the order.
    pub seed: u64,
    /// The first sequence number.
    pub first_seq: u64,
}

impl Job {
    /// A job on `path` over the first `blocks` blocks until it is killed: four writers, O_SYNC.
    pub fn endless(path: &str, blocks: u64, seed: u64) -> Self {
        Self {
            path: path.into(),
            start: 0,
            blocks,
            threads: 4,
            count: u64::MAX,
            sync: true,
            seed,
            first_seq: 1,
        }
    }

    /// The text form.
    pub fn encode(&self) -> String {
        format!(
            "{} {} {} {} {} {} {} {}",
            self.path,
            self.start,
            self.blocks,
            self.threads,
            self.count,
            u8::from(self.sync),
            self.seed,
            self.first_seq
        )
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Anything that [`Job::encode`] would not write.
    pub fn decode(text: &str) -> Result<Self> {
        let mut words = text.split(' ');
        let path = words.next().unwrap_or_default().to_owned();
        let mut number = || -> Result<u64> {
            let word = words.next().ok_or_else(|| Error::new("job too short"))?;
            word.parse().map_err(|_| Error::new("bad number in job"))
        };
        Ok(Self {
            path,
            start: number()?,
            blocks: number()?.max(1),
            threads: number()?.max(1),
            count: number()?,
            sync: number()? != 0,
            seed: number()?,
            first_seq: number()?,
        })
    }
}

/// Memory that O_DIRECT accepts.
#[repr(align(4096))]
struct Page([u8; BLOCK]);

/// Fills `page` with the pattern of (`block`, `seq`).
fn fill(page: &mut [u8; BLOCK], block: u64, seq: u64) {
    let mut rng = Rng::new(block.wrapping_mul(0x1_0000_01b3) ^ seq);
    for (i, word) in page.chunks_exact_mut(8).enumerate() {
        let v = match i {
            0 => MAGIC,
            1 => block,
            2 => seq,
            _ => rng.next_u64(),
        };
        word.copy_from_slice(&v.to_le_bytes());
    }
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Never written by a job: no magic.
    Foreign,
    /// The whole pattern with this sequence number.
    Whole(u64),
    /// A pattern that is not whole, or one of another block.
    Torn,
}

/// Judges the bytes of `block`.
pub fn judge(page: &[u8; BLOCK], block: u64) -> Content {
    let word = |i: usize| -> u64 {
        let bytes = page
            .chunks_exact(8)
            .nth(i)
            .and_then(|c| <[u8; 8]>::try_from(c).ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    if word(0) != MAGIC {
        return Content::Foreign;
    }
    let seq = word(2);
    let mut want = [0; BLOCK];
    fill(&mut want, block, seq);
    if want == *page {
        Content::Whole(seq)
    } else {
        Content::Torn
    }
}

/// One writer: calls `acked` with (block, seq) after each write that returned.
///
/// # Errors
/// The first error of opening, writing or `acked`.
pub fn write(
    job: &Job,
    thread: u64,
    mut acked: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    use rustix::fs::OFlags;
    let mut flags = OFlags::DIRECT;
    if job.sync {
        flags |= OFlags::SYNC;
    }
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(&job.path)?;
    let share = (job.blocks / job.threads).max(1);
    let mut rng = Rng::new(job.seed ^ thread.wrapping_mul(0x9e37));
    let mut page = Box::new(Page([0; BLOCK]));
    for n in 0..job.count {
        let block = job.start + thread * share + rng.below(share);
        let seq = job.first_seq + n;
        fill(&mut page.0, block, seq);
        file.write_all_at(&page.0, block * BLOCK as u64)?;
        acked(block, seq)?;
    }
    Ok(())
}

/// Reads every block of the job and calls `found` with what it holds.
///
/// # Errors
/// The first error of opening, reading or `found`.
pub fn read_back(
    job: &Job,
    mut found: impl FnMut(u64, Content) -> io::Result<()>,
) -> io::Result<()> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&job.path)?;
    let mut page = Box::new(Page([0; BLOCK]));
    for block in job.start..job.start + job.blocks {
        file.read_exact_at(&mut page.0, block * BLOCK as u64)?;
        found(block, judge(&page.0, block))?;
    }
    Ok(())
}

/// The host's memory of what was acknowledged: block to highest sequence number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<u64, u64>);

impl Ledger {
    /// Takes in the lines (`block seq`) of a writer.
    ///
    /// # Errors
    /// A whole line that is not two numbers. A last line without its end is ignored: it was cut.
    pub fn add_lines(&mut self, text: &str) -> Result<()> {
        let whole = text.rfind('\n').map_or("", |end| text.split_at(end).0);
        for line in whole.lines() {
            let (b, s) = line
                .split_once(' ')
                .ok_or_else(|| Error::new("bad ack line"))?;
            let block: u64 = b.parse().map_err(|_| Error::new("bad ack line"))?;
            let seq: u64 = s.parse().map_err(|_| Error::new("bad ack line"))?;
            let known = self.0.entry(block).or_default();
            *known = (*known).max(seq);
        }
        Ok(())
    }

    /// Number of blocks that have an acknowledged write.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest sequence number of all.
    pub fn last_seq(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }

    /// Checks what a read-back found: lines `block seq`, `block foreign` or `block torn`.
    ///
    /// # Errors
    /// Says which acknowledged write is lost, or which block is torn.
    pub fn check_lines(&self, text: &str) -> Result<()> {
        let mut seen = BTreeMap::new();
        for line in text.lines() {
            let (b, what) = line.split_once(' ').ok_or_else(|| Error::new("bad line"))?;
            let block: u64 = b.parse().map_err(|_| Error::new("bad line"))?;
            if what == "torn" {
                return Err(Error::new(format!("block {block} is torn")));
            }
            seen.insert(block, what.parse::<u64>().unwrap_or(0));
        }
        for (block, seq) in &self.0 {
            let found = seen.get(block).copied().unwrap_or(0);
            if found < *seq {
                return Err(Error::new(format!(
                    "block {block}: write {seq} was acknowledged, the device holds {found}"
                )));
            }
        }
        Ok(())
    }

    /// Checks the blocks directly in the image of a backing device.
    ///
    /// # Errors
    /// As [`Ledger::check_lines`], and those of `read`.
    pub fn check_with(&self, mut read: impl FnMut(u64) -> Result<Box<[u8; BLOCK]>>) -> Result<()> {
        for (block, seq) in &self.0 {
            let page = read(*block).context("reading back")?;
            match judge(&page, *block) {
                Content::Whole(found) if found >= *seq => {}
                other => {
                    return Err(Error::new(format!(
                        "block {block}: write {seq} was acknowledged, the disk holds {other:?}"
                    )))
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_whole_only_as_written() {
        let mut p = [0; BLOCK];
        assert_eq!(judge(&p, 3), Content::Foreign);
        fill(&mut p, 3, 9);
        assert_eq!(judge(&p, 3), Content::Whole(9));
        assert_eq!(judge(&p, 4), Content::Torn);
        p[4000] ^= 1;
        assert_eq!(judge(&p, 3), Content::Torn);
    }

    #[test]
    fn the_ledger_notices_a_lost_write() {
        let mut l = Ledger::default();
        l.add_lines("1 5\n2 6\n1 7\n3 9").unwrap();
        assert_eq!((l.len(), l.last_seq()), (2, 7));
        l.check_lines("1 7\n2 8\n3 foreign\n").unwrap();
        assert!(l.check_lines("1 5\n2 6\n").is_err());
        assert!(l.check_lines("1 7\n").is_err());
        assert!(l.check_lines("1 7\n2 6\n9 torn\n").is_err());
    }

    #[test]
    fn jobs_survive_their_text_form() {
        let j = Job::endless("/dev/drbd0", 100, 42);
        assert_eq!(Job::decode(&j.encode()).unwrap(), j);
        assert!(Job::decode("/dev/drbd0 1").is_err());
    }
}
