// SPDX-License-Identifier: GPL-2.0
//! The same commands on a node of ours and on a C node have to have the same outcome: exit code
//! and text, after names and counters that have to differ are made equal.
//!
//! Differences that are meant are named beside the command, with what our node says instead; each
//! is explained in `docs/compatibility.md`.

use std::time::Duration;

use super::two;
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, Node, NodeSpec};

const LONG: Duration = Duration::from_secs(60);

/// A command, and how our node's outcome may differ.
enum Step {
    /// Not at all.
    Same(&'static str),
    /// Ours fails and its words have this; what the C node does is of no interest.
    Differs(&'static str, &'static str),
    /// Both must succeed.
    Quiet(&'static str),
}

use Step::{Differs, Quiet, Same};

/// The outcome of a command: its words and the exit code.
fn outcome(node: &Node, command: &str) -> Result<String> {
    // No command may hang: ten seconds are a failure of their own.
    let script = format!(
        "timeout -s KILL 10 sh -c '{}' 2>&1; echo \"exit code $?\"",
        command.replace('\'', "'\\''")
    );
    Ok(normal(&node.must_for(&script, LONG)?))
}

/// Counters and times, which differ from one node to the other.
const COUNTERS: [&str; 25] = [
    "ns",
    "nr",
    "dw",
    "dr",
    "al",
    "bm",
    "lo",
    "pe",
    "ua",
    "ap",
    "ep",
    "oos",
    "read",
    "written",
    "received",
    "sent",
    "al-writes",
    "bm-writes",
    "out-of-sync",
    "pending",
    "unacked",
    "upper-pending",
    "lower-pending",
    "done",
    "size",
];

/// Makes equal what has to differ.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').map(word).collect();
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    for (from, to) in [("10.77.0.1", "ADDRESS"), ("10.77.0.2", "ADDRESS")] {
        out = out.replace(from, to);
    }
    out
}

fn word(word: &str) -> String {
    if let Some((key, value)) = word.split_once(':') {
        if COUNTERS.contains(&key) && value.starts_with(|c: char| c.is_ascii_digit()) {
            return format!("{key}:N");
        }
    }
    // UUIDs, four of them with flags behind, as get-gi has them.
    word.split(':')
        .map(|part| {
            let hex = part.len() == 16 && part.chars().all(|c| c.is_ascii_hexdigit());
            match hex && !part.trim_matches('0').is_empty() {
                true => "UUID",
                false => part,
            }
        })
        .collect::<Vec<_>>()
        .join(":")
}

/// The outcome without what the kernel explains: there ours may say more.
fn without_more(text: &str) -> String {
    let mut lines = text.lines();
    let mut out = String::new();
    while let Some(line) = lines.next() {
        if line == "additional info from kernel:" {
            lines.next();
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Gives the commands to both nodes and collects what differs.
fn compare(ours: &Node, c: &Node, steps: &[Step], differences: &mut Vec<String>) -> Result<()> {
    for step in steps {
        let (Same(command) | Differs(command, _) | Quiet(command)) = step;
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(|| outcome(c, command));
            let own = outcome(ours, command);
            let lost = || Err(Error::new("a thread panicked"));
            (own, other.join().unwrap_or_else(|_| lost()))
        });
        let (own, other) = (both.0?, both.1?);
        let right = match step {
            Same(_) => own == other || without_more(&own) == other,
            Differs(_, words) => own.contains(words) && !own.ends_with("exit code 0\n"),
            Quiet(_) => own.ends_with("exit code 0\n") && other.ends_with("exit code 0\n"),
        };
        if !right || own.ends_with("exit code 137\n") {
            differences.push(format!("# {command}\nours: {own}C:    {other}"));
        }
    }
    Ok(())
}

fn verdict(differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!(
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    )))
}

/// A node of ours and a C node, with two disks each.
pub fn specs() -> [NodeSpec; 2] {
    let node = |name: &str, driver| NodeSpec {
        disks: vec![16 << 20, 8 << 20],
        ..NodeSpec::new(name, driver, Kernel::Release, 16)
    };
    [node("a", Driver::Ours), node("b", Driver::C)]
}

/// The same file on both nodes, each of which is alone: its peer does not exist.
const ALONE: &str = "global { usage-count no; }\n\
    common { net { ping-timeout 10; connect-int 3; } }\n\
    resource r0 { device /dev/drbd0 minor 0; disk /dev/vdc; meta-disk internal; \
    on a { address 10.77.0.1:7788; } on b { address 10.77.0.2:7788; } }\n";

/// Mistakes of an administrator on a node without a peer.
///
/// # Errors
/// What differs.
pub fn mistakes(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    cluster.each(|n| n.put("/etc/drbd.conf", 0o644, ALONE.as_bytes()))?;
    let mut differences = Vec::new();
    for steps in [NOTHING, DISKS, ATTACHED, ROLES, NETWORK, ENDS] {
        compare(a, b, steps, &mut differences)?;
    }
    verdict(&differences)
}

const NOTHING: &[Step] = &[
    Same("drbdsetup show"),
    Same("drbdsetup show r9"),
    Same("drbdsetup status"),
    Same("drbdsetup status r9"),
    Same("drbdsetup events2 --now"),
    Same("drbdsetup role r9"),
    Same("drbdsetup cstate r9"),
    Same("drbdsetup dstate 9"),
    Same("drbdsetup primary 9"),
    Same("drbdsetup secondary 9"),
    Same("drbdsetup attach 9 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup detach 9"),
    Same("drbdsetup connect nope 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup del-minor 9"),
    Same("drbdsetup del-resource nope"),
    Same("drbdsetup new-minor nope 1 0"),
    Same("drbdsetup down nope"),
    Same("drbdsetup resize 9"),
    Same("drbdsetup verify 9"),
    Same("drbdsetup invalidate 9"),
    Same("drbdsetup outdate 9"),
    Same("drbdsetup show-gi 9"),
    Same("drbdsetup disk-options 9 --resync-rate=1M"),
    Same("drbdsetup resource-options nope --on-no-data-accessible=io-error"),
    Same("drbdadm status r0"),
    Same("drbdadm role r0"),
    Same("drbdadm cstate r0"),
    Same("drbdadm dstate r0"),
    Same("drbdadm primary r0"),
];

const DISKS: &[Step] = &[
    Same("drbdsetup new-resource r0"),
    Same("drbdsetup new-resource r0"),
    Same("drbdsetup new-minor r0 0 0"),
    Same("drbdsetup new-minor r0 0 0"),
    Same("drbdsetup new-minor r0 1 0"),
    Same("drbdsetup new-minor r0 0 1"),
    Same("drbdsetup new-minor r0 3 70000"),
    Same("drbdsetup new-minor r0 99999999 3"),
    Same("drbdsetup new-resource r1 && drbdsetup new-minor r1 0 0"),
    Same("drbdsetup del-resource r0"),
    Same("drbdsetup del-resource r1"),
    Same("drbdsetup show r0"),
    Same("drbdsetup primary 0"),
    Same("drbdsetup primary 0 --force"),
    Same("drbdsetup detach 0"),
    Same("drbdsetup outdate 0"),
    Same("drbdsetup invalidate 0"),
    Same("drbdsetup resize 0"),
    Same("dd if=/dev/drbd0 of=/dev/null count=1 status=none"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup attach 0 /dev/nope /dev/nope internal"),
    Same("drbdsetup attach 0 /dev/zero /dev/zero internal"),
    Same("drbdsetup attach 0 /etc/drbd.conf /etc/drbd.conf internal"),
    Quiet("echo 0 64 linear /dev/vdd 0 | dmsetup create tiny"),
    Same("drbdsetup attach 0 /dev/mapper/tiny /dev/mapper/tiny internal"),
    Quiet("drbdadm create-md --force r0"),
    Quiet("echo 0 16384 linear /dev/vdc 16384 | dmsetup create tail"),
    Same("drbdsetup attach 0 /dev/mapper/tail /dev/mapper/tail internal"),
    Same("drbdsetup detach 0"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup detach 0"),
    Same("drbdsetup attach 0 /dev/mapper/tail /dev/mapper/tail internal"),
    Quiet("dmsetup remove tail; echo 0 16384 linear /dev/vdc 0 | dmsetup create head"),
    Same("drbdsetup attach 0 /dev/mapper/head /dev/mapper/head internal"),
    Quiet("dmsetup remove head; dmsetup remove tiny"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdc internal --size=1G"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdc internal --al-extents=70000"),
    Quiet("drbdsetup detach 0 || true"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdd 0"),
    Same("drbdsetup detach 0"),
    Quiet("mkfs.ext4 -q /dev/vdd 4096 && mount /dev/vdd /mnt"),
    Same("drbdsetup attach 0 /dev/vdd /dev/vdd internal"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdd flex-external"),
    Quiet("umount /mnt"),
];

const ATTACHED: &[Step] = &[
    Quiet("drbdadm create-md --force r0"),
    Quiet("drbdsetup attach 0 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup attach 0 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup attach 0 /dev/vdd /dev/vdd internal"),
    Same("mount /dev/vdc /mnt"),
    Same("drbdsetup new-resource r1 && drbdsetup new-minor r1 1 0"),
    Same("drbdsetup attach 1 /dev/vdc /dev/vdc internal"),
    Same("drbdsetup del-minor 1 && drbdsetup del-resource r1"),
    Same("drbdsetup del-minor 0"),
    Same("drbdsetup del-resource r0"),
    Differs(
        "drbdsetup disk-options 0 --al-extents=100",
        "changing al-extents while attached: not supported",
    ),
    Quiet("drbdsetup disk-options 0 --al-extents=1237"),
    Same("drbdsetup disk-options 0 --resync-after=0"),
    Same("drbdsetup disk-options 0 --resync-after=77"),
    Same("drbdsetup disk-options 0 --resync-rate=5M"),
    Same("drbdsetup show r0"),
];

const ROLES: &[Step] = &[
    Same("drbdadm primary r0"),
    Same("drbdadm secondary r0"),
    Same("drbdadm invalidate r0"),
    Same("drbdadm invalidate-remote r0"),
    Same("drbdadm verify r0"),
    Same("drbdadm pause-sync r0"),
    Same("drbdadm pause-sync r0"),
    Same("drbdadm resume-sync r0"),
    Same("drbdadm resume-sync r0"),
    Same("drbdadm resume-io r0"),
    Same("drbdadm outdate r0"),
    Same("dd if=/dev/zero of=/dev/drbd0 count=1 status=none"),
    Same("dd if=/dev/drbd0 of=/dev/null count=1 status=none"),
    Same("drbdadm primary --force r0"),
    Same("drbdadm primary r0"),
    Same("drbdadm outdate r0"),
    Same("drbdadm invalidate r0"),
    Same("drbdadm detach r0"),
    Same("drbdsetup del-minor 0"),
    Quiet("sleep 1000 < /dev/drbd0 & echo $! > /run/sleeper; sleep 0.5"),
    Same("drbdadm secondary r0"),
    Same("drbdadm down r0"),
    Quiet("kill $(cat /run/sleeper); sleep 0.5"),
    Same("drbdadm new-current-uuid r0"),
    Same("drbdadm suspend-io r0"),
    Same("drbdadm status r0"),
    Same("drbdadm resume-io r0"),
    Same("drbdadm detach r0"),
    Same("drbdadm attach r0"),
    Same("drbdadm secondary r0"),
    Same("drbdadm outdate r0"),
    Same("drbdadm primary r0"),
    Same("drbdadm primary --force r0"),
    Same("drbdadm secondary r0"),
];

const NETWORK: &[Step] = &[
    Quiet("ip link set lo up"),
    Same(
        "drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 \
         --cram-hmac-alg=nope --shared-secret=x",
    ),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 --verify-alg=nope"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 --csums-alg=nope"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 --data-integrity-alg=nope"),
    Same(
        "drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 \
         --protocol=A --allow-two-primaries=yes",
    ),
    Same(
        "drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 \
         --fencing=resource-and-stonith --protocol=A",
    ),
    Same(
        "drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 \
         --protocol=A --on-congestion=pull-ahead",
    ),
    Quiet("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788 || true"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 --data-integrity-alg=md5"),
    Quiet("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788 || true"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788 --allow-two-primaries=yes"),
    Quiet("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788 || true"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup connect r0 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup connect r0 127.0.0.1:7799 127.0.0.2:7799"),
    Same("drbdsetup new-resource r1"),
    Same("drbdsetup connect r1 127.0.0.1:7788 127.0.0.3:7788"),
    Same("drbdsetup connect r1 127.0.0.3:7788 127.0.0.2:7788"),
    Same("drbdsetup del-resource r1"),
    Same("drbdsetup net-options 127.0.0.1:7788 127.0.0.2:7788 --protocol=B"),
    Same("drbdsetup net-options 127.0.0.1:7788 127.0.0.2:7788 --cram-hmac-alg=nope"),
    Same("drbdsetup net-options 127.0.0.1:7788 127.0.0.3:7788 --protocol=B"),
    Same("drbdsetup wait-connect 127.0.0.1:7788 127.0.0.2:7788 --wfc-timeout=1"),
    Same("drbdsetup show r0"),
    Same("drbdsetup del-resource r0"),
    Same("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup disconnect 127.0.0.1:7788 127.0.0.2:7788"),
    Same("drbdsetup role r0"),
    Same("drbdsetup cstate r0"),
];

const ENDS: &[Step] = &[
    Same("drbdsetup down r1"),
    Same("drbdadm down r0"),
    Same("drbdadm down r0"),
    Same("drbdadm show-gi r0"),
    Same("drbdadm get-gi r0"),
    Same("drbdadm dump-md r0 | grep -v uuid | grep -v ^#"),
    Same("drbdadm up r0 && drbdadm down r0"),
    Quiet("rmmod drbd_rs || rmmod drbd"),
];

/// The commands that show a state.
const VIEWS: &[Step] = &[
    Same("drbdadm status r0"),
    Same("drbdadm role r0"),
    Same("drbdadm cstate r0"),
    Same("drbdadm dstate r0"),
    Same("drbdadm dump r0 | grep -v ^#"),
    Same("drbdadm sh-status r0"),
    Same("drbdadm show-gi r0"),
    Same("drbdadm get-gi r0"),
    Same("drbdadm dump-md r0 | grep -v -e ^# -e ^device-uuid -e ^....0x"),
    Same("drbdadm create-md --force r0"),
    Same("drbdsetup show"),
    Same("drbdsetup show --show-defaults r0"),
    Same("drbdsetup status --verbose --statistics"),
    Same("drbdsetup events2 --now --statistics"),
    Same("drbdsetup sh-status"),
    Same("timeout 1 drbdsetup events2"),
    Same("grep -v -e ^srcversion -e ^GIT -e finish: -e sync.ed -e stalled /proc/drbd"),
];

/// What the tools show in each state of a node's life.
///
/// # Errors
/// What differs.
pub fn views(cluster: &Cluster) -> Result<()> {
    let [a, b] = two(cluster)?;
    let resource = Resource {
        net: "ping-timeout 20; connect-int 3;".into(),
        disk: "resync-rate 100M; c-plan-ahead 0;".into(),
        ..Resource::default()
    };
    resource.configure(cluster)?;
    let mut all = Vec::new();
    let look = |state: &str, all: &mut Vec<String>| {
        let mut found = Vec::new();
        compare(a, b, VIEWS, &mut found)?;
        all.extend(found.into_iter().map(|d| format!("{state}: {d}")));
        Ok::<(), Error>(())
    };
    cluster.each(|n| n.must("drbdadm create-md --force r0").map(|_| ()))?;
    look("no resource", &mut all)?;
    cluster.each(|n| {
        n.must("drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0")
            .map(|_| ())
    })?;
    look("Unconfigured", &mut all)?;
    cluster.each(|n| n.must("drbdadm attach r0").map(|_| ()))?;
    look("StandAlone", &mut all)?;
    cluster.wire.cut(0, 1);
    cluster.each(|n| n.must("drbdadm connect r0").map(|_| ()))?;
    cluster.each(|n| connection(n, "WFConnection"))?;
    look("WFConnection", &mut all)?;
    cluster.wire.heal();
    cluster.each(|n| connection(n, "Connected"))?;
    look("Connected, Inconsistent", &mut all)?;
    in_both_roles(cluster, &mut all)?;
    cluster.each(|n| n.must("drbdadm down r0").map(|_| ()))?;
    look("down", &mut all)?;
    verdict(&all)
}

fn connection(node: &Node, cs: &str) -> Result<()> {
    drbd::wait_for(node, cs, LONG, |s| s.cs == cs).map(|_| ())
}

/// Each node is Primary once and each is source and target once; what one showed is compared with
/// what the other shows when it is its turn.
fn in_both_roles(cluster: &Cluster, all: &mut Vec<String>) -> Result<()> {
    let [a, b] = two(cluster)?;
    a.must("drbdadm primary --force r0")?;
    cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))?;
    let mut seen: Vec<Vec<(String, String)>> = Vec::new();
    for primary in [a, b] {
        let other = if primary.name() == "a" { b } else { a };
        primary.must("drbdadm primary r0")?;
        seen.push(pictures("Primary", primary)?);
        seen.push(pictures("Secondary", other)?);
        // Slow enough to be looked at.
        cluster.each(|n| {
            n.must("drbdadm disk-options r0 --resync-rate=100k")
                .map(|_| ())
        })?;
        other.must("drbdadm invalidate r0")?;
        cluster.each(|n| {
            drbd::wait_for(n, "a resync", LONG, |s| s.cs.starts_with("Sync")).map(|_| ())
        })?;
        seen.push(pictures("SyncSource", primary)?);
        seen.push(pictures("SyncTarget", other)?);
        cluster.each(|n| {
            n.must("drbdsetup disk-options 0 --resync-rate=100M")
                .map(|_| ())
        })?;
        cluster.each(|n| drbd::wait_in_sync(n, LONG).map(|_| ()))?;
        primary.must("drbdadm secondary r0")?;
    }
    let (of_a, of_b) = seen.split_at(seen.len() / 2);
    // Of a's turn: Primary and source are ours. Of b's turn: Secondary and target are ours.
    for (i, (first, second)) in of_a.iter().zip(of_b).enumerate() {
        let (ours, c) = if i % 2 == 0 {
            (first, second)
        } else {
            (second, first)
        };
        for ((command, own), (_, other)) in ours.iter().zip(c) {
            if own != other {
                all.push(format!("{command}\nours: {own}C:    {other}"));
            }
        }
    }
    Ok(())
}

fn pictures(state: &str, node: &Node) -> Result<Vec<(String, String)>> {
    VIEWS
        .iter()
        .map(|step| {
            let (Same(command) | Differs(command, _) | Quiet(command)) = step;
            Ok((format!("{state}: # {command}"), outcome(node, command)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_and_counters_are_made_equal() {
        let text =
            "ns:12 nr:0 oos:5 wo:f\n0123456789ABCDEF:0000000000000000:1:0\nat 10.77.0.2:7788\n";
        let expected = "ns:N nr:N oos:N wo:f\nUUID:0000000000000000:1:0\nat ADDRESS:7788\n";
        assert_eq!(normal(text), expected);
    }
}
