// SPDX-License-Identifier: GPL-2.0
//! Records what a pair of C nodes concludes from UUIDs: `drbd-lab golden-uuid FOLDER`.
//!
//! `FOLDER/tuples.txt` names UUIDs of two nodes (see `tests/golden/README.md`). For each tuple that
//! has no outcome yet the metadata of both disks are given these UUIDs by the stock `drbdmeta
//! set-gi`, the nodes connect, and the line `uuid_compare()=…` of each kernel goes into the file.
//! The file is written after every tuple: an interrupted run goes on where it was.
//!
//! Only tuples for the version that both nodes speak (101) can be recorded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{pair, two};
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Context, Error, Result};
use crate::node::{Driver, Kernel, Node};

const LONG: Duration = Duration::from_secs(60);
/// The version that two C nodes agree on.
const APV: &str = "101";
/// How a kernel tells its conclusion.
const LINE: &str = "uuid_compare()=";

/// One line of the file.
struct Tuple<'a> {
    words: Vec<&'a str>,
}

impl<'a> Tuple<'a> {
    /// `None` for comments and for what needs not be recorded.
    fn wanted(line: &'a str) -> Option<Tuple<'a>> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, APV, _, _, _, _, _, _, a, b] if !name.starts_with('#') => {
                (*a == "-" || *b == "-").then_some(Tuple { words })
            }
            _ => None,
        }
    }

    /// UUIDs and flags of a node.
    fn node(&self, n: usize) -> [&'a str; 2] {
        let at = 2 + 2 * n;
        [self.words[at], self.words[at + 1]]
    }

    /// The line with the outcome.
    fn with(&self, outcome: &[String; 2]) -> String {
        let [a, b] = outcome;
        let kept = self.words[..8].join(" ");
        format!("{kept} {a} {b}")
    }
}

/// Records all tuples of `folder` that have no outcome yet.
///
/// # Errors
/// The first step that fails.
pub fn record(folder: &Path) -> Result<()> {
    let path = folder.join("tuples.txt");
    let text = fs::read_to_string(&path).context(path.display())?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let specs = pair([Driver::C, Driver::C], Kernel::Release, 4);
    let cluster = Cluster::start("golden-uuid", &specs)?;
    let outcome = prepare(&cluster).and_then(|()| all(&cluster, &path, &mut lines));
    cluster.end(outcome)
}

/// Metadata with an agreed size, and a configuration in which nothing gets in the way: a split
/// brain stays one, both nodes may be Primary, and a resync is slow enough to be interrupted.
fn prepare(cluster: &Cluster) -> Result<()> {
    let resource = Resource {
        net: "allow-two-primaries yes;".into(),
        disk: "resync-rate 1M; c-plan-ahead 0;".into(),
        ..Resource::default()
    };
    resource.configure(cluster)?;
    drbd::create_and_up(cluster)?;
    cluster.each(|n| n.must("drbdadm down r0").map(|_| ()))
}

fn all(cluster: &Cluster, path: &Path, lines: &mut [String]) -> Result<()> {
    let nodes = two(cluster)?;
    let mut done = 0_u32;
    for at in 0..lines.len() {
        let line = lines[at].clone();
        let Some(tuple) = Tuple::wanted(&line) else {
            continue;
        };
        let outcome = one(cluster, nodes, &tuple).map_err(|e| {
            let name = tuple.words.first().copied().unwrap_or_default();
            Error::new(format!("tuple {name}: {e}"))
        })?;
        lines[at] = tuple.with(&outcome);
        fs::write(path, lines.join("\n") + "\n").context(path.display())?;
        done += 1;
    }
    println!("{done} tuples recorded");
    Ok(())
}

/// Sets, connects, reads both logs, and takes everything down again.
fn one(cluster: &Cluster, nodes: [&Node; 2], tuple: &Tuple<'_>) -> Result<[String; 2]> {
    let [a, b] = [0, 1].map(|n| tuple.node(n));
    cluster.each(|n| attach(n, if n.name() == "a" { a } else { b }))?;
    cluster.each(|n| n.must("drbdadm connect r0").map(|_| ()))?;
    let found = nodes.map(conclusion);
    // Whatever came of it: a split brain leaves them StandAlone, a resync runs.
    cluster.each(|n| n.must_for("drbdadm down r0", LONG).map(|_| ()))?;
    let [a, b] = found;
    Ok([a?, b?])
}

/// Gives the disk its UUIDs and attaches it, without a connection. The seven flags behind the UUIDs
/// are those of `drbdmeta get-gi`: good data, in no way special but for the crash.
fn attach(node: &Node, [uuids, flags]: [&str; 2]) -> Result<()> {
    let crashed = u8::from(flags.contains('c'));
    let gi = format!("{uuids}:1:1:0:0:0:0:{crashed}");
    let meta = "drbdmeta --force 0 v08 /dev/vdc internal";
    node.must("dmesg -C; drbdadm apply-al r0")?;
    node.must(&format!("{meta} set-gi {gi}"))?;
    node.must("drbdsetup new-resource r0 && drbdsetup new-minor r0 0 0")?;
    node.must("drbdadm attach r0")?;
    if flags.contains('P') {
        node.must("drbdsetup primary 0")?;
    }
    Ok(())
}

/// What the kernel of a node concluded first.
fn conclusion(node: &Node) -> Result<String> {
    let seen = format!("dmesg | grep -q -F '{LINE}'");
    node.wait_until(&seen, LONG)?;
    let log = node.must(&format!("dmesg | grep -F '{LINE}' | head -n 1"))?;
    parse(&log).ok_or_else(|| Error::new(format!("{}: {log}", node.name())))
}

/// `uuid_compare()=-1 by rule 50` as `-1/50`.
fn parse(log: &str) -> Option<String> {
    let (_, rest) = log.split_once(LINE)?;
    let (number, rest) = rest.split_once(" by rule ")?;
    let rule = rest.split_whitespace().next()?;
    let number: i32 = number.trim().parse().ok()?;
    let rule: u16 = rule.parse().ok()?;
    Some(format!("{number}/{rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conclusion_is_found_in_its_line() {
        let line = "[   12.3] drbd r0/0 drbd0: uuid_compare()=-1 by rule 50\n";
        assert_eq!(parse(line).as_deref(), Some("-1/50"));
        let line = "block drbd0: uuid_compare()=-65637 by rule 41";
        assert_eq!(parse(line).as_deref(), Some("-65637/41"));
        assert_eq!(parse("uuid_compare()=x by rule 41"), None);
    }

    #[test]
    fn only_what_is_missing_is_recorded() {
        let line = "n 101 1:2:3:4 c 5:6:7:8 - -1/50 1/70 - -";
        let t = Tuple::wanted(line).unwrap();
        assert_eq!(t.node(0), ["1:2:3:4", "c"]);
        assert_eq!(t.node(1), ["5:6:7:8", "-"]);
        let full = t.with(&["-1/50".into(), "1/70".into()]);
        assert_eq!(full, "n 101 1:2:3:4 c 5:6:7:8 - -1/50 1/70 -1/50 1/70");
        assert!(Tuple::wanted(&full).is_none());
        assert!(Tuple::wanted("n 95 1:2:3:4 c 5:6:7:8 - -1/50 1/70 - -").is_none());
        assert!(Tuple::wanted("# n 101").is_none());
    }

    /// The file in the repository is one that this reads.
    #[test]
    fn the_tuples_are_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/uuid/tuples.txt");
        let text = fs::read_to_string(path).unwrap();
        let known = text.lines().filter(|l| l.contains(" 101 ")).count();
        assert!(known >= 150, "{known}");
    }
}
