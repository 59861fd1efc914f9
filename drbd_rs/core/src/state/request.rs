// SPDX-License-Identifier: GPL-2.0

//! The course of a request: asking the peer where it has to agree, and requests that concern all
//! volumes of a connection.
//!
//! One volume: [`plan`] first. `Scope::Local` goes straight to [`evaluate`]. For
//! `Scope::ClusterWide` send the request, then ask [`wait`] on every wake-up until it answers, and
//! on success [`evaluate`] again on the state of that moment.
//!
//! A refusal `InTransientState` is not reported: the request is made again after the next change.
//! Nor is `ConcurrentStChg`: it is made again a little later. The C driver reports it as a refusal,
//! and of two nodes that `drbdadm down` at the same moment one may answer "State change was refused
//! by peer node".

use super::code::Ss;
use super::sanitize::sanitize;
use super::transition::{
    check, evaluate, is_cluster_wide, is_valid_conn_transition, is_valid_soft_transition,
    is_valid_state, is_valid_transition, refuse_promotion, Flags, New, Refusal,
};
use super::types::{Context, State, StateChange};
use super::{conn::State as Conn, disk::State as Disk};

/// Who has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This node decides.
    Local,
    /// The peer is asked first.
    ClusterWide,
}

/// What came back from the peer so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Nothing.
    None,
    /// It agreed.
    Yes,
    /// It refused.
    No,
    /// It is asking for a change itself, and its word counts more: it may agree later.
    NotNow,
}

/// First look at a request on one volume.
///
/// # Errors
///
/// The request breaks a hard rule, or concerns the peer and breaks any rule. That the old state
/// breaks the same rule is no excuse for a change that concerns the peer.
pub fn plan(old: State, change: StateChange, ctx: Context) -> Result<Scope, Refusal> {
    let (wanted, _) = sanitize(old, change.apply(old), ctx);
    refuse_promotion(old, change, wanted, ctx.as_c)?;
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
    if !is_cluster_wide(old, wanted) {
        return Ok(Scope::Local);
    }
    match allowed(old, wanted, ctx) {
        code if code.is_refusal() => refuse(code, false),
        _ => Ok(Scope::ClusterWide),
    }
}

/// Whether to go on waiting for the peer's answer (`None`), and if not, why.
///
/// `current` is the state now, not the one at the time of the request.
pub fn wait(current: State, change: StateChange, reply: Reply, ctx: Context) -> Option<Ss> {
    if let Some(code) = decided(reply) {
        return Some(code);
    }
    let (wanted, _) = sanitize(current, change.apply(current), ctx);
    if !is_cluster_wide(current, wanted) {
        return Some(Ss::CwNoNeed);
    }
    let hard = is_valid_transition(current, wanted);
    if hard.is_refusal() {
        return Some(hard);
    }
    Some(allowed(current, wanted, ctx)).filter(|code| code.is_refusal())
}

/// The rules on states, then those on soft transitions, without mercy for a bad old state.
fn allowed(old: State, wanted: State, ctx: Context) -> Ss {
    match is_valid_state(old, wanted, ctx) {
        code if code.is_refusal() => code,
        _ => is_valid_soft_transition(old, wanted, ctx),
    }
}

/// Whether a connection-wide request may move the connection itself; ask before the volumes.
///
/// # Errors
///
/// The rule that forbids it.
pub fn check_connection(old: Conn, change: StateChange) -> Result<(), Ss> {
    match change.conn.map(|new| is_valid_conn_transition(old, new)) {
        Some(code) if code.is_refusal() => Err(code),
        Some(_) | None => Ok(()),
    }
}

/// What a connection-wide request means for one volume: every volume must allow it.
///
/// The wish is completed, stripped of an outdate the volume is too bad for, and completed again:
/// so does the C driver. `changed` tells whether the volume takes part at all.
///
/// # Errors
///
/// The rule that forbids it. All refusals of connection-wide requests are logged.
pub fn check_volume(
    old: State,
    change: StateChange,
    flags: Flags,
    ctx: Context,
) -> Result<New, Refusal> {
    let (mut wanted, _) = sanitize(old, change.apply(old), ctx);
    if flags.ignore_outdate_failure && wanted.disk == Disk::Outdated && old.disk < Disk::Outdated {
        wanted.disk = old.disk;
    }
    if wanted != old {
        check(old, wanted, flags, ctx)?;
    }
    evaluate(old, StateChange::all_of(wanted), flags, ctx)
}

/// Whether a connection-wide request is sent to the peer first.
///
/// `local_only` is set for requests that came from the peer (`CS_LOCAL_ONLY`).
pub fn connection_scope(old: Conn, change: StateChange, flags: Flags, local_only: bool) -> Scope {
    if old == Conn::WFReportParams
        && change.conn == Some(Conn::Disconnecting)
        && !local_only
        && !flags.hard
    {
        Scope::ClusterWide
    } else {
        Scope::Local
    }
}

/// As [`wait`], for a connection-wide request.
///
/// `volumes` is the first refusal of [`check_volume`] with soft flags over all volumes, or
/// `Success` if all of them allow the change or need none. The peer's answer counts while the
/// connection stays `WFReportParams` and the volumes allow the change.
pub fn wait_connection(current: Conn, volumes: Ss, reply: Reply) -> Option<Ss> {
    if volumes == Ss::Success && current == Conn::WFReportParams {
        return decided(reply);
    }
    Some(volumes)
}

const fn decided(reply: Reply) -> Option<Ss> {
    match reply {
        Reply::None => None,
        Reply::Yes => Some(Ss::CwSuccess),
        Reply::No => Some(Ss::CwFailedByPeer),
        Reply::NotNow => Some(Ss::ConcurrentStChg),
    }
}
