// SPDX-License-Identifier: GPL-2.0

//! Where a request goes: to the own disk, to the peer, to both, to neither.
//!
//! Decided at the last moment, in the state of that moment; from here on the request is `Active`
//! and in the transfer log.

use super::request::{Answer, Expect, Local, Net, Request, Stage};
use super::token::{self, Name};

use super::super::io::{
    AppOp, Data as LocalData, Effect, Host, IoError, LocalOp, Payload, Sock, VolIx,
};
use super::super::{Backing, Note, Resource, Store, PEER};
use crate::bitmap::BitSpan;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::store::slab::Id;
use crate::units::SectorRange;
use crate::wire::data::dp;
use crate::wire::header::most_data;
use crate::wire::{feature, BlockDesc, BlockReq, Data, Packet, Trim};

/// Whether the next read goes to the peer, with both copies good (option `read-balancing`).
fn balance(policy: u32, sector: u64, local: u32, pending: u32, turn: &mut bool) -> bool {
    match policy {
        1 => true,
        2 => core::mem::replace(turn, !*turn),
        3 => local > pending,
        // 32 KiB to 1 MiB stripes.
        5..=10 => {
            sector
                .wrapping_shl(9)
                .wrapping_shr(policy.saturating_add(10))
                & 1
                == 1
        }
        // Prefer the own disk; so does "when congested" in the C driver.
        _ => false,
    }
}

impl<S: Store> Resource<S> {
    /// Sends a request on its way. While I/O is suspended it goes back to the door.
    pub(super) fn launch(&mut self, id: Id, h: &mut impl Host) {
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        if self.io_state(r.vol).is_suspended() || self.io.thaw.blocks() {
            if r.touched {
                self.hold(id);
            } else {
                self.readmit(id, h);
            }
            return;
        }
        // Also those of a resync whose connection is lost: nothing else keeps a target from writing
        // that is promoted by force.
        let remote = r.is_write() || self.io_state(r.vol).disk != Disk::UpToDate;
        if remote && self.owes_answer(r.vol) {
            self.hold(id);
            return;
        }
        let waits = || {
            self.peer_writes_to(r.vol, r.io.range)
                || self.resync_write_overlaps(r.vol, r.io.range)
                || self.two_primaries() && self.is_read_for_peer(r.vol, r.io.range)
                || self.fails_unheard(r.vol)
        };
        if r.is_write() && waits() {
            self.hold(id);
            return;
        }
        match r.io.op {
            AppOp::Read => self.launch_read(id, r, h),
            AppOp::Write | AppOp::Discard | AppOp::WriteZeroes { .. } | AppOp::Flush => {
                self.launch_write(id, r, h);
            }
        }
    }

    /// The first write that only this node gets begins a generation of data; it waits until that
    /// is stored, and for the end of a handshake. Mostly the generation began when the peer was
    /// lost; not so if this disk was not there then (the C driver forgets it in that case), nor if
    /// the peer is there and writes are only announced. Should a node that is ahead leave as
    /// Secondary, nothing else says that the two copies differ: the C driver then takes the stale
    /// one for good. So it does while a resync is about to begin that was asked for, as by
    /// `invalidate`: by its name the target's copy is as good as this one until it has another, and
    /// should both disks be lost before that, it passes for the data in use.
    fn goes_on_alone(&mut self, vol: VolIx, s: State, h: &mut impl Host) -> bool {
        let here = s.conn == Conn::Ahead || s.begins_as_source();
        let missed = s.conn <= Conn::Connected || here;
        let alone = s.role.is_primary() && s.disk == Disk::UpToDate && missed;
        alone && self.separates(vol, s, h)
    }

    /// Whether the activity log of the present disk covers a write, or was asked.
    pub(super) fn is_logged(&self, r: &Request) -> bool {
        let b = self.io_vol(r.vol).and_then(|v| v.backing.as_ref());
        b.is_some_and(|b| r.log_of != 0 && r.log_of == b.meta_io.instance)
    }

    /// Whether the own disk has done a write, and was lost since: there is none, or another one,
    /// perhaps the same without what was in its cache, brought up to date from what the peer had.
    pub(super) fn is_elsewhere(&self, r: &Request) -> bool {
        let sized = r.is_write() && r.io.range.len.0 != 0;
        sized && r.local == Local::Ok && !self.is_logged(r)
    }

    /// Whether the own disk is lost and the peer has yet to hear so. A write that only the peer
    /// gets must follow that news: from then on the peer marks what this node lacks. The C driver
    /// sends it at once; should this disk come back, nobody knows that the write is not there.
    fn fails_unheard(&self, vol: VolIx) -> bool {
        self.io_vol(vol)
            .is_some_and(|v| v.state.disk == Disk::Failed && !v.ctl.failure_sent)
            && self.connected(PEER).is_some()
    }

    /// Whether the peer attaches a disk and has no answer so far: what it gets before that it
    /// refuses, as it cannot know whether the disk is good; and then it is, without that. The C
    /// driver's answer is the first in its queue.
    pub(super) fn owes_answer(&self, vol: VolIx) -> bool {
        self.io_vol(vol).is_some_and(|v| v.ctl.after.owes_answer())
            && self.connected(PEER).is_some()
    }

    fn activate(&mut self, id: Id) {
        let epoch = self.io.epoch;
        if let Some(r) = self.io.requests.get_mut(id) {
            r.stage = Stage::Active;
            r.epoch = epoch;
            r.counts = [!r.is_write(); 2];
        }
        self.weigh_copies(id);
        self.io.log.append(&mut self.io.requests, id);
    }

    /// Notes which copies are good enough for a write to be safe there. The C driver does not ask:
    /// it calls a write done that failed here and is only on a target of a resync.
    pub(super) fn weigh_copies(&mut self, id: Id) {
        let Some(r) = self.io.requests.get(id) else {
            return;
        };
        let s = self.io_state(r.vol);
        // The source of a resync may refuse a write, and its own copy counts as good all the same
        // until it has heard that this node is done.
        let refused = r.net.is_refused() && r.is_write() && s.pdsk == Disk::UpToDate;
        let untold = s.both_good() && self.io_vol(r.vol).is_some_and(|v| v.ctl.end_untold);
        let own = s.disk == Disk::UpToDate && !refused && !untold && !self.is_elsewhere(r);
        if let Some(r) = self.io.requests.get_mut(id) {
            let lasts = !r.is_write() || s.disk > Disk::Inconsistent;
            let [here, there] = &mut r.counts;
            *here |= own;
            // What is on a disk that has failed since is nowhere, if the peer does not have it: who
            // comes back with an Inconsistent one (`on-io-error pass_on`) is the target of whatever
            // the peer has. The C driver calls such a write done.
            *here &= lasts;
            *there |= s.pdsk == Disk::UpToDate;
        }
    }

    fn launch_write(&mut self, id: Id, r: Request, h: &mut impl Host) {
        let sized = r.io.range.len.0 != 0;
        if sized {
            self.consider_congestion(r.vol, h);
        }
        let s = self.io_state(r.vol);
        let connected = self.connected(PEER).is_some();
        let remote = connected && s.replicates();
        let good = s.disk == Disk::UpToDate || s.pdsk == Disk::UpToDate;
        let local = self.io_has_disk(r.vol) && (good || !sized);
        let why = if remote && self.lacks_packet(r.io.op) {
            Some(IoError::Unsupported)
        } else if !local && !remote {
            Some(IoError::Io)
        } else {
            None
        };
        if let Some(why) = why {
            self.complete(id, Err(why), h);
            self.settle(id, h);
            return;
        }
        let alone = local && sized && !remote && self.goes_on_alone(r.vol, s, h);
        if alone || local && sized && self.log_is_unknown(r.vol, h) {
            self.hold(id);
            return;
        }
        if local && sized && !self.is_logged(&r) {
            // It began when there was no disk, or another one.
            self.put_extents(id);
            self.enter_log(r.vol, id, h);
            return;
        }
        self.activate(id);
        if sized {
            self.io.epoch_writes = self.io.epoch_writes.saturating_add(1);
            if remote {
                self.queue_write(id, h);
            } else if connected && s.announces_out_of_sync() {
                self.announce_write(r, h);
            }
        } else if remote {
            // An empty flush is not sent: the barrier behind the open epoch does its work.
            self.new_epoch(h);
            if let Some(r) = self.io.requests.get_mut(id) {
                r.net = Net::Done {
                    queued: false,
                    answer: Answer::Good,
                };
            }
        }
        if local {
            self.submit_local(id, h);
        } else if !sized {
            // Nothing will be heard of it any more.
            self.settle(id, h);
        }
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        if self.io.epoch_writes >= conf.map_or(2048, |n| n.max_epoch_size) {
            self.new_epoch(h);
        }
    }

    /// ZEROES does not go with digests: the C driver miscounts it (wire.md §6). The block layer is
    /// told so, too, and then writes zeroes; this one was too early.
    pub(super) fn lacks_packet(&self, op: AppOp) -> bool {
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        matches!(op, AppOp::WriteZeroes { .. }) && conf.is_some_and(|n| !n.integrity_alg.is_empty())
    }

    /// The peer is only told which blocks it lacks.
    fn announce_write(&mut self, r: Request, h: &mut impl Host) {
        // The peer is told also if the bits were set already: it need not have those, as after
        // invalidate-remote without a connection, and would be done before it has got this. The C
        // driver does not tell it.
        self.set_out_of_sync(r.vol, r.io.range, h);
        self.before_send(PEER, self.io.epoch, h);
        self.tell_out_of_sync(r.vol, r.io.range, h);
    }

    /// Tells the peer that it lacks a range.
    pub(super) fn tell_out_of_sync(&mut self, vol: VolIx, range: SectorRange, h: &mut impl Host) {
        let desc = BlockDesc {
            sector: range.start,
            blksize: range.bytes(),
        };
        let vnr = self.io_vnr(vol);
        self.send_plain(PEER, Sock::Data, vnr, Packet::OutOfSync(desc), h);
    }

    /// Whether the own disk has what is to be read.
    fn may_read_local(&self, s: State, r: &Request) -> bool {
        let Some(v) = self.io_vol(r.vol) else {
            return false;
        };
        let Some(b) = v.backing.as_ref() else {
            return false;
        };
        match s.disk {
            Disk::UpToDate => !r.avoid_local,
            Disk::Inconsistent if !r.avoid_local => {
                BitSpan::outward(r.io.range, b.bitmap.capacity())
                    .is_some_and(|span| b.bitmap.count(span) == 0)
            }
            Disk::Diskless
            | Disk::Attaching
            | Disk::Failed
            | Disk::Negotiating
            | Disk::Inconsistent
            | Disk::Outdated
            | Disk::DUnknown
            | Disk::Consistent => false,
        }
    }

    fn launch_read(&mut self, id: Id, r: Request, h: &mut impl Host) {
        let s = self.io_state(r.vol);
        let mut local = self.may_read_local(s, &r);
        let remote = s.pdsk == Disk::UpToDate && self.connected(PEER).is_some() && !r.avoid_peer;
        if local && remote {
            local = !self.peer_reads(r);
        }
        if !local && !remote && self.waits_for_news(&r, r.avoid_peer) {
            self.await_news(id, h);
            self.readmit(id, h);
            return;
        }
        if !local && !remote {
            self.complete(id, Err(IoError::Io), h);
            self.settle(id, h);
            return;
        }
        self.activate(id);
        if local {
            self.submit_local(id, h);
        } else {
            self.queue_read(id, h);
        }
    }

    fn peer_reads(&mut self, r: Request) -> bool {
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let protocol = conf.map_or(3, |n| n.wire_protocol);
        let resync = self.resync_pending(r.vol);
        let Some(v) = self.io_vol_mut(r.vol) else {
            return false;
        };
        let pending = v.peers.first().map_or(0, |p| p.io.pending);
        // Without protocol C the peer may still be writing what the application was told of.
        let risky = v.io.live != 0 && protocol != 3;
        let policy = v.backing.as_ref().map_or(0, |b| b.disk.conf.read_balancing);
        let start = r.io.range.start.0;
        let pending = pending.saturating_add(resync);
        let peer = balance(policy, start, v.io.local, pending, &mut v.io.peers_turn);
        peer && !risky
    }

    /// Gives the request to the own disk. Where that is allowed to hang (`disk-timeout`), it never
    /// sees the application's pages: it may still use them when the application has them back.
    pub(super) fn submit_local(&mut self, id: Id, h: &mut impl Host) {
        let vol = self.io.requests.get(id).map(|r| r.vol);
        let disk = vol.and_then(|vol| self.io_backing(vol));
        let may_hang = disk.is_some_and(|b| b.disk.conf.disk_timeout != 0);
        self.submit_local_as(id, may_hang, h);
    }

    /// What a discard is for the own disk: where nobody promises that what was discarded reads as
    /// zero, it is zeroed out, or the two nodes might read different data.
    pub(in crate::node) fn discard_op(&self, vol: VolIx) -> LocalOp {
        let backing = self.io_vol(vol).and_then(|v| v.backing.as_ref());
        let reliable =
            |b: &Backing<S>| b.disk.conf.discard_zeroes_if_aligned && b.disk.limits.discard;
        match backing.is_some_and(reliable) {
            true => LocalOp::Discard,
            false => LocalOp::ZeroOut { unmap: true },
        }
    }

    pub(super) fn submit_local_as(&mut self, id: Id, copy: bool, h: &mut impl Host) {
        let now = h.now();
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.local = Local::Pending;
        r.local_at = now;
        r.copied = copy && matches!(r.io.op, AppOp::Read | AppOp::Write);
        let (vol, io) = (r.vol, r.io);
        let pages = if copy {
            LocalData::Copy(io.app)
        } else {
            LocalData::App(io.app)
        };
        let (op, data) = match io.op {
            AppOp::Read => (LocalOp::Read, pages),
            AppOp::Write => (LocalOp::Write, pages),
            AppOp::Discard => (self.discard_op(vol), LocalData::None),
            AppOp::WriteZeroes { unmap } => (LocalOp::ZeroOut { unmap }, LocalData::None),
            AppOp::Flush => (LocalOp::Flush, LocalData::None),
        };
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.local = v.io.local.saturating_add(1);
        }
        h.emit(Effect::Local {
            vol,
            io: Name::App(id).io(),
            op,
            range: io.range,
            flags: io.flags,
            data,
        });
    }

    /// Marks the leg to the peer as begun.
    fn net_begins(&mut self, id: Id, expect: Expect) {
        let incarnation = self.io_conn(PEER).map_or(0, |c| c.epochs.incarnation);
        let vol = self.io.requests.get(id).map(|r| r.vol);
        let stops = vol
            .and_then(|vol| self.io_vol(vol))
            .map_or(0, |v| v.io.stops);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        r.stops = stops;
        r.net = Net::Live {
            queued: true,
            answer: Answer::Awaited,
        };
        r.expect = expect;
        r.incarnation = incarnation;
        r.sent_at = None;
        let vol = r.vol;
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.live = v.io.live.saturating_add(1);
        }
        self.count_pending(vol, true);
    }

    pub(super) fn count_pending(&mut self, vol: VolIx, more: bool) {
        if let Some(p) = self.io_peer_device(vol, PEER) {
            p.io.pending = if more {
                p.io.pending.saturating_add(1)
            } else {
                p.io.pending.saturating_sub(1)
            };
        }
    }

    /// What makes a write count as replicated. Where the peer's copy is the only good one, with
    /// protocol B it has to be on the peer's disk, which may fail. Older peers do not look at what
    /// the packet asks for.
    fn expected(&self, vol: VolIx, apv: u32) -> Expect {
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let lone = self.io_state(vol).disk != Disk::UpToDate && apv >= 100;
        match conf.map_or(3, |n| n.wire_protocol) {
            1 => Expect::Sent,
            2 if !lone => Expect::Received,
            _ => Expect::Written,
        }
    }

    /// Queues the write for the peer, behind a barrier where it begins an epoch.
    pub(super) fn queue_write(&mut self, id: Id, h: &mut impl Host) {
        let Some(agreed) = self.connected(PEER) else {
            return;
        };
        let Some(vol) = self.io.requests.get(id).map(|r| r.vol) else {
            return;
        };
        let expect = self.expected(vol, agreed.apv);
        self.net_begins(id, expect);
        if self.is_too_long(id, h) {
            return;
        }
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        self.before_send(PEER, r.epoch, h);
        self.count_sent_write(PEER, r.epoch);
        let seq_num = self.next_seq(r.vol);
        let flags = write_flags(&r, self.io_state(r.vol), agreed.apv);
        let (sector, block_id) = (r.io.range.start, token::block_id(id));
        let trim = |flags| Trim {
            sector,
            block_id,
            seq_num,
            flags,
            size: r.io.range.bytes(),
        };
        let (packet, payload) = match r.io.op {
            AppOp::Discard => (Packet::Trim(trim(flags | dp::DISCARD)), Payload::None),
            AppOp::WriteZeroes { .. } if agreed.features & feature::WZEROES == 0 => {
                (Packet::Trim(trim(flags | dp::DISCARD)), Payload::None)
            }
            AppOp::WriteZeroes { unmap } => {
                let may = if unmap { dp::DISCARD } else { 0 };
                (
                    Packet::Zeroes(trim(flags | dp::ZEROES | may)),
                    Payload::None,
                )
            }
            AppOp::Write | AppOp::Read | AppOp::Flush => (
                Packet::Data(Data {
                    sector,
                    block_id,
                    seq_num,
                    flags,
                }),
                Payload::App {
                    app: r.io.app,
                    splice: expect != Expect::Sent,
                },
            ),
        };
        let vnr = self.io_vnr(r.vol);
        self.count_moved(r.vol, super::stats::Moved::Sent, r.io.range.len);
        self.send(
            PEER,
            Sock::Data,
            vnr,
            packet,
            payload,
            Name::App(id).send(),
            h,
        );
    }

    /// Whether no packet can carry what this request writes, or reads: it was held while a peer
    /// left that has come back with an older protocol. True: this node does without that peer. The
    /// C driver sends a length that is cut off.
    fn is_too_long(&mut self, id: Id, h: &mut impl Host) -> bool {
        let most = self.connected(PEER).map_or(0, |a| most_data(a.apv));
        let Some(r) = self.io.requests.get_mut(id) else {
            return false;
        };
        let bytes = r.io.range.bytes();
        if !matches!(r.io.op, AppOp::Write | AppOp::Read) || bytes <= most {
            return false;
        }
        r.net.set_sent();
        let vol = r.vol;
        self.log(vol, Note::TooLongForPeer { bytes, most }, h);
        self.refuse_peer(PEER, h);
        true
    }

    /// Asks the peer for the data.
    pub(super) fn queue_read(&mut self, id: Id, h: &mut impl Host) {
        self.net_begins(id, Expect::Written);
        if self.is_too_long(id, h) {
            return;
        }
        let Some(r) = self.io.requests.get(id).copied() else {
            return;
        };
        // A read must see what was written before: it closes the epoch like a write does.
        self.before_send(PEER, r.epoch, h);
        let packet = Packet::DataRequest(BlockReq {
            sector: r.io.range.start,
            block_id: token::block_id(id),
            blksize: r.io.range.bytes(),
        });
        let vnr = self.io_vnr(r.vol);
        let token = Name::App(id).send();
        self.send(PEER, Sock::Data, vnr, packet, Payload::None, token, h);
    }
}

/// The flags of a DATA packet (wire.md §6).
fn write_flags(r: &Request, s: State, apv: u32) -> u32 {
    let mut flags = 0;
    let mut set = |on: bool, flag: u32| {
        if on {
            flags |= flag;
        }
    };
    let in_sync = s.conn.is_sync();
    set(r.io.flags.sync, dp::RW_SYNC);
    set(in_sync, dp::MAY_SET_IN_SYNC);
    if apv >= 95 {
        set(r.io.flags.fua, dp::FUA);
        set(r.io.flags.preflush, dp::FLUSH);
    }
    if apv >= 100 {
        set(r.expect == Expect::Received, dp::SEND_RECEIVE_ACK);
        set(r.expect == Expect::Written || in_sync, dp::SEND_WRITE_ACK);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::io::{AppId, AppIo, IoFlags};
    use crate::time::Instant;
    use crate::units::SectorRange;

    #[test]
    fn reads_are_balanced_as_configured() {
        let mut turn = false;
        assert!(!balance(0, 0, 9, 0, &mut turn));
        assert!(balance(1, 0, 0, 9, &mut turn));
        assert!(!balance(2, 0, 0, 0, &mut turn));
        assert!(balance(2, 0, 0, 0, &mut turn));
        assert!(balance(3, 0, 2, 1, &mut turn) && !balance(3, 0, 1, 1, &mut turn));
        // 32 KiB are 64 sectors, 1 MiB are 2048.
        assert!(!balance(5, 63, 0, 0, &mut turn) && balance(5, 64, 0, 0, &mut turn));
        assert!(!balance(10, 2047, 0, 0, &mut turn) && balance(10, 2048, 0, 0, &mut turn));
    }

    #[test]
    fn flags_of_the_protocols() {
        let io = AppIo {
            app: AppId(0),
            op: AppOp::Write,
            range: SectorRange::default(),
            flags: IoFlags {
                fua: true,
                ..IoFlags::default()
            },
        };
        let mut r = Request::new(VolIx(0), io, Instant(0));
        let mut s = State::INITIAL;
        s.conn = Conn::Connected;
        assert_eq!(write_flags(&r, s, 101), dp::FUA | dp::SEND_WRITE_ACK);
        assert_eq!(write_flags(&r, s, 94), 0);
        r.expect = Expect::Sent;
        assert_eq!(write_flags(&r, s, 101), dp::FUA);
        s.conn = Conn::SyncSource;
        let sync = dp::MAY_SET_IN_SYNC | dp::SEND_WRITE_ACK;
        assert_eq!(write_flags(&r, s, 101), dp::FUA | sync);
    }
}
