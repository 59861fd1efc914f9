// SPDX-License-Identifier: GPL-2.0

//! `/proc/drbd`, character by character as procfs.md has it: scripts parse these lines.

use core::fmt::{self, Display, Formatter, Write};

use crate::state::conn::State as Conn;
use crate::state::State;
use crate::time::Instant;
use crate::units::Minor;

use super::super::super::io::VolIx;
use super::super::super::request::Ordering;
use super::super::super::resync::Snapshot;
use super::super::super::{Resource, Store, PEER};

/// Marks of the progress of a resync.
const MARKS: usize = 8;

/// Bits above which amounts are shown in MiB: 4 GiB.
const MIB_FROM: u64 = 1 << 20;

/// A counter of an LRU, for the detailed view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LruStats {
    /// Elements in use, of how many.
    pub used: (u32, u32),
    /// hits, misses, starving, locked, changed.
    pub counts: [u64; 5],
}

/// The lines of one volume.
#[derive(Clone, Copy, Debug, Hash)]
pub struct VolumeLines {
    pub(crate) minor: Minor,
    pub(crate) state: State,
    pub(crate) protocol: Option<u32>,
    pub(crate) al_suspended: bool,
    /// ns nr dw dr, KiB; al bm.
    pub(crate) counts: [u64; 6],
    /// lo pe ua ap ep.
    pub(crate) gauges: [u32; 5],
    pub(crate) ordering: Ordering,
    pub(crate) out_of_sync: u64,
    pub(crate) bits: u64,
    pub(crate) resync: Snapshot,
    pub(crate) now: Instant,
    /// `proc_details`.
    pub(crate) details: u32,
}

impl<S: Store> Resource<S> {
    /// The lines of a volume; `details` is the module parameter `proc_details`.
    pub fn proc_lines(&self, vol: VolIx, now: Instant, details: u32) -> Option<VolumeLines> {
        let v = self.volume_status(vol)?;
        let [sent, received, written, read] = v.moved;
        let [al, bm] = v.md_writes;
        let conf = self.conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        Some(VolumeLines {
            minor: v.minor,
            state: v.state,
            protocol: conf.map(|n| n.wire_protocol),
            al_suspended: v.al_suspended,
            counts: [
                sent.kib(),
                received.kib(),
                written.kib(),
                read.kib(),
                u64::from(al),
                u64::from(bm),
            ],
            gauges: [
                v.local,
                v.pending.saturating_add(v.rs_pending),
                v.unacked,
                v.in_flight,
                v.epochs,
            ],
            ordering: self.write_ordering(),
            out_of_sync: v.out_of_sync,
            bits: v.bits,
            resync: self.resync_snapshot(vol),
            now,
            details,
        })
    }
}

impl Display for VolumeLines {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (s, minor) = (self.state, self.minor.0);
        if s.is_unconfigured() {
            return writeln!(f, "{minor:2}: cs:Unconfigured");
        }
        let protocol = match self.protocol {
            Some(1) => 'A',
            Some(2) => 'B',
            Some(_) => 'C',
            None => ' ',
        };
        write!(
            f,
            "{minor:2}: cs:{} ro:{}/{} ds:{}/{} {protocol} ",
            s.conn, s.role, s.peer, s.disk, s.pdsk
        )?;
        f.write_char(if s.is_suspended() { 's' } else { 'r' })?;
        for (set, letter) in [
            (s.aftr_isp, 'a'),
            (s.peer_isp, 'p'),
            (s.user_isp, 'u'),
            (false, '-'),
            (self.al_suspended, 's'),
        ] {
            f.write_char(if set { letter } else { '-' })?;
        }
        let [ns, nr, dw, dr, al, bm] = self.counts;
        let [lo, pe, ua, ap, ep] = self.gauges;
        let wo = match self.ordering {
            Ordering::None => 'n',
            Ordering::Drain => 'd',
            Ordering::Flush => 'f',
        };
        write!(f, "\n    ns:{ns} nr:{nr} dw:{dw} dr:{dr} al:{al} bm:{bm} ")?;
        write!(f, "lo:{lo} pe:{pe} ua:{ua} ap:{ap} ep:{ep} wo:{wo} ")?;
        writeln!(f, "oos:{}", self.out_of_sync.saturating_mul(4))?;
        match s.conn {
            Conn::SyncSource | Conn::SyncTarget | Conn::VerifyS | Conn::VerifyT => self.progress(f),
            _ => Ok(()),
        }
    }
}

impl VolumeLines {
    fn progress(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rs = &self.resync;
        let total = rs.total;
        let left = rs.left.saturating_sub(rs.failed);
        let (left, done) = match (left > total, total) {
            (true, 0) => (0, 1000),
            (true, _) => (total, 0),
            (false, _) => (left, per_mille(left, total)),
        };
        let x = done / 50;
        f.write_str("\t[")?;
        for _ in 1..x {
            f.write_char('=')?;
        }
        f.write_char('>')?;
        for _ in 0..20_u64.saturating_sub(x) {
            f.write_char('.')?;
        }
        f.write_str("] ")?;
        f.write_str(if self.state.conn.is_verify() {
            "verified:"
        } else {
            "sync'ed:"
        })?;
        write!(f, "{:3}.{}% ", done / 10, done % 10)?;
        if total > MIB_FROM {
            write!(f, "({}/{})M", kib(left >> 10), kib(total >> 10))?;
        } else {
            write!(f, "({}/{})K", kib(left), kib(total))?;
        }
        self.speeds(f, left, total)?;
        if self.details >= 1 {
            self.position(f)?;
        }
        Ok(())
    }

    /// Bits done since the mark that many slots behind the newest, and whole seconds since then.
    fn window(&self, ahead: usize, left: u64) -> (u64, u64) {
        let at = usize::from(self.resync.last).wrapping_add(ahead) % MARKS;
        let mark = self.resync.marks.get(at).copied().unwrap_or_default();
        // The C driver prints huge numbers where more is left than before.
        let bits = mark.left.saturating_sub(left);
        (bits, self.now.since(mark.at).as_secs())
    }

    fn speeds(&self, f: &mut Formatter<'_>, left: u64, total: u64) -> fmt::Result {
        let rs = &self.resync;
        let (db, dt) = self.window(2, left);
        let stalled = dt > 180;
        let dt = dt.max(1);
        let per_hundredth = (db / 100).saturating_add(1);
        let rt = dt.saturating_mul(left.checked_div(per_hundredth).unwrap_or(0)) / 100;
        let (hours, minutes, seconds) = (rt / 3600, rt % 3600 / 60, rt % 60);
        write!(f, "\n\tfinish: {hours}:{minutes:02}:{seconds:02} speed: ")?;
        grouped(f, rate(db, dt))?;
        f.write_str(" (")?;
        if self.details >= 1 {
            let (db, dt) = self.window(MARKS.saturating_sub(1), left);
            grouped(f, rate(db, dt.max(1)))?;
            f.write_str(" -- ")?;
        }
        let ran = self.now.since(rs.start).0.saturating_sub(rs.paused.0);
        let dt = crate::time::Duration(ran).as_secs().max(1);
        grouped(f, rate(total.saturating_sub(left), dt))?;
        f.write_char(')')?;
        if matches!(self.state.conn, Conn::SyncTarget | Conn::VerifyS) {
            f.write_str(" want: ")?;
            grouped(f, u64::from(rs.want))?;
        }
        writeln!(f, " K/sec{}", if stalled { " (stalled)" } else { "" })
    }

    fn position(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let per_cent = (self.bits / 100).saturating_add(1);
        let at = self.resync.cursor;
        let done = at.checked_div(per_cent).unwrap_or(0);
        let sectors = |bits: u64| bits.saturating_mul(8);
        writeln!(
            f,
            "\t{done:3}% sector pos: {}/{}",
            sectors(at),
            sectors(self.bits)
        )
    }
}

/// Bits of 4 KiB in KiB.
const fn kib(bits: u64) -> u64 {
    bits.saturating_mul(4)
}

/// KiB/s; the division comes first, as in the C driver.
fn rate(bits: u64, seconds: u64) -> u64 {
    kib(bits.checked_div(seconds).unwrap_or(0))
}

fn per_mille(left: u64, total: u64) -> u64 {
    let shift = if total > u64::from(u32::MAX) { 16 } else { 10 };
    let whole = (total >> shift).saturating_add(1);
    let left = (left >> shift).saturating_mul(1000);
    1000_u64.saturating_sub(left.checked_div(whole).unwrap_or(0))
}

/// A number with commas: 1,234,567.
fn grouped(f: &mut Formatter<'_>, n: u64) -> fmt::Result {
    if n >= 1_000_000 {
        let (millions, rest) = (n / 1_000_000, n % 1_000_000);
        write!(f, "{millions},{:03},{:03}", rest / 1000, rest % 1000)
    } else if n >= 1000 {
        write!(f, "{},{:03}", n / 1000, n % 1000)
    } else {
        write!(f, "{n}")
    }
}

/// The first lines of the file.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Banner<'a> {
    /// The source version of a module; `None`: built in.
    pub srcversion: Option<&'a str>,
}

impl Display for Banner<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("version: 8.4.11 (api:1/proto:86-101)\n")?;
        match self.srcversion {
            Some(v) => writeln!(f, "srcversion: {v:<24}"),
            None => f.write_str("built-in\n"),
        }
    }
}

/// The empty line that comes where minors are skipped. `previous`: the minor shown last.
pub const fn gap(previous: Option<u32>, minor: u32) -> &'static str {
    let follows = match previous {
        Some(p) => minor == p.wrapping_add(1),
        None => minor == 0,
    };
    if follows {
        ""
    } else {
        "\n"
    }
}

/// A line of the detailed view.
pub struct LruLine<'a> {
    /// `resync` or `act_log`.
    pub name: &'a str,
    /// The numbers.
    pub stats: LruStats,
}

impl Display for LruLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (used, of) = self.stats.used;
        let [hits, misses, starving, locked, changed] = self.stats.counts;
        write!(
            f,
            "\t{}: used:{used}/{of} hits:{hits} misses:{misses} ",
            self.name
        )?;
        writeln!(f, "starving:{starving} locked:{locked} changed:{changed}")
    }
}

#[cfg(test)]
#[path = "proc_tests.rs"]
mod tests;
