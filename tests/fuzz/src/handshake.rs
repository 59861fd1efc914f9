// SPDX-License-Identifier: GPL-2.0

//! The handshake of a fresh connection, and the dance that leads to two sockets.
//!
//! Safety of the first: without a secret's proof there is no agreement, and what is agreed on is
//! what both offered. Safety of the second: it ends with both sockets in place and alive only.

use crate::cursor::Cursor;
use drbd_core::connect::{Alive, Coins, Connect, Event, First, Next, Place, Slot};
use drbd_core::handshake::{Action, Failure, Handshake, Offer};
use drbd_core::wire::{feature, Header, APV_MAX, APV_MIN};

/// The target: the first byte says which machine.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    if c.flag() {
        dance(c);
    } else {
        agree(c);
    }
}

/// Stands in for an HMAC: depends on every byte and on the secret.
fn hmac(secret: u8, over: &[u8], len: usize) -> Vec<u8> {
    let mut sum = u64::from(secret) + 1;
    for b in over {
        sum = (sum ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    }
    (0..len).map(|i| (sum >> (i % 8 * 8)) as u8).collect()
}

fn agree(mut c: Cursor<'_>) {
    let apv_max = APV_MIN + c.below(16) as u32;
    let features = u32::from(c.u8()) & feature::ALL;
    let secret = c.flag();
    let digest = c.pick(&[0, 1, 16, 20, 32, 64, 65]);
    let challenge = secret.then(|| c.array());
    let offer = Offer {
        apv_max,
        features,
        challenge,
    };
    let (mut machine, mut action) = Handshake::start(offer);
    let (mut proof, mut offered) = (None, 0);
    for round in 0.. {
        assert!(round < 8, "a handshake without an end");
        let step = match action {
            Action::Done(agreed) => {
                assert!((APV_MIN..=apv_max).contains(&agreed.apv), "{agreed:?}");
                assert!(agreed.apv <= APV_MAX);
                assert_eq!(agreed.features & !(features & offered), 0, "{agreed:?}");
                if let Some(own) = challenge {
                    assert_eq!(proof, Some(hmac(7, &own, digest)), "no proof");
                }
                return;
            }
            Action::Hmac(over) => machine.digest(&hmac(7, over.as_bytes(), digest)),
            Action::Send(_) => {
                let Some((body, is_response)) = incoming(&machine, &mut c, &challenge, digest)
                else {
                    return;
                };
                if round == 0 {
                    offered = u32::from_be_bytes(body[4..8].try_into().expect("72 bytes"));
                }
                if is_response {
                    proof = Some(body.clone());
                }
                machine.body(&body)
            }
        };
        match step {
            Ok((m, a)) => (machine, action) = (m, a),
            Err(Failure::Fatal(why) | Failure::Retry(why)) => {
                assert!(!why.to_string().is_empty());
                return;
            }
        }
    }
}

/// The next packet of the peer, as far as it gets past the header.
fn incoming(
    machine: &Handshake,
    c: &mut Cursor<'_>,
    own: &Option<[u8; 64]>,
    digest: usize,
) -> Option<(Vec<u8>, bool)> {
    if c.is_empty() {
        return None;
    }
    let bytes: [u8; 16] = c.array();
    let header = Header::decode(machine.apv(), &bytes).ok()?;
    let len = match machine.header(&header) {
        Ok(len) => len as usize,
        Err(Failure::Fatal(_) | Failure::Retry(_)) => return None,
    };
    assert!(len <= 128, "{len} bytes wanted");
    // Half of the headers had 8 bytes, of which the other 8 are the beginning of the body.
    let mut body = bytes[header.header_len..].to_vec();
    body.extend_from_slice(c.take(len.saturating_sub(body.len())));
    body.resize(len, 0);
    let is_response = header.command == drbd_core::wire::Command::AuthResponse.number();
    // A peer that knows the secret.
    if let (true, Some(own), true) = (is_response, own, c.flag()) {
        body = hmac(7, own, digest);
        body.resize(len, 0);
    }
    Some((body, is_response))
}

fn slot(c: &mut Cursor<'_>) -> Slot {
    c.pick(&[Slot::Data, Slot::Meta])
}

fn alive(c: &mut Cursor<'_>) -> Alive {
    Alive {
        data: c.flag(),
        meta: c.flag(),
    }
}

fn dance(mut c: Cursor<'_>) {
    let (mut machine, mut next) = Connect::start();
    // Which sockets the owner holds.
    let mut held = [false; 2];
    while !c.is_empty() {
        let event = match next {
            Next::Connect if c.flag() => Event::Connected,
            Next::Connect => Event::ConnectFailed,
            Next::Check => Event::Checked(alive(&mut c)),
            Next::Accept { .. } => match c.below(4) {
                0 => Event::AcceptTimeout,
                1 => Event::Accepted(First::Other, alive(&mut c)),
                _ => Event::Accepted(First::Initial(slot(&mut c)), alive(&mut c)),
            },
            Next::Done { .. } => return,
        };
        let mut last = None;
        if let Event::Checked(a) | Event::Accepted(_, a) = event {
            held = [held[0] && a.data, held[1] && a.meta];
            last = Some(a);
        }
        let coins = Coins {
            again: c.flag(),
            longer: c.flag(),
        };
        let place;
        (machine, place, next) = machine.handle(event, coins);
        match place {
            Place::Nothing | Place::Close => {}
            Place::Outgoing(s) | Place::Incoming(s) => {
                let held = &mut held[usize::from(s == Slot::Meta)];
                assert!(!*held, "a socket is put where one is");
                *held = true;
            }
            Place::Crossed(s) => {
                let held = &mut held[usize::from(s == Slot::Meta)];
                assert!(*held, "nothing to cross with");
            }
        }
        if let Next::Done { .. } = next {
            assert_eq!(held, [true; 2], "done without both sockets");
            let checked = last.is_some_and(|a| a.data && a.meta);
            assert!(checked, "done without a look at the sockets");
        }
    }
}
