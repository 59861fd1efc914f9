// SPDX-License-Identifier: GPL-2.0

//! Requests of `drbdsetup`: header, attributes, every group, for every command.
//!
//! What can be read is written and must come back the same; what is clamped is within the limits
//! that the schema declares; a buffer that is too small is noticed.

use crate::cursor::Cursor;
use drbd_core::nl::conf::*;
use drbd_core::nl::info::*;
use drbd_core::nl::schema::{self, Group, Kind};
use drbd_core::nl::{Attrs, Audience, Command, Header, Mode, Writer};

/// The target: command, mode and room, then the message behind the generic netlink header.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    let nr = c.u8();
    let mode = if c.flag() { Mode::Change } else { Mode::New };
    let room = usize::from(c.u16());
    let message = c.rest();
    let Some((header, attrs)) = Header::decode(message) else {
        return;
    };
    assert_eq!(header.encode(), message[..8]);
    walk(attrs, 0);
    if let Some(command) = Command::from_number(nr) {
        assert_eq!(command.number(), nr);
        for group in command.groups() {
            let _ = Attrs::find(attrs, *group);
        }
    }
    every_group(attrs, mode, room);
}

/// Attributes lie one behind the other in their list, however deep.
fn walk(attrs: &[u8], depth: u32) {
    let mut used = 0;
    for a in Attrs::new(attrs) {
        used += 4 + a.payload.len();
        assert!(used <= attrs.len(), "attributes overlap");
        assert!(a.nr < 0x4000);
        if depth < 3 {
            walk(a.payload, depth + 1);
        }
        used = used.next_multiple_of(4).min(attrs.len());
    }
}

macro_rules! one {
    ($t:ident, $attrs:expr, $mode:expr, $room:expr) => {
        if let Ok(v) = $t::from_attrs($t::default(), $attrs, $mode) {
            let bytes = written(4096, |w| v.put(w, Audience::Admin)).expect("4096 are enough");
            let back = $t::from_attrs($t::default(), &bytes, Mode::New);
            // What is required is written too, so that the strict mode reads it.
            assert_eq!(back.as_ref(), Ok(&v));
            match written($room, |w| v.put(w, Audience::Admin)) {
                Some(short) => assert_eq!(short, bytes),
                None => assert!($room < bytes.len()),
            }
            let open = written(4096, |w| v.put(w, Audience::Everybody)).expect("no longer");
            assert!($t::from_attrs($t::default(), &open, Mode::New).is_ok());
            let clamped = v.clamped();
            assert_eq!(clamped.clamped(), clamped);
            let bytes = written(4096, |w| clamped.put(w, Audience::Admin)).expect("no longer");
            within_limits(&$t::GROUP, &bytes);
            let mut reset = v;
            reset.set_defaults();
            let once = reset;
            reset.set_defaults();
            assert_eq!(reset, once);
        }
    };
}

fn every_group(attrs: &[u8], mode: Mode, room: usize) {
    macro_rules! each {
        ($($t:ident)+) => { $( one!($t, attrs, mode, room % 2048); )+ };
    }
    each!(CfgContext DiskConf ResourceOpts NetConf SetRoleParms ResizeParms StartOvParms
        NewCUuidParms DisconnectParms DetachParms CfgReply StateInfo TimeoutParms ResourceInfo
        DeviceInfo ConnectionInfo PeerDeviceInfo ResourceStatistics DeviceStatistics
        ConnectionStatistics PeerDeviceStatistics NotificationHeader Helper);
}

fn written(room: usize, f: impl FnOnce(&mut Writer<'_>)) -> Option<Vec<u8>> {
    let mut buf = vec![0x55; room];
    let mut w = Writer::new(&mut buf);
    f(&mut w);
    let len = w.finish()?;
    buf.truncate(len);
    Some(buf)
}

fn within_limits(group: &Group, bytes: &[u8]) {
    let inner = Attrs::find(bytes, group.nr).unwrap_or(&[]);
    for field in group.fields {
        let (Some((min, max)), Some(payload)) = (field.limits, Attrs::find(inner, field.nr)) else {
            continue;
        };
        let value = number(field, payload);
        assert!(
            value.is_none_or(|v| (min..=max).contains(&v)),
            "{} = {value:?}",
            field.name
        );
    }
}

fn number(field: &schema::Field, payload: &[u8]) -> Option<i64> {
    match field.kind {
        Kind::U32 => payload
            .first_chunk()
            .map(|b| i64::from(u32::from_ne_bytes(*b))),
        Kind::S32 => payload
            .first_chunk()
            .map(|b| i64::from(i32::from_ne_bytes(*b))),
        Kind::U64 => {
            let v = payload.first_chunk().map(|b| u64::from_ne_bytes(*b));
            v.map(|v| i64::try_from(v).unwrap_or(i64::MAX))
        }
        Kind::Flag | Kind::Str(_) | Kind::Bin(_) => None,
    }
}
