// SPDX-License-Identifier: GPL-2.0

//! The lines of the kernel log, as data.
//!
//! The machine emits a [`Note`]; its owner adds the prefix (`drbd r0/0 drbd0: `) and prints it by
//! `Display` at [`Note::level`]. Tools do not parse these lines, people and test suites do: where
//! DRBD has a line for the same event, this one has its shape (procfs.md §6).

mod text;

use crate::meta::layout::Striping;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::log::{Diff, Parts};
use crate::state::{Ss, State, Warning};
use crate::units::{Sector, SectorRange, Sectors};
use crate::uuid::{DryRun, Outcome, Rule, UuidSet, Verdict};
use crate::wire::{Command, Name64};

use super::io::{HelperCommand, IoError};
use super::Violation;

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the record.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed or was refused.
    Error,
    /// Somebody has to act now.
    Alert,
}

/// Which setting both nodes have to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `protocol`.
    Protocol,
    /// `after-sb-0pri`.
    AfterSb0,
    /// `after-sb-1pri`.
    AfterSb1,
    /// `after-sb-2pri`.
    AfterSb2,
    /// `discard-my-data`, given on both sides.
    DiscardMyData,
    /// `allow-two-primaries`.
    TwoPrimaries,
    /// `data-integrity-alg`.
    Integrity,
}

impl Setting {
    /// The word in `drbd.conf`.
    pub const fn name(self) -> &'static str {
        match self {
            Setting::Protocol => "protocol",
            Setting::AfterSb0 => "after-sb-0pri",
            Setting::AfterSb1 => "after-sb-1pri",
            Setting::AfterSb2 => "after-sb-2pri",
            Setting::DiscardMyData => "discard-my-data",
            Setting::TwoPrimaries => "allow-two-primaries",
            Setting::Integrity => "data-integrity-alg",
        }
    }
}

/// Which feature is refused for the time being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A new `al-extents` while attached.
    AlExtents,
}

impl Missing {
    /// The word an administrator knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Missing::AlExtents => "changing al-extents while attached",
        }
    }
}

/// One line of the kernel log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Note {
    /// The state of a volume changed.
    StateChanged {
        /// Before.
        old: State,
        /// After.
        new: State,
        /// What is shown of it.
        parts: Parts,
    },
    /// Sanitizing a change found something worth a line.
    Implied(Warning),
    /// A state change was refused.
    ChangeRefused {
        /// Why.
        code: Ss,
        /// The state that stays.
        old: State,
        /// The state that was wanted.
        wanted: State,
    },
    /// A state change of the whole connection was refused.
    ConnChangeRefused {
        /// Why.
        code: Ss,
        /// The state that stays.
        old: Conn,
        /// The state that was wanted.
        wanted: Option<Conn>,
    },
    /// A helper is about to run.
    HelperStarts(HelperCommand),
    /// A helper is back.
    HelperEnded {
        /// Which.
        command: HelperCommand,
        /// Its exit code.
        code: u8,
    },
    /// What the exit code of fence-peer means.
    Fenced(&'static str),
    /// The fence-peer handler came back with an exit code that means nothing.
    FenceBroken(u8),
    /// A reconnect happened while fence-peer ran.
    FenceTooLate,
    /// There is no own copy that is worth fencing the peer for.
    NotFencing,
    /// `primary --force` overruled the fencing.
    ForcedSplitBrain,
    /// `primary --force` declared the own copy good.
    ForcedUpToDate,
    /// The disk is attached.
    AttachedTo(UuidSet),
    /// UUIDs after something changed them.
    UuidsNow {
        /// What changed them.
        why: &'static str,
        /// As they are now.
        uuids: UuidSet,
    },
    /// A new current UUID.
    NewCurrentUuid(UuidSet),
    /// A new current UUID overwrote a bitmap UUID that was still set.
    BitmapUuidInUse(u64),
    /// All blocks count as out of sync.
    FullSyncAtAttach,
    /// Bits found set in the bitmap on disk.
    MarkedByBitmap {
        /// How many.
        bits: u64,
    },
    /// The bitmap has its size.
    BitmapSized {
        /// Of the device.
        capacity: Sectors,
        /// Bits in use.
        bits: u64,
    },
    /// The new size of the device.
    SizeNow(Sectors),
    /// The largest request.
    MaxBio(u32),
    /// The write ordering method.
    WriteOrdering(&'static str),
    /// The metadata device is too small.
    MdTooSmall {
        /// Sectors needed.
        needed: Sectors,
    },
    /// The device asked for does not fit on the disk.
    DiskSizeTooBig {
        /// What fits.
        max: Sectors,
        /// What was asked for.
        wanted: Sectors,
    },
    /// The disk is smaller than the device that is in use.
    DiskTooSmall {
        /// What fits.
        max: Sectors,
        /// The device.
        device: Sectors,
    },
    /// No superblock where one should be.
    NoMetaData,
    /// A superblock of DRBD 0.7.
    OldMetaData,
    /// A superblock that needs its activity log applied.
    UncleanMetaData,
    /// A superblock that contradicts itself or the device.
    BadMetaData(crate::meta::Invalid),
    /// The device would shrink by attaching this disk.
    ImplicitShrink {
        /// What was agreed last.
        last: Sectors,
        /// What it would be.
        now: Sectors,
    },
    /// A consistent device is shrunk because its configured size says so.
    TruncatingAtAttach {
        /// What was agreed last.
        last: Sectors,
        /// What it will be.
        now: Sectors,
    },
    /// The disk has other data than those in use.
    OnlyWithUuid(u64),
    /// The peer has other data than those in use.
    PeerOnlyWithUuid(u64),
    /// A configured size larger than possible.
    RequestedTooBig {
        /// Asked for.
        wanted: Sectors,
        /// Possible.
        max: Sectors,
    },
    /// `resize --assume-peer-has-space` without a peer.
    ForcedResize,
    /// A smaller ring or disk leaves less room than the device has.
    ShrinkNeedsSize(Sectors),
    /// No memory, or no room on disk, for the bitmap of a device of this size.
    BitmapTooSmall {
        /// The size.
        size: Sectors,
    },
    /// Bitmap and activity log are written in a new place or size.
    WritingBitmap(&'static str),
    /// The activity log has another ring.
    NewAlLayout(Striping),
    /// Indexed metadata have one ring only.
    RingIsFixed,
    /// The ring cannot tell of all slots of the activity log.
    RingTooSmall {
        /// `al-extents` in use.
        slots: u32,
        /// What the ring admits.
        most: u32,
    },
    /// Neither node has a disk.
    BothDiskless,
    /// The peer's disk is too small for this node's data.
    PeerDiskTooSmall {
        /// The size that both could have.
        now: Sectors,
        /// The size this node has.
        device: Sectors,
    },
    /// The peer's device is smaller than the one in use here.
    PeerDeviceTooSmall {
        /// The peer's.
        peer: Sectors,
        /// The own.
        device: Sectors,
    },
    /// A diskless peer does not know the size better.
    IgnoredPeerSize {
        /// The peer's.
        peer: Sectors,
        /// The own.
        device: Sectors,
    },
    /// Sizes differ by more than an eighth.
    SizesDiffer {
        /// Own sectors.
        own: Sectors,
        /// The peer's sectors.
        peer: Sectors,
        /// Whether the configured limits differ, not the disks.
        configured: bool,
    },
    /// The peer has a configured size that is taken over.
    PeerSetsSize {
        /// Before.
        old: Sectors,
        /// After.
        new: Sectors,
    },
    /// Local I/O failed.
    LocalIoFailed {
        /// Whether the disk is given up.
        detaching: bool,
        /// Which kind.
        error: IoError,
    },
    /// Metadata could not be written or read.
    MetaIoFailed,
    /// The backing device needed too long.
    DiskTimeout,
    /// The administrator asked for a detach by force.
    ForcedDetach,
    /// The receiver thread is asked for.
    ReceiverStarts,
    /// Both nodes agree.
    Handshake {
        /// Version.
        apv: u32,
        /// Flags.
        features: u32,
    },
    /// The attempt to connect failed for good.
    ConnectGivenUp,
    /// The connection is down.
    ConnectionClosed,
    /// The peer closed the sockets.
    SocketLost,
    /// A ping was not answered.
    PingTimeout,
    /// It was the peer's turn in a handshake, and nothing came.
    WaitedInVain {
        /// For so many seconds.
        secs: u64,
    },
    /// The peer has not heard in time that the own disk is lost.
    LossUnheard,
    /// Sending does not get on.
    SendExpired {
        /// How often it may still happen.
        ko: u32,
    },
    /// The peer did not finish a request in time.
    RequestTimeout {
        /// Milliseconds.
        limit: u64,
    },
    /// `congestion-fill` or `congestion-extents` was reached.
    Congested {
        /// It was `congestion-fill`.
        fill: bool,
    },
    /// Acknowledgements that the peer sent before a write do not arrive.
    AcksMissing,
    /// Two Primaries wrote to the same blocks at once.
    ConcurrentWrites {
        /// The own write.
        own: SectorRange,
        /// The peer's.
        peer: SectorRange,
        /// Whether all that the peer wrote counts as overwritten by the own write.
        own_first: bool,
    },
    /// The peer broke the protocol.
    Violated {
        /// With this packet.
        packet: Command,
        /// How.
        why: Violation,
    },
    /// A setting differs.
    Incompatible(Setting),
    /// `verify-alg` or `csums-alg` differ.
    AlgorithmsDiffer {
        /// Which.
        which: &'static str,
        /// Own.
        own: Name64,
        /// The peer's.
        peer: Name64,
    },
    /// The peer's algorithm is adopted.
    UsingAlgorithm {
        /// Which.
        which: &'static str,
        /// Its name.
        name: Name64,
    },
    /// The algorithm of this option is not known to this kernel.
    NoDigest(&'static str),
    /// A packet for a volume that is not configured here.
    UnknownVolume {
        /// Which packet.
        packet: &'static str,
        /// Which volume.
        vnr: u16,
    },
    /// The handshake begins: own and the peer's UUIDs.
    HandshakeUuids {
        /// Whose.
        who: &'static str,
        /// Them.
        uuids: UuidSet,
        /// Bits out of sync.
        bits: u64,
        /// Flags.
        flags: u64,
    },
    /// What the comparison of UUIDs gave.
    Compared {
        /// DRBD's number for it.
        result: i32,
        /// By which rule.
        rule: u32,
    },
    /// The peer's real state while it negotiates.
    RealPeerDisk(Disk),
    /// What a rule of the comparison found, in the words of the C driver.
    RuleSays(&'static str),
    /// What the rule means, who loses what, and what to do.
    RuleMeans {
        /// The rule.
        rule: Rule,
        /// What it said.
        verdict: Verdict,
        /// What came of it.
        outcome: Outcome,
    },
    /// Data of another cluster.
    Unrelated,
    /// The peer has to speak a newer protocol.
    NeedsProtocol(u32),
    /// The peer has to speak a newer protocol and have these features.
    NeedsFeatures {
        /// Protocol version.
        apv: u32,
        /// Bits of the feature flags.
        features: u32,
    },
    /// A policy does not fit the number of Primaries.
    PolicyMisfits,
    /// The age of the Primaries decides nothing.
    UsingLeastChanges,
    /// This Primary lost a split brain and gave its role up.
    GaveUpPrimary,
    /// Ambiguous UUIDs leave only a full sync.
    FullSyncAmbiguous,
    /// The direction follows from who is inconsistent.
    ByDiskStates {
        /// This node becomes source.
        source: bool,
    },
    /// A split brain, solved by a policy.
    SplitBrainSolved {
        /// Primaries before.
        primaries: u32,
        /// This node becomes source.
        source: bool,
    },
    /// A split brain, solved by `--discard-my-data`.
    SplitBrainManual {
        /// This node becomes source.
        source: bool,
    },
    /// A split brain that stays.
    SplitBrain,
    /// This node should become source without good data.
    NoSourceWithoutData,
    /// A Primary should throw away its data.
    PrimaryWouldLose {
        /// It does.
        anyway: bool,
    },
    /// A dry run, and what would have happened.
    DryRun(DryRun),
    /// The peer gave up attaching.
    PeerAttachAborted,
    /// A rebooted peer can not continue the frozen requests.
    CannotThaw,
    /// The peer's skip-initial-sync is accepted.
    SkipInitialSync,
    /// No resync needed, yet bits are set.
    BitsWithoutResync(u64),
    /// Both nodes have named a resync that never ran; this one becomes the target.
    NameGivenUp,
    /// A request that was held is longer than a packet to this peer can be.
    TooLongForPeer {
        /// Its length, bytes.
        bytes: u32,
        /// The most that fits, bytes.
        most: u32,
    },
    /// A resync starts.
    ResyncBegins {
        /// As SyncSource or SyncTarget.
        conn: Conn,
        /// KiB.
        kib: u64,
        /// Bits.
        bits: u64,
    },
    /// A resync ended.
    ResyncDone {
        /// Seconds.
        total: u64,
        /// Seconds.
        paused: u64,
        /// KiB/s.
        speed: u64,
    },
    /// Blocks could not be read or written.
    ResyncFailed(u64),
    /// A resync goes on.
    ResyncContinues,
    /// A resync pauses.
    ResyncSuspended,
    /// The bitmap could not be written, so no resync.
    NoResyncWithoutBitmap,
    /// Growth is not synchronised.
    GrowWithoutResync,
    /// The bitmap has this many pages written.
    BitmapWritten {
        /// Pages.
        pages: u64,
        /// Milliseconds.
        millis: u64,
    },
    /// Writes leave the activity log alone.
    AlSuspended,
    /// Writes use the activity log again.
    AlResumed,
    /// Something this implementation does not have.
    Unsupported(Missing),
    /// The name of a function or state that should not have been reached; nothing was harmed.
    Unexpected(&'static str),
    /// `net-options` before `connect`.
    NetConfMissing,
    /// A `meta-disk` index that does not fit the devices.
    BadIndex(i32),
    /// `resume-io` where no good data can be reached.
    ResumedWithoutData,
    /// The superblock asks for a full sync.
    FullSyncDue,
    /// A resync is running already.
    ResyncRuns,
    /// before-resync-* refused.
    BeforeResyncRefused {
        /// The exit code.
        code: u8,
    },
    /// A request was refused because another one is being worked on.
    Busy,
    /// How much digests have saved a resync; blocks of 4 KiB.
    EqualDigests {
        /// Not sent.
        same: u64,
        /// All.
        total: u64,
    },
    /// A verify starts on this side.
    VerifyBegins(Sector),
    /// The first request of the peer says where a verify starts.
    VerifyStartSector(Sector),
    /// A verify has not got to the end.
    VerifyReached(Sector),
    /// A verify ended.
    VerifyDone {
        /// Seconds.
        total: u64,
        /// Seconds.
        paused: u64,
        /// KiB/s.
        speed: u64,
    },
    /// Blocks are out of sync after a verify.
    VerifyFound(u64),
    /// Verify: a range is out of sync.
    OutOfSync {
        /// First sector.
        start: Sector,
        /// Length.
        len: Sectors,
    },
}

impl Note {
    /// How loud it is.
    pub const fn level(&self) -> Level {
        match self {
            Note::SplitBrain
            | Note::Unrelated
            | Note::NeedsProtocol(_)
            | Note::NeedsFeatures { .. }
            | Note::VerifyFound(_) => Level::Alert,
            _ if self.is_failure() => Level::Error,
            _ if self.is_warning() => Level::Warn,
            _ => Level::Info,
        }
    }

    /// Something that was wanted does not happen.
    const fn is_failure(&self) -> bool {
        matches!(
            self,
            Note::ChangeRefused { .. }
                | Note::ConnChangeRefused { .. }
                | Note::FenceBroken(_)
                | Note::NoMetaData
                | Note::OldMetaData
                | Note::UncleanMetaData
                | Note::BadMetaData(_)
                | Note::DiskSizeTooBig { .. }
                | Note::DiskTooSmall { .. }
                | Note::OnlyWithUuid(_)
                | Note::PeerOnlyWithUuid(_)
                | Note::RequestedTooBig { .. }
                | Note::BitmapTooSmall { .. }
                | Note::PeerDiskTooSmall { .. }
                | Note::PeerDeviceTooSmall { .. }
                | Note::LocalIoFailed { .. }
                | Note::MetaIoFailed
                | Note::DiskTimeout
                | Note::AcksMissing
                | Note::ConcurrentWrites { .. }
                | Note::PingTimeout
                | Note::WaitedInVain { .. }
                | Note::LossUnheard
                | Note::TooLongForPeer { .. }
                | Note::RequestTimeout { .. }
                | Note::Violated { .. }
                | Note::Incompatible(_)
                | Note::AlgorithmsDiffer { .. }
                | Note::NoDigest(_)
                | Note::OutOfSync { .. }
                | Note::PolicyMisfits
                | Note::NoSourceWithoutData
                | Note::PrimaryWouldLose { anyway: false }
                | Note::PeerAttachAborted
                | Note::CannotThaw
                | Note::ResyncFailed(_)
                | Note::BeforeResyncRefused { .. }
                | Note::NoResyncWithoutBitmap
        )
    }

    /// It goes on, but people should know.
    const fn is_warning(&self) -> bool {
        matches!(
            self,
            Note::Implied(_)
                | Note::FenceTooLate
                | Note::NotFencing
                | Note::ForcedSplitBrain
                | Note::ForcedUpToDate
                | Note::BitmapUuidInUse(_)
                | Note::NameGivenUp
                | Note::MdTooSmall { .. }
                | Note::ImplicitShrink { .. }
                | Note::TruncatingAtAttach { .. }
                | Note::BothDiskless
                | Note::IgnoredPeerSize { .. }
                | Note::SizesDiffer { .. }
                | Note::ForcedDetach
                | Note::ConnectGivenUp
                | Note::SendExpired { .. }
                | Note::UnknownVolume { .. }
                | Note::ByDiskStates { .. }
                | Note::SplitBrainSolved { .. }
                | Note::SplitBrainManual { .. }
                | Note::UsingLeastChanges
                | Note::GaveUpPrimary
                | Note::FullSyncAmbiguous
                | Note::PrimaryWouldLose { anyway: true }
                | Note::FullSyncDue
                | Note::ResyncRuns
                | Note::Unsupported(_)
                | Note::NetConfMissing
                | Note::BadIndex(_)
                | Note::ResumedWithoutData
                | Note::Unexpected(_)
                | Note::Busy
        )
    }

    /// Whether there is nothing to print: a change of which the line would show nothing.
    pub fn is_empty(&self) -> bool {
        match *self {
            Note::StateChanged { old, new, parts } => Diff { old, new, parts }.is_empty(),
            _ => false,
        }
    }
}
