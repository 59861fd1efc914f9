// SPDX-License-Identifier: GPL-2.0

//! Sockets and the wire between them.
//!
//! Packets are encoded and decoded as on a real wire. Each socket keeps the order; a cut holds
//! packets back and lets them go when it heals, as TCP does, unless the connection has ended
//! meanwhile. A receiver that does not read stops the sender.

use crate::node::{Frame, Node, Queued, Sockets};
use crate::world::{Event, World};
use drbd_core::node::{
    AppId, BufId, Effect, Input, Lost, Payload, PayloadPlan, ReceiverWish, Sock, PEER,
};
use drbd_core::time::Duration;
use drbd_core::units::{saturate_u32, Vnr};
use drbd_core::wire::{self, Command, Header, Packet, Socket};

/// Agreed protocol version of all tests.
pub const APV: u32 = wire::APV_MAX;
/// Agreed features of all tests.
pub const FEATURES: u32 = wire::feature::ALL;
/// Packets that the receiver's side of a socket holds before the sender has to wait.
const WINDOW: usize = 200;

fn sock(ix: usize) -> Sock {
    match ix {
        0 => Sock::Data,
        _ => Sock::Meta,
    }
}

impl World {
    /// Cuts the network or heals it.
    pub fn set_network(&mut self, up: bool) {
        self.note(format!("network up: {up}"));
        self.net.up = up;
        if !up {
            return;
        }
        for node in 0..2 {
            for event in std::mem::take(&mut self.net.held[node]) {
                self.schedule(node, Duration(1000), event);
            }
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
        if !self.net.up {
            return;
        }
        if !(0..2).all(|n| self.looks_for_peer(n)) {
            // The disk may keep it from being ready for long.
            if self.nodes[node].receiver && self.nodes[node].sockets.is_none() {
                self.look_for_peer(node);
            }
            return;
        }
        self.net.links += 1;
        let link = self.net.links;
        let arbiter = self.rng.below(2) as usize;
        self.note(format!("link {link}"));
        for node in &mut self.nodes {
            node.sockets = Some(Sockets {
                link,
                ..Sockets::default()
            });
        }
        for node in 0..2 {
            let input = Input::Connected {
                peer: PEER,
                apv: APV,
                features: FEATURES,
                arbiter: node == arbiter,
            };
            self.step(node, input);
        }
    }

    pub(crate) fn close_sockets(&mut self, node: usize) {
        self.nodes[node].closing = true;
        if let Some(s) = self.nodes[node].sockets.take() {
            self.tell_peer_of_end(node, s.link);
        }
        let after = Duration(10_000 + self.rng.below(1_000_000));
        self.schedule(node, after, Event::Closed);
    }

    fn tell_peer_of_end(&mut self, node: usize, link: u64) {
        let peer = 1 - node;
        let event = Event::Reset(link);
        if self.net.up {
            let at = self.now.plus(self.net.delay).plus(self.net.jitter);
            let at = at
                .max(self.net.arrival[peer][0])
                .max(self.net.arrival[peer][1]);
            self.schedule_at(peer, at, event);
        } else {
            self.net.held[peer].push(event);
        }
    }

    pub(crate) fn reset(&mut self, node: usize, link: u64) {
        let here = self.nodes[node].sockets.as_ref().map(|s| s.link);
        if here == Some(link) {
            // What arrived before the end of the stream is still read; the machine learns of the
            // end all the same, and what it does not read is as if it had been lost.
            self.lost(node, Lost::Broken);
        }
    }

    pub(crate) fn enqueue(&mut self, node: usize, effect: Effect) {
        let Effect::Send { sock, token, .. } = effect else {
            return;
        };
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

    pub(crate) fn transmit(&mut self, node: usize, ix: usize, link: u64) {
        let peer = 1 - node;
        let peer_link = self.nodes[peer].sockets.as_ref().map(|s| s.link);
        let full = self.nodes[peer]
            .sockets
            .as_ref()
            .is_some_and(|s| s.inbox.len() > WINDOW);
        let Some(s) = self.nodes[node].sockets.as_mut() else {
            return;
        };
        if s.link != link {
            return;
        }
        let alive = self.net.up && peer_link == Some(link);
        if ix == 0 && full && alive || !self.net.up && s.out[ix].len() > WINDOW {
            self.schedule(node, Duration::millis(1), Event::Transmit(ix, link));
            return;
        }
        let Some(queued) = s.out[ix].pop_front() else {
            s.busy[ix] = false;
            return;
        };
        let (frames, cost) = self.encode(node, &queued.effect);
        for frame in frames {
            self.post(node, ix, link, frame);
        }
        self.schedule(node, cost, Event::Transmit(ix, link));
        if queued.token.0 != 0 {
            let token = queued.token;
            self.step(node, Input::Sent { peer: PEER, token });
        }
    }

    fn post(&mut self, node: usize, ix: usize, link: u64, frame: Frame) {
        let peer = 1 - node;
        let event = Event::Deliver(ix, link, frame);
        if !self.net.up {
            self.net.held[peer].push(event);
            return;
        }
        let jitter = self.rng.below(self.net.jitter.0 + 1);
        let at = self.now.plus(self.net.delay).plus(Duration(jitter));
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
        let mut digest: &[u8] = &[];
        let data = match payload {
            Payload::None => Vec::new(),
            Payload::Digest(d) => {
                digest = d.as_bytes();
                Vec::new()
            }
            Payload::App {
                app: AppId(app), ..
            } => match n.apps.get(app) {
                Some(app) => app.pages.clone(),
                None => self.fail("a packet refers to an I/O that is over"),
            },
            Payload::Buf(BufId(buf)) => n.bufs[buf].clone(),
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
        let mut buf = [0; 4096];
        let payload_len = saturate_u32((data.len() * 512 + digest.len()) as u64);
        let len = packet.encode(APV, FEATURES, Vnr(*vnr), payload_len, &mut buf);
        let frame = Frame {
            bytes: [&buf[..len], digest].concat(),
            data,
        };
        // 1 GB/s.
        let cost = Duration(500 + u64::from(payload_len));
        (vec![frame], cost)
    }

    pub(crate) fn deliver(&mut self, node: usize, ix: usize, link: u64, frame: Frame) {
        let n = &mut self.nodes[node];
        match n.sockets.as_mut() {
            Some(s) if s.link == link && ix == 0 => {
                s.inbox.push_back(frame);
                self.receiver(node);
            }
            Some(s) if s.link == link => self.receive(node, ix, frame),
            _ => {
                // Nobody listens: the other end hears of it.
                let peer = 1 - node;
                if self.net.up {
                    self.schedule(peer, self.net.delay, Event::Reset(link));
                }
            }
        }
    }

    /// Reads a frame as receiver or asender do.
    pub(crate) fn receive(&mut self, node: usize, ix: usize, frame: Frame) {
        let on = match ix {
            0 => Socket::Data,
            _ => Socket::Meta,
        };
        let Ok(header) = Header::decode(APV, &frame.bytes) else {
            self.fail("a header that can not be read");
        };
        let Some(command) = Command::from_number(header.command) else {
            self.fail("a command that nobody knows");
        };
        let split = match command.check_length(on, header.length, FEATURES) {
            Ok(split) => split,
            Err(why) => self.fail(&format!("{command:?} of {} bytes: {why:?}", header.length)),
        };
        let rest = &frame.bytes[header.header_len..];
        let fixed = (split.body as usize).min(rest.len());
        let (fixed, more) = rest.split_at(fixed);
        let packet = match Packet::decode(&header, fixed, APV) {
            Ok(packet) => packet,
            Err(why) => self.fail(&format!("{command:?}: {why:?}")),
        };
        let n = &mut self.nodes[node];
        let Some(res) = n.res.as_ref() else { return };
        let mut buf = None;
        match res.payload(&header, &packet) {
            PayloadPlan::None | PayloadPlan::Body { .. } => {}
            PayloadPlan::Buffer { bytes, .. } => {
                assert_eq!(bytes as usize, frame.data.len() * 512);
                buf = Some(n.buffer(frame.data));
            }
            PayloadPlan::App {
                app: AppId(app), ..
            } => {
                if let Some(app) = n.apps.get_mut(&app) {
                    app.pages = frame.data;
                }
            }
            PayloadPlan::Violation => {
                self.note(format!("n{node} does not want {packet:?}"));
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
            intact: true,
        };
        self.step(node, input);
    }
}
