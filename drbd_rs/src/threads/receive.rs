// SPDX-License-Identifier: GPL-2.0

//! Taking one packet off a socket and giving it to the core. Used by receiver and asender.

use drbd_core::node::{BufId, Input, Lost, PayloadPlan, ReceiverWish, Sock, PEER};
use drbd_core::wire::{self, Command, Header, Malformed, Packet, Socket, BUFFER_SIZE};
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::net::socket::{Stall, TcpSocket};
use drbd_kapi::wait::Wait;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::guard::{self, Guard};
use crate::io::examine::Content;
use crate::objects::app::App;
use crate::objects::connection::Sockets;
use crate::objects::resource::Resource;

/// For how long the receiver waits, in milliseconds, until what is queued for the meta socket is
/// sent (`sender::close_if_sent`): longer than the usual `timeout` of a send, which then gives up.
const LAST_WORDS: u32 = 10_000;

/// Why receiving ended.
pub(crate) enum End {
    /// The network.
    Broken,
    /// What arrived is not DRBD's protocol.
    Malformed(Malformed),
}

impl From<Malformed> for End {
    fn from(m: Malformed) -> End {
        End::Malformed(m)
    }
}

impl From<Error> for End {
    fn from(_: Error) -> End {
        End::Broken
    }
}

/// The payload of a packet on its way to the core.
struct Payload<'a> {
    buf: Option<BufId>,
    body: &'a [u8],
    /// It matches its digest, or has none.
    intact: bool,
}

/// A blocked receive goes on until data come or the socket is shut down: the core's pings decide
/// when the peer is dead.
fn patient() -> Stall {
    Stall::KeepWaiting
}

/// Receives packets until the connection ends, and reports why.
pub(crate) fn until_lost(resource: &Arc<Resource>, sockets: &Sockets, sock: Sock) {
    let why = match run(resource, sockets, sock) {
        Ok(()) => {
            // The peer's `disconnect` may wait for an answer that is not on its way so far: without
            // it a C node ends the connection `ping-timeout` later, longer than drbdadm waits.
            let closed = || resource.inner.lock().closing;
            let _ = resource.changed.wait_until(Wait::Idle, Some(LAST_WORDS), closed);
            Lost::Broken
        }
        Err(End::Broken) => Lost::Broken,
        Err(End::Malformed(what)) => {
            crate::log::malformed(resource, sock, what);
            Lost::Protocol
        }
    };
    resource.step(Input::Lost { peer: PEER, why });
}

fn run(resource: &Arc<Resource>, sockets: &Sockets, sock: Sock) -> Result<(), End> {
    let mut head = KBox::new([0u8; BUFFER_SIZE], GFP_KERNEL).map_err(|_| End::Broken)?;
    let mut body = KBox::new([0u8; BUFFER_SIZE], GFP_KERNEL).map_err(|_| End::Broken)?;
    let mut guard = Guard::NONE;
    loop {
        if sock == Sock::Data && !may_receive(resource) {
            return Ok(());
        }
        one(resource, sockets, sock, &mut head, &mut body, &mut guard)?;
    }
}

/// Waits while the core asks the receiver to pause; false when the connection is to be closed.
fn may_receive(resource: &Resource) -> bool {
    let mut wish = ReceiverWish::Pause;
    let _ = resource.changed.wait_until(Wait::Idle, None, || {
        wish = resource.wish(PEER);
        wish != ReceiverWish::Pause
    });
    wish == ReceiverWish::Run
}

fn one(
    resource: &Arc<Resource>,
    sockets: &Sockets,
    sock: Sock,
    head: &mut [u8; BUFFER_SIZE],
    body: &mut [u8; BUFFER_SIZE],
    guard: &mut Guard,
) -> Result<(), End> {
    let socket = sockets.get(sock);
    let bytes = head.get_mut(..wire::header::size(sockets.apv)).ok_or(End::Broken)?;
    socket.recv_exact(bytes, patient)?;
    let header = Header::decode(sockets.apv, bytes)?;
    let command =
        Command::from_number(header.command).ok_or(Malformed::Command(header.command))?;
    let on = match sock {
        Sock::Data => Socket::Data,
        Sock::Meta => Socket::Meta,
    };
    let split = command.check_length(on, header.length, sockets.features)?;
    let fixed = usize::try_from(split.body).map_err(|_| Malformed::Length)?;
    let bytes = head.get_mut(..fixed).ok_or(Malformed::Length)?;
    socket.recv_exact(bytes, patient)?;
    let packet = Packet::decode(&header, bytes, sockets.apv)?;
    if let Err(e) = guard.follow(&packet, sockets.apv) {
        pr_err!("{}: the peer's data-integrity-alg cannot be used: {:?}\n", resource.label(), e);
        return Err(End::Broken);
    }
    let (plan, measured) = {
        let inner = resource.inner.lock();
        let machine = &inner.machine;
        (machine.payload(&header, &packet), machine.wants_measures(&header, &packet))
    };
    if let Some(vol) = measured {
        resource.measure(vol);
    }
    let payload = receive_payload(resource, socket, plan, split.payload, body, guard)?;
    resource.step(Input::Received {
        peer: PEER,
        sock,
        header,
        packet,
        buf: payload.buf,
        body: payload.body,
        intact: payload.intact,
    });
    Ok(())
}

fn receive_payload<'a>(
    resource: &Arc<Resource>,
    socket: &TcpSocket,
    plan: PayloadPlan,
    announced: u32,
    body: &'a mut [u8; BUFFER_SIZE],
    guard: &mut Guard,
) -> Result<Payload<'a>, End> {
    let none = Payload { buf: None, body: &[], intact: true };
    match plan {
        PayloadPlan::None if announced == 0 => Ok(none),
        PayloadPlan::Body { bytes } if bytes == announced => {
            let len = usize::try_from(bytes).map_err(|_| Malformed::Length)?;
            let body = body.get_mut(..len).ok_or(Malformed::Length)?;
            socket.recv_exact(body, patient)?;
            Ok(Payload { buf: None, body, intact: true })
        }
        PayloadPlan::Buffer { digest, bytes } if bytes.saturating_add(digest) == announced => {
            let sent = guard::receive(socket, digest, patient)?;
            let len = usize::try_from(bytes).map_err(|_| Malformed::Length)?;
            let mut pages = PageBuf::new(len)?;
            socket.recv_pages(&mut pages, patient)?;
            let intact = digest == 0 || guard.digest(Content::Pages(&pages))? == sent;
            let buf = resource.keep(pages).ok_or(End::Broken)?;
            Ok(Payload { buf: Some(buf), body: &[], intact })
        }
        PayloadPlan::App { app, digest, bytes } if bytes.saturating_add(digest) == announced => {
            let sent = guard::receive(socket, digest, patient)?;
            let app: Option<Arc<App>> = resource.inner.lock().apps.get(app.0).cloned();
            match app.as_ref().and_then(|a| a.bio()) {
                Some(bio) if bio.size() == bytes => {
                    socket.recv_bio(bio, patient)?;
                    let intact = digest == 0 || guard.digest(Content::Bio(bio))? == sent;
                    return Ok(Payload { intact, ..none });
                }
                // The read was given up meanwhile: its answer has no receiver any more.
                Some(_) | None => {
                    socket.drain(usize::try_from(bytes).map_err(|_| Malformed::Length)?, patient)?
                }
            }
            Ok(none)
        }
        PayloadPlan::None
        | PayloadPlan::Body { .. }
        | PayloadPlan::Buffer { .. }
        | PayloadPlan::App { .. }
        | PayloadPlan::Violation => Err(End::Malformed(Malformed::Length)),
    }
}
