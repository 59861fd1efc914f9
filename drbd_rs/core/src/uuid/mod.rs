// SPDX-License-Identifier: GPL-2.0

//! Data generation UUIDs: how they move, and what two nodes conclude from them.
//!
//! Four UUIDs name the data of a volume: the *current* generation, the one the *bitmap* counts
//! from (0: the peer has all there is), and two older ones, the *history*. Bit 0 is no part of the
//! name: in the current and bitmap UUID it tells that the node was Primary.
//!
//! [`decide`] compares two sets and says what follows; [`handshake`] adds disk states, policies
//! and the administrator's word. Neither stores anything: corrections come back as new sets.

mod decide;
mod explain;
mod handshake;
mod rotate;
mod split_brain;

pub use decide::{decide, DecideContext, Decision, Node, Rule, Verdict};
pub use explain::{explain, first_line, Explanation};
pub use handshake::{
    handshake, DryRun, Handshake, HandshakeContext, Helper, HelperSet, Local, Notes, Outcome,
    RefusedBecause, Remote, RrConflict, Sync,
};
pub use split_brain::{AfterSb, Policies};

/// The current UUID of meta data fresh from `drbdmeta create-md`: there are no data yet.
pub const JUST_CREATED: u64 = 4;

/// What a new resync adds to the bitmap UUID, so that a lost `P_SYNC_UUID` can be recognized.
pub const NEW_BITMAP_OFFSET: u64 = 1 << 48;

/// Bits of the flags word that follows the UUIDs in `P_UUIDS`.
pub mod flags {
    /// The peer's administrator gave its data up (`--discard-my-data`).
    pub const DISCARD_MY_DATA: u64 = 1;
    /// The peer crashed as Primary.
    pub const CRASHED_PRIMARY: u64 = 2;
    /// The peer is attaching a disk that is Inconsistent.
    pub const INCONSISTENT: u64 = 4;
    /// Both copies are declared equal: no first resync.
    pub const SKIP_INITIAL_SYNC: u64 = 8;
}

/// The UUIDs of one node's copy, as in the meta data and in `P_UUIDS`, bit 0 included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UuidSet {
    /// The generation of the data.
    pub current: u64,
    /// The generation that the bitmap counts from; 0 if the peer misses nothing.
    pub bitmap: u64,
    /// Older generations, the younger one first.
    pub history: [u64; 2],
}

impl UuidSet {
    /// Whether these are the data that went by that name, or have come from them: as far as the
    /// set tells, which forgets, but makes nothing up.
    pub(crate) fn has_been(&self, uuid: u64) -> bool {
        let [younger, older] = self.history;
        let names = [JUST_CREATED, self.current, self.bitmap, younger, older];
        uuid != 0 && names.iter().any(|n| name(*n) == name(uuid))
    }
}

/// A UUID without the mark of the role.
pub(crate) const fn name(uuid: u64) -> u64 {
    uuid & !1
}
