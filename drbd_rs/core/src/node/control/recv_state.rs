// SPDX-License-Identifier: GPL-2.0

//! The peer tells its state: the moment at which both nodes decide about a resync.
//!
//! The rules are in state.md §6. What has to be written first (all bits of the bitmap, for a full
//! sync) is waited for with the packet stored; the receiver pauses meanwhile.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::effects::promoted_by_force;
use crate::state::{Ss, State};
use crate::uuid::{
    first_line, handshake, AfterSb, DecideContext, DryRun, Handshake, HandshakeContext, Helper,
    Local, Outcome, Policies, RefusedBecause, Remote, RrConflict, Rule,
};
use crate::wire;

use super::super::io::{HelperCommand, Host, Lost, VolIx};
use super::super::note::Note;
use super::super::{After, Resource, Store, Violation, PEER};
use super::recv_uuids::{set_of, store_set};
use super::{Flags, Next, StateChange};

/// What is being written before the peer's word is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Prepares {
    /// All bits, for a full sync.
    FullSync {
        /// The peer's state.
        peer: State,
        /// What the connection becomes.
        conn: Conn,
        /// The own state when that was decided.
        os: State,
    },
    /// An empty bitmap.
    SkipInitialSync,
    /// A generation that is due; the peer's state is looked at after that.
    Generation(State),
}

/// What the handshake decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Decided {
    /// Not asked, or nothing to wait for.
    Conn(Conn),
    /// All bits have to be written first.
    Prepare(Conn),
    /// No.
    Refused,
}

impl<S: Store> Resource<S> {
    pub(super) fn recv_state(
        &mut self,
        vol: VolIx,
        p: wire::State,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let peer = State::from_word(p.word).map_err(|_| Violation::Malformed)?;
        self.bitmap_is_over(vol)?;
        if !self.parks(vol, peer) {
            self.hear_state(vol, peer, None, h);
        }
        Ok(())
    }

    /// The bits of a full sync are written, or not. If something else has begun here meanwhile, as
    /// by an `invalidate` that the peer has agreed to, the peer's word is looked at once more.
    pub(super) fn full_sync_ready(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let prepares = v.peers.iter_mut().find_map(|p| p.ctl.prepares.take());
        match prepares {
            Some(Prepares::FullSync { peer, conn, os }) => {
                let decided = match (ok, os == self.state(vol)) {
                    (true, true) => Some(Decided::Conn(conn)),
                    (true, false) => None,
                    (false, _) => Some(Decided::Refused),
                };
                self.hear_state(vol, peer, decided, h);
            }
            Some(Prepares::Generation(peer)) => {
                if !self.parks(vol, peer) {
                    self.hear_state(vol, peer, None, h);
                }
            }
            Some(Prepares::SkipInitialSync) | None => {}
        }
    }

    /// The peer attaches a disk, and on this node, which is slow, the generation is still due that
    /// begins as it lost one: the decision is made with that, as the peer will make it. The C
    /// driver goes by the UUIDs of the moment; the peer hears of others, and both become target.
    fn parks(&mut self, vol: VolIx, peer: State) -> bool {
        let Some(v) = self.vol_mut(vol) else {
            return false;
        };
        let attaches = peer.disk == Disk::Negotiating && v.state.conn == Conn::Connected;
        if !attaches || !v.ctl.after.owes_generation() {
            return false;
        }
        if let Some(p) = v.peers.first_mut() {
            p.ctl.prepares = Some(Prepares::Generation(peer));
        }
        true
    }

    /// It has begun, or was not due after all.
    pub(super) fn hear_parked(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol(vol) else { return };
        let is_such = |p: &Option<Prepares>| matches!(p, Some(Prepares::Generation(_)));
        let parked = v.peers.iter().any(|p| is_such(&p.ctl.prepares));
        if parked && !v.ctl.after.owes_generation() {
            self.run_soon(After::Control(Next::FullSyncReady { vol }), true, h);
        }
    }

    fn hear_state(
        &mut self,
        vol: VolIx,
        mut peer: State,
        decided: Option<Decided>,
        h: &mut impl Host,
    ) {
        let Some(v) = self.vol_mut(vol) else { return };
        let mut os = v.state;
        if os.conn <= Conn::TearDown {
            return;
        }
        for p in v.peers.iter_mut() {
            p.ctl.greeted |= peer.conn >= Conn::Connected;
        }
        let uuids = v.peers.first().and_then(|p| p.ctl.uuids);
        self.note_wait(vol, peer.conn);
        self.note_suspension(vol, peer);
        if self.is_from_before_detach(vol, peer) {
            return self.hear_besides(vol, peer, h);
        }
        let mut real = self.real_disk(vol, peer, h);
        match self.end_of_sync(vol, os, peer, real, h) {
            Some(disk) => real = disk,
            None => return self.hear_besides(vol, peer, h),
        }
        if os.conn == Conn::WFReportParams && self.is_worse_than_told(vol) {
            self.connect_anew(h);
            return;
        }
        let mut conn = followed(os.conn, peer.conn, real);
        let able = peer.disk >= Disk::Negotiating && os.disk >= Disk::Negotiating;
        let outcome = match decided {
            Some(decided) => decided,
            None if uuids.is_some() && able && self.considers_resync(vol, os, peer) => {
                self.sync_handshake(vol, peer, real, h)
            }
            None => Decided::Conn(conn),
        };
        match outcome {
            Decided::Conn(Conn::Connected) if self.gives_up_name(vol, os.conn, peer.role, h) => {
                return
            }
            Decided::Conn(c) => conn = c,
            Decided::Prepare(conn) => {
                if let Some(p) = self.vol_mut(vol).and_then(|v| v.peers.first_mut()) {
                    p.ctl.prepares = Some(Prepares::FullSync { peer, conn, os });
                }
                let after = After::Control(Next::FullSyncReady { vol });
                self.set_all_and_write(vol, after, h);
                return;
            }
            Decided::Refused if os.disk == Disk::Negotiating => {
                self.change_state(vol, StateChange::NONE.disk(Disk::Failed), Flags::HARD, h);
                os = self.state(vol);
                conn = Conn::Connected;
            }
            Decided::Refused if peer.disk == Disk::Negotiating => {
                self.peer_attach_aborted(vol, os, h);
                peer.disk = Disk::Diskless;
                real = Disk::Diskless;
                conn = Conn::Connected;
            }
            Decided::Refused => {
                self.refused_by_handshake(h);
                return;
            }
        }
        self.adopt_peer_state(vol, os, peer, real, conn, h);
    }

    /// A packet that ends a resync or verify says as well which role the peer has and whether it
    /// pauses; and it may be from before the peer heard that the verify had begun, or a later one
    /// than that which ended the resync. The C driver forgets that: the next resync is paused for
    /// ever, and this node may not become Primary though the peer is not any more.
    fn hear_besides(&mut self, vol: VolIx, peer: State, h: &mut impl Host) {
        let s = self.state(vol);
        let pauses = peer.aftr_isp || peer.user_isp;
        if s.conn >= Conn::Connected && (s.peer_isp, s.peer) != (pauses, peer.role) {
            let change = StateChange {
                peer_isp: Some(pauses),
                ..StateChange::NONE.peer(peer.role)
            };
            self.change_state(vol, change, Flags::HARD, h);
        }
    }

    /// The peer's attach came to nothing. It has to find out as well; the C driver lets it wait.
    fn peer_attach_aborted(&mut self, vol: VolIx, state: State, h: &mut impl Host) {
        self.log(vol, Note::PeerAttachAborted, h);
        self.tell_stored(vol, state, h);
    }

    /// A dry run of the peer's ends by a lost connection; anything else for good.
    fn refused_by_handshake(&mut self, h: &mut impl Host) {
        let dry = self
            .conn_mut(PEER)
            .is_some_and(|c| core::mem::take(&mut c.ctl.dry_run));
        if dry {
            self.lost(PEER, Lost::Protocol, h);
        } else {
            self.refuse_peer(PEER, h);
        }
    }

    /// Looks for the end of a resync or verify in the peer's state. The peer's disk as it should
    /// be seen; `None`: the packet is used up.
    fn end_of_sync(
        &mut self,
        vol: VolIx,
        os: State,
        peer: State,
        real: Disk,
        h: &mut impl Host,
    ) -> Option<Disk> {
        let was_bad = matches!(os.pdsk, Disk::Inconsistent | Disk::Consistent);
        let busy = os.conn > Conn::Connected;
        let source = matches!(os.conn, Conn::SyncSource | Conn::PausedSyncS);
        if source && peer.conn == Conn::Connected && peer.disk == Disk::Inconsistent {
            // It is done, but some blocks failed. The C driver stays SyncSource for ever.
            self.resync_told_done(vol, h);
            return None;
        }
        if was_bad && real == Disk::UpToDate && busy && os.disk == Disk::UpToDate {
            if peer.conn > Conn::Connected && peer.conn < Conn::SyncSource {
                return Some(Disk::Inconsistent);
            }
            if os.conn == Conn::Ahead && peer.conn == Conn::Connected {
                // It has not heard of that. The C driver looks for a resync to end, and may leave
                // Ahead for one that has never begun.
                return None;
            }
            if os.conn >= Conn::SyncSource && peer.conn == Conn::Connected {
                self.resync_none_failed(vol);
                if self.nothing_left(vol) {
                    self.resync_finished(vol, h);
                } else {
                    self.resync_told_done(vol, h);
                }
                return None;
            }
        }
        // The verify on the other side has come to its stop sector.
        if os.conn == Conn::VerifyT
            && os.disk == Disk::UpToDate
            && peer.conn == Conn::Connected
            && real == Disk::UpToDate
        {
            self.verify_done(vol, h);
            return None;
        }
        let flaps = os.pdsk == Disk::UpToDate
            && real == Disk::Inconsistent
            && os.conn == Conn::Connected
            && peer.conn > Conn::SyncSource;
        Some(if flaps { Disk::UpToDate } else { real })
    }

    /// The peer's disk, and what one that is being attached is worth.
    fn real_disk(&mut self, vol: VolIx, peer: State, h: &mut impl Host) -> Disk {
        if peer.disk != Disk::Negotiating {
            return peer.disk;
        }
        let uuids = self.vol(vol).and_then(|v| v.peers.first()?.ctl.uuids);
        let bad = uuids.is_some_and(|u| u.flags & crate::uuid::flags::INCONSISTENT != 0);
        let real = match bad {
            true => Disk::Inconsistent,
            false => Disk::Consistent,
        };
        self.log(vol, Note::RealPeerDisk(real), h);
        real
    }

    /// Whether the own disk has become bad, by an error that is passed on, after the peer was told
    /// that it is good: the two would decide by different states. With C nodes both become target,
    /// for ever.
    fn is_worse_than_told(&self, vol: VolIx) -> bool {
        self.vol(vol).is_some_and(|v| {
            v.state.disk == Disk::Inconsistent && v.ctl.told_disk > Disk::Inconsistent
        })
    }

    fn considers_resync(&self, vol: VolIx, os: State, peer: State) -> bool {
        let connected = os.conn == Conn::Connected;
        let attaching = peer.disk == Disk::Negotiating || os.disk == Disk::Negotiating;
        let asked = peer.conn >= Conn::StartingSyncS && peer.conn <= Conn::WFBitMapT;
        // The order by which the peer asked for that may have been undone by a packet from before
        // it, which was under way. The C driver waits for one more packet then, perhaps for ever.
        let forced = peer.disk == Disk::UpToDate && promoted_by_force(os, peer.role);
        // If a full sync, without bitmaps, has begun since, it goes on; the C driver turns from it
        // to an exchange of bitmaps of which the peer knows nothing.
        let due = forced || self.vol(vol).is_some_and(|v| v.ctl.consider_resync);
        os.conn < Conn::Connected || (connected && (attaching || asked || due))
    }

    /// Stores what the peer said.
    fn adopt_peer_state(
        &mut self,
        vol: VolIx,
        os: State,
        peer: State,
        real: Disk,
        conn: Conn,
        h: &mut impl Host,
    ) {
        let Some(v) = self.vol_mut(vol) else { return };
        v.ctl.consider_resync = false;
        let mut change = StateChange::NONE.conn(conn).peer(peer.role).pdsk(real);
        change.peer_isp = Some(peer.aftr_isp || peer.user_isp);
        let decided = v.backing.as_ref().and_then(|b| b.disk.decided);
        // A peer with a disk may have said something else before it heard of the attach: then its
        // UUIDs are still on their way, and a state behind them, which decides. The C driver would
        // take the disk for good at once.
        let compared =
            peer.disk < Disk::Negotiating || v.peers.iter().any(|p| p.ctl.uuids.is_some());
        if let (Conn::Connected | Conn::WFBitMapS, Disk::Negotiating, Some((disk, _)), true) =
            (conn, os.disk, decided, compared)
        {
            change.disk = Some(disk);
        }
        let comes_up = os.conn < Conn::Connected && conn >= Conn::Connected;
        if real == Disk::Consistent
            && os.is_suspended()
            && conn == Conn::Connected
            && comes_up
            && v.ctl.new_current_uuid
        {
            self.refuse_thaw(vol, h);
            return;
        }
        let flags = if comes_up {
            Flags::VERBOSE
        } else {
            Flags::HARD
        };
        if self.change_state(vol, change, flags, h).is_refusal() {
            self.refuse_peer(PEER, h);
            return;
        }
        let ns = self.state(vol);
        if self.turned_good_by_itself(vol, os, ns) {
            self.connect_anew(h);
            return;
        }
        self.peer_turned_good(vol, os, h);
        self.peer_detached(vol, os, h);
        if os.conn > Conn::WFReportParams
            && ns.conn > Conn::Connected
            && peer.conn <= Conn::Connected
            && peer.disk != Disk::Negotiating
        {
            self.tell_stored(vol, ns, h);
        }
        for p in self
            .vol_mut(vol)
            .into_iter()
            .flat_map(|v| v.peers.iter_mut())
        {
            p.ctl.discard_my_data = false;
        }
        if self.md_is_dirty(vol) {
            self.md_sync(vol, After::Nothing, h);
        }
    }

    /// The two nodes do not agree on what goes on between them.
    pub(crate) fn connect_anew(&mut self, h: &mut impl Host) {
        let down = StateChange::NONE.conn(Conn::NetworkFailure);
        self.change_conn(PEER, down, Flags::HARD, h);
    }

    /// The peer's copy was bad for a moment and is good again without a resync, as when a packet
    /// from before `new-current-uuid --clear-bitmap` came late. What was written here meanwhile was
    /// only marked, in a generation of its own: the next connection begins with a resync. The C
    /// driver goes on, and counts both copies as equal.
    fn turned_good_by_itself(&self, vol: VolIx, os: State, ns: State) -> bool {
        let stays = [os, ns].iter().all(|s| {
            let good = s.disk == Disk::UpToDate;
            s.conn == Conn::Connected && good
        });
        let missed = self.disk(vol).is_some_and(|d| d.uuids.bitmap != 0);
        stays && missed && os.pdsk == Disk::Inconsistent && ns.pdsk == Disk::UpToDate
    }

    /// Whether a peer that was allowed to detach has said this before it heard of that. It would
    /// count as good again, without the writes that this node has kept to itself since; so it does
    /// with the C driver. One that does not detach after all connects anew.
    fn is_from_before_detach(&self, vol: VolIx, peer: State) -> bool {
        self.vol(vol).is_some_and(|v| {
            let agreed = v.state.conn >= Conn::Connected && v.ctl.peer_detaches;
            agreed && v.state.pdsk == Disk::Failed && peer.disk >= Disk::Inconsistent
        })
    }

    /// A peer that was allowed to detach says what became of it.
    fn peer_detached(&mut self, vol: VolIx, old: State, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let asked = core::mem::take(&mut v.ctl.peer_detaches);
        let gone = v.state.pdsk < Disk::Inconsistent && v.state.conn >= Conn::Connected;
        if asked && gone && old.conn >= Conn::Connected {
            self.begin_generation(vol, h);
        }
    }

    /// A peer that was rebooted can not get the frozen requests again. They stay frozen: it takes
    /// its copy for good until it hears of the generation that begins here, and it may be promoted
    /// before that. The next handshake goes on with them, or the fencing that this loss leads to.
    /// The C driver tells applications at once. On a disk that was outdated since this node was
    /// demoted no generation begins, as it does with the C driver: the disk would pass for newer
    /// than what the peer has.
    fn refuse_thaw(&mut self, vol: VolIx, h: &mut impl Host) {
        self.log(vol, Note::CannotThaw, h);
        if self.state(vol).disk == Disk::UpToDate {
            self.uuid_new_current(vol, h);
        } else {
            self.counts_as_crashed(vol, h);
        }
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.new_current_uuid = false;
        }
        self.md_sync(vol, After::Nothing, h);
        let change = StateChange {
            susp: Some(false),
            ..StateChange::NONE.conn(Conn::ProtocolError)
        };
        self.change_conn(PEER, change, Flags::HARD, h);
    }

    /// A peer that attaches decides by what it is told in answer: so does this node, by the bits
    /// that there are now. The C driver goes by what it has told before, and counts anew behind its
    /// decision; where the least changes win both may call themselves the target.
    fn count_anew(&mut self, vol: VolIx, peer: State) {
        let Some(v) = self.vol_mut(vol) else { return };
        let answers = v.state.conn >= Conn::Connected && v.state.disk > Disk::Negotiating;
        if let Some(b) = v.backing.as_ref() {
            if answers && peer.disk == Disk::Negotiating {
                v.ctl.told_bits = b.bitmap.weight();
            }
        }
    }

    fn sync_handshake(
        &mut self,
        vol: VolIx,
        peer: State,
        real: Disk,
        h: &mut impl Host,
    ) -> Decided {
        self.count_anew(vol, peer);
        let Some((own, remote, mut ctx)) = self.handshake_facts(vol, peer, real) else {
            return Decided::Refused;
        };
        for (who, uuids, bits, flags) in [
            (
                "self",
                own.uuids,
                own.bits,
                u64::from(own.crashed_primary) << 1,
            ),
            ("peer", remote.uuids, remote.bits, remote.flags),
        ] {
            let note = Note::HandshakeUuids {
                who,
                uuids,
                bits,
                flags,
            };
            self.log(vol, note, h);
        }
        let mut result = handshake(&own, &remote, &ctx);
        if result.outcome == Outcome::TryDemote {
            let change = StateChange::NONE.role(crate::state::Role::Secondary);
            let code = self.change_state(vol, change, Flags::VERBOSE, h);
            ctx.demoted = Some(code == Ss::Success);
            result = handshake(&own, &remote, &ctx);
        }
        self.log_rule(vol, &result, h);
        // Nothing is corrected before something follows: `--tentative` leaves all as it was. And a
        // source that missed the end of a resync (rule 34) corrects itself when the next one
        // begins, by which both ways come to the same UUIDs. Should it be lost before, what was
        // written here since would only be marked, in UUIDs by which both copies are equal; and
        // a peer that attaches, which gets the own UUIDs only now, would conclude that from them.
        // The C driver corrects at once.
        let follows = matches!(result.outcome, Outcome::Go(_));
        let missed_end = result.decision.rule == Rule(34);
        let own_fix = result.decision.own_fix;
        if let Some(fix) = own_fix.filter(|_| follows && !missed_end) {
            self.change_uuids(vol, "corrected UUIDs to", h, |set, _| *set = fix);
        }
        if let Some(fix) = result.decision.peer_fix {
            let told = self.vol_mut(vol).and_then(|v| v.peers.first_mut());
            if let Some(u) = told.and_then(|p| p.ctl.uuids.as_mut()) {
                store_set(u, fix);
            }
        }
        for helper in result.helpers.iter() {
            self.tell_helper(command_of(helper), Some(vol), h);
        }
        self.log_notes(vol, &result, h);
        match result.outcome {
            Outcome::Go(sync) if sync.full => {
                let why = "full sync required after drbd_sync_handshake.";
                self.log(vol, Note::WritingBitmap(why), h);
                Decided::Prepare(sync.conn)
            }
            Outcome::Go(sync) => Decided::Conn(sync.conn),
            // It does not ask twice.
            Outcome::Refuse(_) | Outcome::TryDemote => Decided::Refused,
        }
    }

    fn handshake_facts(
        &self,
        vol: VolIx,
        peer: State,
        real: Disk,
    ) -> Option<(Local, Remote, HandshakeContext)> {
        let v = self.vol(vol)?;
        let b = v.backing.as_ref()?;
        let p = v.peers.first()?;
        let told = p.ctl.uuids?;
        let c = self.conn(PEER)?;
        let n = c.ctl.conf.as_ref()?;
        let agreed = self.agreed(PEER)?;
        let policy = |n: u32| AfterSb::from_number(n).unwrap_or(AfterSb::Disconnect);
        let own = Local {
            uuids: b.disk.uuids,
            crashed_primary: v.ctl.crashed_primary,
            role: v.state.role,
            disk: v.state.disk,
            attach_disk: b.disk.decided.map_or(v.state.disk, |d| d.0),
            bits: v.ctl.told_bits,
            discard_my_data: p.ctl.discard_my_data,
        };
        let remote = Remote {
            uuids: set_of(&told),
            flags: told.flags,
            bits: told.dirty_bits,
            role: peer.role,
            disk: real,
        };
        let ctx = HandshakeContext {
            decide: DecideContext {
                apv: agreed.apv,
                write_same: agreed.features & wire::feature::WSAME != 0,
                resolve_conflicts: agreed.arbiter,
            },
            always_asbp: n.always_asbp,
            policies: Policies {
                none: policy(n.after_sb_0p),
                one: policy(n.after_sb_1p),
                two: policy(n.after_sb_2p),
            },
            rr_conflict: RrConflict::from_number(n.rr_conflict).unwrap_or(RrConflict::Disconnect),
            dry_run: n.tentative || c.ctl.dry_run,
            demoted: None,
        };
        Some((own, remote, ctx))
    }

    /// What the comparison gave, and what that means. Where nothing follows, nothing is explained.
    fn log_rule(&mut self, vol: VolIx, result: &Handshake, h: &mut impl Host) {
        let (rule, verdict) = (result.decision.rule, result.decision.verdict);
        let line = first_line(rule, verdict);
        if !line.is_empty() {
            self.log(vol, Note::RuleSays(line), h);
        }
        let note = Note::Compared {
            result: verdict.number(),
            rule: u32::from(rule.0),
        };
        self.log(vol, note, h);
        let connected = matches!(result.outcome, Outcome::Go(s) if s.conn == Conn::Connected);
        if !connected {
            let note = Note::RuleMeans {
                rule,
                verdict,
                outcome: result.outcome,
            };
            self.log(vol, note, h);
        }
    }

    /// How the comparison led to the outcome.
    fn log_notes(&mut self, vol: VolIx, result: &Handshake, h: &mut impl Host) {
        let notes = result.notes;
        let source = match result.outcome {
            Outcome::Go(sync) => sync.conn == Conn::WFBitMapS,
            Outcome::Refuse(RefusedBecause::SourceInconsistent) => true,
            Outcome::Refuse(RefusedBecause::DryRun(dry)) => matches!(dry, DryRun::Source { .. }),
            Outcome::Refuse(_) | Outcome::TryDemote => false,
        };
        let mut say = |wanted: bool, note: Note| {
            if wanted {
                self.log(vol, note, h);
            }
        };
        say(notes.by_disk_states, Note::ByDiskStates { source });
        say(notes.config_error, Note::PolicyMisfits);
        say(notes.used_least_changes, Note::UsingLeastChanges);
        say(notes.gave_up_primary, Note::GaveUpPrimary);
        let primaries = notes.solved_by_policy.map_or(0, u32::from);
        let solved = Note::SplitBrainSolved { primaries, source };
        say(notes.solved_by_policy.is_some(), solved);
        say(notes.full_as_ambiguous, Note::FullSyncAmbiguous);
        say(notes.solved_by_hand, Note::SplitBrainManual { source });
        let anyway = Note::PrimaryWouldLose { anyway: true };
        say(notes.violates_stable_data, anyway);
        match result.outcome {
            Outcome::Go(sync) => {
                let weight = self.vol(vol).and_then(|v| v.backing.as_ref());
                let weight = weight.map_or(0, |b| b.bitmap.weight());
                if sync.conn == Conn::Connected && weight != 0 {
                    self.log(vol, Note::BitsWithoutResync(weight), h);
                }
            }
            Outcome::Refuse(why) => self.log(vol, refusal(why), h),
            Outcome::TryDemote => {}
        }
    }
}

/// What the connection becomes by the peer's state alone.
fn followed(conn: Conn, peer: Conn, disk: Disk) -> Conn {
    match (peer, conn) {
        (Conn::Ahead, _) => Conn::Behind,
        (_, Conn::WFReportParams) => Conn::Connected,
        // Its disk failed under a verify, and it uses it all the same (`pass_on`).
        (Conn::Connected, conn) if conn.is_verify() && disk == Disk::Inconsistent => {
            Conn::Connected
        }
        (_, conn) => conn,
    }
}

const fn refusal(why: RefusedBecause) -> Note {
    match why {
        RefusedBecause::UnrelatedData => Note::Unrelated,
        RefusedBecause::NeedsProtocol(apv) => Note::NeedsProtocol(apv),
        RefusedBecause::NeedsFeatures { apv, features } => Note::NeedsFeatures { apv, features },
        RefusedBecause::SplitBrain => Note::SplitBrain,
        RefusedBecause::SourceInconsistent => Note::NoSourceWithoutData,
        RefusedBecause::TargetIsPrimary => Note::PrimaryWouldLose { anyway: false },
        RefusedBecause::DryRun(dry) => Note::DryRun(dry),
    }
}

const fn command_of(helper: Helper) -> HelperCommand {
    match helper {
        Helper::InitialSplitBrain => HelperCommand::InitialSplitBrain,
        Helper::PriLostAfterSb => HelperCommand::PriLostAfterSb,
        Helper::SplitBrain => HelperCommand::SplitBrain,
        Helper::PriLost => HelperCommand::PriLost,
    }
}
