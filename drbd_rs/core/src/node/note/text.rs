// SPDX-License-Identifier: GPL-2.0

//! The words of each [`Note`].

use core::fmt;

use super::super::Violation;
use super::Note;
use crate::state::conn::State as Conn;
use crate::state::log::{Diff, StateLine};
use crate::uuid::{explain, DryRun, UuidSet};

/// Which node a resync comes from.
const fn whose(source: bool) -> &'static str {
    if source {
        "this"
    } else {
        "peer"
    }
}

fn would_become(f: &mut fmt::Formatter<'_>, conn: Conn, full: bool) -> fmt::Result {
    let how = if full { "full" } else { "bit-map based" };
    write!(
        f,
        "dry-run connect: Would become {conn}, doing a {how} resync."
    )
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

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Range => "a range that is empty, unaligned, too long or not on the device",
            Violation::Unexpected => "not expected in this state",
            Violation::Volume => "for a volume that is not configured here",
            Violation::Bitmap => "a piece of bitmap of wrong length or content",
            Violation::Ack => "acknowledges what was never sent",
            Violation::BarrierAck => "names the wrong epoch or number of writes",
            Violation::Digest => "the data do not match their digest",
            Violation::Malformed => "holds numbers that mean nothing",
            Violation::Flood => "more than may be outstanding",
        })
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
            .or_else(|| self.about_resizing(f))
            .or_else(|| self.about_peer_sizes(f))
            .or_else(|| self.about_peer(f))
            .or_else(|| self.about_handshake(f))
            .or_else(|| self.about_rules(f))
            .or_else(|| self.about_resync(f))
            .or_else(|| self.about_verify(f))
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
                write!(
                    f,
                    "State change failed: {text} (conn {old}, wanted {wanted})"
                )
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
                write!(
                    f,
                    "{kib} KB ({bits} bits) marked out-of-sync by on disk bit-map."
                )
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
                write!(
                    f,
                    "max capacity {} smaller than disk size {}",
                    max.0, wanted.0
                )
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
                write!(
                    f,
                    "Requested disk size is too big ({} > {})",
                    wanted.0, max.0
                )
            }
            _ => return None,
        })
    }

    fn about_resizing(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::GrowWithoutResync => {
                f.write_str("Resync of new storage suppressed with --assume-clean")
            }
            Note::ForcedResize => f.write_str("Resize while not connected was forced by the user!"),
            Note::ShrinkNeedsSize(size) => write!(
                f,
                "Implicit shrink not allowed. Use --size={}s for explicit shrink.",
                size.0
            ),
            Note::BitmapTooSmall { size } => write!(
                f,
                "there is no memory, or no room on disk, for the bitmap of {} sectors; \
                 leaving the size unchanged",
                size.0
            ),
            Note::WritingBitmap(why) => write!(f, "Writing the whole bitmap, {why}"),
            Note::NewAlLayout(ring) => write!(
                f,
                "Changed AL layout to al-stripes = {}, al-stripe-size-kB = {}",
                ring.stripes(),
                ring.stripe_blocks().saturating_mul(4)
            ),
            Note::RingIsFixed => {
                f.write_str("indexed meta-data have a fixed activity log of 32 KiB")
            }
            Note::RingTooSmall { slots, most } => write!(
                f,
                "an activity log of this size can hold {most} extents, and al-extents is {slots}; \
                 attach with a smaller al-extents first"
            ),
            _ => return None,
        })
    }

    fn about_peer_sizes(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
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
                write!(
                    f,
                    "Considerable difference in {what}: {}s vs. {}s",
                    peer.0, own.0
                )
            }
            Note::PeerSetsSize { old, new } => {
                write!(f, "Peer sets u_size to {} sectors (old: {})", new.0, old.0)
            }
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
            Note::WaitedInVain { secs } => {
                write!(f, "The peer did not go on for {secs} s.")
            }
            Note::LossUnheard => f.write_str(
                "The peer did not take notice of the loss of this disk in time; the connection is \
                 closed, so that it marks what the disk may not have stored.",
            ),
            Note::PingTimeout => f.write_str("PingAck did not arrive in time."),
            Note::SendExpired { ko } => write!(f, "sending made no progress, ko = {ko}"),
            Note::RequestTimeout { limit } => {
                write!(f, "Remote failed to finish a request within {limit} ms")
            }
            Note::Violated { packet, why } => {
                write!(f, "peer broke the protocol: {}: {why}", packet.name())
            }
            Note::Congested { fill: true } => f.write_str("Congestion-fill threshold reached"),
            Note::Congested { fill: false } => f.write_str("Congestion-extents threshold reached"),
            Note::AcksMissing => {
                f.write_str("Timed out waiting for missing ack packets; disconnecting")
            }
            Note::ConcurrentWrites {
                own,
                peer,
                own_first,
            } => write!(
                f,
                "Concurrent writes detected: local={}s +{}, remote={}s +{}, assuming {} came first",
                own.start.0,
                own.bytes(),
                peer.start.0,
                peer.bytes(),
                if own_first { "local" } else { "remote" },
            ),
            Note::Incompatible(s) => write!(f, "incompatible {} settings", s.name()),
            Note::AlgorithmsDiffer { which, own, peer } => {
                write!(f, "Different {which} settings. me={own:?} peer={peer:?}")
            }
            Note::UsingAlgorithm { which, name } => write!(f, "using {which}: {name:?}"),
            Note::NoDigest(option) => write!(f, "{option} is not known to this kernel"),
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
                write!(
                    f,
                    "To resolve this both sides have to support at least protocol {v}"
                )
            }
            Note::ByDiskStates { source } => {
                write!(f, "Becoming sync {} due to disk states.", side(source))
            }
            Note::SplitBrainSolved { primaries, source } => write!(
                f,
                "Split-Brain detected, {primaries} primaries, automatically solved. \
                 Sync from {} node",
                whose(source)
            ),
            Note::SplitBrainManual { source } => write!(
                f,
                "Split-Brain detected, manually solved. Sync from {} node",
                whose(source)
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
            Note::DryRun(DryRun::Connected) => {
                f.write_str("dry-run connect: No resync, would become Connected immediately.")
            }
            Note::DryRun(DryRun::Source { full }) => would_become(f, Conn::SyncSource, full),
            Note::DryRun(DryRun::Target { full }) => would_become(f, Conn::SyncTarget, full),
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

    fn about_rules(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::RuleSays(line) => f.write_str(line),
            Note::RuleMeans {
                rule,
                verdict,
                outcome,
            } => {
                let e = explain(rule, verdict, outcome);
                write!(
                    f,
                    "rule {}: {} {} {} {}",
                    rule.0, e.compared, e.why, e.loss, e.next
                )
            }
            Note::NeedsFeatures { apv, features } => write!(
                f,
                "To resolve this both sides have to support at least protocol {apv} \
                 and feature flags {features:#x}"
            ),
            Note::PolicyMisfits => f.write_str(
                "Configuration error: the after-sb policy does not fit the number of Primaries.",
            ),
            Note::UsingLeastChanges => f.write_str(
                "Discard younger/older primary did not find a decision; \
                 using discard-least-changes instead",
            ),
            Note::GaveUpPrimary => f.write_str("Successfully gave up primary role."),
            Note::FullSyncAmbiguous => {
                f.write_str("Doing a full sync, since UUIDs were ambiguous.")
            }
            Note::TooLongForPeer { bytes, most } => write!(
                f,
                "A request of {bytes} bytes was held back for a peer that has come back with an \
                 older protocol, which carries {most}; disconnecting. Connect again when it is done"
            ),
            Note::NameGivenUp => f.write_str(
                "Both nodes were the source of what a resize had added, so nothing was copied; \
                 connecting anew, as the target of the peer",
            ),
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
                write!(
                    f,
                    "before-resync handler returned {code}, dropping connection."
                )
            }
            Note::NoResyncWithoutBitmap => {
                f.write_str("Writing the bitmap failed not starting resync.")
            }
            Note::EqualDigests { same, total } => {
                let percent = if total < 100_000 {
                    same.saturating_mul(100).checked_div(total)
                } else {
                    same.checked_div(total / 100)
                };
                write!(
                    f,
                    "{} % had equal checksums, eliminated: {}K; transferred {}K total {}K",
                    percent.unwrap_or(0),
                    same.saturating_mul(4),
                    total.saturating_sub(same).saturating_mul(4),
                    total.saturating_mul(4)
                )
            }
            _ => return None,
        })
    }

    fn about_verify(&self, f: &mut fmt::Formatter<'_>) -> Said {
        Some(match *self {
            Note::VerifyBegins(at) => write!(f, "Starting Online Verify from sector {}", at.0),
            Note::VerifyStartSector(at) => write!(f, "Online Verify start sector: {}", at.0),
            Note::VerifyReached(at) => write!(f, "Online Verify reached sector {}", at.0),
            Note::VerifyDone {
                total,
                paused,
                speed,
            } => write!(
                f,
                "Online verify done (total {total} sec; paused {paused} sec; {speed} K/sec)"
            ),
            Note::VerifyFound(n) => {
                write!(f, "Online verify found {n} 4k block out of sync!")
            }
            Note::OutOfSync { start, len } => {
                write!(
                    f,
                    "Out of sync: start={}, size={} (sectors)",
                    start.0, len.0
                )
            }
            _ => return None,
        })
    }
}
