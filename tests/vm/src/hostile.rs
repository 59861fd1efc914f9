// SPDX-License-Identifier: GPL-2.0
//! A peer that does not keep to the protocol: packets to build, and a program that sends them.
//!
//! The program, `drbd-lab-hostile`, knows nothing of DRBD but how a connection begins and where a
//! packet ends. What to send it reads from a script that a test wrote with [`Script`], so that all
//! decisions, those of a seed too, are made on the host. The packets are encoded here anew, and not
//! by the core that is to be tested with them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// Numbers of the commands that the tests name.
pub mod command {
    /// A write.
    pub const DATA: u16 = 0x00;
    /// The answer to a read.
    pub const DATA_REPLY: u16 = 0x01;
    /// The answer to a request of a resync.
    pub const RS_DATA_REPLY: u16 = 0x02;
    /// Closes an epoch.
    pub const BARRIER: u16 = 0x03;
    /// Words of the bitmap.
    pub const BITMAP: u16 = 0x04;
    /// A read.
    pub const DATA_REQUEST: u16 = 0x08;
    /// A read of a resync.
    pub const RS_DATA_REQUEST: u16 = 0x09;
    /// Settings of the connection.
    pub const PROTOCOL: u16 = 0x0b;
    /// Data generations.
    pub const UUIDS: u16 = 0x0c;
    /// Sizes.
    pub const SIZES: u16 = 0x0d;
    /// State of the sender.
    pub const STATE: u16 = 0x0e;
    /// Bitmap UUID of a resync.
    pub const SYNC_UUID: u16 = 0x0f;
    /// Asks for a change of state.
    pub const STATE_CHG_REQ: u16 = 0x12;
    /// A write was written.
    pub const WRITE_ACK: u16 = 0x16;
    /// A block of a resync was written.
    pub const RS_WRITE_ACK: u16 = 0x17;
    /// A resync read failed.
    pub const NEG_RS_DREPLY: u16 = 0x1b;
    /// An epoch is durable.
    pub const BARRIER_ACK: u16 = 0x1c;
    /// A comparison of a block.
    pub const OV_REQUEST: u16 = 0x1e;
    /// Resync settings.
    pub const SYNC_PARAM89: u16 = 0x23;
    /// Runs of the bitmap.
    pub const COMPRESSED_BITMAP: u16 = 0x24;
    /// A range to mark.
    pub const OUT_OF_SYNC: u16 = 0x28;
    /// A discard.
    pub const TRIM: u16 = 0x31;
    /// Versions and features.
    pub const FEATURES: u16 = 0xfffe;
    /// First packet on the data socket.
    pub const INITIAL_DATA: u16 = 0xfff2;
    /// First packet on the meta socket.
    pub const INITIAL_META: u16 = 0xfff1;
}

/// A header of 8 bytes and a body.
pub fn packet80(command: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut bytes = 0x8374_0267_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A header of 16 bytes that promises `length` bytes for volume `volume`.
pub fn header100(volume: u16, command: u16, length: u32) -> Vec<u8> {
    let mut bytes = 0x8620_ec20_u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&volume.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// A whole packet of volume 0.
pub fn packet100(command: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = header100(0, command, length);
    bytes.extend_from_slice(body);
    bytes
}

/// Numbers, most significant byte first, of 4 or 8 bytes.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// Of 4 bytes.
    Four(u32),
    /// Of 8 bytes.
    Eight(u64),
}

/// The bytes of a body made of numbers.
pub fn body(numbers: &[Number]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in numbers {
        match n {
            Number::Four(n) => bytes.extend_from_slice(&n.to_be_bytes()),
            Number::Eight(n) => bytes.extend_from_slice(&n.to_be_bytes()),
        }
    }
    bytes
}

/// The features packet of a peer that speaks `min` to `max`.
pub fn features(min: u32, max: u32, flags: u32) -> Vec<u8> {
    let mut bytes = body(&[Number::Four(min), Number::Four(flags), Number::Four(max)]);
    bytes.resize(72, 0);
    packet80(command::FEATURES, &bytes)
}

/// PROTOCOL: protocol C, default policies, no integrity algorithm.
pub fn protocol(protocol: u32) -> Vec<u8> {
    let n = [protocol, 0, 0, 0, 0, 0].map(Number::Four);
    let mut bytes = body(&n);
    bytes.push(0);
    packet100(command::PROTOCOL, &bytes)
}

/// SYNC_PARAM89 with default settings and no algorithms.
pub fn sync_param() -> Vec<u8> {
    let mut bytes = 250_u32.to_be_bytes().to_vec();
    bytes.resize(132, 0);
    bytes.extend(body(&[20, 10, 100, 102_400].map(Number::Four)));
    packet100(command::SYNC_PARAM89, &bytes)
}

/// SIZES without queue limits; sizes in sectors.
pub fn sizes(disk: u64, user: u64, current: u64, max_bio: u32) -> Vec<u8> {
    let mut bytes = body(&[disk, user, current].map(Number::Eight));
    bytes.extend(body(&[Number::Four(max_bio), Number::Four(0)]));
    packet100(command::SIZES, &bytes)
}

/// UUIDS: current, bitmap, two of the history, dirty bits, flags.
pub fn uuids(numbers: [u64; 6]) -> Vec<u8> {
    packet100(command::UUIDS, &body(&numbers.map(Number::Eight)))
}

/// The word of a state: role, peer's role, connection, disk, peer's disk, by their numbers.
pub fn state_word(role: u32, peer: u32, conn: u32, disk: u32, peer_disk: u32) -> u32 {
    role | peer << 2 | conn << 4 | disk << 9 | peer_disk << 13
}

/// STATE.
pub fn state(word: u32) -> Vec<u8> {
    packet100(command::STATE, &word.to_be_bytes())
}

/// DATA, DATA_REPLY or RS_DATA_REPLY of `bytes` zeroes.
pub fn data(command: u16, sector: u64, id: u64, bytes: usize) -> Vec<u8> {
    let mut b = body(&[
        Number::Eight(sector),
        Number::Eight(id),
        Number::Four(1),
        Number::Four(256),
    ]);
    b.resize(24 + bytes, 0);
    packet100(command, &b)
}

/// A packet of 24 bytes that names a block: requests and acknowledgements.
pub fn block(command: u16, sector: u64, id: u64, bytes: u32) -> Vec<u8> {
    let b = [
        Number::Eight(sector),
        Number::Eight(id),
        Number::Four(bytes),
        Number::Four(0),
    ];
    packet100(command, &body(&b))
}

/// What the program is to do, a line per step.
#[derive(Debug, Clone, Default)]
pub struct Script(String);

impl Script {
    /// Sends on the data socket.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.send("data", bytes);
        self
    }

    /// Sends on the meta socket.
    pub fn meta(mut self, bytes: &[u8]) -> Self {
        self.send("meta", bytes);
        self
    }

    /// Waits for a packet of this command on either socket, ten seconds at most.
    pub fn expect(mut self, command: u16) -> Self {
        let _ = writeln!(self.0, "await {command}");
        self
    }

    /// Waits for some milliseconds.
    pub fn pause(mut self, ms: u64) -> Self {
        let _ = writeln!(self.0, "pause {ms}");
        self
    }

    fn send(&mut self, socket: &str, bytes: &[u8]) {
        let _ = write!(self.0, "{socket} ");
        for b in bytes {
            let _ = write!(self.0, "{b:02x}");
        }
        self.0.push('\n');
    }

    /// The text for the program.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What was seen of the other side.
#[derive(Default)]
struct Seen {
    commands: HashSet<u16>,
    closed: bool,
}

type Shared = Arc<Mutex<Seen>>;

/// Plays a script to `address` and hangs up when the other side has, or after `patience`.
/// Returns whether the other side has hung up first.
///
/// # Errors
/// When no connection is made, or the script has a mistake. A send that fails is none: the other
/// side has every right to hang up.
pub fn play(address: &str, script: &str, patience: Duration) -> Result<bool> {
    let seen = Shared::default();
    let data = open(address, command::INITIAL_DATA, &seen)?;
    let meta = open(address, command::INITIAL_META, &seen)?;
    for line in script.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "data" => drop((&data).write_all(&unhex(rest)?)),
            "meta" => drop((&meta).write_all(&unhex(rest)?)),
            "await" => wait(&seen, Duration::from_secs(10), Some(number(rest)?)),
            "pause" => std::thread::sleep(Duration::from_millis(number(rest)?.into())),
            _ => return Err(Error::new(format!("no such step: {line}"))),
        }
    }
    wait(&seen, patience, None);
    let closed = seen.lock().unwrap_or_else(PoisonError::into_inner).closed;
    for socket in [data, meta] {
        let _ = socket.shutdown(Shutdown::Both);
    }
    Ok(closed)
}

fn number(word: &str) -> Result<u16> {
    word.parse().map_err(|_| Error::new(word)).context("number")
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    (0..text.len() / 2)
        .map(|i| text.get(2 * i..2 * i + 2).unwrap_or_default())
        .map(|digits| u8::from_str_radix(digits, 16).map_err(|e| Error::new(e.to_string())))
        .collect()
}

fn open(address: &str, first: u16, seen: &Shared) -> Result<TcpStream> {
    let end = Instant::now() + Duration::from_secs(30);
    let socket = loop {
        // The other side listens only while it waits for its peer.
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(e) if Instant::now() > end => return Err(e).context(address),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    (&socket).write_all(&packet80(first, &[]))?;
    let (reader, seen) = (socket.try_clone()?, Arc::clone(seen));
    std::thread::spawn(move || listen(reader, &seen));
    Ok(socket)
}

/// Notes which packets come, until the other side hangs up.
fn listen(mut socket: TcpStream, seen: &Shared) {
    while let Some(command) = one_packet(&mut socket) {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.commands.insert(command);
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
}

fn one_packet(socket: &mut TcpStream) -> Option<u16> {
    let mut head = [0_u8; 8];
    socket.read_exact(&mut head).ok()?;
    let [m0, m1, m2, m3, a, b, c, d] = head;
    let (command, length) = match [m0, m1, m2, m3] {
        [0x83, 0x74, 0x02, 0x67] => ([a, b], u32::from(u16::from_be_bytes([c, d]))),
        [0x83, 0x5a, ..] => ([m2, m3], u32::from_be_bytes([a, b, c, d])),
        _ => {
            let mut rest = [0_u8; 8];
            socket.read_exact(&mut rest).ok()?;
            let [l0, l1, l2, l3, ..] = rest;
            ([c, d], u32::from_be_bytes([l0, l1, l2, l3]))
        }
    };
    let mut body = socket.take(length.into());
    std::io::copy(&mut body, &mut std::io::sink()).ok()?;
    Some(u16::from_be_bytes(command))
}

/// Waits for a packet, and for the end of the connection.
fn wait(seen: &Shared, patience: Duration, command: Option<u16>) {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.closed || command.is_some_and(|c| seen.commands.contains(&c)) {
            return;
        }
        drop(seen);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_protocol() {
        assert_eq!(
            packet80(0xfff2, &[])[..],
            [0x83, 0x74, 2, 0x67, 255, 0xf2, 0, 0]
        );
        assert_eq!(features(86, 101, 0).len(), 80);
        assert_eq!(sync_param().len(), 16 + 148);
        assert_eq!(sizes(1, 2, 3, 4).len(), 16 + 32);
        assert_eq!(uuids([0; 6]).len(), 16 + 48);
        assert_eq!(block(command::WRITE_ACK, 0, 0, 0).len(), 16 + 24);
        assert_eq!(state_word(1, 2, 10, 8, 8), 0x0001_10a9);
        let script = Script::default().data(&[0, 255]).pause(3).expect(9);
        assert_eq!(script.text(), "data 00ff\npause 3\nawait 9\n");
        assert_eq!(unhex("00ff").unwrap(), [0, 255]);
    }
}
