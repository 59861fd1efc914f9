// SPDX-License-Identifier: GPL-2.0

//! Digests in front of data on the wire (`data-integrity-alg`).
//!
//! Whoever sends data announces the algorithm with PROTOCOL or PROTOCOL_UPDATE on the same socket;
//! it holds for the packets behind that. So sender and receiver each follow those packets, with a
//! computation of their own, and nobody else has to know.

use drbd_core::digest::{self, Digest};
use drbd_core::wire::Packet;
use drbd_kapi::net::socket::{Stall, TcpSocket};
use drbd_kapi::shash::Digest as Algorithm;
use kernel::prelude::*;

use crate::io::examine::{self, Content};

/// The first version that announces an algorithm.
const APV: u32 = 87;

/// Receives a digest of `len` bytes.
pub(crate) fn receive(
    socket: &TcpSocket,
    len: u32,
    on_stall: impl FnMut() -> Stall,
) -> Result<Digest> {
    if len == 0 {
        return Ok(Digest::EMPTY);
    }
    let len = usize::try_from(len).map_err(|_| EINVAL)?;
    let mut bytes = [0; digest::MAX];
    let bytes = bytes.get_mut(..len).ok_or(EINVAL)?;
    socket.recv_exact(bytes, on_stall)?;
    Ok(Digest::new(bytes).unwrap_or(Digest::EMPTY))
}

/// What guards the data of one direction of a connection.
pub(crate) struct Guard(Option<Algorithm>);

impl Guard {
    /// Nothing was announced.
    pub(crate) const NONE: Guard = Guard(None);

    /// Takes over what a packet announces. Errors if this kernel does not have it.
    pub(crate) fn follow(&mut self, packet: &Packet, apv: u32) -> Result {
        let (Packet::Protocol(p) | Packet::ProtocolUpdate(p)) = packet else {
            return Ok(());
        };
        self.0 = None;
        if apv < APV || p.integrity_alg.is_empty() {
            return Ok(());
        }
        self.0 = Some(examine::look_up(p.integrity_alg)?);
        Ok(())
    }

    /// Whether the data of this packet are guarded.
    pub(crate) fn covers(&self, packet: &Packet) -> bool {
        let data = matches!(
            packet,
            Packet::Data(_) | Packet::DataReply(_) | Packet::RsDataReply(_)
        );
        data && self.0.is_some()
    }

    /// The digest of some data; empty where nothing was announced.
    pub(crate) fn digest(&mut self, content: Content<'_>) -> Result<Digest> {
        match &mut self.0 {
            Some(algorithm) => examine::digest(algorithm, content),
            None => Ok(Digest::EMPTY),
        }
    }
}
