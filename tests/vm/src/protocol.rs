// SPDX-License-Identifier: GPL-2.0
//! Frames between the host and the agent of a node, over one virtio-serial port.
//!
//! A frame is `length u32 LE | id u32 LE | kind u8 | payload`. The host picks an id per request;
//! the agent answers with frames of the same id and ends with [`Kind::Exit`]. Many requests may
//! run at a time. Both sides are ours, so a malformed frame is an error, not something to survive.

use std::io::{self, Read, Write};

/// The longest payload that is accepted: a module with symbols fits, a broken length does not.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// What a frame means. The numbers are shared by host and agent of the same build only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Agent: the node is up. Payload: empty.
    Hello,
    /// Host: run a shell command. Payload: the command.
    Run,
    /// Agent: bytes the command wrote to its output.
    Stdout,
    /// Agent: bytes the command wrote to its error output.
    Stderr,
    /// Agent: the request ended. Payload: exit code, i32 LE (128 + n for signal n).
    Exit,
    /// Host: kill the process group of the request with this id.
    Kill,
    /// Host: write a file. Payload: mode u32 LE, path length u32 LE, path, content.
    Put,
    /// Host: read a file. Payload: path. Its bytes come as [`Kind::Stdout`].
    Get,
    /// Host: write with acknowledgements, see [`crate::acked`]. Payload: [`crate::acked::Job`].
    Write,
    /// Host: read back what [`Kind::Write`] wrote. Payload: [`crate::acked::Job`].
    ReadBack,
    /// Host: end at once, as a clean restart of the machine.
    Reboot,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::Run,
        Kind::Stdout,
        Kind::Stderr,
        Kind::Exit,
        Kind::Kill,
        Kind::Put,
        Kind::Get,
        Kind::Write,
        Kind::ReadBack,
        Kind::Reboot,
    ];

    fn number(self) -> u8 {
        Self::ALL
            .iter()
            .position(|k| *k == self)
            .and_then(|p| u8::try_from(p).ok())
            .unwrap_or(255)
    }

    fn from_number(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The request it belongs to; 0 for [`Kind::Hello`].
    pub id: u32,
    /// What it means.
    pub kind: Kind,
    /// Its content.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of these parts.
    pub fn new(id: u32, kind: Kind, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            id,
            kind,
            payload: payload.into(),
        }
    }

    /// Writes the frame in one call, so that frames of several threads do not mix.
    ///
    /// # Errors
    /// Those of the writer, and a payload over [`MAX_PAYLOAD`].
    pub fn write_to(&self, w: &mut impl Write) -> io::Result<()> {
        let len = u32::try_from(self.payload.len())
            .ok()
            .filter(|_| self.payload.len() <= MAX_PAYLOAD)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame too long"))?;
        let mut bytes = Vec::with_capacity(self.payload.len() + 9);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.push(self.kind.number());
        bytes.extend_from_slice(&self.payload);
        w.write_all(&bytes)?;
        w.flush()
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// Those of the reader, an unknown kind, a length over [`MAX_PAYLOAD`].
    pub fn read_from(r: &mut impl Read) -> io::Result<Self> {
        let mut head = [0_u8; 9];
        r.read_exact(&mut head)?;
        let [l0, l1, l2, l3, i0, i1, i2, i3, kind] = head;
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let len = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3]))
            .map_err(|_| bad("frame length"))?;
        if len > MAX_PAYLOAD {
            return Err(bad("frame length"));
        }
        let kind = Kind::from_number(kind).ok_or_else(|| bad("frame kind"))?;
        let mut payload = vec![0; len];
        r.read_exact(&mut payload)?;
        Ok(Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            kind,
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire_and_rubbish_is_refused() {
        for kind in Kind::ALL {
            let f = Frame::new(7, kind, *b"abc");
            let mut bytes = Vec::new();
            f.write_to(&mut bytes).unwrap();
            assert_eq!(Frame::read_from(&mut bytes.as_slice()).unwrap(), f);
            bytes[8] = 200;
            assert!(Frame::read_from(&mut bytes.as_slice()).is_err());
            bytes[3] = 255;
            assert!(Frame::read_from(&mut bytes.as_slice()).is_err());
        }
    }
}
