// SPDX-License-Identifier: GPL-2.0

//! Sockets and the wire between them.
//!
//! Packets are encoded and decoded as on a real wire. Each socket keeps the order; a direction that
//! is cut holds packets back and lets them go when it heals, as TCP does, unless the connection has
//! ended meanwhile. A receiver that does not read stops the sender. A connection can be cut at any
//! packet (what arrives of a packet in part is for the driver to throw away), with or without the
//! ends hearing of it, and it can stand for one end only.

use crate::knobs::Knobs;
use crate::node::{Frame, Machine, Node, Queued, Sockets};
use crate::world::{say, Event, World};
use drbd_core::node::{
    AppId, BufId, Effect, Input, Lost, Payload, PayloadPlan, ReceiverWish, Sock, PEER,
};
use drbd_core::time::{Duration, Instant};
use drbd_core::units::{saturate_u32, Vnr};
use drbd_core::wire::{Command, Header, Name64, Packet, Socket};

/// Packets that the receiver's side of a socket holds before the sender has to wait.
const WINDOW: usize = 200;
/// The bit that may flip; no tag of an application has it.
pub(crate) const FLIP: u64 = 1 << 60;

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct Network {
    /// Nothing reaches this node.
    pub cut: [bool; 2],
    /// Least time on the way to this node.
    pub delay: [Duration; 2],
    /// Random time on top.
    pub jitter: Duration,
    /// What a byte costs, ns.
    pub byte: u64,
    /// Earliest arrival of the next packet, by receiver and socket: packets do not overtake.
    pub arrival: [[Instant; 2]; 2],
    /// Held back while the direction is cut, by receiver.
    pub held: [Vec<Event>; 2],
    /// Number of the last connection.
    pub links: u64,
    /// Protocol version and features that the nodes agree on.
    pub agreed: (u32, u32),
    /// An administrator has updated the older one: the next connection will know all there is.
    pub update: bool,
    /// Connections that come up for one end only, percent.
    pub lame: u64,
    /// A bit of the next data on the wire flips.
    pub flip: bool,
    /// Flips that nobody has noticed so far.
    pub flipped: u32,
}

impl Network {
    /// As the world is to be.
    pub fn new(k: &Knobs) -> Network {
        Network {
            cut: [false; 2],
            delay: [Duration(k.delay0 * 1000), Duration(k.delay1 * 1000)],
            jitter: Duration(k.jitter * 1000),
            byte: k.byte_ns,
            arrival: [[Instant(0); 2]; 2],
            held: [Vec::new(), Vec::new()],
            links: 0,
            agreed: (k.apv as u32, k.features as u32),
            update: false,
            lame: k.lame,
            flip: false,
            flipped: 0,
        }
    }
}

/// A stand-in for a digest of 16 bytes, as `md5` has.
fn digest(data: &[u64]) -> [u8; 16] {
    let sum = data.iter().fold(data.len() as u128, |sum, tag| {
        sum.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(u128::from(*tag))
    });
    sum.to_be_bytes()
}

fn sock(ix: usize) -> Sock {
    match ix {
        0 => Sock::Data,
        _ => Sock::Meta,
    }
}

impl World {
    /// Cuts the network or heals it.
    pub fn set_network(&mut self, up: bool) {
        self.cut(0, !up);
        self.cut(1, !up);
    }

    /// Cuts what leads to a node, or heals it.
    pub fn cut(&mut self, node: usize, cut: bool) {
        say!(self, "network to n{node} is cut: {cut}");
        self.net.cut[node] = cut;
        if cut {
            return;
        }
        for event in std::mem::take(&mut self.net.held[node]) {
            // Behind what was on its way when the cut began.
            let order = &mut self.net.arrival[node];
            let at = match &event {
                Event::Deliver(ix, ..) => {
                    let next = order[*ix]
                        .plus(Duration(1))
                        .max(self.now.plus(Duration(1000)));
                    order[*ix] = next;
                    next
                }
                _ => order[0].max(order[1]).max(self.now.plus(Duration(1000))),
            };
            self.schedule_at(node, at, event);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].receiver && self.nodes[node].sockets.is_none() {
                self.look_for_peer(node);
            }
        }
    }

    /// Whether the receiver of a node looks for a peer.
    fn looks_for_peer(&self, node: usize) -> bool {
        let n = &self.nodes[node];
        let runs = n
            .res
            .as_ref()
            .is_some_and(|r| r.receiver_wish(PEER) == ReceiverWish::Run);
        runs && n.receiver && n.sockets.is_none() && !n.closing
    }

    pub(crate) fn look_for_peer(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].dancing, true) {
            let after = Duration(1_000_000 + self.rng.below(50_000_000));
            self.schedule(node, after, Event::Dance);
        }
    }

    /// Connects the nodes if both want it; otherwise this one tries again.
    pub(crate) fn dance(&mut self, node: usize) {
        self.nodes[node].dancing = false;
        if self.net.cut[0] || self.net.cut[1] {
            return;
        }
        let peer = self.peer_of(node);
        if !self.looks_for_peer(node) || !self.looks_for_peer(peer) {
            // The disk may keep it from being ready for long.
            if self.nodes[node].receiver && self.nodes[node].sockets.is_none() {
                self.look_for_peer(node);
            }
            return;
        }
        if std::mem::take(&mut self.net.update) {
            self.net.agreed = (101, 0xf);
        }
        self.net.links += 1;
        let link = self.net.links;
        let arbiter = self.rng.below(2) as usize;
        say!(self, "link {link}");
        let lame = self.net.lame != 0 && self.rng.percent(self.net.lame);
        for end in [node, peer] {
            let dead = lame && end == node;
            // The other end crossed its own attempt with this one and threw it away.
            if lame && end == peer {
                self.look_for_peer(peer);
                continue;
            }
            self.nodes[end].sockets = Some(Sockets {
                link,
                dead,
                ..Sockets::default()
            });
            let after = Duration(1 + self.rng.below(self.net.jitter.0 + 1));
            self.schedule(end, after, Event::Ready(link, end == arbiter));
        }
    }

    /// The machine hears of its connection, and reads what came before it did.
    pub(crate) fn link_ready(&mut self, node: usize, link: u64, arbiter: bool) {
        let Some(s) = self.nodes[node].sockets.as_mut().filter(|s| s.link == link) else {
            return;
        };
        s.ready = true;
        self.nothing_earlier(node);
        let Some(s) = self.nodes[node].sockets.as_mut() else {
            return;
        };
        let early = std::mem::take(&mut s.early);
        self.measure(node);
        let (apv, features) = self.net.agreed;
        self.step(
            node,
            Input::Connected {
                peer: PEER,
                apv,
                features,
                arbiter,
            },
        );
        for frame in early {
            if self.nodes[node].link() == link {
                self.receive(node, 1, frame);
            }
        }
        self.receiver(node);
    }

    /// The connection breaks. The ends hear of it, or not.
    pub fn break_link(&mut self, heard: [bool; 2]) {
        say!(self, "the connection breaks, heard: {heard:?}");
        for (node, heard) in heard.into_iter().enumerate() {
            let Some(s) = self.nodes[node].sockets.as_mut() else {
                continue;
            };
            let link = s.link;
            if heard {
                self.schedule(node, Duration(1), Event::Reset(link));
            } else {
                s.dead = true;
            }
        }
    }

    pub(crate) fn close_sockets(&mut self, node: usize) {
        self.nodes[node].closing = true;
        if let Some(mut s) = self.nodes[node].sockets.take() {
            // Answers on the meta socket still leave, if they can.
            if s.ready && !s.dead {
                for queued in std::mem::take(&mut s.out[1]) {
                    let (frames, _) = self.encode(node, &queued.effect);
                    for frame in frames {
                        self.post(node, 1, s.link, frame);
                    }
                }
            }
            if !s.dead {
                self.tell_peer_of_end(node, s.link);
            }
        }
        let after = Duration(10_000 + self.rng.below(1_000_000));
        self.schedule(node, after, Event::Closed);
    }

    fn tell_peer_of_end(&mut self, node: usize, link: u64) {
        let peer = self.peer_of(node);
        let event = Event::Reset(link);
        if self.net.cut[peer] {
            self.net.held[peer].push(event);
            return;
        }
        let at = self.now.plus(self.net.delay[peer]).plus(self.net.jitter);
        let at = at
            .max(self.net.arrival[peer][0])
            .max(self.net.arrival[peer][1]);
        self.schedule_at(peer, at, event);
    }

    pub(crate) fn reset(&mut self, node: usize, link: u64) {
        if self.nodes[node]
            .sockets
            .as_ref()
            .is_some_and(|s| s.link == link && !s.dead)
        {
            // What arrived before the end of the stream is still read; the machine learns of the
            // end all the same, and what it does not read is as if it had been lost.
            if self.nodes[node].sockets.as_ref().is_some_and(|s| s.ready) {
                self.lost(node, Lost::Broken);
            } else {
                self.nodes[node].sockets = None;
                self.look_for_peer(node);
            }
        }
    }

    pub(crate) fn enqueue(&mut self, node: usize, effect: Effect) {
        let Effect::Send {
            sock,
            token,
            packet,
            payload,
            ..
        } = &effect
        else {
            return;
        };
        let (sock, token) = (*sock, *token);
        if let Packet::OvResult(verdict) = packet {
            self.check_verdict(node, verdict);
        }
        self.tells_of_write(node, packet, payload);
        let Some(s) = self.nodes[node].sockets.as_mut() else {
            return;
        };
        let ix = Node::queue(sock);
        let link = s.link;
        s.out[ix].push_back(Queued { effect, token });
        if !std::mem::replace(&mut s.busy[ix], true) {
            self.schedule(node, Duration(500), Event::Transmit(ix, link));
        }
    }

    /// Whether a sender has to wait: the other end does not read, or its window is full.
    fn is_stuck(&self, node: usize, ix: usize, link: u64) -> bool {
        let peer = self.peer_of(node);
        let there = self.nodes[peer].sockets.as_ref().filter(|s| s.link == link);
        let full = there.is_some_and(|s| s.inbox.len() > WINDOW);
        let Some(s) = self.nodes[node].sockets.as_ref() else {
            return false;
        };
        let lost_way = self.net.cut[peer] || s.dead || there.is_none();
        ix == 0 && full && !lost_way || lost_way && s.out[ix].len() > WINDOW
    }

    pub(crate) fn transmit(&mut self, node: usize, ix: usize, link: u64) {
        let stuck = self.is_stuck(node, ix, link);
        let now = self.now;
        let patience = Duration::tenths(self.knobs.timeout);
        let Some(s) = self.nodes[node].sockets.as_mut().filter(|s| s.link == link) else {
            return;
        };
        if stuck {
            let since = *s.stuck[ix].get_or_insert(now);
            let tell = now.since(since) >= patience;
            if tell {
                s.stuck[ix] = Some(now);
            }
            self.schedule(node, Duration::millis(2), Event::Transmit(ix, link));
            if tell {
                self.step(node, Input::SendStalled { peer: PEER });
            }
            return;
        }
        s.stuck[ix] = None;
        let dead = s.dead;
        let Some(queued) = s.out[ix].pop_front() else {
            s.busy[ix] = false;
            return;
        };
        let (frames, cost) = self.encode(node, &queued.effect);
        for frame in frames {
            if !dead {
                self.post(node, ix, link, frame);
            }
        }
        self.schedule(node, cost, Event::Transmit(ix, link));
        if queued.token.0 != 0 {
            let token = queued.token;
            self.step(node, Input::Sent { peer: PEER, token });
        }
    }

    fn post(&mut self, node: usize, ix: usize, link: u64, frame: Frame) {
        let peer = self.peer_of(node);
        let event = Event::Deliver(ix, link, frame);
        if self.net.cut[peer] {
            self.net.held[peer].push(event);
            return;
        }
        let jitter = self.rng.below(self.net.jitter.0 + 1);
        let at = self.now.plus(self.net.delay[peer]).plus(Duration(jitter));
        let at = at.max(self.net.arrival[peer][ix].plus(Duration(1)));
        self.net.arrival[peer][ix] = at;
        self.schedule_at(peer, at, event);
    }

    /// The frames of a `Send`, and how long the wire is busy with them.
    fn encode(&mut self, node: usize, effect: &Effect) -> (Vec<Frame>, Duration) {
        let Effect::Send {
            vnr,
            packet,
            payload,
            ..
        } = effect
        else {
            return (Vec::new(), Duration(0));
        };
        let n = &mut self.nodes[node];
        let mut tail: &[u8] = &[];
        let data = match payload {
            Payload::None => Vec::new(),
            Payload::Digest(digest) => {
                tail = digest.as_bytes();
                Vec::new()
            }
            Payload::App {
                app: AppId(app), ..
            } => match n.apps.get(u64::from(*app)) {
                Some(app) => app.pages.clone(),
                None => self.violated("packets have their data", "their I/O is over"),
            },
            Payload::Buf(BufId(buf)) => match n.bufs.get(u64::from(*buf)) {
                Some(data) => data.clone(),
                None => self.violated("packets have their data", "their buffer is freed"),
            },
            Payload::Bitmap { vol } => {
                let mut frames = Vec::new();
                let mut buf = [0; 4096];
                while let Some(len) = n.res.as_mut().and_then(|r| r.bitmap_chunk(*vol, &mut buf)) {
                    frames.push(Frame {
                        bytes: buf[..len].to_vec(),
                        data: Vec::new(),
                    });
                }
                let cost = Duration(4000 * frames.len() as u64 + 500);
                return (frames, cost);
            }
        };
        self.seal(node, *vnr, packet, data, tail)
    }

    /// Puts header, digest and data together.
    fn seal(
        &mut self,
        node: usize,
        vnr: u16,
        packet: &Packet,
        data: Vec<u64>,
        tail: &[u8],
    ) -> (Vec<Frame>, Duration) {
        let n = &mut self.nodes[node];
        let mut payload_len = saturate_u32((data.len() * 512 + tail.len()) as u64);
        let mut guard = tail.to_vec();
        if let Packet::Protocol(p) | Packet::ProtocolUpdate(p) = packet {
            n.digests = p.integrity_alg != Name64::EMPTY;
        }
        let guarded = matches!(
            packet,
            Packet::Data(_) | Packet::DataReply(_) | Packet::RsDataReply(_)
        );
        if guarded && n.digests {
            guard = digest(&data).to_vec();
            payload_len += 16;
        }
        let mut buf = [0; 4096];
        let (apv, features) = self.net.agreed;
        let len = packet.encode(apv, features, Vnr(vnr), payload_len, &mut buf);
        let mut frame = Frame {
            bytes: [&buf[..len], &guard].concat(),
            data,
        };
        if guarded && std::mem::take(&mut self.net.flip) {
            frame.data[0] ^= FLIP;
            self.net.flipped += 1;
            say!(self, "n{node} a bit of {packet:?} flips");
        }
        let cost = Duration(500 + u64::from(payload_len) * self.net.byte);
        (vec![frame], cost)
    }

    pub(crate) fn deliver(&mut self, node: usize, ix: usize, link: u64, frame: Frame) {
        let n = &mut self.nodes[node];
        match n.sockets.as_mut() {
            Some(s) if s.link == link && s.dead => {}
            Some(s) if s.link == link && ix == 0 => {
                s.inbox.push_back(frame);
                self.receiver(node);
            }
            Some(s) if s.link == link && !s.ready => s.early.push_back(frame),
            Some(s) if s.link == link => self.receive(node, ix, frame),
            _ => {
                // Nobody listens: the other end hears of it.
                let peer = self.peer_of(node);
                if !self.net.cut[peer] {
                    self.schedule(peer, self.net.delay[peer], Event::Reset(link));
                }
            }
        }
    }

    /// Reads a frame as receiver or asender do.
    pub(crate) fn receive(&mut self, node: usize, ix: usize, frame: Frame) {
        let data = ix == 0;
        let on = if data { Socket::Data } else { Socket::Meta };
        let (apv, features) = self.net.agreed;
        let read = || -> Result<_, String> {
            let header = Header::decode(apv, &frame.bytes).map_err(|e| format!("{e:?}"))?;
            let command = Command::from_number(header.command).ok_or("no such command")?;
            let wrong = |e| format!("{command:?} of {} bytes: {e:?}", header.length);
            let split = command
                .check_length(on, header.length, features)
                .map_err(wrong)?;
            let rest = &frame.bytes[header.header_len..];
            let fixed = (split.body as usize).min(rest.len());
            let (fixed, more) = rest.split_at(fixed);
            let packet = Packet::decode(&header, fixed, apv).map_err(wrong)?;
            Ok((header, packet, more))
        };
        let (header, packet, more) = match read() {
            Ok(found) => found,
            Err(why) => self.violated("packets can be read", &why),
        };
        self.hears_of_write(node, &packet);
        let measures = |m: &Machine| m.wants_measures(&header, &packet).is_some();
        if self.nodes[node].res.as_ref().is_some_and(measures) {
            self.measure(node);
        }
        let n = &mut self.nodes[node];
        let Some(res) = n.res.as_ref() else { return };
        let mut buf = None;
        let mut intact = true;
        match res.payload(&header, &packet) {
            PayloadPlan::None | PayloadPlan::Body { .. } => {}
            PayloadPlan::Buffer { bytes, digest: len } => {
                intact = len == 0 || more == digest(&frame.data);
                if bytes as usize != frame.data.len() * 512 {
                    self.violated("packets can be read", &format!("{packet:?}: {bytes} bytes"));
                }
                buf = Some(n.buffer(frame.data));
            }
            PayloadPlan::App {
                app: AppId(app),
                digest: len,
                ..
            } => {
                intact = len == 0 || more == digest(&frame.data);
                if let Some(app) = n.apps.get_mut(u64::from(app)) {
                    app.pages = frame.data;
                }
            }
            PayloadPlan::Violation => {
                say!(self, "n{node} does not want {packet:?}");
                self.stats.unwanted += 1;
                self.lost(node, Lost::Protocol);
                return;
            }
        }
        let input = Input::Received {
            peer: PEER,
            sock: sock(ix),
            header,
            packet,
            buf,
            body: more,
            intact,
        };
        self.step(node, input);
    }
}
