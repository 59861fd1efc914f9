// SPDX-License-Identifier: GPL-2.0

//! What a pair of C nodes sent and wrote (`tests/golden`) is read here, and written again to the
//! same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use drbd_core::meta::al_block::{self, Block, Kind};
use drbd_core::meta::superblock::Superblock;
use drbd_core::nl::conf::{CfgContext, DiskConf, NetConf};
use drbd_core::nl::Mode;
use drbd_core::wire::{Command, Header, Packet, Socket, BUFFER_SIZE};

/// Feature flags that two drivers of Linux 7.3 agree on.
const FEATURES: u32 = 0xf;
/// Placement on the captured disks: bitmap, activity log, superblock, 4 KiB blocks.
const AL_BLOCKS: std::ops::Range<usize> = 1..9;
const SUPERBLOCK: usize = 9;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden")
        .join(name)
}

/// One captured packet.
struct Captured {
    place: String,
    bytes: Vec<u8>,
    header_len: usize,
    command: u16,
}

/// All whole packets of a capture, by its table of contents.
fn packets(name: &str) -> Vec<Captured> {
    let dir = folder(name);
    let table = fs::read_to_string(dir.join("wire.txt")).expect("wire.txt");
    let (mut file, mut stream) = (String::new(), Vec::new());
    let mut found = Vec::new();
    for line in table.lines() {
        if let Some((name, _)) = line.split_once(": ports") {
            file = name.to_owned();
            stream = fs::read(dir.join(name)).expect("a captured stream");
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [at, header_len, command, whole, ..] = words[..] else {
            continue;
        };
        let at: usize = at.parse().expect("an offset");
        let whole: usize = whole.parse().expect("a length");
        let command = u16::from_str_radix(command.trim_start_matches("0x"), 16).expect("a number");
        found.push(Captured {
            place: format!("{name}/{file} at {at}"),
            bytes: stream[at..at + whole].to_vec(),
            header_len: header_len.parse().expect("a length"),
            command,
        });
    }
    found
}

/// Where the packet belongs, as the receiver would say it.
fn socket(command: Command) -> Socket {
    match command.socket() {
        Socket::Both => Socket::Meta,
        other => other,
    }
}

/// Whether the last four bytes of the packet mean nothing.
fn has_padding(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::DataRequest(_)
            | Packet::RsDataRequest(_)
            | Packet::OvRequest(_)
            | Packet::OvReply(_)
            | Packet::CsumRsRequest(_)
            | Packet::RsThinReq(_)
    )
}

/// Reads a packet and writes it again.
fn round_trip(p: &Captured) -> Command {
    // 8 bytes until the features are exchanged, 16 afterwards: both nodes speak version 101.
    let apv = if p.header_len == 8 { 80 } else { 101 };
    let header = Header::decode(apv, &p.bytes).unwrap_or_else(|e| panic!("{}: {e:?}", p.place));
    assert_eq!(header.command, p.command, "{}", p.place);
    assert_eq!(
        header.length as usize,
        p.bytes.len() - p.header_len,
        "{}",
        p.place
    );
    let command = Command::from_number(header.command).expect("a command that is known");
    let split = command
        .check_length(socket(command), header.length, FEATURES)
        .unwrap_or_else(|e| panic!("{}: {command:?} {e:?}", p.place));
    let end = p.header_len + split.body as usize;
    let packet = Packet::decode(&header, &p.bytes[p.header_len..end], 101)
        .unwrap_or_else(|e| panic!("{}: {command:?} {e:?}", p.place));
    let mut buf = [0; BUFFER_SIZE];
    let len = packet.encode(
        apv.max(80),
        FEATURES,
        header.volume,
        split.payload,
        &mut buf,
    );
    let mut sent = p.bytes[..end].to_vec();
    if has_padding(&packet) {
        // The C driver leaves in the padding what its buffer held.
        sent[end - 4..].fill(0);
    }
    assert_eq!(buf[..len], sent, "{}: {packet:?}", p.place);
    command
}

#[test]
fn packets_come_back_to_the_same_bytes() {
    for name in ["plain", "checked"] {
        let all = packets(name);
        let mut kinds: Vec<Command> = all.iter().map(round_trip).collect();
        kinds.sort_by_key(|c| c.number());
        kinds.dedup();
        assert!(
            all.len() > 100 && kinds.len() > 15,
            "{name}: {} of {kinds:?}",
            all.len()
        );
    }
}

/// The captured metadata areas that begin with `md-`.
fn areas() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for name in ["plain", "checked"] {
        for entry in fs::read_dir(folder(name)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let file = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if file.starts_with("md-") {
                all.push((format!("{name}/{file}"), fs::read(&path).expect("an area")));
            }
        }
    }
    assert!(all.len() >= 10);
    all
}

fn block(area: &[u8], n: usize) -> &[u8; 4096] {
    area[n * 4096..(n + 1) * 4096].try_into().expect("4 KiB")
}

#[test]
fn superblocks_come_back_to_the_same_bytes() {
    for (name, area) in areas() {
        let bytes = block(&area, SUPERBLOCK);
        let sb = Superblock::decode(bytes);
        let mut again = [0xff; 4096];
        sb.encode(&mut again);
        // drbdmeta writes the clean magic, the drivers write the other one.
        assert_eq!(bytes[..60], again[..60], "{name}");
        assert_eq!(bytes[64..], again[64..], "{name}");
        assert_eq!(again[60..64], [0x83, 0x74, 0x02, 0x6c], "{name}");
        let clean = name.contains("created") || name.contains("replayed");
        assert_eq!(bytes[63], if clean { 0x6b } else { 0x6c }, "{name}");
    }
}

#[test]
fn activity_log_blocks_come_back_to_the_same_bytes() {
    let mut updates = 0;
    for (name, area) in areas() {
        for n in AL_BLOCKS {
            let bytes = block(&area, n);
            let read = Block::decode(bytes).unwrap_or_else(|| panic!("{name}: block {n}"));
            if read.header().kind == Kind::Initialized {
                continue;
            }
            updates += 1;
            let mut again = [0; 4096];
            let context: Vec<u32> = read.context().map(|(_, extent)| extent).collect();
            al_block::encode(
                &read.header(),
                read.updates(),
                context.into_iter(),
                &mut again,
            );
            assert!(bytes[..] == again[..], "{name}: block {n} differs");
        }
    }
    assert!(updates > 20, "{updates} transactions");
}

/// Attributes of the messages to the family `drbd` that user space sent.
fn requests(file: &str) -> Vec<(u8, Vec<u8>)> {
    let text = fs::read_to_string(folder("plain").join(file)).expect("captured messages");
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        digits
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).expect("text"), 16).expect("hex"))
            .collect()
    };
    let sent = text
        .lines()
        .filter_map(|l| l.strip_prefix("out "))
        .map(bytes);
    // 16 bytes of nlmsghdr, 4 of genlmsghdr, 8 of the family; 0x10 is the controller.
    sent.filter(|m| m.len() > 28 && m[4] != 0x10)
        .map(|m| (m[16], m[28..].to_vec()))
        .collect()
}

#[test]
fn requests_of_drbdsetup_are_understood() {
    let connect = requests("nl-04-connect.txt");
    let (_, attrs) = connect.iter().find(|(cmd, _)| *cmd == 10).expect("CONNECT");
    let net = NetConf::from_attrs(NetConf::default(), attrs, Mode::New).expect("NET_CONF");
    assert_eq!(
        (net.wire_protocol, net.verify_alg.as_bytes()),
        (3, &b"crc32c"[..])
    );
    let base = CfgContext::default();
    let context = CfgContext::from_attrs(base, attrs, Mode::New).expect("CFG_CONTEXT");
    let name = context.ctx_resource_name.expect("a name");
    assert_eq!(name.as_bytes(), b"r0");
    let my = context.ctx_my_addr.expect("an address");
    assert_eq!(my.as_bytes()[..8], [2, 0, 0x1e, 0x6c, 10, 77, 0, 1]);

    let attach = requests("nl-03-attach.txt");
    let (_, attrs) = attach.iter().find(|(cmd, _)| *cmd == 12).expect("ATTACH");
    let disk = DiskConf::from_attrs(DiskConf::default(), attrs, Mode::New).expect("DISK_CONF");
    assert_eq!(
        (disk.backing_dev.as_bytes(), disk.meta_dev_idx),
        (&b"/dev/vdc"[..], -3)
    );
}
