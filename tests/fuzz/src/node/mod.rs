// SPDX-License-Identifier: GPL-2.0

//! A whole node: one resource, driven by whatever the bytes say.
//!
//! The bytes choose what happens next: I/O of applications, completions in any order and with any
//! result, packets that make sense and packets that do not, administrators, timers, the end of
//! connections. Only the promises of an owner are kept (`drbd_core::node::io`). Afterwards
//! everything is taken down in good order, which has to succeed. What is checked on the way stands
//! at [`world::World`].

mod admin;
mod effects;
mod end;
mod io;
mod options;
mod peer;
mod world;

use crate::cursor::Cursor;
use drbd_core::node::{
    AppId, AppIo, AppOp, BufId, Input, IoError, IoFlags, Lost, ReceiverWish, Sock, VolIx, PEER,
};
use drbd_core::time::Duration;
use drbd_core::units::{Sector, SectorRange, Sectors};
use world::World;

/// Volumes of the resource.
const VOLUMES: u16 = 2;
/// Most inputs of a run.
const INPUTS: usize = 600;

/// The target.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    let mut w = World::new(c.u8());
    for _ in 0..INPUTS {
        if c.is_empty() {
            break;
        }
        one(&mut w, &mut c);
    }
    end::take_down(&mut w);
}

fn one(w: &mut World, c: &mut Cursor<'_>) {
    match c.below(24) {
        0 | 1 => submit(w, c),
        3 if !w.looks.is_empty() => look_done(w, c),
        2 | 3 => local_done(w, c),
        4 => meta_done(w, c),
        5 => sent(w, c),
        6 | 7 => peer::packet(w, c),
        8 => peer::answer(w, c),
        9 => peer::raw(w, c),
        10 => peer::greet(w, c),
        11 | 12 => admin::command(w, c),
        13 => admin::attach(w, c),
        14 => admin::volume(w, c),
        15 => time(w, c),
        16 => connection(w, c),
        17 => connect(w, c),
        18 => lost(w, c),
        19 => helper(w, c),
        20 => open(w, c),
        21 => w.work(),
        22 => w.drain(),
        _ => admin::start(w, c),
    }
}

fn volume(c: &mut Cursor<'_>) -> VolIx {
    VolIx(u16::from(c.u8() & 3) % (VOLUMES + 1))
}

/// A place on a device, most often near its ends or where others are.
fn range(w: &World, vol: VolIx, longest: u32, c: &mut Cursor<'_>) -> SectorRange {
    let size = w.capacity(vol);
    let longest = u64::from(longest / 512).max(1);
    let len = match c.below(4) {
        0 => 8,
        1 => 1 + c.below(16) as u64,
        2 => longest,
        _ => 8 * (1 + c.below(64) as u64),
    };
    let len = len.min(longest).min(size);
    let at = match c.below(4) {
        0 => c.below(16) as u64 * 8,
        1 => size.saturating_sub(c.below(64) as u64),
        2 => u64::from(c.u16()) * 8,
        _ => u64::from(c.u32()),
    };
    SectorRange {
        start: Sector(at.min(size - len)),
        len: Sectors(len),
    }
}

fn submit(w: &mut World, c: &mut Cursor<'_>) {
    let vol = volume(c);
    let limits = w.res.queue_limits(vol);
    // Only who has the device open submits, and it can be opened on a Primary only.
    if !w.res.can_submit() || !opened(w, vol) {
        return;
    }
    let unmap = c.flag();
    let (op, longest) = match c.below(8) {
        0..=3 => (AppOp::Write, limits.max_bio),
        4 | 5 => (AppOp::Read, limits.max_bio),
        6 => (AppOp::Discard, limits.max_discard),
        _ if c.flag() => (AppOp::Flush, 0),
        _ => (AppOp::WriteZeroes { unmap }, limits.max_write_zeroes),
    };
    // The block layer lets nothing else through.
    if op != AppOp::Flush && (longest < 512 || w.capacity(vol) == 0) {
        return;
    }
    let bits = c.u8();
    let flags = IoFlags {
        sync: bits & 1 != 0,
        fua: bits & 2 != 0 && op == AppOp::Write,
        preflush: bits & 4 != 0 && matches!(op, AppOp::Write | AppOp::Flush),
        rahead: bits & 8 != 0 && op == AppOp::Read,
    };
    let range = match op {
        AppOp::Flush => SectorRange {
            start: Sector(0),
            len: Sectors(0),
        },
        AppOp::Read | AppOp::Write | AppOp::Discard | AppOp::WriteZeroes { .. } => {
            range(w, vol, longest, c)
        }
    };
    let app = AppId(w.next());
    let io = AppIo {
        app,
        op,
        range,
        flags,
    };
    w.apps.insert(app.0, io);
    w.users.insert(app.0, vol);
    w.step(Input::Submit { vol, io });
}

/// Whether somebody has the device open; opens it if that is possible.
fn opened(w: &mut World, vol: VolIx) -> bool {
    let Some(openers) = w.openers.get_mut(usize::from(vol.0)) else {
        return false;
    };
    if *openers == 0 && w.res.may_open(vol, true).is_ok() {
        *openers += 1;
        w.step(Input::Opened { vol, open: true });
    }
    w.openers[usize::from(vol.0)] > 0
}

fn result(c: &mut Cursor<'_>) -> Result<(), IoError> {
    match c.u8() {
        0..=239 => Ok(()),
        240..=249 => Err(IoError::Io),
        250..=252 => Err(IoError::Unsupported),
        _ => Err(IoError::NoMemory),
    }
}

fn local_done(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.locals.len());
    let result = result(c);
    w.finish_local(n, result);
}

fn look_done(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.looks.len());
    let how = c.u8();
    w.finish_look(n, how);
}

fn meta_done(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.metas.len());
    let result = result(c);
    let fill = c.u8();
    w.finish_meta(n, result, fill);
}

fn sent(w: &mut World, c: &mut Cursor<'_>) {
    let ix = c.below(2);
    for _ in 0..=c.below(8) {
        w.transmit(ix);
    }
}

fn time(w: &mut World, c: &mut Cursor<'_>) {
    let span = match c.below(5) {
        0 => Duration(u64::from(c.u16())),
        1 => Duration::millis(u64::from(c.u8())),
        2 => Duration::secs(u64::from(c.u8() % 100)),
        _ => match w.res.deadline() {
            Some(at) => at.since(w.now),
            None => return,
        },
    };
    w.now = w.now.plus(span);
    w.step(Input::Tick);
}

/// What the receiver thread does when the core wants something of it.
fn connection(w: &mut World, c: &mut Cursor<'_>) {
    match w.res.receiver_wish(PEER) {
        ReceiverWish::Exit if w.receiver => w.receiver_gone(),
        ReceiverWish::Close if w.receiver => {
            if c.flag() && w.link.is_some() {
                w.lost(Lost::Broken);
            }
            w.closed();
        }
        ReceiverWish::Run if w.receiver && w.link.is_none() && c.u8() > 200 => {
            w.step(Input::ConnectFailed { peer: PEER });
        }
        ReceiverWish::Run | ReceiverWish::Pause | ReceiverWish::Close | ReceiverWish::Exit => {}
    }
}

fn connect(w: &mut World, c: &mut Cursor<'_>) {
    let bits = c.u8();
    // Mostly what two new nodes agree on.
    let apv = match bits & 3 {
        0 => 86 + u32::from(bits >> 4),
        _ => 101,
    };
    let features = match bits & 12 {
        0 => u32::from(c.u8()) & 15,
        _ => 15,
    };
    w.connected(apv, features, c.flag());
}

fn lost(w: &mut World, c: &mut Cursor<'_>) {
    match c.below(8) {
        0 => w.lost(Lost::Broken),
        1 => w.lost(Lost::Timeout),
        2 => w.lost(Lost::Protocol),
        3 | 4 if w.link.is_some() => w.step(Input::SendStalled { peer: PEER }),
        _ => {}
    }
}

fn helper(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.helpers.len());
    let code = c.pick(&[0, 3, 4, 5, 6, 7, 1, 127, 20, 255]);
    w.finish_helper(n, code);
}

fn open(w: &mut World, c: &mut Cursor<'_>) {
    let vol = volume(c);
    let ix = usize::from(vol.0);
    let Some(openers) = w.openers.get(ix).copied() else {
        return;
    };
    let bits = c.u8();
    // A file is not closed before its I/O has ended.
    let busy = openers == 1 && w.users.values().any(|v| *v == vol);
    if bits & 1 == 0 && openers > 0 && !busy {
        w.openers[ix] -= 1;
        w.step(Input::Opened { vol, open: false });
    } else if w.res.may_open(vol, bits & 2 == 0).is_ok() {
        w.openers[ix] += 1;
        w.step(Input::Opened { vol, open: true });
    }
}

/// A socket by its number.
const fn sock(ix: usize) -> Sock {
    match ix {
        0 => Sock::Data,
        _ => Sock::Meta,
    }
}

/// A buffer as the world numbers it.
const fn buffer(n: u32) -> BufId {
    BufId(n)
}
