// SPDX-License-Identifier: GPL-2.0

//! The lines of the kernel log, as data.
//!
//! The machine emits a [`Note`]; its owner adds the prefix (`drbd r0/0 drbd0: `) and prints it by
//! `Display` at [`Note::level`]. Tools do not parse these lines, people and test suites do: where
//! DRBD has a line for the same event, this one has its shape (procfs.md §6).

use core::fmt;

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::log::{Diff, Parts, StateLine};
use crate::state::{Ss, State, Warning};
use crate::units::{Sector, Sectors};
use crate::uuid::UuidSet;
use crate::wire::Name64;

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
    /// `allow-two-primaries`.
    TwoPrimaries,
    /// `on-congestion` other than `block`.
    Congestion,
    /// `resize`.
    Resize,
    /// `verify`.
    Verify,
    /// A new `al-extents` while attached.
    AlExtents,
}

impl Missing {
    /// The word an administrator knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Missing::TwoPrimaries => "allow-two-primaries",
            Missing::Congestion => "on-congestion other than block",
            Missing::Resize => "resize",
            Missing::Verify => "online verify",
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
    /// The peer broke the protocol.
    Violated(Violation),
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
    /// `csums-alg` is configured, but nothing uses it.
    CsumsUnused,
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
    /// Data of another cluster.
    Unrelated,
    /// The peer has to speak a newer protocol.
    NeedsProtocol(u32),
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
        /// All blocks are sent.
        full: bool,
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
    DryRun {
        /// DRBD's number.
        result: i32,
    },
    /// The peer gave up attaching.
    PeerAttachAborted,
    /// A rebooted peer can not continue the frozen requests.
    CannotThaw,
    /// The peer's skip-initial-sync is accepted.
    SkipInitialSync,
    /// No resync needed, yet bits are set.
    BitsWithoutResync(u64),
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
    /// A block is out of sync.
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
            Note::SplitBrain | Note::Unrelated => Level::Alert,
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
            | Note::PeerDiskTooSmall { .. }
            | Note::PeerDeviceTooSmall { .. }
            | Note::LocalIoFailed { .. }
            | Note::MetaIoFailed
            | Note::DiskTimeout
            | Note::PingTimeout
            | Note::RequestTimeout { .. }
            | Note::Violated(_)
            | Note::Incompatible(_)
            | Note::AlgorithmsDiffer { .. }
            | Note::NeedsProtocol(_)
            | Note::NoSourceWithoutData
            | Note::PrimaryWouldLose { anyway: false }
            | Note::PeerAttachAborted
            | Note::CannotThaw
            | Note::ResyncFailed(_)
            | Note::BeforeResyncRefused { .. }
            | Note::NoResyncWithoutBitmap => Level::Error,
            Note::Implied(_)
            | Note::FenceTooLate
            | Note::NotFencing
            | Note::ForcedSplitBrain
            | Note::ForcedUpToDate
            | Note::BitmapUuidInUse(_)
            | Note::MdTooSmall { .. }
            | Note::ImplicitShrink { .. }
            | Note::TruncatingAtAttach { .. }
            | Note::BothDiskless
            | Note::IgnoredPeerSize { .. }
            | Note::SizesDiffer { .. }
            | Note::ForcedDetach
            | Note::ConnectGivenUp
            | Note::SendExpired { .. }
            | Note::CsumsUnused
            | Note::UnknownVolume { .. }
            | Note::ByDiskStates { .. }
            | Note::SplitBrainSolved { .. }
            | Note::SplitBrainManual { .. }
            | Note::PrimaryWouldLose { anyway: true }
            | Note::FullSyncDue
            | Note::ResyncRuns
            | Note::Unsupported(_)
            | Note::NetConfMissing
            | Note::BadIndex(_)
            | Note::ResumedWithoutData
            | Note::Unexpected(_)
            | Note::Busy => Level::Warn,
            Note::StateChanged { .. }
            | Note::HelperStarts(_)
            | Note::HelperEnded { .. }
            | Note::Fenced(_)
            | Note::AttachedTo(_)
            | Note::UuidsNow { .. }
            | Note::NewCurrentUuid(_)
            | Note::FullSyncAtAttach
            | Note::MarkedByBitmap { .. }
            | Note::BitmapSized { .. }
            | Note::SizeNow(_)
            | Note::MaxBio(_)
            | Note::WriteOrdering(_)
            | Note::PeerSetsSize { .. }
            | Note::ReceiverStarts
            | Note::Handshake { .. }
            | Note::ConnectionClosed
            | Note::SocketLost
            | Note::UsingAlgorithm { .. }
            | Note::HandshakeUuids { .. }
            | Note::Compared { .. }
            | Note::RealPeerDisk(_)
            | Note::DryRun { .. }
            | Note::SkipInitialSync
            | Note::BitsWithoutResync(_)
            | Note::ResyncBegins { .. }
            | Note::ResyncDone { .. }
            | Note::ResyncContinues
            | Note::ResyncSuspended
            | Note::GrowWithoutResync
            | Note::BitmapWritten { .. }
            | Note::AlSuspended
            | Note::AlResumed
            | Note::OutOfSync { .. } => Level::Info,
        }
    }

    /// Whether there is nothing to print: a change of which the line would show nothing.
    pub fn is_empty(&self) -> bool {
        match *self {
            Note::StateChanged { old, new, parts } => Diff { old, new, parts }.is_empty(),
            _ => false,
        }
    }
}

/// `C:B:H0:H1`.
struct Gi(UuidSet);

impl fmt::Display for Gi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h0, h1] = self.0.history;
        let (c, b) = (self.0.current, self.0.bitmap);
        write!(f, "{c:016X}:{b:016X}:{h0:016X}:{h1:016X}")
    }
}

const fn side(source: bool) -> &'static str {
    if source {
        "source"
    } else {
        "target"
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.about_states(f)
            .or_else(|| self.about_disk(f))
            .or_else(|| self.about_sizes(f))
            .or_else(|| self.about_peer(f))
            .or_else(|| self.about_handshake(f))
            .or_else(|| self.about_resync(f))
            .unwrap_or(Ok(()))
    }
}

type Said = Option<fmt::Result>;

impl Note {
    fn about_states(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::StateChanged { old, new, parts } => write!(f, "{}", Diff { old, new, parts }),
            Note::Implied(w) => f.write_str(w.text()),
            Note::ChangeRefused { code, old, wanted } => write!(
                f,
                "State change failed: {}\n {}\n {}",
                code.text(),
                StateLine::current(old),
                StateLine::wanted(wanted)
            ),
            Note::ConnChangeRefused { code, old, wanted } => {
                let wanted = wanted.unwrap_or(old);
                let text = code.text();
                write!(f, "State change failed: {text} (conn {old}, wanted {wanted})")
            }
            Note::HelperStarts(c) => write!(f, "helper command: {}", c.name()),
            Note::HelperEnded { command, code } => {
                let name = command.name();
                write!(f, "helper command: {name} exit code {code} ({code:#x})")
            }
            Note::Fenced(text) => write!(f, "fence-peer helper: {text}"),
            Note::FenceBroken(code) => write!(f, "fence-peer helper broken, returned {code}"),
            Note::FenceTooLate => {
                f.write_str("Ignoring fence-peer exit code: reconnected in the meantime")
            }
            Note::NotFencing => {
                f.write_str("Not fencing peer: this node is not even Consistent itself")
            }
            Note::ForcedSplitBrain => f.write_str("Forced into split brain situation!"),
            Note::ForcedUpToDate => f.write_str("Forced to consider local data as UpToDate!"),
            Note::ResumedWithoutData => f.write_str("Resumed I/O without access to data"),
            Note::Unsupported(m) => write!(f, "{}: not supported by drbd_rs yet", m.name()),
            Note::NetConfMissing => f.write_str("net conf missing, try connect"),
            Note::Unexpected(what) => write!(f, "unexpected: {what}"),
            Note::Busy => f.write_str("another request is being worked on"),
            _ => return None,
        })
    }

    fn about_disk(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::AttachedTo(u) => write!(f, "attached to UUIDs {}", Gi(u)),
            Note::UuidsNow { why, uuids } => write!(f, "{why} {}", Gi(uuids)),
            Note::NewCurrentUuid(u) => write!(f, "new current UUID {}", Gi(u)),
            Note::BitmapUuidInUse(u) => write!(f, "bitmap UUID {u:016X} was still in use"),
            Note::FullSyncAtAttach => {
                f.write_str("Assuming that all blocks are out of sync (aka FullSync)")
            }
            Note::MarkedByBitmap { bits } => {
                let kib = bits.saturating_mul(4);
                write!(f, "{kib} KB ({bits} bits) marked out-of-sync by on disk bit-map.")
            }
            Note::WriteOrdering(m) => write!(f, "Method to ensure write ordering: {m}"),
            Note::NoMetaData => {
                f.write_str("no valid meta-data found: run 'drbdadm create-md' first")
            }
            Note::OldMetaData => {
                f.write_str("found meta-data of DRBD 0.7: convert it with 'drbdadm create-md'")
            }
            Note::UncleanMetaData => {
                f.write_str("meta-data is unclean: run 'drbdadm apply-al' first")
            }
            Note::BadMetaData(why) => write!(f, "meta-data does not fit the device: {why:?}"),
            Note::BadIndex(n) => write!(f, "meta-disk index {n} does not fit the devices"),
            Note::OnlyWithUuid(u) => {
                write!(f, "Can only attach to data with current UUID={u:016X}")
            }
            Note::LocalIoFailed { detaching, error } => {
                let end = if detaching { " Detaching..." } else { "" };
                write!(f, "Local IO failed ({error:?}).{end}")
            }
            Note::MetaIoFailed => f.write_str("meta-data I/O failed"),
            Note::DiskTimeout => {
                f.write_str("Local backing device failed to meet the disk-timeout")
            }
            Note::ForcedDetach => f.write_str("Detaching by force"),
            Note::BitmapWritten { pages, millis } => {
                write!(f, "bitmap WRITE of {pages} pages took {millis} ms")
            }
            Note::AlSuspended => f.write_str("Suspended AL updates"),
            Note::AlResumed => f.write_str("Resumed AL updates"),
            Note::FullSyncDue => f.write_str("a full sync is due"),
            _ => return None,
        })
    }

    fn about_sizes(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::BitmapSized { capacity, bits } => {
                write!(f, "resync bitmap: capacity={} bits={bits}", capacity.0)
            }
            Note::SizeNow(s) => write!(f, "size = {} KB", s.kib()),
            Note::MaxBio(n) => write!(f, "max BIO size = {n}"),
            Note::MdTooSmall { needed } => write!(
                f,
                "refusing attach: md-device too small, at least {} sectors needed",
                needed.0
            ),
            Note::DiskSizeTooBig { max, wanted } => {
                write!(f, "max capacity {} smaller than disk size {}", max.0, wanted.0)
            }
            Note::DiskTooSmall { max, device } => {
                write!(f, "disk too small: {} < {} sectors in use", max.0, device.0)
            }
            Note::ImplicitShrink { last, now } => write!(
                f,
                "To-be-attached device has last effective > current size, and is consistent \
                 ({} > {} sectors). Refusing to attach.",
                last.0, now.0
            ),
            Note::TruncatingAtAttach { last, now } => write!(
                f,
                "truncating a consistent device during attach ({} < {})",
                now.0, last.0
            ),
            Note::RequestedTooBig { wanted, max } => {
                write!(f, "Requested disk size is too big ({} > {})", wanted.0, max.0)
            }
            Note::BothDiskless => f.write_str("Both nodes diskless!"),
            Note::PeerDiskTooSmall { now, device } => write!(
                f,
                "The peer's disk size is too small! ({} < {} sectors)",
                now.0, device.0
            ),
            Note::PeerDeviceTooSmall { peer, device } => write!(
                f,
                "The peer's device size is too small! ({} < {} sectors); demote me first!",
                peer.0, device.0
            ),
            Note::IgnoredPeerSize { peer, device } => write!(
                f,
                "Ignored diskless peer device size (peer:{} != me:{} sectors)!",
                peer.0, device.0
            ),
            Note::SizesDiffer {
                own,
                peer,
                configured,
            } => {
                let what = if configured {
                    "user requested size"
                } else {
                    "lower level device sizes"
                };
                write!(f, "Considerable difference in {what}: {}s vs. {}s", peer.0, own.0)
            }
            Note::PeerSetsSize { old, new } => {
                write!(f, "Peer sets u_size to {} sectors (old: {})", new.0, old.0)
            }
            Note::GrowWithoutResync => f.write_str("Resync of new storage suppressed"),
            _ => return None,
        })
    }

    fn about_peer(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::PeerOnlyWithUuid(u) => {
                write!(f, "Can only connect to data with current UUID={u:016X}")
            }
            Note::ReceiverStarts => f.write_str("Starting receiver thread"),
            Note::Handshake { apv, features } => write!(
                f,
                "Handshake successful: Agreed network protocol version {apv}, \
                 feature flags {features:#x}"
            ),
            Note::ConnectGivenUp => f.write_str("Giving up to connect"),
            Note::ConnectionClosed => f.write_str("Connection closed"),
            Note::SocketLost => f.write_str("sock was shut down by peer"),
            Note::PingTimeout => f.write_str("PingAck did not arrive in time."),
            Note::SendExpired { ko } => write!(f, "sending made no progress, ko = {ko}"),
            Note::RequestTimeout { limit } => {
                write!(f, "Remote failed to finish a request within {limit} ms")
            }
            Note::Violated(v) => write!(f, "peer broke the protocol: {v:?}"),
            Note::Incompatible(s) => write!(f, "incompatible {} settings", s.name()),
            Note::AlgorithmsDiffer { which, own, peer } => {
                write!(f, "Different {which} settings. me={own:?} peer={peer:?}")
            }
            Note::UsingAlgorithm { which, name } => write!(f, "using {which}: {name:?}"),
            Note::CsumsUnused => {
                f.write_str("csums-alg is accepted, but not used by drbd_rs yet")
            }
            Note::UnknownVolume { packet, vnr } => write!(
                f,
                "{packet} packet received for volume {vnr}, which is not configured locally"
            ),
            _ => return None,
        })
    }

    fn about_handshake(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::HandshakeUuids {
                who,
                uuids,
                bits,
                flags,
            } => write!(f, "{who} {} bits:{bits} flags:{flags:X}", Gi(uuids)),
            Note::Compared { result, rule } => {
                write!(f, "uuid_compare()={result} by rule {rule}")
            }
            Note::RealPeerDisk(d) => write!(f, "real peer disk state = {d}"),
            Note::Unrelated => f.write_str("Unrelated data, aborting!"),
            Note::NeedsProtocol(v) => {
                write!(f, "To resolve this both sides have to support at least protocol {v}")
            }
            Note::ByDiskStates { source } => {
                write!(f, "Becoming sync {} due to disk states.", side(source))
            }
            Note::SplitBrainSolved {
                primaries,
                source,
                full,
            } => {
                let full = if full { ", full sync" } else { "" };
                write!(
                    f,
                    "Split-Brain detected, {primaries} primaries, automatically solved. \
                     Sync {}{full}",
                    side(source)
                )
            }
            Note::SplitBrainManual { source } => write!(
                f,
                "Split-Brain detected, manually solved. Sync {}",
                side(source)
            ),
            Note::SplitBrain => {
                f.write_str("Split-Brain detected but unresolved, dropping connection!")
            }
            Note::NoSourceWithoutData => {
                f.write_str("I shall become SyncSource, but I am inconsistent!")
            }
            Note::PrimaryWouldLose { anyway: true } => {
                f.write_str("Becoming SyncTarget, violating the stable-data assumption")
            }
            Note::PrimaryWouldLose { anyway: false } => {
                f.write_str("I shall become SyncTarget, but I am primary!")
            }
            Note::DryRun { result } => write!(f, "dry-run connect: comparison gave {result}"),
            Note::PeerAttachAborted => {
                f.write_str("Disk attach process on the peer node was aborted.")
            }
            Note::CannotThaw => {
                f.write_str("Aborting Connect, can not thaw IO with an only Consistent peer")
            }
            Note::SkipInitialSync => {
                f.write_str("Accepted new current UUID, preparing to skip initial sync")
            }
            Note::BitsWithoutResync(bits) => {
                write!(f, "No resync, but {bits} bits in bitmap!")
            }
            _ => return None,
        })
    }

    fn about_resync(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::ResyncBegins { conn, kib, bits } => write!(
                f,
                "Began resync as {conn} (will sync {kib} KB [{bits} bits set])."
            ),
            Note::ResyncDone {
                total,
                paused,
                speed,
            } => write!(
                f,
                "Resync done (total {total} sec; paused {paused} sec; {speed} K/sec)"
            ),
            Note::ResyncFailed(n) => write!(f, "            {n} failed blocks"),
            Note::ResyncContinues => f.write_str("Syncer continues."),
            Note::ResyncSuspended => f.write_str("Resync suspended"),
            Note::ResyncRuns => f.write_str("a resync is running already"),
            Note::BeforeResyncRefused { code } => {
                write!(f, "before-resync handler returned {code}, dropping connection.")
            }
            Note::NoResyncWithoutBitmap => {
                f.write_str("Writing the bitmap failed not starting resync.")
            }
            Note::OutOfSync { start, len } => {
                write!(f, "Out of sync: start={}, size={} (sectors)", start.0, len.0)
            }
            _ => return None,
        })
    }
}
