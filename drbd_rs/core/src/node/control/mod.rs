// SPDX-License-Identifier: GPL-2.0

//! States, what nodes tell each other about them, and what administrators ask for.
//!
//! ```text
//!  command() ─▶ admin/ ──┐                       ┌─▶ after_change (deferred, in order)
//!  STATE, SIZES, UUIDS ──┼─▶ change_state/_conn ─┤
//!  Lost, Connected ──────┘      (change.rs)      └─▶ StateChanged, Log, md flags (at once)
//! ```
//!
//! Invariants:
//! - `Volume::state` and `ConnectionControl::cstate` are written in `change.rs` only.
//! - One administrator's request runs at a time ([`ResourceControl::op`]); each is answered once.
//! - A continuation ([`Next`]) only notes that something is over; the work goes on in
//!   `control_pump`, so that no chain of continuations grows the stack.
//!
//! Not here: I/O of applications and peers (`request/`), bitmap exchange and resync (`resync/`).

pub mod admin;
mod after_change;
mod at_odds;
mod change;
mod connect;
mod disk;
mod handshake;
mod helper;
mod open;
mod recv_sizes;
mod recv_state;
mod recv_uuids;
mod size;
mod state_request;
pub mod status;
mod step;
mod timers;
mod waits;

pub(crate) use change::{Flags, StateChange};
pub use disk::BackingLimits;
pub(crate) use disk::{Disk, IoErrorKind};
pub(crate) use helper::HelperCall;
pub use open::OpenRefused;
pub(crate) use recv_uuids::differs;
pub(crate) use timers::Ping;

use crate::nl::conf::{NetConf, ResourceOpts};
use crate::state::conn::State as Conn;
use crate::state::Role;
use crate::time::Instant;
use crate::units::Sectors;
use crate::wire::{Name64, QueueLimits, Uuids};

use super::io::{OpId, PeerIx, VolIx};

/// Where the control part goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The request part has settled everything that the lost connection left behind.
    RequestsQuiet {
        /// Which connection was lost.
        peer: PeerIx,
    },
    /// The deferred effect of a state change that waited for I/O or a helper goes on.
    AfterChange {
        /// Of which volume.
        vol: VolIx,
    },
    /// The administrator's request goes on, if it is still that one.
    Operation {
        /// Which.
        op: OpId,
    },
    /// All bits were set and written for the full sync that the handshake decided on.
    FullSyncReady {
        /// Of which volume.
        vol: VolIx,
    },
    /// All bits were cleared and written, as the peer wants no first resync.
    SyncSkipped {
        /// Of which volume.
        vol: VolIx,
    },
    /// The last metadata of a failed or detached disk was written, as far as that was possible.
    LastWords {
        /// Of which volume.
        vol: VolIx,
    },
    /// A size change goes through its writes (metadata.md §4).
    Resize {
        /// Of which volume.
        vol: VolIx,
        /// Which of its steps; an older one is over already.
        turn: u32,
    },
    /// The device has the size that the peer's SIZES led to.
    SizesSettled {
        /// Of which volume.
        vol: VolIx,
    },
    /// A volume has written its bitmap after a connection was lost.
    CleanedUp,
    /// A new generation of data is stored, and the peer may be greeted.
    GenerationStored,
    /// What this node began is stored, and the peer hears its UUIDs and state.
    TellAgain {
        /// Of which volume.
        vol: VolIx,
    },
    /// The superblock says that the activity log does not count.
    LogStops {
        /// Of which volume.
        vol: VolIx,
    },
    /// The activity log on disk is complete again, and what it does not name is in the bitmap.
    LogCaughtUp {
        /// Of which volume.
        vol: VolIx,
    },
    /// fence-peer is back.
    Fenced {
        /// The peer that was to be fenced.
        peer: PeerIx,
    },
}

/// What both sides agreed on before the handshake of the machine began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agreed {
    /// Protocol version, 86 to 101.
    pub(crate) apv: u32,
    /// Feature flags, see [`crate::wire::feature`].
    pub(crate) features: u32,
    /// This node accepted the meta socket (RESOLVE_CONFLICTS).
    pub(crate) arbiter: bool,
}

/// The life of receiver thread and sockets.
///
/// ```text
///  None ─connect─▶ Connecting ─Connected─▶ Up ─Lost, disconnect─▶ Closing ─Closed─▶ Quieting
///   ▲                 ▲  └────────────ConnectFailed, disconnect─────▲                │
///   │                 └───────────────(Unconnected)──────────────────────────────────┤
///   └─ReceiverGone─ Exiting ◀─────────(Disconnecting → StandAlone)───────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// No receiver thread.
    #[default]
    None,
    /// The thread connects, agrees on features and authenticates.
    Connecting,
    /// Packets flow.
    Up,
    /// The sockets are being closed.
    Closing,
    /// The sockets are closed; requests and volumes settle.
    Quieting(connect::Quieting),
    /// The thread is to end.
    Exiting,
}

/// Suspension of I/O, for the whole resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Suspended {
    /// By `suspend-io`.
    pub(crate) user: bool,
    /// No data can be reached (on-no-data-accessible suspend-io).
    pub(crate) no_data: bool,
    /// Until the peer is fenced.
    pub(crate) fencing: bool,
}

/// What `control/` keeps about a resource.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct ResourceControl {
    /// Options of the resource.
    pub(crate) opts: ResourceOpts,
    /// Suspension, merged into each volume's state.
    pub(crate) susp: Suspended,
    /// The administrator's request that is being worked on.
    pub(crate) op: Option<admin::Operation>,
    /// Helpers that run.
    pub(crate) helpers: [Option<HelperCall>; helper::CALLS],
    /// The number of the last helper call.
    pub(crate) next_helper: u32,
    /// The exit code of the helper whose continuation runs.
    pub(crate) helper_code: u8,
    /// A continuation ran, or a state changed: all parts have to look again.
    pub(crate) stirred: bool,
}

crate::key::key! {
    ResourceControl { susp, op, helpers, helper_code, stirred }
    names {}
    not { opts, next_helper }
}

/// What `control/` keeps about a connection.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct ConnectionControl {
    /// The configuration; `None` while never configured, and after `disconnect`.
    pub(crate) conf: Option<NetConf>,
    /// The state of the connection, 0 to 9 (StandAlone to WFReportParams).
    pub(crate) cstate: Conn,
    /// Receiver thread and sockets.
    pub(crate) phase: Phase,
    /// Set from `Connected` until the sockets are closed.
    pub(crate) agreed: Option<Agreed>,
    /// The version that was agreed on last; 80, the C driver's first guess, while a connection is
    /// being made; 0 before the first one.
    pub(crate) last_apv: u32,
    /// The first packets are outstanding: of all (`Some(None)`), or of the volumes from this one.
    pub(crate) greeting: Option<Option<u16>>,
    /// New generations of data that have to be stored before the first packets.
    pub(crate) greeting_waits: u16,
    /// Volumes from this one on have to send their SYNC_PARAM again.
    pub(crate) params_due: Option<u16>,
    /// Pings and their answers.
    pub(crate) ping: Ping,
    /// The first packets were sent, and some volume is still in WFReportParams (STATE_SENT).
    pub(crate) state_sent: bool,
    /// This side's data are thrown away should this handshake find a split brain.
    pub(crate) discard_my_data: bool,
    /// The peer only wants to see what would happen.
    pub(crate) dry_run: bool,
    /// The integrity algorithm of what the peer sends.
    pub(crate) peer_integrity: Name64,
    /// A request to the peer for a state change, and what it said.
    pub(crate) request: Option<state_request::ClusterRequest>,
    /// Answers that the peer owes to requests for state changes, dropped ones included.
    pub(crate) replies_due: u32,
    /// Of those, bit by bit, the next one first: which are about a resync or verify that this node
    /// has given up since. Should the peer agree, it begins alone.
    pub(crate) given_up: u64,
    /// When WFReportParams was last reached.
    pub(crate) last_reconnect: Instant,
    /// Volumes that reached Connected since the resource was made; wraps.
    pub(crate) connect_count: u32,
    /// fence-peer runs.
    pub(crate) fence: Option<helper::Fence>,
    /// Deferred effects of changes of the whole connection.
    pub(crate) after: after_change::ConnectionQueue,
}

crate::key::key! {
    ConnectionControl {
        cstate, phase, agreed, last_apv, greeting, greeting_waits, params_due, ping, state_sent,
        discard_my_data, dry_run, request, replies_due, given_up, fence, after
    }
    names {}
    not { conf, peer_integrity, last_reconnect, connect_count }
}

/// What `control/` keeps about a volume.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct VolumeControl {
    /// UUID of the data that applications have seen (exposed data).
    pub(crate) ed_uuid: u64,
    /// Openers of the block device.
    pub(crate) opened: u32,
    /// A new current UUID is due as soon as I/O is resumed (NEW_CUR_UUID).
    pub(crate) new_current_uuid: bool,
    /// The peer has refused a write of this node since the current UUID is what it is.
    pub(crate) peer_lacks: bool,
    /// The last promotion changed the state of the disk: it made it UpToDate.
    pub(crate) promoted_disk: bool,
    /// The peer may lack writes that are marked in the bitmap alone: the same is due before it is
    /// greeted.
    pub(crate) frozen_lost: bool,
    /// Applications know of writes that are not on the disk that was here last.
    pub(crate) own_lacks: bool,
    /// A write is not on both disks, and the own one was gone when that was to be marked. So until
    /// a resync has ended: an attach may come to nothing.
    pub(crate) marks_lost: bool,
    /// This node crashed while it was Primary (CRASHED_PRIMARY).
    pub(crate) crashed_primary: bool,
    /// The next STATE of the peer leads to a handshake (CONSIDER_RESYNC).
    pub(crate) consider_resync: bool,
    /// Resync of a grown device follows the negotiation (RESYNC_AFTER_NEG).
    pub(crate) resync_after_neg: bool,
    /// The timeout type is that of a degraded cluster (USE_DEGR_WFC_T).
    pub(crate) degraded_wfc: bool,
    /// Writes do not touch the activity log (AL_SUSPENDED).
    pub(crate) al_suspended: bool,
    /// The largest request of the block device, bytes.
    pub(crate) max_bio: u32,
    /// Bits out of sync, as last told to the peer.
    pub(crate) told_bits: u64,
    /// When the disk was last attached, or its negotiation ended.
    pub(crate) attached_at: Instant,
    /// Local I/O failed (WAS_IO_ERROR).
    pub(crate) was_io_error: bool,
    /// A local read failed (WAS_READ_ERROR).
    pub(crate) was_read_error: bool,
    /// The disk has failed (`pass_on`) and counts as UpToDate all the same, as it is source of a
    /// resync: until the target has all.
    pub(crate) bad_source: bool,
    /// A resync has made this disk UpToDate, and the source has yet to hear so.
    pub(crate) end_untold: bool,
    /// Local I/O is aborted, not waited for (FORCE_DETACH).
    pub(crate) force_detach: bool,
    /// The activity log counted a moment ago (`meta_flags::log_counts`), and the bitmap is not yet
    /// on disk: until then the superblock says that it counts, should this node crash.
    pub(crate) demoting: bool,
    /// The peer asked whether it may detach and was told yes; it has not said that it did. If it
    /// is Primary a generation of data begins when it does, or with its first write. The C driver
    /// begins it with the question, and keeps it if the peer then keeps its disk: two generations,
    /// and a split brain that is none.
    pub(crate) peer_detaches: bool,
    /// The peer hears the UUIDs once more as soon as they are stable.
    pub(crate) tells_again: bool,
    /// The peer, if there is one, was told that the disk failed.
    pub(crate) failure_sent: bool,
    /// So it was, the helper too, and the superblock is written.
    pub(crate) failure_told: bool,
    /// How far the last writes of a failed disk are.
    pub(crate) last_words: disk::LastWords,
    /// The owner may take the volume.
    pub(crate) deleted: bool,
    /// The owner may take the backing device.
    pub(crate) dropped: bool,
    /// It may as soon as nothing is in flight to it any more.
    pub(crate) drop_due: bool,
    /// A new size is being written.
    pub(crate) resize: Option<size::Resize>,
    /// Counts the steps of all changes of size.
    pub(crate) resize_turn: u32,
    /// This node's `resize` made the device larger; the peer's answer is outstanding
    /// (RESIZE_PENDING).
    pub(crate) resize_pending: bool,
    /// The last change of size made the device larger.
    pub(crate) grew: bool,
    /// The size before the device grew, until a resync begins.
    pub(crate) grown_from: Option<Sectors>,
    /// What is left to do about a SIZES packet.
    pub(crate) sizes_rest: Option<recv_sizes::SizesRest>,
    /// The peer owes its sizes, and until it has told them the role stays what it is.
    pub(crate) sizes_due: bool,
    /// The peer was asked whether this node may take a role, which it has not taken: it may count
    /// that as taken.
    pub(crate) role_asked: bool,
    /// The role that the peer was told.
    pub(crate) told_role: Role,
    /// The same when it was told the size of this node's device.
    pub(crate) sized_role: Role,
    /// The disk was measured anew after a peer that connects was told its size.
    pub(crate) outgrown: bool,
    /// The state of the disk that the peer was told.
    pub(crate) told_disk: crate::state::disk::State,
    /// SIZES that came during a change of size.
    pub(crate) sizes_parked: Option<crate::wire::Sizes>,
    /// How long it has been the peer's turn.
    pub(crate) wait: waits::Wait,
    /// State changes whose deferred effects are outstanding.
    pub(crate) after: after_change::Queue,
}

crate::key::key! {
    VolumeControl {
        opened, new_current_uuid, frozen_lost, marks_lost, crashed_primary, peer_lacks,
        promoted_disk, own_lacks, consider_resync, resync_after_neg, degraded_wfc, al_suspended,
        max_bio, was_io_error, was_read_error, bad_source, end_untold, force_detach, demoting,
        peer_detaches, tells_again, failure_sent, failure_told, last_words, deleted, dropped,
        drop_due, resize, resize_pending, grew, grown_from, sizes_rest, sizes_due, told_role,
        sized_role, outgrown, told_disk, role_asked, sizes_parked, after
    }
    names {}
    not { ed_uuid, told_bits, attached_at, resize_turn, wait }
}

/// What `control/` keeps about one volume at one peer.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct PeerDeviceControl {
    /// The peer's UUIDS packet.
    pub(crate) uuids: Option<Uuids>,
    /// The name that a resync, of which the peer is target, was given since; 0: none.
    pub(crate) named: u64,
    /// The peer's capacity, 0 if it has no disk.
    pub(crate) size: Sectors,
    /// The peer's limit for one bio, bytes.
    pub(crate) max_bio: u32,
    /// The peer's queue limits, where FF_WSAME is agreed.
    pub(crate) limits: Option<QueueLimits>,
    /// The peer has said that it is connected, too: no word from before that is under way.
    pub(crate) greeted: bool,
    /// The peer has said that it waits for the name of a resync.
    pub(crate) awaits_name: bool,
    /// The peer has said that its I/O is suspended.
    pub(crate) suspended: bool,
    /// What is being written before the peer's word is acted on.
    pub(crate) prepares: Option<recv_state::Prepares>,
    /// The own data of this volume are given up should there be a split brain.
    pub(crate) discard_my_data: bool,
}

impl ResourceControl {
    /// A resource without volumes, StandAlone.
    pub(crate) fn new(opts: ResourceOpts) -> ResourceControl {
        ResourceControl {
            opts,
            susp: Suspended::default(),
            op: None,
            helpers: [None; helper::CALLS],
            next_helper: 0,
            helper_code: 0,
            stirred: false,
        }
    }
}

impl ConnectionControl {
    /// StandAlone, not configured.
    pub(crate) const fn new() -> ConnectionControl {
        ConnectionControl {
            conf: None,
            cstate: Conn::StandAlone,
            phase: Phase::None,
            agreed: None,
            last_apv: 0,
            greeting: None,
            greeting_waits: 0,
            params_due: None,
            ping: Ping::new(),
            state_sent: false,
            discard_my_data: false,
            dry_run: false,
            peer_integrity: Name64::EMPTY,
            request: None,
            replies_due: 0,
            given_up: 0,
            last_reconnect: Instant(0),
            connect_count: 0,
            fence: None,
            after: after_change::ConnectionQueue::EMPTY,
        }
    }
}

impl VolumeControl {
    /// Whether a change of size is under way here, or is to follow.
    pub(super) fn changes_size(&self) -> bool {
        self.resize.is_some() || self.sizes_parked.is_some() || self.sizes_rest.is_some()
    }

    /// Without a disk, never opened.
    pub(crate) const fn new() -> VolumeControl {
        VolumeControl {
            ed_uuid: 0,
            opened: 0,
            new_current_uuid: false,
            peer_lacks: false,
            promoted_disk: false,
            own_lacks: false,
            frozen_lost: false,
            marks_lost: false,
            crashed_primary: false,
            consider_resync: false,
            resync_after_neg: false,
            degraded_wfc: false,
            al_suspended: false,
            max_bio: crate::limits::MAX_BIO_SIZE_SAFE,
            told_bits: 0,
            attached_at: Instant(0),
            was_io_error: false,
            was_read_error: false,
            bad_source: false,
            end_untold: false,
            force_detach: false,
            demoting: false,
            peer_detaches: false,
            tells_again: false,
            failure_sent: false,
            failure_told: false,
            last_words: disk::LastWords::None,
            dropped: false,
            drop_due: false,
            deleted: false,
            resize: None,
            resize_turn: 0,
            resize_pending: false,
            grew: false,
            grown_from: None,
            sizes_rest: None,
            sizes_due: false,
            role_asked: false,
            told_role: Role::Secondary,
            sized_role: Role::Secondary,
            outgrown: false,
            told_disk: crate::state::disk::State::Diskless,
            sizes_parked: None,
            wait: waits::Wait::NONE,
            after: after_change::Queue::EMPTY,
        }
    }
}

impl PeerDeviceControl {
    /// Nothing is known of the peer.
    pub(crate) const fn new() -> PeerDeviceControl {
        PeerDeviceControl {
            uuids: None,
            named: 0,
            size: Sectors(0),
            max_bio: crate::limits::MAX_BIO_SIZE_SAFE,
            limits: None,
            greeted: false,
            awaits_name: false,
            suspended: false,
            prepares: None,
            discard_my_data: false,
        }
    }
}

#[cfg(test)]
mod tests;
