// SPDX-License-Identifier: GPL-2.0

//! Reads of a peer that has no good data of its own.

use super::peer_write::{PeerRequest, Stage};
use super::stats::Moved;
use super::token::Name;

use super::super::control::IoErrorKind;
use super::super::io::{
    AppResult, BufId, Data as LocalData, Effect, Host, IoFlags, LocalOp, Payload, PeerIx, Sock,
    VolIx,
};
use super::super::{Resource, Store, Violation, PEER};
use crate::state::disk::State as Disk;
use crate::store::slab::Id;
use crate::units::SectorRange;
use crate::wire::header::most_data;
use crate::wire::{BlockReq, Data, Packet};

impl<S: Store> Resource<S> {
    pub(super) fn recv_data_request(
        &mut self,
        vol: VolIx,
        p: BlockReq,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let most = self.connected(PEER).map_or(0, |a| most_data(a.apv));
        let fits = p.blksize != 0 && p.blksize <= most;
        if !fits || !self.is_on_device(vol, p.sector, p.blksize) {
            return Err(Violation::Range);
        }
        let range = SectorRange::new(p.sector, p.blksize);
        if self.io_state(vol).disk != Disk::UpToDate || !self.io_has_disk(vol) {
            self.send_ack(vol, Packet::NegDreply, range, p.block_id, h);
            return Ok(());
        }
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        let request = PeerRequest::read(vol, range, p.block_id, incarnation);
        let Ok(id) = self.io.peer_requests.insert(request) else {
            return Err(Violation::Flood);
        };
        self.count_unacked(vol, true);
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.local = v.io.local.saturating_add(1);
        }
        if let Some(p) = self.io_peer_device(vol, PEER) {
            p.io.active = p.io.active.saturating_add(1);
        }
        h.emit(Effect::Local {
            vol,
            io: Name::Peer(id).io(),
            op: LocalOp::Read,
            range,
            flags: IoFlags::default(),
            data: LocalData::Fresh,
        });
        Ok(())
    }

    /// The own disk has read what the peer wants.
    pub(super) fn peer_read_done(
        &mut self,
        id: Id,
        r: PeerRequest,
        buf: Option<BufId>,
        result: AppResult,
        h: &mut impl Host,
    ) {
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        let current = r.incarnation == incarnation && self.connected(PEER).is_some();
        if result.is_err() {
            self.io_error(r.vol, IoErrorKind::Read, h);
        } else {
            self.count_moved(r.vol, Moved::Read, r.range.len);
        }
        let Some(buf) = buf.filter(|_| current && result.is_ok()) else {
            Self::free_buf(buf, h);
            if current {
                self.send_ack(r.vol, Packet::NegDreply, r.range, r.block_id, h);
            }
            self.count_unacked(r.vol, false);
            self.forget_peer_request(id, h);
            return;
        };
        if let Some(r) = self.io.peer_requests.get_mut(id) {
            r.stage = Stage::Replying;
            r.buf = Some(buf);
        }
        self.count_moved(r.vol, Moved::Sent, r.range.len);
        let packet = Packet::DataReply(Data {
            sector: r.range.start,
            block_id: r.block_id,
            seq_num: 0,
            flags: 0,
        });
        let vnr = self.io_vnr(r.vol);
        let token = Name::Peer(id).send();
        self.send(PEER, Sock::Data, vnr, packet, Payload::Buf(buf), token, h);
    }

    /// The reply was handed to TCP.
    pub(super) fn peer_reply_sent(&mut self, _peer: PeerIx, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.peer_requests.get(id).copied() else {
            return;
        };
        if r.stage == Stage::Replying {
            self.count_unacked(r.vol, false);
            self.forget_peer_request(id, h);
        }
    }
}
