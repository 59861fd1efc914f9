// SPDX-License-Identifier: GPL-2.0

//! How UUIDs move when something happens to the data.
//!
//! Each operation changes the set in memory. The meta data have to be written: for
//! [`new_current`](UuidSet::new_current) and [`begin_sync_source`](UuidSet::begin_sync_source)
//! before anything is told to the peer, for the others soon. Whenever `current` changes, the UUID
//! of the data in use (`ed_uuid`) becomes the same value.

use super::{flags, name, UuidSet, JUST_CREATED, NEW_BITMAP_OFFSET};

/// `uuid` with the mark of the role in bit 0.
const fn marked(uuid: u64, primary: bool) -> u64 {
    if primary {
        uuid | 1
    } else {
        uuid & !1
    }
}

impl UuidSet {
    /// Pushes `uuid` on the history; the oldest one is forgotten.
    fn push_history(&mut self, uuid: u64) {
        let [younger, _] = self.history;
        self.history = [uuid, younger];
    }

    /// Sets the current UUID, marked with the role. The old one is lost.
    pub fn set_current(&mut self, uuid: u64, primary: bool) {
        self.current = marked(uuid, primary);
    }

    /// Marks the current UUID with the role, on a change of role. `ed_uuid` stays.
    pub fn mark_role(&mut self, primary: bool) {
        self.current = marked(self.current, primary);
    }

    /// Begins a new generation: from now on the peer misses writes.
    ///
    /// Returns the bitmap UUID that was overwritten, which should have been 0: worth a warning.
    pub fn new_current(&mut self, random: u64, primary: bool) -> Option<u64> {
        let overwritten = self.bitmap;
        self.bitmap = self.current;
        self.set_current(random, primary);
        (overwritten != 0).then_some(overwritten)
    }

    /// Sets the bitmap UUID without the mark of the role; 0 moves the old one to the history.
    ///
    /// Returns a bitmap UUID that was overwritten by another one: worth a warning.
    pub fn set_bitmap(&mut self, uuid: u64) -> Option<u64> {
        if uuid == 0 {
            self.clear_bitmap();
            return None;
        }
        let overwritten = self.bitmap;
        self.bitmap = marked(uuid, false);
        (overwritten != 0).then_some(overwritten)
    }

    /// The peer has all there is: the bitmap UUID, if any, moves to the history.
    pub fn clear_bitmap(&mut self) {
        self.replace_bitmap(0);
    }

    /// Sets the bitmap UUID as given; an old one moves to the history.
    fn replace_bitmap(&mut self, uuid: u64) {
        if self.bitmap != 0 {
            self.push_history(self.bitmap);
        }
        self.bitmap = uuid;
    }

    /// This node becomes the source of a resync. Returns what `P_SYNC_UUID` carries.
    ///
    /// `target` is the current UUID of the peer's copy. Until the peer has stored the new one it
    /// may come back with that, so it stays in the history if it is there: the other one goes. The
    /// C driver forgets the oldest whatever it is, and then calls the copies unrelated.
    pub fn begin_sync_source(&mut self, random: u64, target: u64) -> u64 {
        let uuid = match self.bitmap {
            0 | JUST_CREATED => random,
            old => old.wrapping_add(NEW_BITMAP_OFFSET),
        };
        let [_, oldest] = self.history;
        self.replace_bitmap(uuid);
        let known = |uuid: &u64| name(*uuid) == name(target);
        if target != 0 && known(&oldest) && !self.history.iter().any(known) {
            let [younger, _] = self.history;
            self.history = [younger, oldest];
        }
        uuid
    }

    /// `P_SYNC_UUID` arrived at the target: its data are on the way from the named generation.
    pub fn sync_uuid_received(&mut self, uuid: u64, primary: bool) {
        self.set_current(uuid, primary);
        self.bitmap = 0;
    }

    /// A resync ended without a failed block, this node was the source.
    /// The peer's set is the same as this one afterwards.
    pub fn resync_finished_source(&mut self) {
        self.clear_bitmap();
    }

    /// A resync ended without a failed block, this node was the target: takes the peer's set over.
    ///
    /// `peer` is the last set the peer sent; without one only the bitmap UUID is cleared (and that
    /// is worth an error). The peer's set is the same as this one afterwards.
    pub fn resync_finished_target(&mut self, peer: Option<&UuidSet>, primary: bool) {
        if let Some(peer) = peer {
            self.bitmap = peer.bitmap;
            self.history = peer.history;
            self.replace_bitmap(self.current);
            self.set_current(peer.current, primary);
        }
        self.clear_bitmap();
    }

    /// Whether a peer's set ends the first connection without a resync (`new-current-uuid
    /// --clear-bitmap` was run there). Otherwise the set means nothing special.
    ///
    /// If so: clear the bitmap and write it, [`skip_initial_sync`](UuidSet::skip_initial_sync),
    /// make both copies UpToDate, write the meta data.
    pub const fn skips_initial_sync(&self, connected: bool, apv: u32, peer_flags: u64) -> bool {
        connected
            && apv >= 90
            && self.current == JUST_CREATED
            && peer_flags & flags::SKIP_INITIAL_SYNC != 0
    }

    /// Both copies were declared equal by the peer: takes its current UUID over.
    pub fn skip_initial_sync(&mut self, peer_current: u64, primary: bool) {
        self.set_current(peer_current, primary);
        self.bitmap = 0;
    }

    /// The command `new-current-uuid`.
    ///
    /// With `--clear-bitmap` on connected, fresh meta data, send the UUIDs with
    /// [`flags::SKIP_INITIAL_SYNC`] and then forget the bitmap UUID
    /// ([`forget_bitmap`](UuidSet::forget_bitmap)).
    pub fn admin_new_current(&mut self, random: u64, primary: bool) {
        self.clear_bitmap();
        self.new_current(random, primary);
    }

    /// Drops the bitmap UUID without a trace.
    pub fn forget_bitmap(&mut self) {
        self.bitmap = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: UuidSet = UuidSet {
        current: 0x10,
        bitmap: 0x20,
        history: [0x30, 0x40],
    };

    fn set(current: u64, bitmap: u64, history: [u64; 2]) -> UuidSet {
        UuidSet {
            current,
            bitmap,
            history,
        }
    }

    #[test]
    fn a_new_generation_keeps_the_old_one_for_the_bitmap() {
        let mut s = SET;
        assert_eq!(s.new_current(0x50, true), Some(0x20));
        assert_eq!(s, set(0x51, 0x10, [0x30, 0x40]));
        let mut s = set(0x11, 0, [0; 2]);
        assert_eq!(s.new_current(0x51, false), None);
        assert_eq!(s, set(0x50, 0x11, [0; 2]));
    }

    #[test]
    fn a_set_knows_what_its_data_have_been() {
        let s = set(0x101, 0x20, [0x30, 0x41]);
        for name in [0x100, 0x101, 0x21, 0x30, 0x40, crate::uuid::JUST_CREATED] {
            assert!(s.has_been(name), "{name:x}");
        }
        assert!(!s.has_been(0x50));
        assert!(!set(0x100, 0, [0, 0]).has_been(0), "no name");
    }

    #[test]
    fn the_bitmap_uuid_goes_to_the_history_when_cleared() {
        let mut s = SET;
        assert_eq!(s.set_bitmap(0), None);
        assert_eq!(s, set(0x10, 0, [0x20, 0x30]));
        assert_eq!(s.set_bitmap(0), None);
        assert_eq!(s, set(0x10, 0, [0x20, 0x30]));
        assert_eq!(s.set_bitmap(0x61), None);
        assert_eq!(s.set_bitmap(0x71), Some(0x60));
        assert_eq!(s, set(0x10, 0x70, [0x20, 0x30]));
    }

    #[test]
    fn a_source_derives_the_name_of_the_resync() {
        let mut s = SET;
        assert_eq!(s.begin_sync_source(9, 0x20), 0x20 + NEW_BITMAP_OFFSET);
        assert_eq!(s, set(0x10, 0x20 + NEW_BITMAP_OFFSET, [0x20, 0x30]));
        let mut s = set(0x10, 0, [1, 2]);
        assert_eq!(s.begin_sync_source(9, 0x10), 9);
        assert_eq!(s, set(0x10, 9, [1, 2]));
        let mut s = set(0x10, JUST_CREATED, [1, 2]);
        assert_eq!(s.begin_sync_source(9, JUST_CREATED), 9);
        assert_eq!(s, set(0x10, 9, [JUST_CREATED, 1]));
        let mut s = set(0x10, u64::MAX, [1, 2]);
        assert_eq!(s.begin_sync_source(9, u64::MAX), NEW_BITMAP_OFFSET - 1);
    }

    /// However often the target does not hear of a full sync, it is known.
    #[test]
    fn a_target_that_is_two_generations_behind_stays_known() {
        let mut s = SET;
        for nth in 1..4 {
            let uuid = 0x20 + nth * NEW_BITMAP_OFFSET;
            assert_eq!(s.begin_sync_source(9, 0x41), uuid);
            assert_eq!(s, set(0x10, uuid, [uuid - NEW_BITMAP_OFFSET, 0x40]));
        }
        // It is the younger one: nothing to do but to push.
        let mut s = SET;
        s.begin_sync_source(9, 0x31);
        assert_eq!(s.history, [0x20, 0x30]);
        // Fresh meta data have no name to keep.
        let mut s = set(0x10, 0x20, [0x30, 0]);
        s.begin_sync_source(9, 0);
        assert_eq!(s.history, [0x20, 0x30]);
    }

    #[test]
    fn a_resync_makes_both_sets_equal() {
        let mut source = SET;
        let mut target = set(0x20, 0, [0x30, 0x40]);
        let uuid = source.begin_sync_source(0, target.current);
        target.sync_uuid_received(uuid, false);
        assert_eq!(target, set(uuid, 0, [0x30, 0x40]));
        let sent_at_connect = SET;
        target.resync_finished_target(Some(&sent_at_connect), false);
        source.resync_finished_source();
        assert_eq!(source, set(0x10, 0, [uuid, 0x20]));
        assert_eq!(target, source);
    }

    #[test]
    fn a_target_without_the_peers_set_keeps_its_own() {
        let mut s = SET;
        s.resync_finished_target(None, false);
        assert_eq!(s, set(0x10, 0, [0x20, 0x30]));
    }

    #[test]
    fn the_first_resync_can_be_skipped() {
        let mut s = set(JUST_CREATED, 0, [0; 2]);
        assert!(s.skips_initial_sync(true, 90, 8));
        assert!(!s.skips_initial_sync(false, 90, 8));
        assert!(!s.skips_initial_sync(true, 89, 8));
        assert!(!s.skips_initial_sync(true, 90, 7));
        assert!(!SET.skips_initial_sync(true, 90, 8));
        s.skip_initial_sync(0x51, false);
        assert_eq!(s, set(0x50, 0, [0; 2]));
    }

    #[test]
    fn the_command_rotates_twice() {
        let mut s = SET;
        s.admin_new_current(0x50, true);
        assert_eq!(s, set(0x51, 0x10, [0x20, 0x30]));
        s.forget_bitmap();
        assert_eq!(s, set(0x51, 0, [0x20, 0x30]));
        s.mark_role(false);
        assert_eq!(s.current, 0x50);
    }
}
