// SPDX-License-Identifier: GPL-2.0

//! One resource on one node, as a machine of inputs and effects.
//!
//! ```text
//!   applications ─ Submit ─▶ ┌───────────┐ ─ Local, Meta ─▶ disks
//!   disks ─ LocalDone ─────▶ │ Resource  │ ─ Send ────────▶ sockets
//!   sockets ─ Received ────▶ │  volumes  │ ─ Complete ────▶ applications
//!   netlink ─ command() ───▶ │  peers    │ ─ AdminDone ───▶ netlink
//!   clock ─ Tick ──────────▶ └───────────┘ ─ Log, Helper…─▶ the rest
//! ```
//!
//! The machine never blocks. What the C driver waits for in a thread is a stored continuation here:
//! a request in a queue, [`After`] a metadata write, a pending administrator's request, or the
//! receiver asked to pause ([`ReceiverWish`]). A step does a bounded amount of work; loops over
//! many objects keep a cursor and report [`Progress::More`].
//!
//! Who owns what:
//! - `control/`: states, packets about states, administrators' requests, sizes, UUIDs, timers.
//! - `request/`: application I/O, peer's I/O, epochs, activity log gate, metadata I/O.
//! - `resync/`: bitmap exchange, resync as source and target, marking in and out of sync.

mod control;
mod io;
mod note;
mod request;
mod resync;

use core::hash::Hash;
use core::ops::DerefMut;

pub use control::{admin, status, BackingLimits, OpenRefused};
pub use io::*;
pub use note::{Level, Note};
pub use request::{PeerRequest, Request, SentEpoch, Storage};

use crate::al::ActivityLog;
use crate::bitmap::Bitmap;
use crate::resync_extents::ResyncExtents;
use crate::state::State;
use crate::units::{Minor, Sectors, Vnr};

/// Peers of a resource. The 8.4 protocol knows exactly one; whatever belongs to a peer lives in
/// arrays of this length, so that more of them is a matter of this number and the protocol.
pub const PEERS: usize = 1;

/// The one peer of the 8.4 protocol.
pub const PEER: PeerIx = PeerIx(0);

/// Where the machine's storage comes from: `Vec` on the host, `KVVec` in the kernel.
///
/// The machine never allocates: each vector is made by the owner, in full length, and handed in.
pub trait Store: Sized + 'static {
    /// A vector of fixed length.
    type Vec<T>: DerefMut<Target = [T]>;
    /// Something large, put aside. Never made by the machine, only moved about and dropped.
    type Box<T>: DerefMut<Target = T>;
}

/// What is done once something is durable or an activity has ended. Stored, compared, copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// Nothing.
    Nothing,
    /// A step of the control part goes on.
    Control(control::Next),
    /// A step of the resync part goes on.
    Resync(resync::Next),
    /// A step of the I/O part goes on.
    Request(request::Next),
}

/// A local disk with its metadata, from attach to the end of detach.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Backing<S: Store> {
    /// What does not change often: configuration, placement, superblock. Owned by `control/`.
    pub(crate) disk: control::Disk,
    /// The activity log.
    pub(crate) al: ActivityLog<S::Vec<crate::al::Slot>>,
    /// The bitmap.
    pub(crate) bitmap: Bitmap<S::Vec<u64>, S::Vec<crate::bitmap::PageFlags>>,
    /// Resync extents.
    pub(crate) extents: ResyncExtents<S::Vec<crate::resync_extents::Slot>>,
    /// Metadata I/O in flight and what waits for it. Owned by `request/meta_io.rs`.
    pub(crate) meta_io: request::MetaIo,
}

crate::key::key! {
    Backing<S: Store> { disk, al, bitmap, extents, meta_io }
    names {}
    not {}
}

/// The place of a volume's disk. It is large, and volumes are moved about on small stacks.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(crate) struct BackingPlace<S: Store>(Option<S::Box<Backing<S>>>);

impl<S: Store> Hash for BackingPlace<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl<S: Store> BackingPlace<S> {
    pub(crate) const EMPTY: Self = BackingPlace(None);

    pub(crate) fn as_ref(&self) -> Option<&Backing<S>> {
        self.0.as_deref()
    }

    pub(crate) fn as_mut(&mut self) -> Option<&mut Backing<S>> {
        self.0.as_deref_mut()
    }

    pub(crate) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn put(&mut self, backing: S::Box<Backing<S>>) {
        self.0 = Some(backing);
    }

    pub(crate) fn take(&mut self) -> Option<S::Box<Backing<S>>> {
        self.0.take()
    }
}

/// Storage for the tables of a disk; [`admin::AttachNeeds`] says how much.
pub struct BackingStorage<S: Store> {
    /// Slots of the activity log.
    pub al: S::Vec<crate::al::Slot>,
    /// Words of the bitmap.
    pub words: S::Vec<u64>,
    /// Flags of its pages.
    pub pages: S::Vec<crate::bitmap::PageFlags>,
    /// Slots of the set of resync extents.
    pub extents: S::Vec<crate::resync_extents::Slot>,
}

impl<S: Store> Backing<S> {
    /// A disk that is ready to be attached; `None` if the storage is too small.
    pub fn new(needs: &admin::AttachNeeds, storage: BackingStorage<S>) -> Option<Backing<S>> {
        let bitmap = Bitmap::new(needs.capacity, storage.words, storage.pages).ok()?;
        Some(Backing {
            disk: needs.disk,
            al: ActivityLog::new(storage.al),
            bitmap,
            extents: ResyncExtents::new(storage.extents),
            meta_io: const { request::MetaIo::new() },
        })
    }
}

/// What this node knows about one volume at one peer. Large, so it lives in storage of the owner's
/// and not in the volume, which is moved about on small stacks.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct PeerDevice {
    /// The peer's view: UUIDs, sizes. Owned by `control/`.
    pub(crate) ctl: control::PeerDeviceControl,
    /// Sequence numbers, counters, pending I/O. Owned by `request/`.
    pub(crate) io: request::PeerDeviceIo,
    /// Resync with this peer. Owned by `resync/`.
    pub(crate) resync: resync::PeerDeviceResync,
}

impl PeerDevice {
    /// A peer that nothing is known of.
    pub const fn new() -> PeerDevice {
        PeerDevice {
            ctl: control::PeerDeviceControl::new(),
            io: request::PeerDeviceIo::new(),
            resync: resync::PeerDeviceResync::new(),
        }
    }
}

impl Default for PeerDevice {
    fn default() -> PeerDevice {
        PeerDevice::new()
    }
}

/// The storage of a volume.
pub struct VolumeStorage<S: Store> {
    /// As many as requests of applications and of the peer together.
    pub writes: S::Vec<crate::store::interval::Slot>,
    /// [`PEERS`] of [`PeerDevice::new`].
    pub peers: S::Vec<PeerDevice>,
}

/// One volume.
pub struct Volume<S: Store> {
    /// Minor number of `/dev/drbd<minor>`.
    pub minor: Minor,
    /// Number in the resource.
    pub vnr: Vnr,
    /// The state (susp flags of the resource merged in). Changed only by `control/change.rs`.
    pub(crate) state: State,
    /// Size of the block device.
    pub(crate) size: Sectors,
    /// Owned by `control/`.
    pub(crate) ctl: control::VolumeControl,
    /// Owned by `request/`.
    pub(crate) io: request::VolumeIo<S>,
    /// The local disk. `Some` from the moment of attaching until `DropBacking`.
    pub(crate) backing: BackingPlace<S>,
    /// Per peer.
    pub(crate) peers: S::Vec<PeerDevice>,
}

impl<S: Store> Hash for Volume<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (self.minor, self.vnr, self.state, self.size).hash(state);
        // The mark of the role is never looked at.
        crate::uuid::name(self.ctl.ed_uuid).hash(state);
        (&self.ctl, &self.io, &self.backing).hash(state);
        (*self.peers).hash(state);
    }
}

#[cfg(not(CONFIG_RUST))]
impl<S: Store> Clone for Volume<S>
where
    request::VolumeIo<S>: Clone,
    BackingPlace<S>: Clone,
    S::Vec<PeerDevice>: Clone,
{
    fn clone(&self) -> Self {
        Volume {
            minor: self.minor,
            vnr: self.vnr,
            state: self.state,
            size: self.size,
            ctl: self.ctl.clone(),
            io: self.io.clone(),
            backing: self.backing.clone(),
            peers: self.peers.clone(),
        }
    }
}

/// The connection to one peer. Large like [`PeerDevice`], and kept in the same way.
#[derive(Hash)]
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub struct Connection {
    /// Owned by `control/`.
    pub(crate) ctl: control::ConnectionControl,
    /// Transfer log position, epochs in both directions. Owned by `request/`.
    pub(crate) epochs: request::Epochs,
}

impl Connection {
    /// StandAlone, not configured.
    pub const fn new() -> Connection {
        Connection {
            ctl: control::ConnectionControl::new(),
            epochs: request::Epochs::new(),
        }
    }
}

impl Default for Connection {
    fn default() -> Connection {
        Connection::new()
    }
}

/// One resource on one node.
pub struct Resource<S: Store> {
    /// The volumes; a slot may be empty. The owner lengthens it by `swap_volumes`.
    pub(crate) volumes: S::Vec<Option<Volume<S>>>,
    /// The peers.
    pub(crate) conns: S::Vec<Connection>,
    /// Owned by `control/`: options, suspend flags, administrators' requests, helpers.
    pub(crate) ctl: control::ResourceControl,
    /// Owned by `request/`: requests of applications and of the peer, the transfer log.
    pub(crate) io: request::ResourceIo<S>,
}

impl<S: Store> Hash for Resource<S> {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        (*self.volumes).hash(state);
        (*self.conns).hash(state);
        (&self.ctl, &self.io).hash(state);
    }
}

#[cfg(not(CONFIG_RUST))]
impl<S: Store> Clone for Resource<S>
where
    S::Vec<Option<Volume<S>>>: Clone,
    S::Vec<Connection>: Clone,
    request::ResourceIo<S>: Clone,
{
    fn clone(&self) -> Self {
        Resource {
            volumes: self.volumes.clone(),
            conns: self.conns.clone(),
            ctl: self.ctl.clone(),
            io: self.io.clone(),
        }
    }
}

/// How the peer broke the protocol. The connection ends by `control::protocol_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A range that is empty, unaligned, too long or outside the device.
    Range,
    /// A packet that makes no sense in this state.
    Unexpected,
    /// A packet for a volume that does not exist.
    Volume,
    /// A bitmap chunk of wrong length or with a bad code.
    Bitmap,
    /// An acknowledgement of something never sent, or of another size.
    Ack,
    /// A barrier acknowledgement that names the wrong epoch or number of writes.
    BarrierAck,
    /// The payload did not match its digest.
    Digest,
    /// A packet that could not be decoded.
    Malformed,
    /// More than the peer may have outstanding.
    Flood,
}

impl<S: Store> Resource<S> {
    /// Runs what was stored to be done later. `ok`: what was waited for went well.
    #[inline(never)]
    pub(crate) fn run_after(&mut self, after: After, ok: bool, h: &mut impl Host) {
        self.ctl.stirred |= after != After::Nothing;
        match after {
            After::Nothing => {}
            After::Control(next) => self.control_next(next, ok, h),
            After::Resync(next) => self.resync_next(next, ok, h),
            After::Request(next) => self.request_next(next, ok, h),
        }
    }
}
