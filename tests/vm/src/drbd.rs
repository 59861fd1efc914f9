// SPDX-License-Identifier: GPL-2.0
//! DRBD as an administrator handles it: configuration, /proc/drbd, waiting for states.
//!
//! Only stock tools and documented files are used, so everything works alike on both drivers.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::node::Node;

/// The one resource of most tests: `r0`, /dev/drbd0 on /dev/vdc, internal metadata, port 7788.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// Lines for `net { }`.
    pub net: String,
    /// Lines for `disk { }`.
    pub disk: String,
    /// Lines for `handlers { }`.
    pub handlers: String,
    /// Lines for `options { }`.
    pub options: String,
    /// Protocol: A, B or C; empty for C.
    pub protocol: String,
}

impl Resource {
    /// The configuration file for these nodes.
    pub fn config(&self, nodes: &[Node]) -> String {
        let protocol = if self.protocol.is_empty() {
            "C"
        } else {
            &self.protocol
        };
        // A checked, emulated node answers slowly; a ping must not be lost to that.
        let slow = nodes.iter().any(|n| n.spec().kernel.patience() > 1);
        let patience = if slow {
            "ping-timeout 100; timeout 300; connect-int 31;"
        } else {
            ""
        };
        let (net, disk, handlers) = (&self.net, &self.disk, &self.handlers);
        let options = &self.options;
        let mut text = format!(
            "global {{ usage-count no; }}\nresource r0 {{\n  protocol {protocol};\n  \
             net {{ {patience} {net} }}\n  disk {{ {disk} }}\n  \
             handlers {{ {handlers} }}\n  options {{ {options} }}\n"
        );
        for n in nodes {
            text.push_str(&format!(
                "  on {} {{ device /dev/drbd0 minor 0; disk /dev/vdc; meta-disk internal; \
                 address {}:7788; }}\n",
                n.name(),
                n.address()
            ));
        }
        text.push_str("}\n");
        text
    }

    /// Puts the configuration on every node of a cluster.
    ///
    /// # Errors
    /// Those of the nodes.
    pub fn configure(&self, cluster: &Cluster) -> Result<()> {
        let text = self.config(&cluster.nodes);
        cluster.each(|n| n.put("/etc/drbd.conf", 0o644, text.as_bytes()))
    }
}

/// What /proc/drbd says about a minor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Connection state.
    pub cs: String,
    /// Own role and the peer's, as `Primary/Secondary`.
    pub ro: String,
    /// Own disk state and the peer's, as `UpToDate/UpToDate`.
    pub ds: String,
    /// The protocol's letter.
    pub protocol: String,
    /// Six flags: suspended, resync paused by another one, by the peer, by the user, congestion,
    /// activity log suspended.
    pub flags: String,
    /// KiB sent over the network.
    pub ns: u64,
    /// KiB received from the network.
    pub nr: u64,
    /// KiB written to the disk.
    pub dw: u64,
    /// Requests that wait for the peer.
    pub pe: u64,
    /// KiB out of sync.
    pub oos: u64,
}

impl Status {
    /// Reads the two lines of `minor` out of the whole text; `None` if it is not there.
    pub fn parse(text: &str, minor: u32) -> Option<Self> {
        let start = format!("{minor}: ");
        let mut lines = text
            .lines()
            .skip_while(|l| !l.trim_start().starts_with(&start));
        let words = [lines.next()?, lines.next().unwrap_or_default()].join(" ");
        let field = |key: &str| {
            let (_, v) = words
                .split_whitespace()
                .filter_map(|w| w.split_once(':'))
                .find(|(k, _)| *k == key)?;
            Some(v.to_owned())
        };
        let number = |key: &str| field(key).and_then(|v| v.parse().ok()).unwrap_or(0);
        let mut bare = words.split_whitespace().filter(|w| !w.contains(':'));
        Some(Self {
            cs: field("cs")?,
            ro: field("ro").unwrap_or_default(),
            ds: field("ds").unwrap_or_default(),
            protocol: bare.next().unwrap_or_default().to_owned(),
            flags: bare.next().unwrap_or_default().to_owned(),
            ns: number("ns"),
            nr: number("nr"),
            dw: number("dw"),
            pe: number("pe"),
            oos: number("oos"),
        })
    }

    /// What minor 0 of `node` is in.
    ///
    /// # Errors
    /// When /proc/drbd or the minor is missing.
    pub fn of(node: &Node) -> Result<Self> {
        Self::of_minor(node, 0)
    }

    /// What a minor of `node` is in.
    ///
    /// # Errors
    /// When /proc/drbd or the minor is missing.
    pub fn of_minor(node: &Node, minor: u32) -> Result<Self> {
        // Asked for many times while a test waits: a shell each time would cost more than the wait.
        let text = String::from_utf8_lossy(&node.get("/proc/drbd")?).into_owned();
        Self::parse(&text, minor)
            .ok_or_else(|| Error::new(format!("{}: no minor {minor} in:\n{text}", node.name())))
    }
}

/// What the stock tools read from the metadata of r0 while it is down and its log is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaData {
    /// The generation UUIDs and flags, see [`generation`].
    pub generation: String,
    /// KiB that the bitmap says are out of sync.
    pub oos: u64,
    /// The dump without its comments.
    pub text: String,
}

impl MetaData {
    /// What the metadata of `node` says.
    ///
    /// # Errors
    /// When the tools refuse it.
    pub fn of(node: &Node) -> Result<Self> {
        let dump = node.must("drbdadm dump-md r0")?;
        Self::parse(&dump, generation(node)?)
            .ok_or_else(|| Error::new(format!("{}: no dump:\n{dump}", node.name())))
    }

    fn parse(dump: &str, generation: String) -> Option<Self> {
        let text = dump.lines().filter(|l| !l.trim_start().starts_with('#'));
        let text = text.collect::<Vec<_>>().join("\n");
        Some(Self {
            generation,
            oos: Self::bits_set(&text)? * 4,
            text,
        })
    }

    /// The bits set for blocks of the device. The sum that the dump itself has at its end is over
    /// whole pages, and the C driver leaves what its memory happened to hold behind the last word.
    fn bits_set(dump: &str) -> Option<u64> {
        let (head, bitmap) = dump.split_once("bm {")?;
        let sectors = head
            .lines()
            .find_map(|l| l.strip_prefix("la-size-sect ")?.strip_suffix(';'))?;
        let mut left = sectors.parse::<u64>().ok()?.div_ceil(8);
        let mut set = 0;
        for part in bitmap.split_once('}')?.0.split_terminator(';') {
            let Some((before, word)) = part.split_once("0x") else {
                continue;
            };
            let times = before.trim().strip_suffix("times");
            let times = times.map_or(Ok(1), |n| n.trim().parse::<u64>()).ok()?;
            let word = u64::from_str_radix(word.trim(), 16).ok()?;
            let whole = times.min(left / 64);
            set += whole * u64::from(word.count_ones());
            left -= whole * 64;
            if whole < times && left > 0 {
                set += u64::from((word & ((1 << left) - 1)).count_ones());
                left = 0;
            }
        }
        Some(set)
    }
}

/// The generation UUIDs and flags of r0 as the tools show them: from the driver while it is up,
/// from the disk otherwise. `UUID:UUID:UUID:UUID:` and seven flags, of which the third is whether
/// the node is or was primary.
///
/// # Errors
/// When there are none.
pub fn generation(node: &Node) -> Result<String> {
    Ok(node.must("drbdadm get-gi r0")?.trim().to_owned())
}

/// The four UUIDs of a [`generation`], without the bit that says whether the node is primary.
pub fn uuids(generation: &str) -> Vec<u64> {
    let words = generation.split(':').take(4);
    words
        .map_while(|w| u64::from_str_radix(w, 16).ok())
        .map(|u| u & !1)
        .collect()
}

/// Waits until minor 0 of `node` is in what `wanted` accepts; `what` says it in words.
///
/// # Errors
/// When it is not within `timeout` (more on a checked kernel).
pub fn wait_for(
    node: &Node,
    what: &str,
    timeout: Duration,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Status> {
    wait_for_minor(node, 0, what, timeout, wanted)
}

/// [`wait_for`] with another minor.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_for_minor(
    node: &Node,
    minor: u32,
    what: &str,
    timeout: Duration,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Status> {
    let end = std::time::Instant::now() + node.patience(timeout);
    loop {
        let status = Status::of_minor(node, minor)?;
        if wanted(&status) {
            return Ok(status);
        }
        if std::time::Instant::now() > end {
            return Err(Error::new(format!(
                "{}: waited {:?} in vain for {what}: {status:?}",
                node.name(),
                node.patience(timeout)
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a node is connected and both disks are up to date.
///
/// # Errors
/// As [`wait_for`].
pub fn wait_in_sync(node: &Node, timeout: Duration) -> Result<Status> {
    wait_for(node, "Connected UpToDate/UpToDate", timeout, |s| {
        s.cs == "Connected" && s.ds == "UpToDate/UpToDate"
    })
}

/// Creates metadata on all nodes, brings r0 up and waits until the nodes are connected.
///
/// # Errors
/// Those of the tools.
pub fn create_and_up(cluster: &Cluster) -> Result<()> {
    cluster.each(|n| n.must("drbdadm create-md --force r0").map(|_| ()))?;
    cluster.each(|n| n.must("drbdadm up r0").map(|_| ()))?;
    cluster.each(|n| {
        wait_for(n, "a connection", Duration::from_secs(60), |s| {
            s.cs == "Connected"
        })
        .map(|_| ())
    })
}

/// Ends r0 everywhere and unloads the driver: nothing may be left that keeps it.
///
/// # Errors
/// When a step fails.
pub fn down_and_unload(cluster: &Cluster) -> Result<()> {
    cluster.each(|n| {
        n.must("drbdadm down r0")?;
        n.must("rmmod $(lsmod | grep -o -w -e '^drbd' -e '^drbd_rs')")?;
        n.must("test ! -e /proc/drbd").map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read() {
        let dump = "# drbdmeta\nla-size-sect 16;\n# bm-bytes 8;\nbm {\n   # at 0kB\n    \
            0x0000000000000003;\n}\n# bits-set 2;\n";
        let m = MetaData::parse(dump, "A:0:B:0:1:1:0:0:0:0:0".into()).unwrap();
        assert_eq!(m.oos, 8);
        assert_eq!(m.text, "la-size-sect 16;\nbm {\n    0x0000000000000003;\n}");
        assert_eq!(uuids(&m.generation), [0xa, 0, 0xa, 0]);
        assert_eq!(MetaData::parse("", String::new()), None);
    }

    /// 200 blocks are three words and a byte; what lies behind is nobody's.
    #[test]
    fn bits_behind_the_device_do_not_count() {
        let dump = |rest: &str| {
            format!("la-size-sect 1600;\nbm {{\n    0x01; 0x00;\n    0x03; {rest}\n}}\n")
        };
        assert_eq!(MetaData::bits_set(&dump("0xFFFF;")), Some(11));
        assert_eq!(
            MetaData::bits_set(&dump("2 times 0x0000000000000180;")),
            Some(4)
        );
        assert_eq!(MetaData::bits_set(&dump("0x0; 384 times 0xFF;")), Some(3));
        let runs = "la-size-sect 1600;\nbm {\n    512 times 0xFFFFFFFFFFFFFFFF;\n}\n";
        assert_eq!(MetaData::bits_set(runs), Some(200));
        assert_eq!(MetaData::bits_set("la-size-sect 0;\nbm {\n}\n"), Some(0));
    }

    #[test]
    fn proc_drbd_is_read() {
        let text = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: X\n\n \
             1: cs:Unconfigured\n \
             2: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    \
             ns:12 nr:1 dw:2 dr:3 al:4 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:4096\n";
        let s = Status::parse(text, 2).unwrap();
        assert_eq!(
            (s.cs.as_str(), s.ds.as_str()),
            ("SyncSource", "UpToDate/Inconsistent")
        );
        assert_eq!((s.ns, s.dw, s.pe, s.oos), (12, 2, 0, 4096));
        assert_eq!((s.protocol.as_str(), s.flags.as_str()), ("C", "r-----"));
        assert_eq!(Status::parse(text, 1).unwrap().cs, "Unconfigured");
        assert_eq!(Status::parse(text, 0), None);
    }
}
