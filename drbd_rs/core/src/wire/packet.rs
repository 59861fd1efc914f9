// SPDX-License-Identifier: GPL-2.0

//! One type for every packet that a node sends or receives.
//!
//! A packet holds what has a fixed shape. Digest, data and bitmap bytes travel beside it: the
//! sender adds their number to the header, the receiver reads them after the packet.

use super::command::Command;
use super::header::{Header, HeaderKind};
use super::{
    AuthChallenge, AuthResponse, Barrier, BarrierAck, BlockAck, BlockDesc, BlockReq, Data,
    DelayProbe, Features, Malformed, OvResult, Protocol, ReqReply, ReqState, RsUuid, Sizes, State,
    SyncParam, Trim, Uuids, Writer, BUFFER_SIZE,
};
use crate::units::{saturate_u32, widen, Vnr};

/// A packet; what each is for stands at [`Command`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packet {
    /// See [`Command::InitialData`].
    InitialData,
    /// See [`Command::InitialMeta`].
    InitialMeta,
    /// See [`Command::ConnectionFeatures`].
    ConnectionFeatures(Features),
    /// See [`Command::AuthChallenge`].
    AuthChallenge(AuthChallenge),
    /// See [`Command::AuthResponse`].
    AuthResponse(AuthResponse),
    /// See [`Command::Protocol`].
    Protocol(Protocol),
    /// See [`Command::ProtocolUpdate`].
    ProtocolUpdate(Protocol),
    /// See [`Command::Uuids`].
    Uuids(Uuids),
    /// See [`Command::Sizes`].
    Sizes(Sizes),
    /// See [`Command::State`].
    State(State),
    /// See [`Command::StateChgReq`].
    StateChgReq(ReqState),
    /// See [`Command::ConnStChgReq`].
    ConnStChgReq(ReqState),
    /// See [`Command::SyncUuid`].
    SyncUuid(RsUuid),
    /// See [`Command::Data`].
    Data(Data),
    /// See [`Command::DataReply`].
    DataReply(Data),
    /// See [`Command::RsDataReply`].
    RsDataReply(Data),
    /// See [`Command::Trim`].
    Trim(Trim),
    /// See [`Command::Zeroes`].
    Zeroes(Trim),
    /// See [`Command::Barrier`].
    Barrier(Barrier),
    /// See [`Command::UnplugRemote`].
    UnplugRemote,
    /// See [`Command::DataRequest`].
    DataRequest(BlockReq),
    /// See [`Command::RsDataRequest`].
    RsDataRequest(BlockReq),
    /// See [`Command::OvRequest`].
    OvRequest(BlockReq),
    /// See [`Command::OvReply`].
    OvReply(BlockReq),
    /// See [`Command::CsumRsRequest`].
    CsumRsRequest(BlockReq),
    /// See [`Command::RsThinReq`].
    RsThinReq(BlockReq),
    /// See [`Command::RsDeallocated`].
    RsDeallocated(BlockDesc),
    /// See [`Command::OutOfSync`].
    OutOfSync(BlockDesc),
    /// See [`Command::Bitmap`].
    Bitmap,
    /// See [`Command::CompressedBitmap`].
    CompressedBitmap,
    /// See [`Command::Ping`].
    Ping,
    /// See [`Command::PingAck`].
    PingAck,
    /// See [`Command::RecvAck`].
    RecvAck(BlockAck),
    /// See [`Command::WriteAck`].
    WriteAck(BlockAck),
    /// See [`Command::RsWriteAck`].
    RsWriteAck(BlockAck),
    /// See [`Command::Superseded`].
    Superseded(BlockAck),
    /// See [`Command::NegAck`].
    NegAck(BlockAck),
    /// See [`Command::NegDreply`].
    NegDreply(BlockAck),
    /// See [`Command::NegRsDreply`].
    NegRsDreply(BlockAck),
    /// See [`Command::RsIsInSync`].
    RsIsInSync(BlockAck),
    /// See [`Command::RsCancel`].
    RsCancel(BlockAck),
    /// See [`Command::RetryWrite`].
    RetryWrite(BlockAck),
    /// See [`Command::OvResult`].
    OvResult(OvResult),
    /// See [`Command::BarrierAck`].
    BarrierAck(BarrierAck),
    /// See [`Command::StateChgReply`].
    StateChgReply(ReqReply),
    /// See [`Command::ConnStChgReply`].
    ConnStChgReply(ReqReply),
    /// See [`Command::DelayProbe`].
    DelayProbe(DelayProbe),
    /// [`Command::SyncParam89`], or [`Command::SyncParam`] up to version 88.
    SyncParam(SyncParam),
}

impl Packet {
    /// The command of the packet on a connection of version `apv`.
    pub const fn command(&self, apv: u32) -> Command {
        match self {
            Packet::InitialData => Command::InitialData,
            Packet::InitialMeta => Command::InitialMeta,
            Packet::ConnectionFeatures(_) => Command::ConnectionFeatures,
            Packet::AuthChallenge(_) => Command::AuthChallenge,
            Packet::AuthResponse(_) => Command::AuthResponse,
            Packet::Protocol(_) => Command::Protocol,
            Packet::ProtocolUpdate(_) => Command::ProtocolUpdate,
            Packet::Uuids(_) => Command::Uuids,
            Packet::Sizes(_) => Command::Sizes,
            Packet::State(_) => Command::State,
            Packet::StateChgReq(_) => Command::StateChgReq,
            Packet::ConnStChgReq(_) => Command::ConnStChgReq,
            Packet::SyncUuid(_) => Command::SyncUuid,
            Packet::Data(_) => Command::Data,
            Packet::DataReply(_) => Command::DataReply,
            Packet::RsDataReply(_) => Command::RsDataReply,
            Packet::Trim(_) => Command::Trim,
            Packet::Zeroes(_) => Command::Zeroes,
            Packet::Barrier(_) => Command::Barrier,
            Packet::UnplugRemote => Command::UnplugRemote,
            Packet::DataRequest(_) => Command::DataRequest,
            Packet::RsDataRequest(_) => Command::RsDataRequest,
            Packet::OvRequest(_) => Command::OvRequest,
            Packet::OvReply(_) => Command::OvReply,
            Packet::CsumRsRequest(_) => Command::CsumRsRequest,
            Packet::RsThinReq(_) => Command::RsThinReq,
            Packet::RsDeallocated(_) => Command::RsDeallocated,
            Packet::OutOfSync(_) => Command::OutOfSync,
            Packet::Bitmap => Command::Bitmap,
            Packet::CompressedBitmap => Command::CompressedBitmap,
            Packet::Ping => Command::Ping,
            Packet::PingAck => Command::PingAck,
            Packet::RecvAck(_) => Command::RecvAck,
            Packet::WriteAck(_) => Command::WriteAck,
            Packet::RsWriteAck(_) => Command::RsWriteAck,
            Packet::Superseded(_) => Command::Superseded,
            Packet::NegAck(_) => Command::NegAck,
            Packet::NegDreply(_) => Command::NegDreply,
            Packet::NegRsDreply(_) => Command::NegRsDreply,
            Packet::RsIsInSync(_) => Command::RsIsInSync,
            Packet::RsCancel(_) => Command::RsCancel,
            Packet::RetryWrite(_) => Command::RetryWrite,
            Packet::OvResult(_) => Command::OvResult,
            Packet::BarrierAck(_) => Command::BarrierAck,
            Packet::StateChgReply(_) => Command::StateChgReply,
            Packet::ConnStChgReply(_) => Command::ConnStChgReply,
            Packet::DelayProbe(_) => Command::DelayProbe,
            Packet::SyncParam(_) if apv >= 89 => Command::SyncParam89,
            Packet::SyncParam(_) => Command::SyncParam,
        }
    }

    /// Appends what follows the header.
    fn encode_body(&self, w: &mut Writer<'_>, apv: u32, features: u32) {
        match self {
            Packet::InitialData
            | Packet::InitialMeta
            | Packet::UnplugRemote
            | Packet::Bitmap
            | Packet::CompressedBitmap
            | Packet::Ping
            | Packet::PingAck => {}
            Packet::ConnectionFeatures(p) => p.encode(w),
            Packet::AuthChallenge(p) => p.encode(w),
            Packet::AuthResponse(p) => p.encode(w),
            Packet::Protocol(p) | Packet::ProtocolUpdate(p) => p.encode(w, apv),
            Packet::Uuids(p) => p.encode(w),
            Packet::Sizes(p) => p.encode(w, features),
            Packet::State(p) => p.encode(w),
            Packet::StateChgReq(p) | Packet::ConnStChgReq(p) => p.encode(w),
            Packet::SyncUuid(p) => p.encode(w),
            Packet::Data(p) | Packet::DataReply(p) | Packet::RsDataReply(p) => p.encode(w),
            Packet::Trim(p) | Packet::Zeroes(p) => p.encode(w),
            Packet::Barrier(p) => p.encode(w),
            Packet::DataRequest(p)
            | Packet::RsDataRequest(p)
            | Packet::OvRequest(p)
            | Packet::OvReply(p)
            | Packet::CsumRsRequest(p)
            | Packet::RsThinReq(p) => p.encode(w),
            Packet::RsDeallocated(p) | Packet::OutOfSync(p) => p.encode(w),
            Packet::RecvAck(p)
            | Packet::WriteAck(p)
            | Packet::RsWriteAck(p)
            | Packet::Superseded(p)
            | Packet::NegAck(p)
            | Packet::NegDreply(p)
            | Packet::NegRsDreply(p)
            | Packet::RsIsInSync(p)
            | Packet::RsCancel(p)
            | Packet::RetryWrite(p) => p.encode(w),
            Packet::OvResult(p) => p.encode(w),
            Packet::BarrierAck(p) => p.encode(w),
            Packet::StateChgReply(p) | Packet::ConnStChgReply(p) => p.encode(w),
            Packet::DelayProbe(p) => p.encode(w),
            Packet::SyncParam(p) => p.encode(w, apv),
        }
    }

    /// Writes header and packet to the start of `buf` and returns their length. The header
    /// announces `payload_len` bytes more, which the caller sends next.
    pub fn encode(
        &self,
        apv: u32,
        features: u32,
        vnr: Vnr,
        payload_len: u32,
        buf: &mut [u8; BUFFER_SIZE],
    ) -> usize {
        let header_len = super::header::size(apv);
        let (head, body) = buf.split_at_mut_checked(header_len).unwrap_or_default();
        let mut w = Writer::new(body);
        self.encode_body(&mut w, apv, features);
        debug_assert!(!w.overflowed());
        let body_len = w.written();
        let length = saturate_u32(widen(body_len)).saturating_add(payload_len);
        let kind = HeaderKind::for_sending(apv, length);
        let mut w = Writer::new(head);
        kind.encode(vnr, self.command(apv), length, &mut w);
        debug_assert_eq!(w.written(), header_len);
        header_len.saturating_add(body_len)
    }

    /// Reads the packet behind `header`. `body` is as long as [`Command::check_length`] said.
    ///
    /// # Errors
    /// [`Malformed::Command`] for a number that nothing is known of, otherwise what is wrong with
    /// the body.
    pub fn decode(header: &Header, body: &[u8], apv: u32) -> Result<Packet, Malformed> {
        let unknown = Malformed::Command(header.command);
        let command = Command::from_number(header.command).ok_or(unknown)?;
        if let Some(packet) = Packet::without_body(command) {
            return if body.is_empty() {
                Ok(packet)
            } else {
                Err(Malformed::Length)
            };
        }
        Packet::with_body(command, body, apv)
    }

    /// The packet of a command that has no body.
    const fn without_body(command: Command) -> Option<Packet> {
        Some(match command {
            Command::InitialData => Packet::InitialData,
            Command::InitialMeta => Packet::InitialMeta,
            Command::UnplugRemote => Packet::UnplugRemote,
            Command::Bitmap => Packet::Bitmap,
            Command::CompressedBitmap => Packet::CompressedBitmap,
            Command::Ping => Packet::Ping,
            Command::PingAck => Packet::PingAck,
            Command::Data
            | Command::DataReply
            | Command::RsDataReply
            | Command::Barrier
            | Command::BecomeSyncTarget
            | Command::BecomeSyncSource
            | Command::DataRequest
            | Command::RsDataRequest
            | Command::SyncParam
            | Command::Protocol
            | Command::Uuids
            | Command::Sizes
            | Command::State
            | Command::SyncUuid
            | Command::AuthChallenge
            | Command::AuthResponse
            | Command::StateChgReq
            | Command::RecvAck
            | Command::WriteAck
            | Command::RsWriteAck
            | Command::Superseded
            | Command::NegAck
            | Command::NegDreply
            | Command::NegRsDreply
            | Command::BarrierAck
            | Command::StateChgReply
            | Command::OvRequest
            | Command::OvReply
            | Command::OvResult
            | Command::CsumRsRequest
            | Command::RsIsInSync
            | Command::SyncParam89
            | Command::DelayProbe
            | Command::OutOfSync
            | Command::RsCancel
            | Command::ConnStChgReq
            | Command::ConnStChgReply
            | Command::RetryWrite
            | Command::ProtocolUpdate
            | Command::Trim
            | Command::RsThinReq
            | Command::RsDeallocated
            | Command::Wsame
            | Command::Zeroes
            | Command::ConnectionFeatures => return None,
        })
    }

    fn with_body(command: Command, body: &[u8], apv: u32) -> Result<Packet, Malformed> {
        Ok(match command {
            Command::ConnectionFeatures => Packet::ConnectionFeatures(Features::decode(body)?),
            Command::AuthChallenge => Packet::AuthChallenge(AuthChallenge::decode(body)?),
            Command::AuthResponse => Packet::AuthResponse(AuthResponse::decode(body)?),
            Command::Protocol => Packet::Protocol(Protocol::decode(body, apv)?),
            Command::ProtocolUpdate => Packet::ProtocolUpdate(Protocol::decode(body, apv)?),
            Command::Uuids => Packet::Uuids(Uuids::decode(body)?),
            Command::Sizes => Packet::Sizes(Sizes::decode(body)?),
            Command::State => Packet::State(State::decode(body)?),
            Command::StateChgReq => Packet::StateChgReq(ReqState::decode(body)?),
            Command::ConnStChgReq => Packet::ConnStChgReq(ReqState::decode(body)?),
            Command::SyncUuid => Packet::SyncUuid(RsUuid::decode(body)?),
            Command::Data => Packet::Data(Data::decode(body)?),
            Command::DataReply => Packet::DataReply(Data::decode(body)?),
            Command::RsDataReply => Packet::RsDataReply(Data::decode(body)?),
            Command::Trim => Packet::Trim(Trim::decode(body)?),
            Command::Zeroes => Packet::Zeroes(Trim::decode(body)?),
            Command::Barrier => Packet::Barrier(Barrier::decode(body)?),
            Command::DataRequest => Packet::DataRequest(BlockReq::decode(body)?),
            Command::RsDataRequest => Packet::RsDataRequest(BlockReq::decode(body)?),
            Command::OvRequest => Packet::OvRequest(BlockReq::decode(body)?),
            Command::OvReply => Packet::OvReply(BlockReq::decode(body)?),
            Command::CsumRsRequest => Packet::CsumRsRequest(BlockReq::decode(body)?),
            Command::RsThinReq => Packet::RsThinReq(BlockReq::decode(body)?),
            Command::RsDeallocated => Packet::RsDeallocated(BlockDesc::decode(body)?),
            Command::OutOfSync => Packet::OutOfSync(BlockDesc::decode(body)?),
            Command::RecvAck => Packet::RecvAck(BlockAck::decode(body)?),
            Command::WriteAck => Packet::WriteAck(BlockAck::decode(body)?),
            Command::RsWriteAck => Packet::RsWriteAck(BlockAck::decode(body)?),
            Command::Superseded => Packet::Superseded(BlockAck::decode(body)?),
            Command::NegAck => Packet::NegAck(BlockAck::decode(body)?),
            Command::NegDreply => Packet::NegDreply(BlockAck::decode(body)?),
            Command::NegRsDreply => Packet::NegRsDreply(BlockAck::decode(body)?),
            Command::RsIsInSync => Packet::RsIsInSync(BlockAck::decode(body)?),
            Command::RsCancel => Packet::RsCancel(BlockAck::decode(body)?),
            Command::RetryWrite => Packet::RetryWrite(BlockAck::decode(body)?),
            Command::OvResult => Packet::OvResult(OvResult::decode(body)?),
            Command::BarrierAck => Packet::BarrierAck(BarrierAck::decode(body)?),
            Command::StateChgReply => Packet::StateChgReply(ReqReply::decode(body)?),
            Command::ConnStChgReply => Packet::ConnStChgReply(ReqReply::decode(body)?),
            Command::DelayProbe => Packet::DelayProbe(DelayProbe::decode(body)?),
            Command::SyncParam if apv <= 88 => Packet::SyncParam(SyncParam::decode(body, apv)?),
            Command::SyncParam89 if apv >= 89 => Packet::SyncParam(SyncParam::decode(body, apv)?),
            Command::Bitmap
            | Command::BecomeSyncTarget
            | Command::BecomeSyncSource
            | Command::UnplugRemote
            | Command::SyncParam
            | Command::Ping
            | Command::PingAck
            | Command::SyncParam89
            | Command::CompressedBitmap
            | Command::Wsame
            | Command::InitialMeta
            | Command::InitialData => return Err(Malformed::Command(command.number())),
        })
    }
}
