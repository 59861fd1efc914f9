// SPDX-License-Identifier: GPL-2.0

//! The state of one node's copy of the data.

use super::numbered::numbered_enum;

numbered_enum! {
    /// How good a copy is; ordered by DRBD's numbers (four bits of the state word), from none to
    /// best. The rules compare by that order, `DUnknown` in the middle included.
    #[derive(PartialOrd, Ord)]
    pub enum State: u8 {
        /// No backing device.
        Diskless = 0, "Diskless";
        /// The meta data are being read.
        Attaching = 1, "Attaching";
        /// The backing device failed or is being detached; the next state is `Diskless`.
        Failed = 2, "Failed";
        /// Attached while connected: the handshake with the peer decides about the copy.
        Negotiating = 3, "Negotiating";
        /// Parts of the copy are old, others are new: not usable on its own.
        Inconsistent = 4, "Inconsistent";
        /// Consistent in itself, but known to be old.
        Outdated = 5, "Outdated";
        /// The peer's copy while there is no connection. Never the own copy.
        DUnknown = 6, "DUnknown";
        /// Consistent in itself; whether it is the newest shows with the next connection.
        Consistent = 7, "Consistent";
        /// Consistent and the newest.
        UpToDate = 8, "UpToDate";
    }
}
