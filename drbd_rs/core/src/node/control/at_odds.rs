// SPDX-License-Identifier: GPL-2.0

//! Two nodes that do not agree on whether there is a resync between them.
//!
//! Each node draws its conclusions from what it has heard and from what it remembers: that the
//! device grew while a disk was attached here, that a `resize` is waiting for an answer. If the
//! other one concludes something else, one of them waits for ever: for the name of a resync that
//! nobody begins, or with a name for which nobody waits. What gives that away is looked at here.
//! The nodes connect anew then: a handshake decides, by what both know. C nodes stay so. The same
//! goes for a disk that is measured while nodes connect, which makes their sizes two.
//!
//! Invariant: it is looked at only while nothing is under way here that may still lead to the
//! resync which the peer knows of.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::Role;
use crate::uuid::name;

use super::super::io::{Host, VolIx};
use super::super::{Note, Resource, Store, PEER};

/// Whether a name that a resync was given by the peer is used in this state, or in the next one.
/// Nothing else comes from the peer before that.
const fn may_use_name(conn: Conn) -> bool {
    matches!(
        conn,
        Conn::WFSyncUUID | Conn::Behind | Conn::StartingSyncS | Conn::StartingSyncT
    )
}

impl<S: Store> Resource<S> {
    /// The peer has told its state.
    pub(super) fn note_wait(&mut self, vol: VolIx, peer: Conn) {
        for p in self
            .vol_mut(vol)
            .into_iter()
            .flat_map(|v| v.peers.iter_mut())
        {
            p.ctl.awaits_name = peer == Conn::WFSyncUUID;
        }
    }

    /// Connects anew where the nodes are at odds. True: they were.
    pub(super) fn odds_pump(&mut self, h: &mut impl Host) -> bool {
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            self.tell_role(vol, h);
            if self.is_at_odds(vol) {
                self.connect_anew(h);
                return true;
            }
        }
        false
    }

    /// The peer may count a role as taken which this node has asked for, and which something that
    /// began meanwhile has kept it from: it would refuse to become Primary beside that. It is told
    /// how things are as soon as nothing else is under way. The C driver does not tell.
    fn tell_role(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol(vol).filter(|v| v.ctl.role_asked) else {
            return;
        };
        let s = v.state;
        let calm = s.conn == Conn::Connected || s.conn.is_sync();
        if calm && self.ctl.op.is_none() && self.nothing_begins(vol) {
            self.send_state(vol, s, h);
        }
    }

    fn is_at_odds(&mut self, vol: VolIx) -> bool {
        let Some(v) = self.vol_mut(vol) else {
            return false;
        };
        let s = v.state;
        // The peer works the size of the device out from what it was told, and bitmaps follow: the
        // handshake may have got on since. The C driver goes on by what it knows now.
        let outgrown = core::mem::take(&mut v.ctl.outgrown);
        if outgrown && s.conn >= Conn::WFReportParams {
            return true;
        }
        let idle = s.conn == Conn::Connected;
        // Another target: it does not wait for what this node is about to do.
        let target = s.conn == Conn::WFSyncUUID;
        let disks = s.disk > Disk::Negotiating && s.pdsk > Disk::Negotiating;
        let awaits = v.peers.iter().any(|p| p.ctl.awaits_name);
        if awaits && !((idle || target) && disks) {
            // It has been joined in, or a disk has ended it.
            let attaches = s.disk >= Disk::Attaching && s.pdsk >= Disk::Attaching;
            if !(idle && attaches) {
                self.note_wait(vol, s.conn.min(Conn::Connected));
            }
            return false;
        }
        let named = !may_use_name(s.conn) && disks && self.resync_has_name(vol);
        (awaits || named) && self.nothing_begins(vol)
    }

    /// Both nodes took themselves for the source of what a resize had added, as they may if two
    /// cross: each has named a resync that never ran. By their UUIDs both copies are equal, by
    /// their bitmaps they are not. The Secondary, or the node that does not resolve conflicts,
    /// gives its name up, and connects anew: then it is the target (rule 37), unless it is Primary
    /// or the protocol too old, which end the connection with a reason. True: it did. C nodes go on
    /// with the bits, and one that is to give way does not.
    pub(super) fn gives_up_name(
        &mut self,
        vol: VolIx,
        was: Conn,
        peer: Role,
        h: &mut impl Host,
    ) -> bool {
        let arbiter = self.agreed(PEER).is_some_and(|a| a.arbiter);
        let Some(v) = self.vol(vol) else { return false };
        let gives_way = match (v.ctl.told_role, peer) {
            (own, peer) if own == peer => !arbiter,
            (own, _) => own == Role::Secondary,
        };
        let told = v.peers.first().and_then(|p| p.ctl.uuids);
        let (Some(own), Some(told)) = (v.backing.as_ref(), told) else {
            return false;
        };
        let u = &own.disk.uuids;
        let named = u.bitmap != 0 && told.bitmap != 0 && name(u.current) == name(told.current);
        let differ = own.bitmap.weight() != 0 || told.dirty_bits != 0;
        if !(gives_way && was == Conn::WFReportParams && named && differ) {
            return false;
        }
        self.log(vol, Note::NameGivenUp, h);
        self.change_uuids(vol, "updated UUIDs", h, |set, _| set.forget_bitmap());
        self.connect_anew(h);
        true
    }

    /// Whether nothing is under way here from which a resync may follow.
    pub(super) fn nothing_begins(&self, vol: VolIx) -> bool {
        let Some(v) = self.vol(vol) else {
            return false;
        };
        let c = &v.ctl;
        let prepares = v.peers.iter().any(|p| p.ctl.prepares.is_some());
        let asks = self.asks_peer();
        !c.changes_size() && !prepares && !asks && c.after.is_empty() && !self.resync_begins(vol)
    }
}
