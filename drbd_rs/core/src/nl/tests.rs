// SPDX-License-Identifier: GPL-2.0

//! Tests of the attribute codec and of every group.

use super::conf::*;
use super::info::*;
use super::schema::{flag, Kind, GROUPS};
use super::*;
use proptest::prelude::*;

fn written(f: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = vec![0x55; 4096];
    let mut w = Writer::new(&mut buf);
    f(&mut w);
    let n = w.finish().unwrap();
    buf.truncate(n);
    buf
}

#[test]
fn schema_is_in_order() {
    let numbers: Vec<u16> = GROUPS.iter().map(|g| g.nr).collect();
    let all: Vec<u16> = (1..=24).filter(|&n| n != 14).collect();
    assert_eq!(numbers, all);
    for g in GROUPS {
        for pair in g.fields.windows(2) {
            assert!(pair[0].nr < pair[1].nr, "{} {}", g.name, pair[1].name);
        }
        for f in g.fields {
            assert!((1..64).contains(&f.nr));
            if let Some((min, max)) = f.limits {
                assert!(min <= f.default && f.default <= max, "{}", f.name);
                assert!(matches!(f.kind, Kind::U32 | Kind::S32 | Kind::U64));
            }
        }
    }
    for (i, c) in Command::ALL.iter().enumerate() {
        assert_eq!(Command::from_number(c.number()), Some(*c));
        assert!(Command::ALL[..i].iter().all(|o| o.number() < c.number()));
        assert!(c.groups().iter().all(|g| GROUPS.iter().any(|h| h.nr == *g)));
    }
    for (i, c) in ErrCode::ALL.iter().enumerate() {
        assert_eq!(ErrCode::from_number(c.number()), Some(*c));
        assert!(ErrCode::ALL[..i].iter().all(|o| o.number() < c.number()));
    }
}

#[test]
fn bytes_of_a_group() {
    let opts = ResourceOpts {
        cpu_mask: Str::new(b"f0").unwrap(),
        on_no_data: 1,
    };
    let got = written(|w| opts.put(w, Audience::Admin));
    let mut want = vec![];
    want.extend(20u16.to_ne_bytes());
    want.extend(0x8004u16.to_ne_bytes());
    want.extend(7u16.to_ne_bytes());
    want.extend(1u16.to_ne_bytes());
    want.extend(b"f0\0\0");
    want.extend(8u16.to_ne_bytes());
    want.extend(2u16.to_ne_bytes());
    want.extend(1u32.to_ne_bytes());
    assert_eq!(got, want);
}

#[test]
fn strings_of_every_length() {
    for n in 0..64 {
        let text = vec![b'a'; n];
        let Some(s) = Str::<64>::new(&text) else {
            assert_eq!(n, 64);
            continue;
        };
        let conf = NetConf {
            verify_alg: s,
            ..NetConf::default()
        };
        let bytes = written(|w| conf.put(w, Audience::Admin));
        let got = NetConf::from_attrs(NetConf::default(), &bytes, Mode::New);
        assert_eq!(got, Ok(conf));
    }
    assert_eq!(Str::<64>::new(&[b'a'; 64]), None);
    assert_eq!(Str::<64>::new(b"a\0b"), None);
}

#[test]
fn required_and_invariant() {
    let get = |bytes: &[u8], mode| DiskConf::from_attrs(DiskConf::default(), bytes, mode);
    assert_eq!(get(&[], Mode::New), Err(Error::NoGroup("disk_conf")));
    let half = written(|w| {
        let n = w.nest(3);
        // With the flag that old tools set.
        w.put_str(1, b"/dev/a");
        w.put_u32(3, u32::MAX);
        w.end(n);
    });
    assert_eq!(get(&half, Mode::New), Err(Error::Missing("meta_dev")));
    assert_eq!(
        get(&half, Mode::Change),
        Err(Error::Invariant("backing_dev"))
    );
    let short = written(|w| {
        let n = w.nest(3);
        w.put(10, &[1, 2, 3]);
        w.end(n);
    });
    assert_eq!(get(&short, Mode::Change), Err(Error::Invalid("al_extents")));
    let endless = written(|w| {
        let n = w.nest(3);
        w.put(1, b"/dev/a");
        w.end(n);
    });
    assert_eq!(get(&endless, Mode::New), Err(Error::Invalid("backing_dev")));
}

#[test]
fn flags_of_a_type_are_masked() {
    let mut bytes = written(|w| {
        let n = w.nest(6);
        w.put_u8(1, 1);
        w.end(n);
    });
    // The outer one: mandatory, not nested; the inner one: mandatory.
    bytes[2..4].copy_from_slice(&0x4006u16.to_ne_bytes());
    bytes[6..8].copy_from_slice(&0x4001u16.to_ne_bytes());
    let got = SetRoleParms::from_attrs(SetRoleParms::default(), &bytes, Mode::New);
    assert!(got.unwrap().assume_uptodate);
}

#[test]
fn defaults_limits_and_secrets() {
    let d = DiskConf::default();
    assert_eq!((d.on_io_error, d.resync_after, d.al_extents), (2, -1, 1237));
    let mut d = DiskConf {
        disk_size: 77,
        al_extents: 1,
        resync_after: -5,
        c_max_rate: u32::MAX,
        ..d
    };
    let c = d.clamped();
    assert_eq!(
        (c.al_extents, c.resync_after, c.c_max_rate),
        (67, -1, 4_194_304)
    );
    d.set_defaults();
    assert_eq!((d.disk_size, d.al_extents), (77, 1237));
    let n = NetConf {
        shared_secret: Str::new(b"hush").unwrap(),
        discard_my_data: true,
        ..NetConf::default()
    };
    let open = written(|w| n.put(w, Audience::Everybody));
    assert!(!open.windows(4).any(|w| w == b"hush"));
    let got = NetConf::from_attrs(n, &open, Mode::New).unwrap();
    assert!(got.shared_secret.is_empty() && got.discard_my_data);
    let mut n = n;
    n.set_defaults();
    assert!(n.discard_my_data && n.shared_secret.is_empty());
}

#[test]
fn header_and_lines() {
    let h = Header::reply(7, -19);
    let bytes = h.encode();
    assert_eq!(Header::decode(&bytes), Some((h, &[][..])));
    assert_eq!(h.ret_code(), -19);
    assert_eq!(Header::decode(&bytes[..7]), None);
    let b = written(|w| CfgReply::put_lines(w, &["one", "second"]));
    let lines: Vec<_> = Attrs::new(Attrs::find(&b, 1).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1].payload, b"second\0");
    assert!(written(|w| CfgReply::put_lines(w, &[])).is_empty());
}

#[test]
fn a_full_buffer_is_noticed_everywhere() {
    let conf = NetConf {
        cram_hmac_alg: Str::new(b"sha1").unwrap(),
        ..NetConf::default()
    };
    let whole = written(|w| conf.put(w, Audience::Admin)).len();
    for n in 0..whole {
        let mut buf = vec![0; n];
        let mut w = Writer::new(&mut buf);
        conf.put(&mut w, Audience::Admin);
        assert_eq!(w.finish(), None, "{n}");
    }
    let mut buf = vec![0; 100];
    let mut w = Writer::new(&mut buf);
    w.put_u32(1, 1);
    let mark = w.len();
    conf.put(&mut w, Audience::Admin);
    w.truncate(mark);
    assert_eq!(w.finish(), Some(8));
}

/// Reads every group out of `attrs`, whatever comes of it.
fn read_all(attrs: &[u8], mode: Mode) {
    macro_rules! each {
        ($($t:ident)+) => { $( let _ = $t::from_attrs($t::default(), attrs, mode); )+ };
    }
    each!(CfgContext DiskConf ResourceOpts NetConf SetRoleParms ResizeParms StartOvParms
        NewCUuidParms DisconnectParms DetachParms CfgReply StateInfo TimeoutParms ResourceInfo
        DeviceInfo ConnectionInfo PeerDeviceInfo ResourceStatistics DeviceStatistics
        ConnectionStatistics PeerDeviceStatistics NotificationHeader Helper);
}

/// A message with every attribute of every group, made of the schema alone.
fn full_message(seed: u64) -> Vec<u8> {
    written(|w| {
        for g in GROUPS {
            let n = w.nest(g.nr);
            for f in g.fields {
                let v = seed.wrapping_mul(u64::from(f.nr) + 1);
                match f.kind {
                    Kind::Flag => w.put_u8(f.nr, (v & 1) as u8),
                    Kind::U32 | Kind::S32 => w.put_u32(f.nr, v as u32),
                    Kind::U64 => w.put_u64(f.nr, v),
                    Kind::Str(max) => w.put_str(f.nr, &vec![b'x'; v as usize % max]),
                    Kind::Bin(max) => w.put(f.nr, &vec![7; v as usize % (max + 1)]),
                }
            }
            w.end(n);
        }
    })
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..200), nr in 0u16..26
    ) {
        read_all(&bytes, Mode::New);
        let mut wrapped = vec![];
        wrapped.extend((bytes.len() as u16 + 4).to_ne_bytes());
        wrapped.extend(nr.to_ne_bytes());
        wrapped.extend(&bytes);
        read_all(&wrapped, Mode::Change);
        prop_assert!(Attrs::new(&bytes).count() <= bytes.len() / 4);
    }

    #[test]
    fn every_group_comes_back(seed: u64) {
        let bytes = full_message(seed);
        let again = written(|w| {
            macro_rules! each {
                ($($t:ident)+) => { $(
                    let v = $t::from_attrs($t::default(), &bytes, Mode::New).unwrap();
                    v.put(w, Audience::Admin);
                )+ };
            }
            each!(CfgReply CfgContext DiskConf ResourceOpts NetConf SetRoleParms ResizeParms
                StateInfo StartOvParms NewCUuidParms TimeoutParms DisconnectParms DetachParms
                ResourceInfo DeviceInfo ConnectionInfo PeerDeviceInfo ResourceStatistics
                DeviceStatistics ConnectionStatistics PeerDeviceStatistics NotificationHeader
                Helper);
        });
        prop_assert_eq!(again, bytes);
    }
}

#[test]
fn only_the_secret_is_sensitive() {
    let secret: Vec<_> = GROUPS
        .iter()
        .flat_map(|g| g.fields)
        .filter(|f| f.flags & flag::SENSITIVE != 0)
        .map(|f| f.name)
        .collect();
    assert_eq!(secret, ["shared_secret"]);
}
