// SPDX-License-Identifier: GPL-2.0

//! What goes into a [`Resource`](super::Resource) and what comes out of it.
//!
//! The machine is told what happened ([`Input`]) and answers with what is to be done ([`Effect`]).
//! Whoever owns it (the kernel module, the simulator) keeps three promises:
//!
//! 1. One step at a time per resource; effects are executed after the step, outside the lock.
//! 2. `Send` effects of one socket leave in the order in which they were emitted, and each
//!    token is reported back once by [`Input::Sent`] unless the connection ends first.
//! 3. Each `Local`, `Meta`, `Examine` and `Helper` effect is answered exactly once, whatever
//!    happens.
//!
//! Handles (`AppId`, `BufId`, …) belong to the owner: the machine stores and returns them and never
//! looks behind them.

use crate::digest::Digest;
use crate::resync_after::Posted;
use crate::state::State;
use crate::time::Instant;
use crate::units::{Minor, Sector, SectorRange, Sectors};
use crate::wire::{Header, Packet};

use super::note::Note;

/// Effects that one step may emit at most. The owner reserves this much before each step.
pub const MAX_EFFECTS: usize = 64;

/// The index of a volume in its resource (not its number, see [`crate::units::Vnr`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolIx(pub u16);

/// The index of a peer in the resource. The 8.4 protocol knows one peer; see [`super::PEERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIx(pub u8);

/// An application's I/O, as its owner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppId(pub u32);

impl core::hash::Hash for AppId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        crate::key::name(crate::key::APP, u64::from(self.0), state);
    }
}

/// A buffer of the owner's that holds data on its way between disk and peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufId(pub u32);

impl core::hash::Hash for BufId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        crate::key::name(crate::key::BUFFER, u64::from(self.0), state);
    }
}

/// Names one local I/O until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoToken(pub u64);

/// Names one packet until it was handed to TCP. Zero: nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SendToken(pub u64);

/// Names one request of an administrator until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpId(pub u32);

impl core::hash::Hash for OpId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        crate::key::name(crate::key::OPERATION, u64::from(self.0), state);
    }
}

/// Names one call of the user-mode helper until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelperId(pub u32);

/// Which of the two connections to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sock {
    /// Bulk data, ordered.
    Data,
    /// Acknowledgements, pings, replies to state changes.
    Meta,
}

/// What an application asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppOp {
    /// Read `range`.
    Read,
    /// Write `range`.
    Write,
    /// Discard `range`.
    Discard,
    /// Make `range` read as zeroes; `unmap`: space may be given back.
    WriteZeroes {
        /// Whether the blocks may be unmapped.
        unmap: bool,
    },
    /// An empty flush: all completed writes become durable.
    Flush,
}

/// Hints and orders that come with an I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IoFlags {
    /// Somebody waits for it.
    pub sync: bool,
    /// Durable before it completes.
    pub fua: bool,
    /// Everything completed before becomes durable first.
    pub preflush: bool,
    /// Read-ahead: may fail silently.
    pub rahead: bool,
}

/// One application I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppIo {
    /// The owner's handle.
    pub app: AppId,
    /// What is asked for.
    pub op: AppOp,
    /// Where; empty for a flush.
    pub range: SectorRange,
    /// How.
    pub flags: IoFlags,
}

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoError {
    /// The device reported an error.
    Io,
    /// The device does not know the operation (discard, zero-out).
    Unsupported,
    /// No memory for the buffer.
    NoMemory,
}

/// What an application is told.
pub type AppResult = Result<(), IoError>;

/// Why a connection ended. The order says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The peer closed the socket or the network reported an error.
    Broken,
    /// A send or an acknowledgement took too long.
    Timeout,
    /// The peer broke the protocol.
    Protocol,
}

/// Something that happened.
#[derive(Debug, Hash)]
pub enum Input<'a> {
    /// Time has passed or internal work is left: see [`super::Resource::deadline`].
    Tick,
    /// An application asks for I/O.
    Submit {
        /// On which volume.
        vol: VolIx,
        /// What.
        io: AppIo,
    },
    /// A block device was opened (`true` = for writing) or released.
    Opened {
        /// Which volume.
        vol: VolIx,
        /// Opened, not released.
        open: bool,
    },
    /// A local I/O on the backing device is over.
    LocalDone {
        /// Which.
        io: IoToken,
        /// The buffer with the data if it was a [`Data::Fresh`] or [`Data::Copy`] read that went
        /// well.
        buf: Option<BufId>,
        /// How it went.
        result: AppResult,
    },
    /// A metadata I/O is over.
    MetaDone {
        /// Which.
        io: IoToken,
        /// The page that was read, if it was a read.
        page: Option<&'a [u8; 4096]>,
        /// How it went.
        result: AppResult,
    },
    /// The content of a buffer was looked at ([`Effect::Examine`]).
    Examined {
        /// Which.
        io: IoToken,
        /// What was found.
        result: Examined,
    },
    /// The packet behind the token was handed to TCP, its payload is no longer needed.
    Sent {
        /// To which peer.
        peer: PeerIx,
        /// The token of the `Send` effect.
        token: SendToken,
    },
    /// A packet arrived, with its payload where it has one.
    Received {
        /// From which peer.
        peer: PeerIx,
        /// On which socket.
        sock: Sock,
        /// Its header.
        header: Header,
        /// Its decoded fixed part.
        packet: Packet,
        /// The payload, if [`super::Resource::payload`] asked for a buffer.
        buf: Option<BufId>,
        /// The bytes behind the fixed part that go to the machine itself (bitmap chunks, digests).
        body: &'a [u8],
        /// Whether the payload matched the digest that came with it (true where none was agreed).
        intact: bool,
    },
    /// Two sockets stand, features are agreed, the peer is who it says.
    Connected {
        /// Which peer.
        peer: PeerIx,
        /// Agreed protocol version, 86 to 101.
        apv: u32,
        /// Agreed feature flags.
        features: u32,
        /// This node accepted the meta socket: it arbitrates (RESOLVE_CONFLICTS).
        arbiter: bool,
    },
    /// The attempt to connect failed for good (socket, bind, listen, authentication, no common
    /// version): the connection becomes StandAlone.
    ConnectFailed {
        /// Which peer.
        peer: PeerIx,
    },
    /// A socket of the connection failed or misbehaved. The machine answers with
    /// [`Effect::CloseSockets`] if the connection was up.
    Lost {
        /// Which peer.
        peer: PeerIx,
        /// Why.
        why: Lost,
    },
    /// A send did not progress within `timeout` tenths of a second.
    SendStalled {
        /// To which peer.
        peer: PeerIx,
    },
    /// After [`Effect::CloseSockets`]: both sockets are closed, sender and asender stand still, no
    /// queued packet is left.
    Closed {
        /// Which peer.
        peer: PeerIx,
    },
    /// The receiver thread has ended.
    ReceiverGone {
        /// Which peer.
        peer: PeerIx,
    },
    /// The user-mode helper is back.
    HelperDone {
        /// Which call.
        id: HelperId,
        /// Its exit code, 0 to 255.
        code: u8,
    },
}

/// What a digest is for: the option that names its algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigestFor {
    /// `csums-alg`: finding out what a resync need not send.
    Csums,
    /// `verify-alg`: online verify.
    Verify,
}

/// What is to be found out about the content of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Examine {
    /// Its digest, by the algorithm of [`super::Resource::algorithm`]. Without a buffer: as many
    /// zero bytes as a digest has.
    Digest(DigestFor),
    /// Whether it is all zeroes.
    Zeroes,
}

/// What was found out about the content of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Examined {
    /// Its digest.
    Digest(Digest),
    /// Whether it is all zeroes.
    Zeroes(bool),
    /// Nothing: the algorithm is not known here.
    Failed,
}

/// Where the data of a local I/O lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Data {
    /// Nothing is moved (flush, discard, zero-out).
    None,
    /// The pages of an application's I/O.
    App(AppId),
    /// The data of an application's I/O in a buffer of the owner's, so that the application can be
    /// told while the device still works on it. A write: copied before. A read: the buffer is
    /// reported with `LocalDone`; see [`Effect::Fill`]. [`IoError::NoMemory`]: nothing was done.
    Copy(AppId),
    /// A buffer that the owner holds.
    Buf(BufId),
    /// A read into a buffer that the owner allocates and reports with `LocalDone`.
    Fresh,
}

/// What the backing device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalOp {
    /// Read.
    Read,
    /// Write.
    Write,
    /// Discard; what cannot be discarded is zeroed out (algorithms.md §9).
    Discard,
    /// Zero out; `unmap`: the aligned part may be discarded if it then reads as zero.
    ZeroOut {
        /// Whether blocks may be unmapped.
        unmap: bool,
    },
    /// Empty flush.
    Flush,
}

/// What is read from or written to the metadata device. All are 4 KiB blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaOp {
    /// Write the superblock; the owner fills the page by [`super::Resource::fill_page`].
    WriteSuperblock,
    /// Write zeroes where the superblock was before the metadata moved; filled likewise.
    EraseSuperblock,
    /// Write one activity log block; filled likewise.
    WriteAl,
    /// Write one page of the bitmap; filled likewise.
    WriteBitmap {
        /// Page of the bitmap, 4 KiB each.
        page: u32,
    },
    /// Read one page of the bitmap.
    ReadBitmap {
        /// Page of the bitmap, 4 KiB each.
        page: u32,
    },
}

/// What travels behind the fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing.
    None,
    /// The pages of an application's write. `splice`: they stay untouched until the peer has
    /// answered, so TCP may refer to them (protocols B and C); else they are copied.
    App {
        /// Whose pages.
        app: AppId,
        /// Whether TCP may keep references to them.
        splice: bool,
    },
    /// A buffer; it is freed by a later [`Effect::Free`], after `Sent`.
    Buf(BufId),
    /// A digest.
    Digest(Digest),
    /// The rest of the bitmap: the sender calls [`super::Resource::bitmap_chunk`] until it is done
    /// and sends each chunk; no other packet of the data socket may come between.
    Bitmap {
        /// Of which volume.
        vol: VolIx,
    },
}

/// Things to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// Queue a packet behind the others of that socket.
    Send {
        /// To which peer.
        peer: PeerIx,
        /// On which socket.
        sock: Sock,
        /// Volume number in the header (0 for packets of the connection).
        vnr: u16,
        /// The packet; ignored when `payload` is a bitmap.
        packet: Packet,
        /// What follows it.
        payload: Payload,
        /// Reported back by [`Input::Sent`] unless zero.
        token: SendToken,
    },
    /// Submit an I/O to the backing device of the volume.
    Local {
        /// Which volume.
        vol: VolIx,
        /// To be returned with `LocalDone`.
        io: IoToken,
        /// What.
        op: LocalOp,
        /// Where; empty for a flush.
        range: SectorRange,
        /// How.
        flags: IoFlags,
        /// From or to where.
        data: Data,
    },
    /// Submit an I/O of one 4 KiB block to the metadata device of the volume.
    Meta {
        /// Which volume.
        vol: VolIx,
        /// To be returned with `MetaDone`, and given to [`super::Resource::fill_page`].
        io: IoToken,
        /// What.
        op: MetaOp,
        /// First sector on the metadata device, absolute.
        sector: Sector,
        /// Bytes: 4096, or less at the end of the bitmap area.
        bytes: u32,
        /// FUA and PREFLUSH as the metadata needs them.
        flags: IoFlags,
    },
    /// Find something out about the content of a buffer. It may take milliseconds, so neither the
    /// thread that stepped nor one that others wait for does it. The buffer stays as it is.
    Examine {
        /// To be returned with `Examined`.
        io: IoToken,
        /// The buffer.
        buf: Option<BufId>,
        /// What to find out.
        what: Examine,
    },
    /// The application's I/O is over.
    Complete {
        /// Which.
        app: AppId,
        /// How it went.
        result: AppResult,
    },
    /// Copy the buffer into the pages of an application's read; then it is no longer needed. Comes
    /// before the `Complete` of that read.
    Fill {
        /// Whose pages.
        app: AppId,
        /// The data.
        buf: BufId,
    },
    /// The buffer is no longer needed.
    Free(BufId),
    /// Start the receiver thread of the connection (it connects, then receives).
    StartReceiver {
        /// Of which peer.
        peer: PeerIx,
    },
    /// Shut both sockets down, end attempts to connect; when all is quiet say [`Input::Closed`]
    /// (also if no connection stood yet).
    CloseSockets {
        /// Of which peer.
        peer: PeerIx,
    },
    /// The block device becomes read-only or writable.
    SetReadOnly {
        /// Which volume.
        vol: VolIx,
        /// Read-only.
        ro: bool,
    },
    /// The block device has this size now.
    SetCapacity {
        /// Which volume.
        vol: VolIx,
        /// The size.
        size: Sectors,
    },
    /// The queue limits changed: ask [`super::Resource::queue_limits`].
    UpdateLimits {
        /// Which volume.
        vol: VolIx,
    },
    /// Tell udev that the device changed.
    Uevent {
        /// Which volume.
        vol: VolIx,
    },
    /// The backing device is no longer used: take it by [`super::Resource::take_backing`], close
    /// and free it.
    DropBacking {
        /// Which volume.
        vol: VolIx,
    },
    /// Run the user-mode helper.
    Helper {
        /// To be returned with `HelperDone`.
        id: HelperId,
        /// The first argument.
        command: HelperCommand,
        /// The volume it is about; `None`: the resource (fence-peer, unfence-peer).
        vol: Option<VolIx>,
    },
    /// The administrator's request is decided.
    AdminDone {
        /// Which.
        op: OpId,
        /// SS_ or ERR_ code, as netlink reports it.
        code: i32,
        /// What else to tell the administrator (`info_text`); it is in the log already.
        info: Option<Note>,
    },
    /// The state of a volume (or of the whole resource if `vol` is none) changed: tell the
    /// listeners of netlink events.
    StateChanged {
        /// Which volume; `None` for a connection without volumes.
        vol: Option<VolIx>,
        /// Before.
        old: State,
        /// After.
        new: State,
    },
    /// Resync has moved on: broadcast the progress.
    SyncProgress {
        /// Which volume.
        vol: VolIx,
    },
    /// What other volumes may wait for has changed, see [`crate::resync_after`].
    SyncPosted {
        /// Of which volume.
        minor: Minor,
        /// What it tells now.
        posted: Posted,
    },
    /// A line for the kernel log.
    Log {
        /// About which volume; `None`: about the resource.
        vol: Option<VolIx>,
        /// What to say.
        note: Note,
    },
}

/// What the user-mode helper is called for. Names as `drbdadm` knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelperCommand {
    /// Primary on inconsistent, degraded data.
    PriOnInconDegr,
    /// Primary lost the split brain decision.
    PriLostAfterSb,
    /// Primary would become sync target.
    PriLost,
    /// Split brain detected, automatic recovery follows.
    InitialSplitBrain,
    /// Split brain that stays.
    SplitBrain,
    /// The backing device failed.
    LocalIoError,
    /// Before becoming sync target.
    BeforeResyncTarget,
    /// Before becoming sync source.
    BeforeResyncSource,
    /// After a resync as target.
    AfterResyncTarget,
    /// Online verify found differences.
    OutOfSync,
    /// Fence the peer.
    FencePeer,
    /// Take back the fencing.
    UnfencePeer,
}

impl HelperCommand {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            HelperCommand::PriOnInconDegr => "pri-on-incon-degr",
            HelperCommand::PriLostAfterSb => "pri-lost-after-sb",
            HelperCommand::PriLost => "pri-lost",
            HelperCommand::InitialSplitBrain => "initial-split-brain",
            HelperCommand::SplitBrain => "split-brain",
            HelperCommand::LocalIoError => "local-io-error",
            HelperCommand::BeforeResyncTarget => "before-resync-target",
            HelperCommand::BeforeResyncSource => "before-resync-source",
            HelperCommand::AfterResyncTarget => "after-resync-target",
            HelperCommand::OutOfSync => "out-of-sync",
            HelperCommand::FencePeer => "fence-peer",
            HelperCommand::UnfencePeer => "unfence-peer",
        }
    }
}

/// The owner of a machine, as the machine sees it during one step.
pub trait Host {
    /// The time of this step.
    fn now(&self) -> Instant;
    /// 64 random bits.
    fn random(&mut self) -> u64;
    /// Takes an effect. A step emits at most [`MAX_EFFECTS`].
    fn emit(&mut self, effect: Effect);
    /// How many effects this step may still emit.
    fn room(&self) -> usize;
}

/// Whether a step left work behind.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Nothing to do before the next input or [`super::Resource::deadline`].
    Idle,
    /// The room for effects ran out: step again with [`Input::Tick`], now.
    More,
}

/// What the receiver does with the bytes behind the fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadPlan {
    /// There are none.
    None,
    /// Read them into a control buffer (at most 4096 bytes) and pass them as `body`.
    Body {
        /// How many.
        bytes: u32,
    },
    /// Read `digest` bytes of digest, then `bytes` of data into a fresh buffer.
    Buffer {
        /// Digest bytes in front; 0 where no integrity algorithm is agreed.
        digest: u32,
        /// Data bytes, at most 1 MiB.
        bytes: u32,
    },
    /// Read `digest` bytes of digest, then `bytes` straight into the pages of this
    /// application read.
    App {
        /// Whose pages.
        app: AppId,
        /// Digest bytes in front.
        digest: u32,
        /// Data bytes.
        bytes: u32,
    },
    /// The peer broke the protocol: report [`Lost::Protocol`].
    Violation,
}

/// What the receiver thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiverWish {
    /// Connect, or go on receiving.
    Run,
    /// Receive nothing more for the moment: something before it must finish first.
    Pause,
    /// The sockets are to be closed, then ask again.
    Close,
    /// End the thread and say [`Input::ReceiverGone`].
    Exit,
}
