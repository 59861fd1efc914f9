// SPDX-License-Identifier: GPL-2.0
//! Finds what the set-up scripts and the build left for the lab.
//!
//! The rule for the cache folder is that of `tests/lab/lib.sh`. Nothing is created here except
//! the locks that keep more than two clusters from running at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{flock, FlockOperation};

use crate::error::{Context, Error, Result};
use crate::node::Kernel;

/// The cache folder.
///
/// # Errors
/// When neither it nor a home is named by the environment.
pub fn dir() -> Result<PathBuf> {
    let var = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    var("DRBD_RS_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("drbd-rs")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/drbd-rs")))
        .ok_or_else(|| Error::new("HOME is not set"))
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "{} is missing: run `make setup` first",
        path.display()
    )))
}

/// The kernel image of a flavour.
///
/// # Errors
/// When it was not built.
pub fn kernel_image(kernel: Kernel) -> Result<PathBuf> {
    existing(
        dir()?
            .join("kernel")
            .join(kernel.name())
            .join("arch/x86/boot/bzImage"),
    )
}

/// The file system image with the modules of a flavour.
///
/// # Errors
/// When it was not built.
pub fn modules_image(kernel: Kernel) -> Result<PathBuf> {
    existing(
        dir()?
            .join("kernel")
            .join(kernel.name())
            .join("modules.img"),
    )
}

/// The root file system image.
///
/// # Errors
/// When it was not built.
pub fn root_image() -> Result<PathBuf> {
    existing(dir()?.join("rootfs/current"))
}

/// QEMU's accelerator: `kvm` only where the set-up saw a machine boot with it.
pub fn accelerator() -> String {
    std::env::var("DRBD_LAB_ACCEL")
        .ok()
        .or_else(|| fs::read_to_string(dir().ok()?.join("accel")).ok())
        .map_or_else(|| "tcg".into(), |s| s.trim().to_owned())
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where the tests that failed keep what tells why, each in a folder of its name.
pub fn failures() -> PathBuf {
    std::env::var_os("DRBD_LAB_FAILURES")
        .map_or_else(|| repository().join("target/vm-failures"), PathBuf::from)
}

/// Our module, built for a flavour by `make modules`.
///
/// # Errors
/// When it was not built.
pub fn our_module(kernel: Kernel) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DRBD_RS_MODULE") {
        return Ok(path.into());
    }
    let path = repository()
        .join("target/module")
        .join(kernel.name())
        .join("drbd_rs.ko");
    if path.exists() {
        return Ok(path);
    }
    Err(Error::new(format!(
        "{} is missing: run `make modules` first",
        path.display()
    )))
}

/// The agent, which cargo builds beside the test binaries.
///
/// # Errors
/// When it is not there.
pub fn agent() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("DRBD_LAB_AGENT") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|d| d.join("drbd-lab-agent"))
        .find(|p| p.exists())
        .ok_or_else(|| Error::new("drbd-lab-agent is not built: cargo build -p drbd-lab"))
}

/// The right to run a cluster, given back when it is dropped (or the process ends).
#[derive(Debug)]
pub struct Slot {
    _file: File,
}

/// Clusters at a time on a machine, unless `DRBD_LAB_CLUSTERS` says otherwise.
const CLUSTERS: u32 = 2;

/// Waits for one of the places to run a cluster in.
///
/// # Errors
/// After an hour, or when the lock files cannot be made.
pub fn slot() -> Result<Slot> {
    let dir = dir()?;
    fs::create_dir_all(&dir).context(dir.display())?;
    let end = Instant::now() + Duration::from_secs(3600);
    let wanted = std::env::var("DRBD_LAB_CLUSTERS").ok();
    let places = wanted.and_then(|n| n.parse().ok()).unwrap_or(CLUSTERS);
    loop {
        // Who may use more places than others leaves them theirs as long as one of its own is free.
        for n in (0..places).rev() {
            let path = dir.join(format!("slot{n}"));
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Ok(Slot { _file: file });
            }
        }
        if Instant::now() > end {
            return Err(Error::new("other clusters did not end within an hour"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
