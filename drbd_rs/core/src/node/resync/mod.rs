// SPDX-License-Identifier: GPL-2.0

//! Resynchronisation: bringing two copies together again without losing a write.
//!
//! ```text
//!   WFBitMapS ── queue_bitmap_send ─▶ bitmap ─▶ peer        WFBitMapT ◀─ recv_bitmap
//!       │ recv_bitmap of the answer                             │ answer, then WFSyncUUID
//!       ▼                                                       ▼ SYNC_UUID
//!   start_resync(Source)                                    start_resync(Target)
//!       │ RS_DATA_REQUEST ◀──────────────────────────────── target.rs, every 100 ms
//!   source.rs: lock the extent, read ── RS_DATA_REPLY ────▶ write, clear the bit
//!       │ clear the bit ◀────────────────── RS_WRITE_ACK ───────┘
//!       ▼ finished by the target's STATE                    finish.rs: ping, UUIDs, UpToDate
//! ```
//!
//! Invariants, on which the user's data depend:
//! - A resync I/O runs only while its 16 MiB extent is locked, and an extent is locked only while
//!   no application write is in flight in it.
//! - A bit is cleared only because data was written here, or was acknowledged as written there.
//! - While a bitmap is exchanged bits are only set.
//! - What was left when a connection broke is still marked: late completions clear nothing.
//!
//! This is not the bitmap, nor the table of resync extents: those know no peer and no time.

mod bulk;
mod exchange;
mod finish;
mod mark_sync;
mod marks;
mod pause;
mod rate;
mod source;
mod start;
mod target;
mod token;

pub(crate) use marks::Snapshot;

use super::{BufId, PeerIx, VolIx};
use crate::state::conn;
use crate::time::Instant;
use crate::units::SectorRange;

/// Resync I/O of one volume and peer that may be under way at once; beyond that the receiver waits.
pub(crate) const SLOTS: usize = 64;

/// Which way data flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node has the good data.
    Source,
    /// This node is brought up to date.
    Target,
}

impl Side {
    /// The connection state of a running resync on this side.
    pub(crate) const fn conn(self) -> conn::State {
        match self {
            Side::Source => conn::State::SyncSource,
            Side::Target => conn::State::SyncTarget,
        }
    }
}

/// Steps of this part that wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No application write is in flight: the bitmap may be sent.
    BitmapGate(VolIx),
    /// All bits are set and stored: the bitmap may be sent.
    BitmapFilled(VolIx),
    /// `before-resync-*` is back.
    Helper(VolIx, Side),
    /// The superblock says that a full sync is due (set-all only).
    BulkFlagged(VolIx),
    /// The changed bitmap is on disk.
    BulkWritten(VolIx),
    /// The superblock no longer says so.
    BulkDone(VolIx),
    /// The peer has processed all earlier acknowledgements.
    Pinged(VolIx),
    /// The bitmap of a running resync was brought up to date on disk.
    LazyWritten(VolIx),
}

/// What a resync I/O is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing: the slot is free.
    Free,
    /// Source: asked for, waits for its extent.
    Waiting,
    /// Source: being read.
    Reading,
    /// Source: read, on its way to TCP.
    Sending,
    /// Target: being written.
    Writing,
}

/// One resync I/O.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    stage: Stage,
    range: SectorRange,
    buf: Option<BufId>,
    /// The connection on whose behalf it runs still stands.
    current: bool,
}

impl Slot {
    const FREE: Slot = Slot {
        stage: Stage::Free,
        range: SectorRange {
            start: crate::units::Sector(0),
            len: crate::units::Sectors(0),
        },
        buf: None,
        current: false,
    };
}

/// Resync of one volume with one peer.
pub(crate) struct PeerDeviceResync {
    /// The state that this part saw last; see [`pause`].
    seen: conn::State,
    exchange: exchange::Exchange,
    bulk: bulk::Bulk,
    marks: marks::Marks,
    rate: rate::Rate,
    target: target::Target,
    source: source::Source,
    finish: finish::Finish,
    start: start::Start,
    slots: [Slot; SLOTS],
    /// Requests (target) or replies (source) that the peer has not answered.
    pending: u32,
    /// When the bitmap was last written during a resync.
    lazy_at: Option<Instant>,
    /// Another volume, of which this resource knows nothing, must sync first.
    held_back: bool,
}

impl PeerDeviceResync {
    /// No resync.
    pub(crate) const fn new() -> PeerDeviceResync {
        PeerDeviceResync {
            seen: conn::State::StandAlone,
            exchange: exchange::Exchange::new(),
            bulk: bulk::Bulk::new(),
            marks: marks::Marks::new(),
            rate: rate::Rate::new(),
            target: target::Target::new(),
            source: source::Source::new(),
            finish: finish::Finish::Idle,
            start: start::Start::Idle,
            slots: [Slot::FREE; SLOTS],
            pending: 0,
            lazy_at: None,
            held_back: false,
        }
    }
}

/* Entry points, all `impl<S: Store> Resource<S>`:
 * mod.rs        resync_pump(h) -> bool (true: room ran out), resync_deadline() -> Option<Instant>,
 *               resync_rx_paused() -> bool, resync_next(Next, ok, h), resync_idle(vol) -> bool
 *               resync_local_done(IoToken, Option<BufId>, AppResult, h), resync_sent(SendToken, h)
 * exchange.rs   queue_bitmap_send(vol, h), bitmap_chunk(vol, &mut [u8; 4096]) -> Option<usize>,
 *               recv_bitmap(vol, compressed: bool, body, h) -> Result<(), Violation>
 * bulk.rs       set_all_and_write(vol, After, h), clear_all_and_write(vol, After, h)
 * start.rs      start_resync(vol, Side, h), recv_sync_uuid(vol, RsUuid, h)
 * source.rs     (RS_DATA_REQUEST, acks with BlockId::SYNCER)
 * target.rs     (RS_DATA_REPLY, RS_DEALLOCATED, NEG_RS_DREPLY, RS_CANCEL, RS_IS_IN_SYNC)
 *               recv_resync_packet(vol, &Packet, buf, body, intact, h) -> Result<(), Violation>
 *               resync_write_overlaps(vol, SectorRange) -> bool   (D1: peer writes wait while true)
 * mark_sync.rs  set_out_of_sync(vol, SectorRange, h) -> u64, set_in_sync(vol, SectorRange, h),
 *               recv_out_of_sync(vol, BlockDesc, h) -> Result<(), Violation>
 * finish.rs     resync_finished(vol, h)   (D2: on the target's STATE, see receive_state)
 * pause.rs      cancel_resync(vol, h), set_held_back(vol, bool)
 * marks.rs      resync_snapshot(vol) -> Snapshot
 *
 * Needed from D2: call_helper(cmd, vol, After, h) and its code, ping(peer, After, h) (run when the
 * PING_ACK of a ping sent now arrives; ok = false when the connection is lost),
 * change_state, uuid wrappers. Needed from D1: next_seq(vol) -> u32 (packet_seq).
 */
const _: Option<PeerIx> = None;
