// SPDX-License-Identifier: GPL-2.0

//! Features and authentication on a fresh data socket: carries out what the core's
//! [`drbd_core::handshake`] machine asks for.

use drbd_core::handshake::{Action, Agreed, Failure, Handshake, Offer};
use drbd_core::units::Vnr;
use drbd_core::wire::{self, feature, AuthChallenge, Header, Packet, BUFFER_SIZE};
use drbd_kapi::clock;
use drbd_kapi::net::socket::{SendFlags, Stall, TcpSocket};
use drbd_kapi::shash::Digest;
use kernel::prelude::*;
use kernel::str::CString;

use crate::log::Shown;
use crate::objects::connection::Setup;
use crate::objects::resource::Resource;

/// What this driver can do beyond protocol version 101. Write-same is not written yet; without
/// FF_WSAME a discard is at most 4 MiB.
const FEATURES: u32 = feature::TRIM | feature::THIN_RESYNC | feature::WZEROES;
/// The longest digest that any algorithm of the kernel has.
const DIGEST_MAX: usize = 64;

/// How it went.
pub(crate) enum Verdict {
    /// Both sides are content.
    Agreed(Agreed),
    /// The network or the peer gave up in the middle: try again.
    Retry,
    /// It cannot succeed: versions, algorithm or secret.
    Refused,
}

/// Agrees with the peer.
pub(crate) fn agree(resource: &Resource, setup: &Setup, socket: &TcpSocket) -> Verdict {
    match run(setup, socket) {
        // The core says what was agreed on, in the words of the C driver.
        Ok(agreed) => Verdict::Agreed(agreed),
        Err(Trouble::Network) => Verdict::Retry,
        Err(Trouble::Algorithm) => {
            pr_err!(
                "drbd {}: cram-hmac-alg is not known to this kernel\n",
                resource.label()
            );
            Verdict::Refused
        }
        Err(Trouble::Failed(failure)) => {
            pr_err!("drbd {}: {}\n", resource.label(), Shown(&failure));
            match failure {
                Failure::Retry(_) => Verdict::Retry,
                Failure::Fatal(_) => Verdict::Refused,
            }
        }
    }
}

enum Trouble {
    Network,
    Algorithm,
    Failed(Failure),
}

impl From<Error> for Trouble {
    fn from(_: Error) -> Trouble {
        Trouble::Network
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failed(failure)
    }
}

/// The HMAC that is configured, keyed with the secret.
fn hmac(setup: &Setup) -> Result<Option<Digest>, Trouble> {
    let name = setup.conf.cram_hmac_alg.as_bytes();
    if name.is_empty() {
        return Ok(None);
    }
    let name = core::str::from_utf8(name).map_err(|_| Trouble::Algorithm)?;
    let name = CString::try_from_fmt(fmt!("hmac({})", name))?;
    let mut digest = Digest::new(&name).map_err(|_| Trouble::Algorithm)?;
    digest.set_key(setup.conf.shared_secret.as_bytes())?;
    Ok(Some(digest))
}

fn run(setup: &Setup, socket: &TcpSocket) -> Result<Agreed, Trouble> {
    let mut hmac = hmac(setup)?;
    let challenge = hmac.as_ref().map(|_| {
        let mut random = [0u8; 64];
        clock::random_bytes(&mut random);
        random
    });
    let offer = Offer { apv_max: wire::APV_MAX, features: FEATURES, challenge };
    let mut buf = KBox::new([0u8; BUFFER_SIZE], GFP_KERNEL).map_err(Error::from)?;
    let (mut machine, mut action) = Handshake::start(offer);
    loop {
        (machine, action) = match action {
            Action::Done(agreed) => return Ok(agreed),
            Action::Hmac(challenge) => {
                let mut out = [0u8; DIGEST_MAX];
                let digest = compute(hmac.as_mut(), &challenge, &mut out)?;
                machine.digest(digest)?
            }
            Action::Send(packet) => exchange(socket, machine, &packet, &mut buf)?,
        };
    }
}

fn compute<'a>(
    hmac: Option<&mut Digest>,
    challenge: &AuthChallenge,
    out: &'a mut [u8; DIGEST_MAX],
) -> Result<&'a [u8], Trouble> {
    let hmac = hmac.ok_or(Trouble::Algorithm)?;
    let size = hmac.size();
    hmac.start()?;
    hmac.update(challenge.as_bytes())?;
    hmac.finish(out)?;
    Ok(out.get(..size).ok_or(Trouble::Algorithm)?)
}

/// Sends a packet and reads the peer's next one.
fn exchange(
    socket: &TcpSocket,
    machine: Handshake,
    packet: &Packet,
    buf: &mut [u8; BUFFER_SIZE],
) -> Result<(Handshake, Action), Trouble> {
    let give_up = || Stall::GiveUp;
    let len = packet.encode(machine.apv(), 0, Vnr(0), 0, buf);
    socket.send(buf.get(..len).ok_or(Trouble::Network)?, SendFlags::NONE, give_up)?;
    let apv = machine.apv();
    let head = buf.get_mut(..wire::header::size(apv)).ok_or(Trouble::Network)?;
    socket.recv_exact(head, give_up)?;
    let header = Header::decode(apv, head).map_err(Failure::of_header)?;
    let len = machine.header(&header)?;
    let len = usize::try_from(len).map_err(|_| Trouble::Network)?;
    let body = buf.get_mut(..len).ok_or(Trouble::Network)?;
    socket.recv_exact(body, give_up)?;
    Ok(machine.body(body)?)
}
