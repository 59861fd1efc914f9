// SPDX-License-Identifier: GPL-2.0

//! Which changes are allowed: the rules on states and on steps, and the order they are asked in.
//!
//! Three sets of rules. *Hard* rules bind even facts (a network that broke). The rules on *states*
//! and on *soft* transitions bind what somebody asks for. A state that breaks a rule already may
//! be left for another one that breaks the same rule.
//!
//! Nothing here waits or talks to the peer; [`request`](super::request) builds on it.

use super::code::Ss;
use super::sanitize::{sanitize, Warning};
use super::types::{Context, Fencing, State, StateChange};
use super::{conn::State as Conn, disk::State as Disk, role::Role};

/// How a change is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// A fact imposed from outside: only the hard rules apply (`CS_HARD`).
    pub hard: bool,
    /// Volumes worse than Outdated ignore a request to become so (`CS_IGN_OUTD_FAIL`).
    /// Looked at for connection-wide requests only.
    pub ignore_outdate_failure: bool,
}

impl Flags {
    /// Something somebody asks for.
    pub const SOFT: Flags = Flags {
        hard: false,
        ignore_outdate_failure: false,
    };
    /// Something that has happened.
    pub const HARD: Flags = Flags {
        hard: true,
        ignore_outdate_failure: false,
    };
}

/// A change that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct New {
    /// The state to be entered. Equal to the old one if `code` came without a change.
    pub state: State,
    /// What to warn of.
    pub warning: Option<Warning>,
    /// The answer to whoever asked. `NothingToDo` also if the state changes by force while the
    /// connection state stays: do not conclude from it that nothing changed.
    pub code: Ss,
    /// Whether the state changes at all.
    pub changed: bool,
}

/// A change that must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Why.
    pub code: Ss,
    /// What the request would have led to, for the kernel log.
    pub wanted: State,
    /// A hard rule was broken. DRBD does not log those for requests on a single volume.
    pub by_hard_rule: bool,
}

/// Decides about `change`, asked for while the state is `old`, as for one volume.
///
/// # Errors
///
/// The rule that forbids it.
pub fn evaluate(
    old: State,
    change: StateChange,
    flags: Flags,
    ctx: Context,
) -> Result<New, Refusal> {
    let (wanted, warning) = sanitize(old, change.apply(old), ctx);
    if !flags.hard {
        refuse_promotion(old, change, wanted, ctx.as_c)?;
    }
    if wanted == old {
        return Ok(New {
            state: old,
            warning: None,
            code: Ss::NothingToDo,
            changed: false,
        });
    }
    let code = check(old, wanted, flags, ctx)?;
    Ok(New {
        state: wanted,
        warning,
        code,
        changed: true,
    })
}

/// What would make a bad copy a good one, as the connection state that is asked for has only good
/// ones. A disk that is worse than Outdated can not be outdated: while there is a connection the
/// rules would see a wish for UpToDate instead. A verify needs two good disks, and a full resync a
/// good source; nor does one begin before the peer has answered to an attach. The C driver grants
/// all of that.
///
/// # Errors
///
/// Such a wish.
pub(super) fn refuse_promotion(
    old: State,
    change: StateChange,
    wanted: State,
    as_c: bool,
) -> Result<(), Refusal> {
    let bad = |disk: Disk| disk > Disk::Failed && disk < Disk::UpToDate;
    let promotes = change.conn.is_some_and(|conn| {
        let verify = conn.is_verify();
        (bad(old.disk) && (verify || conn == Conn::StartingSyncS))
            || (bad(old.pdsk) && (verify || conn == Conn::StartingSyncT))
    });
    if promotes && old.conn == Conn::Connected && !as_c {
        return Err(Refusal {
            code: Ss::NoUpToDateDisk,
            wanted,
            by_hard_rule: false,
        });
    }
    // The peer asks on account of a disk that was there before: it is about to hear of its end, and
    // of this one, and calls the resync off alone.
    if change.conn == Some(Conn::StartingSyncT) && old.disk == Disk::Negotiating && !as_c {
        return Err(Refusal {
            code: Ss::InTransientState,
            wanted,
            by_hard_rule: false,
        });
    }
    let outdates = change.disk == Some(Disk::Outdated) && wanted.disk > Disk::Outdated && !as_c;
    let code = match old.disk {
        Disk::Diskless => Ss::IsDiskless,
        Disk::Failed | Disk::Negotiating | Disk::Inconsistent => Ss::LowerThanOutdated,
        Disk::Attaching | Disk::Outdated | Disk::DUnknown | Disk::Consistent | Disk::UpToDate => {
            return Ok(());
        }
    };
    if outdates {
        return Err(Refusal {
            code,
            wanted,
            by_hard_rule: false,
        });
    }
    Ok(())
}

/// Asks all rules about the step from `old` to the sanitized `wanted`.
///
/// # Errors
///
/// The rule that forbids it.
pub(super) fn check(old: State, wanted: State, flags: Flags, ctx: Context) -> Result<Ss, Refusal> {
    let refuse = |code, by_hard_rule| {
        Err(Refusal {
            code,
            wanted,
            by_hard_rule,
        })
    };
    let hard = is_valid_transition(old, wanted);
    if hard.is_refusal() {
        return refuse(hard, true);
    }
    if flags.hard {
        return Ok(hard);
    }
    let valid = is_valid_state(old, wanted, ctx);
    if valid.is_refusal() && is_valid_state(old, old, ctx) != valid {
        return refuse(valid, false);
    }
    let soft = is_valid_soft_transition(old, wanted, ctx);
    if soft.is_refusal() {
        return refuse(soft, false);
    }
    Ok(soft)
}

/// Whether `state` obeys all rules on states; the first broken one answers.
///
/// `current` is the state in force: only with a disk attached now is its fencing policy known.
pub fn is_valid_state(current: State, state: State, ctx: Context) -> Ss {
    let s = state;
    let primary = s.role.is_primary();
    let no_peer = s.conn < Conn::Connected;
    let busy = s.conn > Conn::Connected;

    if ctx.has_net_conf && !ctx.two_primaries && primary {
        if s.peer.is_primary() {
            return Ss::TwoPrimaries;
        }
        if ctx.any_peer_primary {
            return Ss::OVolPeerPri;
        }
    }
    if s.role == Role::Secondary && ctx.open {
        return Ss::DeviceInUse;
    }
    if primary && no_peer && s.disk < Disk::UpToDate {
        return Ss::NoUpToDateDisk;
    }
    if ctx.fencing_in(current) >= Fencing::ResourceOnly
        && primary
        && no_peer
        && s.pdsk >= Disk::DUnknown
    {
        return Ss::PrimaryNop;
    }
    if primary && s.disk <= Disk::Inconsistent && s.pdsk <= Disk::Inconsistent {
        return Ss::NoUpToDateDisk;
    }
    if busy && s.disk < Disk::Inconsistent {
        return Ss::NoLocalDisk;
    }
    if busy && s.pdsk < Disk::Inconsistent {
        return Ss::NoRemoteDisk;
    }
    if busy && s.disk < Disk::UpToDate && s.pdsk < Disk::UpToDate {
        return Ss::NoUpToDateDisk;
    }
    if matches!(
        s.conn,
        Conn::Connected | Conn::WFBitMapS | Conn::SyncSource | Conn::PausedSyncS
    ) && s.disk == Disk::Outdated
    {
        return Ss::ConnectedOutdates;
    }
    if ctx.has_net_conf && s.conn.is_verify() && !ctx.has_verify_alg {
        return Ss::NoVerifyAlg;
    }
    if s.conn.is_verify() && ctx.apv < 88 {
        return Ss::NotSupported;
    }
    if s.primary_without_data() {
        return Ss::NoUpToDateDisk;
    }
    if s.conn.is_starting_sync() && s.pdsk == Disk::DUnknown {
        return Ss::NeedConnection;
    }
    if s.conn >= Conn::Connected && s.pdsk == Disk::DUnknown {
        return Ss::ConnectedOutdates;
    }
    Ss::Success
}

/// Whether the step may be taken because somebody asks for it; the last broken rule answers.
pub fn is_valid_soft_transition(old: State, new: State, ctx: Context) -> Ss {
    let mut answer = Ss::Success;
    let mut rule = |broken: bool, code: Ss| {
        if broken {
            answer = code;
        }
    };

    rule(
        new.conn.is_starting_sync() && old.conn > Conn::Connected,
        Ss::ResyncRunning,
    );
    rule(
        new.conn == Conn::Disconnecting && old.conn == Conn::StandAlone,
        Ss::AlreadyStandalone,
    );
    rule(revives(old.disk, new.disk, ctx.as_c), Ss::IsDiskless);
    rule(
        new.conn == Conn::WFConnection && old.conn < Conn::Unconnected,
        Ss::NoNetConfig,
    );
    rule(
        new.disk == Disk::Outdated && old.disk < Disk::Outdated && old.disk != Disk::Attaching,
        Ss::LowerThanOutdated,
    );
    rule(
        new.conn == Conn::Disconnecting && old.conn == Conn::Unconnected,
        Ss::InTransientState,
    );
    // Between the first state packet and its answer only the connection may move on.
    rule(
        ctx.state_sent
            && !((new.conn == Conn::WFReportParams && old.conn == Conn::WFConnection)
                || (new.conn >= Conn::Connected && old.conn == Conn::WFReportParams)),
        Ss::InTransientState,
    );
    rule(promotes_during_handshake(old, new), Ss::InTransientState);
    rule(
        new.conn.is_verify() && old.conn < Conn::Connected,
        Ss::NeedConnection,
    );
    rule(
        new.conn.is_verify() && new.conn != old.conn && old.conn > Conn::Connected,
        Ss::ResyncRunning,
    );
    rule(
        new.conn.is_starting_sync() && old.conn < Conn::Connected,
        Ss::NeedConnection,
    );
    rule(
        matches!(new.conn, Conn::SyncTarget | Conn::SyncSource) && old.conn < Conn::WFReportParams,
        Ss::NeedConnection,
    );
    rule(
        new.conn == Conn::Disconnecting
            && new.pdsk == Disk::Outdated
            && old.conn < Conn::Connected
            && old.pdsk > Disk::Outdated,
        Ss::OutdateWoConn,
    );
    answer
}

/// Asking for more of a disk that is gone. Nothing that somebody asks for makes a failed disk a
/// good one again: what `primary --force` is to call UpToDate may have failed while the peer was
/// asked. The C driver calls it so.
fn revives(old: Disk, new: Disk, as_c: bool) -> bool {
    (old == Disk::Diskless && new > Disk::Attaching)
        || (old == Disk::Failed && new > Disk::Failed && !as_c)
}

/// Becoming Primary while a peer forced to UpToDate is about to resync this node.
fn promotes_during_handshake(old: State, new: State) -> bool {
    !old.role.is_primary()
        && new.role.is_primary()
        && new.pdsk == Disk::UpToDate
        && !matches!(new.disk, Disk::UpToDate | Disk::Diskless)
        && (new.conn <= Conn::WFSyncUUID || new.conn != old.conn)
}

/// Whether a connection may go from `old` to `new` at all.
pub fn is_valid_conn_transition(old: Conn, new: Conn) -> Ss {
    if old == new {
        return Ss::NothingToDo;
    }
    if old == Conn::StandAlone && new == Conn::Disconnecting {
        return Ss::AlreadyStandalone;
    }
    if old == Conn::StandAlone && new != Conn::Unconnected {
        return Ss::NeedConnection;
    }
    if old < Conn::WFReportParams && new >= Conn::Connected {
        return Ss::NeedConnection;
    }
    if old.is_broken() && !matches!(new, Conn::Unconnected | Conn::Disconnecting) {
        return Ss::InTransientState;
    }
    if old == Conn::Disconnecting && new != Conn::StandAlone {
        return Ss::InTransientState;
    }
    Ss::Success
}

/// Whether the step obeys the rules that bind even facts. `NothingToDo` if the connection stays.
pub fn is_valid_transition(old: State, new: State) -> Ss {
    // A device without a disk can not fail, whatever the connection does.
    if new.disk == Disk::Failed && old.disk == Disk::Diskless {
        return Ss::IsDiskless;
    }
    is_valid_conn_transition(old.conn, new.conn)
}

/// Whether the peer has to agree to the step.
pub fn is_cluster_wide(old: State, new: State) -> bool {
    let connected = old.conn >= Conn::Connected;
    let enters = |conn| old.conn != conn && new.conn == conn;
    (connected
        && new.conn >= Conn::Connected
        && ((!old.role.is_primary() && new.role.is_primary())
            || enters(Conn::StartingSyncT)
            || enters(Conn::StartingSyncS)
            || (old.disk != Disk::Failed && new.disk == Disk::Failed)))
        || (connected && new.conn == Conn::Disconnecting)
        || (old.conn == Conn::Connected && new.conn == Conn::VerifyS)
        || (old.conn == Conn::Connected && new.conn == Conn::WFReportParams)
}
