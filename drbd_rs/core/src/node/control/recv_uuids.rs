// SPDX-License-Identifier: GPL-2.0

//! The peer tells its UUIDs; and what happens to the own ones.
//!
//! Whatever changes a UUID marks the metadata dirty. Where the order matters (a new generation
//! must be durable before the peer hears of it), the caller waits for `md_sync`.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, State};
use crate::uuid::UuidSet;
use crate::wire::Uuids;

use super::super::io::{Host, VolIx};
use super::super::note::Note;
use super::super::{After, Resource, Store, PEER};
use super::{Flags, Next, StateChange};

/// The set of a UUIDS packet.
pub(crate) const fn set_of(p: &Uuids) -> UuidSet {
    UuidSet {
        current: p.current,
        bitmap: p.bitmap,
        history: [p.history0, p.history1],
    }
}

impl<S: Store> Resource<S> {
    /// The peer tells its UUIDs. Without a disk, its data are those in use, and what is attached
    /// here later beside a Primary has to go by that name. Not so if its copy is bad, and not known
    /// to have come from what was in use here before: the disk of this node may be the one that it
    /// has to be made good from. The C driver takes that name as well.
    pub(super) fn recv_uuids(&mut self, vol: VolIx, p: Uuids, h: &mut impl Host) {
        let apv = self.agreed(PEER).map_or(0, |a| a.apv);
        let Some(v) = self.vol_mut(vol) else { return };
        for peer in v.peers.iter_mut() {
            peer.ctl.uuids = Some(p);
            peer.ctl.named = 0;
        }
        self.note_generation(vol, p.current);
        let Some(v) = self.vol_mut(vol) else { return };
        let s = v.state;
        let joining = s.conn < Conn::Connected || s.pdsk == Disk::Diskless;
        let diskless = s.disk < Disk::Inconsistent;
        let primary = s.role == Role::Primary;
        // A peer that is there has begun a generation for what this node writes to it; or it has
        // attached an older disk, and knew no better.
        let older = v.ctl.ed_uuid != 0 && differs(v.ctl.ed_uuid, p.bitmap);
        let other = differs(v.ctl.ed_uuid, p.current) && (joining || older);
        if other && diskless && primary {
            let note = Note::PeerOnlyWithUuid(v.ctl.ed_uuid);
            self.log(vol, note, h);
            self.refuse_peer(PEER, h);
            return;
        }
        if diskless {
            let bad =
                v.ctl.ed_uuid != 0 && is_bad(s.pdsk, &p) && !set_of(&p).has_been(v.ctl.ed_uuid);
            if (primary || s.conn >= Conn::Connected) && !bad {
                self.take_for_data_in_use(vol, p, h);
            }
            return;
        }
        let skips = v.backing.as_ref().is_some_and(|b| {
            b.disk
                .uuids
                .skips_initial_sync(s.conn == Conn::Connected, apv, p.flags)
        });
        if skips {
            for peer in v.peers.iter_mut() {
                peer.ctl.prepares = Some(super::recv_state::Prepares::SkipInitialSync);
            }
            self.log(vol, Note::SkipInitialSync, h);
            self.clear_all_and_write(vol, After::Control(Next::SyncSkipped { vol }), h);
        }
    }

    /// There is no disk here: the peer's data are those in use.
    fn take_for_data_in_use(&mut self, vol: VolIx, p: Uuids, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        if v.ctl.ed_uuid != p.current {
            v.ctl.ed_uuid = p.current;
            let note = Note::UuidsNow {
                why: "receiver updated UUIDs to effective data",
                uuids: set_of(&p),
            };
            self.log(vol, note, h);
        }
    }

    /// The peer's copy was bad, and is good now, as by `primary --force`. Its name was not taken
    /// when it was told. A Primary compares names when they are told, and takes no other one.
    pub(super) fn peer_turned_good(&mut self, vol: VolIx, old: State, h: &mut impl Host) {
        let Some(v) = self.vol(vol) else { return };
        let s = v.state;
        let turned = old.pdsk == Disk::Inconsistent && s.pdsk > Disk::Inconsistent;
        let secondary = s.role != Role::Primary && s.conn >= Conn::Connected;
        let told = v.peers.first().and_then(|p| p.ctl.uuids);
        if let (true, true, true, Some(p)) = (turned, secondary, s.disk < Disk::Inconsistent, told)
        {
            self.take_for_data_in_use(vol, p, h);
        }
    }

    /// The bitmap is clear: both copies count as good.
    pub(super) fn sync_skipped(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let peer_current = v.peers.first().and_then(|p| p.ctl.uuids).map(|u| u.current);
        for p in v.peers.iter_mut() {
            p.ctl.prepares = None;
        }
        let (Some(current), Some(b)) = (peer_current, v.backing.as_mut()) else {
            return;
        };
        b.disk
            .uuids
            .skip_initial_sync(current, v.state.role.is_primary());
        v.ctl.ed_uuid = b.disk.uuids.current;
        let uuids = b.disk.uuids;
        self.peer_has_own_uuids(vol);
        let change = StateChange::NONE.disk(Disk::UpToDate).pdsk(Disk::UpToDate);
        self.change_state(vol, change, Flags::VERBOSE, h);
        // A state packet that was on its way may have told the peer otherwise.
        let now = self.state(vol);
        if now.conn >= Conn::Connected {
            self.send_state(vol, now, h);
        }
        let note = Note::UuidsNow {
            why: "receiver updated UUIDs to",
            uuids,
        };
        self.log(vol, note, h);
        self.md_sync(vol, After::Nothing, h);
    }

    /// Begins a new generation of the data. The caller makes it durable.
    pub(crate) fn uuid_new_current(&mut self, vol: VolIx, h: &mut impl Host) {
        let random = h.random();
        let Some(v) = self.vol_mut(vol) else { return };
        let primary = v.state.role.is_primary();
        // What was put off until I/O goes on is done with it.
        v.ctl.new_current_uuid = false;
        v.ctl.peer_lacks = false;
        v.ctl.frozen_lost = false;
        let Some(b) = v.backing.as_mut() else { return };
        let overwritten = b.disk.uuids.new_current(random, primary);
        v.ctl.ed_uuid = b.disk.uuids.current;
        let uuids = b.disk.uuids;
        if let Some(old) = overwritten {
            self.log(vol, Note::BitmapUuidInUse(old), h);
        }
        self.log(vol, Note::NewCurrentUuid(uuids), h);
        self.md_begun(vol, h);
    }

    /// This node becomes source of a resync: the UUID of the resync, if there is a disk. The
    /// caller makes it durable before it tells the peer.
    ///
    /// One that begins anew, as after pulling ahead, before the target has told its UUIDs goes by
    /// the name it had: nobody says whether the target has taken that. The C driver makes up
    /// another one each time, and forgets the first after two more; a target that lost its disk
    /// meanwhile comes back with that, and its copy passes for unrelated.
    pub(crate) fn uuid_begin_sync_source(&mut self, vol: VolIx, h: &mut impl Host) -> Option<u64> {
        let random = h.random();
        let peer = self.vol(vol)?.peers.first().and_then(|p| p.ctl.uuids);
        let target = peer.map_or(0, |u| u.current);
        let named = self.vol(vol)?.peers.first().map_or(0, |p| p.ctl.named);
        let d = self.disk_mut(vol)?;
        if named != 0 && d.uuids.bitmap == named {
            return Some(named);
        }
        let uuid = d.uuids.begin_sync_source(random, target);
        let uuids = d.uuids;
        let note = Note::UuidsNow {
            why: "updated sync uuid",
            uuids,
        };
        self.log(vol, note, h);
        self.md_begun(vol, h);
        for p in self.vol_mut(vol)?.peers.iter_mut() {
            p.ctl.named = uuid;
        }
        Some(uuid)
    }

    /// SYNC_UUID arrived at the target.
    pub(crate) fn uuid_adopt_sync(&mut self, vol: VolIx, uuid: u64, h: &mut impl Host) {
        self.change_uuids(vol, "updated sync uuid", h, |set, primary| {
            set.sync_uuid_received(uuid, primary);
        });
    }

    /// A resync ended well; `target`: this node was brought up to date.
    pub(crate) fn uuid_resync_finished(&mut self, vol: VolIx, target: bool, h: &mut impl Host) {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.peer_lacks = false;
            v.ctl.marks_lost = false;
        }
        let peer = self
            .vol(vol)
            .and_then(|v| v.peers.first())
            .and_then(|p| p.ctl.uuids)
            .map(|u| set_of(&u));
        self.change_uuids(vol, "updated UUIDs", h, |set, primary| {
            if target {
                set.resync_finished_target(peer.as_ref(), primary);
            } else {
                set.resync_finished_source();
            }
        });
        self.peer_has_own_uuids(vol);
    }

    /// From here on both nodes have the same set.
    pub(super) fn peer_has_own_uuids(&mut self, vol: VolIx) {
        let Some(v) = self.vol_mut(vol) else { return };
        let Some(own) = v.backing.as_ref().map(|b| b.disk.uuids) else {
            return;
        };
        for p in v.peers.iter_mut().filter_map(|p| p.ctl.uuids.as_mut()) {
            store_set(p, own);
        }
    }

    /// Changes the UUIDs of a disk in memory and marks them to be written.
    pub(super) fn change_uuids(
        &mut self,
        vol: VolIx,
        why: &'static str,
        h: &mut impl Host,
        change: impl FnOnce(&mut UuidSet, bool),
    ) {
        let Some(v) = self.vol_mut(vol) else { return };
        let primary = v.state.role.is_primary();
        let Some(b) = v.backing.as_mut() else { return };
        let before = b.disk.uuids;
        change(&mut b.disk.uuids, primary);
        let uuids = b.disk.uuids;
        if uuids.current != before.current {
            v.ctl.ed_uuid = uuids.current;
        }
        if uuids != before {
            self.log(vol, Note::UuidsNow { why, uuids }, h);
            self.md_dirty(vol, h);
        }
    }

    /// Whether the peer's disk goes by the name that the data have here, as far as is known.
    pub(crate) fn peer_shares_generation(&self, vol: VolIx) -> bool {
        let Some(v) = self.vol(vol) else { return false };
        let own = v.backing.as_ref().map(|b| b.disk.uuids.current);
        let peer = v.peers.first().and_then(|p| p.ctl.uuids.as_ref());
        own.is_some_and(|own| peer.is_none_or(|u| !differs(u.current, own)))
    }
}

/// Puts a set into the packet that the peer sent.
pub(super) fn store_set(p: &mut Uuids, set: UuidSet) {
    let [history0, history1] = set.history;
    p.current = set.current;
    p.bitmap = set.bitmap;
    p.history0 = history0;
    p.history1 = history1;
}

/// Whether the UUIDs are those of a copy that is known to be bad. A peer that attaches says so with
/// them; later its state counts, as the C driver never takes that word back.
const fn is_bad(pdsk: Disk, p: &Uuids) -> bool {
    match pdsk {
        Disk::Diskless | Disk::Attaching | Disk::Failed | Disk::Negotiating => {
            p.flags & crate::uuid::flags::INCONSISTENT != 0
        }
        pdsk => matches!(pdsk, Disk::Inconsistent),
    }
}

/// Whether two UUIDs name different data; bit 0 is no part of the name.
pub(crate) const fn differs(a: u64, b: u64) -> bool {
    (a ^ b) & !1 != 0
}
