// SPDX-License-Identifier: GPL-2.0

//! Making a connection: two sockets, as the core's [`drbd_core::connect`] machine says, then
//! features and authentication.

use drbd_core::connect::{accept_timeout, Alive, Coins, Connect, Event, First, Next, Place, Slot};
use drbd_core::node::PeerIx;
use drbd_core::wire::{Command, Header, Packet, BUFFER_SIZE};
use drbd_kapi::clock;
use drbd_kapi::net::socket::{Listener, SendFlags, SocketOptions, Stall, TcpSocket};
use kernel::prelude::*;
use kernel::time::{delay::fsleep, Delta};
use kernel::sync::Arc;

use super::auth;
use crate::objects::connection::{Setup, Sockets};
use crate::objects::resource::Resource;

/// Length of the queue of a listening socket, as in the C driver.
const BACKLOG: u32 = 5;
/// Priorities of TCP sockets: bulk that somebody waits for, and interactive.
const PRIO_DATA: u32 = 4;
const PRIO_META: u32 = 6;
/// A connect is given up after this many milliseconds at most, so that `down` waits no longer.
const CONNECT_SLICE: u32 = 2000;
/// Time to breathe between two failed handshakes, milliseconds.
const RETRY: i64 = 1000;

/// A connection that stands.
pub(crate) struct Established {
    /// Its sockets.
    pub(crate) sockets: Sockets,
    /// This node accepted the meta socket.
    pub(crate) arbiter: bool,
}

/// How it went.
pub(crate) enum Outcome {
    /// Connected.
    Up(Established),
    /// The core wants no connection any more.
    Aborted,
    /// It makes no sense to try again.
    Failed,
}

/// The sockets in their places while the connection is being made.
#[derive(Default)]
struct Places {
    data: Option<TcpSocket>,
    meta: Option<TcpSocket>,
}

impl Places {
    fn slot(&mut self, slot: Slot) -> &mut Option<TcpSocket> {
        match slot {
            Slot::Data => &mut self.data,
            Slot::Meta => &mut self.meta,
        }
    }

    /// Drops what is dead.
    fn check(&mut self) -> Alive {
        for socket in [&mut self.data, &mut self.meta] {
            if socket.as_ref().is_some_and(|s| !s.is_alive()) {
                *socket = None;
            }
        }
        Alive { data: self.data.is_some(), meta: self.meta.is_some() }
    }
}

fn aborted(resource: &Resource) -> bool {
    resource.inner.lock().closing
}

/// Milliseconds of `tenths` tenths of a second.
const fn tenths(tenths: u32) -> u32 {
    tenths.saturating_mul(100)
}

/// Connects until it stands or cannot succeed.
pub(crate) fn establish(resource: &Arc<Resource>, peer: PeerIx) -> Outcome {
    let _ = peer;
    loop {
        let Some(setup) = resource.inner.lock().setup.clone() else { return Outcome::Aborted };
        match try_once(resource, &setup) {
            Ok(Some(up)) => return Outcome::Up(up),
            Ok(None) if aborted(resource) => return Outcome::Aborted,
            // The peer hung up in the middle: it tries again too.
            Ok(None) => fsleep(Delta::from_millis(RETRY)),
            Err(e) => {
                pr_err!("{}: cannot connect: {:?}; giving up\n", resource.label(), e);
                return Outcome::Failed;
            }
        }
    }
}

/// One whole attempt. `None`: aborted, or worth another one.
fn try_once(resource: &Arc<Resource>, setup: &Setup) -> Result<Option<Established>> {
    let options =
        SocketOptions { sndbuf: setup.conf.sndbuf_size, rcvbuf: setup.conf.rcvbuf_size };
    let listener = Arc::new(Listener::new(&setup.my, &options, BACKLOG)?, GFP_KERNEL)?;
    resource.inner.lock().listener = Some(listener.clone());
    let pair = two_sockets(resource, setup, &options, &listener);
    resource.inner.lock().listener = None;
    drop(listener);
    let Some((data, meta, arbiter)) = pair else { return Ok(None) };
    prepare(setup, &data, &meta);
    let agreed = match auth::agree(resource, setup, &data) {
        auth::Verdict::Agreed(agreed) => agreed,
        auth::Verdict::Retry => return Ok(None),
        auth::Verdict::Refused => return Err(EPROTO),
    };
    data.set_send_timeout(tenths(setup.conf.timeout));
    // The core's pings find a dead peer; a receive waits as long as there is a connection.
    data.set_recv_timeout(0);
    meta.set_recv_timeout(0);
    let sockets = Sockets {
        data,
        meta,
        apv: agreed.apv,
        features: agreed.features,
        cork: setup.conf.tcp_cork,
    };
    Ok(Some(Established { sockets, arbiter }))
}

/// Options of both sockets for the handshake.
fn prepare(setup: &Setup, data: &TcpSocket, meta: &TcpSocket) {
    data.set_priority(PRIO_DATA);
    meta.set_priority(PRIO_META);
    data.set_nodelay();
    meta.set_nodelay();
    let patience = tenths(setup.conf.ping_timeo).saturating_mul(4);
    data.set_send_timeout(patience);
    data.set_recv_timeout(patience);
    meta.set_send_timeout(tenths(setup.conf.timeout));
}

/// Dances until both sockets stand.
fn two_sockets(
    resource: &Arc<Resource>,
    setup: &Setup,
    options: &SocketOptions,
    listener: &Listener,
) -> Option<(TcpSocket, TcpSocket, bool)> {
    let (mut machine, mut next) = Connect::start();
    let mut places = Places::default();
    loop {
        if aborted(resource) {
            return None;
        }
        let mut fresh = None;
        let event = match next {
            Next::Connect => match connect(setup, options) {
                Some(socket) => {
                    fresh = Some(socket);
                    Event::Connected
                }
                None => Event::ConnectFailed,
            },
            Next::Check => {
                let tenth = match setup.conf.sock_check_timeo {
                    0 => setup.conf.ping_timeo,
                    set => set,
                };
                fsleep(Delta::from_millis(i64::from(tenths(tenth))));
                Event::Checked(places.check())
            }
            Next::Accept { longer } => match accept(setup, listener, longer) {
                Some((socket, first)) => {
                    fresh = Some(socket);
                    Event::Accepted(first, places.check())
                }
                None => Event::AcceptTimeout,
            },
            Next::Done { resolve_conflicts } => match (places.data, places.meta) {
                (Some(data), Some(meta)) => return Some((data, meta, resolve_conflicts)),
                (Some(_), None) | (None, Some(_)) | (None, None) => return None,
            },
        };
        let coins = coins();
        let (following, place, then) = machine.handle(event, coins);
        machine = following;
        next = then;
        put(resource, &mut places, place, fresh);
    }
}

fn coins() -> Coins {
    let bits = clock::random_u64();
    Coins { again: bits & 1 != 0, longer: bits & 2 != 0 }
}

fn put(resource: &Resource, places: &mut Places, place: Place, fresh: Option<TcpSocket>) {
    match place {
        Place::Nothing | Place::Close => {}
        Place::Outgoing(slot) => {
            if let Some(socket) = fresh {
                // A failure shows in the check of both sockets.
                let _ = send_first(&socket, slot);
                *places.slot(slot) = Some(socket);
            }
        }
        Place::Incoming(slot) => *places.slot(slot) = fresh,
        Place::Crossed(slot) => {
            let letter = match slot {
                Slot::Data => 'S',
                Slot::Meta => 'M',
            };
            pr_warn!("drbd {}: initial packet {} crossed\n", resource.label(), letter);
            *places.slot(slot) = fresh;
        }
    }
}

/// An outgoing connection; any failure is worth another attempt.
fn connect(setup: &Setup, options: &SocketOptions) -> Option<TcpSocket> {
    let wait = setup.conf.connect_int.saturating_mul(1000).min(CONNECT_SLICE);
    TcpSocket::connect(&setup.my, &setup.peer, options, wait).ok()
}

fn send_first(socket: &TcpSocket, slot: Slot) -> Result {
    let packet = match slot {
        Slot::Data => Packet::InitialData,
        Slot::Meta => Packet::InitialMeta,
    };
    let mut buf = KBox::new([0u8; BUFFER_SIZE], GFP_KERNEL)?;
    // The versions are not agreed yet: the oldest header.
    let len = packet.encode(80, 0, drbd_core::units::Vnr(0), 0, &mut buf);
    socket.set_send_timeout(CONNECT_SLICE);
    socket.send(buf.get(..len).ok_or(EINVAL)?, SendFlags::NONE, || Stall::GiveUp)
}

/// Waits for the peer, and reads its first packet.
fn accept(setup: &Setup, listener: &Listener, longer: bool) -> Option<(TcpSocket, First)> {
    let wait = accept_timeout(setup.conf.connect_int, longer).as_millis();
    let socket = listener.accept(u32::try_from(wait).unwrap_or(u32::MAX)).ok()?;
    // Only the configured peer is let in; its source port is of no meaning.
    if !socket.peer_addr().is_ok_and(|from| from.same_host(&setup.peer)) {
        return None;
    }
    socket.set_recv_timeout(tenths(setup.conf.ping_timeo).saturating_mul(4));
    let mut head = [0u8; 8];
    let first = match socket.recv_exact(&mut head, || Stall::GiveUp) {
        Ok(()) => first_packet(&head),
        Err(_) => First::Other,
    };
    Some((socket, first))
}

fn first_packet(head: &[u8]) -> First {
    let Ok(header) = Header::decode(80, head) else { return First::Other };
    match Command::from_number(header.command) {
        Some(Command::InitialData) if header.length == 0 => First::Initial(Slot::Data),
        Some(Command::InitialMeta) if header.length == 0 => First::Initial(Slot::Meta),
        Some(_) | None => First::Other,
    }
}

