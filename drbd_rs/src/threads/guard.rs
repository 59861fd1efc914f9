// SPDX-License-Identifier: GPL-2.0

//! Digests in front of data on the wire (`data-integrity-alg`).
//!
//! Whoever sends data announces the algorithm with PROTOCOL or PROTOCOL_UPDATE on the same socket;
//! it holds for the packets behind that. So sender and receiver each follow those packets, with a
//! computation of their own, and nobody else has to know.

use drbd_core::wire::Packet;
use drbd_kapi::block::bio::Bio;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::net::socket::{Stall, TcpSocket};
use drbd_kapi::shash::Digest;
use kernel::prelude::*;
use kernel::str::CString;

/// The longest digest that any algorithm of the kernel has.
const DIGEST_MAX: usize = 64;
/// The first version that announces an algorithm.
const APV: u32 = 87;

/// The data whose digest is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    /// Of an application.
    Bio(&'a Bio),
    /// A buffer of the driver's.
    Pages(&'a PageBuf),
}

/// A digest and its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    bytes: [u8; DIGEST_MAX],
    len: usize,
}

impl Value {
    /// No digest.
    pub(crate) const NONE: Value = Value { bytes: [0; DIGEST_MAX], len: 0 };

    /// As it goes over the wire.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Receives a digest of `len` bytes.
    pub(crate) fn receive(
        socket: &TcpSocket,
        len: u32,
        on_stall: impl FnMut() -> Stall,
    ) -> Result<Value> {
        let len = usize::try_from(len).map_err(|_| EINVAL)?;
        let mut bytes = [0; DIGEST_MAX];
        socket.recv_exact(bytes.get_mut(..len).ok_or(EINVAL)?, on_stall)?;
        Ok(Value { bytes, len })
    }
}

/// What guards the data of one direction of a connection.
pub(crate) struct Guard(Option<Digest>);

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
        let name = core::str::from_utf8(p.integrity_alg.as_bytes()).map_err(|_| EINVAL)?;
        let digest = Digest::new(&CString::try_from_fmt(fmt!("{}", name))?)?;
        if digest.size() > DIGEST_MAX {
            return Err(EINVAL);
        }
        self.0 = Some(digest);
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

    /// The digest of some data; none where nothing was announced.
    pub(crate) fn digest(&mut self, content: Content<'_>) -> Result<Value> {
        let mut value = Value::NONE;
        if let Some(digest) = &mut self.0 {
            digest.start()?;
            match content {
                Content::Bio(bio) => digest.update_bio(bio)?,
                Content::Pages(pages) => digest.update_pages(pages)?,
            }
            digest.finish(&mut value.bytes)?;
            value.len = digest.size();
        }
        Ok(value)
    }
}
