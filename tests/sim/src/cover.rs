// SPDX-License-Identifier: GPL-2.0

//! What was reached, and what never was: rules of the handshake, its ends, moves of UUIDs, states.

use crate::algebra::{self, Algebra, Joint};
use crate::moves;
use crate::stats::{Stats, RULES};
use drbd_core::node::Note;
use drbd_core::state::{conn::State as Conn, disk::State as Disk, Role};
use std::collections::{BTreeMap, BTreeSet};

/// Ends of a handshake and of fencing, and other decisions that are told in the log.
pub const DECISIONS: &[&str] = &[
    "by the disks: source",
    "by the disks: target",
    "split brain, 0 primaries: source",
    "split brain, 0 primaries: target",
    "split brain, 1 primary: source",
    "split brain, 1 primary: target",
    "split brain, 2 primaries: source",
    "split brain, 2 primaries: target",
    "split brain by hand: source",
    "split brain by hand: target",
    "split brain stays",
    "unrelated data",
    "policy misfits",
    "least changes instead of age",
    "gave up Primary",
    "ambiguous: full sync",
    "no source without data",
    "Primary would lose: refused",
    "Primary would lose: violently",
    "dry run",
    "needs a newer protocol",
    "needs a feature",
    "first resync skipped",
    "bits without a resync",
    "attach of the peer aborted",
    "can not thaw",
    "attach refused: other data",
    "peer refused: other data",
    "full sync at attach",
    "resumed without data",
    "fenced: peer is inconsistent",
    "fenced: peer was fenced",
    "fenced: peer is dead",
    "fenced: nothing done",
    "fenced: peer is active",
    "fenced: stonith",
    "fencing is broken",
    "fenced too late",
    "not fencing",
    "forced into split brain",
    "forced UpToDate",
    "before-resync refused",
    "congested: fill",
    "congested: extents",
    "conflict: own write first",
    "conflict: peer's write first",
    "bad digest",
    "settings differ",
    "disk timeout",
    "request timeout",
    "peer does not acknowledge",
    "ping timeout",
    "send timeout",
    "resync ended with failed blocks",
    "no resync without bitmap",
    "helper pri-on-incon-degr",
    "helper pri-lost-after-sb",
    "helper pri-lost",
    "helper initial-split-brain",
    "helper split-brain",
    "helper local-io-error",
    "helper before-resync-target",
    "helper before-resync-source",
    "helper after-resync-target",
    "helper out-of-sync",
    "helper fence-peer",
    "helper unfence-peer",
];

/// What a line of the log decides, as it stands in [`DECISIONS`].
pub fn decision(note: &Note) -> Option<&'static str> {
    let source = |source: bool, yes, no| Some(if source { yes } else { no });
    match note {
        Note::ByDiskStates { source: s } => {
            source(*s, "by the disks: source", "by the disks: target")
        }
        Note::SplitBrainSolved {
            primaries,
            source: s,
        } => Some(solved(*primaries, *s)),
        Note::SplitBrainManual { source: s } => source(
            *s,
            "split brain by hand: source",
            "split brain by hand: target",
        ),
        Note::PrimaryWouldLose { anyway } => source(
            *anyway,
            "Primary would lose: violently",
            "Primary would lose: refused",
        ),
        Note::Congested { fill } => source(*fill, "congested: fill", "congested: extents"),
        Note::ConcurrentWrites { own_first, .. } => source(
            *own_first,
            "conflict: own write first",
            "conflict: peer's write first",
        ),
        Note::HelperStarts(command) => {
            let ends = |d: &&&str| {
                d.strip_prefix("helper ")
                    .is_some_and(|d| d == command.name())
            };
            DECISIONS.iter().find(ends).copied()
        }
        Note::Fenced(text) => Some(match *text {
            "peer is inconsistent or worse" => "fenced: peer is inconsistent",
            "peer was fenced" => "fenced: peer was fenced",
            "peer is unreachable, assumed to be dead" => "fenced: peer is dead",
            "peer is active" => "fenced: peer is active",
            "peer was stonithed" => "fenced: stonith",
            _ => "fenced: nothing done",
        }),
        Note::Violated {
            why: drbd_core::node::Violation::Digest,
            ..
        } => Some("bad digest"),
        other => plain(other),
    }
}

fn solved(primaries: u32, source: bool) -> &'static str {
    match (primaries, source) {
        (0, true) => "split brain, 0 primaries: source",
        (0, false) => "split brain, 0 primaries: target",
        (1, true) => "split brain, 1 primary: source",
        (1, false) => "split brain, 1 primary: target",
        (_, true) => "split brain, 2 primaries: source",
        (_, false) => "split brain, 2 primaries: target",
    }
}

fn plain(note: &Note) -> Option<&'static str> {
    Some(match note {
        Note::SplitBrain => "split brain stays",
        Note::Unrelated => "unrelated data",
        Note::PolicyMisfits => "policy misfits",
        Note::UsingLeastChanges => "least changes instead of age",
        Note::GaveUpPrimary => "gave up Primary",
        Note::FullSyncAmbiguous => "ambiguous: full sync",
        Note::NoSourceWithoutData => "no source without data",
        Note::DryRun(_) => "dry run",
        Note::NeedsProtocol(_) => "needs a newer protocol",
        Note::NeedsFeatures { .. } => "needs a feature",
        Note::SkipInitialSync => "first resync skipped",
        Note::BitsWithoutResync(_) => "bits without a resync",
        Note::PeerAttachAborted => "attach of the peer aborted",
        Note::CannotThaw => "can not thaw",
        Note::OnlyWithUuid(_) => "attach refused: other data",
        Note::PeerOnlyWithUuid(_) => "peer refused: other data",
        Note::FullSyncAtAttach => "full sync at attach",
        Note::ResumedWithoutData => "resumed without data",
        Note::FenceBroken(_) => "fencing is broken",
        Note::FenceTooLate => "fenced too late",
        Note::NotFencing => "not fencing",
        Note::ForcedSplitBrain => "forced into split brain",
        Note::ForcedUpToDate => "forced UpToDate",
        Note::BeforeResyncRefused { .. } => "before-resync refused",
        Note::Incompatible(_) => "settings differ",
        Note::DiskTimeout => "disk timeout",
        Note::RequestTimeout { .. } => "request timeout",
        Note::AcksMissing => "peer does not acknowledge",
        Note::PingTimeout => "ping timeout",
        Note::SendExpired { .. } => "send timeout",
        Note::ResyncFailed(_) => "resync ended with failed blocks",
        Note::NoResyncWithoutBitmap => "no resync without bitmap",
        _ => return None,
    })
}

fn list(what: &str, names: &[String]) -> String {
    format!("  {what} ({}): {}\n", names.len(), names.join(", "))
}

/// Moves of one part of the state that are legal and were never made.
fn never<T: Ord + Copy>(
    a: &Algebra,
    seen: &BTreeSet<(Joint, Joint)>,
    part: impl Fn(Joint) -> T,
    name: impl Fn(T) -> String,
) -> Vec<String> {
    let pairs = |moves: &BTreeSet<(Joint, Joint)>| -> BTreeSet<(T, T)> {
        let both = moves.iter().map(|(from, to)| (part(*from), part(*to)));
        both.filter(|(from, to)| from != to).collect()
    };
    let (legal, seen) = (pairs(&a.moves), pairs(seen));
    let missing = legal.difference(&seen);
    missing
        .map(|(from, to)| format!("{}->{}", name(*from), name(*to)))
        .collect()
}

/// States that are legal and were never seen, by connection.
fn unseen(a: &Algebra, seen: &BTreeSet<Joint>) -> String {
    let mut by_conn: BTreeMap<Conn, Vec<String>> = BTreeMap::new();
    for j in a.states.difference(seen) {
        let (role, conn, disk, pdsk) = algebra::parts(*j);
        let short = if role == Role::Primary { "P" } else { "S" };
        let text = format!("{short} {disk}/{pdsk}");
        by_conn.entry(conn).or_default().push(text);
    }
    by_conn
        .into_iter()
        .map(|(conn, states)| list(&format!("  {conn}"), &states))
        .collect()
}

/// The table of what was reached, and the lists of what was not.
pub fn report(stats: &Stats) -> String {
    let a = Algebra::new();
    let seen: BTreeSet<(Joint, Joint)> = stats.joint.keys().copied().collect();
    let states: BTreeSet<Joint> = seen.iter().flat_map(|(from, to)| [*from, *to]).collect();
    let odd: Vec<String> = seen
        .difference(&a.moves)
        .map(|(from, to)| format!("{} -> {}", algebra::name(*from), algebra::name(*to)))
        .collect();
    let known = a.moves.intersection(&seen).count();
    let mut out = format!(
        "coverage: {} of {} legal states, {known} of {} legal moves\n",
        a.states.intersection(&states).count(),
        a.states.len(),
        a.moves.len()
    );
    out += &list("moves that no rule foresees", &odd);
    let text = |n: u64, what: &str| format!("{what} {n}");
    for (what, all, done) in [
        ("moves of UUIDs", moves::KINDS, &stats.moves),
        ("decisions", DECISIONS, &stats.decisions),
    ] {
        let seen: Vec<String> = done.iter().map(|(w, n)| text(*n, w)).collect();
        out += &list(what, &seen);
        let never = all.iter().filter(|k| !done.contains_key(*k));
        let never: Vec<String> = never.map(ToString::to_string).collect();
        out += &list(&format!("{what}, never"), &never);
    }
    let rules: Vec<String> = RULES
        .iter()
        .filter(|r| !stats.rules.contains_key(r))
        .map(|(r, v)| format!("{r}({v})"))
        .collect();
    out += &list("rules of the handshake, never", &rules);
    let conn = never(&a, &seen, |j| algebra::parts(j).1, |c: Conn| c.to_string());
    out += &list("conn, never", &conn);
    let disk = |d: Disk| d.to_string();
    out += &list(
        "disk, never",
        &never(&a, &seen, |j| algebra::parts(j).2, disk),
    );
    out += &list(
        "pdsk, never",
        &never(&a, &seen, |j| algebra::parts(j).3, disk),
    );
    let role = never(
        &a,
        &seen,
        |j| algebra::parts(j).0.number(),
        |r| Role::from_number(r).map_or("?", |r| r.name()).to_string(),
    );
    out += &list("role, never", &role);
    out += "  states never seen, by connection:\n";
    out + &unseen(&a, &states)
}
