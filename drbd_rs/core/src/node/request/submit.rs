// SPDX-License-Identifier: GPL-2.0

//! The way of an application's request up to the activity log: admission and conflicts.
//!
//! Nothing is refused for long: what may not go on waits in a queue of its volume, and each queue
//! is tried again by the pump whenever something has changed.

use super::request::{Request, Stage};
use super::UNIT;

use super::super::io::{AppIo, Effect, Host, IoError, VolIx};
use super::super::{Resource, Store, PEER};
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::store::slab::Id;

/// Whether application I/O may begin in this state. Handshakes and bitmap exchanges that it would
/// disturb are short.
fn is_stable(s: State, apv: u32) -> bool {
    let conn = match s.conn {
        Conn::WFBitMapS => apv >= 96,
        Conn::WFBitMapT | Conn::WFSyncUUID => false,
        Conn::StandAlone
        | Conn::Disconnecting
        | Conn::Unconnected
        | Conn::Timeout
        | Conn::BrokenPipe
        | Conn::NetworkFailure
        | Conn::ProtocolError
        | Conn::TearDown
        | Conn::WFConnection
        | Conn::WFReportParams
        | Conn::Connected
        | Conn::StartingSyncS
        | Conn::StartingSyncT
        | Conn::SyncSource
        | Conn::SyncTarget
        | Conn::VerifyS
        | Conn::VerifyT
        | Conn::PausedSyncS
        | Conn::PausedSyncT
        | Conn::Ahead
        | Conn::Behind => true,
    };
    let disk = match s.disk {
        Disk::Attaching | Disk::Negotiating | Disk::DUnknown => false,
        Disk::Diskless
        | Disk::Failed
        | Disk::Inconsistent
        | Disk::Outdated
        | Disk::Consistent
        | Disk::UpToDate => true,
    };
    conn && disk
}

impl<S: Store> Resource<S> {
    /// An application asks for I/O.
    pub(crate) fn submit(&mut self, vol: VolIx, io: AppIo, h: &mut impl Host) {
        let request = Request::new(vol, io, h.now());
        let id = match self.io_vol(vol) {
            Some(_) => self.io.requests.insert(request).ok(),
            None => None,
        };
        let Some(id) = id else {
            let result = Err(IoError::NoMemory);
            h.emit(Effect::Complete {
                app: io.app,
                result,
            });
            return;
        };
        if let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) {
            v.io.admit.push_back(&mut self.io.requests, id);
        }
        self.admission_pump(vol, h);
    }

    fn may_admit(&self, vol: VolIx) -> bool {
        let Some(v) = self.io_vol(vol) else {
            return false;
        };
        let conf = self.io_conn(PEER).and_then(|c| c.ctl.conf.as_ref());
        let most = conf.map_or(1_000_000, |n| n.max_buffers);
        let apv = self.connected(PEER).map_or(0, |a| a.apv);
        // A node that is promoted when its peer is gone may still have writes of that on the disk,
        // which would land on top of its own; those of two Primaries are kept apart one by one. The
        // C driver lets them land.
        let heirs = v.state.conn < Conn::Connected && v.io.peer_writes == 0;
        let late = heirs && v.peers.iter().any(|p| p.io.active != 0);
        !late
            && v.io.gate == 0
            && v.io.news_by.is_none()
            && v.io.in_flight <= most
            && !v.state.is_suspended()
            && !self.io.thaw.blocks()
            && is_stable(v.state, apv)
    }

    /// Lets in what may come in; true if room ran out.
    #[inline(never)]
    pub(super) fn admission_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        while self.io_vol(vol).is_some_and(|v| !v.io.admit.is_empty()) {
            if !self.may_admit(vol) {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                return false;
            };
            let Some(id) = v.io.admit.pop_front(&mut self.io.requests) else {
                return false;
            };
            v.io.in_flight = v.io.in_flight.saturating_add(1);
            self.enter(vol, id, h);
        }
        false
    }

    /// An admitted request: past overlapping writes, to the activity log or straight on.
    fn enter(&mut self, vol: VolIx, id: Id, h: &mut impl Host) {
        let size = self
            .io_vol(vol)
            .map_or(crate::units::Sectors(0), |v| v.size);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        if r.io.range.end().0 > size.0 {
            // It waited while the device became smaller.
            self.complete(id, Err(IoError::Io), h);
            self.destroy(id, h);
            return;
        }
        if !r.is_write() || r.io.range.len.0 == 0 {
            self.launch(id, h);
            return;
        }
        let range = r.io.range;
        let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
            return;
        };
        let free = v.io.writes.first_overlap(range).is_none();
        if !free || v.io.writes.insert(range, id.ix).is_err() {
            r.stage = Stage::Conflict;
            v.io.conflict.push_back(&mut self.io.requests, id);
            return;
        }
        r.in_writes = true;
        self.enter_log(vol, id, h);
    }

    /// Tries again what waited for overlapping writes; true if room ran out.
    #[inline(never)]
    pub(super) fn conflict_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let Some(v) = self.io_vol_mut(vol) else {
            return false;
        };
        if !core::mem::replace(&mut v.io.conflict_ended, false) {
            return false;
        }
        for _ in 0..v.io.conflict.len() {
            if h.room() < UNIT {
                if let Some(v) = self.io_vol_mut(vol) {
                    v.io.conflict_ended = true;
                }
                return true;
            }
            let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) else {
                return false;
            };
            let Some(id) = v.io.conflict.pop_front(&mut self.io.requests) else {
                return false;
            };
            self.enter(vol, id, h);
        }
        false
    }

    /// Back to the door: I/O was suspended before anything was done for the request, or after a
    /// read failed. It keeps its turn. When I/O goes on there may be other disks: each is tried.
    /// The C driver tells of an error.
    pub(super) fn readmit(&mut self, id: Id, h: &mut impl Host) {
        self.give_back(id, h);
        let Some(r) = self.io.requests.get_mut(id) else {
            return;
        };
        let vol = r.vol;
        r.stage = Stage::Admission;
        r.release = false;
        (r.avoid_local, r.avoid_peer) = (false, false);
        if let Some(Some(v)) = self.volumes.get_mut(usize::from(vol.0)) {
            v.io.in_flight = v.io.in_flight.saturating_sub(1);
            v.io.admit.push_front(&mut self.io.requests, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_states_keep_io_out() {
        let s = |conn, disk| State {
            conn,
            disk,
            ..State::INITIAL
        };
        assert!(is_stable(s(Conn::Connected, Disk::UpToDate), 101));
        assert!(is_stable(s(Conn::StandAlone, Disk::Diskless), 0));
        assert!(is_stable(s(Conn::WFBitMapS, Disk::UpToDate), 96));
        assert!(!is_stable(s(Conn::WFBitMapS, Disk::UpToDate), 95));
        assert!(!is_stable(s(Conn::WFBitMapT, Disk::Inconsistent), 101));
        assert!(!is_stable(s(Conn::Connected, Disk::Negotiating), 101));
    }
}
