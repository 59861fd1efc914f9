// SPDX-License-Identifier: GPL-2.0

//! The peer: packets that make sense, packets that refer to what was sent, and any bytes.

use super::admin::UUIDS;
use super::range;
use super::world::{Asked, World};
use crate::cursor::Cursor;
use drbd_core::node::VolIx;
use drbd_core::state::State as States;
use drbd_core::units::{Sector, Vnr};
use drbd_core::wire::*;

/// Writes a packet as the peer would, and lets it arrive.
fn deliver(w: &mut World, ix: usize, vnr: u16, packet: Packet, payload: &[u8], more: u32) {
    let Some(link) = w.link else { return };
    let mut buf = [0; BUFFER_SIZE];
    let payload = match packet {
        Packet::OvReply(_) | Packet::CsumRsRequest(_) => &super::io::SAME,
        _ => payload,
    };
    let bytes = payload.len() as u32 + more;
    // The oldest header has no room for more.
    if link.apv < 95 && bytes > 0xf000 {
        return;
    }
    let len = packet.encode(link.apv, link.features, Vnr(vnr), bytes, &mut buf);
    let mut whole = buf[..len].to_vec();
    whole.extend_from_slice(payload);
    w.receive(ix, &whole, true);
}

fn vnr(c: &mut Cursor<'_>) -> u16 {
    match c.u8() {
        0..=199 => 0,
        200..=240 => 1,
        n => n.into(),
    }
}

/// A block id: of something that was sent, of the resync, or any.
fn block_id(w: &World, c: &mut Cursor<'_>) -> BlockId {
    match c.below(4) {
        0 => BlockId::SYNCER,
        1 => BlockId(c.u64()),
        _ => {
            let n = c.below(w.asked.len());
            let id = w.asked.get(n).and_then(|a| id_of(&a.packet));
            id.unwrap_or(BlockId(u64::from(c.u8())))
        }
    }
}

const fn id_of(packet: &Packet) -> Option<BlockId> {
    match packet {
        Packet::Data(p) => Some(p.block_id),
        Packet::Trim(p) | Packet::Zeroes(p) => Some(p.block_id),
        Packet::DataRequest(p) | Packet::RsDataRequest(p) | Packet::RsThinReq(p) => {
            Some(p.block_id)
        }
        _ => None,
    }
}

fn place(w: &World, c: &mut Cursor<'_>) -> (Sector, u32) {
    let r = range(w, VolIx(0), 1 << 20, c);
    match c.u8() {
        0..=239 => (r.start, r.bytes()),
        // Not on the device, or not a multiple of anything.
        240..=247 => (Sector(c.u64()), r.bytes()),
        _ => (r.start, c.u32()),
    }
}

/// Any packet; most of its fields make sense.
pub fn packet(w: &mut World, c: &mut Cursor<'_>) {
    let vnr = vnr(c);
    let (sector, size) = place(w, c);
    let id = block_id(w, c);
    let kind = c.below(44);
    let (ix, packet, more) = match kind {
        0..=5 => write(kind, sector, id, size, c),
        6..=15 => request(kind, sector, id, size, c),
        16..=27 => state(w, kind, c),
        28 => return bitmap(w, vnr, c),
        _ => meta(kind, sector, id, size, c),
    };
    deliver(w, ix, vnr, packet, &[], more);
}

fn write(
    kind: usize,
    sector: Sector,
    block_id: BlockId,
    size: u32,
    c: &mut Cursor<'_>,
) -> (usize, Packet, u32) {
    let data = Data {
        sector,
        block_id,
        seq_num: u32::from(c.u8()),
        flags: u32::from(c.u16()),
    };
    let trim = Trim {
        sector,
        block_id,
        seq_num: data.seq_num,
        flags: data.flags,
        size,
    };
    let bytes = size.min(1 << 20);
    match kind {
        0 | 1 => (0, Packet::Data(data), bytes),
        2 => (0, Packet::DataReply(data), bytes),
        3 => (0, Packet::RsDataReply(data), bytes),
        4 => (0, Packet::Trim(trim), 0),
        _ => (0, Packet::Zeroes(trim), 0),
    }
}

fn request(
    kind: usize,
    sector: Sector,
    block_id: BlockId,
    blksize: u32,
    c: &mut Cursor<'_>,
) -> (usize, Packet, u32) {
    let req = BlockReq {
        sector,
        block_id,
        blksize,
    };
    let desc = BlockDesc { sector, blksize };
    let packet = match kind {
        6 => Packet::DataRequest(req),
        7 => Packet::RsDataRequest(req),
        8 => Packet::RsThinReq(req),
        9 => Packet::OvRequest(req),
        10 => Packet::OvReply(req),
        11 => Packet::CsumRsRequest(req),
        12 => Packet::OutOfSync(desc),
        13 => Packet::RsDeallocated(desc),
        14 => Packet::UnplugRemote,
        _ => Packet::Barrier(Barrier {
            nr: BarrierNr(c.u32()),
        }),
    };
    (0, packet, 0)
}

fn state(w: &World, kind: usize, c: &mut Cursor<'_>) -> (usize, Packet, u32) {
    let words = ReqState {
        mask: c.u32(),
        val: c.u32(),
    };
    let one = word(c);
    let two = ReqState {
        mask: if c.flag() { 0x1f << 4 } else { 3 },
        val: one,
    };
    let packet = match kind {
        16 => Packet::Protocol(protocol(c)),
        17 => Packet::ProtocolUpdate(protocol(c)),
        18 => Packet::Uuids(uuids(c)),
        19 => Packet::Sizes(sizes(w, c)),
        20 | 21 => Packet::State(State { word: one }),
        22 => Packet::StateChgReq(words),
        23 => Packet::StateChgReq(two),
        24 => Packet::ConnStChgReq(two),
        25 => Packet::SyncUuid(RsUuid {
            uuid: c.pick(&UUIDS),
        }),
        26 => Packet::SyncParam(sync_param(c)),
        _ => Packet::DelayProbe(DelayProbe::default()),
    };
    (0, packet, 0)
}

fn meta(
    kind: usize,
    sector: Sector,
    block_id: BlockId,
    blksize: u32,
    c: &mut Cursor<'_>,
) -> (usize, Packet, u32) {
    let ack = BlockAck {
        sector,
        block_id,
        blksize,
        seq_num: u32::from(c.u8()),
    };
    let reply = ReqReply {
        retcode: i32::from(c.u8()) - 30,
    };
    let packet = match kind {
        29 => Packet::Ping,
        30 => Packet::PingAck,
        31 => Packet::RecvAck(ack),
        32 => Packet::WriteAck(ack),
        33 => Packet::RsWriteAck(ack),
        34 => Packet::Superseded(ack),
        35 => Packet::NegAck(ack),
        36 => Packet::NegDreply(ack),
        37 => Packet::NegRsDreply(ack),
        38 => Packet::RsIsInSync(ack),
        39 => Packet::RsCancel(ack),
        40 => Packet::RetryWrite(ack),
        41 => Packet::BarrierAck(BarrierAck {
            nr: BarrierNr(c.u32()),
            set_size: u32::from(c.u8()),
        }),
        42 => Packet::StateChgReply(reply),
        _ => Packet::ConnStChgReply(reply),
    };
    (1, packet, 0)
}

/// A state that some node may be in, or any word.
fn word(c: &mut Cursor<'_>) -> u32 {
    let raw = c.u32();
    match c.u8() {
        0..=239 => {
            let (role, conn, disk) = (raw & 3, raw >> 2 & 31, raw >> 7 & 15);
            let (peer, pdsk) = (raw >> 11 & 3, raw >> 13 & 15);
            let word = role.clamp(1, 2)
                | peer.min(2) << 2
                | [9, 10, 10, conn.min(23)][(raw >> 17 & 3) as usize] << 4
                | disk.min(8) << 9
                | pdsk.min(8) << 13;
            assert!(States::from_word(word).is_ok());
            word
        }
        _ => raw,
    }
}

fn protocol(c: &mut Cursor<'_>) -> Protocol {
    let bits = c.u8();
    let odd = bits & 3 == 3;
    let mut other = |n: usize| if odd { c.below(n) as u32 } else { 0 };
    Protocol {
        protocol: [3, 3, 2, 1][usize::from(bits >> 2 & 3)],
        after_sb_0p: other(9),
        after_sb_1p: other(9),
        after_sb_2p: other(9),
        conn_flags: other(4),
        two_primaries: u32::from(bits >> 4 & 1),
        integrity_alg: Name64::new(if bits & 0xe0 == 0xe0 { b"crc32c" } else { b"" })
            .expect("short"),
    }
}

fn uuids(c: &mut Cursor<'_>) -> Uuids {
    Uuids {
        current: c.pick(&UUIDS),
        bitmap: c.pick(&UUIDS),
        history0: c.pick(&UUIDS),
        history1: c.pick(&UUIDS),
        dirty_bits: c.u16().into(),
        flags: u64::from(c.u8() & 15),
    }
}

fn sizes(w: &World, c: &mut Cursor<'_>) -> Sizes {
    let own = w.places[0].map_or(40_000, |p| p.data);
    let mut size = || match c.u8() {
        0..=150 => own,
        151..=180 => 0,
        181..=200 => own / 2,
        201..=220 => own.saturating_mul(2),
        221..=240 => u64::from(c.u32()),
        _ => c.u64(),
    };
    let (d_size, c_size) = (size(), size());
    let odd = c.u8();
    Sizes {
        d_size,
        u_size: if odd & 3 == 3 { c.u32().into() } else { 0 },
        c_size,
        max_bio_size: [1 << 20, 1 << 20, 4096, c.u32()][usize::from(odd >> 2 & 3)],
        queue_order_type: 0,
        dds_flags: u16::from(odd >> 4 & 3),
        limits: Some(QueueLimits {
            physical_block_size: 4096,
            logical_block_size: if odd & 64 == 0 { 512 } else { c.u32() },
            discard_enabled: odd >> 7,
            ..QueueLimits::default()
        }),
    }
}

fn sync_param(c: &mut Cursor<'_>) -> SyncParam {
    SyncParam {
        resync_rate: c.u16().into(),
        c_plan_ahead: c.u8().into(),
        c_fill_target: c.u16().into(),
        c_max_rate: c.u32(),
        ..SyncParam::default()
    }
}

/// A piece of bitmap: by the book, or any bytes.
fn bitmap(w: &mut World, vnr: u16, c: &mut Cursor<'_>) {
    let bits = c.u8();
    let size = w.res.volume_status(VolIx(0)).map_or(0, |v| v.bits);
    let words = (size.div_ceil(64) as usize).min(510);
    match bits & 7 {
        0..=2 => {
            let fill = if bits & 8 == 0 { 0 } else { c.u8() };
            deliver(w, 0, vnr, Packet::Bitmap, &vec![fill; words * 8], 0);
        }
        3..=5 => deliver(w, 0, vnr, Packet::Bitmap, &[], 0),
        6 => {
            let body = c.take(usize::from(bits >> 3)).to_vec();
            deliver(w, 0, vnr, Packet::CompressedBitmap, &body, 0);
        }
        _ => {
            // One run over all of it.
            let Some(code) = vli::encode(size) else {
                return;
            };
            let mut body = vec![0; 10];
            let mut out = vli::BitWriter::new(&mut body[1..]);
            assert!(out.put(code));
            let (len, pad) = (out.len(), out.pad_bits());
            body[0] = (bits & 8) << 4 | pad << 4 | 2;
            body.truncate(len + 1);
            deliver(w, 0, vnr, Packet::CompressedBitmap, &body, 0);
        }
    }
}

/// The right answer to something that was sent, or nearly.
pub fn answer(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.asked.len());
    let how = c.u8();
    let Some(asked) = w.asked.get(n).copied() else {
        return;
    };
    if how & 64 == 0 {
        w.asked.remove(n);
    }
    let writes = |a: &&Asked| matches!(a.packet, Packet::Data(_));
    let writes = w.asked.iter().filter(writes).count() as u32;
    let found = answer_request(&asked, how).or_else(|| answer_write(&asked, how, writes));
    if let Some((ix, packet, more)) = found {
        deliver(w, ix, asked.vnr, packet, &[], more);
    }
}

fn ack(sector: Sector, block_id: BlockId, blksize: u32, seq_num: u32) -> BlockAck {
    BlockAck {
        sector,
        block_id,
        blksize,
        seq_num,
    }
}

/// Writes and epochs: socket, answer, bytes behind it.
fn answer_write(asked: &Asked, how: u8, writes: u32) -> Option<(usize, Packet, u32)> {
    let bytes = asked.bytes;
    let written = |a| match how & 7 {
        0..=4 => Packet::WriteAck(a),
        5 => Packet::RecvAck(a),
        6 => Packet::NegAck(a),
        _ => Packet::RsWriteAck(a),
    };
    let reply = match asked.packet {
        Packet::Data(p) => written(ack(p.sector, p.block_id, bytes, p.seq_num)),
        Packet::Trim(p) | Packet::Zeroes(p) => {
            written(ack(p.sector, p.block_id, p.size, p.seq_num))
        }
        Packet::RsDataReply(p) => {
            let a = ack(p.sector, p.block_id, bytes, 0);
            match how & 7 {
                7 => Packet::NegAck(a),
                _ => Packet::RsWriteAck(a),
            }
        }
        Packet::Barrier(p) => Packet::BarrierAck(BarrierAck {
            nr: p.nr,
            set_size: match how & 7 {
                0..=5 => writes,
                _ => u32::from(how >> 3),
            },
        }),
        _ => return None,
    };
    Some((1, reply, 0))
}

/// Requests for data or for a word: socket, answer, bytes behind it.
fn answer_request(asked: &Asked, how: u8) -> Option<(usize, Packet, u32)> {
    let verdict = ReqReply {
        retcode: if how & 7 == 7 {
            -i32::from(how >> 3)
        } else {
            1
        },
    };
    Some(match asked.packet {
        Packet::DataRequest(p) if how & 7 == 7 => {
            let a = ack(p.sector, p.block_id, p.blksize, 0);
            (1, Packet::NegDreply(a), 0)
        }
        Packet::DataRequest(p) => (0, Packet::DataReply(reply(p)), p.blksize),
        Packet::RsDataRequest(p) | Packet::RsThinReq(p) => {
            let a = ack(p.sector, p.block_id, p.blksize, 0);
            match how & 7 {
                6 => (1, Packet::NegRsDreply(a), 0),
                7 => (1, Packet::RsCancel(a), 0),
                _ => (0, Packet::RsDataReply(reply(p)), p.blksize),
            }
        }
        Packet::CsumRsRequest(p) => {
            let a = ack(p.sector, p.block_id, p.blksize, 0);
            match how & 7 {
                0..=2 => (1, Packet::RsIsInSync(a), 0),
                6 => (1, Packet::NegRsDreply(a), 0),
                7 => (1, Packet::RsCancel(a), 0),
                _ => (0, Packet::RsDataReply(reply(p)), p.blksize),
            }
        }
        Packet::OvRequest(p) => (0, Packet::OvReply(p), 0),
        Packet::OvReply(p) => {
            let verdict = match how & 1 {
                0 => OvVerdict::InSync,
                _ => OvVerdict::OutOfSync,
            };
            let result = OvResult {
                sector: p.sector,
                verdict,
                blksize: p.blksize,
                seq_num: 0,
            };
            (1, Packet::OvResult(result), 0)
        }
        Packet::Ping => (1, Packet::PingAck, 0),
        Packet::StateChgReq(_) => (1, Packet::StateChgReply(verdict), 0),
        Packet::ConnStChgReq(_) => (1, Packet::ConnStChgReply(verdict), 0),
        _ => return None,
    })
}

fn reply(p: BlockReq) -> Data {
    Data {
        sector: p.sector,
        block_id: p.block_id,
        seq_num: 0,
        flags: 0,
    }
}

/// The first packets of a connection.
pub fn greet(w: &mut World, c: &mut Cursor<'_>) {
    w.drain();
    let (protocol, params) = (protocol(c), sync_param(c));
    let (sizes, uuids, word) = (sizes(w, c), uuids(c), word(c));
    for packet in [
        Packet::Protocol(protocol),
        Packet::SyncParam(params),
        Packet::Sizes(sizes),
        Packet::Uuids(uuids),
        Packet::State(State { word }),
    ] {
        deliver(w, 0, 0, packet, &[], 0);
        w.drain();
    }
}

/// Any bytes, one packet after the other as long as they can be read.
pub fn raw(w: &mut World, c: &mut Cursor<'_>) {
    let ix = c.below(2);
    let len = usize::from(c.u16() & 0x3ff);
    let mut left = c.take(len);
    while !left.is_empty() {
        let Some(used) = w.receive(ix, left, c.flag()) else {
            return;
        };
        left = left.get(used..).unwrap_or(&[]);
        w.drain();
    }
}
