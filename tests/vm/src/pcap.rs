// SPDX-License-Identifier: GPL-2.0
//! Writes packets to a pcap file that tcpdump and Wireshark read.
//!
//! Classic format, Ethernet link type, microseconds. Frames longer than the limit given are cut,
//! as the format allows, because a full sync is all payload.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Context, Result};

/// An open capture.
#[derive(Debug)]
pub struct Pcap {
    file: BufWriter<File>,
    limit: usize,
}

impl Pcap {
    /// A new capture at `path` that keeps up to `limit` bytes of each frame.
    ///
    /// # Errors
    /// Those of the file.
    pub fn create(path: &Path, limit: usize) -> Result<Self> {
        let mut file = BufWriter::new(File::create(path).context(path.display())?);
        let mut head = Vec::new();
        head.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        head.extend_from_slice(&2_u16.to_le_bytes());
        head.extend_from_slice(&4_u16.to_le_bytes());
        head.extend_from_slice(&[0; 8]);
        head.extend_from_slice(&u32::try_from(limit).unwrap_or(u32::MAX).to_le_bytes());
        head.extend_from_slice(&1_u32.to_le_bytes());
        file.write_all(&head)?;
        Ok(Self { file, limit })
    }

    /// Adds one frame with the present time.
    ///
    /// # Errors
    /// Those of the file.
    pub fn frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let kept = frame.get(..self.limit).unwrap_or(frame);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        self.file.write_all(
            &u32::try_from(now.as_secs())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        )?;
        self.file.write_all(&now.subsec_micros().to_le_bytes())?;
        self.file.write_all(&number(kept.len()))?;
        self.file.write_all(&number(frame.len()))?;
        self.file.write_all(kept)
    }

    /// Puts everything into the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
