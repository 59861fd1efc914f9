// SPDX-License-Identifier: GPL-2.0
//! A few nodes on one switch, for the length of one test.
//!
//! The working folder (disks, sockets, consoles, capture) is on a tmpfs where there is one, and
//! disappears at the end. After a failure consoles, capture and logs are kept in the folder of
//! the test in [`cache::failures`].

use std::fs;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cache::{self, Slot};
use crate::error::{Context, Error, Result};
use crate::initrd;
use crate::node::{Kernel, Node, NodeSpec};
use crate::switch::Switch;

/// The nodes of a test and the wire between them.
pub struct Cluster {
    /// The nodes, in the order of their specifications.
    pub nodes: Vec<Node>,
    /// The wire; the port of a node is its place in `nodes`.
    pub wire: Switch,
    name: String,
    dir: PathBuf,
    _slot: Slot,
}

/// A folder for `name` on the fastest place there is. Socket paths must stay below 108 bytes.
fn working_folder(name: &str) -> Result<PathBuf> {
    let base = match std::env::var_os("DRBD_LAB_TMP") {
        Some(dir) => dir.into(),
        None if Path::new("/dev/shm").is_dir() => PathBuf::from("/dev/shm"),
        None => std::env::temp_dir(),
    };
    sweep(&base);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let short = name.get(..20).unwrap_or(name);
    let dir = base.join(format!(
        "lab-{}-{short}-{}",
        std::process::id(),
        now.subsec_micros()
    ));
    fs::create_dir_all(&dir).context(dir.display())?;
    Ok(dir)
}

/// Removes the folders of processes that were killed: a tmpfs is memory.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("lab-").and_then(|n| n.split('-').next());
        let is_pid = |o: &&str| o.parse::<u32>().is_ok();
        if let Some(pid) = owner.filter(is_pid) {
            if !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Cluster {
    /// Boots the nodes, all at once. `name` names the test.
    ///
    /// # Errors
    /// Says which node did not come up; what it printed is kept as after any failure.
    pub fn start(name: &str, specs: &[NodeSpec]) -> Result<Self> {
        Self::start_capturing(name, specs, 160)
    }

    /// [`Cluster::start`] with up to `limit` bytes of each frame in the capture.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_capturing(name: &str, specs: &[NodeSpec], limit: usize) -> Result<Self> {
        let slot = cache::slot()?;
        let dir = working_folder(name)?;
        initrd::build(&cache::agent()?, &dir.join("initrd"))?;
        let wire = Switch::start(&dir, specs.len(), 1, limit)?;
        let nodes = specs
            .iter()
            .enumerate()
            .map(|(i, spec)| Node::create(spec.clone(), i, &dir))
            .collect::<Result<_>>()?;
        let cluster = Self {
            nodes,
            wire,
            name: name.into(),
            dir,
            _slot: slot,
        };
        let started = cluster.each(Node::start);
        if let Err(e) = started {
            return Err(cluster.failed(e));
        }
        Ok(cluster)
    }

    /// Does the same on all nodes at a time.
    ///
    /// # Errors
    /// The first one of any node.
    pub fn each(&self, f: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.nodes.iter().map(|n| scope.spawn(|| f(n))).collect();
            threads
                .into_iter()
                .map(|t| {
                    t.join()
                        .unwrap_or_else(|_| Err(Error::new("a thread panicked")))
                })
                .fold(Ok(()), Result::and)
        })
    }

    /// Runs `test` on a cluster of `specs` and judges the nodes afterwards: the test fails if it
    /// returns an error, if a kernel splat is on any console, or if a checked kernel finds leaks.
    ///
    /// # Panics
    /// When the test failed; this is the only place of the lab that panics on purpose.
    pub fn test(name: &str, specs: &[NodeSpec], test: impl FnOnce(&Cluster) -> Result<()>) {
        let result = Self::start(name, specs).and_then(|cluster| {
            // An assertion that fails must not lose the consoles: it counts like any error.
            let outcome = catch_unwind(AssertUnwindSafe(|| test(&cluster)));
            cluster.end(outcome.unwrap_or_else(|_| Err(Error::new("panicked, see above"))))
        });
        if let Err(e) = result {
            panic!("{name}: {e}");
        }
    }

    /// Ends a cluster after `outcome`: judges the nodes, keeps what tells why after a failure.
    ///
    /// # Errors
    /// `outcome`, or what the judgement found.
    pub fn end(self, outcome: Result<()>) -> Result<()> {
        match outcome.and_then(|()| self.judge()) {
            Ok(()) => Ok(()),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// What has to be true of every node at the end of a test.
    ///
    /// # Errors
    /// Splats and leaks.
    pub fn judge(&self) -> Result<()> {
        for node in &self.nodes {
            if node.spec().kernel == Kernel::Kasan && node.run("true").is_ok() {
                // An object is only reported when two scans in a row find no pointer to it.
                let scan = "echo scan > /sys/kernel/debug/kmemleak; sleep 5; \
                            echo scan > /sys/kernel/debug/kmemleak; cat /sys/kernel/debug/kmemleak";
                let leaks = node.must_for(scan, Duration::from_secs(60))?;
                if leaks.contains("unreferenced object") {
                    return Err(Error::new(format!("{}: leaks:\n{leaks}", node.name())));
                }
            }
            if let Some(first) = node.splats().first() {
                return Err(Error::new(format!("{}: {first}", node.name())));
            }
        }
        Ok(())
    }

    /// Keeps what tells why, adds its place and the splats to the error, and clears away.
    fn failed(self, e: Error) -> Error {
        let kept = cache::failures().join(&self.name);
        let mut text = e.to_string();
        for node in &self.nodes {
            for splat in node.splats() {
                text.push_str(&format!("\n{}: {splat}", node.name()));
            }
        }
        for node in &self.nodes {
            // Whatever still answers says what it sees; a dead node has only its console.
            // Where each thread of the driver and of the tools stands tells why something hangs.
            let threads = "for c in $(grep -lE '^(drbd|rmmod)' /proc/[0-9]*/comm); do \
                           d=${c%/comm}; echo \"== $(cat $c) ${d#/proc/}\"; cat $d/stack; done";
            let running = "for i in 1 2 3; do echo l > /proc/sysrq-trigger; sleep 0.2; done";
            let state = format!("cat /proc/drbd; {threads}; {running}; dmesg | tail -n 400");
            if let Ok(o) = node.run_for(&state, Duration::from_secs(20)) {
                let _ = fs::write(self.dir.join(format!("{}.state", node.name())), o.stdout);
            }
        }
        self.wire.flush_capture();
        let _ = fs::remove_dir_all(&kept);
        match self.keep(&kept, &text) {
            Ok(()) => text.push_str(&format!("\nkept in {}", kept.display())),
            Err(e) => text.push_str(&format!("\nnothing could be kept: {e}")),
        }
        Error::new(text)
    }

    fn keep(&self, to: &Path, error: &str) -> Result<()> {
        fs::create_dir_all(to)?;
        fs::write(to.join("error"), error)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let wanted = ["console", "qemu", "state", "pcap"];
            if Path::new(&name)
                .extension()
                .is_some_and(|e| wanted.iter().any(|w| e == *w))
            {
                fs::copy(entry.path(), to.join(&name))?;
            }
        }
        Ok(())
    }

    /// The working folder, for what a test wants to look at while it runs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
