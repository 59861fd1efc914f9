// SPDX-License-Identifier: GPL-2.0

//! One step of the machine: an input goes to whom it concerns, then all parts do what they can.

use crate::state::conn::State as Conn;
use crate::time::Instant;
use crate::units::{Minor, Vnr};
use crate::wire::{BlockDesc, BlockId, Header, Packet, RsUuid};

use super::super::io::{BufId, Effect, Host, Input, PayloadPlan, PeerIx, Progress, Sock, VolIx};
use super::super::note::Note;
use super::super::{Connection, Resource, Store, Violation, Volume, PEER};
use super::after_change::ROOM;
use super::{Agreed, Next, Phase};

/// Rounds of all parts in one step; what is left then is done in the next one.
const ROUNDS: u32 = 16;

/// A packet and what came with it.
struct Arrival<'a> {
    peer: PeerIx,
    vnr: u16,
    packet: Packet,
    buf: Option<BufId>,
    /// Bytes of data in the buffer.
    bytes: u32,
    body: &'a [u8],
    intact: bool,
}

impl<S: Store> Resource<S> {
    /// Takes an input and does all that follows from it.
    pub fn step(&mut self, input: Input<'_>, h: &mut impl Host) -> Progress {
        match input {
            Input::Tick => {}
            Input::Submit { vol, io } => self.submit(vol, io, h),
            Input::Opened { vol, open } => self.opened(vol, open),
            Input::LocalDone { io, buf, result } => self.local_done(io, buf, result, h),
            Input::MetaDone { io, page, result } => self.meta_done(io, page, result, h),
            Input::Examined { io, result } => self.resync_examined(io, result, h),
            Input::Sent { peer, token } => self.packet_sent(peer, token, h),
            Input::Received {
                peer,
                sock,
                header,
                packet,
                buf,
                body,
                intact,
            } => {
                let bytes = match self.payload(&header, &packet) {
                    PayloadPlan::Buffer { bytes, .. } | PayloadPlan::App { bytes, .. } => bytes,
                    PayloadPlan::None | PayloadPlan::Body { .. } | PayloadPlan::Violation => 0,
                };
                let Header { volume, .. } = header;
                let arrival = Arrival {
                    peer,
                    vnr: volume.0,
                    packet,
                    buf,
                    bytes,
                    body,
                    intact,
                };
                self.received(sock, arrival, h);
            }
            Input::Connected {
                peer,
                apv,
                features,
                arbiter,
            } => {
                let agreed = Agreed {
                    apv,
                    features,
                    arbiter,
                };
                self.peer_connected(peer, agreed, h);
            }
            Input::ConnectFailed { peer } => self.connect_failed(peer, h),
            Input::Lost { peer, why } => self.lost(peer, why, h),
            Input::SendStalled { peer } => self.send_stalled(peer, h),
            Input::Closed { peer } => self.sockets_closed(peer, h),
            Input::ReceiverGone { peer } => self.receiver_gone(peer, h),
            Input::HelperDone { id, code } => self.helper_done(id, code, h),
        }
        self.pump(h)
    }

    /// All parts do what they can.
    pub(super) fn pump(&mut self, h: &mut impl Host) -> Progress {
        for _ in 0..ROUNDS {
            let before = h.room();
            let mut more = self.control_pump(h);
            more |= self.request_pump(h);
            more |= self.resync_pump(h);
            // What one part did may be what another waits for.
            more |= h.room() != before || core::mem::take(&mut self.ctl.stirred);
            if h.room() < ROOM {
                return Progress::More;
            }
            if !more {
                return Progress::Idle;
            }
        }
        Progress::More
    }

    /// When to step next with [`Input::Tick`], if nothing else happens before. After a step that
    /// returned [`Progress::Idle`] that is never now or earlier.
    pub fn deadline(&self) -> Option<Instant> {
        [
            self.control_deadline(),
            self.request_deadline(),
            self.resync_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn control_deadline(&self) -> Option<Instant> {
        let op = self.ctl.op.as_ref().and_then(|op| op.deadline());
        let wait = self.wait_deadline();
        let due = [self.ping_deadline(), op, wait];
        due.into_iter().flatten().min()
    }

    /// True: something was done, or could have been with more room.
    #[inline(never)]
    fn control_pump(&mut self, h: &mut impl Host) -> bool {
        self.ping_tick(PEER, h);
        let mut worked = self.connect_pump(PEER, h);
        worked |= self.after_change_pump(h);
        worked |= self.operation_pump(h);
        worked |= self.odds_pump(h);
        worked | self.waits_pump(h)
    }

    /// What was waited for is over.
    pub(crate) fn control_next(&mut self, next: Next, ok: bool, h: &mut impl Host) {
        match next {
            Next::RequestsQuiet { peer } => self.requests_quiet(peer),
            Next::AfterChange { vol } => self.after_change_resumes(vol, ok),
            Next::Operation { op } => self.operation_resumes(op, ok),
            Next::FullSyncReady { vol } => self.full_sync_ready(vol, ok, h),
            Next::SyncSkipped { vol } => self.sync_skipped(vol, h),
            Next::LastWords { vol } => self.last_words_said(vol, ok, h),
            Next::Resize { vol, turn } => self.resize_goes_on(vol, turn, ok, h),
            Next::SizesSettled { vol } => self.sizes_settled(vol, h),
            Next::CleanedUp => self.cleaned_up(PEER),
            Next::GenerationStored => self.generation_stored(PEER),
            Next::TellAgain { vol } => self.tell_again(vol, ok, h),
            Next::LogStops { vol } => self.log_stops(vol, ok),
            Next::LogCaughtUp { vol } => self.log_caught_up(vol, ok, h),
            Next::Fenced { peer } => self.fenced(peer, h),
        }
    }

    fn opened(&mut self, vol: VolIx, open: bool) {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.opened = if open {
                v.ctl.opened.saturating_add(1)
            } else {
                v.ctl.opened.saturating_sub(1)
            };
        }
    }

    fn received(&mut self, sock: Sock, a: Arrival<'_>, h: &mut impl Host) {
        let peer = a.peer;
        let buf = a.buf;
        if self.agreed(peer).is_none() {
            // What arrives behind the end of a connection belongs to nobody.
            if let Some(buf) = buf {
                h.emit(Effect::Free(buf));
            }
            return;
        }
        self.peer_lives(peer, sock, h.now());
        let apv = self
            .agreed(peer)
            .map_or(crate::wire::APV_UNKNOWN, |agreed| agreed.apv);
        let packet = a.packet.command(apv);
        let result = match sock {
            Sock::Data => self.received_data(a, h),
            Sock::Meta => self.received_meta(a, h),
        };
        if let Err(why) = result {
            self.protocol_error(peer, packet, why, h);
        }
    }

    fn received_data(&mut self, a: Arrival<'_>, h: &mut impl Host) -> Result<(), Violation> {
        let peer = a.peer;
        match a.packet {
            Packet::Protocol(p) => self.recv_protocol(peer, p, false, h),
            Packet::ProtocolUpdate(p) => self.recv_protocol(peer, p, true, h),
            Packet::ConnStChgReq(req) => return self.recv_conn_state_req(peer, req, h),
            Packet::StateChgReq(req) => {
                return self.recv_state_req(peer, self.volume_by_number(a.vnr)?, req, h);
            }
            Packet::SyncParam(p) => {
                if let Some(vol) = self.configured(a.vnr, "SyncParam", h) {
                    self.recv_sync_param(vol, p, h);
                }
            }
            Packet::Sizes(p) => {
                let vol = self.configured(a.vnr, "Sizes", h);
                return vol.map_or(Ok(()), |vol| self.recv_sizes(vol, p, h));
            }
            Packet::Uuids(p) => {
                if let Some(vol) = self.configured(a.vnr, "Uuids", h) {
                    self.recv_uuids(vol, p, h);
                }
            }
            Packet::State(p) => {
                let vol = self.configured(a.vnr, "State", h);
                return vol.map_or(Ok(()), |vol| self.recv_state(vol, p, h));
            }
            Packet::SyncUuid(p) => return self.received_sync_uuid(a.vnr, p, h),
            Packet::Bitmap | Packet::CompressedBitmap => return self.received_bitmap(&a, h),
            Packet::OutOfSync(p) => return self.received_out_of_sync(a.vnr, p, h),
            Packet::RsDataReply(_)
            | Packet::RsDataRequest(_)
            | Packet::RsThinReq(_)
            | Packet::CsumRsRequest(_)
            | Packet::OvRequest(_)
            | Packet::OvReply(_)
            | Packet::RsDeallocated(_) => return self.pass_to_resync(&a, h),
            Packet::Data(_)
            | Packet::DataReply(_)
            | Packet::Trim(_)
            | Packet::Zeroes(_)
            | Packet::Barrier(_)
            | Packet::UnplugRemote
            | Packet::DataRequest(_) => return self.pass_to_requests(&a, h),
            Packet::DelayProbe(_) => {}
            Packet::InitialData
            | Packet::InitialMeta
            | Packet::ConnectionFeatures(_)
            | Packet::AuthChallenge(_)
            | Packet::AuthResponse(_)
            | Packet::Ping
            | Packet::PingAck
            | Packet::RecvAck(_)
            | Packet::WriteAck(_)
            | Packet::RsWriteAck(_)
            | Packet::Superseded(_)
            | Packet::NegAck(_)
            | Packet::NegDreply(_)
            | Packet::NegRsDreply(_)
            | Packet::RsIsInSync(_)
            | Packet::RsCancel(_)
            | Packet::RetryWrite(_)
            | Packet::OvResult(_)
            | Packet::BarrierAck(_)
            | Packet::StateChgReply(_)
            | Packet::ConnStChgReply(_) => return Err(Violation::Unexpected),
        }
        Ok(())
    }

    fn received_sync_uuid(
        &mut self,
        vnr: u16,
        p: RsUuid,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let vol = self.volume_by_number(vnr)?;
        self.recv_sync_uuid(vol, p, h)
    }

    fn received_out_of_sync(
        &mut self,
        vnr: u16,
        p: BlockDesc,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let vol = self.volume_by_number(vnr)?;
        self.recv_out_of_sync(vol, p, h)
    }

    fn received_bitmap(&mut self, a: &Arrival<'_>, h: &mut impl Host) -> Result<(), Violation> {
        let vol = self.volume_by_number(a.vnr)?;
        let compressed = a.packet == Packet::CompressedBitmap;
        self.recv_bitmap(vol, compressed, a.body, h)
    }

    fn received_meta(&mut self, a: Arrival<'_>, h: &mut impl Host) -> Result<(), Violation> {
        let peer = a.peer;
        match a.packet {
            Packet::Ping => self.recv_ping(peer, h),
            Packet::PingAck => self.recv_ping_ack(peer, h),
            Packet::StateChgReply(r) | Packet::ConnStChgReply(r) => {
                self.recv_request_reply(peer, r, h);
            }
            Packet::RsWriteAck(ack) | Packet::NegAck(ack) => {
                return if ack.block_id == BlockId::SYNCER {
                    self.pass_to_resync(&a, h)
                } else {
                    self.pass_to_requests(&a, h)
                };
            }
            Packet::NegRsDreply(_)
            | Packet::RsIsInSync(_)
            | Packet::RsCancel(_)
            | Packet::OvResult(_) => return self.pass_to_resync(&a, h),
            Packet::RecvAck(_)
            | Packet::WriteAck(_)
            | Packet::Superseded(_)
            | Packet::NegDreply(_)
            | Packet::RetryWrite(_)
            | Packet::BarrierAck(_) => return self.pass_to_requests(&a, h),
            Packet::DelayProbe(_) => {}
            Packet::InitialData
            | Packet::InitialMeta
            | Packet::ConnectionFeatures(_)
            | Packet::AuthChallenge(_)
            | Packet::AuthResponse(_)
            | Packet::Protocol(_)
            | Packet::ProtocolUpdate(_)
            | Packet::Uuids(_)
            | Packet::Sizes(_)
            | Packet::State(_)
            | Packet::StateChgReq(_)
            | Packet::ConnStChgReq(_)
            | Packet::SyncUuid(_)
            | Packet::Data(_)
            | Packet::DataReply(_)
            | Packet::RsDataReply(_)
            | Packet::Trim(_)
            | Packet::Zeroes(_)
            | Packet::Barrier(_)
            | Packet::UnplugRemote
            | Packet::DataRequest(_)
            | Packet::RsDataRequest(_)
            | Packet::OvRequest(_)
            | Packet::OvReply(_)
            | Packet::CsumRsRequest(_)
            | Packet::RsThinReq(_)
            | Packet::RsDeallocated(_)
            | Packet::OutOfSync(_)
            | Packet::Bitmap
            | Packet::CompressedBitmap
            | Packet::SyncParam(_) => return Err(Violation::Unexpected),
        }
        Ok(())
    }

    fn pass_to_resync(&mut self, a: &Arrival<'_>, h: &mut impl Host) -> Result<(), Violation> {
        let vol = self.volume_or_free(a, h)?;
        self.see_ack(vol, &a.packet);
        let payload = a.buf.map(|buf| (buf, a.bytes));
        self.recv_resync_packet(vol, &a.packet, payload, a.body, a.intact, h)
    }

    fn pass_to_requests(&mut self, a: &Arrival<'_>, h: &mut impl Host) -> Result<(), Violation> {
        let vol = match a.packet {
            // They concern the connection.
            Packet::Barrier(_) | Packet::BarrierAck(_) => VolIx(0),
            _ => self.volume_or_free(a, h)?,
        };
        let payload = a.buf.map(|buf| (buf, a.bytes));
        self.recv_request_packet(vol, &a.packet, payload, a.intact, h)
    }

    fn volume_or_free(&mut self, a: &Arrival<'_>, h: &mut impl Host) -> Result<VolIx, Violation> {
        let vol = self.volume_by_number(a.vnr);
        if let (Err(_), Some(buf)) = (vol, a.buf) {
            h.emit(Effect::Free(buf));
        }
        vol
    }

    fn volume_by_number(&self, vnr: u16) -> Result<VolIx, Violation> {
        self.vol_by_vnr(Vnr(vnr)).ok_or(Violation::Volume)
    }

    /// A packet of the handshake for a volume that is not configured here is skipped.
    fn configured(&mut self, vnr: u16, packet: &'static str, h: &mut impl Host) -> Option<VolIx> {
        let vol = self.vol_by_vnr(Vnr(vnr));
        if vol.is_none() {
            self.log_peer(Note::UnknownVolume { packet, vnr }, h);
        }
        vol
    }

    /// The volume with this number.
    pub fn vol_by_vnr(&self, vnr: Vnr) -> Option<VolIx> {
        let ix = self
            .volumes
            .iter()
            .position(|v| v.as_ref().is_some_and(|v| v.vnr == vnr))?;
        u16::try_from(ix).ok().map(VolIx)
    }

    /// The volume with this minor.
    pub fn vol_by_minor(&self, minor: Minor) -> Option<VolIx> {
        let ix = self
            .volumes
            .iter()
            .position(|v| v.as_ref().is_some_and(|v| v.minor == minor))?;
        u16::try_from(ix).ok().map(VolIx)
    }

    pub(crate) fn vol(&self, vol: VolIx) -> Option<&Volume<S>> {
        self.volumes.get(usize::from(vol.0))?.as_ref()
    }

    pub(crate) fn vol_mut(&mut self, vol: VolIx) -> Option<&mut Volume<S>> {
        self.volumes.get_mut(usize::from(vol.0))?.as_mut()
    }

    pub(crate) fn conn(&self, peer: PeerIx) -> Option<&Connection> {
        self.conns.get(usize::from(peer.0))
    }

    pub(crate) fn conn_mut(&mut self, peer: PeerIx) -> Option<&mut Connection> {
        self.conns.get_mut(usize::from(peer.0))
    }

    /// Slots of volumes, used or not.
    pub(crate) fn volume_slots(&self) -> u16 {
        u16::try_from(self.volumes.len()).unwrap_or(u16::MAX)
    }

    /// The number that a volume has on the wire.
    pub(crate) fn vnr(&self, vol: VolIx) -> u16 {
        self.vol(vol).map_or(0, |v| v.vnr.0)
    }

    /// A line about a volume; one that says nothing is left out.
    pub(crate) fn log(&mut self, vol: VolIx, note: Note, h: &mut impl Host) {
        if !note.is_empty() {
            h.emit(Effect::Log {
                vol: Some(vol),
                note,
            });
        }
    }

    /// A line about the connection; one that says nothing is left out.
    pub(crate) fn log_peer(&mut self, note: Note, h: &mut impl Host) {
        if !note.is_empty() {
            h.emit(Effect::Log { vol: None, note });
        }
    }

    /// Whether the resource is idle enough to be freed: StandAlone, no thread, no volumes, no
    /// request of an administrator.
    pub fn is_unused(&self) -> bool {
        let idle = |c: &Connection| c.ctl.phase == Phase::None && c.ctl.cstate == Conn::StandAlone;
        self.conns.iter().all(idle)
            && self.volumes.iter().all(Option::is_none)
            && self.ctl.op.is_none()
    }
}
