// SPDX-License-Identifier: GPL-2.0

//! Tests over all packets: what is encoded comes back, and arbitrary bytes do no harm.

use super::*;
use crate::units::{Sector, Vnr};
use proptest::prelude::*;

/// Numbers to fill packets with.
type Seeds = (u64, u64, u32, u32, u32);

fn handshake_packet(kind: u8, s: Seeds, blob: &[u8], name: &str) -> Packet {
    let (a, b, x, y, z) = s;
    let state = ReqState { mask: x, val: y };
    let protocol = Protocol {
        protocol: x,
        after_sb_0p: y,
        after_sb_1p: z,
        after_sb_2p: x ^ y,
        conn_flags: y ^ z,
        two_primaries: z ^ 1,
        integrity_alg: Name64::new(name.as_bytes()).unwrap(),
    };
    match kind {
        0 => Packet::InitialData,
        1 => Packet::InitialMeta,
        2 => Packet::ConnectionFeatures(Features {
            protocol_min: x,
            feature_flags: y,
            protocol_max: z,
        }),
        3 => Packet::AuthChallenge(AuthChallenge::decode(blob).unwrap()),
        4 => Packet::AuthResponse(AuthResponse::decode(&blob[..20]).unwrap()),
        5 => Packet::Protocol(protocol),
        6 => Packet::ProtocolUpdate(protocol),
        7 => Packet::Uuids(Uuids {
            current: a,
            bitmap: b,
            history0: a ^ b,
            history1: !a,
            dirty_bits: !b,
            flags: 5,
        }),
        8 => Packet::State(State { word: x }),
        9 => Packet::StateChgReq(state),
        10 => Packet::ConnStChgReq(state),
        _ => Packet::SyncUuid(RsUuid { uuid: a }),
    }
}

fn data_packet(kind: u8, s: Seeds) -> Packet {
    let (a, b, x, y, z) = s;
    let (sector, block_id) = (Sector(a), BlockId(b));
    let data = Data {
        sector,
        block_id,
        seq_num: x,
        flags: y,
    };
    let trim = Trim {
        sector,
        block_id,
        seq_num: x,
        flags: y,
        size: z,
    };
    let req = BlockReq {
        sector,
        block_id,
        blksize: x,
    };
    let desc = BlockDesc { sector, blksize: x };
    match kind {
        12 => Packet::Data(data),
        13 => Packet::DataReply(data),
        14 => Packet::RsDataReply(data),
        15 => Packet::Trim(trim),
        16 => Packet::Zeroes(trim),
        17 => Packet::Barrier(Barrier { nr: BarrierNr(x) }),
        18 => Packet::UnplugRemote,
        19 => Packet::DataRequest(req),
        20 => Packet::RsDataRequest(req),
        21 => Packet::OvRequest(req),
        22 => Packet::OvReply(req),
        23 => Packet::CsumRsRequest(req),
        24 => Packet::RsThinReq(req),
        25 => Packet::RsDeallocated(desc),
        26 => Packet::OutOfSync(desc),
        27 => Packet::Bitmap,
        _ => Packet::CompressedBitmap,
    }
}

fn meta_packet(kind: u8, s: Seeds) -> Packet {
    let (a, b, x, y, z) = s;
    let (sector, block_id) = (Sector(a), BlockId(b));
    let ack = BlockAck {
        sector,
        block_id,
        blksize: x,
        seq_num: y,
    };
    let reply = ReqReply { retcode: x as i32 };
    match kind {
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
        41 => Packet::OvResult(OvResult {
            sector,
            verdict: [OvVerdict::InSync, OvVerdict::OutOfSync][x as usize % 2],
            blksize: y,
            seq_num: z,
        }),
        42 => Packet::BarrierAck(BarrierAck {
            nr: BarrierNr(x),
            set_size: y,
        }),
        43 => Packet::StateChgReply(reply),
        44 => Packet::ConnStChgReply(reply),
        _ => Packet::DelayProbe(DelayProbe {
            seq_num: x,
            offset: y,
        }),
    }
}

/// Everything but SYNC_PARAM and SIZES, whose form depends on the version and the features.
fn any_packet() -> impl Strategy<Value = Packet> {
    let blob = prop::collection::vec(any::<u8>(), 64..=128);
    (0u8..46, any::<Seeds>(), blob, "[a-z0-9-]{0,63}").prop_map(
        |(kind, s, blob, name)| match kind {
            0..=11 => handshake_packet(kind, s, &blob, &name),
            12..=28 => data_packet(kind, s),
            _ => meta_packet(kind, s),
        },
    )
}

/// Encodes, then receives as a node does: header, length check, body.
fn round_trip(p: Packet, apv: u32, features: u32, vnr: Vnr, payload: u32) -> Packet {
    let mut buf = [0xee; BUFFER_SIZE];
    let n = p.encode(apv, features, vnr, payload, &mut buf);
    let header = Header::decode(apv, &buf).unwrap();
    assert_eq!(header.command, p.command(apv).number());
    assert_eq!(header.volume, if apv >= 100 { vnr } else { Vnr(0) });
    assert_eq!(
        header.length as usize,
        n - header.header_len + payload as usize
    );
    let command = Command::from_number(header.command).unwrap();
    let on = match command.socket() {
        Socket::Both => Socket::Meta,
        on => on,
    };
    let split = command.check_length(on, header.length, features).unwrap();
    assert_eq!(split.payload, payload);
    let body = &buf[header.header_len..n];
    assert_eq!(split.body as usize, body.len());
    Packet::decode(&header, body, apv).unwrap()
}

const FORMS: [u32; 8] = [86, 87, 88, 89, 94, 95, 99, 101];

#[test]
fn sync_param_in_every_version() {
    let name = |s: &str| Name64::new(s.as_bytes()).unwrap();
    let full = SyncParam {
        resync_rate: 250,
        verify_alg: name("sha1"),
        csums_alg: name("md5"),
        c_plan_ahead: 20,
        c_delay_target: 10,
        c_fill_target: 100,
        c_max_rate: 102_400,
    };
    for apv in FORMS {
        let mut want = full;
        if apv < 95 {
            want.c_plan_ahead = 0;
            want.c_delay_target = 0;
            want.c_fill_target = 0;
            want.c_max_rate = 0;
        }
        if apv < 89 {
            want.csums_alg = Name64::EMPTY;
        }
        if apv < 88 {
            want.verify_alg = Name64::EMPTY;
        }
        let got = round_trip(Packet::SyncParam(full), apv, 0, Vnr(0), 0);
        assert_eq!(got, Packet::SyncParam(want), "{apv}");
        let mut buf = [0; BUFFER_SIZE];
        let n = Packet::SyncParam(full).encode(apv, 0, Vnr(0), 0, &mut buf);
        let body = match apv {
            ..=87 => 4,
            88 => 4 + 5,
            89..=94 => 132,
            _ => 148,
        };
        assert_eq!(n - header::size(apv), body);
    }
}

#[test]
fn sizes_with_and_without_limits() {
    let limits = QueueLimits {
        physical_block_size: 4096,
        logical_block_size: 512,
        discard_enabled: 1,
        ..QueueLimits::default()
    };
    let p = Sizes {
        d_size: 1 << 40,
        u_size: 2,
        c_size: 3,
        max_bio_size: 1 << 20,
        queue_order_type: 0,
        dds_flags: dds(),
        limits: Some(limits),
    };
    let with = round_trip(Packet::Sizes(p), 101, feature::WSAME, Vnr(1), 0);
    assert_eq!(with, Packet::Sizes(p));
    let bare = Sizes { limits: None, ..p };
    assert_eq!(
        round_trip(Packet::Sizes(p), 101, 0, Vnr(1), 0),
        Packet::Sizes(bare)
    );
    let zero = Some(QueueLimits::default());
    assert_eq!(
        round_trip(Packet::Sizes(bare), 101, feature::ALL, Vnr(1), 0),
        Packet::Sizes(Sizes { limits: zero, ..p })
    );
}

fn dds() -> u16 {
    state::dds_flag::FORCED | state::dds_flag::NO_RESYNC
}

#[test]
fn bytes_of_some_packets() {
    let mut buf = [0; BUFFER_SIZE];
    let p = Packet::Data(Data {
        sector: Sector(0x0102_0304),
        block_id: BlockId(0x1122_3344_5566_7788),
        seq_num: 9,
        flags: data::dp::SEND_WRITE_ACK | data::dp::RW_SYNC,
    });
    let n = p.encode(101, 0, Vnr(3), 4096, &mut buf);
    let mut want = vec![
        0x86, 0x20, 0xec, 0x20, 0, 3, 0, 0, 0, 0, 0x10, 0x18, 0, 0, 0, 0,
    ];
    want.extend([0, 0, 0, 0, 1, 2, 3, 4]);
    want.extend(0x1122_3344_5566_7788u64.to_ne_bytes());
    want.extend([0, 0, 0, 9, 0, 0, 1, 2]);
    assert_eq!(buf[..n], want);

    let p = Packet::OvResult(OvResult {
        sector: Sector(8),
        verdict: OvVerdict::OutOfSync,
        blksize: 4096,
        seq_num: 1,
    });
    let n = p.encode(97, 0, Vnr(0), 0, &mut buf);
    assert_eq!(buf[..8], [0x83, 0x74, 0x02, 0x67, 0, 0x20, 0, 24]);
    assert_eq!(
        buf[16..n],
        [0, 0, 0, 0, 0, 0, 0x12, 0x68, 0, 0, 0x10, 0, 0, 0, 0, 1]
    );

    let (_, action) = crate::handshake::Handshake::start(crate::handshake::Offer {
        apv_max: APV_MAX,
        features: feature::ALL,
        challenge: None,
    });
    let crate::handshake::Action::Send(p) = action else {
        panic!("features first")
    };
    let n = p.encode(APV_UNKNOWN, 0, Vnr(0), 0, &mut buf);
    let mut want = vec![0x83, 0x74, 0x02, 0x67, 0xff, 0xfe, 0, 72];
    want.extend([0, 0, 0, 86, 0, 0, 0, 15, 0, 0, 0, 101]);
    want.extend([0; 60]);
    assert_eq!(buf[..n], want);
}

#[test]
fn an_unknown_command_is_malformed() {
    for command in [0x05, 0x06, 0x25, 0x34, 0x35, 0x100, 0xffff] {
        let h = Header {
            volume: Vnr(0),
            command,
            length: 0,
            header_len: 8,
        };
        assert_eq!(
            Packet::decode(&h, &[], 101),
            Err(Malformed::Command(command))
        );
    }
    let old = Header {
        volume: Vnr(0),
        command: 0x0a,
        length: 4,
        header_len: 16,
    };
    assert_eq!(
        Packet::decode(&old, &[0; 4], 101),
        Err(Malformed::Command(0x0a))
    );
}

proptest! {
    #[test]
    fn every_packet_comes_back(p in any_packet(), form in 1usize..8, vnr: u16, more in 1u32..64) {
        let apv = FORMS[form];
        let payload = match p {
            Packet::Data(_) | Packet::DataReply(_) | Packet::RsDataReply(_) | Packet::OvReply(_)
            | Packet::CsumRsRequest(_) | Packet::Bitmap | Packet::CompressedBitmap => more,
            _ => 0,
        };
        prop_assert_eq!(round_trip(p, apv, 0, Vnr(vnr), payload), p);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        command in prop_oneof![0u16..0x40, any::<u16>()],
        length: u32,
        apv in 80u32..110,
        features in 0u32..16,
    ) {
        let _ = Header::decode(apv, &bytes);
        let header = Header { volume: Vnr(0), command, length, header_len: 16 };
        let _ = Packet::decode(&header, &bytes, apv);
        if let Some(c) = Command::from_number(command) {
            for on in [Socket::Data, Socket::Meta, Socket::Handshake, Socket::First] {
                if let Ok(split) = c.check_length(on, length, features) {
                    prop_assert!(split.body <= 148);
                    prop_assert_eq!(split.body + split.payload, length);
                    // Whatever fits is decoded or refused, never both.
                    let body = vec![0; split.body as usize];
                    let _ = Packet::decode(&header, &body, apv);
                }
            }
        }
    }
}
