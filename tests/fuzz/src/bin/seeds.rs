// SPDX-License-Identifier: GPL-2.0

//! Writes the seeds of `tests/fuzz/corpus` from what a pair of C nodes sent and wrote
//! (`tests/golden`): `cargo run -p drbd-fuzz --bin drbd-seeds`, after `make golden`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use drbd_core::wire::{Command, Socket};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let folder = root().join("tests/fuzz/corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a seed");
}

fn main() {
    for name in ["plain", "checked"] {
        wire(name);
        metadata(name);
        netlink(name);
    }
    nodes();
    handshakes();
    bitmaps();
}

/// A packet of a capture.
struct Packet {
    command: Command,
    handshake: bool,
    bytes: Vec<u8>,
}

/// The packets of each stream, by the captures' table of contents.
fn streams(name: &str) -> Vec<Vec<Packet>> {
    let dir = root().join("tests/golden").join(name);
    let table = fs::read_to_string(dir.join("wire.txt")).expect("wire.txt");
    let (mut stream, mut all) = (Vec::new(), Vec::new());
    for line in table.lines() {
        if let Some((file, _)) = line.split_once(": ports") {
            stream = fs::read(dir.join(file)).expect("a captured stream");
            all.push(Vec::new());
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, header, command, whole, ..] = words[..] else {
            continue;
        };
        let numbers = (at.parse::<usize>(), whole.parse::<usize>());
        let (Ok(at), Ok(whole)) = numbers else {
            continue;
        };
        let nr = u16::from_str_radix(command.trim_start_matches("0x"), 16).expect("a number");
        let packet = Packet {
            command: Command::from_number(nr).expect("a known command"),
            handshake: header == "8",
            bytes: stream[at..at + whole].to_vec(),
        };
        all.last_mut().expect("a stream").push(packet);
    }
    all
}

/// One packet of each kind; data are cut off, nothing looks at them.
fn wire(name: &str) {
    let mut seen = BTreeSet::new();
    for p in streams(name).into_iter().flatten() {
        let on = match p.command.socket() {
            Socket::Data => 0,
            Socket::Meta | Socket::Both => 1,
            Socket::Handshake => 2,
            Socket::First | Socket::Nowhere => 3,
        };
        let version = if p.handshake { 0 } else { 16 };
        let mut seed = vec![version, on, 15];
        seed.extend(p.bytes.iter().take(300));
        if seen.insert(p.command.number()) {
            put("wire", &format!("{name}-{}", p.command.name()), &seed);
        }
    }
}

fn metadata(name: &str) {
    let dir = root().join("tests/golden").join(name);
    for file in ["md-a-created", "md-a-crashed", "md-b-resynced"] {
        let area = fs::read(dir.join(format!("{file}.bin"))).expect("an area");
        let block = |n: usize| &area[n * 4096..(n + 1) * 4096];
        // Internal metadata on a device of 64 MiB, as it is and made to fit; see `superblock.rs`.
        for hints in [0, 4] {
            let mut seed = vec![hints, 1];
            for _ in 0..2 {
                seed.extend((131_072_u64).to_le_bytes());
                seed.push(0);
            }
            seed.extend(1237_u32.to_le_bytes());
            seed.extend(block(9).iter().take(128));
            put("superblock", &format!("{name}-{file}-{hints}"), &seed);
        }
        let mut seed = Vec::new();
        for n in [1, 2] {
            seed.push(3);
            seed.extend(block(n));
        }
        put("al_block", &format!("{name}-{file}"), &seed);
    }
}

fn netlink(name: &str) {
    let dir = root().join("tests/golden").join(name);
    let mut files: Vec<_> = fs::read_dir(&dir)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort();
    for path in files {
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        if !file.starts_with("nl-") || file.contains("events") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("messages");
        let message = text.lines().filter_map(|l| l.split_once(' '));
        // 16 bytes of nlmsghdr, 4 of genlmsghdr; 0x10 is the controller of generic netlink.
        let longest = message
            .map(|(_, hex)| unhex(hex))
            .filter(|m| m.len() > 28 && m[4] != 0x10 && m.len() < 1500)
            .max_by_key(Vec::len);
        if let Some(m) = longest {
            let mut seed = vec![m[16], 0, 0xff, 0x07];
            seed.extend(&m[20..]);
            put("netlink", &format!("{name}-{file}"), &seed);
        }
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits = hex.trim().as_bytes().chunks_exact(2);
    digits
        .map_while(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok())
        .collect()
}

/// Both machines, with and without a secret.
fn handshakes() {
    let all = streams("plain").into_iter().flatten();
    let features = all
        .filter(|p| p.command == Command::ConnectionFeatures)
        .map(|p| p.bytes)
        .next()
        .expect("a handshake");
    for secret in [0, 1] {
        let mut seed = vec![0, 15, 15, secret, 3];
        if secret == 1 {
            seed.extend([7; 64]);
        }
        // The cursor reads 16 bytes of which the second half is body; see `handshake.rs`.
        seed.extend(&features);
        seed.push(1);
        for (command, length) in [(0x10_u16, 64_u32), (0x11, 20)] {
            let mut header = vec![0x86, 0x20, 0xec, 0x20, 0, 0];
            header.extend(command.to_be_bytes());
            header.extend(length.to_be_bytes());
            header.extend([0; 4]);
            seed.extend(header);
            seed.extend(vec![9; length as usize]);
            seed.push(1);
        }
        put("handshake", &format!("secret-{secret}"), &seed);
    }
    put(
        "handshake",
        "dance-quick",
        &[1, 1, 0, 0, 1, 0, 0, 1, 1, 0, 0],
    );
    put(
        "handshake",
        "dance-accept",
        &[1, 0, 0, 0, 2, 1, 1, 1, 0, 0, 2, 0, 1, 1, 0, 0, 1, 1, 0, 0],
    );
    put(
        "handshake",
        "dance-crossed",
        &[1, 1, 0, 0, 0, 2, 0, 1, 1, 1, 0, 3, 1, 1, 1, 1, 0],
    );
}

fn bitmaps() {
    let mut stretches = Vec::new();
    for (kind, len) in [
        (0_u8, 30_000_u16),
        (1, 20_000),
        (2, 900),
        (0, 1),
        (1, 40_000),
    ] {
        stretches.push(kind);
        stretches.extend(len.to_le_bytes());
    }
    for (name, hints, version) in [("rle", 1, 15), ("plain", 3, 15), ("old", 1, 3)] {
        let mut seed = vec![hints, version];
        seed.extend(99_999_u32.to_le_bytes());
        seed.extend(&stretches);
        put("bitmap", &format!("send-{name}"), &seed);
    }
    let mut seed = vec![0, 15];
    seed.extend(2000_u32.to_le_bytes());
    let code = [0x82, 0x37, 0xa9, 0x5f, 0x01];
    seed.extend([1, code.len() as u8, 0]);
    seed.extend(code);
    put("bitmap", "receive-rle", &seed);
    let mut seed = vec![0, 15];
    seed.extend(2000_u32.to_le_bytes());
    seed.extend([0, 0, 1]);
    seed.extend([0x5a; 256]);
    put("bitmap", "receive-plain", &seed);
}

/// Volume 0 attached, connected, greeted by its peer; see `node::admin::start` and `node::peer`.
fn begun(uuid: u8, flags: u8, state: u32) -> Vec<u8> {
    let mut seed = vec![7, 23];
    seed.extend([0, 1, 0, uuid, 0, flags, 0, 0, 0, 0, 1]);
    seed.push(10);
    // PROTOCOL as here; 64 MiB/s.
    seed.extend([0, 0xff, 0xff, 0, 0, 0, 0, 0, 1, 0]);
    seed.extend([0; 7]);
    seed.extend([2, 0, 0, 0, 0, 0, 0]);
    seed.extend(state.to_le_bytes());
    seed.push(0);
    seed
}

/// A packet of the peer about the first blocks, as `node::peer::packet` reads it.
fn packet(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![6, 0, 0, 0, 0, 0, 0, kind];
    bytes.extend(rest);
    bytes
}

/// This node as target, then as source, of a resync of everything.
fn resyncs(peer_is_good: u32) {
    // All bits set, in one run.
    let bitmap = packet(28, &[15]);
    let mut target = begun(2, 0x10, peer_is_good);
    target.push(22);
    target.extend(&bitmap);
    target.push(22);
    target.extend(packet(25, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]));
    // before-resync-target is back.
    target.extend([22, 19, 0, 0]);
    for _ in 0..20 {
        target.extend([22, 15, 4, 22, 8, 0, 0, 22]);
    }
    put("node", "resync-target", &target);
    let peer_is_inconsistent = 2 | 4 << 7 | 1 << 11;
    let mut source = begun(2, 0x11, peer_is_inconsistent);
    source.push(22);
    source.extend(&bitmap);
    source.extend([22, 19, 0, 0]);
    for _ in 0..20 {
        // RS_DATA_REQUEST, and what it leads to.
        source.extend(packet(7, &[]));
        source.extend([22, 8, 0, 0, 22]);
    }
    put("node", "resync-source", &source);
}

/// A life in good order, and the streams of the C nodes, fed to a node of this driver.
fn nodes() {
    // Secondary, WFReportParams, UpToDate; see `node::peer::word`.
    let state = 2 | 8 << 7 | 1 << 11;
    let connected = begun(2, 0x11, state);
    put("node", "begun", &connected);
    let mut seed = connected.clone();
    // Primary, then writes, completions, packets out, answers.
    seed.extend([12, 0, 0, 8, 22]);
    for at in 0..6 {
        seed.extend([0, 0, 0, 0, 0, 0, 0, at, 22, 8, 0, 0, 8, 0, 0]);
    }
    seed.extend([12, 0, 0, 10, 22]);
    put("node", "primary", &seed);
    resyncs(state);
    for (n, stream) in streams("plain").into_iter().enumerate() {
        let mut bytes = Vec::new();
        for p in stream.iter().filter(|p| !p.handshake) {
            // The node's owner keeps the data to itself.
            let data = matches!(
                p.command,
                Command::Data | Command::DataReply | Command::RsDataReply
            );
            let len = if data { 40 } else { p.bytes.len() };
            if bytes.len() + len < 1000 {
                bytes.extend(p.bytes.iter().take(len));
            }
        }
        let on_meta = stream.iter().any(|p| p.command.socket() == Socket::Meta);
        let mut seed = begun(2, 0x11, state);
        if !on_meta {
            // The stream brings the first packets.
            seed.truncate(2 + 11);
        }
        seed.extend([9, u8::from(on_meta)]);
        seed.extend((bytes.len() as u16).to_le_bytes());
        seed.extend(&bytes);
        seed.extend([22, 15, 4, 22]);
        if !bytes.is_empty() {
            put("node", &format!("stream-{n:02}"), &seed);
        }
    }
}
