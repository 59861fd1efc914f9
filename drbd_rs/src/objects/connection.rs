// SPDX-License-Identifier: GPL-2.0

//! The two sockets of an established connection and what was agreed on them.

use drbd_core::nl::conf::NetConf;
use drbd_core::node::Sock;
use drbd_kapi::net::addr::SockAddr;
use drbd_kapi::net::socket::TcpSocket;

/// An established connection. Shared by receiver, asender and both senders; shutting a socket down
/// wakes whoever sleeps in it.
pub(crate) struct Sockets {
    /// Bulk data.
    pub(crate) data: TcpSocket,
    /// Acknowledgements.
    pub(crate) meta: TcpSocket,
    /// Agreed protocol version, 86 to 101.
    pub(crate) apv: u32,
    /// Agreed feature flags.
    pub(crate) features: u32,
    /// Whether batches are corked (net option tcp-cork).
    pub(crate) cork: bool,
}

impl Sockets {
    /// One of the two.
    pub(crate) fn get(&self, sock: Sock) -> &TcpSocket {
        match sock {
            Sock::Data => &self.data,
            Sock::Meta => &self.meta,
        }
    }

    /// Ends the connection for everyone who uses it.
    pub(crate) fn shutdown(&self) {
        self.data.shutdown();
        self.meta.shutdown();
    }
}

/// How a connection is to be made: from the CONNECT request, renewed by `net-options`.
pub(crate) struct Setup {
    /// The options.
    pub(crate) conf: NetConf,
    /// This node's address; others connect here.
    pub(crate) my: SockAddr,
    /// The peer's address.
    pub(crate) peer: SockAddr,
}
