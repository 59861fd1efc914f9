// SPDX-License-Identifier: GPL-2.0

//! Split brain: which side gives its changes up, by the policies of the administrator.
//!
//! A policy only chooses a side. Whether it is asked at all is the handshake's business.

use crate::state::Role;

/// What to do after a split brain. Numbers of the `after-sb-*pri` and `rr-conflict` options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterSb {
    /// Give the connection up.
    Disconnect,
    /// The side that was Primary last loses.
    DiscardYoungerPrimary,
    /// The side that was Primary first loses.
    DiscardOlderPrimary,
    /// A side that changed nothing loses.
    DiscardZeroChanges,
    /// The side with fewer changes loses.
    DiscardLeastChanges,
    /// This node loses.
    DiscardLocal,
    /// The peer loses.
    DiscardRemote,
    /// As without Primaries, if that makes the Secondary lose.
    Consensus,
    /// The Secondary loses.
    DiscardSecondary,
    /// As without Primaries; a Primary that loses is demoted, or its administrator called.
    CallHelper,
    /// As without Primaries, whatever that does to a Primary.
    Violently,
}

impl AfterSb {
    /// The policy of an option value.
    pub const fn from_number(number: u32) -> Option<AfterSb> {
        Some(match number {
            0 => AfterSb::Disconnect,
            1 => AfterSb::DiscardYoungerPrimary,
            2 => AfterSb::DiscardOlderPrimary,
            3 => AfterSb::DiscardZeroChanges,
            4 => AfterSb::DiscardLeastChanges,
            5 => AfterSb::DiscardLocal,
            6 => AfterSb::DiscardRemote,
            7 => AfterSb::Consensus,
            8 => AfterSb::DiscardSecondary,
            9 => AfterSb::CallHelper,
            10 => AfterSb::Violently,
            _ => return None,
        })
    }

    /// The same policy as the peer has to configure it: local and remote change places.
    pub const fn convert_for_peer(self) -> AfterSb {
        match self {
            AfterSb::DiscardLocal => AfterSb::DiscardRemote,
            AfterSb::DiscardRemote => AfterSb::DiscardLocal,
            AfterSb::Disconnect
            | AfterSb::DiscardYoungerPrimary
            | AfterSb::DiscardOlderPrimary
            | AfterSb::DiscardZeroChanges
            | AfterSb::DiscardLeastChanges
            | AfterSb::Consensus
            | AfterSb::DiscardSecondary
            | AfterSb::CallHelper
            | AfterSb::Violently => self,
        }
    }
}

/// The three policies, by the number of Primaries when the split brain is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policies {
    /// `after-sb-0pri`.
    pub none: AfterSb,
    /// `after-sb-1pri`.
    pub one: AfterSb,
    /// `after-sb-2pri`.
    pub two: AfterSb,
}

/// Who gives its changes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Loser {
    This,
    Peer,
}

/// What the policies look at.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Facts {
    pub role: Role,
    pub peer_role: Role,
    /// Bit 0 of the bitmap UUIDs: that side was Primary when they parted.
    pub own_was_primary: bool,
    pub peer_was_primary: bool,
    /// Bits set, as each side last told the other.
    pub own_bits: u64,
    pub peer_bits: u64,
    pub resolve_conflicts: bool,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Judgement {
    /// Who loses; `None`: nobody is to lose by itself.
    pub loser: Option<Loser>,
    /// This node would lose but is Primary: it has to be demoted first.
    pub demote_first: bool,
    /// The policy makes no sense with this number of Primaries.
    pub config_error: bool,
    /// The age of the Primaries did not decide; the number of changes did.
    pub used_least_changes: bool,
}

impl Judgement {
    fn loses(loser: Loser) -> Judgement {
        Judgement {
            loser: Some(loser),
            ..Judgement::default()
        }
    }

    fn nobody() -> Judgement {
        Judgement::default()
    }

    fn config_error() -> Judgement {
        Judgement {
            config_error: true,
            ..Judgement::default()
        }
    }

    fn unless(self, refused: bool) -> Judgement {
        Judgement {
            loser: self.loser.filter(|_| !refused),
            ..self
        }
    }

    /// Demands that a Primary that loses is demoted.
    fn demoting(self, is_primary: bool) -> Judgement {
        Judgement {
            demote_first: is_primary && self.loser == Some(Loser::This),
            ..self
        }
    }
}

/// How many of the two are Primary.
pub(super) fn primaries(facts: &Facts) -> u8 {
    u8::from(facts.role.is_primary()).saturating_add(u8::from(facts.peer_role.is_primary()))
}

/// Asks the policy for the number of Primaries.
pub(super) fn judge(policies: Policies, facts: &Facts) -> Judgement {
    match primaries(facts) {
        0 => no_primary(policies.none, facts),
        1 => one_primary(policies, facts),
        _ => two_primaries(policies, facts),
    }
}

/// With all else equal somebody has to lose: the same one on both sides.
fn tie(facts: &Facts) -> Judgement {
    Judgement::loses(if facts.resolve_conflicts {
        Loser::This
    } else {
        Loser::Peer
    })
}

fn zero_changes(facts: &Facts) -> Option<Judgement> {
    match (facts.own_bits, facts.peer_bits) {
        (0, 0) => Some(tie(facts)),
        (_, 0) => Some(Judgement::loses(Loser::Peer)),
        (0, _) => Some(Judgement::loses(Loser::This)),
        (_, _) => None,
    }
}

fn least_changes(facts: &Facts) -> Judgement {
    match facts.own_bits.cmp(&facts.peer_bits) {
        core::cmp::Ordering::Less => Judgement::loses(Loser::This),
        core::cmp::Ordering::Greater => Judgement::loses(Loser::Peer),
        core::cmp::Ordering::Equal => tie(facts),
    }
}

/// The side that was Primary when they parted is the older Primary: the other one was promoted
/// after that.
fn by_age(facts: &Facts, if_peer_was: Loser, if_this_was: Loser) -> Judgement {
    match (facts.own_was_primary, facts.peer_was_primary) {
        (false, true) => Judgement::loses(if_peer_was),
        (true, false) => Judgement::loses(if_this_was),
        (true, true) | (false, false) => Judgement {
            used_least_changes: true,
            ..least_changes(facts)
        },
    }
}

fn no_primary(policy: AfterSb, facts: &Facts) -> Judgement {
    match policy {
        AfterSb::Disconnect => Judgement::nobody(),
        AfterSb::DiscardYoungerPrimary => by_age(facts, Loser::This, Loser::Peer),
        AfterSb::DiscardOlderPrimary => by_age(facts, Loser::Peer, Loser::This),
        AfterSb::DiscardZeroChanges => zero_changes(facts).unwrap_or_default(),
        AfterSb::DiscardLeastChanges => least_changes(facts),
        AfterSb::DiscardLocal => Judgement::loses(Loser::This),
        AfterSb::DiscardRemote => Judgement::loses(Loser::Peer),
        AfterSb::Consensus
        | AfterSb::DiscardSecondary
        | AfterSb::CallHelper
        | AfterSb::Violently => Judgement::config_error(),
    }
}

fn one_primary(policies: Policies, facts: &Facts) -> Judgement {
    let primary = facts.role.is_primary();
    let as_0p = || no_primary(policies.none, facts);
    match policies.one {
        AfterSb::Disconnect => Judgement::nobody(),
        AfterSb::Consensus => {
            let judgement = as_0p();
            let primary_loses = match judgement.loser {
                Some(Loser::This) => primary,
                Some(Loser::Peer) => !primary,
                None => false,
            };
            judgement.unless(primary_loses)
        }
        AfterSb::DiscardSecondary if primary => Judgement::loses(Loser::Peer),
        AfterSb::DiscardSecondary => Judgement::loses(Loser::This),
        AfterSb::CallHelper => as_0p().demoting(primary),
        AfterSb::Violently => as_0p(),
        AfterSb::DiscardYoungerPrimary
        | AfterSb::DiscardOlderPrimary
        | AfterSb::DiscardZeroChanges
        | AfterSb::DiscardLeastChanges
        | AfterSb::DiscardLocal
        | AfterSb::DiscardRemote => Judgement::config_error(),
    }
}

fn two_primaries(policies: Policies, facts: &Facts) -> Judgement {
    match policies.two {
        AfterSb::Disconnect => Judgement::nobody(),
        AfterSb::CallHelper => no_primary(policies.none, facts).demoting(true),
        AfterSb::Violently => no_primary(policies.none, facts),
        AfterSb::DiscardYoungerPrimary
        | AfterSb::DiscardOlderPrimary
        | AfterSb::DiscardZeroChanges
        | AfterSb::DiscardLeastChanges
        | AfterSb::DiscardLocal
        | AfterSb::DiscardRemote
        | AfterSb::Consensus
        | AfterSb::DiscardSecondary => Judgement::config_error(),
    }
}
