// SPDX-License-Identifier: GPL-2.0

//! Addresses of TCP sockets.

use kernel::{bindings, error::code::EINVAL, fmt, prelude::fmt, prelude::Result};

const AF_INET: u16 = bindings::AF_INET as u16;
const AF_INET6: u16 = bindings::AF_INET6 as u16;
/// `sizeof(struct sockaddr_in)`
const LEN_INET: u8 = 16;
/// `sizeof(struct sockaddr_in6)`
const LEN_INET6: u8 = 28;

/// An IPv4 or IPv6 address with a port: a `struct sockaddr_in` or `struct sockaddr_in6`.
///
/// # Invariants
///
/// `len` is the length that belongs to the family in the first two bytes; the bytes beyond are
/// zero.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct SockAddr {
    bytes: [u8; 28],
    len: u8,
}

impl SockAddr {
    /// From the bytes of the C structure; what follows it is left aside.
    ///
    /// Errors: EINVAL if there are too few for the family, or the family is not an internet one.
    pub fn from_bytes(raw: &[u8]) -> Result<Self> {
        let family = raw.first_chunk::<2>().ok_or(EINVAL)?;
        let len = match u16::from_ne_bytes(*family) {
            AF_INET => LEN_INET,
            AF_INET6 => LEN_INET6,
            _ => return Err(EINVAL),
        };
        let raw = raw.get(..usize::from(len)).ok_or(EINVAL)?;
        let mut bytes = [0; 28];
        for (to, from) in bytes.iter_mut().zip(raw) {
            *to = *from;
        }
        // INVARIANT: The length was chosen by the family.
        Ok(Self { bytes, len })
    }

    /// The C structure.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    pub(crate) fn len(&self) -> i32 {
        i32::from(self.len)
    }

    /// AF_INET (2) or AF_INET6 (10).
    pub fn family(&self) -> u16 {
        let [a, b, ..] = self.bytes;
        u16::from_ne_bytes([a, b])
    }

    /// The port, in host order.
    pub fn port(&self) -> u16 {
        let [_, _, a, b, ..] = self.bytes;
        u16::from_be_bytes([a, b])
    }

    /// The same host with another port, in host order.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        let [_, _, a, b, ..] = &mut self.bytes;
        [*a, *b] = port.to_be_bytes();
        self
    }

    /// The bytes of the IP address: 4 or 16.
    pub fn ip(&self) -> &[u8] {
        let range = if self.len == LEN_INET { 4..8 } else { 8..24 };
        self.bytes.get(range).unwrap_or(&[])
    }

    /// True if both are the same IP address, whatever the port.
    pub fn same_host(&self, other: &Self) -> bool {
        self.family() == other.family() && self.ip() == other.ip()
    }
}

impl fmt::Display for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [a, b, c, d] = self.ip() {
            return f.write_fmt(fmt!("{a}.{b}.{c}.{d}:{}", self.port()));
        }
        f.write_str("[")?;
        let mut colon = "";
        for pair in self.ip().chunks_exact(2) {
            if let [a, b] = pair {
                f.write_fmt(fmt!("{colon}{:x}", u16::from_be_bytes([*a, *b])))?;
            }
            colon = ":";
        }
        f.write_fmt(fmt!("]:{}", self.port()))
    }
}
