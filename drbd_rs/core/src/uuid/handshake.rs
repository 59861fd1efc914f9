// SPDX-License-Identifier: GPL-2.0

//! The sync handshake: from two copies to a resync, or to a refusal.
//!
//! ```text
//!   decide ─► unrelated / too old ────────────────► Refuse
//!     └─► disk states ─► policies ─► discard-my-data ─► still split ─► Refuse
//!                           │             └─► conflicts with roles ─► Refuse
//!                           └─► TryDemote      └─► dry run ─────────► Refuse
//!                                                     └─► Go
//! ```
//!
//! It is asked when a connection comes up, when a disk is attached while connected, when the peer
//! was promoted by force, and when the peer asks for a full resync.

use super::decide::{decide, DecideContext, Decision, Node, Verdict};
use super::split_brain::{judge, primaries, Facts, Judgement, Loser, Policies};
use super::{flags, UuidSet};
use crate::state::{conn, disk::State as Disk, Role};

/// This node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// UUIDs on the disk.
    pub uuids: UuidSet,
    /// The flag in memory.
    pub crashed_primary: bool,
    /// Role.
    pub role: Role,
    /// State of the own copy.
    pub disk: Disk,
    /// The saved decision of the attach; stands for `disk` while that is Negotiating.
    pub attach_disk: Disk,
    /// Bits out of sync, as last told to the peer in `P_UUIDS`.
    pub bits: u64,
    /// The administrator gave the own data up.
    pub discard_my_data: bool,
}

/// The peer, as `P_UUIDS` and `P_STATE` describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// UUIDs.
    pub uuids: UuidSet,
    /// The flags word behind them, see [`flags`].
    pub flags: u64,
    /// The number of bits out of sync.
    pub bits: u64,
    /// Role.
    pub role: Role,
    /// State of its copy; for a peer that is attaching what it will be, not Negotiating.
    pub disk: Disk,
}

/// `rr-conflict`: this node has to become target but is Primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RrConflict {
    /// Give the connection up.
    Disconnect,
    /// Run the helper `pri-lost`, then give the connection up.
    CallHelper,
    /// Become target all the same.
    Violently,
}

impl RrConflict {
    /// The policy of an option value; the numbers are those of [`AfterSb`](super::AfterSb).
    ///
    /// The tools admit these three only. For any other number the C driver would go on without a
    /// word; callers should take `None` for `Disconnect`.
    pub const fn from_number(number: u32) -> Option<RrConflict> {
        match number {
            0 => Some(RrConflict::Disconnect),
            9 => Some(RrConflict::CallHelper),
            10 => Some(RrConflict::Violently),
            _ => None,
        }
    }
}

/// Configuration and connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandshakeContext {
    /// What the comparison needs.
    pub decide: DecideContext,
    /// `always-asbp`.
    pub always_asbp: bool,
    /// The policies after a split brain.
    pub policies: Policies,
    /// `rr-conflict`.
    pub rr_conflict: RrConflict,
    /// `tentative`, or a dry run of `connect`.
    pub dry_run: bool,
    /// `None` at first; after [`Outcome::TryDemote`] whether that worked.
    pub demoted: Option<bool>,
}

/// A program to run and wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Helper {
    /// `initial-split-brain`.
    InitialSplitBrain,
    /// `pri-lost-after-sb`.
    PriLostAfterSb,
    /// `split-brain`.
    SplitBrain,
    /// `pri-lost`.
    PriLost,
}

impl Helper {
    /// In the order in which they are run.
    pub const ALL: [Helper; 4] = [
        Helper::InitialSplitBrain,
        Helper::PriLostAfterSb,
        Helper::SplitBrain,
        Helper::PriLost,
    ];

    const fn mask(self) -> u8 {
        match self {
            Helper::InitialSplitBrain => 1,
            Helper::PriLostAfterSb => 2,
            Helper::SplitBrain => 4,
            Helper::PriLost => 8,
        }
    }

    /// What `drbdadm` is called with.
    pub const fn name(self) -> &'static str {
        match self {
            Helper::InitialSplitBrain => "initial-split-brain",
            Helper::PriLostAfterSb => "pri-lost-after-sb",
            Helper::SplitBrain => "split-brain",
            Helper::PriLost => "pri-lost",
        }
    }
}

/// Helpers to run, in their order, before the outcome is acted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HelperSet(u8);

impl HelperSet {
    /// Whether `helper` is to be run.
    pub const fn contains(self, helper: Helper) -> bool {
        self.0 & helper.mask() != 0
    }

    /// The helpers, in order.
    pub fn iter(self) -> impl Iterator<Item = Helper> {
        Helper::ALL.into_iter().filter(move |h| self.contains(*h))
    }

    fn insert(&mut self, helper: Helper) {
        self.0 |= helper.mask();
    }
}

/// What to tell the administrator on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notes {
    /// The disk states decided on the direction.
    pub by_disk_states: bool,
    /// A split brain was found, with so many Primaries, and the policies decided.
    pub solved_by_policy: Option<u8>,
    /// As the UUIDs are ambiguous, everything is copied.
    pub full_as_ambiguous: bool,
    /// A split brain was found, and `discard-my-data` decided.
    pub solved_by_hand: bool,
    /// A policy does not fit the number of Primaries.
    pub config_error: bool,
    /// The age of the Primaries decided nothing, so the number of changes did.
    pub used_least_changes: bool,
    /// This Primary was demoted to become target.
    pub gave_up_primary: bool,
    /// A Primary becomes target: its users see the data change under them.
    pub violates_stable_data: bool,
}

/// The resync that both nodes will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sync {
    /// Next state of the connection: Connected, WFBitMapS or WFBitMapT.
    pub conn: conn::State,
    /// Set all bits and write them first; failing that, refuse.
    pub full: bool,
}

/// What a dry run found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DryRun {
    /// No resync.
    Connected,
    /// A resync, this node the source.
    Source {
        /// Of everything.
        full: bool,
    },
    /// A resync, this node the target.
    Target {
        /// Of everything.
        full: bool,
    },
}

/// Why there is no connection, or no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusedBecause {
    /// The copies never had anything in common.
    UnrelatedData,
    /// Both sides must speak at least this protocol.
    NeedsProtocol(u32),
    /// Both sides must speak at least this protocol, with these feature flags.
    NeedsFeatures {
        /// Protocol version.
        apv: u32,
        /// Bits of the feature flags.
        features: u32,
    },
    /// Split brain, and nobody decided.
    SplitBrain,
    /// This node should be the source, but its copy is Inconsistent or worse.
    SourceInconsistent,
    /// This node should be the target, but it is Primary.
    TargetIsPrimary,
    /// It was only a question.
    DryRun(DryRun),
}

/// The end of the handshake, or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Go on.
    Go(Sync),
    /// Give up. An own disk that is Negotiating fails; a peer's counts as Diskless; otherwise
    /// disconnect.
    Refuse(RefusedBecause),
    /// Request the role Secondary, then call [`handshake`] again with the same arguments and
    /// `demoted` set. Only a real change counts as success.
    TryDemote,
}

/// What the handshake came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handshake {
    /// The comparison of the UUIDs. Its corrections apply whatever the outcome.
    pub decision: Decision,
    /// What to log.
    pub notes: Notes,
    /// What to run first.
    pub helpers: HelperSet,
    /// The outcome.
    pub outcome: Outcome,
}

/// A direction and an extent: what is left once there is no doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Plan {
    None,
    Source {
        full: bool,
    },
    Target {
        full: bool,
    },
    /// Split brain; the flag says that the UUIDs are ambiguous.
    Split {
        ambiguous: bool,
    },
}

fn losing(loser: Loser, full: bool) -> Plan {
    match loser {
        Loser::This => Plan::Target { full },
        Loser::Peer => Plan::Source { full },
    }
}

/// Splits the verdict into what can be worked on and what can not.
fn plan_of(verdict: Verdict) -> Result<Plan, RefusedBecause> {
    Ok(match verdict {
        Verdict::NoSync => Plan::None,
        Verdict::Source => Plan::Source { full: false },
        Verdict::FullSource => Plan::Source { full: true },
        Verdict::Target => Plan::Target { full: false },
        Verdict::FullTarget => Plan::Target { full: true },
        Verdict::SplitBrain => Plan::Split { ambiguous: false },
        Verdict::SplitBrainAmbiguous => Plan::Split { ambiguous: true },
        Verdict::Unrelated => return Err(RefusedBecause::UnrelatedData),
        Verdict::NeedsProtocol(apv) => return Err(RefusedBecause::NeedsProtocol(apv)),
        Verdict::NeedsFeatures { apv, features } => {
            return Err(RefusedBecause::NeedsFeatures { apv, features })
        }
    })
}

/// A copy that is Inconsistent never becomes source for a better one, whatever the UUIDs say.
fn by_disk_states(plan: Plan, mine: Disk, theirs: Disk) -> Option<Plan> {
    let better = |a: Disk, b: Disk| a > Disk::Inconsistent && b == Disk::Inconsistent;
    let full = match plan {
        Plan::None => false,
        Plan::Source { full } | Plan::Target { full } => full,
        Plan::Split { ambiguous } => ambiguous,
    };
    if better(mine, theirs) {
        Some(Plan::Source { full })
    } else if better(theirs, mine) {
        Some(Plan::Target { full })
    } else {
        None
    }
}

/// Finds out what the two copies have to do. See [`Outcome::TryDemote`] about a second call.
pub fn handshake(own: &Local, peer: &Remote, ctx: &HandshakeContext) -> Handshake {
    let me = Node {
        uuids: own.uuids,
        crashed_primary: own.crashed_primary,
        primary: own.role.is_primary(),
    };
    let them = Node::peer(peer.uuids, peer.flags, peer.role.is_primary());
    let decision = decide(&me, &them, ctx.decide);
    let mut run = Run {
        own,
        peer,
        ctx,
        notes: Notes::default(),
        helpers: HelperSet::default(),
    };
    let outcome = match run.resolve(decision.verdict) {
        Ok(sync) => Outcome::Go(sync),
        Err(other) => other,
    };
    Handshake {
        decision,
        notes: run.notes,
        helpers: run.helpers,
        outcome,
    }
}

struct Run<'a> {
    own: &'a Local,
    peer: &'a Remote,
    ctx: &'a HandshakeContext,
    notes: Notes,
    helpers: HelperSet,
}

impl Run<'_> {
    fn resolve(&mut self, verdict: Verdict) -> Result<Sync, Outcome> {
        let mut plan = plan_of(verdict).map_err(Outcome::Refuse)?;
        let mine = match self.own.disk {
            Disk::Negotiating => self.own.attach_disk,
            disk => disk,
        };
        if let Some(by_disk) = by_disk_states(plan, mine, self.peer.disk) {
            self.notes.by_disk_states = true;
            plan = by_disk;
        }
        if let Plan::Split { ambiguous } = plan {
            if self.ctx.demoted.is_none() {
                self.helpers.insert(Helper::InitialSplitBrain);
            }
            plan = self.split_brain(ambiguous)?;
        }
        self.conflicts(plan, mine)?;
        if self.ctx.dry_run {
            return Err(Outcome::Refuse(RefusedBecause::DryRun(dry_run(plan))));
        }
        let (conn, full) = match plan {
            Plan::None => (conn::State::Connected, false),
            Plan::Source { full } => (conn::State::WFBitMapS, full),
            Plan::Target { full } => (conn::State::WFBitMapT, full),
            Plan::Split { .. } => return Err(Outcome::Refuse(RefusedBecause::SplitBrain)),
        };
        Ok(Sync { conn, full })
    }

    /// Policies, then the administrator's word, then giving up.
    fn split_brain(&mut self, ambiguous: bool) -> Result<Plan, Outcome> {
        if !ambiguous || self.ctx.always_asbp {
            if let Some(loser) = self.ask_policies()? {
                self.notes.full_as_ambiguous = ambiguous;
                return Ok(losing(loser, ambiguous));
            }
            if self.ctx.demoted == Some(false) {
                // The peer knows the same policies and counts on this node as its target: the word
                // of an administrator would make both of them source, as with the C driver.
                self.helpers.insert(Helper::SplitBrain);
                return Err(Outcome::Refuse(RefusedBecause::SplitBrain));
            }
        }
        let peer_discards = self.peer.flags & flags::DISCARD_MY_DATA != 0;
        match (self.own.discard_my_data, peer_discards) {
            (true, false) => {
                self.notes.solved_by_hand = true;
                Ok(losing(Loser::This, false))
            }
            (false, true) => {
                self.notes.solved_by_hand = true;
                Ok(losing(Loser::Peer, false))
            }
            (true, true) | (false, false) => {
                self.helpers.insert(Helper::SplitBrain);
                Err(Outcome::Refuse(RefusedBecause::SplitBrain))
            }
        }
    }

    fn ask_policies(&mut self) -> Result<Option<Loser>, Outcome> {
        let facts = Facts {
            role: self.own.role,
            peer_role: self.peer.role,
            own_was_primary: self.own.uuids.bitmap & 1 != 0,
            peer_was_primary: self.peer.uuids.bitmap & 1 != 0,
            own_bits: self.own.bits,
            peer_bits: self.peer.bits,
            resolve_conflicts: self.ctx.decide.resolve_conflicts,
        };
        let Judgement {
            mut loser,
            demote_first,
            config_error,
            used_least_changes,
        } = judge(self.ctx.policies, &facts);
        self.notes.config_error = config_error;
        self.notes.used_least_changes = used_least_changes;
        if demote_first {
            match self.ctx.demoted {
                None => return Err(Outcome::TryDemote),
                Some(true) => self.notes.gave_up_primary = true,
                Some(false) => {
                    self.helpers.insert(Helper::PriLostAfterSb);
                    loser = None;
                }
            }
        }
        if loser.is_some() {
            self.notes.solved_by_policy = Some(primaries(&facts));
        }
        Ok(loser)
    }

    /// What the roles and the disks forbid.
    fn conflicts(&mut self, plan: Plan, mine: Disk) -> Result<(), Outcome> {
        if matches!(plan, Plan::Source { .. }) && mine <= Disk::Inconsistent {
            return Err(Outcome::Refuse(RefusedBecause::SourceInconsistent));
        }
        let primary = self.own.role.is_primary() && self.ctx.demoted != Some(true);
        // The disk as it is: while it is Negotiating nobody uses it.
        if matches!(plan, Plan::Target { .. }) && primary && self.own.disk >= Disk::Consistent {
            match self.ctx.rr_conflict {
                RrConflict::Violently => self.notes.violates_stable_data = true,
                RrConflict::CallHelper => {
                    self.helpers.insert(Helper::PriLost);
                    return Err(Outcome::Refuse(RefusedBecause::TargetIsPrimary));
                }
                RrConflict::Disconnect => {
                    return Err(Outcome::Refuse(RefusedBecause::TargetIsPrimary));
                }
            }
        }
        Ok(())
    }
}

fn dry_run(plan: Plan) -> DryRun {
    match plan {
        Plan::Source { full } => DryRun::Source { full },
        Plan::Target { full } => DryRun::Target { full },
        Plan::None | Plan::Split { .. } => DryRun::Connected,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod policy_tests;
