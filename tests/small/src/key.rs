// SPDX-License-Identifier: GPL-2.0

//! When two worlds count as the same.
//!
//! [`Key`] is a hasher of 64 bits that puts names in the order of their first appearance in the
//! place of everything that is only compared for equality: UUIDs, what is written into blocks, and
//! what the core hands over by [`drbd_core::key::name`]. Worlds that differ by renaming, by the
//! clock, by statistics or by the history behind them have the same key. docs/search.md argues why
//! that is right, and what it may miss.

use crate::node::{DiskIo, Frame, Node};
use crate::world::World;
use drbd_core::key::{APP, BUFFER, EPOCH, MOMENT};
use drbd_core::wire::Packet;
use std::hash::{Hash, Hasher};

/// UUIDs that the nodes make: see [`crate::node::StepHost`].
const UUIDS: std::ops::Range<u64> = 1 << 32..1 << 34;
/// Data that the search writes.
const TAGS: std::ops::Range<u64> = 1 << 40..1 << 41;
/// What DRBD adds to a UUID that starts a new bitmap (UUID_NEW_BM_OFFSET).
const NEW_BITMAP: u64 = 1 << 48;
/// The flag of the Primary in a UUID; only policies for split brains look at it.
const PRIMARY: u64 = 1;

const UUID: u8 = 100;
const TAG: u8 = 101;

/// The hasher.
#[derive(Clone, Debug)]
pub struct Key {
    hash: u64,
    node: u8,
    now: u64,
    names: Vec<(u8, u64)>,
}

impl Default for Key {
    fn default() -> Key {
        Key::new()
    }
}

impl Key {
    /// Of nothing.
    pub fn new() -> Key {
        Key {
            hash: 0x9e37_79b9_7f4a_7c15,
            node: 0,
            now: 0,
            names: Vec::new(),
        }
    }

    /// A hasher that has seen a world.
    pub fn of_world(world: &World) -> Key {
        let mut key = Key::new();
        world_key(world, &mut key);
        key
    }

    fn mix(&mut self, x: u64) {
        let product = u128::from(self.hash ^ x) * u128::from(0xa076_1d64_78bd_642f_u64);
        let folded = product as u64 ^ (product >> 64) as u64;
        self.hash = folded.wrapping_add(x.rotate_left(32)) ^ 0xe703_7ed1_a0b4_28db;
    }

    /// Bytes that are no names.
    pub fn raw(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// The number of a name: how many others were seen before.
    fn rename(&mut self, kind: u8, number: u64) -> u64 {
        let name = (kind, number);
        let at = self.names.iter().position(|n| *n == name);
        at.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        }) as u64
    }
}

impl Hasher for Key {
    fn finish(&self) -> u64 {
        let x = self.hash ^ self.hash >> 32;
        let x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ x >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        // A slice of numbers comes as its bytes; there may be names among them.
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            let word = word.try_into().expect("eight bytes");
            self.write_u64(u64::from_ne_bytes(word));
        }
        self.raw(words.remainder());
    }

    fn write_u8(&mut self, i: u8) {
        self.mix(i.into());
    }

    fn write_u16(&mut self, i: u16) {
        self.mix(i.into());
    }

    fn write_u32(&mut self, i: u32) {
        self.mix(i.into());
    }

    fn write_usize(&mut self, i: usize) {
        self.mix(i as u64);
    }

    fn write_u64(&mut self, i: u64) {
        let (uuid, bitmaps) = ((i % NEW_BITMAP) & !PRIMARY, i / NEW_BITMAP);
        if UUIDS.contains(&uuid) && bitmaps < 256 {
            let name = self.rename(UUID, uuid);
            self.mix(bitmaps);
            self.mix(name ^ 1 << 50);
        } else if TAGS.contains(&i) {
            let name = self.rename(TAG, i);
            self.mix(name ^ 1 << 51);
        } else if matches!(i >> 56, 1 | 2) {
            // A slot and its generation, the latter only telling late answers from others.
            self.mix(i >> 32);
        } else {
            self.mix(i);
        }
    }

    fn write_u128(&mut self, i: u128) {
        let (kind, number) = ((i >> 64) as u8, i as u64);
        if kind == MOMENT {
            // A deadline that has passed is acted on by whatever step comes next.
            return self.mix(u64::from(number <= self.now));
        }
        // Numbers of epochs are echoed by the peer, all others are known to their node only.
        let node = if kind == EPOCH { 0 } else { self.node };
        let name = self.rename(kind, number | u64::from(node) << 60);
        self.mix(name);
    }
}

fn world_key(w: &World, key: &mut Key) {
    key.now = w.now.0;
    w.network.hash(key);
    for (n, node) in (0_u8..).zip(&w.nodes) {
        key.node = n;
        node_key(node, key);
    }
}

fn node_key(n: &Node, key: &mut Key) {
    n.machine.is_some().hash(key);
    if let Some(m) = &n.machine {
        m.hash(key);
    }
    n.disk.hash(key);
    n.disk_ios.len().hash(key);
    n.disk_ios.iter().for_each(|io: &DiskIo| io.hash(key));
    for wire in &n.wire {
        wire.len().hash(key);
        wire.iter().for_each(|frame| frame_key(frame, key));
    }
    (n.sent.len(), n.helpers.len()).hash(key);
    (n.receiver, n.connected, n.closing, n.dead, n.size).hash(key);
    let mut apps: Vec<_> = n.apps.iter().collect();
    apps.sort_by_cached_key(|(id, _)| key.rename(APP, u64::from(**id) | u64::from(key.node) << 60));
    for (_, app) in apps {
        (app.io.op, app.io.range, &app.pages).hash(key);
    }
    let mut bufs: Vec<_> = n.bufs.iter().collect();
    let name =
        |key: &mut Key, id: u32| key.rename(BUFFER, u64::from(id) | u64::from(key.node) << 60);
    bufs.sort_by_cached_key(|(id, _)| name(key, **id));
    for (_, buf) in bufs {
        buf.hash(key);
    }
}

fn frame_key(frame: &Frame, key: &mut Key) {
    match frame.packet {
        Some(packet) => without_counter(packet).hash(key),
        None => key.raw(&frame.bytes),
    }
    frame.data.hash(key);
}

/// The packet without the number that puts packets of both directions in order, which matters
/// only with two Primaries.
fn without_counter(packet: Packet) -> Packet {
    let mut packet = packet;
    match &mut packet {
        Packet::Data(d) | Packet::DataReply(d) | Packet::RsDataReply(d) => d.seq_num = 0,
        Packet::Trim(t) | Packet::Zeroes(t) => t.seq_num = 0,
        Packet::RecvAck(a)
        | Packet::WriteAck(a)
        | Packet::RsWriteAck(a)
        | Packet::Superseded(a)
        | Packet::NegAck(a)
        | Packet::NegDreply(a)
        | Packet::NegRsDreply(a)
        | Packet::RsIsInSync(a)
        | Packet::RsCancel(a)
        | Packet::RetryWrite(a) => a.seq_num = 0,
        _ => {}
    }
    packet
}
