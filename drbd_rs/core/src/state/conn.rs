// SPDX-License-Identifier: GPL-2.0

//! The state of a connection, merged in DRBD 8.4 with that of the replication of a volume.

use super::numbered::numbered_enum;

numbered_enum! {
    /// What the connection and, from `Connected` on, the replication of one volume is doing;
    /// ordered by DRBD's numbers (five bits of the state word). Below `WFReportParams` there is
    /// no socket; above `Connected` something is going on.
    #[derive(PartialOrd, Ord)]
    pub enum State: u8 {
        /// No network configuration, or given up.
        StandAlone = 0, "StandAlone";
        /// Being torn down by the administrator; the next state is `StandAlone`.
        Disconnecting = 1, "Disconnecting";
        /// About to try to connect.
        Unconnected = 2, "Unconnected";
        /// The peer did not answer in time; the next state is `Unconnected`.
        Timeout = 3, "Timeout";
        /// The peer closed the connection; the next state is `Unconnected`.
        BrokenPipe = 4, "BrokenPipe";
        /// The network failed; the next state is `Unconnected`.
        NetworkFailure = 5, "NetworkFailure";
        /// The peer sent what it must not; the next state is `Unconnected`.
        ProtocolError = 6, "ProtocolError";
        /// The peer disconnects on purpose; the next state is `Unconnected`.
        TearDown = 7, "TearDown";
        /// Waiting for the peer to appear.
        WFConnection = 8, "WFConnection";
        /// A socket is there; the first packets are on their way.
        WFReportParams = 9, "WFReportParams";
        /// Replicating, nothing else going on.
        Connected = 10, "Connected";
        /// A full resync, this node the source, was asked for.
        StartingSyncS = 11, "StartingSyncS";
        /// A full resync, this node the target, was asked for.
        StartingSyncT = 12, "StartingSyncT";
        /// The bitmaps are being exchanged, this node the source.
        WFBitMapS = 13, "WFBitMapS";
        /// The bitmaps are being exchanged, this node the target.
        WFBitMapT = 14, "WFBitMapT";
        /// Waiting for the UUID that the source gives to the resync.
        WFSyncUUID = 15, "WFSyncUUID";
        /// Resync running, this node the source.
        SyncSource = 16, "SyncSource";
        /// Resync running, this node the target.
        SyncTarget = 17, "SyncTarget";
        /// Online verify running, started here.
        VerifyS = 18, "VerifyS";
        /// Online verify running, started by the peer.
        VerifyT = 19, "VerifyT";
        /// Resync paused, this node the source.
        PausedSyncS = 20, "PausedSyncS";
        /// Resync paused, this node the target.
        PausedSyncT = 21, "PausedSyncT";
        /// Congested: writes are only recorded, the peer gets them by a resync later.
        Ahead = 22, "Ahead";
        /// The peer is `Ahead`.
        Behind = 23, "Behind";
    }
}

/// The name this state has in `drbdsetup` and in the netlink messages.
pub type Cstate = State;

impl State {
    /// Whether a resync or a verify counts as going on (numbers 16 to 21).
    pub fn is_sync(self) -> bool {
        self >= State::SyncSource && self <= State::PausedSyncT
    }

    /// Whether an online verify runs, started by either side.
    pub const fn is_verify(self) -> bool {
        matches!(self, State::VerifyS | State::VerifyT)
    }

    /// Whether this is one of the two states that ask for a full resync.
    pub const fn is_starting_sync(self) -> bool {
        matches!(self, State::StartingSyncS | State::StartingSyncT)
    }

    /// Whether the connection broke down and the receiver has to start over (numbers 3 to 7).
    pub fn is_broken(self) -> bool {
        self >= State::Timeout && self <= State::TearDown
    }
}
