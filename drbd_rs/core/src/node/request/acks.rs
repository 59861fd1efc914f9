// SPDX-License-Identifier: GPL-2.0

//! What the peer says about requests of this node, and the way in for all packets of this part.
//!
//! An acknowledgement names a request that was sent, on that volume, at that sector; anything else
//! breaks the protocol. Only a negative one may come too late.

use super::request::{Answer, Expect, Net};
use super::token;

use super::super::io::{AppOp, BufId, Host, VolIx};
use super::super::{Resource, Store, Violation, PEER};
use crate::limits::MAX_BATCH_BIO_SIZE;
use crate::store::slab::Id;
use crate::units::SectorRange;
use crate::wire::{BlockAck, Data, Packet};

/// What a positive acknowledgement says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ack {
    Received,
    Written,
    WrittenInSync,
}

impl<S: Store> Resource<S> {
    /// A packet about I/O of applications, here or at the peer. `payload`: the buffer and how many
    /// bytes of data it holds.
    ///
    /// # Errors
    /// The peer broke the protocol; the buffer has been freed.
    pub(crate) fn recv_request_packet(
        &mut self,
        vol: VolIx,
        packet: &Packet,
        payload: Option<(BufId, u32)>,
        intact: bool,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let taken = if intact {
            self.recv_io(vol, packet, payload, h)
        } else {
            Err(Violation::Digest)
        };
        if taken.is_err() {
            Self::free_buf(payload.map(|(buf, _)| buf), h);
        }
        taken
    }

    fn recv_io(
        &mut self,
        vol: VolIx,
        packet: &Packet,
        payload: Option<(BufId, u32)>,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        match *packet {
            Packet::Data(p) => self.recv_data(vol, p, payload, h),
            Packet::Trim(p) => self.recv_trim(vol, p, false, h),
            Packet::Zeroes(p) => self.recv_trim(vol, p, true, h),
            Packet::DataRequest(p) => self.recv_data_request(vol, p, h),
            Packet::DataReply(p) => self.recv_data_reply(vol, p, h),
            Packet::Barrier(p) => self.recv_barrier(PEER, p.nr, h),
            Packet::BarrierAck(p) => self.recv_barrier_ack(PEER, p, h),
            // Without plugs there is nothing to unplug.
            Packet::UnplugRemote => Ok(()),
            Packet::RecvAck(p) => self.recv_ack(vol, p, Ack::Received, h),
            Packet::WriteAck(p) => self.recv_ack(vol, p, Ack::Written, h),
            Packet::RsWriteAck(p) => self.recv_ack(vol, p, Ack::WrittenInSync, h),
            Packet::NegAck(p) => self.recv_neg_ack(vol, p, h),
            Packet::NegDreply(p) => self.recv_neg_dreply(vol, p, h),
            Packet::Superseded(p) => self.recv_verdict(vol, p, false, h),
            Packet::RetryWrite(p) => self.recv_verdict(vol, p, true, h),
            _ => Err(Violation::Unexpected),
        }
    }

    /// The write that an acknowledgement names.
    pub(super) fn acked_write(&self, vol: VolIx, ack: &BlockAck) -> Option<Id> {
        let id = token::of_block_id(ack.block_id)?;
        let r = self.io.requests.get(id)?;
        let fits = r.vol == vol && r.io.range.start == ack.sector && r.is_write();
        (fits && r.net != Net::None).then_some(id)
    }

    fn recv_ack(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        what: Ack,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        self.see_seq(vol, ack.seq_num);
        let id = self.acked_write(vol, &ack).ok_or(Violation::Ack)?;
        let r = self.io.requests.get(id).ok_or(Violation::Ack)?;
        let answer = match what {
            // With protocol C "received" is not enough, and not what was asked for.
            Ack::Received if r.expect != Expect::Received => return Err(Violation::Ack),
            Ack::Received | Ack::Written => Answer::Good,
            Ack::WrittenInSync => Answer::GoodInSync,
        };
        let epoch = r.epoch;
        self.net_answer(id, answer);
        self.settle(id, h);
        self.epoch_answered(PEER, epoch, h);
        Ok(())
    }

    fn recv_neg_ack(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        self.see_seq(vol, ack.seq_num);
        self.resync_doubted(vol);
        if let Some(id) = self.acked_write(vol, &ack) {
            // At once, not with the end of the epoch: as soon as the application is told, a bitmap
            // may be sent. The C driver marks it later.
            if let Some(range) = self.io.requests.get(id).map(|r| r.io.range) {
                self.set_out_of_sync(vol, range, h);
            }
            self.net_answer(id, Answer::Refused);
            self.settle(id, h);
            return Ok(());
        }
        // With protocols A and B the write may be complete and forgotten.
        let bytes = ack.blksize;
        if bytes > MAX_BATCH_BIO_SIZE || !self.is_on_device(vol, ack.sector, bytes) {
            return Err(Violation::Range);
        }
        self.set_out_of_sync(vol, SectorRange::new(ack.sector, bytes), h);
        Ok(())
    }

    fn recv_neg_dreply(
        &mut self,
        vol: VolIx,
        ack: BlockAck,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        self.see_seq(vol, ack.seq_num);
        let read = self.awaited_read(vol, ack.block_id, ack.sector.0);
        let id = read.map(|(id, _)| id).ok_or(Violation::Ack)?;
        self.read_answered(id, Answer::Refused, h);
        Ok(())
    }

    fn recv_data_reply(&mut self, vol: VolIx, p: Data, h: &mut impl Host) -> Result<(), Violation> {
        let read = self.awaited_read(vol, p.block_id, p.sector.0);
        let (id, r) = read.ok_or(Violation::Ack)?;
        debug_assert_eq!(r.io.op, AppOp::Read);
        let len = r.io.range.len;
        self.count_moved(vol, super::stats::Moved::Received, len);
        self.read_answered(id, Answer::Good, h);
        Ok(())
    }

    fn read_answered(&mut self, id: Id, answer: Answer, h: &mut impl Host) {
        self.net_answer(id, answer);
        self.net_finish(id);
        self.settle(id, h);
    }
}
