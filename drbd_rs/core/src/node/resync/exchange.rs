// SPDX-License-Identifier: GPL-2.0

//! The exchange of bitmaps at the start of a resync: wire.md §12.
//!
//! ```text
//!   source (WFBitMapS): gate ─▶ [fill] ─▶ send ───▶ merge, target (WFBitMapT)
//!          merge, start_resync(Source) ◀──────────── [fill] ─▶ send, WFSyncUUID
//! ```
//!
//! The source sends only once no application write is in flight: each later write is announced by
//! OUT_OF_SYNC, which follows the bitmap on the same socket, so no write falls between the two.
//! One that is done though the peer has not answered it (protocols A and B) is marked before.
//! Merging only sets bits.
//!
//! A bitmap that has begun to flow flows to its end, as the C driver does it, even if the disk is
//! lost meanwhile: whoever receives it would take the next one for its rest.
//!
//! It comes without a break. The next one follows a STATE, by which both decided to exchange them.

use crate::bitmap::{BitSpan, Bitmap, PageFlags};
use crate::state::{conn, disk};
use crate::units::{BmBit, Vnr};
use crate::wire::bitmap_chunk::{BitSink, BitSource, Chunk, Progress, ReceiveCursor, SendCursor};
use crate::wire::{header, Command, Malformed, Packet};
use core::ops::DerefMut;

use super::super::control::{Flags, StateChange};
use super::super::io::{Host, Payload, Sock, VolIx};
use super::super::{After, Resource, Store, Violation, PEER};
use super::{token, Next, Side};

/// Where the own bitmap stands on its way to the peer.
#[derive(Clone, Copy, Debug, Hash)]
enum Sending {
    /// Not on its way.
    No,
    /// Application writes in flight are waited for.
    Gate,
    /// On a target: writes that the own disk alone gets are waited for.
    Settling,
    /// All bits are being set and stored first.
    Filling,
    /// The sender asks for chunk after chunk, of so many bits.
    Chunks(SendCursor, u64),
}

/// The exchange of bitmaps of one volume with one peer.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Exchange {
    sending: Sending,
    /// Application I/O is held back on behalf of this exchange.
    gated: bool,
    /// It is to be sent, but that of an exchange that was given up still flows.
    due: bool,
    receiving: Receiving,
}

/// Where the peer's bitmap goes.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
enum Receiving {
    /// None is coming.
    No,
    /// Into the own one, as long as there is a disk: how far it has come, and its bits.
    Merging(ReceiveCursor, u64),
    /// Nowhere: it began to come when there was no disk. How large it is only the peer knows, which
    /// may have resized its disk.
    Skipping,
}

impl Exchange {
    pub(super) const fn new() -> Exchange {
        Exchange {
            sending: Sending::No,
            gated: false,
            due: false,
            receiving: Receiving::No,
        }
    }
}

/// A bitmap as the wire sees it.
struct OnWire<'a, W, F>(&'a Bitmap<W, F>);

impl<W, F> BitSource for OnWire<'_, W, F>
where
    W: DerefMut<Target = [u64]>,
    F: DerefMut<Target = [PageFlags]>,
{
    fn next_set(&self, from: u64) -> Option<u64> {
        self.0.next_set(BmBit(from)).map(|bit| bit.0)
    }

    fn next_clear(&self, from: u64) -> Option<u64> {
        self.0.next_clear(BmBit(from)).map(|bit| bit.0)
    }

    fn bits(&self) -> u64 {
        self.0.bits()
    }

    fn word(&self, i: u64) -> u64 {
        self.0.word(i).unwrap_or(0)
    }
}

/// The bitmap of a disk that is gone.
pub(super) struct NoBits(pub(super) u64);

impl BitSource for NoBits {
    fn next_set(&self, _: u64) -> Option<u64> {
        None
    }

    fn next_clear(&self, from: u64) -> Option<u64> {
        (from < self.0).then_some(from)
    }

    fn bits(&self) -> u64 {
        self.0
    }

    fn word(&self, _: u64) -> u64 {
        0
    }
}

/// Where the peer's bitmap goes if there is no disk.
struct Nowhere;

impl BitSink for Nowhere {
    fn or_word(&mut self, _: u64, _: u64) {}

    fn set_range(&mut self, _: u64, _: u64) {}
}

/// A bitmap into which the peer's is merged.
struct Merge<'a, W, F>(&'a mut Bitmap<W, F>);

impl<W, F> BitSink for Merge<'_, W, F>
where
    W: DerefMut<Target = [u64]>,
    F: DerefMut<Target = [PageFlags]>,
{
    fn or_word(&mut self, i: u64, word: u64) {
        // Behind the end nothing is there to be set.
        let _ = self.0.or_words(i, core::iter::once(word));
    }

    fn set_range(&mut self, from: u64, to: u64) {
        if let Some(span) = to
            .checked_sub(1)
            .and_then(|l| BitSpan::new(BmBit(from), BmBit(l)))
        {
            self.0.set(span);
        }
    }
}

impl<S: Store> Resource<S> {
    /// WFBitMapS was entered: the bitmap goes to the peer as soon as no application write is in
    /// flight.
    pub(crate) fn queue_bitmap_send(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        match rs.exchange.sending {
            Sending::No => {}
            Sending::Gate | Sending::Settling | Sending::Filling => return,
            Sending::Chunks(..) => {
                rs.exchange.due = true;
                return;
            }
        }
        rs.exchange.sending = Sending::Gate;
        rs.exchange.gated = true;
        self.gate_close(vol, After::Resync(Next::BitmapGate(vol)), h);
    }

    pub(super) fn bitmap_gate_closed(&mut self, vol: VolIx, h: &mut impl Host) {
        let wanted = self.rs_conn(vol) == conn::State::WFBitMapS;
        match self.rs(vol).map(|rs| &rs.exchange.sending) {
            Some(Sending::Gate) if wanted => {
                self.mark_unproven(vol, h);
                self.bitmap_prepare(vol, h);
            }
            Some(Sending::Gate) => self.exchange_end(vol, h),
            // The connection was lost while it waited; the gate is open again.
            Some(Sending::No | Sending::Settling | Sending::Filling | Sending::Chunks(..))
            | None => {}
        }
    }

    /// A target sends its bitmap. What a Primary that becomes one (`rr-conflict violently`) has
    /// begun to write without the peer comes first: it is marked when it is done, and would be on
    /// top of what the resync brings, on this disk alone. The C driver does not wait.
    fn settle_target(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.exchange.sending = Sending::Settling;
        }
        self.settle_pump(vol, h);
    }

    pub(super) fn settle_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let settles = self
            .rs(vol)
            .is_some_and(|rs| matches!(rs.exchange.sending, Sending::Settling));
        if settles && !self.writes_alone(vol) {
            self.bitmap_prepare(vol, h);
        }
    }

    /// Sets all bits first if a full sync is recorded in the superblock.
    fn bitmap_prepare(&mut self, vol: VolIx, h: &mut impl Host) {
        let full = self.full_sync_due(vol);
        if let Some(rs) = self.rs_mut(vol) {
            rs.exchange.sending = Sending::Filling;
        }
        if full {
            self.rs_log(vol, super::super::Note::FullSyncDue, h);
            self.set_all_and_write(vol, After::Resync(Next::BitmapFilled(vol)), h);
        } else {
            self.bitmap_filled(vol, true, h);
        }
    }

    pub(super) fn bitmap_filled(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let filling = self
            .rs(vol)
            .is_some_and(|rs| matches!(rs.exchange.sending, Sending::Filling));
        if !filling {
            return;
        }
        let conn = self.rs_conn(vol);
        let agreed = self.connected(PEER);
        let rle = self.use_rle(PEER);
        let volume = self.rs_vol(vol).and_then(|v| {
            let bits = v.backing.as_ref()?.bitmap.bits();
            Some((v.vnr, bits))
        });
        let exchanging = matches!(conn, conn::State::WFBitMapS | conn::State::WFBitMapT);
        let (Some(agreed), Some((vnr, bits)), true) = (agreed, volume, ok && exchanging) else {
            // A full sync that could not be stored begins anew with the next connection: the
            // superblock still says that it is due.
            self.exchange_end(vol, h);
            if !ok && exchanging {
                let down = StateChange::NONE.conn(conn::State::NetworkFailure);
                self.change_conn(PEER, down, Flags::HARD, h);
            }
            return;
        };
        if let Some(rs) = self.rs_mut(vol) {
            rs.exchange.sending = Sending::Chunks(SendCursor::new(bits, agreed.apv, rle), bits);
        }
        let token = token::send(vol, token::Which::Volume);
        let payload = Payload::Bitmap { vol };
        self.send(PEER, Sock::Data, vnr.0, Packet::Bitmap, payload, token, h);
        if conn == conn::State::WFBitMapT {
            let next = StateChange::NONE.conn(conn::State::WFSyncUUID);
            self.change_state(vol, next, Flags::VERBOSE, h);
        }
    }

    /// Writes the next packet of the bitmap, header included, into `buf` and returns its length;
    /// `None`: all of it is sent, or nobody wants it any more.
    pub fn bitmap_chunk(&mut self, vol: VolIx, buf: &mut [u8; 4096]) -> Option<usize> {
        let apv = self.connected(PEER)?.apv;
        let vnr: Vnr = self.rs_vol(vol)?.vnr;
        let volume = self.volumes.get_mut(usize::from(vol.0))?.as_mut()?;
        let rs = &mut volume.peers.first_mut()?.resync;
        let Sending::Chunks(cursor, bits) = &mut rs.exchange.sending else {
            return None;
        };
        let head = header::size(apv);
        let body = buf.get_mut(head..)?;
        let disk = volume.backing.as_ref();
        let chunk = match disk.filter(|b| b.bitmap.bits() == *bits) {
            Some(disk) => cursor.encode_chunk(&OnWire(&disk.bitmap), body),
            None => cursor.encode_chunk(&NoBits(*bits), body),
        };
        let command = match chunk {
            Chunk::Plain { .. } => Command::Bitmap,
            Chunk::Compressed { .. } => Command::CompressedBitmap,
            Chunk::Done => return None,
        };
        let length = crate::units::saturate_u32(crate::units::widen(chunk.len()));
        let mut header_bytes = [0; 16];
        let written = header::encode(apv, vnr, command, length, &mut header_bytes);
        for (to, from) in buf.iter_mut().zip(header_bytes.iter().take(written)) {
            *to = *from;
        }
        Some(written.saturating_add(chunk.len()))
    }

    pub(super) fn bitmap_sent(&mut self, vol: VolIx, h: &mut impl Host) {
        let sending = self
            .rs(vol)
            .is_some_and(|rs| matches!(rs.exchange.sending, Sending::Chunks(..)));
        if !sending {
            return;
        }
        self.exchange_end(vol, h);
        let due = self.rs_mut(vol).map(|rs| &mut rs.exchange.due);
        if due.is_some_and(core::mem::take) {
            self.send_own(vol, h);
        }
    }

    /// The own bitmap is to be sent now.
    fn send_own(&mut self, vol: VolIx, h: &mut impl Host) {
        match self.rs_conn(vol) {
            conn::State::WFBitMapS => self.queue_bitmap_send(vol, h),
            conn::State::WFBitMapT => self.settle_target(vol, h),
            _ => {}
        }
    }

    /// The own bitmap is sent, or is not to be sent any more.
    fn exchange_end(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        rs.exchange.sending = Sending::No;
        if core::mem::take(&mut rs.exchange.gated) {
            self.gate_open(vol, h);
        }
    }

    /// The exchange is given up. What flows goes on as long as the connection stands.
    pub(super) fn exchange_cancel(&mut self, vol: VolIx, stands: bool, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let x = &mut rs.exchange;
        x.due = false;
        if !stands {
            x.receiving = Receiving::No;
        }
        let flows = stands && matches!(x.sending, Sending::Chunks(..));
        if !flows {
            self.exchange_end(vol, h);
        } else if core::mem::take(&mut x.gated) {
            self.gate_open(vol, h);
        }
    }

    /// Merges a chunk of the peer's bitmap. The last one moves the exchange on. Without a disk
    /// there is nothing to be merged with, and no exchange: the C driver counts by the size that
    /// the device had, and ends the connection if the peer's has another.
    ///
    /// # Errors
    /// [`Violation::Bitmap`] for a chunk of wrong length or content.
    pub(crate) fn recv_bitmap(
        &mut self,
        vol: VolIx,
        compressed: bool,
        body: &[u8],
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let apv = self.connected(PEER).ok_or(Violation::Unexpected)?.apv;
        let volume = self.volumes.get_mut(usize::from(vol.0));
        let v = volume.and_then(Option::as_mut).ok_or(Violation::Volume)?;
        let rs = &mut v.peers.first_mut().ok_or(Violation::Volume)?.resync;
        let disk = v.backing.as_mut();
        let receiving = &mut rs.exchange.receiving;
        if matches!(receiving, Receiving::No) {
            let usable = v.state.disk > disk::State::Failed;
            *receiving = match disk.as_ref().filter(|_| usable).map(|b| b.bitmap.bits()) {
                Some(bits) => Receiving::Merging(ReceiveCursor::new(bits, apv), bits),
                None => Receiving::Skipping,
            };
        }
        let Receiving::Merging(cursor, bits) = receiving else {
            return Ok(());
        };
        let merged = match disk.filter(|b| b.bitmap.bits() == *bits) {
            Some(disk) => apply(cursor, compressed, body, &mut Merge(&mut disk.bitmap)),
            None => apply(cursor, compressed, body, &mut Nowhere),
        };
        if !matches!(merged, Ok(Progress::More)) {
            *receiving = Receiving::No;
        }
        match merged {
            Err(_) => Err(Violation::Bitmap),
            Ok(Progress::More) => Ok(()),
            Ok(Progress::Finished) => {
                self.bitmap_received(vol, h);
                Ok(())
            }
        }
    }

    /// A STATE comes: no piece of a bitmap that was under way comes behind it.
    ///
    /// # Errors
    /// [`Violation::Bitmap`] if pieces are missing.
    pub(crate) fn bitmap_is_over(&mut self, vol: VolIx) -> Result<(), Violation> {
        let Some(rs) = self.rs_mut(vol) else {
            return Ok(());
        };
        match core::mem::replace(&mut rs.exchange.receiving, Receiving::No) {
            Receiving::No | Receiving::Skipping => Ok(()),
            Receiving::Merging(..) => Err(Violation::Bitmap),
        }
    }

    /// Whether a bitmap flows, or is about to be sent.
    pub(crate) fn exchange_moves(&self, vol: VolIx) -> bool {
        self.rs(vol).is_some_and(|rs| {
            let x = &rs.exchange;
            let sends = !matches!(x.sending, Sending::No);
            sends || !matches!(x.receiving, Receiving::No) || self.resync_begins(vol)
        })
    }

    fn bitmap_received(&mut self, vol: VolIx, h: &mut impl Host) {
        let conn = self.rs_conn(vol);
        if conn == conn::State::WFBitMapT {
            match self.rs_mut(vol).map(|rs| &mut rs.exchange) {
                Some(x) if matches!(x.sending, Sending::No) => self.settle_target(vol, h),
                Some(x) if matches!(x.sending, Sending::Chunks(..)) => x.due = true,
                Some(_) | None => {}
            }
        } else if conn == conn::State::WFBitMapS {
            self.start_resync(vol, Side::Source, h);
        }
    }

    /// Whether a bitmap is being merged: nothing else may come on the data socket, and no bit may
    /// be cleared.
    pub(crate) fn bitmap_receiving(&self, vol: VolIx) -> bool {
        self.rs(vol)
            .is_some_and(|rs| matches!(rs.exchange.receiving, Receiving::Merging(..)))
    }
}

/// Takes a chunk of the peer's bitmap in.
fn apply(
    cursor: &mut ReceiveCursor,
    compressed: bool,
    body: &[u8],
    sink: &mut impl BitSink,
) -> Result<Progress, Malformed> {
    if compressed {
        cursor.apply_compressed(body, sink)
    } else {
        cursor.apply_plain(body, sink)
    }
}
