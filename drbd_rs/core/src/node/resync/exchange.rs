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
//! Merging only sets bits.

use crate::bitmap::{BitSpan, Bitmap, PageFlags};
use crate::state::conn;
use crate::units::{BmBit, Vnr};
use crate::wire::bitmap_chunk::{BitSink, BitSource, Chunk, Progress, ReceiveCursor, SendCursor};
use crate::wire::{header, Command, Packet};
use core::ops::DerefMut;

use super::super::control::{Flags, StateChange};
use super::super::io::{Host, Payload, Sock, VolIx};
use super::super::{After, Resource, Store, Violation, PEER};
use super::{token, Next, Side};

/// Where the own bitmap stands on its way to the peer.
#[derive(Clone, Copy, Debug)]
enum Sending {
    /// Not on its way.
    No,
    /// Application writes in flight are waited for.
    Gate,
    /// All bits are being set and stored first.
    Filling,
    /// The sender asks for chunk after chunk.
    Chunks(SendCursor),
}

/// The exchange of bitmaps of one volume with one peer.
pub(super) struct Exchange {
    sending: Sending,
    /// Application I/O is held back on behalf of this exchange.
    gated: bool,
    receiving: Option<ReceiveCursor>,
}

impl Exchange {
    pub(super) const fn new() -> Exchange {
        Exchange {
            sending: Sending::No,
            gated: false,
            receiving: None,
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
            Sending::Gate | Sending::Filling | Sending::Chunks(_) => return,
        }
        rs.exchange.sending = Sending::Gate;
        rs.exchange.gated = true;
        self.gate_close(vol, After::Resync(Next::BitmapGate(vol)), h);
    }

    pub(super) fn bitmap_gate_closed(&mut self, vol: VolIx, h: &mut impl Host) {
        let wanted = self.rs_conn(vol) == conn::State::WFBitMapS;
        match self.rs(vol).map(|rs| &rs.exchange.sending) {
            Some(Sending::Gate) if wanted => self.bitmap_prepare(vol, h),
            Some(Sending::Gate) => self.exchange_end(vol, h),
            // The connection was lost while it waited; the gate is open again.
            Some(Sending::No | Sending::Filling | Sending::Chunks(_)) | None => {}
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
            rs.exchange.sending = Sending::Chunks(SendCursor::new(bits, agreed.apv, rle));
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
        let (rs, disk) = self.rs_disk_mut(vol)?;
        let Sending::Chunks(cursor) = &mut rs.exchange.sending else {
            return None;
        };
        let head = header::size(apv);
        let body = buf.get_mut(head..)?;
        let chunk = cursor.encode_chunk(&OnWire(&disk.bitmap), body);
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
            .is_some_and(|rs| matches!(rs.exchange.sending, Sending::Chunks(_)));
        if sending {
            self.exchange_end(vol, h);
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

    /// The connection is gone.
    pub(super) fn exchange_cancel(&mut self, vol: VolIx, h: &mut impl Host) {
        if let Some(rs) = self.rs_mut(vol) {
            rs.exchange.receiving = None;
        }
        self.exchange_end(vol, h);
    }

    /// Merges a chunk of the peer's bitmap. The last one moves the exchange on.
    ///
    /// # Errors
    /// [`Violation::Bitmap`] for a chunk of wrong length or content; [`Violation::Unexpected`]
    /// without a disk.
    pub(crate) fn recv_bitmap(
        &mut self,
        vol: VolIx,
        compressed: bool,
        body: &[u8],
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let apv = self.connected(PEER).ok_or(Violation::Unexpected)?.apv;
        let (rs, disk) = self.rs_disk_mut(vol).ok_or(Violation::Unexpected)?;
        let bits = disk.bitmap.bits();
        let cursor = rs
            .exchange
            .receiving
            .get_or_insert_with(|| ReceiveCursor::new(bits, apv));
        let mut sink = Merge(&mut disk.bitmap);
        let merged = if compressed {
            cursor.apply_compressed(body, &mut sink)
        } else {
            cursor.apply_plain(body, &mut sink)
        };
        match merged {
            Err(_) => {
                rs.exchange.receiving = None;
                Err(Violation::Bitmap)
            }
            Ok(Progress::More) => Ok(()),
            Ok(Progress::Finished) => {
                rs.exchange.receiving = None;
                self.bitmap_received(vol, h);
                Ok(())
            }
        }
    }

    fn bitmap_received(&mut self, vol: VolIx, h: &mut impl Host) {
        let conn = self.rs_conn(vol);
        let idle = self
            .rs(vol)
            .is_some_and(|rs| matches!(rs.exchange.sending, Sending::No));
        if conn == conn::State::WFBitMapT && idle {
            self.bitmap_prepare(vol, h);
        } else if conn == conn::State::WFBitMapS {
            self.start_resync(vol, Side::Source, h);
        }
    }

    /// Whether a bitmap is being received: nothing else may come on the data socket, and no bit may
    /// be cleared.
    pub(crate) fn bitmap_receiving(&self, vol: VolIx) -> bool {
        self.rs(vol)
            .is_some_and(|rs| rs.exchange.receiving.is_some())
    }
}
