// SPDX-License-Identifier: GPL-2.0

//! Volumes come and go; resources are made.

use crate::nl::conf::ResourceOpts;
use crate::nl::ErrCode;
use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, State};
use crate::units::{Minor, Sectors, Vnr};

use super::super::super::io::{Host, OpId, VolIx};
use super::super::super::{
    request, BackingPlace, Connection, Resource, Store, Volume, VolumeStorage, PEER,
};
use super::super::{Flags, ResourceControl, StateChange, VolumeControl};
use super::{Ask, Event, Kind, Move};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    Asked,
    Settling,
}

/// How far the removal of a volume is.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Deleting {
    vol: VolIx,
    step: Step,
}

impl<S: Store> Resource<S> {
    /// A resource without volumes, StandAlone. `volumes` has room for as many as there may be for
    /// the moment; all are `None`. `conns`: [`PEERS`](super::super::super::PEERS) of
    /// [`Connection::new`].
    pub fn new(
        opts: ResourceOpts,
        volumes: S::Vec<Option<Volume<S>>>,
        conns: S::Vec<Connection>,
        storage: request::Storage<S>,
    ) -> Resource<S> {
        Resource {
            volumes,
            conns,
            ctl: ResourceControl::new(opts),
            io: request::ResourceIo::new(storage),
        }
    }

    /// Gives the resource a longer list of volumes; those that exist move over. The old list comes
    /// back empty, to be freed; the new one does if it is not longer.
    pub fn swap_volumes(
        &mut self,
        mut longer: S::Vec<Option<Volume<S>>>,
    ) -> S::Vec<Option<Volume<S>>> {
        if longer.len() <= self.volumes.len() {
            return longer;
        }
        for (to, from) in longer.iter_mut().zip(self.volumes.iter_mut()) {
            *to = from.take();
        }
        core::mem::replace(&mut self.volumes, longer)
    }

    /// `new-minor`: adds a volume. `writes`: as `request::VolumeIo` wants it.
    ///
    /// # Errors
    /// `MINOR_OR_VOLUME_EXISTS`; `NOMEM` if the list of volumes is full; the storage comes back.
    pub fn add_volume(
        &mut self,
        minor: Minor,
        vnr: Vnr,
        storage: VolumeStorage<S>,
        h: &mut impl Host,
    ) -> Result<VolIx, (ErrCode, VolumeStorage<S>)> {
        if self.vol_by_vnr(vnr).is_some() || self.vol_by_minor(minor).is_some() {
            return Err((ErrCode::MinorOrVolumeExists, storage));
        }
        let free = self.volumes.iter().position(Option::is_none);
        let Some(vol) = free.and_then(|ix| u16::try_from(ix).ok()).map(VolIx) else {
            return Err((ErrCode::Nomem, storage));
        };
        let susp = self.ctl.susp;
        let cstate = self.conn(PEER).map_or(Conn::StandAlone, |c| c.ctl.cstate);
        let volume = Volume {
            minor,
            vnr,
            state: State {
                conn: cstate,
                susp: susp.user,
                susp_nod: susp.no_data,
                susp_fen: susp.fencing,
                ..State::INITIAL
            },
            size: Sectors(0),
            ctl: VolumeControl::new(),
            io: request::VolumeIo::new(storage.writes),
            backing: BackingPlace::EMPTY,
            peers: storage.peers,
        };
        if let Some(slot) = self.volumes.get_mut(usize::from(vol.0)) {
            *slot = Some(volume);
        }
        if cstate == Conn::WFReportParams {
            self.greet_volume(vol, h);
        }
        Ok(vol)
    }

    pub(super) fn admin_del_volume(&mut self, op: OpId, vol: VolIx, h: &mut impl Host) {
        let s = self.state(vol);
        let busy = self
            .vol(vol)
            .is_some_and(|v| v.ctl.opened != 0 || v.backing.is_some());
        if s.disk != Disk::Diskless || s.role != Role::Secondary || busy {
            return self.answer(op, ErrCode::MinorConfigured, h);
        }
        let d = Deleting {
            vol,
            step: Step::Begin,
        };
        self.begin(op, Kind::DelVolume(d), h);
    }

    pub(super) fn move_del_volume(&mut self, mut d: Deleting, event: Event) -> Move {
        match (d.step, event) {
            (Step::Begin, _) => {
                d.step = Step::Asked;
                // A volume leaves a live connection by way of WFReportParams.
                let change = StateChange::NONE.conn(Conn::WFReportParams);
                let ask = Ask::volume(d.vol, change, Flags::VERBOSE);
                if self.state(d.vol).conn < Conn::Connected {
                    d.step = Step::Settling;
                    return Move::Go(Kind::DelVolume(d));
                }
                Move::Ask(Kind::DelVolume(d), ask)
            }
            (Step::Asked, _) => {
                d.step = Step::Settling;
                Move::Go(Kind::DelVolume(d))
            }
            (Step::Settling, _) => {
                let settled = self
                    .vol(d.vol)
                    .is_none_or(|v| v.ctl.after.is_empty() && v.ctl.opened == 0);
                if !settled || !self.volume_is_quiet(d.vol) {
                    return Move::Poll(Kind::DelVolume(d));
                }
                if let Some(v) = self.vol_mut(d.vol) {
                    v.ctl.deleted = true;
                }
                Move::Done(ErrCode::NoError.number())
            }
        }
    }

    /// The volume that `del-minor` removed; its storage is freed by the owner.
    pub fn take_volume(&mut self, vol: VolIx) -> Option<VolumeStorage<S>> {
        let slot = self.volumes.get_mut(usize::from(vol.0))?;
        if !slot.as_ref()?.ctl.deleted {
            return None;
        }
        let volume = slot.take()?;
        Some(VolumeStorage {
            writes: volume.io.into_storage(),
            peers: volume.peers,
        })
    }

    /// Whether nothing of a volume is in flight any more.
    fn volume_is_quiet(&self, vol: VolIx) -> bool {
        self.local_refs(vol) == 0 && self.network_pending(vol) == 0 && self.resync_idle(vol)
    }
}
