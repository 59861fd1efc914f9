// SPDX-License-Identifier: GPL-2.0

//! The answers to a request for a state change.
//!
//! Numbers of the `SS_` codes: they travel in `P_STATE_CHG_REPLY` and in netlink replies. Positive
//! means success, zero "not yet decided", negative a refusal.

use super::numbered::numbered_enum;

numbered_enum! {
    /// The outcome of a request for a state change, with the text of the kernel log.
    pub enum Ss: i32 {
        /// While waiting for the peer the change stopped to concern it.
        CwNoNeed = 4, "";
        /// The peer agreed.
        CwSuccess = 3, "";
        /// The state is as wished already.
        NothingToDo = 2, "";
        /// Done, or allowed.
        Success = 1, "";
        /// No answer yet: keep waiting.
        UnknownError = 0, "";
        /// Both nodes would be Primary.
        TwoPrimaries = -1, "Multiple primaries not allowed by config";
        /// Nobody would have good data.
        NoUpToDateDisk = -2, "Need access to UpToDate data";
        /// A resync or verify without an own disk.
        NoLocalDisk = -4, "Can not resync without local disk";
        /// A resync or verify without a disk of the peer.
        NoRemoteDisk = -5, "Can not resync without remote disk";
        /// Outdating a copy that is being replicated.
        ConnectedOutdates = -6, "Refusing to be Outdated while Connected";
        /// The peer must be fenced first.
        PrimaryNop = -7, "Refusing to be Primary while peer is not outdated";
        /// One resync or verify at a time.
        ResyncRunning = -8, "Can not start OV/resync since it is already active";
        /// There is nothing to disconnect.
        AlreadyStandalone = -9, "Can not disconnect a StandAlone device";
        /// The peer said no, or could not be asked.
        CwFailedByPeer = -10, "State change was refused by peer node";
        /// Needs a disk.
        IsDiskless = -11, "Device is diskless, the requested operation requires a disk";
        /// Still open.
        DeviceInUse = -12, "Device is held open by someone";
        /// Not configured to connect.
        NoNetConfig = -13, "Have no net/connection configuration";
        /// Verify without `verify-alg`.
        NoVerifyAlg = -14, "Need a verify algorithm to start online verify";
        /// Needs a connected peer.
        NeedConnection = -15, "Need a connection to start verify or resync";
        /// A copy worse than outdated can not be outdated.
        LowerThanOutdated = -16, "Disk state is lower than outdated";
        /// The agreed protocol version is too old.
        NotSupported = -17, "Peer does not support protocol";
        /// To be tried again by itself after the next change.
        InTransientState = -18, "In transient state, retry after next state change";
        /// Both nodes asked for a change at the same time.
        ConcurrentStChg = -19, "Concurrent state changes detected and aborted";
        /// The peer is Primary on another volume of the resource.
        OVolPeerPri = -20, "Other vol primary on peer not allowed by config";
        /// Outdating the peer needs a connection to it.
        OutdateWoConn = -21, "Need a connection for a graceful disconnect/outdate peer";
    }
}

impl Ss {
    /// Whether the change was made, or nothing had to be.
    pub const fn is_success(self) -> bool {
        self.number() >= 1
    }

    /// Whether the change was refused.
    pub const fn is_refusal(self) -> bool {
        self.number() < 0
    }

    /// The text of the kernel log; empty for a success.
    pub const fn text(self) -> &'static str {
        self.name()
    }

    /// What a peer's answer (the number it sent) means for the one who asked.
    pub const fn of_peer_reply(number: i32) -> Ss {
        if number >= 1 {
            Ss::CwSuccess
        } else {
            Ss::CwFailedByPeer
        }
    }
}
