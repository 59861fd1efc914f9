// SPDX-License-Identifier: GPL-2.0
//! One QEMU process: its command line, its start and its end.
//!
//! QEMU dies with the test: it is started under `setpriv --pdeathsig`, from a thread that lives
//! as long as the process, because that signal follows the thread and not the process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Sender};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::error::{Context, Error, Result};

/// The emulated processor. With five levels of page tables KASAN misjudges an interrupt that comes
/// while the features of the boot processor are being read (wild-memory-access at 0.9 s of a boot).
const EMULATED: &str = "max,la57=off";

/// Everything a machine is made of.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Additions to the kernel command line.
    pub append: String,
    /// Read-only images that become vda, vdb, ...
    pub images: Vec<PathBuf>,
    /// NBD sockets of the disks that follow them.
    pub disks: Vec<PathBuf>,
    /// Sockets of the network card: its own and the switch's.
    pub net: (PathBuf, PathBuf),
    /// Last byte of its hardware address.
    pub mac: u8,
    /// Socket on which the host waits for the agent.
    pub agent: PathBuf,
    /// File the console is appended to.
    pub console: PathBuf,
    /// File QEMU's own messages go to.
    pub log: PathBuf,
    /// Virtual processors.
    pub cpus: u32,
    /// Whether discards are passed on to the disks.
    pub discards: bool,
    /// Memory in MiB.
    pub memory: u32,
    /// `kvm` or `tcg`.
    pub accelerator: String,
}

impl Machine {
    fn arguments(&self) -> Vec<OsString> {
        let kvm = self.accelerator == "kvm";
        let mut a: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| a.extend(words.iter().map(OsString::from));
        add(&[
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        add(&["-accel", if kvm { "kvm" } else { "tcg,thread=multi" }]);
        add(&["-cpu", if kvm { "host" } else { EMULATED }]);
        add(&[
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &self.memory.to_string(),
        ]);
        add(&[
            "-kernel",
            &text(&self.kernel),
            "-initrd",
            &text(&self.initrd),
        ]);
        add(&["-append", &self.append]);
        add(&[
            "-chardev",
            &format!("file,id=con,append=on,path={}", text(&self.console)),
        ]);
        add(&["-serial", "chardev:con", "-device", "virtio-rng-pci"]);
        add(&["-device", "virtio-serial-pci"]);
        add(&[
            "-chardev",
            &format!("socket,id=agent,path={}", text(&self.agent)),
        ]);
        add(&["-device", "virtserialport,chardev=agent,name=drbd.lab"]);
        self.add_disks(&mut add);
        let (own, switch) = &self.net;
        let local = format!("local.type=unix,local.path={}", text(own));
        let remote = format!("remote.type=unix,remote.path={}", text(switch));
        add(&["-netdev", &format!("dgram,id=net,{local},{remote}")]);
        add(&[
            "-device",
            &format!(
                "virtio-net-pci,netdev=net,mac=52:54:00:77:00:{:02x}",
                self.mac
            ),
        ]);
        a
    }

    fn add_disks(&self, add: &mut impl FnMut(&[&str])) {
        for (i, image) in self.images.iter().enumerate() {
            let path = text(image);
            add(&[
                "-drive",
                &format!("if=none,id=i{i},format=raw,readonly=on,file={path}"),
            ]);
            add(&[
                "-device",
                &format!("virtio-blk-pci,drive=i{i},serial=image{i}"),
            ]);
        }
        let discard = if self.discards { "unmap" } else { "ignore" };
        for (i, socket) in self.disks.iter().enumerate() {
            let node = format!(
                "driver=nbd,node-name=d{i},discard={discard},server.type=unix,server.path="
            );
            add(&["-blockdev", &format!("{node}{},export=disk", text(socket))]);
            let device = "write-cache=on,rerror=report,werror=report";
            add(&[
                "-device",
                &format!("virtio-blk-pci,drive=d{i},serial=disk{i},{device}"),
            ]);
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// When QEMU cannot be started; what it says itself goes to the log.
    pub fn start(&self) -> Result<Process> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Process {
            child: spawn(command).context("qemu-system-x86_64")?,
        })
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a command from the thread that never ends.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (to, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        to
    });
    let (answer, result) = channel();
    let gone = || Error::new("the spawning thread is gone");
    spawner.send((command, answer)).map_err(|_| gone())?;
    Ok(result.recv().map_err(|_| gone())??)
}

/// A running QEMU; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// True once it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while !self.ended() {
            if Instant::now() > end {
                return Err(Error::new("the machine does not end"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it at once, as a power cut.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it where it is (`true`) or lets it run on: a machine that hangs and comes back.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new("no process id"))?;
        kill_process(pid, if freeze { Signal::STOP } else { Signal::CONT })?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
