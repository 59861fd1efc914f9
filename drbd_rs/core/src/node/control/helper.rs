// SPDX-License-Identifier: GPL-2.0

//! Calls of the user-mode helper, and fencing, which is one of them.
//!
//! A call is either waited for ([`Resource::call_helper`]) or not ([`Resource::tell_helper`]).
//! Nothing blocks on a helper but what was stored to run after it.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::Fencing;

use super::super::io::{Effect, HelperCommand, HelperId, Host, PeerIx, VolIx};
use super::super::note::Note;
use super::super::{After, Resource, Store};
use super::{Flags, StateChange};

/// Helpers that may be waited for at once.
pub(super) const CALLS: usize = 16;

/// The exit code taken for a call that could not be made.
const NOT_RUN: u8 = 255;

/// A helper that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HelperCall {
    id: u32,
    command: HelperCommand,
    vol: Option<VolIx>,
    after: After,
}

/// A fence-peer call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fence {
    /// Reconnects before the call; another one since then makes the result worthless.
    connects: u32,
    /// The policy when it was called.
    policy: Fencing,
    /// What goes on once the result has been used.
    then: After,
}

impl<S: Store> Resource<S> {
    fn start_helper(
        &mut self,
        command: HelperCommand,
        vol: Option<VolIx>,
        h: &mut impl Host,
    ) -> u32 {
        self.ctl.next_helper = self.ctl.next_helper.wrapping_add(1);
        let id = self.ctl.next_helper;
        h.emit(Effect::Log {
            vol,
            note: Note::HelperStarts(command),
        });
        h.emit(Effect::Helper {
            id: HelperId(id),
            command,
            vol,
        });
        id
    }

    /// Runs the helper; `after` follows with `ok` for exit code 0, and the code in
    /// [`super::ResourceControl::helper_code`] while it runs.
    pub(crate) fn call_helper(
        &mut self,
        command: HelperCommand,
        vol: Option<VolIx>,
        after: After,
        h: &mut impl Host,
    ) {
        let free = self.ctl.helpers.iter().position(Option::is_none);
        let Some(free) = free else {
            self.ctl.helper_code = NOT_RUN;
            self.run_after(after, false, h);
            return;
        };
        let id = self.start_helper(command, vol, h);
        if let Some(slot) = self.ctl.helpers.get_mut(free) {
            *slot = Some(HelperCall {
                id,
                command,
                vol,
                after,
            });
        }
    }

    /// Runs the helper; nobody waits for it.
    pub(crate) fn tell_helper(
        &mut self,
        command: HelperCommand,
        vol: Option<VolIx>,
        h: &mut impl Host,
    ) {
        self.start_helper(command, vol, h);
    }

    pub(super) fn helper_done(&mut self, id: HelperId, code: u8, h: &mut impl Host) {
        let call = self
            .ctl
            .helpers
            .iter_mut()
            .find(|c| c.is_some_and(|c| c.id == id.0))
            .and_then(Option::take);
        let Some(call) = call else { return };
        h.emit(Effect::Log {
            vol: call.vol,
            note: Note::HelperEnded {
                command: call.command,
                code,
            },
        });
        self.ctl.helper_code = code;
        self.run_after(call.after, code == 0, h);
    }

    /// The strictest fencing policy of all volumes with usable data; `None`: there is none.
    pub(super) fn fencing_policy(&self) -> Option<Fencing> {
        self.volumes
            .iter()
            .flatten()
            .filter(|v| v.state.disk >= Disk::Consistent)
            .filter_map(|v| v.backing.as_ref())
            .map(|b| b.disk.fencing())
            .max()
    }

    /// Tries to make sure that the peer does not run on its own; `then` follows with `ok` if its
    /// disk is known to be outdated or worse.
    pub(super) fn fence_peer(&mut self, peer: PeerIx, then: After, h: &mut impl Host) {
        let Some(c) = self.conn(peer) else { return };
        let connects = c.ctl.connect_count;
        if c.ctl.cstate >= Conn::WFReportParams || c.ctl.fence.is_some() {
            self.run_after(then, false, h);
            return;
        }
        match self.fencing_policy() {
            None => {
                self.log_peer(Note::NotFencing, h);
                let thaw = StateChange {
                    susp_fen: Some(false),
                    ..StateChange::NONE
                };
                self.change_conn(peer, thaw, Flags::VERBOSE, h);
                let ok = self.highest_pdsk() <= Disk::Outdated;
                self.run_after(then, ok, h);
            }
            Some(Fencing::DontCare) => self.run_after(then, true, h),
            Some(policy) => {
                if let Some(c) = self.conn_mut(peer) {
                    c.ctl.fence = Some(Fence {
                        connects,
                        policy,
                        then,
                    });
                }
                let after = After::Control(super::Next::Fenced { peer });
                self.call_helper(HelperCommand::FencePeer, None, after, h);
            }
        }
    }

    /// fence-peer is back: state.md §8.
    pub(super) fn fenced(&mut self, peer: PeerIx, h: &mut impl Host) {
        let code = self.ctl.helper_code;
        let Some(fence) = self.conn_mut(peer).and_then(|c| c.ctl.fence.take()) else {
            return;
        };
        let (change, text) = match code {
            3 => (
                StateChange::NONE.pdsk(Disk::Inconsistent),
                "peer is inconsistent or worse",
            ),
            4 => (StateChange::NONE.pdsk(Disk::Outdated), "peer was fenced"),
            5 if self.highest_disk() == Disk::UpToDate => (
                StateChange::NONE.pdsk(Disk::Outdated),
                "peer is unreachable, assumed to be dead",
            ),
            5 => (
                StateChange::NONE,
                "peer unreachable, doing nothing since disk != UpToDate",
            ),
            6 => (StateChange::NONE.disk(Disk::Outdated), "peer is active"),
            7 => {
                if fence.policy != Fencing::ResourceAndStonith {
                    self.log_peer(Note::FenceBroken(code), h);
                }
                (StateChange::NONE.pdsk(Disk::Outdated), "peer was stonithed")
            }
            _ => {
                self.log_peer(Note::FenceBroken(code), h);
                self.run_after(fence.then, false, h);
                return;
            }
        };
        self.log_peer(Note::Fenced(text), h);
        let (cstate, state_sent, connects) = match self.conn(peer) {
            Some(c) => (c.ctl.cstate, c.ctl.state_sent, c.ctl.connect_count),
            None => return,
        };
        if cstate < Conn::WFReportParams && !state_sent {
            if connects != fence.connects {
                self.log_peer(Note::FenceTooLate, h);
            } else if change != StateChange::NONE {
                self.change_conn(peer, change, Flags::VERBOSE, h);
            }
        }
        let ok = self.highest_pdsk() <= Disk::Outdated;
        self.run_after(fence.then, ok, h);
    }

    pub(super) fn highest_pdsk(&self) -> Disk {
        let all = self.volumes.iter().flatten().map(|v| v.state.pdsk);
        all.max().unwrap_or(Disk::Diskless)
    }

    pub(super) fn highest_disk(&self) -> Disk {
        let all = self.volumes.iter().flatten().map(|v| v.state.disk);
        all.max().unwrap_or(Disk::Diskless)
    }
}
