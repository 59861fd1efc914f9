// SPDX-License-Identifier: GPL-2.0
//! A peer that breaks the protocol at every point of a connection.
//!
//! Whatever it sends, the node ends the connection, says in its log why, and works afterwards.
//! Node `a` runs the driver under test, node `b` only the program of [`crate::hostile`].

use std::time::Duration;

use super::two;
use crate::cluster::Cluster;
use crate::drbd::{self, Resource};
use crate::error::{Error, Result};
use crate::hostile::{self, body, command, header100, packet100, Number, Script};
use crate::node::{Driver, Kernel, Node, NodeSpec};
use crate::rng::Rng;

const PROGRAM: &str = "/run/hostile";
const LONG: Duration = Duration::from_secs(60);

/// One thing a peer does.
struct Case {
    name: String,
    script: Script,
    /// The connection ends, and the log of `a` has this.
    says: Option<&'static str>,
}

fn case(name: &str, says: &'static str, script: Script) -> Case {
    Case {
        name: name.into(),
        script,
        says: Some(says),
    }
}

/// What `a` is when the peer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Primary and UpToDate: the peer is diskless, or to be synchronised.
    Primary,
    /// Fresh and Inconsistent: the peer claims to be the source of a resync.
    Fresh,
}

/// A node for the driver, one for the program.
pub fn specs(kernel: Kernel) -> [NodeSpec; 2] {
    [
        NodeSpec::new("a", Driver::Ours, kernel, 16),
        NodeSpec::new("b", Driver::None, Kernel::Release, 4),
    ]
}

/// Plays all cases of a moment, then `random` streams of packets from `seed`.
///
/// # Errors
/// The first case that does not end as it should, or what does not work after all of them.
pub fn run(cluster: &Cluster, moment: Moment, program: &str, seed: u64, random: u64) -> Result<()> {
    let [a, b] = two(cluster)?;
    b.put(PROGRAM, 0o755, &std::fs::read(program)?)?;
    let resource = Resource {
        net: "ping-timeout 3; connect-int 1; timeout 20; ping-int 3;".into(),
        ..Resource::default()
    };
    resource.configure(cluster)?;
    a.must("drbdadm create-md --force r0 && drbdadm up r0")?;
    let mut cases = match moment {
        Moment::Primary => {
            a.must("drbdadm primary --force r0")?;
            let mut cases = features();
            cases.extend(handshake());
            cases.extend(requests());
            cases.extend(connected());
            cases.extend(as_source());
            cases
        }
        Moment::Fresh => as_target(),
    };
    let mut rng = Rng::new(seed);
    for n in 0..random {
        cases.push(Case {
            name: format!("random stream {n} of seed {seed}"),
            script: random_stream(moment, &mut rng),
            says: None,
        });
    }
    // All of them, so that one run tells everything.
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(play(a, b, case).err()?.context(&case.name).to_string()))
        .collect();
    if !failures.is_empty() {
        return Err(Error::new(failures.join("\n")));
    }
    works(a, moment)
}

fn play(a: &Node, b: &Node, case: &Case) -> Result<()> {
    a.must(
        "dmesg -c > /dev/null; \
         if [ \"$(drbdadm cstate r0)\" = StandAlone ]; then drbdadm connect r0; fi",
    )?;
    b.put("/run/script", 0o644, case.script.text().as_bytes())?;
    let patience = if case.says.is_some() { 10_000 } else { 300 };
    let command = format!("{PROGRAM} {}:7788 {patience} /run/script", a.address());
    let end = b.must_for(&command, LONG)?;
    let log = |a: &Node| a.must("dmesg -k");
    if let (Some(says), "open\n") = (case.says, end.as_str()) {
        let log = log(a)?;
        return Err(Error::new(format!(
            "the connection was not ended, '{says}' expected:\n{log}"
        )));
    }
    drbd::wait_for(
        a,
        "the end of the connection",
        LONG,
        |s| !matches!(s.ro.as_str(), r if r.ends_with("/Secondary") || r.ends_with("/Primary")),
    )?;
    let log = log(a)?;
    match case.says {
        Some(says) if !log.contains(says) => {
            Err(Error::new(format!("'{says}' is not in the log:\n{log}")))
        }
        Some(_) | None => Ok(()),
    }
}

/// The node does what it did before anybody came.
fn works(a: &Node, moment: Moment) -> Result<()> {
    a.must("cat /proc/drbd")?;
    a.must("drbdadm disconnect r0")?;
    if moment == Moment::Primary {
        let write = "dd if=/dev/urandom of=/dev/drbd0 bs=64k count=16 oflag=direct status=none";
        a.must(write)?;
        a.must("dd if=/dev/drbd0 of=/dev/null bs=64k count=16 iflag=direct status=none")?;
        a.must("drbdadm secondary r0")?;
    }
    a.must("drbdadm detach r0 && drbdadm attach r0 && drbdadm connect r0")?;
    drbd::wait_for(a, "WFConnection", LONG, |s| s.cs == "WFConnection")?;
    if moment == Moment::Primary {
        a.must("drbdadm primary r0 && drbdadm secondary r0")?;
    }
    a.must("drbdadm down r0 && rmmod drbd_rs && test ! -e /proc/drbd")
        .map(|_| ())
}

const SECONDARY: u32 = 2;
const PRIMARY: u32 = 1;
const WF_REPORT_PARAMS: u32 = 9;
const DISKLESS: u32 = 0;
const INCONSISTENT: u32 = 4;
const UNKNOWN_DISK: u32 = 6;
const UP_TO_DATE: u32 = 8;
/// The UUID of a disk that never had data.
const JUST_CREATED: u64 = 4;
/// Sectors of the device under test: 16 MiB less the metadata.
const DEVICE: u64 = 32_768 - 8 - 64 - 8;

fn agreed() -> Script {
    Script::default().data(&hostile::features(86, 101, 0))
}

fn greeted() -> Script {
    agreed()
        .data(&hostile::protocol(3))
        .data(&hostile::sync_param())
}

/// A diskless Secondary is connected.
fn diskless() -> Script {
    let word = hostile::state_word(SECONDARY, 0, WF_REPORT_PARAMS, DISKLESS, UNKNOWN_DISK);
    greeted()
        .data(&hostile::sizes(0, 0, 0, 1 << 20))
        .data(&hostile::state(word))
        .expect(command::STATE)
        .pause(200)
}

/// An empty disk is connected and will be synchronised.
fn empty_disk() -> Script {
    let word = hostile::state_word(SECONDARY, 0, WF_REPORT_PARAMS, INCONSISTENT, UNKNOWN_DISK);
    greeted()
        .data(&hostile::sizes(DEVICE, 0, 0, 1 << 20))
        .data(&hostile::uuids([JUST_CREATED, 0, 0, 0, 0, 0]))
        .data(&hostile::state(word))
        .expect(command::COMPRESSED_BITMAP)
}

/// A Primary with good data is connected.
fn good_disk() -> Script {
    let word = hostile::state_word(PRIMARY, 0, WF_REPORT_PARAMS, UP_TO_DATE, UNKNOWN_DISK);
    greeted()
        .data(&hostile::sizes(DEVICE, 0, DEVICE, 1 << 20))
        .data(&hostile::uuids([0x1234_5678_9abc_def1, 0, 0, 0, 0, 0]))
        .data(&hostile::state(word))
        .expect(command::STATE)
        .pause(200)
}

/// Before there is an agreed version.
fn features() -> Vec<Case> {
    let nothing = Script::default;
    vec![
        case("no header", "no DRBD header", nothing().data(&[0x55; 80])),
        case(
            "another packet in place of the features",
            "expected the features packet",
            nothing().data(&hostile::packet80(command::STATE, &[0; 72])),
        ),
        case(
            "a features packet of wrong length",
            "bytes instead of 72",
            nothing().data(&hostile::packet80(command::FEATURES, &[0; 8])),
        ),
        case(
            "versions from the future",
            "incompatible DRBD dialects",
            nothing().data(&hostile::features(110, 123, 0)),
        ),
        case(
            "versions from the past",
            "incompatible DRBD dialects",
            nothing().data(&hostile::features(70, 80, 0)),
        ),
    ]
}

fn handshake() -> Vec<Case> {
    vec![
        case(
            "a wrong magic",
            "malformed packet",
            agreed().data(&[0xaa; 64]),
        ),
        case(
            "an old header on a new connection",
            "malformed packet",
            agreed().data(&hostile::packet80(command::PROTOCOL, &[0; 25])),
        ),
        case(
            "an unknown command",
            "malformed packet",
            agreed().data(&packet100(0x77, &[])),
        ),
        case(
            "an enormous packet",
            "malformed packet",
            agreed().data(&header100(0, command::DATA, u32::MAX)),
        ),
        case(
            "an unknown protocol",
            "rotocol",
            agreed().data(&hostile::protocol(9)),
        ),
        case(
            "protocol A",
            "incompatible",
            agreed().data(&hostile::protocol(1)),
        ),
        case(
            "an unknown volume",
            "volume 900, which is not configured",
            greeted()
                .data(&header100(900, command::STATE, 4))
                .data(&[0; 4])
                .data(&packet100(0x77, &[])),
        ),
        case(
            "sizes beyond all disks",
            "a range that is",
            greeted().data(&hostile::sizes(u64::MAX, u64::MAX, u64::MAX, u32::MAX)),
        ),
        case(
            "a disk that is too small",
            "too small",
            greeted().data(&hostile::sizes(8, 0, 0, 0)),
        ),
        case(
            "a state with unknown numbers",
            "mean nothing",
            greeted().data(&hostile::state(u32::MAX)),
        ),
        case(
            "a reply to no read",
            "",
            greeted().data(&hostile::data(command::DATA_REPLY, 0, 77, 4096)),
        ),
    ]
}

fn write_of(sector: u64, bytes: usize) -> Vec<u8> {
    hostile::data(command::DATA, sector, 1, bytes)
}

fn discard(sector: u64, bytes: u32) -> Vec<u8> {
    let numbers = [
        Number::Eight(sector),
        Number::Eight(1),
        Number::Four(2),
        Number::Four(64),
        Number::Four(bytes),
    ];
    packet100(command::TRIM, &body(&numbers))
}

/// Requests to a node without a disk.
fn requests() -> Vec<Case> {
    vec![
        case(
            "data beyond the device",
            "not expected in this state",
            diskless().data(&write_of(DEVICE, 4096)),
        ),
        case(
            "data at the last number there is",
            "not expected in this state",
            diskless().data(&write_of(u64::MAX, 4096)),
        ),
        case("data of no size", "", diskless().data(&write_of(0, 0))),
        case(
            "data of half a sector",
            "",
            diskless().data(&write_of(0, 700)),
        ),
        case(
            "more data than a packet may have",
            "malformed packet",
            diskless().data(&header100(0, command::DATA, 24 + (2 << 20))),
        ),
        case(
            "data for an unknown volume",
            "not configured here",
            diskless()
                .data(&header100(7, command::DATA, 24 + 512))
                .data(&[0; 536]),
        ),
        case(
            "a reply to no read",
            "",
            diskless().data(&hostile::data(command::DATA_REPLY, 0, 77, 4096)),
        ),
        case(
            "a read beyond the device",
            "a range that is",
            diskless().data(&hostile::block(command::DATA_REQUEST, DEVICE, 1, 4096)),
        ),
        case(
            "a read of an absurd size",
            "a range that is",
            diskless().data(&hostile::block(command::DATA_REQUEST, 0, 1, u32::MAX)),
        ),
        case(
            "a discard beyond the device",
            "not expected in this state",
            diskless().data(&discard(DEVICE - 8, 8 << 20)),
        ),
    ]
}

fn connected() -> Vec<Case> {
    let barrier_ack = packet100(
        command::BARRIER_ACK,
        &body(&[Number::Four(4711), Number::Four(3)]),
    );
    vec![
        case(
            "a bitmap nobody waits for",
            "",
            diskless().data(&packet100(command::BITMAP, &[0xff; 4096])),
        ),
        case(
            "an acknowledgement of an epoch that never was",
            "wrong epoch",
            diskless().meta(&barrier_ack),
        ),
        case(
            "an acknowledgement of a write that never was",
            "never sent",
            diskless().meta(&hostile::block(command::WRITE_ACK, 0, 0x1234, 4096)),
        ),
        case(
            "an acknowledgement on the wrong socket",
            "malformed packet",
            diskless().data(&barrier_ack),
        ),
        case(
            "data on the wrong socket",
            "malformed packet",
            diskless().meta(&write_of(0, 512)),
        ),
        case(
            "rubbish on the meta socket",
            "malformed packet",
            diskless().meta(&[0x5a; 48]),
        ),
        case(
            "a late handshake",
            "malformed packet",
            diskless().data(&packet100(command::FEATURES, &[0; 72])),
        ),
        case(
            "an unknown state",
            "mean nothing",
            diskless().data(&hostile::state(u32::MAX)),
        ),
        Case {
            name: "a packet that is cut off".into(),
            script: diskless().data(&header100(0, command::DATA, 24 + 4096)),
            says: None,
        },
    ]
}

fn as_source() -> Vec<Case> {
    let request = |sector, bytes| hostile::block(command::RS_DATA_REQUEST, sector, u64::MAX, bytes);
    vec![
        case(
            "a bitmap that is too long",
            "a piece of bitmap",
            empty_disk().data(&packet100(command::BITMAP, &[0xff; 4080])),
        ),
        case(
            "a bitmap of an odd length",
            "a piece of bitmap",
            empty_disk().data(&packet100(command::BITMAP, &[0xff; 13])),
        ),
        case(
            "a compressed bitmap of rubbish",
            "a piece of bitmap",
            empty_disk().data(&packet100(command::COMPRESSED_BITMAP, &[0xff; 100])),
        ),
        case(
            "a resync request beyond the device",
            "a range that is",
            empty_disk().data(&request(DEVICE, 4096)),
        ),
        case(
            "a resync request without alignment",
            "",
            empty_disk().data(&request(3, 700)),
        ),
        case(
            "a mark beyond the device",
            "a range that is",
            empty_disk().data(&packet100(
                command::OUT_OF_SYNC,
                &body(&[
                    Number::Eight(DEVICE),
                    Number::Four(1 << 30),
                    Number::Four(0),
                ]),
            )),
        ),
    ]
}

fn as_target() -> Vec<Case> {
    let reply = |sector, bytes| hostile::data(command::RS_DATA_REPLY, sector, u64::MAX, bytes);
    let mut cases = vec![
        case(
            "a bitmap that is too short and then another packet",
            "a piece of bitmap",
            good_disk().data(&packet100(command::BITMAP, &[0xff; 8])),
        ),
        case(
            "a resync reply that nobody asked for",
            "",
            good_disk().data(&reply(0, 4096)),
        ),
        case(
            "a resync reply beyond the device",
            "a range that is",
            good_disk().data(&reply(DEVICE, 4096)),
        ),
        case(
            "data beyond the device",
            "a range that is",
            good_disk().data(&write_of(DEVICE, 4096)),
        ),
        case(
            "data at the last number there is",
            "a range that is",
            good_disk().data(&write_of(u64::MAX, 4096)),
        ),
        case(
            "data of no size",
            "a range that is",
            good_disk().data(&write_of(0, 0)),
        ),
        case(
            "data of half a sector",
            "a length that this packet",
            good_disk().data(&write_of(0, 700)),
        ),
        case(
            "a discard beyond the device",
            "a range that is",
            good_disk().data(&discard(DEVICE - 8, 8 << 20)),
        ),
        case(
            "a failed read that nobody asked for",
            "",
            good_disk().meta(&hostile::block(command::NEG_RS_DREPLY, 0, u64::MAX, 4096)),
        ),
        case(
            "a resync write acknowledged that never was",
            "",
            good_disk().meta(&hostile::block(command::RS_WRITE_ACK, 0, u64::MAX, 4096)),
        ),
    ];
    cases.push(Case {
        name: "a resync UUID without a bitmap".into(),
        script: good_disk().data(&packet100(command::SYNC_UUID, &[7; 8])),
        says: None,
    });
    cases
}

/// Commands with their socket and the length of their bodies; those of data get some more.
const SHAPES: [(u16, bool, usize); 40] = [
    (command::DATA, true, 24),
    (command::DATA_REPLY, true, 24),
    (command::RS_DATA_REPLY, true, 24),
    (command::BARRIER, true, 8),
    (command::BITMAP, true, 0),
    (0x07, true, 0),
    (command::DATA_REQUEST, true, 24),
    (command::RS_DATA_REQUEST, true, 24),
    (command::PROTOCOL, true, 25),
    (command::UUIDS, true, 48),
    (command::SIZES, true, 32),
    (command::STATE, true, 4),
    (command::SYNC_UUID, true, 8),
    (command::STATE_CHG_REQ, true, 8),
    (0x13, false, 0),
    (0x14, false, 0),
    (0x15, false, 24),
    (command::WRITE_ACK, false, 24),
    (command::RS_WRITE_ACK, false, 24),
    (0x18, false, 24),
    (0x19, false, 24),
    (0x1a, false, 24),
    (command::NEG_RS_DREPLY, false, 24),
    (command::BARRIER_ACK, false, 8),
    (0x1d, false, 4),
    (command::OV_REQUEST, true, 24),
    (0x1f, true, 24),
    (0x20, false, 24),
    (0x21, true, 24),
    (0x22, false, 24),
    (command::SYNC_PARAM89, true, 148),
    (command::COMPRESSED_BITMAP, true, 0),
    (0x27, true, 8),
    (command::OUT_OF_SYNC, true, 16),
    (0x29, false, 24),
    (0x2a, true, 8),
    (0x2b, false, 4),
    (command::TRIM, true, 28),
    (0x32, true, 24),
    (0x36, true, 28),
];

/// Numbers that packets are full of, right ones and wrong ones.
fn random_word(rng: &mut Rng) -> [u8; 4] {
    let n = match rng.below(6) {
        0 => 0,
        1 => u32::MAX,
        2 => 1 << rng.below(32),
        3 => 4096,
        4 => u32::try_from(rng.below(DEVICE + 16)).unwrap_or(0),
        _ => u32::try_from(rng.next_u64() >> 32).unwrap_or(0),
    };
    n.to_be_bytes()
}

/// A connection with up to thirty packets, whose headers are mostly right and bodies mostly wrong.
fn random_stream(moment: Moment, rng: &mut Rng) -> Script {
    let start = [agreed, greeted, diskless, empty_disk];
    let mut script = match moment {
        Moment::Fresh => good_disk(),
        Moment::Primary => start[usize::try_from(rng.below(4)).unwrap_or(0)](),
    };
    for _ in 0..=rng.below(30) {
        let (command, on_data, fixed) = SHAPES[usize::try_from(rng.below(40)).unwrap_or(0)];
        let more = [0, 0, 8, 64, 512, 4096];
        let mut length = fixed;
        if [0, 1, 2, 4, 0x1f, 0x21, 0x24].contains(&command) {
            length += more[usize::try_from(rng.below(6)).unwrap_or(0)];
        }
        if rng.chance(30) {
            length += 1;
        }
        let mut body = Vec::new();
        while body.len() < length {
            body.extend(random_word(rng));
        }
        body.truncate(length);
        // Data and block addresses that are possible, half of the time.
        if rng.chance(500) {
            body.iter_mut().take(6).for_each(|b| *b = 0);
        }
        let mut packet = packet100(command, &body);
        if rng.chance(10) {
            packet[usize::try_from(rng.below(16)).unwrap_or(0)] ^= 1;
        }
        script = if on_data != rng.chance(10) {
            script.data(&packet)
        } else {
            script.meta(&packet)
        };
    }
    script
}
