// SPDX-License-Identifier: GPL-2.0

//! What disks, sockets, helpers and threads do, as soon as the bytes say so.

use super::world::{Asked, Link, World};
use super::{buffer, sock, VOLUMES};
use drbd_core::bitmap::PageFlags;
use drbd_core::digest::Digest;
use drbd_core::node::{
    AppId, BufId, Data, Examine, Examined, Input, IoError, LocalOp, Lost, MetaOp, Payload,
    PayloadPlan, ReceiverWish, VolIx, PEER,
};
use drbd_core::units::{Sectors, Vnr};
use drbd_core::wire::{Command, Header, Packet, Socket, BUFFER_SIZE};

/// The digest that both sides find, if they find the same.
pub(super) const SAME: [u8; 8] = *b"the same";

fn same_digest() -> Digest {
    Digest::new(&SAME).expect("short")
}

impl World {
    /// A new buffer.
    fn keep(&mut self, bytes: u32) -> BufId {
        let n = self.next();
        self.bufs.insert(n, bytes);
        buffer(n)
    }

    /// A local I/O ends.
    pub(super) fn finish_local(&mut self, n: usize, mut result: Result<(), IoError>) {
        if n >= self.locals.len() {
            return;
        }
        let l = self.locals.remove(n);
        if l.op == LocalOp::Flush && result == Err(IoError::NoMemory) {
            result = Err(IoError::Io);
        }
        let fresh = matches!(l.data, Data::Fresh | Data::Copy(_));
        let fresh = fresh && l.op == LocalOp::Read && result.is_ok();
        let buf = fresh.then(|| self.keep(l.bytes));
        self.step(Input::LocalDone {
            io: l.io,
            buf,
            result,
        });
    }

    /// A metadata I/O ends; `fill`: what a page of the bitmap holds.
    pub(super) fn finish_meta(&mut self, n: usize, result: Result<(), IoError>, fill: u8) {
        if n >= self.metas.len() {
            return;
        }
        let m = self.metas.remove(n);
        let mut page = [fill; 4096];
        // One bit here and there, or long runs.
        if fill & 1 == 0 {
            page.iter_mut().skip(usize::from(fill)).for_each(|b| *b = 0);
        }
        let read = matches!(m.op, MetaOp::ReadBitmap { .. }) && result.is_ok();
        self.step(Input::MetaDone {
            io: m.io,
            page: read.then_some(&page),
            result,
        });
    }

    /// A buffer was looked at; what was found is up to `how`.
    pub(super) fn finish_look(&mut self, n: usize, how: u8) {
        if n >= self.looks.len() {
            return;
        }
        let l = self.looks.remove(n);
        let result = match l.what {
            _ if how == 255 => Examined::Failed,
            Examine::Zeroes => Examined::Zeroes(how & 1 != 0 && l.buf.is_some()),
            // Every other digest is that of the peer.
            Examine::Digest(_) if how & 1 == 0 => Examined::Digest(same_digest()),
            Examine::Digest(_) => match Digest::new(&[how; 8]) {
                Some(digest) => Examined::Digest(digest),
                None => Examined::Failed,
            },
        };
        let io = l.io;
        self.step(Input::Examined { io, result });
    }

    /// A helper ends.
    pub(super) fn finish_helper(&mut self, n: usize, code: u8) {
        if n < self.helpers.len() {
            let id = self.helpers.remove(n);
            self.step(Input::HelperDone { id, code });
        }
    }

    /// The next packet of a queue goes to TCP.
    pub(super) fn transmit(&mut self, ix: usize) {
        let Some(link) = self.link else { return };
        let Some(q) = self.queues[ix].pop_front() else {
            return;
        };
        let on = [Socket::Data, Socket::Meta][ix];
        let bytes = match q.payload {
            Payload::None => 0,
            Payload::Digest(digest) => u32::from(digest.size()),
            Payload::App {
                app: AppId(app), ..
            } => match self.apps.get(&app) {
                Some(app) => app.range.bytes(),
                None => {
                    assert!(link.closing, "{:?} outlived its I/O", q.packet);
                    return self.lost(Lost::Broken);
                }
            },
            Payload::Buf(BufId(buf)) => match self.bufs.get(&buf) {
                Some(bytes) => *bytes,
                None => {
                    assert!(link.closing, "{:?} outlived its buffer", q.packet);
                    return self.lost(Lost::Broken);
                }
            },
            Payload::Bitmap { vol } => {
                self.send_bitmap(link, vol);
                return self.was_sent(q.token);
            }
        };
        let mut buf = [0; BUFFER_SIZE];
        let len = q
            .packet
            .encode(link.apv, link.features, Vnr(q.vnr), bytes, &mut buf);
        self.readable(link, on, &buf[..len], &q.packet, bytes);
        self.remember(Asked {
            vnr: q.vnr,
            packet: q.packet,
            bytes,
        });
        self.was_sent(q.token);
    }

    fn was_sent(&mut self, token: drbd_core::node::SendToken) {
        if token.0 != 0 {
            self.step(Input::Sent { peer: PEER, token });
        }
    }

    /// A peer as strict as this node takes the packet.
    fn readable(&self, link: Link, on: Socket, bytes: &[u8], packet: &Packet, payload: u32) {
        let header = Header::decode(link.apv, bytes).expect("an own header");
        let command = Command::from_number(header.command).expect("an own command");
        let split = command
            .check_length(on, header.length, link.features)
            .unwrap_or_else(|e| panic!("{packet:?} with {payload} bytes on {on:?}: {e:?}"));
        assert_eq!(split.payload, payload, "{packet:?}");
        let back = Packet::decode(&header, &bytes[header.header_len..], link.apv);
        assert!(back.is_ok(), "{packet:?}: {back:?}");
    }

    fn send_bitmap(&mut self, link: Link, vol: drbd_core::node::VolIx) {
        let mut buf = [0; BUFFER_SIZE];
        for chunks in 0.. {
            assert!(chunks < 1000, "a bitmap without an end");
            let Some(len) = self.res.bitmap_chunk(vol, &mut buf) else {
                break;
            };
            let header = Header::decode(link.apv, &buf[..len]).expect("an own header");
            assert_eq!(header.header_len + header.length as usize, len);
        }
    }

    /// A packet is read and handed over, as receiver and asender do it. False: the receiver does
    /// not look at the socket, or gave up.
    pub(super) fn receive(&mut self, ix: usize, bytes: &[u8], intact: bool) -> Option<usize> {
        let link = self.link?;
        if ix == 0 && self.res.receiver_wish(PEER) != ReceiverWish::Run {
            return None;
        }
        let on = [Socket::Data, Socket::Meta][ix];
        let read = || {
            let header = Header::decode(link.apv, bytes).ok()?;
            let command = Command::from_number(header.command)?;
            let split = command
                .check_length(on, header.length, link.features)
                .ok()?;
            let end = header.header_len + split.body as usize;
            let packet = Packet::decode(&header, bytes.get(header.header_len..end)?, link.apv);
            Some((header, split.payload, end, packet.ok()?))
        };
        let Some((header, announced, end, packet)) = read() else {
            self.lost(Lost::Protocol);
            return None;
        };
        let plan = self.res.payload(&header, &packet);
        if let Some(vol) = self.res.wants_measures(&header, &packet) {
            self.measure(vol);
        }
        let (mut buf, mut body) = (None, &[][..]);
        let more = bytes.get(end..).unwrap_or(&[]);
        match plan {
            PayloadPlan::None if announced == 0 => {}
            PayloadPlan::Body { bytes } if bytes == announced => {
                body = more.get(..bytes as usize)?;
            }
            PayloadPlan::Buffer { digest, bytes } if digest + bytes == announced => {
                buf = Some(self.keep(bytes));
            }
            PayloadPlan::App { app, digest, bytes } if digest + bytes == announced => {
                let own = self.apps.get(&app.0).map(|a| a.range.bytes());
                assert_eq!(own, Some(bytes), "{app:?}");
            }
            PayloadPlan::None
            | PayloadPlan::Body { .. }
            | PayloadPlan::Buffer { .. }
            | PayloadPlan::App { .. }
            | PayloadPlan::Violation => {
                self.lost(Lost::Protocol);
                return None;
            }
        }
        self.step(Input::Received {
            peer: PEER,
            sock: sock(ix),
            header,
            packet,
            buf,
            body,
            intact,
        });
        // Data are not part of the bytes.
        Some(end + body.len())
    }

    /// The machine hears how large a disk is by now.
    pub(super) fn measure(&mut self, vol: VolIx) {
        let Some(Some(place)) = self.places.get(usize::from(vol.0)) else {
            return;
        };
        let size = Sectors(place.size);
        if let Some(need) = self.res.disk_measured(vol, size, size) {
            let words = vec![0; need.words as usize];
            let pages = vec![PageFlags::EMPTY; need.pages as usize];
            drop(self.res.give_bitmap(vol, words, pages));
        }
    }

    /// Two sockets stand, if somebody wants them.
    pub(super) fn connected(&mut self, apv: u32, features: u32, arbiter: bool) {
        let wanted = self.res.receiver_wish(PEER) == ReceiverWish::Run;
        if !self.receiver || self.link.is_some() || !wanted {
            return;
        }
        self.link = Some(Link {
            apv,
            features,
            closing: false,
        });
        (0..VOLUMES).for_each(|vol| self.measure(VolIx(vol)));
        self.step(Input::Connected {
            peer: PEER,
            apv,
            features,
            arbiter,
        });
    }

    /// A socket fails.
    pub(super) fn lost(&mut self, why: Lost) {
        if self.link.is_some() {
            self.step(Input::Lost { peer: PEER, why });
        }
    }

    /// The sockets are closed.
    pub(super) fn closed(&mut self) {
        self.link = None;
        self.asked.clear();
        self.queues.iter_mut().for_each(|q| q.clear());
        self.step(Input::Closed { peer: PEER });
    }

    /// The receiver thread ends.
    pub(super) fn receiver_gone(&mut self) {
        self.receiver = false;
        self.step(Input::ReceiverGone { peer: PEER });
    }

    /// The worker takes the disks that are no longer used.
    pub(super) fn work(&mut self) {
        for vol in std::mem::take(&mut self.drops) {
            let taken = self.res.take_backing(vol);
            assert!(taken.is_some(), "no disk to take of {vol:?}");
            self.places[usize::from(vol.0)] = None;
        }
    }

    /// All that is under way comes to a good end, and what follows from that.
    pub(super) fn drain(&mut self) {
        for n in 0.. {
            // A `resize` may write 2,048 blocks of an activity log, one after the other.
            assert!(n < 20_000, "one I/O after the other, for ever");
            self.work();
            if !self.metas.is_empty() {
                self.finish_meta(0, Ok(()), 0);
            } else if !self.locals.is_empty() {
                self.finish_local(0, Ok(()));
            } else if !self.looks.is_empty() {
                self.finish_look(0, 0);
            } else if self.link.is_some() && !self.queues[0].is_empty() {
                self.transmit(0);
            } else if self.link.is_some() && !self.queues[1].is_empty() {
                self.transmit(1);
            } else if self.drops.is_empty() {
                return;
            }
        }
    }

    /// Nothing is left of anything.
    pub(super) fn assert_empty(&self) {
        assert!(
            self.apps.is_empty() && self.bufs.is_empty(),
            "{:?}",
            self.bufs
        );
        assert!(self.locals.is_empty() && self.metas.is_empty() && self.looks.is_empty());
        assert!(self.ops.is_empty() && self.helpers.is_empty());
        assert!(self.res.is_unused(), "the resource is in use");
    }
}
