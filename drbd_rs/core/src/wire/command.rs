// SPDX-License-Identifier: GPL-2.0

//! The table of all packets: number, name, socket, and how long they may be.
//!
//! The lengths are those that the C driver's receiver enforces, with an upper bound where it has
//! none: nothing a peer says makes a receiver wait for more than a request can carry.

use super::{feature, Malformed};

/// Where a packet may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Socket {
    /// On the data socket of an established connection.
    Data,
    /// On the meta socket.
    Meta,
    /// On either.
    Both,
    /// On the data socket, during the handshake.
    Handshake,
    /// As the first packet of a fresh socket.
    First,
    /// The number is taken, but no 8.4 node accepts the packet.
    Nowhere,
}

/// How the bytes behind a header are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    /// Bytes of the packet itself: what [`super::Packet::decode`] wants. At most 148.
    pub body: u32,
    /// Bytes of digest, data or bitmap behind it.
    pub payload: u32,
}

/// How long the packet of a kind may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    socket: Socket,
    fixed: u32,
    more: u32,
}

macro_rules! commands {
    ($( $(#[$meta:meta])* $name:ident = $nr:literal $text:literal $socket:ident
        $fixed:literal + $more:literal; )+) => {
        /// What a packet is. The numbers are fixed by the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Command {
            $( $(#[$meta])* $name, )+
        }

        impl Command {
            /// Every command, in the order of its number.
            pub const ALL: &'static [Command] = &[ $( Command::$name, )+ ];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $( Command::$name => $nr, )+
                }
            }

            /// The command with this number.
            pub const fn from_number(nr: u16) -> Option<Command> {
                match nr {
                    $( $nr => Some(Command::$name), )+
                    _ => None,
                }
            }

            /// The name that the C driver logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Command::$name => $text, )+
                }
            }

            const fn shape(self) -> Shape {
                match self {
                    $( Command::$name => Shape {
                        socket: Socket::$socket,
                        fixed: $fixed,
                        more: $more,
                    }, )+
                }
            }
        }
    };
}

commands! {
    /// A write of the primary.
    Data = 0x00 "Data" Data 24 + 1048640;
    /// The answer to [`Command::DataRequest`].
    DataReply = 0x01 "DataReply" Data 24 + 1048640;
    /// A block of a resync.
    RsDataReply = 0x02 "RSDataReply" Data 24 + 1048640;
    /// Closes an epoch.
    Barrier = 0x03 "Barrier" Data 8 + 0;
    /// Words of the bitmap.
    Bitmap = 0x04 "ReportBitMap" Data 0 + 4088;
    /// Obsolete.
    BecomeSyncTarget = 0x05 "BecomeSyncTarget" Nowhere 0 + 0;
    /// Obsolete.
    BecomeSyncSource = 0x06 "BecomeSyncSource" Nowhere 0 + 0;
    /// Hint that nothing follows for now.
    UnplugRemote = 0x07 "UnplugRemote" Data 0 + 0;
    /// A read of a node without a disk.
    DataRequest = 0x08 "DataRequest" Data 24 + 0;
    /// A read of the target of a resync.
    RsDataRequest = 0x09 "RSDataRequest" Data 24 + 0;
    /// Resync settings, up to version 88.
    SyncParam = 0x0a "SyncParam" Data 0 + 148;
    /// Settings of the connection.
    Protocol = 0x0b "ReportProtocol" Data 24 + 64;
    /// Data generations.
    Uuids = 0x0c "ReportUUIDs" Data 48 + 0;
    /// Sizes; 24 bytes more with [`feature::WSAME`].
    Sizes = 0x0d "ReportSizes" Data 32 + 0;
    /// The sender's state.
    State = 0x0e "ReportState" Data 4 + 0;
    /// The bitmap UUID of a new resync.
    SyncUuid = 0x0f "ReportSyncUUID" Data 8 + 0;
    /// Asks for a proof of the secret.
    AuthChallenge = 0x10 "AuthChallenge" Handshake 64 + 64;
    /// The proof.
    AuthResponse = 0x11 "AuthResponse" Handshake 1 + 63;
    /// Asks for a change of state of a volume.
    StateChgReq = 0x12 "StateChgRequest" Data 8 + 0;
    /// Are you alive?
    Ping = 0x13 "Ping" Meta 0 + 0;
    /// Yes.
    PingAck = 0x14 "PingAck" Meta 0 + 0;
    /// Received; protocol B.
    RecvAck = 0x15 "RecvAck" Meta 24 + 0;
    /// Written; protocol C.
    WriteAck = 0x16 "WriteAck" Meta 24 + 0;
    /// Written, and the block is in sync.
    RsWriteAck = 0x17 "RSWriteAck" Meta 24 + 0;
    /// Dropped in favour of a conflicting write.
    Superseded = 0x18 "Superseded" Meta 24 + 0;
    /// Not written.
    NegAck = 0x19 "NegAck" Meta 24 + 0;
    /// Not read.
    NegDreply = 0x1a "NegDReply" Meta 24 + 0;
    /// Not read, for resync or verify.
    NegRsDreply = 0x1b "NegRSDReply" Meta 24 + 0;
    /// The epoch is durable.
    BarrierAck = 0x1c "BarrierAck" Meta 8 + 0;
    /// The answer to [`Command::StateChgReq`].
    StateChgReply = 0x1d "StateChgReply" Meta 4 + 0;
    /// Asks for the digest of a block.
    OvRequest = 0x1e "OVRequest" Data 24 + 0;
    /// The digest.
    OvReply = 0x1f "OVReply" Data 24 + 64;
    /// Whether the digests are the same.
    OvResult = 0x20 "OVResult" Meta 24 + 0;
    /// A resync request with the digest of the own block.
    CsumRsRequest = 0x21 "CsumRSRequest" Data 24 + 64;
    /// The block was already the same.
    RsIsInSync = 0x22 "CsumRSIsInSync" Meta 24 + 0;
    /// Resync settings, from version 89.
    SyncParam89 = 0x23 "SyncParam89" Data 0 + 148;
    /// Runs of the bitmap.
    CompressedBitmap = 0x24 "CBitmap" Data 0 + 4088;
    /// Skipped.
    DelayProbe = 0x27 "DelayProbe" Both 8 + 0;
    /// Marks a range as out of sync.
    OutOfSync = 0x28 "OutOfSync" Data 16 + 0;
    /// The resync source is ahead and does not answer.
    RsCancel = 0x29 "RSCancel" Meta 24 + 0;
    /// Asks for a change of state of the connection.
    ConnStChgReq = 0x2a "conn_st_chg_req" Data 8 + 0;
    /// The answer to [`Command::ConnStChgReq`].
    ConnStChgReply = 0x2b "conn_st_chg_reply" Meta 4 + 0;
    /// Conflict: submit the write again.
    RetryWrite = 0x2c "retry_write" Meta 24 + 0;
    /// New settings of a live connection.
    ProtocolUpdate = 0x2d "protocol_update" Data 24 + 64;
    /// A discard.
    Trim = 0x31 "Trim" Data 28 + 0;
    /// A resync request that may be answered with "zeroes".
    RsThinReq = 0x32 "rs_thin_req" Data 24 + 0;
    /// The blocks hold only zeroes.
    RsDeallocated = 0x33 "rs_deallocated" Data 16 + 0;
    /// Not understood by the in-tree driver.
    Wsame = 0x34 "WriteSame" Nowhere 28 + 0;
    /// A zero-out.
    Zeroes = 0x36 "Zeroes" Data 28 + 0;
    /// First packet on the meta socket.
    InitialMeta = 0xfff1 "InitialMeta" First 0 + 0;
    /// First packet on the data socket.
    InitialData = 0xfff2 "InitialData" First 0 + 0;
    /// Versions and features.
    ConnectionFeatures = 0xfffe "ConnectionFeatures" Handshake 72 + 0;
}

impl Command {
    /// Where the packet may arrive.
    pub const fn socket(self) -> Socket {
        self.shape().socket
    }

    /// Whether the bytes behind the fixed part travel beside the packet: digest, data, bitmap.
    const fn has_payload(self) -> bool {
        match self {
            Command::Data
            | Command::DataReply
            | Command::RsDataReply
            | Command::OvReply
            | Command::CsumRsRequest
            | Command::Bitmap
            | Command::CompressedBitmap => true,
            Command::SyncParam
            | Command::SyncParam89
            | Command::Protocol
            | Command::ProtocolUpdate
            | Command::AuthChallenge
            | Command::AuthResponse => false,
            // These carry nothing behind the fixed part.
            Command::Barrier
            | Command::BecomeSyncTarget
            | Command::BecomeSyncSource
            | Command::UnplugRemote
            | Command::DataRequest
            | Command::RsDataRequest
            | Command::Uuids
            | Command::Sizes
            | Command::State
            | Command::SyncUuid
            | Command::StateChgReq
            | Command::Ping
            | Command::PingAck
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
            | Command::OvResult
            | Command::RsIsInSync
            | Command::DelayProbe
            | Command::OutOfSync
            | Command::RsCancel
            | Command::ConnStChgReq
            | Command::ConnStChgReply
            | Command::RetryWrite
            | Command::Trim
            | Command::RsThinReq
            | Command::RsDeallocated
            | Command::Wsame
            | Command::Zeroes
            | Command::InitialMeta
            | Command::InitialData
            | Command::ConnectionFeatures => false,
        }
    }

    /// Checks the length in a header that arrived on `on`, and divides it. `on` is `Data`, `Meta`,
    /// `Handshake` or `First`; `features` are those agreed on.
    ///
    /// # Errors
    /// [`Malformed::Command`] if the packet has no business there, [`Malformed::Length`] if it is
    /// too short or too long.
    pub fn check_length(self, on: Socket, length: u32, features: u32) -> Result<Split, Malformed> {
        let shape = self.shape();
        let both = shape.socket == Socket::Both && matches!(on, Socket::Data | Socket::Meta);
        if !both && (shape.socket != on || on == Socket::Nowhere) {
            return Err(Malformed::Command(self.number()));
        }
        let limits = if self == Command::Sizes && features & feature::WSAME != 0 {
            24
        } else {
            0
        };
        let fixed = shape.fixed.saturating_add(limits);
        let more = length.checked_sub(fixed).ok_or(Malformed::Length)?;
        if more > shape.more {
            return Err(Malformed::Length);
        }
        Ok(if self.has_payload() {
            Split {
                body: fixed,
                payload: more,
            }
        } else {
            Split {
                body: length,
                payload: 0,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_come_back() {
        for (i, &c) in Command::ALL.iter().enumerate() {
            assert_eq!(Command::from_number(c.number()), Some(c));
            assert!(Command::ALL[..i].iter().all(|o| o.number() < c.number()));
        }
        assert_eq!(Command::from_number(0x25), None);
        assert_eq!(Command::from_number(0x35), None);
        assert_eq!(Command::from_number(0x100), None);
    }

    #[test]
    fn lengths() {
        let ok = |body, payload| Ok(Split { body, payload });
        let data = Command::Data;
        assert_eq!(data.check_length(Socket::Data, 24 + 4096, 0), ok(24, 4096));
        assert_eq!(
            data.check_length(Socket::Data, 23, 0),
            Err(Malformed::Length)
        );
        assert_eq!(
            data.check_length(Socket::Data, u32::MAX, 0),
            Err(Malformed::Length)
        );
        assert_eq!(
            data.check_length(Socket::Meta, 24, 0),
            Err(Malformed::Command(0))
        );
        let sizes = Command::Sizes;
        assert_eq!(sizes.check_length(Socket::Data, 32, 0), ok(32, 0));
        assert_eq!(
            sizes.check_length(Socket::Data, 32, feature::WSAME),
            Err(Malformed::Length)
        );
        assert_eq!(
            sizes.check_length(Socket::Data, 56, feature::WSAME),
            ok(56, 0)
        );
        assert_eq!(Command::Ping.check_length(Socket::Meta, 0, 0), ok(0, 0));
        assert_eq!(
            Command::Ping.check_length(Socket::Meta, 1, 0),
            Err(Malformed::Length)
        );
        assert_eq!(
            Command::DelayProbe.check_length(Socket::Meta, 8, 0),
            ok(8, 0)
        );
        assert_eq!(
            Command::DelayProbe.check_length(Socket::Data, 8, 0),
            ok(8, 0)
        );
        assert_eq!(
            Command::Wsame.check_length(Socket::Data, 28, 15),
            Err(Malformed::Command(0x34))
        );
        assert_eq!(
            Command::Wsame.check_length(Socket::Nowhere, 28, 15),
            Err(Malformed::Command(0x34))
        );
    }
}
