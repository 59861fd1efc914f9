// SPDX-License-Identifier: GPL-2.0

//! What the content of blocks decides: equal digests, blocks of zeroes.
//!
//! ```text
//!   read ─▶ Examining ─▶ Thin:    all zeroes? RS_DEALLOCATED : RS_DATA_REPLY
//!                        Compare: equal?      RS_IS_IN_SYNC  : RS_DATA_REPLY
//!                        Offer:   CSUM_RS_REQUEST with the digest
//!                        Prove:   OV_REPLY with the digest, in order
//!                        Judge:   OV_RESULT, in order
//! ```
//!
//! The machine computes nothing: it asks by [`Effect::Examine`]. Extents stay locked meanwhile, so
//! that what is found out is still true when it is acted on.

use crate::digest::Digest;
use crate::state::{conn, disk};
use crate::wire::{BlockDesc, BlockId, BlockReq, Data as DataPacket, Name64, Packet};

use super::super::control::IoErrorKind;
use super::super::io::{
    BufId, DigestFor, Effect, Examine, Examined, Host, IoToken, Lost, Payload, SendToken, Sock,
    VolIx,
};
use super::super::request::Moved;
use super::super::{Note, Resource, Store, Violation, PEER};
use super::{token, Kind, Slot, Stage, UNIT};

impl Kind {
    /// What there is to find out about a block once it was read.
    const fn question(self) -> Option<Examine> {
        match self {
            Kind::Write | Kind::Data => None,
            Kind::Thin => Some(Examine::Zeroes),
            Kind::Offer | Kind::Compare => Some(Examine::Digest(DigestFor::Csums)),
            Kind::Prove | Kind::Judge => Some(Examine::Digest(DigestFor::Verify)),
        }
    }
}

/// The digest behind a packet.
///
/// # Errors
/// [`Violation::Digest`] if that cannot be one.
pub(super) fn digest_of(body: &[u8]) -> Result<Digest, Violation> {
    Digest::new(body).ok_or(Violation::Digest)
}

impl<S: Store> Resource<S> {
    /// The name of an algorithm as it is configured now, on both nodes.
    pub fn algorithm(&self, which: DigestFor) -> Name64 {
        let conf = self.net_conf(PEER);
        let name = conf.map(|n| match which {
            DigestFor::Csums => n.csums_alg.as_bytes(),
            DigestFor::Verify => n.verify_alg.as_bytes(),
        });
        name.and_then(Name64::new).unwrap_or(Name64::EMPTY)
    }

    /// A block was read for the peer or in order to ask the peer.
    pub(super) fn block_read(
        &mut self,
        vol: VolIx,
        ix: u16,
        slot: Slot,
        buf: Option<BufId>,
        h: &mut impl Host,
    ) {
        if let Some(s) = self.rs_mut(vol).and_then(|rs| rs.slot_mut(ix)) {
            s.buf = buf;
        }
        let Some(what) = slot.kind.question() else {
            self.reply_data(vol, ix, slot, h);
            return;
        };
        if let Some(s) = self.rs_mut(vol).and_then(|rs| rs.slot_mut(ix)) {
            s.stage = Stage::Examining;
        }
        let io = token::io(vol, token::Which::Slot(ix));
        h.emit(Effect::Examine { io, buf, what });
    }

    /// Whether an own block was read for a resync that has been given up since: this one asks for
    /// it anew, under a lock of its own.
    fn offered_in_vain(&mut self, vol: VolIx, slot: Slot) -> bool {
        if let Some(rs) = self.rs_mut(vol).filter(|_| slot.void) {
            rs.answered(slot.range.len.0);
        }
        slot.void
    }

    /// A block could not be read.
    pub(super) fn block_unreadable(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) {
        match slot.kind {
            Kind::Data | Kind::Thin | Kind::Compare | Kind::Write => {
                self.let_go(vol, ix, h);
                if self.rs_conn(vol) == conn::State::Ahead {
                    self.send_block_ack(vol, Packet::RsCancel, slot.range, h);
                } else {
                    self.send_block_ack(vol, Packet::NegRsDreply, slot.range, h);
                    self.set_failed(vol, slot.range);
                }
                self.put_extent(vol, slot);
            }
            // The source has the data.
            Kind::Offer => {
                self.let_go(vol, ix, h);
                if !self.offered_in_vain(vol, slot) {
                    self.ask_for(vol, slot.range, h);
                }
            }
            // A digest of zeroes is no block's.
            Kind::Prove => self.block_read(vol, ix, slot, None, h),
            Kind::Judge => self.verdict_known(vol, ix, false, h),
        }
        self.io_error(vol, IoErrorKind::Read, h);
    }

    /// The content of a block was looked at.
    pub(crate) fn resync_examined(&mut self, io: IoToken, result: Examined, h: &mut impl Host) {
        let Some((vol, token::Which::Slot(ix))) = token::of_io(io) else {
            return;
        };
        let Some(rs) = self.rs(vol) else { return };
        let at = usize::from(ix);
        let Some((slot, told)) = rs.slots.get(at).copied().zip(rs.told.get(at).copied()) else {
            return;
        };
        if slot.stage != Stage::Examining {
            return;
        }
        if !slot.current {
            self.let_go(vol, ix, h);
            self.compared_in_vain(vol, slot, h);
            return;
        }
        let digest = match result {
            Examined::Digest(digest) => Some(digest),
            Examined::Zeroes(_) | Examined::Failed => None,
        };
        match (slot.kind, digest) {
            (Kind::Thin, _) if result == Examined::Zeroes(true) => {
                self.reply_zeroes(vol, ix, slot, h);
            }
            (Kind::Compare, Some(own)) if own == told => self.reply_equal(vol, ix, slot, h),
            (Kind::Thin | Kind::Compare, _) => self.reply_data(vol, ix, slot, h),
            (Kind::Offer, _) if self.offered_in_vain(vol, slot) => self.let_go(vol, ix, h),
            (Kind::Offer, Some(own)) => {
                self.let_go(vol, ix, h);
                self.send_digest(vol, Packet::CsumRsRequest, slot, own, h);
            }
            (Kind::Offer, None) => {
                self.let_go(vol, ix, h);
                self.ask_for(vol, slot.range, h);
            }
            (Kind::Prove, Some(own)) => {
                if let Some(rs) = self.rs_mut(vol) {
                    rs.tell(ix, own);
                }
                self.verdict_known(vol, ix, false, h);
            }
            (Kind::Judge, Some(own)) => self.verdict_known(vol, ix, own == told, h),
            (Kind::Prove | Kind::Judge, None) => {
                self.let_go(vol, ix, h);
                // To say that the blocks differ would be a lie, and there is no other answer.
                self.rs_log(vol, Note::NoDigest("verify-alg"), h);
                self.lost(PEER, Lost::Protocol, h);
            }
            (Kind::Write | Kind::Data, _) => self.let_go(vol, ix, h),
        }
    }

    /// A block of a verify waits for its turn: disks answer in any order, but ranges in the log and
    /// the place where a broken verify goes on want the order of the blocks.
    fn verdict_known(&mut self, vol: VolIx, ix: u16, equal: bool, h: &mut impl Host) {
        let Some(slot) = self.rs_mut(vol).and_then(|rs| rs.slot_mut(ix)) else {
            return;
        };
        slot.stage = Stage::Examined { equal };
        if let Some(buf) = slot.buf.take() {
            h.emit(Effect::Free(buf));
        }
    }

    /// Goes on with blocks of a verify whose turn it is; true if effects ran out of room.
    pub(super) fn answer_examined(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        while let Some((ix, slot, equal)) = self.rs(vol).and_then(|rs| rs.next_examined()) {
            if h.room() < UNIT {
                return true;
            }
            let resyncs = super::resyncs(self.rs_conn(vol));
            let Some(rs) = self.rs_mut(vol) else { break };
            let told = rs.told.get(usize::from(ix)).copied();
            rs.release(ix);
            let proof = told.filter(|_| slot.kind == Kind::Prove);
            if let Some(own) = proof {
                // A request that came when the verify was given up: no verdict will find its lock
                // (`recv_verify_result`), for which the end of the resync would wait for ever.
                if resyncs {
                    self.put_extent(vol, slot);
                } else {
                    rs.pending = rs.pending.saturating_add(1);
                }
                self.send_digest(vol, Packet::OvReply, slot, own, h);
            } else if slot.current {
                self.judged(vol, slot, equal, h);
            } else {
                self.compared_in_vain(vol, slot, h);
            }
        }
        false
    }

    /// Frees a slot and its buffer.
    pub(super) fn let_go(&mut self, vol: VolIx, ix: u16, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        let buf = rs.slot_mut(ix).and_then(|s| s.buf.take());
        rs.release(ix);
        if let Some(buf) = buf {
            h.emit(Effect::Free(buf));
        }
    }

    /// Answers a request with the data.
    fn reply_data(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) {
        if self.no_reply(vol, ix, slot, h) {
            return;
        }
        let Some(vnr) = self.rs_vol(vol).map(|v| v.vnr) else {
            return;
        };
        let packet = Packet::RsDataReply(DataPacket {
            sector: slot.range.start,
            block_id: BlockId::SYNCER,
            seq_num: 0,
            flags: 0,
        });
        let Some(rs) = self.rs_mut(vol) else { return };
        let Some((buf, s)) = rs.slot_mut(ix).and_then(|s| Some((s.buf?, s))) else {
            return;
        };
        s.stage = Stage::Sending;
        rs.pending = rs.pending.saturating_add(1);
        self.count_moved(vol, Moved::Sent, slot.range.len);
        let token = token::send(vol, token::Which::Slot(ix));
        let payload = Payload::Buf(buf);
        self.send(PEER, Sock::Data, vnr.0, packet, payload, token, h);
        // After the reply was queued: a write that waited for the extent follows it.
        self.put_extent(vol, slot);
    }

    /// Answers a thin request: all zeroes.
    fn reply_zeroes(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) {
        if self.no_reply(vol, ix, slot, h) {
            return;
        }
        self.let_go(vol, ix, h);
        if let Some(rs) = self.rs_mut(vol) {
            rs.pending = rs.pending.saturating_add(1);
        }
        let packet = Packet::RsDeallocated(BlockDesc {
            sector: slot.range.start,
            blksize: slot.range.bytes(),
        });
        self.rs_send(vol, Sock::Data, packet, h);
        self.put_extent(vol, slot);
    }

    /// Answers a request that came with a digest: it is that of the own block.
    fn reply_equal(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) {
        if self.no_reply(vol, ix, slot, h) {
            return;
        }
        self.let_go(vol, ix, h);
        self.set_in_sync(vol, slot.range, h);
        if let Some(rs) = self.rs_mut(vol) {
            rs.same = rs.same.saturating_add(slot.range.len.0 >> 3);
        }
        self.send_block_ack(vol, Packet::RsIsInSync, slot.range, h);
        self.put_extent(vol, slot);
    }

    /// Whether the state has become one in which no data are sent; the request is over then.
    fn no_reply(&mut self, vol: VolIx, ix: u16, slot: Slot, h: &mut impl Host) -> bool {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return true;
        };
        // Now, or since this was asked for: then nothing has kept applications from the block, and
        // the peer may have got a younger one. The C driver sends it.
        let ahead = state.conn == conn::State::Ahead || slot.void;
        // Without its disk the peer has forgotten what it asked for.
        if !ahead && state.pdsk >= disk::State::Inconsistent {
            return false;
        }
        self.let_go(vol, ix, h);
        if ahead {
            self.send_block_ack(vol, Packet::RsCancel, slot.range, h);
        }
        self.put_extent(vol, slot);
        true
    }

    fn send_digest(
        &mut self,
        vol: VolIx,
        packet: fn(BlockReq) -> Packet,
        slot: Slot,
        digest: Digest,
        h: &mut impl Host,
    ) {
        let Some(vnr) = self.rs_vol(vol).map(|v| v.vnr) else {
            return;
        };
        let packet = packet(BlockReq {
            sector: slot.range.start,
            block_id: BlockId::SYNCER,
            blksize: slot.range.bytes(),
        });
        let payload = Payload::Digest(digest);
        let nobody = SendToken::default();
        self.send(PEER, Sock::Data, vnr.0, packet, payload, nobody, h);
    }
}
