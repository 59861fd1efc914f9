// SPDX-License-Identifier: GPL-2.0

//! Disks at work, and applications.

use crate::drbdmeta;
use crate::node::{App, InFlight, Node};
use crate::world::{say, Event, World, VOL};
use drbd_core::digest::Digest;
use drbd_core::node::{
    AppId, AppIo, AppOp, AppResult, BufId, Data, Examine, Examined, Input, IoError, IoFlags,
    IoToken, LocalOp, MetaOp,
};
use drbd_core::state::disk::State as Disk;
use drbd_core::time::Duration;
use drbd_core::units::{Sector, SectorRange, Sectors};

impl World {
    /// Most I/O is quick. On a slow disk some takes up to eight seconds, longer than anything that
    /// the machine puts off; on one that is stalled all waits for the end of that.
    pub(crate) fn latency(&mut self, node: usize) -> Duration {
        let t = &self.nodes[node].trouble;
        let (slow, until) = (t.slow, t.stalled_until);
        if slow != 0 && self.rng.below(slow) == 0 {
            return Duration(self.rng.below(8_000_000_000));
        }
        let usual = Duration(20_000 + self.rng.below(200_000));
        Duration(usual.0 + until.since(self.now).0)
    }

    /// Whether the I/O that is over failed. `kind`: 0 read, 1 write, 2 metadata.
    fn fails(&mut self, node: usize, kind: usize) -> bool {
        let left = &mut self.nodes[node].trouble.eio[kind];
        let fails = *left > 0;
        *left = left.saturating_sub(1);
        fails
    }

    pub(crate) fn submit_local(
        &mut self,
        node: usize,
        io: IoToken,
        op: LocalOp,
        range: SectorRange,
        flags: IoFlags,
        data: Data,
    ) {
        let n = &mut self.nodes[node];
        if op == LocalOp::Flush || flags.preflush {
            // What was completed before is durable at the latest when the flush is answered.
            n.disk.flush_data();
        }
        let tags = match (op, data) {
            (LocalOp::Write, Data::App(AppId(app)) | Data::Copy(AppId(app))) => {
                n.apps.get(u64::from(app)).map(|a| a.pages.clone())
            }
            (LocalOp::Write, Data::Buf(BufId(buf))) => n.bufs.get(u64::from(buf)).cloned(),
            (LocalOp::Discard | LocalOp::ZeroOut { .. }, _) => Some(vec![0; range.len.0 as usize]),
            _ => None,
        };
        if let Some(tags) = tags {
            if tags.len() as u64 != range.len.0 {
                self.violated("writes have their data", &format!("n{node} {range:?}"));
            }
            let fua = flags.fua;
            let write = InFlight {
                start: range.start,
                tags,
                bytes: Vec::new(),
                fua,
                of_peer: matches!(data, Data::Buf(_)),
            };
            if !n.writes.insert(Node::key(io), write) {
                self.violated("tokens are used once", &format!("n{node} {io:?}"));
            }
        } else if op != LocalOp::Read && op != LocalOp::Flush {
            self.violated(
                "writes have their data",
                &format!("n{node} {range:?}: none"),
            );
        }
        let event = Event::LocalDone {
            io,
            op,
            range,
            data,
        };
        self.begin_io(node, event, flags);
    }

    pub(crate) fn local_done(
        &mut self,
        node: usize,
        io: IoToken,
        op: LocalOp,
        range: SectorRange,
        data: Data,
    ) {
        let failed = match op {
            LocalOp::Flush => false,
            LocalOp::Read => self.fails(node, 0),
            _ => self.fails(node, 1),
        };
        let mut buf = None;
        let n = &mut self.nodes[node];
        match op {
            LocalOp::Flush => {}
            LocalOp::Read if failed => n.reads_failed += 1,
            LocalOp::Read => {
                let tags = n.disk.read(range);
                match data {
                    Data::App(AppId(app)) => {
                        let Some(app) = n.apps.get_mut(u64::from(app)) else {
                            let why = format!("n{node} {range:?}: the I/O is over");
                            self.violated("reads have their pages", &why);
                        };
                        app.pages = tags;
                    }
                    Data::Fresh | Data::Copy(_) => buf = Some(n.buffer(tags)),
                    Data::None | Data::Buf(_) => panic!("a read into nowhere"),
                }
            }
            _ => {
                let w = n.writes.remove(Node::key(io)).expect("a write in flight");
                n.write_failed |= failed;
                if !failed {
                    n.land(w, true);
                } else if self.rng.percent(50) {
                    // What a failed write left behind nobody knows.
                    n.land(w, false);
                }
            }
        }
        let result = if failed { Err(IoError::Io) } else { Ok(()) };
        if failed {
            say!(self, "n{node} disk fails: {op:?} {range:?}");
            self.truth.failed = true;
            if !matches!(op, LocalOp::Flush | LocalOp::Read) {
                self.not_written(node, range);
            }
        }
        self.step(node, Input::LocalDone { io, buf, result });
    }

    /// A read that went into a buffer reaches its application.
    pub(crate) fn fill(&mut self, node: usize, app: u32, buf: u32) {
        let n = &mut self.nodes[node];
        let pages = n.bufs.remove(u64::from(buf));
        let (Some(pages), Some(app)) = (pages, n.apps.get_mut(u64::from(app))) else {
            let why = format!("n{node} buffer {buf} for I/O {app}");
            self.violated("reads have their pages", &why);
        };
        app.pages = pages;
    }

    /// Looks at the content of a buffer.
    pub(crate) fn examine(&mut self, node: usize, io: IoToken, buf: Option<BufId>, what: Examine) {
        let n = &self.nodes[node];
        let data = buf.map(|BufId(buf)| n.bufs.get(u64::from(buf)));
        let result = match (what, data) {
            (_, Some(None)) => {
                let why = format!("n{node} {buf:?} is to be examined");
                self.violated("buffers are there until they are freed", &why)
            }
            (Examine::Zeroes, data) => {
                let zero = |d: &Vec<u64>| d.iter().all(|tag| *tag == 0);
                Examined::Zeroes(data.flatten().is_some_and(zero))
            }
            (Examine::Digest(_), None) => Examined::Digest(Digest::new(&[0; 8]).expect("short")),
            (Examine::Digest(which), Some(Some(_))) if n.algorithm(which).is_empty() => {
                let why = format!("n{node} {which:?} {buf:?}");
                self.violated("digests have an algorithm", &why)
            }
            (Examine::Digest(_), Some(Some(data))) => {
                // FNV-1a over words: enough to tell tags apart.
                let mix = |sum: u64, tag: &u64| (sum ^ tag).wrapping_mul(0x100_0000_01b3);
                let sum = data.iter().fold(0xcbf2_9ce4_8422_2325, mix);
                Examined::Digest(Digest::new(&sum.to_be_bytes()).expect("short"))
            }
        };
        let after = self.latency(node);
        self.schedule(node, after, Event::Examined(io, result));
    }

    pub(crate) fn submit_meta(
        &mut self,
        node: usize,
        io: IoToken,
        op: MetaOp,
        sector: Sector,
        bytes: u32,
        flags: IoFlags,
    ) {
        let n = &mut self.nodes[node];
        if flags.preflush {
            n.disk.flush_meta();
        }
        if !matches!(op, MetaOp::ReadBitmap { .. }) {
            let mut page = [0; 4096];
            if let Some(res) = n.res.as_mut() {
                res.fill_page(io, &mut page);
            }
            let bytes = page[..bytes as usize].to_vec();
            let write = InFlight {
                start: sector,
                tags: Vec::new(),
                bytes,
                fua: flags.fua,
                of_peer: false,
            };
            if !n.writes.insert(Node::key(io), write) {
                self.violated("tokens are used once", &format!("n{node} {io:?}"));
            }
        }
        let event = Event::MetaDone {
            io,
            op,
            sector,
            bytes,
        };
        self.begin_io(node, event, flags);
    }

    pub(crate) fn meta_done(
        &mut self,
        node: usize,
        io: IoToken,
        op: MetaOp,
        sector: Sector,
        bytes: u32,
    ) {
        let failed = self.fails(node, 2);
        let n = &mut self.nodes[node];
        let mut page = [0; 4096];
        let read = matches!(op, MetaOp::ReadBitmap { .. });
        if read {
            let found = n.disk.read_bytes(sector, bytes as usize);
            page[..found.len()].copy_from_slice(found);
        } else {
            let w = n.writes.remove(Node::key(io)).expect("a write in flight");
            if failed && op == MetaOp::WriteSuperblock {
                self.uuids_not_stored(node);
            }
            if !failed {
                if op == MetaOp::WriteSuperblock {
                    self.uuids_stored(node, &w.bytes);
                    let disk = &mut self.nodes[node].disk;
                    // It may have grown since the machine has measured it.
                    let at = |size: &&Sectors| drbdmeta::layout(**size).superblock == sector;
                    disk.there = *disk
                        .sizes
                        .iter()
                        .rev()
                        .find(at)
                        .expect("the end of a device");
                    self.superblock_written(node, &w.bytes);
                }
                self.nodes[node].land(w, true);
            }
        }
        if failed {
            say!(self, "n{node} disk fails: {op:?}");
        }
        let page = (read && !failed).then_some(&page);
        let result = if failed { Err(IoError::Io) } else { Ok(()) };
        self.step(node, Input::MetaDone { io, page, result });
    }

    /// An application submits I/O; `len` in sectors. Returns its name.
    pub fn submit(&mut self, node: usize, op: AppOp, start: u64, len: u64) -> AppId {
        self.submit_with(node, op, start, len, IoFlags::default())
    }

    /// As [`World::submit`], with flags.
    pub fn submit_with(
        &mut self,
        node: usize,
        op: AppOp,
        start: u64,
        len: u64,
        flags: IoFlags,
    ) -> AppId {
        let app = AppId(self.next_app);
        self.next_app += 1;
        let range = SectorRange {
            start: Sector(start),
            len: Sectors(len),
        };
        let io = AppIo {
            app,
            op,
            range,
            flags,
        };
        let mut tag = 0;
        let mut pages = vec![0; len as usize];
        match op {
            AppOp::Write => {
                tag = self.next_tag;
                self.next_tag += 1 << 12;
                pages.iter_mut().zip(tag..).for_each(|(p, t)| *p = t);
                self.truth.submitted(node, range, tag);
            }
            AppOp::Discard | AppOp::WriteZeroes { .. } => {
                tag = self.next_tag;
                self.next_tag += 1 << 12;
                self.truth.zeroing(node, range, tag);
            }
            AppOp::Flush => tag = self.truth.mark(node),
            AppOp::Read => self.truth.reading(app, range),
        }
        let (link, good) = (
            self.nodes[node].link(),
            self.nodes[node].state.disk == Disk::UpToDate,
        );
        let entry = App {
            io,
            tag,
            pages,
            link,
            good,
            answered: false,
            block: None,
            taken: false,
            sent: false,
            epoch: None,
            refused: false,
            spare: self.spare(node),
        };
        self.nodes[node].apps.insert(u64::from(app.0), entry);
        self.stats.ios += 1;
        self.step(node, Input::Submit { vol: VOL, io });
        app
    }

    pub(crate) fn complete(&mut self, node: usize, app: AppId, result: AppResult) {
        let Some(done) = self.nodes[node].apps.remove(u64::from(app.0)) else {
            self.violated("I/O completes once", &format!("n{node} {app:?}"));
        };
        if let Err(why) = result {
            say!(
                self,
                "n{node} {:?} {:?}: {why:?}",
                done.io.op,
                done.io.range
            );
        }
        if let Err(why) = result {
            self.check_error(node, &done, why);
        } else {
            self.note_done(node, &done);
        }
        self.check_generation(node, &done, result);
        self.check_copy(node, &done, result);
        self.judge(node, &done, result);
        if let Some(list) = self.completed.as_mut() {
            list.push((node, app, result));
        }
    }

    /// I/O of applications under way on a node.
    pub fn open_ios(&self, node: usize) -> usize {
        self.nodes[node].apps.len()
    }

    /// The power of a node fails.
    pub fn crash(&mut self, node: usize) {
        say!(self, "n{node} loses its power");
        // What was on its way died with the node; what the other one works on goes on.
        let apps: Vec<u64> = self.nodes[node].apps.iter().map(|(_, a)| a.tag).collect();
        let apart = World::is_apart(self.nodes[self.peer_of(node)].state.conn);
        for tag in apps {
            if apart {
                self.truth.undecided(tag);
            } else {
                self.truth.orphaned(tag);
            }
        }
        let ids: Vec<AppId> = self.nodes[node]
            .apps
            .iter()
            .map(|(_, a)| a.io.app)
            .collect();
        self.truth.died(&ids);
        let was = self.nodes[node].state;
        let mut rng = self.rng.clone();
        let lost = self.nodes[node].power_fails(&mut rng);
        self.rng = rng;
        if self.is_stacked(node) {
            self.site_dies(was);
        } else {
            self.node_died(node, was, &lost);
        }
        self.check_marks();
    }

    /// An application that goes on until it has done all.
    pub(crate) fn work(&mut self, node: usize, left: u32, pause: u64, mix: u32) {
        if left == 0 {
            return;
        }
        let ready = {
            let n = &self.nodes[node];
            n.writable && n.apps.len() < 300
        };
        if ready && self.hold_open(node, true) {
            self.random_io_of(node, mix);
        }
        let after = Duration(1 + self.rng.below(pause.max(1)));
        self.schedule(node, after, Event::Work(left - 1, pause, mix));
    }
}
