// SPDX-License-Identifier: GPL-2.0
//! Init: from the initial RAM disk to a running node.
//!
//! The root image (first disk) and the modules image (second) are mounted read-only, a tmpfs over
//! the root takes what is written. Then name, address, udev. Parameters come from the kernel
//! command line: `lab.host=NAME lab.addr=A.B.C.D/P`.
//!
//! It runs as process 1 and ends only with the machine: an error is printed to the console and
//! ends in a panic of the kernel, which the host sees as the end of the machine.

use std::ffi::CStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{mount, mount_move, MountFlags};

use crate::error::{Context, Error, Result};

fn mount_fs(what: &str, at: &str, kind: &str, flags: MountFlags, options: &str) -> Result<()> {
    fs::create_dir_all(at).context(at)?;
    let mut text = options.as_bytes().to_vec();
    text.push(0);
    let options = CStr::from_bytes_with_nul(&text).map_err(|_| Error::new("mount options"))?;
    mount(what, at, kind, flags, options).context(format!("mount {what} at {at}"))
}

fn wait_for(path: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !Path::new(path).exists() {
        if Instant::now() > end {
            return Err(Error::new(format!("{path} did not appear")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn parameter(cmdline: &str, key: &str) -> Result<String> {
    cmdline
        .split_whitespace()
        .filter_map(|w| w.split_once('='))
        .find(|(k, _)| *k == key)
        .map(|(_, v)| v.to_owned())
        .ok_or_else(|| Error::new(format!("no {key} on the kernel command line")))
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).context(path)
}

/// Runs a command of the root file system; what it says goes to the console.
fn command(words: &str) -> Result<()> {
    let mut it = words.split_whitespace();
    let program = it.next().unwrap_or_default();
    let status = Command::new(program)
        .args(it)
        .stdin(Stdio::null())
        .status()
        .context(words)?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::new(format!("{words}: {status}")))
    }
}

/// Brings the node up.
///
/// # Errors
/// Says which step failed.
pub fn boot() -> Result<()> {
    let none = MountFlags::empty();
    mount_fs("devtmpfs", "/dev", "devtmpfs", none, "")?;
    mount_fs("proc", "/proc", "proc", none, "")?;
    let cmdline = fs::read_to_string("/proc/cmdline")?;
    let host = parameter(&cmdline, "lab.host")?;
    let address = parameter(&cmdline, "lab.addr")?;

    wait_for("/dev/vdb")?;
    mount_fs("/dev/vda", "/lower", "ext4", MountFlags::RDONLY, "")?;
    mount_fs("tmpfs", "/rw", "tmpfs", none, "")?;
    fs::create_dir_all("/rw/upper")?;
    fs::create_dir_all("/rw/work")?;
    let layers = "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work";
    mount_fs("overlay", "/new", "overlay", none, layers)?;
    mount_fs(
        "/dev/vdb",
        "/new/usr/lib/modules",
        "ext4",
        MountFlags::RDONLY,
        "",
    )?;
    std::env::set_current_dir("/new")?;
    mount_move("/new", "/").context("moving the root")?;
    rustix::process::chroot(".").context("chroot")?;
    std::env::set_current_dir("/")?;

    mount_fs("devtmpfs", "/dev", "devtmpfs", none, "")?;
    mount_fs("proc", "/proc", "proc", none, "")?;
    mount_fs("sysfs", "/sys", "sysfs", none, "")?;
    mount_fs("debugfs", "/sys/kernel/debug", "debugfs", none, "")?;
    mount_fs("configfs", "/sys/kernel/config", "configfs", none, "")?;
    mount_fs("devpts", "/dev/pts", "devpts", none, "")?;
    mount_fs("tmpfs", "/dev/shm", "tmpfs", none, "")?;
    mount_fs("tmpfs", "/run", "tmpfs", none, "mode=755")?;
    mount_fs("tmpfs", "/tmp", "tmpfs", none, "")?;
    fs::create_dir_all("/run/lock")?;

    std::env::set_var(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    std::env::set_var("HOME", "/root");
    rustix::system::sethostname(host.as_bytes())?;
    write("/etc/hostname", &format!("{host}\n"))?;
    write("/proc/sys/kernel/printk", "7")?;
    write("/proc/sys/kernel/hung_task_timeout_secs", "60")?;
    command("ip link set lo up")?;
    command(&format!("ip addr add {address} dev eth0"))?;
    command("ip link set eth0 up")?;
    command("/lib/systemd/systemd-udevd --daemon")?;
    command("udevadm trigger --action=add --subsystem-match=block")?;
    command("udevadm settle --timeout=30")?;
    Ok(())
}

/// The device of the virtio-serial port called `name`.
///
/// # Errors
/// When there is none.
pub fn port(name: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if fs::read_to_string(entry.path().join("name")).is_ok_and(|n| n.trim() == name) {
            let device = format!("/dev/{}", entry.file_name().to_string_lossy());
            wait_for(&device)?;
            return Ok(device);
        }
    }
    Err(Error::new(format!("no port called {name}")))
}
