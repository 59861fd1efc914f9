// SPDX-License-Identifier: GPL-2.0

//! What the receiver thread does with the bytes behind the fixed part of a packet.
//!
//! Decided before they are read, from the header alone and from what was asked for: a peer that
//! announces more than it may is caught here.

use super::request::{Answer, Net, Request};
use super::token;

use super::super::io::{AppOp, PayloadPlan, PeerIx};
use super::super::{Resource, Store, PEER};
use crate::limits::MAX_BIO_SIZE;
use crate::store::slab::Id;
use crate::wire::{BlockId, Command, Data, Header, Packet, Socket};

/// Bytes of the digests that the kernel's crypto API knows under these names.
const DIGESTS: [(&[u8], u32); 20] = [
    (b"crc32", 4),
    (b"crc32c", 4),
    (b"xxhash64", 8),
    (b"md4", 16),
    (b"md5", 16),
    (b"rmd160", 20),
    (b"sha1", 20),
    (b"sha224", 28),
    (b"sha256", 32),
    (b"sha384", 48),
    (b"sha512", 64),
    (b"sha3-224", 28),
    (b"sha3-256", 32),
    (b"sha3-384", 48),
    (b"sha3-512", 64),
    (b"sm3", 32),
    (b"blake2b-160", 20),
    (b"blake2b-256", 32),
    (b"blake2b-384", 48),
    (b"blake2b-512", 64),
];

/// Bytes of the digest in front of data, 0 without an algorithm; `None` for one that is not known
/// here.
pub(crate) fn digest_bytes(name: &[u8]) -> Option<u32> {
    if name.is_empty() {
        return Some(0);
    }
    DIGESTS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, bytes)| *bytes)
}

impl<S: Store> Resource<S> {
    /// What to do with the bytes behind the fixed part of a packet of the data socket.
    pub fn payload(&self, header: &Header, packet: &Packet) -> PayloadPlan {
        let features = self.connected(PEER).map_or(0, |a| a.features);
        let split = Command::from_number(header.command)
            .and_then(|c| c.check_length(Socket::Data, header.length, features).ok());
        let Some(bytes) = split.map(|s| s.payload) else {
            // What has no business on the data socket has no payload either.
            return PayloadPlan::None;
        };
        match packet {
            Packet::Data(_) | Packet::RsDataReply(_) => self.plan_buffer(PEER, bytes),
            Packet::DataReply(p) => self.plan_reply(header, p, bytes),
            Packet::Bitmap
            | Packet::CompressedBitmap
            | Packet::OvReply(_)
            | Packet::CsumRsRequest(_) => match bytes {
                0 => PayloadPlan::None,
                1..=4096 => PayloadPlan::Body { bytes },
                _ => PayloadPlan::Violation,
            },
            _ => PayloadPlan::None,
        }
    }

    fn incoming_digest(&self, peer: PeerIx) -> Option<u32> {
        digest_bytes(self.io_conn(peer)?.ctl.peer_integrity.as_bytes())
    }

    fn plan_buffer(&self, peer: PeerIx, bytes: u32) -> PayloadPlan {
        let Some(digest) = self.incoming_digest(peer) else {
            return PayloadPlan::Violation;
        };
        match bytes.checked_sub(digest) {
            Some(0) if digest == 0 => PayloadPlan::None,
            Some(bytes @ 512..=MAX_BIO_SIZE) if bytes & 511 == 0 => {
                PayloadPlan::Buffer { digest, bytes }
            }
            Some(_) | None => PayloadPlan::Violation,
        }
    }

    fn plan_reply(&self, header: &Header, p: &Data, bytes: u32) -> PayloadPlan {
        let read = self
            .io_volume_of(header.volume)
            .and_then(|vol| self.awaited_read(vol, p.block_id, p.sector.0));
        match (read, self.plan_buffer(PEER, bytes)) {
            (Some((_, r)), PayloadPlan::Buffer { digest, bytes })
                if bytes == r.io.range.bytes() =>
            {
                PayloadPlan::App {
                    app: r.io.app,
                    digest,
                    bytes,
                }
            }
            _ => PayloadPlan::Violation,
        }
    }

    /// The read that a reply belongs to.
    pub(super) fn awaited_read(
        &self,
        vol: super::super::VolIx,
        id: BlockId,
        sector: u64,
    ) -> Option<(Id, &Request)> {
        let id = token::of_block_id(id)?;
        let r = self.io.requests.get(id)?;
        let awaited = matches!(
            r.net,
            Net::Live {
                answer: Answer::Awaited,
                ..
            }
        );
        let fits = r.vol == vol && r.io.range.start.0 == sector && r.io.op == AppOp::Read;
        (awaited && fits && !r.completed).then_some((id, r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        assert_eq!(digest_bytes(b""), Some(0));
        assert_eq!(digest_bytes(b"sha256"), Some(32));
        assert_eq!(digest_bytes(b"rot13"), None);
    }
}
