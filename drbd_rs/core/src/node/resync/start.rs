// SPDX-License-Identifier: GPL-2.0

//! The start of a resync: algorithms.md §5.1.
//!
//! The helper is asked first, then the state changes on this side; the other side learns by its
//! STATE and, the target, by SYNC_UUID.

use crate::bitmap::BitSpan;
use crate::state::{conn, disk};
use crate::units::{BmBit, Sectors};
use crate::wire::RsUuid;

use super::super::control::{Flags, StateChange};
use super::super::io::{HelperCommand, Host, VolIx};
use super::super::{After, Note, Resource, Store, Violation, PEER};
use super::{resyncs, Next, Side};

/// A resync that is about to start.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Start {
    /// Which way; `None`: none is about to start.
    side: Option<Side>,
    /// The state of the connection in which it was to start.
    from: conn::State,
    /// Tells the answer of the present helper call from those to earlier ones.
    call: u16,
    /// The peer does not know the name of the resync yet: it is being stored.
    pub(super) naming: bool,
    /// This node is the target, and its disk still says that it has good data.
    storing: bool,
    /// The helper agrees; a generation has begun meanwhile that the peer has to hear of first.
    agreed: bool,
    /// It is of what a resize has added, and the peer was not Primary beside this node.
    grown: bool,
    /// SYNC_UUID came before this node expects it.
    uuid: Option<u64>,
}

impl Start {
    pub(super) const fn new() -> Start {
        Start {
            side: None,
            from: conn::State::StandAlone,
            call: 0,
            naming: false,
            storing: false,
            agreed: false,
            grown: false,
            uuid: None,
        }
    }

    /// Whether this node was about to be the source of what a resize has added.
    pub(super) fn owes_growth(&self) -> bool {
        self.side == Some(Side::Source) && self.grown
    }

    /// Whatever was about to start does not.
    pub(super) fn cancel(&mut self) {
        self.side = None;
        self.naming = false;
        self.storing = false;
        self.agreed = false;
        self.uuid = None;
    }

    /// Whether the receiver has to wait for this node's state: what the source said after its
    /// SYNC_UUID must not be heard before this node has followed it, nor before that is on its
    /// disk: what comes then is written there.
    pub(super) fn waits(&self) -> bool {
        self.uuid.is_some() || self.side == Some(Side::Target) || self.storing
    }
}

impl<S: Store> Resource<S> {
    /// Whether a resync is about to start here.
    pub(crate) fn resync_begins(&self, vol: VolIx) -> bool {
        self.rs(vol).is_some_and(|rs| rs.start.side.is_some())
    }

    /// Whether the peer has given a resync its name, and this node is not its target, not yet.
    pub(crate) fn resync_has_name(&self, vol: VolIx) -> bool {
        self.rs(vol).is_some_and(|rs| rs.start.uuid.is_some())
    }

    /// Starts a resync as soon as the helper agrees.
    pub(crate) fn start_resync(&mut self, vol: VolIx, side: Side, h: &mut impl Host) {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return;
        };
        let conn = state.conn;
        if conn >= conn::State::SyncSource && conn < conn::State::Ahead {
            self.rs_log(vol, Note::ResyncRuns, h);
            return;
        }
        let Some(rs) = self.rs_mut(vol) else { return };
        if rs.start.side.is_some() && rs.start.from == conn {
            return;
        }
        // One that was to start from another state does not any more, whatever its helper says.
        rs.start.side = Some(side);
        rs.start.from = conn;
        rs.start.agreed = false;
        let both = state.role.is_primary() && state.peer.is_primary();
        rs.start.grown = conn == conn::State::Connected && !both;
        rs.start.call = rs.start.call.wrapping_add(1);
        let after = After::Resync(Next::Helper(vol, side, rs.start.call));
        let command = match side {
            Side::Source => HelperCommand::BeforeResyncSource,
            Side::Target => HelperCommand::BeforeResyncTarget,
        };
        self.call_helper(command, Some(vol), after, h);
    }

    /// What waits for its helper does not begin any more once a disk is gone, even if both are back
    /// before the helper is: a handshake has decided anew by then. The state of the connection does
    /// not tell, as a resync that follows a resize begins from Connected. The C driver's receiver
    /// stands still while the helper runs.
    pub(super) fn start_needs_disks(&mut self, vol: VolIx) {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return;
        };
        let gone = state.disk <= disk::State::Failed || state.pdsk <= disk::State::Failed;
        if let Some(rs) = self.rs_mut(vol).filter(|_| gone) {
            rs.start.side = None;
        }
    }

    pub(super) fn before_resync_done(
        &mut self,
        vol: VolIx,
        side: Side,
        call: u16,
        h: &mut impl Host,
    ) {
        let code = self.ctl.helper_code;
        let Some(rs) = self.rs_mut(vol) else { return };
        if rs.start.side != Some(side) || rs.start.call != call {
            return;
        }
        let owed = rs.start.owes_growth();
        rs.start.side = None;
        let from = rs.start.from;
        if self.rs_conn(vol) != from {
            // It was given up while the helper ran: a disk is gone, or the connection.
            return;
        }
        let ignored = side == Side::Source && code == 3;
        if code != 0 && !ignored {
            self.rs_log(vol, Note::BeforeResyncRefused { code }, h);
            self.owe_growth(vol, owed);
            let down = StateChange::NONE.conn(conn::State::Disconnecting);
            self.change_conn(PEER, down, Flags::HARD, h);
            return;
        }
        if side == Side::Source {
            if let Some(rs) = self.rs_mut(vol) {
                rs.start.side = Some(side);
                rs.start.agreed = true;
            }
            self.source_starts(vol, h);
        } else {
            self.begin_resync(vol, side, h);
        }
    }

    /// The connection is lost before the peer knows the name of the resync that was to follow a
    /// resize. By their UUIDs the copies would be equal when they meet again: a generation begins
    /// before, and a resync follows. On a Primary only: the peer may be one now, and go on alone. C
    /// nodes go on without one.
    pub(super) fn owe_growth(&mut self, vol: VolIx, owed: bool) {
        let volume = self.volumes.get_mut(usize::from(vol.0));
        if let Some(v) = volume.and_then(Option::as_mut).filter(|_| owed) {
            let s = v.state;
            v.ctl.frozen_lost |= s.role.is_primary() && s.disk == disk::State::UpToDate;
        }
    }

    /// Begins a resync as source that the helper has agreed to. The target takes the present
    /// generation over when it is done: if one has begun while the helper ran, it is told first,
    /// with which `generation_begun` ends. The C driver begins none then.
    pub(super) fn source_starts(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.rs_vol(vol) else { return };
        let (conn, told) = (v.state.conn, !v.io.begins_generation());
        let Some(rs) = self.rs_mut(vol).filter(|rs| rs.start.agreed && told) else {
            return;
        };
        rs.start.agreed = false;
        let due = rs.start.side.take() == Some(Side::Source) && rs.start.from == conn;
        if due {
            self.begin_resync(vol, Side::Source, h);
        }
    }

    fn begin_resync(&mut self, vol: VolIx, side: Side, h: &mut impl Host) {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return;
        };
        if state.conn < conn::State::Connected || state.disk < disk::State::Negotiating {
            return;
        }
        let exchanged = state.conn != conn::State::Connected;
        let mut change = StateChange::NONE.conn(side.conn());
        change.aftr_isp = Some(!self.may_sync_now(vol));
        change = match side {
            Side::Source => change.pdsk(disk::State::Inconsistent),
            Side::Target => change.disk(disk::State::Inconsistent),
        };
        let code = self.change_state(vol, change, Flags::VERBOSE, h);
        let now_conn = self.rs_conn(vol);
        if !code.is_success() || !resyncs(now_conn) {
            return;
        }
        let now = h.now();
        let conf = self.rate_conf(vol);
        let (_, events) = self.app_pressure(vol);
        self.cancel_extents(vol);
        let compares = side == Side::Target && self.compares_digests(vol, PEER);
        let flushes = self.disk_flushes(vol);
        let apart = self.bits_apart(vol, side, exchanged);
        let Some((rs, disk)) = self.rs_disk_mut(vol) else {
            return;
        };
        let bits = disk.bitmap.weight();
        rs.marks.begin(now, bits);
        rs.marks.apart = apart;
        rs.rate.reset(&conf, events);
        rs.lazy_at = now;
        rs.finish.forget();
        rs.verify.asked = false;
        rs.seen = side.conn();
        rs.target.cursor = BmBit(0);
        rs.target.arm(now);
        if side == Side::Target {
            // What is left of a verify counts no more, see `verify.rs`.
            rs.pending = 0;
        }
        rs.compares = compares;
        rs.same = 0;
        rs.target.begin_comparing(compares && flushes);
        let note = Note::ResyncBegins {
            conn: now_conn,
            kib: bits.saturating_mul(4),
            bits,
        };
        self.rs_log(vol, note, h);
        let apv = self.connected(PEER).map_or(0, |a| a.apv);
        let named = side == Side::Source && apv < 96;
        if named && self.uuid_begin_sync_source(vol, h).is_some() {
            if let Some(rs) = self.rs_mut(vol) {
                rs.start.naming = true;
                let after = After::Resync(Next::Named(vol, rs.start.call));
                self.md_sync(vol, after, h);
            }
        }
        self.reconsider_pauses(h);
        self.md_dirty(vol, h);
        if side == Side::Target {
            self.store_target(vol, h);
        }
    }

    /// Stores that the disk is Inconsistent, by the name of the resync, before anything of the
    /// source is written to it: should the power fail in between, a mixture of two copies would
    /// pass for good data. In the C driver the receiver itself writes the superblock.
    fn store_target(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(rs) = self.rs_mut(vol) else { return };
        rs.start.storing = true;
        let after = After::Resync(Next::TargetStored(vol, rs.start.call));
        self.md_stable(vol, after, h);
    }

    /// It is stored, or the disk is lost.
    pub(super) fn target_stored(&mut self, vol: VolIx, call: u16, ok: bool, h: &mut impl Host) {
        let stored = |rs: &mut super::PeerDeviceResync| {
            rs.start.call == call && core::mem::take(&mut rs.start.storing)
        };
        if !self.rs_mut(vol).is_some_and(stored) || ok {
            return;
        }
        let state = self.rs_vol(vol).map(|v| v.state);
        if state.is_some_and(|s| resyncs(s.conn) && s.disk == disk::State::Inconsistent) {
            // Too many wait for the superblock already. The next connection begins with a resync.
            self.connect_anew(h);
        }
    }

    /// How many bits the source has that the target will not clear. A resync of what a device has
    /// grown by begins without an exchange of bitmaps, and marks that a write has left behind, one
    /// that covers a block in part, are on one side only. The C driver's source waits for them for
    /// ever.
    fn bits_apart(&mut self, vol: VolIx, side: Side, exchanged: bool) -> u64 {
        let Some(v) = self.volumes.get_mut(usize::from(vol.0)) else {
            return 0;
        };
        let Some(v) = v.as_mut() else { return 0 };
        let grown_from = v.ctl.grown_from.take().map_or(0, Sectors::bits);
        let (Some(b), Some(last)) = (v.backing.as_ref(), grown_from.checked_sub(1)) else {
            return 0;
        };
        let new = b.bitmap.bits().saturating_sub(grown_from);
        let old = BitSpan::new(BmBit(0), BmBit(last));
        match old.filter(|_| side == Side::Source && !exchanged && b.bitmap.weight() > new) {
            Some(old) => b.bitmap.count(old),
            None => 0,
        }
    }

    /// The name of the resync is on the disk: the peer may hear of it.
    pub(super) fn resync_named(&mut self, vol: VolIx, call: u16, ok: bool, h: &mut impl Host) {
        let named = self
            .rs_mut(vol)
            .is_some_and(|rs| rs.start.call == call && core::mem::take(&mut rs.start.naming));
        if !named {
            return;
        }
        let source = matches!(
            self.rs_conn(vol),
            conn::State::SyncSource | conn::State::PausedSyncS
        );
        let uuid = self.rs_disk_mut(vol).map(|(_, b)| b.disk.uuids.bitmap);
        if let (true, true, Some(uuid)) = (ok, source, uuid) {
            self.send_sync_uuid(vol, uuid, h);
        }
    }

    /// The source's new generation of data (P_SYNC_UUID): this node becomes its target. It may
    /// still be busy setting bits for that; the receiver waits meanwhile.
    ///
    /// # Errors
    /// [`Violation::Flood`] for a second one before the first could be used.
    pub(crate) fn recv_sync_uuid(
        &mut self,
        vol: VolIx,
        packet: RsUuid,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let rs = self.rs_mut(vol).ok_or(Violation::Volume)?;
        if rs.start.uuid.replace(packet.uuid).is_some() {
            return Err(Violation::Flood);
        }
        self.start_pump(vol, h);
        Ok(())
    }

    /// Uses a SYNC_UUID once the state is right.
    pub(super) fn start_pump(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(state) = self.rs_vol(vol).map(|v| v.state) else {
            return;
        };
        let gone = state.conn < conn::State::Connected || state.disk < disk::State::Negotiating;
        // The resync came to nothing before it had its name: the source has asked whether it may
        // detach its disk, and will say behind this that it did. The C driver waits for ever.
        let lost = state.conn == conn::State::Connected && state.pdsk <= disk::State::Failed;
        // Nor is one about to begin here while the peer has not answered to an attach: the name is
        // that of a resync which the loss of the disk before that has ended. What waits behind it
        // is the answer. The C driver's receiver waits for ever.
        let attaches =
            state.conn == conn::State::Connected && state.disk == disk::State::Negotiating;
        let gone = gone || lost || attaches;
        let expected = matches!(state.conn, conn::State::WFSyncUUID | conn::State::Behind);
        if !gone && !expected {
            return;
        }
        // Writes from a time when the log was suspended, all bits being set, are on the disk before
        // it is written to by the resync. The C driver may have them land on top of that.
        let named = self.rs(vol).is_some_and(|rs| rs.start.uuid.is_some());
        if named && !gone && self.writes_unlogged(vol) {
            return;
        }
        let Some(rs) = self.rs_mut(vol) else { return };
        let Some(uuid) = rs.start.uuid.take() else {
            return;
        };
        if !gone {
            self.uuid_adopt_sync(vol, uuid, h);
            self.start_resync(vol, Side::Target, h);
        }
    }
}
