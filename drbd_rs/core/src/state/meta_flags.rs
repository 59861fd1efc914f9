// SPDX-License-Identifier: GPL-2.0

//! The flags of the meta data that follow from the state. They are on disk: the bits are fixed.
//!
//! Reading and writing the superblock is not done here.

use super::types::State;
use super::{conn::State as Conn, disk::State as Disk};

/// The copy is consistent in itself.
pub const CONSISTENT: u32 = 1 << 0;
/// The data are in use: this node is Primary, or a peer without a disk is.
pub const PRIMARY_IND: u32 = 1 << 1;
/// There is a connection.
pub const CONNECTED_IND: u32 = 1 << 2;
/// All bits of the bitmap are to be set: its content on disk is not valid.
pub const FULL_SYNC: u32 = 1 << 3;
/// The copy was better than Outdated.
pub const WAS_UP_TO_DATE: u32 = 1 << 4;
/// The peer's copy is known to be old.
pub const PEER_OUT_DATED: u32 = 1 << 5;
/// The node crashed as Primary.
pub const CRASHED_PRIMARY: u32 = 1 << 6;
/// The activity log was applied by a tool: nothing to replay.
pub const AL_CLEAN: u32 = 1 << 7;
/// The activity log is not kept.
pub const AL_DISABLED: u32 = 1 << 8;

/// The flags that [`recompute`] decides about.
const FROM_STATE: u32 = CONSISTENT
    | PRIMARY_IND
    | CONNECTED_IND
    | WAS_UP_TO_DATE
    | PEER_OUT_DATED
    | CRASHED_PRIMARY
    | AL_CLEAN;

/// Whether blocks may differ from the peer's that only the activity log knows of: this node is
/// Primary, or the peer is and has no disk but this one.
pub fn log_counts(state: State) -> bool {
    state.role.is_primary() || (state.pdsk < Disk::Inconsistent && state.peer.is_primary())
}

/// The flags in `state`; those that do not follow from it stay as in `flags`.
///
/// `crashed_primary` is the flag in memory. `AL_CLEAN` goes with the first change of the state.
pub fn recompute(state: State, flags: u32, crashed_primary: bool) -> u32 {
    let peer_is_old = state.pdsk >= Disk::Inconsistent && state.pdsk <= Disk::Outdated;
    [
        (state.disk > Disk::Inconsistent, CONSISTENT),
        (log_counts(state), PRIMARY_IND),
        (state.conn > Conn::WFReportParams, CONNECTED_IND),
        (state.disk > Disk::Outdated, WAS_UP_TO_DATE),
        (peer_is_old, PEER_OUT_DATED),
        (crashed_primary, CRASHED_PRIMARY),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(flags & !FROM_STATE, |flags, (_, bit)| flags | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{role::Role, State};

    #[test]
    fn only_the_flags_of_the_state_change() {
        let kept = FULL_SYNC | AL_DISABLED;
        assert_eq!(recompute(State::INITIAL, u32::MAX, false) & 0x1ff, kept);
        assert_eq!(recompute(State::INITIAL, AL_CLEAN, true), CRASHED_PRIMARY);
    }

    #[test]
    fn each_flag_follows_its_rule() {
        let flags = |edit: fn(&mut State)| {
            let mut s = State::INITIAL;
            edit(&mut s);
            recompute(s, 0, false)
        };
        assert_eq!(flags(|s| s.disk = Disk::Inconsistent), 0);
        assert_eq!(flags(|s| s.disk = Disk::Outdated), CONSISTENT);
        assert_eq!(
            flags(|s| s.disk = Disk::Consistent),
            CONSISTENT | WAS_UP_TO_DATE
        );
        assert_eq!(flags(|s| s.role = Role::Primary), PRIMARY_IND);
        assert_eq!(flags(|s| s.peer = Role::Primary), 0);
        assert_eq!(
            flags(|s| {
                s.peer = Role::Primary;
                s.pdsk = Disk::Diskless;
            }),
            PRIMARY_IND
        );
        assert_eq!(flags(|s| s.conn = Conn::WFReportParams), 0);
        assert_eq!(flags(|s| s.conn = Conn::Connected), CONNECTED_IND);
        assert_eq!(flags(|s| s.pdsk = Disk::Negotiating), 0);
        assert_eq!(flags(|s| s.pdsk = Disk::Inconsistent), PEER_OUT_DATED);
        assert_eq!(flags(|s| s.pdsk = Disk::Outdated), PEER_OUT_DATED);
        assert_eq!(flags(|s| s.pdsk = Disk::DUnknown), 0);
    }
}
