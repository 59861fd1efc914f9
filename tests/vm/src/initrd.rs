// SPDX-License-Identifier: GPL-2.0
//! Packs the agent and the libraries it needs into an initial RAM disk (cpio, "newc" format).
//!
//! The agent is linked dynamically like every test binary, so its libraries, found by `ldd`, go
//! along; nothing of the root image's C library is needed to start it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};

/// Writes the RAM disk with `agent` as its `/init` to `target`.
///
/// # Errors
/// When the agent or one of its libraries cannot be read.
pub fn build(agent: &Path, target: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "sys", "lower", "rw", "new"] {
        archive.directory(dir);
    }
    archive.file("init", &fs::read(agent).context(agent.display())?);
    for library in libraries(agent)? {
        let name = library
            .strip_prefix("/")
            .unwrap_or(&library)
            .to_string_lossy()
            .into_owned();
        archive.file(&name, &fs::read(&library).context(library.display())?);
    }
    fs::write(target, archive.finish()).context(target.display())
}

fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd").arg(program).output().context("ldd")?;
    if !out.status.success() {
        return Err(Error::new(format!(
            "ldd {}: {}",
            program.display(),
            out.status
        )));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(text
        .split_whitespace()
        .filter(|w| w.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        if self.directories.insert(name.to_owned()) {
            self.entry(name, 0o040_755, &[]);
        }
    }

    fn file(&mut self, name: &str, content: &[u8]) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        self.entry(name, 0o100_755, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            u32::try_from(content.len()).unwrap_or(u32::MAX),
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for f in fields {
            self.bytes.extend_from_slice(format!("{f:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut a = Archive::default();
        a.file("lib64/ld.so", b"xyz");
        let bytes = a.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.find("lib64\0").unwrap() < text.find("lib64/ld.so\0").unwrap());
        assert!(text.contains("TRAILER!!!"));
    }
}
