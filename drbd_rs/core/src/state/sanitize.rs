// SPDX-License-Identifier: GPL-2.0

//! What a wished state implies: the changes that DRBD makes by itself, in the order it makes them.
//!
//! The order is part of the behaviour. Sanitizing is not idempotent in DRBD: the pause flags are
//! looked at last, after the disk limits of the connection state were applied; see the tests.

use super::types::{Context, Fencing, State};
use super::{conn::State as Conn, disk::State as Disk, role::Role};

/// Something that the administrator should hear of. Only the last one found is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// A disk went away under a running verify.
    AbortedOnlineVerify,
    /// A disk went away under a running resync.
    AbortedResync,
    /// The peer was lost before it could tell whether the own copy is the right one.
    ConnectionLostNegotiating,
    /// The connection state needs a better own copy than asked for.
    ImplicitlyUpgradedDisk,
    /// The connection state needs a better copy of the peer than asked for.
    ImplicitlyUpgradedPdsk,
}

impl Warning {
    /// The line for the kernel log.
    pub const fn text(self) -> &'static str {
        match self {
            Warning::AbortedOnlineVerify => "Online-verify aborted.",
            Warning::AbortedResync => "Resync aborted.",
            Warning::ConnectionLostNegotiating => "Connection lost while negotiating, no data!",
            Warning::ImplicitlyUpgradedDisk => "Implicitly upgraded disk",
            Warning::ImplicitlyUpgradedPdsk => "Implicitly upgraded pdsk",
        }
    }
}

/// The lowest and the highest state of both copies that a connection state admits.
struct Limits {
    disk: (Disk, Disk),
    pdsk: (Disk, Disk),
}

const UP_TO_DATE: (Disk, Disk) = (Disk::UpToDate, Disk::UpToDate);

/// The limits while the connection is in state `conn`.
fn limits(conn: Conn) -> Limits {
    match conn {
        Conn::WFBitMapT
        | Conn::PausedSyncT
        | Conn::StartingSyncT
        | Conn::WFSyncUUID
        | Conn::Behind => Limits {
            disk: (Disk::Inconsistent, Disk::Outdated),
            pdsk: UP_TO_DATE,
        },
        Conn::VerifyS | Conn::VerifyT => Limits {
            disk: UP_TO_DATE,
            pdsk: UP_TO_DATE,
        },
        Conn::Connected => Limits {
            disk: (Disk::Diskless, Disk::UpToDate),
            pdsk: (Disk::Diskless, Disk::UpToDate),
        },
        Conn::WFBitMapS | Conn::PausedSyncS | Conn::StartingSyncS | Conn::Ahead => Limits {
            disk: UP_TO_DATE,
            pdsk: (Disk::Inconsistent, Disk::Consistent),
        },
        Conn::SyncTarget => Limits {
            disk: (Disk::Inconsistent, Disk::Inconsistent),
            pdsk: UP_TO_DATE,
        },
        Conn::SyncSource => Limits {
            disk: UP_TO_DATE,
            pdsk: (Disk::Inconsistent, Disk::Inconsistent),
        },
        Conn::StandAlone
        | Conn::Disconnecting
        | Conn::Unconnected
        | Conn::Timeout
        | Conn::BrokenPipe
        | Conn::NetworkFailure
        | Conn::ProtocolError
        | Conn::TearDown
        | Conn::WFConnection
        | Conn::WFReportParams => Limits {
            disk: (Disk::Diskless, Disk::UpToDate),
            pdsk: (Disk::Inconsistent, Disk::DUnknown),
        },
    }
}

/// Completes `wish`, asked for while the state is `old`, by everything it implies.
pub fn sanitize(old: State, wish: State, ctx: Context) -> (State, Option<Warning>) {
    let mut new = wish;
    let mut warning = None;

    if new.conn < Conn::Connected {
        forget_peer(&mut new);
    }
    if new.is_unconfigured() {
        new.aftr_isp = false;
    }
    if new.conn > Conn::Connected && (new.disk <= Disk::Failed || new.pdsk <= Disk::Failed) {
        warning = Some(if new.conn.is_verify() {
            Warning::AbortedOnlineVerify
        } else {
            Warning::AbortedResync
        });
        new.conn = Conn::Connected;
    }
    if new.conn < Conn::Connected && new.disk == Disk::Negotiating {
        warning = lost_while_negotiating(old, &mut new, ctx).or(warning);
    }
    if new.conn >= Conn::Connected && new.conn < Conn::Ahead {
        agree(old, &mut new, ctx.as_c);
    }

    let limits = limits(new.conn);
    if clamp(&mut new.disk, limits.disk) {
        warning = Some(Warning::ImplicitlyUpgradedDisk);
    }
    if clamp(&mut new.pdsk, limits.pdsk) {
        warning = Some(Warning::ImplicitlyUpgradedPdsk);
    }

    suspend(old, &mut new, ctx);
    new.conn = paused_or_running(new);
    (new, warning)
}

/// While there is a connection a copy is either good or has to become so: Consistent and Outdated
/// go. Where the other node has no disk, nobody can say that an Outdated copy is good: it is not,
/// be it that both connect or that a resync is aborted; nor is the target's of such a resync. The
/// C driver calls all of them UpToDate. A good copy, though, stays good when somebody wants to
/// outdate it: it may be the only one.
fn agree(old: State, new: &mut State, as_c: bool) {
    let aborted = old.conn > Conn::Connected && new.conn == Conn::Connected && !as_c;
    let own = new.disk >= Disk::Inconsistent || as_c;
    let other = new.pdsk >= Disk::Inconsistent || as_c;
    new.disk = match new.disk {
        Disk::Outdated if !other && old.disk != Disk::UpToDate => Disk::Inconsistent,
        Disk::Outdated | Disk::Consistent => Disk::UpToDate,
        disk => disk,
    };
    new.pdsk = match new.pdsk {
        Disk::Consistent if aborted && !own => Disk::Inconsistent,
        Disk::Outdated if !own => Disk::Inconsistent,
        Disk::Outdated | Disk::Consistent => Disk::UpToDate,
        disk => disk,
    };
}

/// Without a connection nothing is known of the peer but what the meta data keep of its disk.
fn forget_peer(new: &mut State) {
    new.peer_isp = false;
    new.peer = Role::Unknown;
    if new.pdsk > Disk::DUnknown || new.pdsk < Disk::Inconsistent {
        new.pdsk = Disk::DUnknown;
    }
}

/// The peer is lost while the own copy waits for its verdict: decides alone, if that is safe.
fn lost_while_negotiating(old: State, new: &mut State, ctx: Context) -> Option<Warning> {
    let attach = ctx.attach?;
    if old.disk < Disk::Negotiating {
        return None;
    }
    if attach.data_matches {
        new.disk = attach.disk;
        // That the peer had no disk does not say that the one which it gets is bad: the C driver
        // calls that Inconsistent, and so begins no generation with what that misses.
        new.pdsk = match attach.pdsk {
            pdsk if pdsk < Disk::Inconsistent && !ctx.as_c => Disk::DUnknown,
            pdsk => pdsk,
        };
        None
    } else {
        new.disk = Disk::Diskless;
        new.pdsk = Disk::DUnknown;
        Some(Warning::ConnectionLostNegotiating)
    }
}

/// Brings `copy` between the limits; true if it had to be raised.
fn clamp(copy: &mut Disk, (lowest, highest): (Disk, Disk)) -> bool {
    if *copy > highest {
        *copy = highest;
    }
    let raised = *copy < lowest;
    if raised {
        *copy = lowest;
    }
    raised
}

/// Holds application I/O back when the peer has just become unfenced, or good data unreachable.
fn suspend(old: State, new: &mut State, ctx: Context) {
    if ctx.fencing_in(old) == Fencing::ResourceAndStonith
        && new.primary_with_unfenced_peer()
        && !old.primary_with_unfenced_peer()
    {
        new.susp_fen = true;
    }
    if ctx.suspend_on_no_data && new.primary_without_data() && !old.primary_without_data() {
        new.susp_nod = true;
    }
}

/// A resync pauses while there is a reason to, and runs when there is none.
fn paused_or_running(new: State) -> Conn {
    match (new.conn, new.has_isp()) {
        (Conn::SyncSource, true) => Conn::PausedSyncS,
        (Conn::SyncTarget, true) => Conn::PausedSyncT,
        (Conn::PausedSyncS, false) => Conn::SyncSource,
        (Conn::PausedSyncT, false) => Conn::SyncTarget,
        (conn, _) => conn,
    }
}
