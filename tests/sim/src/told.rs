// SPDX-License-Identifier: GPL-2.0

//! What an application may be told, beside what its data say: when an error, and when that a write
//! is done which one node alone has.

use crate::node::App;
use crate::world::World;
use drbd_core::node::admin::Command;
use drbd_core::node::{AppId, AppOp, AppResult, IoError, Payload};
use drbd_core::state::{conn::State as Conn, disk::State as Disk, State};
use drbd_core::units::SectorRange;
use drbd_core::wire::{BlockId, Packet};

fn writes(op: AppOp) -> bool {
    matches!(
        op,
        AppOp::Write | AppOp::Discard | AppOp::WriteZeroes { .. }
    )
}

impl World {
    /// An order that decides what applications may be told.
    pub(crate) fn ordered_for_applications(&mut self, node: usize, command: &Command) {
        let n = &mut self.nodes[node];
        match command {
            Command::ResumeIo { .. } => n.resumed = true,
            Command::ResourceOptions { opts } => n.freezes &= opts.on_no_data == 1,
            _ => {}
        }
    }

    /// Counts what went wrong so far with the disk of a connected peer, if that is good.
    pub(crate) fn spare(&self, node: usize) -> Option<u64> {
        let peer = self.peer_of(node);
        let (own, other) = (self.real_state(node)?, self.real_state(peer)?);
        let (a, b) = (self.nodes[node].link(), self.nodes[peer].link());
        let good = own.pdsk == Disk::UpToDate && other.disk == Disk::UpToDate;
        let linked = own.conn >= Conn::Connected && a != 0 && a == b;
        (linked && good).then_some(self.nodes[peer].reads_failed)
    }

    /// An application is told of an error: not while I/O is suspended; not of a read that the peer
    /// could have answered all the time; and with `on-no-data-accessible suspend-io` not because
    /// no data can be reached, unless `resume-io` says so: then applications wait.
    pub(crate) fn check_error(&mut self, node: usize, done: &App, why: IoError) {
        let n = &self.nodes[node];
        let what = format!("n{node} {:?} {:?}", done.io.op, done.io.range);
        // What is told of the state may lie behind what `resume-io` has done.
        let real = self.real_state(node);
        let suspended = real.is_some_and(|s| s.is_suspended());
        if suspended && n.state.is_suspended() {
            self.violated("nothing fails while I/O is suspended", &what);
        }
        if done.io.flags.rahead {
            return;
        }
        let there = done.link == n.link() && done.spare.is_some() && done.spare == self.spare(node);
        if there && done.io.op == AppOp::Read {
            self.violated("a read fails only if no copy can be read", &what);
        }
        // A source of a resync whose disk passes errors on stays good.
        let good = |s: State| s.disk == Disk::UpToDate;
        let linked = n.link() != 0 && n.link() == self.nodes[self.peer_of(node)].link();
        let other = self.real_state(self.peer_of(node)).filter(|_| linked);
        let gone = !real.into_iter().chain(other).any(good);
        let primary = real.is_some_and(|s| s.role.is_primary());
        let data = matches!(done.io.op, AppOp::Read | AppOp::Write) && why == IoError::Io;
        if n.freezes && !n.resumed && primary && data && gone {
            let what = format!("{what}, {}", self.describe());
            self.violated("without data applications wait", &what);
        }
    }

    /// A write is done of which the peer has said nothing.
    pub(crate) fn note_done(&mut self, node: usize, done: &App) {
        if writes(done.io.op) && !done.answered {
            self.nodes[node].done.get_or_insert(done.io.range);
        }
    }

    /// Until the peer is fenced applications hear of nothing that it may lack: it might go on with
    /// older data. What is told as I/O goes on may be told a moment before.
    pub(crate) fn check_done(&mut self, node: usize) {
        let Some(range) = self.nodes[node].done.take() else {
            return;
        };
        let real = self.real_state(node).is_some_and(|s| s.susp_fen);
        if real && self.nodes[node].state.susp_fen {
            let what = format!("n{node} {range:?}, {}", self.describe());
            self.violated("nothing is done before the peer is fenced", &what);
        }
    }

    /// A packet is on its way: which write belongs to which epoch.
    pub(crate) fn tells_of_write(&mut self, node: usize, packet: &Packet, payload: &Payload) {
        let apps = &mut self.nodes[node].apps;
        match (packet, payload) {
            (
                Packet::Data(p),
                Payload::App {
                    app: AppId(app), ..
                },
            ) => {
                if let Some(app) = apps.get_mut(u64::from(*app)) {
                    (app.sent, app.epoch, app.refused) = (true, None, false);
                    app.block = Some(p.block_id);
                }
            }
            (Packet::Trim(p) | Packet::Zeroes(p), _) => {
                let range = SectorRange::new(p.sector, p.size);
                let of_it = |a: &App| writes(a.io.op) && a.io.range == range;
                let keys = apps.iter().filter(|(_, a)| of_it(a)).map(|(key, _)| key);
                for key in keys.collect::<Vec<_>>() {
                    if let Some(app) = apps.get_mut(key) {
                        (app.sent, app.epoch, app.refused) = (true, None, false);
                    }
                }
            }
            (Packet::Barrier(p), _) => {
                let open = |a: &App| a.sent && a.epoch.is_none();
                let keys = apps.iter().filter(|(_, a)| open(a)).map(|(key, _)| key);
                for key in keys.collect::<Vec<_>>() {
                    if let Some(app) = apps.get_mut(key) {
                        app.epoch = Some(p.nr.0);
                    }
                }
            }
            _ => {}
        }
    }

    /// The peer says what became of a write. With protocol A all that it says is that an epoch is
    /// on its disk.
    pub(crate) fn hears_of_write(&mut self, node: usize, packet: &Packet) {
        if matches!(packet, Packet::NegAck(p) if p.block_id != BlockId::SYNCER) {
            self.refused(node);
        }
        if let Packet::BarrierAck(p) = packet {
            let apps = &mut self.nodes[node].apps;
            let of_it = |a: &App| a.sent && a.epoch == Some(p.nr.0);
            let keys = apps.iter().filter(|(_, a)| of_it(a)).map(|(key, _)| key);
            for key in keys.collect::<Vec<_>>() {
                if let Some(app) = apps.get_mut(key) {
                    app.answered = true;
                }
            }
        }
        let (p, answered, refused) = match packet {
            Packet::NegAck(p) if p.block_id != BlockId::SYNCER => (p, false, true),
            Packet::RecvAck(p) | Packet::WriteAck(p) | Packet::Superseded(p) => (p, true, false),
            Packet::RsWriteAck(p) if p.block_id != BlockId::SYNCER => (p, false, false),
            _ => return,
        };
        let range = SectorRange::new(p.sector, p.blksize);
        // Zeroes are sent without their application: the first of that range.
        let of_it = |a: &App| match a.block {
            Some(block) => block == p.block_id,
            None => a.io.op != AppOp::Write && writes(a.io.op) && a.io.range == range,
        };
        let apps = self.nodes[node].apps.iter().filter(|(_, a)| of_it(a));
        let key = apps.map(|(key, a)| (a.block.is_none(), key)).min();
        let key = key.map(|(_, key)| key);
        if let Some(app) = key.and_then(|key| self.nodes[node].apps.get_mut(key)) {
            app.answered |= answered;
            app.taken |= !refused;
            app.refused = refused;
        }
    }

    /// An application hears that its write is done, which only this node has.
    pub(crate) fn check_generation(&mut self, node: usize, done: &App, result: AppResult) {
        let n = &self.nodes[node];
        let apart = !done.answered && n.link() == 0 && n.state.conn < Conn::Connected;
        // The peer is told where it misses writes, and by what name it misses them.
        let alone = apart || n.state.conn == Conn::Ahead || self.is_refused(node, done);
        // Before a resync begins the target may still go by the name that the data have here.
        let begins = matches!(n.state.conn, Conn::StartingSyncS | Conn::WFBitMapS);
        let names = [node, self.peer_of(node)].map(|n| self.held(n).map(|h| h.current & !1));
        let alone = alone || begins && !done.answered && !done.sent && names[0] == names[1];
        let good = n.state.disk == Disk::UpToDate && done.good;
        let same = self.held(node).is_some_and(|h| h.bitmap == 0);
        if alone && writes(done.io.op) && good && result.is_ok() && same {
            let why = format!("n{node} {:?}, {}", done.io.range, self.describe());
            self.violated("what the peer misses is a new generation", &why);
        }
    }

    /// An application hears that its write is done: there has to be a good copy that has it.
    pub(crate) fn check_copy(&mut self, node: usize, done: &App, result: AppResult) {
        let bad = |s: State| s.disk <= Disk::Inconsistent;
        let told = self.knobs.protocol == 1 || done.answered || done.taken;
        let bad = bad(self.nodes[node].state) && self.real_state(node).is_some_and(bad);
        if done.io.op == AppOp::Write && result.is_ok() && bad && !told {
            let why = format!("n{node} {:?}, {}", done.io.range, self.describe());
            self.violated("a write that is done is on a good copy", &why);
        }
    }

    /// The peer has refused a write, and it is not known why: its disk may be lost, and come back.
    fn is_refused(&self, node: usize, done: &App) -> bool {
        let bad = |s: &State| matches!(s.pdsk, Disk::Inconsistent | Disk::Outdated);
        let state = self.real_state(node);
        let unknown = |s: State| s.conn <= Conn::Connected && s.role.is_primary() && !bad(&s);
        done.refused && done.io.op != AppOp::Discard && state.is_some_and(unknown)
    }

    /// Data can be reached again: what `resume-io` has said counts no more. A change of before that
    /// may be told late.
    pub(crate) fn data_back(&mut self, node: usize, new: State) {
        let good = |s: State| s.disk == Disk::UpToDate || s.pdsk == Disk::UpToDate;
        let back = good(new) && self.real_state(node).is_none_or(good);
        let n = &mut self.nodes[node];
        n.resumed &= !back || n.job.is_some();
    }
}
