// SPDX-License-Identifier: GPL-2.0

//! Packets: a stream of bytes, cut and read as the receiver does it, in every protocol version.
//!
//! What could be read is written again and must come back; what was written must be something that
//! the same checks let pass.

use crate::cursor::Cursor;
use drbd_core::wire::{Command, Header, HeaderKind, Packet, Socket, APV_MAX, BUFFER_SIZE};

const SOCKETS: [Socket; 4] = [Socket::Data, Socket::Meta, Socket::Handshake, Socket::First];

/// The target: version, socket, features, then the stream.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    // 80 is before the features packets, 86 to 101 after.
    let apv = match c.below(17) {
        0 => 80,
        n => 85 + n as u32,
    };
    assert!(apv <= APV_MAX);
    let on = c.pick(&SOCKETS);
    let features = u32::from(c.u8());
    let mut stream = c.rest();
    while let Some(used) = one(apv, on, features, stream) {
        stream = &stream[used.min(stream.len())..];
    }
}

/// Reads one packet; returns how many bytes it took, `None` where a receiver gives up.
fn one(apv: u32, on: Socket, features: u32, stream: &[u8]) -> Option<usize> {
    let header = Header::decode(apv, stream).ok()?;
    assert_eq!(header.header_len, drbd_core::wire::header::size(apv));
    let command = Command::from_number(header.command)?;
    let split = command.check_length(on, header.length, features).ok()?;
    assert!(split.body <= 148, "{command:?} has {} bytes", split.body);
    assert_eq!(split.body + split.payload, header.length);
    let end = header.header_len + split.body as usize;
    let body = stream.get(header.header_len..end)?;
    let packet = match Packet::decode(&header, body, apv) {
        Ok(packet) => packet,
        Err(why) => {
            assert!(!why.to_string().is_empty());
            return None;
        }
    };
    if HeaderKind::for_sending(apv, header.length) != HeaderKind::H80 || header.length <= 0xffff {
        again(apv, on, features, &header, &packet, split.payload);
    }
    Some(end + split.payload as usize)
}

/// Writes the packet, reads that, writes it again.
fn again(apv: u32, on: Socket, features: u32, header: &Header, packet: &Packet, payload: u32) {
    let mut first = [0x5a; BUFFER_SIZE];
    let len = packet.encode(apv, features, header.volume, payload, &mut first);
    let first = &first[..len];
    let found = Header::decode(apv, first).expect("an own header");
    assert_eq!(found.command, packet.command(apv).number());
    assert_eq!(found.volume, header.volume);
    let command = Command::from_number(found.command).expect("an own command");
    let split = command
        .check_length(on, found.length, features)
        .unwrap_or_else(|e| panic!("{packet:?} is written with a bad length: {e:?}"));
    assert_eq!(split.payload, payload, "{packet:?}");
    let body = &first[found.header_len..];
    assert_eq!(body.len(), split.body as usize, "{packet:?}");
    let back = Packet::decode(&found, body, apv).expect("an own packet");
    assert_eq!(&back, packet);
    let mut second = [0xa5; BUFFER_SIZE];
    let len = back.encode(apv, features, found.volume, payload, &mut second);
    assert_eq!(first, &second[..len], "{packet:?}");
}
