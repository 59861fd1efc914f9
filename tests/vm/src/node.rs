// SPDX-License-Identifier: GPL-2.0
//! One node: a machine with a kernel, a DRBD driver and disks, that can be run, crashed, revived.
//!
//! The disks outlive the machine, as in real life. All methods take `&self`, so that threads of a
//! test can drive several nodes at a time.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::acked::Job;
use crate::cache;
use crate::client::{Client, Output, Progress, Request};
use crate::console;
use crate::disk::Disk;
use crate::error::{Context, Error, Result};
use crate::nbd;
use crate::protocol::Kind;
use crate::qemu;
use crate::rng::Rng;
use crate::switch;

/// Which driver a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The in-tree C driver of the node's kernel.
    C,
    /// drbd_rs, from `target/module`.
    Ours,
    /// None: for tests of the lab itself.
    None,
}

impl Driver {
    /// The other implementation of the same: C for ours, ours for C.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Driver::C => Driver::Ours,
            Driver::Ours => Driver::C,
            Driver::None => Driver::None,
        }
    }
}

/// Which kernel a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// As users run it.
    Release,
    /// Checks memory: KASAN, kmemleak, debug objects, fault injection.
    Kasan,
    /// Checks locking: lockdep, sleeping in atomic context.
    Locks,
}

impl Kernel {
    /// Its name in the cache and in `target/module`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Release => "release",
            Kernel::Kasan => "checked-kasan",
            Kernel::Locks => "checked-locks",
        }
    }

    /// How many times longer than on the release kernel things may take.
    pub fn patience(self) -> u32 {
        let asked = std::env::var("DRBD_LAB_PATIENCE").ok();
        let asked = asked.and_then(|n| n.parse().ok()).unwrap_or(1).max(1);
        match self {
            Kernel::Release => asked,
            Kernel::Kasan | Kernel::Locks => asked.max(6),
        }
    }

    fn memory(self) -> u32 {
        match self {
            Kernel::Release | Kernel::Locks => 512,
            Kernel::Kasan => 1024,
        }
    }

    /// AML runs into its time limits on a checked, emulated machine; without ACPI it boots in
    /// seconds. The timer that ACPI would tell of (SeaBIOS puts it there) is named, because the
    /// kernel measures its other clocks by it: without, one late tick of a loaded host is taken for
    /// a broken local timer.
    fn append(self) -> &'static str {
        match self {
            Kernel::Release => "",
            Kernel::Kasan | Kernel::Locks => " acpi=off pmtmr=0x608",
        }
    }
}

/// What a node should be.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Its host name.
    pub name: String,
    /// The driver it begins with, see [`Node::change_driver`].
    pub driver: Driver,
    /// Its kernel.
    pub kernel: Kernel,
    /// Sizes of its disks in bytes: /dev/vdc, /dev/vdd, ...
    pub disks: Vec<u64>,
    /// Virtual processors. Two by default: with one, most races cannot happen.
    pub cpus: u32,
    /// Whether a discard reaches the disks. Off by default: mkfs discards all there is.
    pub discards: bool,
}

impl NodeSpec {
    /// A node called `name` with one disk of `mib` MiB.
    pub fn new(name: &str, driver: Driver, kernel: Kernel, mib: u64) -> Self {
        Self {
            name: name.into(),
            driver,
            kernel,
            disks: vec![mib << 20],
            cpus: 2,
            discards: false,
        }
    }
}

struct Running {
    process: qemu::Process,
    client: Arc<Client>,
}

/// A node of a cluster.
pub struct Node {
    spec: NodeSpec,
    index: usize,
    dir: PathBuf,
    disks: Vec<Arc<Disk>>,
    driver: Mutex<Driver>,
    running: Mutex<Option<Running>>,
}

impl Node {
    /// Makes the node's disks; it does not start yet. `index` is its port on the switch.
    ///
    /// # Errors
    /// When a file or socket cannot be made.
    pub fn create(spec: NodeSpec, index: usize, dir: &Path) -> Result<Self> {
        let dir = dir.to_owned();
        let mut disks = Vec::new();
        for (i, size) in spec.disks.iter().enumerate() {
            let disk = Arc::new(Disk::create(
                &dir.join(format!("{}-{i}.img", spec.name)),
                *size,
            )?);
            nbd::serve(
                Arc::clone(&disk),
                &dir.join(format!("{}-{i}.nbd", spec.name)),
            )?;
            disks.push(disk);
        }
        Ok(Self {
            driver: Mutex::new(spec.driver),
            spec,
            index,
            dir,
            disks,
            running: Mutex::new(None),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// What it was made from.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// Its address on the wire.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.index + 1)
    }

    /// Its disk number `i`: 0 is /dev/vdc.
    ///
    /// # Panics
    /// When it has no such disk.
    pub fn disk(&self, i: usize) -> &Arc<Disk> {
        &self.disks[i]
    }

    /// From its next start on the node runs the other implementation: its disks stay, as when an
    /// administrator installs one driver in place of the other.
    ///
    /// # Errors
    /// When it is running.
    pub fn change_driver(&self) -> Result<()> {
        if self.lock().is_some() {
            return Err(Error::new(format!("{} is running", self.name())));
        }
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        *driver = driver.other();
        Ok(())
    }

    /// A duration that suits the speed of its kernel.
    pub fn patience(&self, release: Duration) -> Duration {
        release * self.spec.kernel.patience()
    }

    /// Where its console is kept.
    pub fn console_path(&self) -> PathBuf {
        self.dir.join(format!("{}.console", self.name()))
    }

    /// Everything its consoles printed since the first start.
    pub fn console(&self) -> String {
        fs::read(self.console_path()).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Kernel splats on its console.
    pub fn splats(&self) -> Vec<String> {
        console::splats(&self.console())
    }

    /// Boots the node and loads its driver.
    ///
    /// # Errors
    /// Says what did not come up; the console tells why.
    pub fn start(&self) -> Result<()> {
        // An emulated machine on a loaded host now and then hangs, or trips over its own patching
        // of code, before it runs any driver. That is not what is tested, so it gets two more
        // chances; what comes after gets none.
        self.try_boot()
            .or_else(|_| self.try_boot())
            .or_else(|_| self.try_boot())
            .context(format!("booting {}", self.name()))?;
        self.load_driver()
            .context(format!("loading the driver on {}", self.name()))
    }

    /// Boots; the console of an attempt that did not reach the agent is put aside, unjudged.
    fn try_boot(&self) -> Result<()> {
        let console = self.console_path();
        let before = fs::metadata(&console).map_or(0, |m| m.len());
        let booted = self.boot().and_then(|()| self.has_clock(before));
        booted.inspect_err(|_| {
            let aside = self.dir.join(format!("{}.failed-boot", self.name()));
            let _ = fs::copy(&console, aside);
            let file = fs::File::options().write(true).open(&console);
            let _ = file.and_then(|f| f.set_len(before));
        })
    }

    /// A late timer at boot makes the kernel give the timer up for another one, by which emulated
    /// time runs several times too fast: stock tools give up after "five seconds".
    fn has_clock(&self, before: u64) -> Result<()> {
        let console = fs::read(self.console_path())?;
        let new = usize::try_from(before)
            .ok()
            .and_then(|at| console.get(at..));
        if !String::from_utf8_lossy(new.unwrap_or_default()).contains("APIC timer disabled") {
            return Ok(());
        }
        if let Some(mut r) = self.lock().take() {
            r.process.kill();
        }
        self.settle()?;
        Err(Error::new("its clock is not to be trusted"))
    }

    fn boot(&self) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(Error::new("it is running"));
        }
        let file = |suffix: &str| self.dir.join(format!("{}{suffix}", self.name()));
        let (own, to_switch) = switch::paths(&self.dir, self.index);
        // What a killed machine left behind would keep the next one from binding.
        let _ = fs::remove_file(&own);
        let agent = file(".agent");
        let _ = fs::remove_file(&agent);
        let listener = UnixListener::bind(&agent)?;
        listener.set_nonblocking(true)?;
        let kernel = self.spec.kernel;
        let machine = qemu::Machine {
            kernel: cache::kernel_image(kernel)?,
            initrd: self.dir.join("initrd"),
            append: format!(
                // On a loaded host an emulated timer is late enough for the kernel to give up on
                // it at boot, unless told not to check.
                "console=ttyS0 panic=-1 loglevel=5 net.ifnames=0 no_timer_check lab.host={} \
                 lab.addr={}/24{}",
                self.name(),
                self.address(),
                kernel.append()
            ),
            images: vec![cache::root_image()?, cache::modules_image(kernel)?],
            disks: (0..self.disks.len())
                .map(|i| file(&format!("-{i}.nbd")))
                .collect(),
            net: (own, to_switch),
            mac: u8::try_from(self.index + 1).unwrap_or(255),
            agent,
            console: self.console_path(),
            log: file(".qemu"),
            cpus: self.spec.cpus,
            discards: self.spec.discards,
            memory: kernel.memory(),
            accelerator: cache::accelerator(),
        };
        let mut process = machine.start()?;
        let limit = self.patience(Duration::from_secs(30));
        let end = Instant::now() + limit;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if process.ended() => return Err(Error::new("QEMU ended at once")),
                Err(_) if Instant::now() > end => return Err(Error::new("QEMU does not start")),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false)?;
        let client = Arc::new(Client::new(stream, limit)?);
        *running = Some(Running { process, client });
        Ok(())
    }

    /// Loads the node's driver; [`Node::start`] does so by itself.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn load_driver(&self) -> Result<()> {
        let driver = *self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        match driver {
            Driver::None => {}
            Driver::C => {
                self.must("modprobe drbd")?;
            }
            Driver::Ours => {
                let module = fs::read(cache::our_module(self.spec.kernel)?)?;
                // Stock tools run `modprobe drbd` at will: it must never bring the C driver in.
                let never = "install drbd /bin/false\n";
                self.put("/etc/modprobe.d/lab.conf", 0o644, never.as_bytes())?;
                self.put("/run/drbd_rs.ko", 0o644, &module)?;
                self.must(
                    "for d in $(modinfo -F depends /run/drbd_rs.ko | tr , ' '); do modprobe $d; \
                     done; insmod /run/drbd_rs.ko",
                )?;
            }
        }
        Ok(())
    }

    fn client(&self) -> Result<Arc<Client>> {
        let running = self.lock();
        let r = running
            .as_ref()
            .ok_or_else(|| Error::new(format!("{} is not running", self.spec.name)))?;
        Ok(Arc::clone(&r.client))
    }

    /// Starts a shell command and does not wait for it.
    ///
    /// # Errors
    /// When the node is not running.
    pub fn spawn(&self, command: &str) -> Result<Request> {
        self.client()?.start(Kind::Run, command)
    }

    /// Starts writing with acknowledgements, see [`crate::acked`].
    ///
    /// # Errors
    /// When the node is not running.
    pub fn spawn_writer(&self, job: &Job) -> Result<Request> {
        self.client()?.start(Kind::Write, job.encode())
    }

    fn finish(&self, mut request: Request, timeout: Duration, what: &str) -> Result<Output> {
        match request.wait(timeout) {
            Progress::Ended => Ok(request.into_output()),
            Progress::Lost => Err(Error::new(format!(
                "{}: machine ended during: {what}",
                self.name()
            ))),
            Progress::Running => {
                let _ = self.client().and_then(|c| c.kill(&request));
                Err(Error::new(format!(
                    "{}: not done after {timeout:?}: {what}\nso far: {}{}",
                    self.name(),
                    request.output().text(),
                    request.output().error_text()
                )))
            }
        }
    }

    /// Runs a shell command for at most a minute (more on a checked kernel).
    ///
    /// # Errors
    /// When it does not end in time; an exit code other than 0 is no error.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, Duration::from_secs(60))
    }

    /// Runs a shell command for at most `timeout` (more on a checked kernel).
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn run_for(&self, command: &str, timeout: Duration) -> Result<Output> {
        self.finish(self.spawn(command)?, self.patience(timeout), command)
    }

    /// Runs a shell command that has to succeed and returns its output.
    ///
    /// # Errors
    /// As [`Node::run`], and any exit code but 0.
    pub fn must(&self, command: &str) -> Result<String> {
        self.must_for(command, Duration::from_secs(60))
    }

    /// [`Node::must`] with a time limit.
    ///
    /// # Errors
    /// As [`Node::must`].
    pub fn must_for(&self, command: &str, timeout: Duration) -> Result<String> {
        let out = self.run_for(command, timeout)?;
        if out.code == 0 {
            return Ok(out.text());
        }
        Err(Error::new(format!(
            "{}: exit code {} from: {command}\n{}{}",
            self.name(),
            out.code,
            out.text(),
            out.error_text()
        )))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// Those of the node.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut payload = mode.to_le_bytes().to_vec();
        payload.extend_from_slice(&u32::try_from(path.len()).unwrap_or(0).to_le_bytes());
        payload.extend_from_slice(path.as_bytes());
        payload.extend_from_slice(content);
        let request = self.client()?.start(Kind::Put, payload)?;
        self.succeed(request, path).map(|_| ())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Those of the node.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.client()?.start(Kind::Get, path)?;
        self.succeed(request, path).map(|o| o.stdout)
    }

    /// Reads back what a writer wrote: the lines that [`crate::acked::Ledger`] checks.
    ///
    /// # Errors
    /// Those of the node.
    pub fn read_back(&self, job: &Job) -> Result<String> {
        let request = self.client()?.start(Kind::ReadBack, job.encode())?;
        self.succeed(request, "read back").map(|o| o.text())
    }

    fn succeed(&self, request: Request, what: &str) -> Result<Output> {
        let out = self.finish(request, self.patience(Duration::from_secs(120)), what)?;
        if out.code == 0 {
            return Ok(out);
        }
        Err(Error::new(format!(
            "{}: {what}: {}",
            self.name(),
            out.error_text().trim()
        )))
    }

    /// Waits until `command` succeeds, trying again every 100 ms.
    ///
    /// # Errors
    /// When it does not within `timeout` (more on a checked kernel).
    pub fn wait_until(&self, command: &str, timeout: Duration) -> Result<()> {
        let end = Instant::now() + self.patience(timeout);
        while self.run(command)?.code != 0 {
            if Instant::now() > end {
                let state = self
                    .run("cat /proc/drbd")
                    .map(|o| o.text())
                    .unwrap_or_default();
                return Err(Error::new(format!(
                    "{}: not true after {:?}: {command}\n{state}",
                    self.name(),
                    self.patience(timeout)
                )));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Ends the machine in order; its disks keep everything that was flushed by then.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        let Some(mut r) = self.lock().take() else {
            return Ok(());
        };
        r.client.start(Kind::Reboot, Vec::new())?;
        let ended = r.process.wait(self.patience(Duration::from_secs(30)));
        r.process.kill();
        self.settle()?;
        ended
    }

    /// Cuts the power: the machine is gone, and of what was not flushed a part that `seed` picks.
    /// Returns the number of blocks that lost their newest version.
    ///
    /// # Errors
    /// When the disks do not come to rest.
    pub fn crash(&self, seed: u64) -> Result<usize> {
        let Some(mut r) = self.lock().take() else {
            return Err(Error::new(format!("{} is not running", self.name())));
        };
        // It must not live to see that its flushes fail.
        r.process.freeze(true)?;
        self.disks.iter().for_each(|d| d.power_off());
        r.process.kill();
        self.settle()?;
        let mut rng = Rng::new(seed);
        let mut lost = 0;
        for disk in &self.disks {
            lost += disk.power_cut(&mut rng)?;
        }
        Ok(lost)
    }

    /// Stops the machine where it is, or lets it run on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        match self.lock().as_ref() {
            Some(r) => r.process.freeze(freeze),
            None => Err(Error::new(format!("{} is not running", self.name()))),
        }
    }

    fn settle(&self) -> Result<()> {
        self.disks.iter().try_for_each(|d| d.wait_idle())
    }
}
