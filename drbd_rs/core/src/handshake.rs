// SPDX-License-Identifier: GPL-2.0

//! Feature negotiation and authentication of a fresh connection.
//!
//! ```text
//! start: send features
//!   ExpectFeatures ──features──► no secret: agreed
//!        │ secret: send challenge
//!   ExpectChallenge ──challenge──► want HMAC of the peer's challenge
//!   WantAnswer ──digest──► send response
//!   ExpectResponse ──response──► want HMAC of the own challenge
//!   WantProof ──digest──► equal: agreed
//! ```
//!
//! Each step consumes the machine; after a failure there is none left. Failures are of two kinds,
//! as in the C driver: some are worth another attempt, others leave the connection StandAlone.
//! HMACs are computed outside. Here nothing reads a socket.

use core::fmt;

use crate::wire::{
    self, handshake::CHALLENGE_SIZE, AuthChallenge, AuthResponse, Command, Features, Header,
    Malformed, Packet,
};

/// What this node brings to the handshake.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Newest protocol version to speak: normally [`wire::APV_MAX`], not below [`wire::APV_MIN`].
    pub apv_max: u32,
    /// Flags of [`wire::feature`].
    pub features: u32,
    /// 64 random bytes if `cram-hmac-alg` is set. They must never have been used before.
    pub challenge: Option<[u8; CHALLENGE_SIZE]>,
}

/// What both nodes agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Protocol version.
    pub apv: u32,
    /// Flags of [`wire::feature`].
    pub features: u32,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A packet of this command came in place of the features.
    ExpectedFeatures(u16),
    /// The features packet has this length instead of 72.
    FeaturesLength(u32),
    /// The peer speaks only these versions.
    Incompatible {
        /// Oldest.
        min: u32,
        /// Newest.
        max: u32,
    },
    /// A packet of this command came in place of the challenge.
    ExpectedChallenge(u16),
    /// The challenge is longer than 128 bytes.
    ChallengeTooBig,
    /// The challenge is shorter than 64 bytes.
    ChallengeTooSmall,
    /// The peer sent this node's own challenge back, to have it solved.
    SameChallenge,
    /// A packet of this command came in place of the response.
    ExpectedResponse(u16),
    /// The response is not as long as an HMAC.
    ResponseLength,
    /// The response is wrong: the secrets differ.
    WrongResponse,
    /// The header makes no sense.
    BadHeader(Malformed),
    /// The caller's digest has no bytes, or too many.
    BadDigest,
    /// The caller did not do what the machine asked for.
    OutOfOrder,
}

/// Why there is no connection, and whether to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Disconnect, wait a second, connect again.
    Retry(Reason),
    /// Become StandAlone.
    Fatal(Reason),
}

impl Failure {
    /// What a header that cannot be read amounts to.
    pub const fn of_header(error: Malformed) -> Failure {
        Failure::Retry(Reason::BadHeader(error))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (oldest, newest) = (wire::APV_MIN, wire::APV_MAX);
        match self {
            Reason::ExpectedFeatures(got) => {
                write!(
                    f,
                    "expected the features packet, received command 0x{got:x}"
                )
            }
            Reason::FeaturesLength(got) => {
                write!(f, "the features packet has {got} bytes instead of 72")
            }
            Reason::Incompatible { min, max } => write!(
                f,
                "incompatible DRBD dialects: this node speaks {oldest}-{newest}, the peer \
                 {min}-{max}; upgrade the older one"
            ),
            Reason::ExpectedChallenge(got) => write!(
                f,
                "expected the challenge of authentication, received command 0x{got:x}; does the \
                 peer have cram-hmac-alg and shared-secret too?"
            ),
            Reason::ChallengeTooBig => write!(f, "the peer's challenge is too big"),
            Reason::ChallengeTooSmall => write!(f, "the peer's challenge is too small"),
            Reason::SameChallenge => {
                write!(
                    f,
                    "the peer presented this node's own challenge: not a DRBD, aborting"
                )
            }
            Reason::ExpectedResponse(got) => {
                write!(
                    f,
                    "expected the response of authentication, received command 0x{got:x}"
                )
            }
            Reason::ResponseLength => write!(f, "the peer's response has a wrong length"),
            Reason::WrongResponse => write!(
                f,
                "authentication of the peer failed: compare shared-secret and cram-hmac-alg"
            ),
            Reason::BadHeader(what) => write!(f, "the peer sent {what}"),
            Reason::BadDigest => write!(f, "the HMAC of this node has an unexpected length"),
            Reason::OutOfOrder => write!(f, "the handshake went out of order"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Retry(reason) => write!(f, "{reason}; trying again"),
            Failure::Fatal(reason) => write!(f, "{reason}; discarding the network configuration"),
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this in the form of [`Handshake::apv`], then read a header, then the body.
    Send(Packet),
    /// Compute the HMAC of these bytes with the shared secret and hand it to
    /// [`Handshake::digest`].
    Hmac(AuthChallenge),
    /// The handshake is over.
    Done(Agreed),
}

/// The place in the handshake.
#[derive(Clone, Copy, Debug)]
enum State {
    ExpectFeatures,
    ExpectChallenge,
    WantAnswer,
    ExpectResponse { len: usize },
    WantProof { response: AuthResponse },
    Over,
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    offer: Offer,
    agreed: Agreed,
    state: State,
}

/// A step's result: the machine, and what to do.
pub type Step = Result<(Handshake, Action), Failure>;

impl Handshake {
    /// Begins; the first action is to send the features.
    pub fn start(offer: Offer) -> (Handshake, Action) {
        let features = Features {
            protocol_min: wire::APV_MIN,
            feature_flags: offer.features,
            protocol_max: offer.apv_max,
        };
        let machine = Handshake {
            offer,
            agreed: Agreed {
                apv: wire::APV_UNKNOWN,
                features: 0,
            },
            state: State::ExpectFeatures,
        };
        (machine, Action::Send(Packet::ConnectionFeatures(features)))
    }

    /// The protocol version that headers have at this point, in both directions.
    pub const fn apv(&self) -> u32 {
        self.agreed.apv
    }

    /// Judges a header. Returns how many bytes of body to read: at most 128.
    ///
    /// # Errors
    /// The wrong packet, or one of the wrong length.
    pub fn header(&self, header: &Header) -> Result<u32, Failure> {
        let (nr, len) = (header.command, header.length);
        let is = |command: Command| command.number() == nr;
        match self.state {
            State::ExpectFeatures if !is(Command::ConnectionFeatures) => {
                Err(Failure::Fatal(Reason::ExpectedFeatures(nr)))
            }
            State::ExpectFeatures if len != 72 => Err(Failure::Fatal(Reason::FeaturesLength(len))),
            State::ExpectChallenge if !is(Command::AuthChallenge) => {
                Err(Failure::Fatal(Reason::ExpectedChallenge(nr)))
            }
            State::ExpectChallenge if len > 128 => Err(Failure::Fatal(Reason::ChallengeTooBig)),
            State::ExpectChallenge if len < 64 => Err(Failure::Fatal(Reason::ChallengeTooSmall)),
            State::ExpectResponse { .. } if !is(Command::AuthResponse) => {
                Err(Failure::Retry(Reason::ExpectedResponse(nr)))
            }
            State::ExpectResponse { len: want } if crate::units::widen(want) != u64::from(len) => {
                Err(Failure::Retry(Reason::ResponseLength))
            }
            State::ExpectFeatures | State::ExpectChallenge | State::ExpectResponse { .. } => {
                Ok(len)
            }
            State::WantAnswer | State::WantProof { .. } | State::Over => {
                Err(Failure::Retry(Reason::OutOfOrder))
            }
        }
    }

    /// Takes the body of the packet whose header was judged.
    ///
    /// # Errors
    /// The peer is incompatible, or cheats.
    pub fn body(self, body: &[u8]) -> Step {
        match self.state {
            State::ExpectFeatures => self.features(body),
            State::ExpectChallenge => self.challenge(body),
            State::ExpectResponse { len } => self.response(len, body),
            State::WantAnswer | State::WantProof { .. } | State::Over => {
                Err(Failure::Retry(Reason::OutOfOrder))
            }
        }
    }

    /// Takes the HMAC that was asked for.
    ///
    /// # Errors
    /// The peer's response was wrong.
    pub fn digest(mut self, digest: &[u8]) -> Step {
        let own = AuthResponse::decode(digest).map_err(|_| Failure::Fatal(Reason::BadDigest))?;
        match self.state {
            State::WantAnswer => {
                self.state = State::ExpectResponse { len: digest.len() };
                Ok((self, Action::Send(Packet::AuthResponse(own))))
            }
            State::WantProof { response } => {
                if !same(own.as_bytes(), response.as_bytes()) {
                    return Err(Failure::Fatal(Reason::WrongResponse));
                }
                Ok(self.over())
            }
            State::ExpectFeatures
            | State::ExpectChallenge
            | State::ExpectResponse { .. }
            | State::Over => Err(Failure::Retry(Reason::OutOfOrder)),
        }
    }

    fn over(mut self) -> (Handshake, Action) {
        self.state = State::Over;
        let agreed = self.agreed;
        (self, Action::Done(agreed))
    }

    fn features(mut self, body: &[u8]) -> Step {
        let len = crate::units::saturate_u32(crate::units::widen(body.len()));
        let peer =
            Features::decode(body).map_err(|_| Failure::Fatal(Reason::FeaturesLength(len)))?;
        let min = peer.protocol_min;
        let max = match peer.protocol_max {
            0 => min,
            max => max,
        };
        if self.offer.apv_max < min || max < wire::APV_MIN {
            return Err(Failure::Fatal(Reason::Incompatible { min, max }));
        }
        self.agreed = Agreed {
            apv: max.min(self.offer.apv_max),
            features: peer.feature_flags & self.offer.features,
        };
        let Some(random) = &self.offer.challenge else {
            return Ok(self.over());
        };
        let challenge = Packet::AuthChallenge(AuthChallenge::new(random));
        self.state = State::ExpectChallenge;
        Ok((self, Action::Send(challenge)))
    }

    fn challenge(mut self, body: &[u8]) -> Step {
        let too_small = Failure::Fatal(Reason::ChallengeTooSmall);
        let theirs = AuthChallenge::decode(body).map_err(|_| too_small)?;
        let own = self.offer.challenge.as_ref();
        if own.is_some_and(|own| body.first_chunk() == Some(own)) {
            return Err(Failure::Fatal(Reason::SameChallenge));
        }
        self.state = State::WantAnswer;
        Ok((self, Action::Hmac(theirs)))
    }

    fn response(mut self, len: usize, body: &[u8]) -> Step {
        let wrong = Failure::Retry(Reason::ResponseLength);
        if body.len() != len {
            return Err(wrong);
        }
        let response = AuthResponse::decode(body).map_err(|_| wrong)?;
        let Some(random) = &self.offer.challenge else {
            return Err(Failure::Retry(Reason::OutOfOrder));
        };
        let own = AuthChallenge::new(random);
        self.state = State::WantProof { response };
        Ok((self, Action::Hmac(own)))
    }
}

/// Compares two digests in a time that does not depend on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Vnr;

    const ALL: Offer = Offer {
        apv_max: wire::APV_MAX,
        features: wire::feature::ALL,
        challenge: None,
    };

    fn features(min: u32, max: u32, flags: u32) -> Vec<u8> {
        let mut buf = [0; 72];
        let mut w = wire::Writer::new(&mut buf);
        Features {
            protocol_min: min,
            feature_flags: flags,
            protocol_max: max,
        }
        .encode(&mut w);
        buf.to_vec()
    }

    fn negotiate(min: u32, max: u32, flags: u32) -> Result<Agreed, Failure> {
        let (hs, _) = Handshake::start(ALL);
        match hs.body(&features(min, max, flags))?.1 {
            Action::Done(agreed) => Ok(agreed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn versions() {
        let agreed = |apv, features| Ok(Agreed { apv, features });
        assert_eq!(negotiate(86, 101, 15), agreed(101, 15));
        assert_eq!(negotiate(86, 97, 0), agreed(97, 0));
        assert_eq!(negotiate(101, 121, 0xff5), agreed(101, 5));
        assert_eq!(negotiate(90, 0, 0), agreed(90, 0));
        assert_eq!(
            negotiate(80, 85, 0),
            Err(Failure::Fatal(Reason::Incompatible { min: 80, max: 85 }))
        );
        assert_eq!(
            negotiate(110, 121, 0),
            Err(Failure::Fatal(Reason::Incompatible { min: 110, max: 121 }))
        );
    }

    /// Stands in for an HMAC.
    fn hmac(secret: u8, over: &[u8]) -> Vec<u8> {
        let sum = over.iter().fold(secret, |a, b| a.rotate_left(3) ^ b);
        vec![sum, secret ^ 0x5c, sum.wrapping_mul(7)]
    }

    /// One node; takes what the peer sent, returns what it sends or how it ends.
    fn turn(
        hs: Handshake,
        secret: u8,
        packet: &[u8],
    ) -> Result<(Handshake, Result<Vec<u8>, Agreed>), Failure> {
        let header = Header::decode(hs.apv(), packet).map_err(Failure::of_header)?;
        let len = hs.header(&header)? as usize;
        let (mut hs, mut action) = hs.body(&packet[header.header_len..header.header_len + len])?;
        loop {
            match action {
                Action::Send(p) => {
                    let bytes = sent(&hs, p);
                    return Ok((hs, Ok(bytes)));
                }
                Action::Hmac(over) => {
                    (hs, action) = hs.digest(&hmac(secret, over.as_bytes()))?;
                }
                Action::Done(agreed) => return Ok((hs, Err(agreed))),
            }
        }
    }

    fn sent(hs: &Handshake, p: Packet) -> Vec<u8> {
        let mut buf = [0; 4096];
        let n = p.encode(hs.apv(), 0, Vnr(0), 0, &mut buf);
        buf[..n].to_vec()
    }

    fn run(a: Offer, b: Offer, secrets: [u8; 2]) -> [Result<Agreed, Failure>; 2] {
        let (mut x, ax) = Handshake::start(a);
        let (mut y, ay) = Handshake::start(b);
        let (Action::Send(px), Action::Send(py)) = (ax, ay) else {
            panic!("features first")
        };
        let (mut bx, mut by) = (sent(&x, px), sent(&y, py));
        loop {
            let (rx, ry) = (turn(x, secrets[0], &by), turn(y, secrets[1], &bx));
            match (rx, ry) {
                (Ok((hx, Ok(b1))), Ok((hy, Ok(b2)))) => (x, bx, y, by) = (hx, b1, hy, b2),
                (rx, ry) => return [rx, ry].map(|r| r.map(|(_, end)| end.unwrap_err())),
            }
        }
    }

    fn with(byte: u8) -> Offer {
        Offer {
            challenge: Some([byte; 64]),
            ..ALL
        }
    }

    #[test]
    fn authentication() {
        let good = Ok(Agreed {
            apv: 101,
            features: 15,
        });
        assert_eq!(run(ALL, ALL, [1, 1]), [good; 2]);
        assert_eq!(run(with(1), with(2), [9, 9]), [good; 2]);
        let wrong = Err(Failure::Fatal(Reason::WrongResponse));
        assert_eq!(run(with(1), with(2), [9, 8]), [wrong; 2]);
        let same = Err(Failure::Fatal(Reason::SameChallenge));
        assert_eq!(run(with(3), with(3), [9, 9]), [same; 2]);
    }

    #[test]
    fn headers_are_judged_as_the_c_driver_does() {
        let head = |command: Command, length| Header {
            volume: Vnr(0),
            command: command.number(),
            length,
            header_len: 8,
        };
        let (hs, _) = Handshake::start(with(1));
        assert_eq!(hs.header(&head(Command::ConnectionFeatures, 72)), Ok(72));
        assert_eq!(
            hs.header(&head(Command::Ping, 72)),
            Err(Failure::Fatal(Reason::ExpectedFeatures(0x13)))
        );
        assert_eq!(
            hs.header(&head(Command::ConnectionFeatures, 71)),
            Err(Failure::Fatal(Reason::FeaturesLength(71)))
        );
        let (hs, _) = hs.body(&features(86, 101, 0)).unwrap();
        assert_eq!(hs.header(&head(Command::AuthChallenge, 128)), Ok(128));
        assert_eq!(
            hs.header(&head(Command::AuthChallenge, 129)),
            Err(Failure::Fatal(Reason::ChallengeTooBig))
        );
        assert_eq!(
            hs.header(&head(Command::AuthChallenge, 63)),
            Err(Failure::Fatal(Reason::ChallengeTooSmall))
        );
        let (hs, _) = hs.body(&[7; 100]).unwrap();
        assert_eq!(
            hs.header(&head(Command::AuthResponse, 20)),
            Err(Failure::Retry(Reason::OutOfOrder))
        );
        let (hs, _) = hs.digest(&[1; 20]).unwrap();
        assert_eq!(hs.header(&head(Command::AuthResponse, 20)), Ok(20));
        assert_eq!(
            hs.header(&head(Command::AuthResponse, 21)),
            Err(Failure::Retry(Reason::ResponseLength))
        );
        assert_eq!(
            hs.header(&head(Command::Protocol, 20)),
            Err(Failure::Retry(Reason::ExpectedResponse(0x0b)))
        );
    }

    #[test]
    fn a_prefix_of_the_proof_is_not_enough() {
        let (hs, _) = Handshake::start(with(1));
        let (hs, _) = hs.body(&features(86, 101, 0)).unwrap();
        let (hs, _) = hs.body(&[7; 64]).unwrap();
        let (hs, _) = hs.digest(&[1; 20]).unwrap();
        assert_eq!(
            hs.body(&[1; 19]).unwrap_err(),
            Failure::Retry(Reason::ResponseLength)
        );
    }
}
