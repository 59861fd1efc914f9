// SPDX-License-Identifier: GPL-2.0
//! Captures reference data from a pair of C nodes, for the codecs' tests.
//!
//! Two runs on disks of 4 MiB: a plain one, and one with authentication, checksums and without
//! compressed bitmaps. What is written where is said in `tests/golden/README.md`; keep the two in
//! step. The data differs from capture to capture (UUIDs, pointers as block ids), so it serves as
//! input with known meaning and not to be compared byte by byte with a new capture.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{data_bytes, pair, two};
use crate::cluster::Cluster;
use crate::disk::{Disk, BLOCK};
use crate::drbd::{self, Resource};
use crate::error::{Context, Result};
use crate::node::{Driver, Kernel, Node};
use crate::tcp;

const LONG: Duration = Duration::from_secs(60);
/// Payloads longer than this are cut in the listing, never in the streams.
const LISTED: usize = 48;

struct Capture<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    step: u32,
}

/// Captures everything into `folder`, replacing what is there of the same names.
///
/// # Errors
/// The first step that fails.
pub fn capture(folder: &Path) -> Result<()> {
    let plain = Resource {
        net: "verify-alg crc32c;".into(),
        ..Resource::default()
    };
    one_run(&folder.join("plain"), &plain)?;
    let net = "cram-hmac-alg sha256; shared-secret golden; csums-alg md5; verify-alg crc32c; \
               data-integrity-alg crc32c; use-rle no;";
    one_run(
        &folder.join("checked"),
        &Resource {
            net: net.into(),
            ..Resource::default()
        },
    )
}

fn one_run(folder: &Path, resource: &Resource) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).context(folder.display())?;
    let specs = pair([Driver::C, Driver::C], Kernel::Release, 4);
    let cluster = Cluster::start_capturing("golden", &specs, 70_000)?;
    let mut c = Capture {
        cluster: &cluster,
        folder: folder.to_owned(),
        step: 0,
    };
    let outcome = c.story(resource).and_then(|()| c.wire());
    cluster.end(outcome)
}

impl Capture<'_> {
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, content).context(path.display())
    }

    /// The metadata area of a node's disk, as it is on the platter and in the cache.
    fn metadata(&self, node: &Node, moment: &str) -> Result<()> {
        let image = metadata(node.disk(0))?;
        self.write(&format!("md-{}-{moment}.bin", node.name()), image)
    }

    fn proc_drbd(&self, node: &Node, moment: &str) -> Result<()> {
        self.write(
            &format!("proc-{}-{moment}.txt", node.name()),
            node.must("cat /proc/drbd")?,
        )
    }

    /// Runs a command on `node` and keeps what went over netlink meanwhile.
    fn netlink(&mut self, node: &Node, name: &str, command: &str) -> Result<String> {
        self.step += 1;
        let file = format!("nl-{:02}-{name}.txt", self.step);
        let tcpdump =
            node.spawn("exec tcpdump -i nlmon0 --immediate-mode -s 65535 -U -w /run/nl.pcap")?;
        node.wait_until("test -s /run/nl.pcap", LONG)?;
        let out = node.must_for(command, LONG)?;
        // What was sent before the command ended is in the socket of tcpdump by now.
        std::thread::sleep(Duration::from_millis(300));
        node.must("pkill -INT tcpdump; while pgrep tcpdump; do sleep 0.05; done")?;
        drop(tcpdump);
        let pcap = node.get("/run/nl.pcap")?;

        node.must("rm /run/nl.pcap")?;
        let mut text = format!("# {command}\n");
        for line in netlink_lines(&pcap) {
            text.push_str(&line);
        }
        self.write(&file, text)?;
        Ok(out)
    }

    fn story(&mut self, resource: &Resource) -> Result<()> {
        let [a, b] = two(self.cluster)?;
        resource.configure(self.cluster)?;
        self.cluster.each(|n| {
            n.must("modprobe nlmon; ip link add nlmon0 type nlmon; ip link set nlmon0 up")?;
            n.must("drbdadm create-md --force r0").map(|_| ())
        })?;
        self.metadata(a, "created")?;
        b.must("drbdadm up r0")?;
        self.attach_and_connect(a)?;
        drbd::wait_for(a, "a connection", LONG, |s| s.cs == "Connected")?;
        self.proc_drbd(a, "inconsistent")?;
        self.netlink(
            a,
            "new-current-uuid",
            "drbdsetup new-current-uuid --clear-bitmap 0",
        )?;
        drbd::wait_in_sync(a, LONG)?;
        self.netlink(a, "primary", "drbdsetup primary 0")?;
        self.proc_drbd(a, "primary")?;
        self.metadata(a, "primary")?;
        self.texts(a)?;
        self.traffic(a, b)?;
        self.hand_over(a, b)?;
        self.crash(a, b, resource)
    }

    fn attach_and_connect(&mut self, a: &Node) -> Result<()> {
        self.netlink(a, "new-resource", "drbdsetup new-resource r0")?;
        self.netlink(a, "new-minor", "drbdsetup new-minor r0 0 0")?;
        a.must("drbdadm apply-al r0")?;
        self.netlink(a, "attach", "drbdsetup attach 0 /dev/vdc /dev/vdc internal")?;
        self.metadata(a, "attached")?;
        self.proc_drbd(a, "attached")?;
        // The options of the file; drbdadm prints how it would call drbdsetup.
        let connect = a.must("drbdadm -d connect r0")?;
        self.netlink(
            a,
            "connect",
            &format!("PATH=$PATH:/usr/lib/drbd; {}", connect.trim()),
        )
        .map(|_| ())
    }

    /// What the query commands print, and say over netlink, with a connected primary.
    fn texts(&mut self, a: &Node) -> Result<()> {
        for (name, command) in [
            ("show", "drbdsetup show r0"),
            ("show-defaults", "drbdsetup show --show-defaults r0"),
            ("status", "drbdsetup status --verbose --statistics r0"),
            ("sh-status", "drbdsetup sh-status"),
            ("events2", "drbdsetup events2 --now --statistics r0"),
            ("events", "timeout 1 drbdsetup events r0 || true"),
            ("role", "drbdsetup role 0"),
            ("timeout-type", "drbdsetup wait-connect 0"),
        ] {
            let out = self.netlink(a, name, command)?;
            self.write(&format!("text-{name}.txt"), out)?;
        }
        self.netlink(a, "refused", "drbdsetup del-minor 0; test $? -ne 0")?;
        self.netlink(a, "unknown", "drbdsetup primary 77; test $? -ne 0")
            .map(|_| ())
    }

    /// Writes, a discard, a flush, an outage with a small resync, a verify.
    fn traffic(&mut self, a: &Node, b: &Node) -> Result<()> {
        let dd = |seek: u32, count: u32| {
            format!(
                "dd if=/dev/urandom of=/dev/drbd0 oflag=direct bs=4k seek={seek} count={count} \
                     status=none"
            )
        };
        a.must(&dd(0, 3))?;
        a.must("dd if=/dev/urandom of=/dev/drbd0 oflag=direct bs=64k seek=2 count=1 status=none")?;
        a.must(
            "dd if=/dev/urandom of=/dev/drbd0 oflag=direct,sync bs=512 seek=900 count=1 \
                status=none",
        )?;
        a.must("blkdiscard -o 1048576 -l 65536 /dev/drbd0 || true")?;
        a.must("blkdiscard -z -o 2097152 -l 65536 /dev/drbd0")?;
        self.netlink(a, "disconnect", "drbdadm disconnect r0")?;
        self.proc_drbd(a, "disconnected")?;
        a.must(&dd(100, 2))?;
        a.must(&dd(300, 1))?;
        self.metadata(a, "disconnected")?;
        a.must("drbdadm connect r0")?;
        drbd::wait_in_sync(a, LONG)?;
        drbd::wait_in_sync(b, LONG)?;
        self.proc_drbd(b, "resynced")?;
        self.metadata(b, "resynced")?;
        // A difference for the verify to find, made behind the driver's back.
        b.disk(0).write(200 * BLOCK as u64, &[0xee; BLOCK], true)?;
        self.netlink(a, "verify", "drbdadm verify r0")?;
        drbd::wait_for(a, "the end of the verify", LONG, |s| {
            s.cs == "Connected" && s.oos > 0
        })?;
        self.proc_drbd(a, "verified")
    }

    fn hand_over(&mut self, a: &Node, b: &Node) -> Result<()> {
        self.netlink(a, "secondary", "drbdsetup secondary 0")?;
        b.must("drbdadm primary r0")?;
        self.metadata(b, "primary")?;
        b.must("drbdadm secondary r0")?;
        self.netlink(b, "invalidate", "drbdadm invalidate r0")?;
        drbd::wait_in_sync(b, LONG)?;
        a.must("drbdadm primary r0").map(|_| ())
    }

    /// The primary loses power in the middle of writes: what its disk holds then, and after.
    fn crash(&mut self, a: &Node, b: &Node, resource: &Resource) -> Result<()> {
        let _cut = a.spawn(
            "while :; do dd if=/dev/urandom of=/dev/drbd0 oflag=direct,sync bs=4k seek=10 count=5 \
             status=none; done",
        )?;
        std::thread::sleep(Duration::from_millis(800));
        self.cluster.wire.flush_capture();
        a.crash(1)?;
        self.metadata(a, "crashed")?;
        drbd::wait_for(b, "the loss of a", LONG, |s| s.cs != "Connected")?;
        self.proc_drbd(b, "alone")?;
        a.start()?;
        let text = resource.config(&self.cluster.nodes);
        a.put("/etc/drbd.conf", 0o644, text.as_bytes())?;
        a.must("drbdadm apply-al r0")?;
        self.metadata(a, "replayed")?;
        a.must("drbdadm up r0")?;
        drbd::wait_in_sync(a, LONG)?;
        a.must("drbdadm down r0")?;
        self.metadata(a, "down")?;
        b.must("drbdadm down r0").map(|_| ())
    }

    /// The streams of both sockets and a listing of their packets.
    fn wire(&self) -> Result<()> {
        self.cluster.wire.flush_capture();
        let pcap = fs::read(self.cluster.dir().join("wire.pcap"))?;
        let mut listing = String::new();
        for (n, (flow, bytes)) in tcp::streams(&pcap)?.into_iter().enumerate() {
            let packets = tcp::packets(&bytes);
            // Full syncs are all payload: of a long stream its listing and its beginning do.
            let end = packets
                .iter()
                .map(|(at, _, _, len)| at + len)
                .take_while(|e| *e < 90_000);
            let kept = end.last().unwrap_or(0);
            let name = format!(
                "wire-{n:02}-{}-to-{}.bin",
                host(flow.from.0),
                host(flow.to.0)
            );
            listing.push_str(&format!(
                "{name}: ports {} to {}, {} of {} bytes kept\n",
                flow.from.1,
                flow.to.1,
                kept,
                bytes.len()
            ));
            for (at, header, command, len) in packets {
                if at >= kept {
                    break;
                }
                let body = bytes.get(at + header..at + len).unwrap_or_default();
                let shown = body.get(..LISTED).unwrap_or(body);
                let hex: String = shown.iter().map(|b| format!("{b:02x}")).collect();
                let dots = if body.len() > LISTED { ".." } else { "" };
                let line = format!("  {at:6} {header:2} {command:#06x} {:6} {hex}{dots}\n", len);
                listing.push_str(&line);
            }
            self.write(&name, bytes.get(..kept).unwrap_or(&bytes))?;
        }
        self.write("wire.txt", listing)
    }
}

fn host(address: u8) -> char {
    char::from(b'a' + address.saturating_sub(1))
}

fn metadata(disk: &Disk) -> Result<Vec<u8>> {
    let first = data_bytes(disk.size()) / BLOCK as u64;
    let mut image = Vec::new();
    for block in first..disk.size() / BLOCK as u64 {
        image.extend_from_slice(disk.peek(block)?.as_slice());
    }
    Ok(image)
}

/// The generic netlink messages of an nlmon capture, a line each: `out` (from user space) or `in`,
/// then the whole message in hexadecimal digits.
fn netlink_lines(pcap: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = pcap.get(24..).unwrap_or_default();
    while let Some((head, tail)) = rest.split_first_chunk::<16>() {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((frame, tail)) = tail.split_at_checked(len) else {
            break;
        };
        rest = tail;
        // A cooked header of 16 bytes comes first; its last field is the netlink protocol.
        let Some((cooked, message)) = frame.split_at_checked(16) else {
            continue;
        };
        if cooked.get(15) != Some(&16) {
            continue;
        }
        // NLM_F_REQUEST: what user space sends has it, what the kernel answers has not.
        let way = if message.get(6).is_some_and(|f| f & 1 != 0) {
            "out"
        } else {
            "in"
        };
        let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
        lines.push(format!("{way} {hex}\n"));
    }
    lines
}
