// SPDX-License-Identifier: GPL-2.0

//! What a committed change entails.
//!
//! [`Now`] effects are carried out under the lock, right after the new state was stored; [`Later`]
//! effects by the worker, which may sleep. Both sets are walked in the order of declaration: that
//! order is DRBD's, and the peer relies on parts of it. Every change also wakes all waiters and is
//! logged before ([`super::log`]).
//!
//! By the time the worker runs, the state may have moved on. Where an effect depends on facts of
//! that later moment its description says which; the functions at the end judge them.

use super::meta_flags::log_counts;
use super::types::State;
use super::{conn::State as Conn, disk::State as Disk, role::Role};

/// Declares an enum of effects and the set of them, walked in the order of declaration.
macro_rules! effect_set {
    (
        $(#[$about_set:meta])*
        pub struct $set:ident;
        $(#[$about:meta])*
        pub enum $effect:ident {
            $($(#[$about_one:meta])* $one:ident = $bit:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $effect {
            $($(#[$about_one])* $one = $bit,)+
        }

        impl $effect {
            /// All of them, in the order in which they are carried out.
            pub const ALL: &'static [$effect] = &[$($effect::$one),+];

            const fn mask(self) -> u64 {
                match self {
                    $($effect::$one => 1 << $bit,)+
                }
            }
        }

        $(#[$about_set])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $set(u64);

        impl $set {
            /// Nothing to do.
            pub const NONE: $set = $set(0);

            /// Whether there is nothing to do.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether `effect` is to be carried out.
            pub const fn contains(self, effect: $effect) -> bool {
                self.0 & effect.mask() != 0
            }

            /// One bit for each effect, in the order of declaration.
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// The effects, in the order in which they are carried out.
            pub fn iter(self) -> impl Iterator<Item = $effect> {
                $effect::ALL.iter().copied().filter(move |e| self.contains(*e))
            }

            fn when(&mut self, condition: bool, effect: $effect) {
                if condition {
                    self.0 |= effect.mask();
                }
            }
        }
    };
}

effect_set! {
    /// What is to be done under the lock, see [`Now`].
    pub struct NowSet;
    /// One thing to be done under the lock, right after the new state was stored.
    pub enum Now {
        /// Take a reference to the backing device, for [`Later::DiskFailed`] or
        /// [`Later::WentDiskless`] to drop. The only effect that comes *before* the new state
        /// is stored.
        HoldBackingDevice = 0,
        /// Forget that the last resync was done. Also before the new state is stored.
        ForgetResyncDone = 1,
        /// Close the epoch of the transfer log: replicated and other writes never share one.
        NewEpoch = 2,
        /// Log `attached to UUIDs`.
        LogAttachedUuids = 3,
        /// If no volume of the connection is in WFReportParams any more: forget that the first
        /// state packet was sent and wake the waiters of all volumes.
        LeftReportParams = 4,
        /// Keep the position that verify reached as the start of the next one.
        KeepVerifyPosition = 5,
        /// Log `Syncer continues.`, count the pause.
        ResyncContinues = 6,
        /// Let the resync timer fire at once.
        KickResyncTimer = 7,
        /// Log `Resync suspended`, note the time.
        ResyncPauses = 8,
        /// Set position, counters, speed marks and rate controller for a verify started here, and
        /// let the resync timer fire at once.
        StartVerifySource = 9,
        /// Set counters, speed marks and rate controller for a verify started by the peer; its
        /// first request tells the position.
        StartVerifyTarget = 10,
        /// Recompute the flags of the meta data ([`super::meta_flags::recompute`]); if they
        /// differ, mark the meta data dirty.
        RecomputeMetaFlags = 11,
        /// The UUID of the data in use becomes the current UUID on the disk.
        AdoptDataUuid = 12,
        /// Decide about a resync again when the next state packet of the peer arrives.
        ConsiderResync = 13,
        /// Let the receiver thread end its connection, or itself.
        StopReceiver = 14,
        /// Let the receiver thread end its connection and start over.
        RestartReceiver = 15,
        /// Write the activity log again; count the connection.
        ConnectionUp = 16,
        /// Remember the time: requests frozen before the attach must not time out now.
        NoteAttachTime = 17,
    }
}

effect_set! {
    /// What is to be done by the worker, see [`Later`].
    pub struct LaterSet;
    /// One thing to be done by the worker. Events for user space come before all of them.
    pub enum Later {
        /// Forget that this node, and the peer, crashed as Primary.
        ForgetCrashedPrimary = 0,
        /// Run the helper `pri-on-incon-degr`.
        HelperPriOnInconDegr = 1,
        /// Perhaps end the suspension for lack of data: ask [`thaw_no_data`].
        ThawNoData = 2,
        /// Perhaps end the suspension for fencing, as the peer is back: if `susp_fen` is still set
        /// and all volumes are >= Connected, forget [`NewUuid::Defer`] on all volumes, resend the
        /// frozen requests, clear `susp_fen`.
        ThawFenced = 3,
        /// Give the resync a UUID, store it, send it ([`crate::uuid::UuidSet::begin_sync_source`]).
        /// Must precede every state packet. Only with a disk.
        SendSyncUuid = 4,
        /// Reset the counters of the resync, cancel what is pending of it, send UUIDs and state.
        PeerAttached = 5,
        /// Send the bitmap, if the connection still is in WFBitMapS.
        SendBitmap = 6,
        /// Perhaps start a new generation of the data: ask [`uuid_when_peer_data_lost`].
        PeerDataLost = 7,
        /// A peer without a disk became Primary: new current UUID and send UUIDs, if the bitmap
        /// UUID is 0. Only with a disk.
        DisklessPeerPromoted = 8,
        /// A peer without a disk became Secondary: write the bitmap. Only with a disk.
        DisklessPeerDemoted = 9,
        /// Write the bitmap; only then may the superblock say that the activity log does not count.
        /// Only with a disk.
        Demoted = 10,
        /// Last step of an attach: send sizes, UUIDs and state.
        SendAttached = 11,
        /// Send the state: the reasons to pause changed.
        SendStatePause = 12,
        /// Pause the volumes that name this one in `resync-after`.
        PauseDependants = 13,
        /// Send the state: what changed during WFReportParams the peer has not heard.
        SendStateConnected = 14,
        /// Send the state: now Ahead.
        SendStateAhead = 15,
        /// Set and write all bits of the bitmap, then go on: ask [`after_full_bitmap`].
        StartFullSync = 16,
        /// First half of losing the disk. With a backing device: if an I/O error caused it and
        /// `on-io-error` says so, the helper `local-io-error`; if forced, abort local I/O; send the
        /// state if connected; cancel the resync; write the meta data. Then drop the reference.
        DiskFailed = 17,
        /// Second half of losing the disk: send the state if connected, drop the reference.
        WentDiskless = 18,
        /// Send the state: an I/O error made the own copy Inconsistent.
        SendStateInconsistent = 19,
        /// If the device grew while no disk was there, forget that; if the new state is Connected
        /// resync the new area.
        ResyncGrown = 20,
        /// Let the volumes go on that were waiting for this one.
        ResumeDependants = 21,
        /// Send the state: the resync of this target is over.
        SendStateSyncDone = 22,
        /// Send the state: the verify stopped, perhaps where the peer did not expect it.
        SendStateVerifyDone = 23,
        /// Write the changed pages of the bitmap. Only with a disk.
        WriteBitmap = 24,
        /// Let the volumes go on: this one is unconfigured and waits for none any more.
        ResumeDependantsUnconfigured = 25,
        /// Write the meta data if dirty.
        SyncMeta = 26,
    }
}

/// All that a change entails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChangeEffects {
    /// To be done under the lock.
    pub now: NowSet,
    /// To be done by the worker.
    pub later: LaterSet,
}

/// What the committed change from `old` to `new` entails; `apv` is the agreed protocol version.
pub fn effects(old: State, new: State, apv: u32) -> ChangeEffects {
    let mut now = NowSet::NONE;
    now_disk(&mut now, old, new);
    now_resync(&mut now, old, new);
    now_connection(&mut now, old, new);
    let mut later = LaterSet::NONE;
    later_data(&mut later, old, new, apv);
    later_state_packets(&mut later, old, new);
    later_resync(&mut later, old, new);
    ChangeEffects { now, later }
}

fn now_disk(now: &mut NowSet, old: State, new: State) {
    let enters = |state| old.disk != state && new.disk == state;
    now.when(
        enters(Disk::Failed) || enters(Disk::Diskless),
        Now::HoldBackingDevice,
    );
    now.when(
        old.disk == Disk::Attaching && new.disk >= Disk::Negotiating,
        Now::LogAttachedUuids,
    );
    let attached = new.disk >= Disk::Inconsistent;
    now.when(attached, Now::RecomputeMetaFlags);
    now.when(
        old.disk < Disk::Consistent && new.disk >= Disk::Consistent,
        Now::AdoptDataUuid,
    );
    now.when(
        matches!(old.disk, Disk::Attaching | Disk::Negotiating) && new.disk > Disk::Negotiating,
        Now::NoteAttachTime,
    );
    // Unless that is decided with the same packet.
    now.when(
        promoted_by_force(old, new.peer) && new.conn <= Conn::Connected,
        Now::ConsiderResync,
    );
}

fn now_resync(now: &mut NowSet, old: State, new: State) {
    let paused = |s: State| matches!(s.conn, Conn::PausedSyncT | Conn::PausedSyncS);
    let running = |s: State| matches!(s.conn, Conn::SyncTarget | Conn::SyncSource);
    now.when(
        !old.conn.is_sync() && new.conn.is_sync(),
        Now::ForgetResyncDone,
    );
    now.when(
        old.conn.is_verify() && new.conn <= Conn::Connected,
        Now::KeepVerifyPosition,
    );
    let continues = paused(old) && running(new);
    now.when(continues, Now::ResyncContinues);
    now.when(
        continues && new.conn == Conn::SyncTarget,
        Now::KickResyncTimer,
    );
    now.when(running(old) && paused(new), Now::ResyncPauses);
    let from_connected = old.conn == Conn::Connected;
    now.when(
        from_connected && new.conn == Conn::VerifyS,
        Now::StartVerifySource,
    );
    now.when(
        from_connected && new.conn == Conn::VerifyT,
        Now::StartVerifyTarget,
    );
}

fn now_connection(now: &mut NowSet, old: State, new: State) {
    let enters = |conn| old.conn != conn && new.conn == conn;
    now.when(old.replicates() != new.replicates(), Now::NewEpoch);
    now.when(
        old.conn == Conn::WFReportParams && new.conn != Conn::WFReportParams,
        Now::LeftReportParams,
    );
    now.when(
        enters(Conn::Disconnecting) || enters(Conn::StandAlone),
        Now::StopReceiver,
    );
    now.when(
        old.conn > Conn::WFConnection && new.conn.is_broken(),
        Now::RestartReceiver,
    );
    now.when(
        old.conn < Conn::Connected && new.conn >= Conn::Connected,
        Now::ConnectionUp,
    );
}

fn later_data(later: &mut LaterSet, old: State, new: State, apv: u32) {
    later.when(
        !old.both_good() && new.both_good(),
        Later::ForgetCrashedPrimary,
    );
    later.when(
        !old.primary_without_data() && new.primary_without_data(),
        Later::HelperPriOnInconDegr,
    );
    later.when(
        new.susp_nod && (reconnecting(old) || reattaching(old)),
        Later::ThawNoData,
    );
    later.when(new.susp_fen, Later::ThawFenced);
    let source = |s: State| matches!(s.conn, Conn::SyncSource | Conn::PausedSyncS);
    later.when(
        !source(old) && source(new) && apv >= 96,
        Later::SendSyncUuid,
    );
    // A peer that attaches at the same time as this node has said so before it had UUIDs to tell:
    // the C driver does not answer those, and the peer waits for ever.
    later.when(
        match old.pdsk {
            Disk::Diskless => !matches!(new.pdsk, Disk::Diskless | Disk::DUnknown),
            Disk::Attaching => new.pdsk > Disk::Negotiating && new.pdsk != Disk::DUnknown,
            Disk::Failed
            | Disk::Negotiating
            | Disk::Inconsistent
            | Disk::Outdated
            | Disk::DUnknown
            | Disk::Consistent
            | Disk::UpToDate => false,
        },
        Later::PeerAttached,
    );
    later.when(
        lost_contact_to_peer_data(old.pdsk, new.pdsk) || lost_a_bad_copy(old, new),
        Later::PeerDataLost,
    );
    let no_peer_disk = new.pdsk < Disk::Inconsistent;
    later.when(
        no_peer_disk
            && old.peer != Role::Primary
            && new.peer == Role::Primary
            && new.disk >= Disk::UpToDate,
        Later::DisklessPeerPromoted,
    );
    later.when(
        no_peer_disk && old.peer == Role::Primary && new.peer == Role::Secondary,
        Later::DisklessPeerDemoted,
    );
    later.when(log_counts(old) && !log_counts(new), Later::Demoted);
    let enters = |state| old.disk != state && new.disk == state;
    later.when(enters(Disk::Failed), Later::DiskFailed);
    later.when(enters(Disk::Diskless), Later::WentDiskless);
    later.when(true, Later::SyncMeta);
}

fn later_state_packets(later: &mut LaterSet, old: State, new: State) {
    let connected = new.conn >= Conn::Connected;
    later.when(
        connected && old.disk == Disk::Attaching && new.disk == Disk::Negotiating,
        Later::SendAttached,
    );
    later.when(
        connected && (old.aftr_isp != new.aftr_isp || old.user_isp != new.user_isp),
        Later::SendStatePause,
    );
    later.when(
        connected && old.conn == Conn::WFReportParams,
        Later::SendStateConnected,
    );
    later.when(
        old.conn != Conn::Ahead && new.conn == Conn::Ahead,
        Later::SendStateAhead,
    );
    later.when(
        connected && old.disk == Disk::UpToDate && new.disk == Disk::Inconsistent,
        Later::SendStateInconsistent,
    );
    later.when(
        old.disk < Disk::UpToDate && old.conn >= Conn::SyncSource && new.conn == Conn::Connected,
        Later::SendStateSyncDone,
    );
    // A target that does not know of stop sectors counts blocks, and may expect more of them if the
    // device has just grown. The C driver does not tell it, and it waits for ever.
    later.when(
        old.conn == Conn::VerifyS && new.conn == Conn::Connected,
        Later::SendStateVerifyDone,
    );
}

impl LaterSet {
    /// Two changes are carried out as one, which ends in `new` and entails `self`: beside that the
    /// peer is told what each of the two entailed, which begin and end of the whole may not show.
    #[must_use]
    pub(crate) fn and_told(mut self, two: [LaterSet; 2], new: State) -> LaterSet {
        let linked = new.conn >= Conn::Connected;
        let rests = new.conn == Conn::Connected;
        for (effect, still) in [
            (Later::SendStatePause, linked),
            (Later::SendStateConnected, linked),
            (Later::SendStateInconsistent, linked),
            (Later::SendStateSyncDone, rests),
            (Later::SendStateVerifyDone, rests),
        ] {
            let told = two.iter().any(|later| later.contains(effect));
            self.when(still && told, effect);
        }
        self
    }
}

fn later_resync(later: &mut LaterSet, old: State, new: State) {
    let enters = |conn| old.conn != conn && new.conn == conn;
    later.when(enters(Conn::WFBitMapS), Later::SendBitmap);
    later.when(!old.has_isp() && new.has_isp(), Later::PauseDependants);
    later.when(
        enters(Conn::StartingSyncT) || enters(Conn::StartingSyncS),
        Later::StartFullSync,
    );
    later.when(
        new.disk > Disk::Negotiating && new.pdsk > Disk::Negotiating,
        Later::ResyncGrown,
    );
    later.when(
        (old.conn > Conn::Connected && new.conn <= Conn::Connected)
            || (old.peer_isp && !new.peer_isp)
            || (old.user_isp && !new.user_isp),
        Later::ResumeDependants,
    );
    later.when(
        old.conn > Conn::Connected
            && old.conn < Conn::Ahead
            && (new.conn == Conn::Connected || new.conn >= Conn::Ahead),
        Later::WriteBitmap,
    );
    later.when(
        new.is_unconfigured() && old.aftr_isp != new.aftr_isp,
        Later::ResumeDependantsUnconfigured,
    );
}

fn reconnecting(old: State) -> bool {
    old.conn < Conn::Connected
}

fn reattaching(old: State) -> bool {
    matches!(old.disk, Disk::Attaching | Disk::Negotiating)
}

/// Whether the peers of this protocol version know that a verify can stop early: 97 and later, but
/// not 100.
pub(crate) const fn knows_stop_sector(apv: u32) -> bool {
    apv >= 97 && apv != 100
}

/// Both copies were bad and the peer, which has the role `peer` now, was promoted by force: its
/// copy counts as good.
pub(crate) fn promoted_by_force(old: State, peer: Role) -> bool {
    let bad = old.disk == Disk::Inconsistent && old.pdsk == Disk::Inconsistent;
    bad && old.peer == Role::Secondary && peer == Role::Primary
}

/// Whether the peer's copy misses what is written from now on, going from `old` to `new`.
pub fn lost_contact_to_peer_data(old: Disk, new: Disk) -> bool {
    let had = old >= Disk::Inconsistent && !matches!(old, Disk::DUnknown | Disk::Outdated);
    let lost = new < Disk::Inconsistent || matches!(new, Disk::DUnknown | Disk::Outdated);
    // Frozen while the peer was away, and now it is back without its data.
    let came_back_without =
        old == Disk::DUnknown && matches!(new, Disk::Diskless | Disk::Failed | Disk::Outdated);
    (had && lost) || came_back_without
}

/// The connection to a copy that has become Inconsistent without a resync is lost, as that of a
/// disk that could not read (`pass_on`). What was on its way there is done here only, and the peer
/// may come back without having noted that its copy is bad, by a loss of power or by a superblock
/// that it could not write: both would have the same UUIDs, and no resync. The C driver begins no
/// generation, as it still calls the copy Inconsistent.
fn lost_a_bad_copy(old: State, new: State) -> bool {
    let bad = |s: State| s.pdsk == Disk::Inconsistent;
    old.conn >= Conn::Connected && new.conn < Conn::Connected && bad(old) && bad(new)
}

/// What to do with frozen requests before `susp_nod` is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Thaw {
    /// Send them to the peer again.
    Resend,
    /// Submit them to the own disk again.
    RestartDiskIo,
}

/// Judges [`Later::ThawNoData`] when it is carried out. `None`: stay suspended.
///
/// `susp_nod_now` is the flag of the resource at this moment; `lowest_conn` and `lowest_disk` are
/// the worst over all volumes of the connection at this moment. `no_data`: a volume has none, here
/// or there. A peer that is back without its disk is no reason to go on: applications would hear of
/// errors, which only `resume-io` may bring about. The C driver goes on.
pub fn thaw_no_data(
    old: State,
    new: State,
    susp_nod_now: bool,
    lowest_conn: Conn,
    lowest_disk: Disk,
    no_data: bool,
) -> Option<Thaw> {
    if !new.susp_nod || !susp_nod_now {
        return None;
    }
    if reattaching(old) && lowest_disk == Disk::UpToDate {
        return Some(Thaw::RestartDiskIo);
    }
    let back = reconnecting(old) && lowest_conn >= Conn::Connected && !no_data;
    back.then_some(Thaw::Resend)
}

/// What to do about the UUIDs when the peer's copy starts to miss writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewUuid {
    /// Nothing.
    No,
    /// New current UUID once application I/O is resumed, which is not before the peer is fenced.
    /// Until then the peer misses nothing that it would not get again.
    Defer,
    /// New current UUID, then send the UUIDs.
    Create,
}

/// Judges [`Later::PeerDataLost`] when it is carried out, with a disk attached.
///
/// `bitmap_uuid` is that of the disk, `suspended` says whether application I/O is, at this moment,
/// `lacks` whether the peer has refused a write since this generation began: a node that is
/// Secondary by now has data of its own, too, which the C driver forgets. An application may know
/// of that write, so this generation does not wait either.
/// A peer that just comes, as Primary without a disk, or to which this disk just comes, has not
/// written anything here so far and may go away again: the C driver does not wait for that, and a
/// split brain may seem to be there.
pub fn uuid_when_peer_data_lost(
    old: State,
    new: State,
    bitmap_uuid: u64,
    suspended: bool,
    lacks: bool,
) -> NewUuid {
    let comes = old.conn < Conn::Connected || old.disk < Disk::UpToDate;
    // It is connected, and writes here whether I/O of this node is suspended or not. The C driver
    // waits for that: what a Primary wrote as its disk failed then passes for being on both disks,
    // and if it attaches that disk, which counts as crashed, both being Primary, for a split brain.
    let at_work = new.peer.is_primary() && !comes && new.conn >= Conn::Connected;
    let in_use = new.role.is_primary() || lacks || new.peer.is_primary() && !comes;
    if !in_use || bitmap_uuid != 0 || new.disk < Disk::UpToDate {
        NewUuid::No
    } else if suspended && !lacks && !at_work {
        NewUuid::Defer
    } else {
        NewUuid::Create
    }
}

/// The step after [`Later::StartFullSync`] set and wrote all bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FullBitmap {
    /// Request WFSyncUUID: the source will send the UUID.
    WaitForSyncUuid,
    /// Start the resync as source.
    StartSource,
    /// Log the failed write and request Connected.
    GiveUp,
    /// The connection is elsewhere already.
    Nothing,
}

/// What to do once all bits are set; `written` says whether they reached the disk, `current` is
/// the connection state at this moment.
pub fn after_full_bitmap(written: bool, current: Conn) -> FullBitmap {
    match (written, current) {
        (false, _) => FullBitmap::GiveUp,
        (true, Conn::StartingSyncT) => FullBitmap::WaitForSyncUuid,
        (true, Conn::StartingSyncS) => FullBitmap::StartSource,
        (true, _) => FullBitmap::Nothing,
    }
}
