// SPDX-License-Identifier: GPL-2.0
//! The demonstration: two machines, one replicated disk, a power cut, and nothing is lost.
//!
//! It prints every command it gives, so that it can be followed and repeated by hand.

use std::time::{Duration, Instant};

use super::{pair, same_data, two};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, Node};

const LONG: Duration = Duration::from_secs(120);

struct Narrator(Instant);

impl Narrator {
    fn say(&self, text: &str) {
        println!("[{:5.1}s] {text}", self.0.elapsed().as_secs_f32());
    }

    fn on(&self, node: &Node, command: &str) -> Result<String> {
        self.say(&format!("{}# {command}", node.name()));
        let out = node.must_for(command, LONG)?;
        for line in out.lines() {
            println!("           {line}");
        }
        Ok(out)
    }
}

/// Runs the demonstration on a pair with these drivers.
///
/// # Errors
/// The first step that fails, with what was kept for a closer look.
pub fn run(drivers: [Driver; 2]) -> Result<()> {
    let n = Narrator(Instant::now());
    n.say("booting two virtual machines");
    let cluster = Cluster::start("demo", &pair(drivers, Kernel::Release, 64))?;
    let result = show(&n, &cluster);
    cluster.end(result)?;
    n.say("done: both disks were equal byte by byte");
    Ok(())
}

fn show(n: &Narrator, cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let resource = Resource {
        net: "ping-int 2; ping-timeout 10; timeout 20; connect-int 3;".into(),
        disk: "resync-rate 100M; c-plan-ahead 0;".into(),
        ..Resource::default()
    };
    resource.configure(cluster)?;
    n.on(a, "head -n 2 /proc/drbd; uname -r")?;
    for node in [a, b] {
        n.on(node, "drbdadm create-md --force r0 2>&1 | tail -n 1")?;
        n.on(node, "drbdadm up r0")?;
    }
    n.on(a, "drbdadm primary --force r0")?;
    cluster.each(|node| drbd::wait_in_sync(node, LONG).map(|_| ()))?;
    n.on(a, "grep -A 1 cs: /proc/drbd")?;
    n.on(a, "mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 /mnt")?;
    n.on(a, "head -c 8M /dev/urandom > /mnt/precious && sync")?;
    let sum = n.on(a, "sha256sum /mnt/precious")?;
    n.say("cutting the power of a");
    a.crash(1)?;
    drbd::wait_for(b, "the loss of a", LONG, |s| s.cs != "Connected")?;
    n.on(b, "drbdadm primary r0 && mount /dev/drbd0 /mnt")?;
    if n.on(b, "sha256sum /mnt/precious")? != sum {
        return Err(Error::new("the file is not the same on b"));
    }
    n.on(b, "echo 'written while a was away' > /mnt/news && sync")?;
    n.say("a comes back");
    a.start()?;
    let text = resource.config(&cluster.nodes);
    a.put("/etc/drbd.conf", 0o644, text.as_bytes())?;
    n.on(a, "drbdadm up r0")?;
    cluster.each(|node| drbd::wait_in_sync(node, LONG).map(|_| ()))?;
    n.on(a, "grep -A 1 cs: /proc/drbd")?;
    n.on(b, "umount /mnt && drbdadm secondary r0")?;
    n.on(
        a,
        "drbdadm primary r0 && mount /dev/drbd0 /mnt && cat /mnt/news",
    )?;
    if n.on(a, "sha256sum /mnt/precious")? != sum {
        return Err(Error::new("the file is not the same on a"));
    }
    n.on(a, "umount /mnt && drbdadm secondary r0")?;
    drbd::down_and_unload(cluster)?;
    same_data(cluster)
}
