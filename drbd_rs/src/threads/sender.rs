// SPDX-License-Identifier: GPL-2.0

//! The senders: `drbd_s_<resource>` for the data socket, `drbd_as_<resource>` for the meta socket.
//!
//! Each takes packets off its queue in order. While a packet is being sent `Inner::sending` is set;
//! the receiver waits for it to fall before it reports the connection closed, so that no page is in
//! use when the core lets go of it.

use drbd_core::digest::Digest;
use drbd_core::node::{Input, Lost, Payload, Sock, PEER};
use drbd_core::wire::BUFFER_SIZE;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::kthread::Stop;
use drbd_kapi::net::socket::{SendFlags, Stall, TcpSocket};
use drbd_kapi::wait::{EventFlag, Wait};
use kernel::prelude::*;
use kernel::sync::Arc;

use super::guard::Guard;
use crate::io::examine::Content;
use crate::objects::app::App;
use crate::objects::connection::Sockets;
use crate::objects::queue::Outgoing;
use crate::objects::resource::{Inner, Resource};

/// Index of a socket in the pairs of `Inner`.
pub(crate) const fn side(sock: Sock) -> usize {
    match sock {
        Sock::Data => 0,
        Sock::Meta => 1,
    }
}

/// A packet with what it needs, taken out of the lock.
struct Parcel {
    out: Outgoing,
    sockets: Arc<Sockets>,
    body: Body,
    /// More packets wait behind it.
    more: bool,
}

enum Body {
    None,
    App { app: Arc<App>, splice: bool },
    Pages(PageBuf),
    Digest(Digest),
    Missing,
}

/// The body of the thread.
pub(crate) fn work(resource: &Arc<Resource>, sock: Sock, stop: &Stop) {
    let Ok(mut buf) = KBox::new([0u8; BUFFER_SIZE], GFP_KERNEL) else {
        pr_err!("{}: no memory for a sender\n", &*resource.name);
        return;
    };
    let mut guard = Guard::NONE;
    while !stop.requested() {
        match next(resource, sock) {
            Some(parcel) => deliver(resource, sock, parcel, &mut buf, &mut guard),
            None => {
                uncork(resource, sock);
                close_if_sent(resource);
                let _ = ready(resource, sock).wait(Wait::Idle, None);
            }
        }
    }
}

/// Ends the connection, or the attempt to make one, if the core wants that and nothing waits for
/// the meta socket any more.
pub(crate) fn close_if_sent(resource: &Resource) {
    let (sockets, listener) = {
        let mut inner = resource.inner.lock();
        let [_, waits] = &inner.queues;
        let [_, sending] = inner.sending;
        let sent = inner.sockets.is_none() || (waits.is_empty() && !sending);
        if !inner.closing_when_sent || !sent {
            return;
        }
        inner.closing_when_sent = false;
        inner.closing = true;
        (inner.sockets.clone(), inner.listener.clone())
    };
    if let Some(sockets) = sockets {
        sockets.shutdown();
    }
    if let Some(listener) = listener {
        listener.shutdown();
    }
    resource.changed.wake_all();
}

fn ready(resource: &Resource, sock: Sock) -> &EventFlag {
    match sock {
        Sock::Data => &resource.data_ready,
        Sock::Meta => &resource.meta_ready,
    }
}

/// What was corked goes out now: nothing follows for the moment.
fn uncork(resource: &Resource, sock: Sock) {
    let sockets = resource.inner.lock().sockets.clone();
    if let Some(sockets) = sockets.filter(|s| s.cork) {
        sockets.get(sock).set_cork(false);
    }
}

/// Takes the next packet; without a connection the queue is emptied.
fn next(resource: &Resource, sock: Sock) -> Option<Parcel> {
    let mut inner = resource.inner.lock();
    let inner = &mut *inner;
    let [data, meta] = &mut inner.queues;
    let queue = match sock {
        Sock::Data => data,
        Sock::Meta => meta,
    };
    let Some(sockets) = inner.sockets.clone().filter(|_| !inner.closing) else {
        queue.clear();
        return None;
    };
    let out = queue.pop()?;
    let more = !queue.is_empty();
    if let Some(flag) = inner.sending.get_mut(side(sock)) {
        *flag = true;
    }
    let body = body(inner, &out);
    Some(Parcel { out, sockets, body, more })
}

fn body(inner: &mut Inner, out: &Outgoing) -> Body {
    match out.payload {
        Payload::None | Payload::Bitmap { .. } => Body::None,
        Payload::App { app, splice } => match inner.apps.get(app.0) {
            Some(app) => Body::App { app: app.clone(), splice },
            None => Body::Missing,
        },
        Payload::Digest(digest) => Body::Digest(digest),
        Payload::Buf(buf) => match inner.bufs.take(buf.0) {
            Some(pages) => Body::Pages(pages),
            None => Body::Missing,
        },
    }
}

fn deliver(
    resource: &Arc<Resource>,
    sock: Sock,
    parcel: Parcel,
    buf: &mut [u8; BUFFER_SIZE],
    guard: &mut Guard,
) {
    let token = parcel.out.token;
    match send(resource, sock, parcel, buf, guard) {
        Ok(()) if token.0 == 0 => {}
        Ok(()) => resource.step(Input::Sent { peer: PEER, token }),
        Err(_) => resource.step(Input::Lost { peer: PEER, why: Lost::Broken }),
    }
    // Only now: who waits for the flag to fall goes on to the next connection, which must not hear
    // of this one any more.
    {
        let mut inner = resource.inner.lock();
        if let Some(flag) = inner.sending.get_mut(side(sock)) {
            *flag = false;
        }
    }
    close_if_sent(resource);
    resource.changed.wake_all();
}

/// Asked when a send made no progress for `timeout` tenths of a second.
fn stalled(resource: &Arc<Resource>) -> Stall {
    let gives_up = || {
        let inner = resource.inner.lock();
        inner.closing || inner.closing_when_sent
    };
    if gives_up() {
        return Stall::GiveUp;
    }
    resource.step(Input::SendStalled { peer: PEER });
    if gives_up() {
        Stall::GiveUp
    } else {
        Stall::KeepWaiting
    }
}

fn send(
    resource: &Arc<Resource>,
    sock: Sock,
    parcel: Parcel,
    buf: &mut [u8; BUFFER_SIZE],
    guard: &mut Guard,
) -> Result {
    let Parcel { out, sockets, body, more } = parcel;
    let socket = sockets.get(sock);
    if sockets.cork && sock == Sock::Data {
        socket.set_cork(true);
    }
    if let Payload::Bitmap { vol } = out.payload {
        return send_bitmap(resource, socket, vol, buf);
    }
    let size = match &body {
        Body::None => 0,
        Body::App { app, .. } => app.bio().map_or(0, |b| b.size()),
        Body::Pages(pages) => u32::try_from(pages.len()).map_err(|_| EINVAL)?,
        Body::Digest(digest) => u32::from(digest.size()),
        Body::Missing => return Err(EIO),
    };
    guard.follow(&out.packet, sockets.apv)?;
    let covered = guard.covers(&out.packet);
    let digest = match &body {
        Body::App { app, .. } if covered => {
            guard.digest(Content::Bio(app.bio().ok_or(EIO)?))?
        }
        Body::Pages(pages) if covered => guard.digest(Content::Pages(pages))?,
        Body::App { .. }
        | Body::Pages(_)
        | Body::Digest(_)
        | Body::None
        | Body::Missing => Digest::EMPTY,
    };
    let digest = digest.as_bytes();
    let announced = u32::try_from(digest.len()).map_err(|_| EINVAL)?;
    let vnr = drbd_core::units::Vnr(out.vnr);
    let announced = size.saturating_add(announced);
    let len = out.packet.encode(sockets.apv, sockets.features, vnr, announced, buf);
    let head = buf.get(..len).ok_or(EINVAL)?;
    let tail = if more { SendFlags::MORE } else { SendFlags::NONE };
    let flags = if announced > 0 { SendFlags::MORE } else { tail };
    socket.send(head, flags, || stalled(resource))?;
    if !digest.is_empty() {
        socket.send(digest, SendFlags::MORE, || stalled(resource))?;
    }
    match body {
        Body::App { app, splice } => {
            let bio = app.bio().ok_or(EIO)?;
            // The application may change its pages at any time. Those that TCP refers to would
            // then go out with a digest that is not theirs.
            let splice = splice && !covered;
            let tail = if splice { tail | SendFlags::SPLICE } else { tail };
            socket.send_bio(bio, tail, || stalled(resource))
        }
        Body::Pages(pages) => socket.send_pages(pages, tail, || stalled(resource)),
        Body::Digest(digest) => socket.send(digest.as_bytes(), tail, || stalled(resource)),
        Body::None | Body::Missing => Ok(()),
    }
}

/// Sends the whole bitmap; the core encodes one chunk after the other.
fn send_bitmap(
    resource: &Arc<Resource>,
    socket: &TcpSocket,
    vol: drbd_core::node::VolIx,
    buf: &mut [u8; BUFFER_SIZE],
) -> Result {
    loop {
        let Some(len) = resource.inner.lock().machine.bitmap_chunk(vol, buf) else {
            return Ok(());
        };
        let chunk = buf.get(..len).ok_or(EINVAL)?;
        socket.send(chunk, SendFlags::NONE, || stalled(resource))?;
    }
}
