// SPDX-License-Identifier: GPL-2.0

//! The peer tells its sizes (algorithms.md §10).

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::{Role, State};
use crate::units::{Sectors, Vnr};
use crate::wire::state::dds_flag;
use crate::wire::{Command, Header, Packet, Sizes};

use super::super::io::{Effect, Host, VolIx};
use super::super::note::Note;
use super::super::resync::Side;
use super::super::{After, Resource, Store, Violation, Volume, PEER};
use super::size::{Determined, Plan, Unsized};
use super::{Flags, Next, StateChange};

/// What is left to do about a SIZES packet once the device has its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SizesRest {
    c_size: Sectors,
    dds_flags: u16,
    /// The own backing device has another size than the peer knows.
    disk_changed: bool,
    /// The role that the peer was in.
    peer: Role,
}

const fn tells_sizes(packet: &Packet) -> bool {
    matches!(packet, Packet::Sizes(_))
}

/// Whether a disk is on its way to a peer that is there. Its size was found without what the peer
/// says now, and the bitmaps that are exchanged next have to be of one size. The C driver notes the
/// size, and changes its own in the middle of that exchange.
fn attaches(s: State) -> bool {
    s.disk == Disk::Attaching && s.conn >= Conn::Connected
}

fn exchanges_bitmaps(s: State) -> bool {
    matches!(s.conn, Conn::WFBitMapS | Conn::WFBitMapT)
}

/// Whether both nodes are about to exchange bitmaps, or do, of a size that each works out from what
/// the other one was last told of the disks. What a backing device has become meanwhile is none of
/// that. A disk that attaches has told its size, and while the peer decides on that, older words of
/// it may come: those of a `resize`, which have nothing to do with the attach.
pub(super) fn told_size_counts(s: State) -> bool {
    s.disk == Disk::Negotiating || exchanges_bitmaps(s)
}

impl<S: Store> Resource<S> {
    /// Whether the owner has to measure the lower devices of a volume
    /// ([`Resource::disk_measured`]) before it hands in this packet: the peer's sizes are compared
    /// with what the own devices have by then. In the first exchange, and if a peer attaches its
    /// disk, that is what the peer was told before, and must not change any more: it works the same
    /// size out from that, and then bitmaps are exchanged, in which nothing must change either.
    /// Nor must it while the own disk attaches. (The C driver measures.)
    pub fn wants_measures(&self, header: &Header, packet: &Packet) -> Option<VolIx> {
        let vol = self.vol_by_vnr(Vnr(header.volume.0))?;
        self.disk(vol).filter(|_| tells_sizes(packet))?;
        let s = self.state(vol);
        let settled = s.conn > Conn::WFReportParams && s.pdsk >= Disk::Inconsistent;
        (settled && !told_size_counts(s)).then_some(vol)
    }

    pub(super) fn recv_sizes(
        &mut self,
        vol: VolIx,
        p: Sizes,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(v) = self.vol(vol) else {
            return Ok(());
        };
        // The device covers at most 2^51 sectors: more is nonsense.
        let most = crate::limits::MAX_SECTORS_FLEX.0;
        if [p.d_size, p.u_size, p.c_size].iter().any(|s| *s > most) {
            return Err(Violation::Range);
        }
        if v.ctl.resize.is_some() || attaches(v.state) || self.asks_for_role(vol) {
            self.park_sizes(vol, p);
            return Ok(());
        }
        let Some(v) = self.vol_mut(vol) else {
            return Ok(());
        };
        for peer in v.peers.iter_mut() {
            peer.ctl.size = Sectors(p.d_size);
        }
        let attached = v.state.disk >= Disk::Negotiating && v.backing.is_some();
        if attached && self.crosses_bitmaps(vol, &p) {
            self.connect_anew(h);
            return Ok(());
        }
        if attached && !self.accept_with_disk(vol, &p, h) {
            self.refuse_peer(PEER, h);
            return Ok(());
        }
        self.peer_has_limits(vol, &p, h);
        let disk_changed = self.disk_mut(vol).is_some_and(|d| {
            let now = d.devices.backing;
            core::mem::replace(&mut d.known, now) != now
        });
        let rest = SizesRest {
            c_size: Sectors(p.c_size),
            dds_flags: p.dds_flags,
            disk_changed: attached && disk_changed,
            peer: self.state(vol).peer,
        };
        if !attached {
            return self.accept_diskless(vol, &p, rest, h);
        }
        self.note_rest(vol, Some(rest));
        let plan = Plan {
            forced: p.dds_flags & dds_flag::FORCED != 0,
            no_resync: p.dds_flags & dds_flag::NO_RESYNC != 0,
            in_place: self.state(vol).conn <= Conn::WFReportParams,
            ..Plan::default()
        };
        let then = After::Control(Next::SizesSettled { vol });
        match self.determine_dev_size(vol, plan, then, h) {
            Determined::Unchanged => self.sizes_settled(vol, h),
            Determined::Waits => {}
            Determined::Failed(Unsized::Bitmap) => {
                // Nothing follows: what waits for the size would wait for ever.
                self.note_rest(vol, None);
                self.refuse_peer(PEER, h);
            }
            // The device stays as it is, and the peer is told so.
            Determined::Failed(Unsized::NoFit | Unsized::Shrink) => self.sizes_settled(vol, h),
        }
        Ok(())
    }

    fn note_rest(&mut self, vol: VolIx, rest: Option<SizesRest>) {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.sizes_rest = rest;
        }
    }

    /// Takes the limits of the peer's block device over.
    fn peer_has_limits(&mut self, vol: VolIx, p: &Sizes, h: &mut impl Host) {
        if let Some(v) = self.vol_mut(vol) {
            let max_bio = p.max_bio_size.max(crate::limits::MAX_BIO_SIZE_SAFE);
            for peer in v.peers.iter_mut() {
                peer.ctl.max_bio = max_bio;
                peer.ctl.limits = p.limits;
            }
            // Stored with whatever the metadata is written for next.
            if let Some(b) = v.backing.as_mut() {
                b.disk.la_peer_max_bio = max_bio;
            }
        }
        self.reconsider_limits(vol, h);
    }

    /// Whether the device would have another size in the middle of an exchange of bitmaps, because
    /// a backing device has grown since the nodes told each other their sizes: bitmaps of two sizes
    /// do not fit, and both nodes would wait for ever, as two C nodes do. They connect anew.
    fn crosses_bitmaps(&self, vol: VolIx, p: &Sizes) -> bool {
        let Some(d) = self.disk(vol) else {
            return false;
        };
        let (size, _) = self.new_dev_size(vol, Sectors(p.u_size));
        exchanges_bitmaps(self.state(vol)) && d.la_size != size
    }

    /// Keeps sizes that came during a change of size, or an attach; with those that were kept
    /// before, one answer is enough, if one was asked for.
    fn park_sizes(&mut self, vol: VolIx, p: Sizes) {
        let Some(v) = self.vol_mut(vol) else { return };
        let both = |old: Sizes| Sizes {
            c_size: if old.c_size == 0 { 0 } else { p.c_size },
            dds_flags: p.dds_flags & (old.dds_flags | !dds_flag::NO_RESYNC)
                | old.dds_flags & dds_flag::FORCED,
            ..p
        };
        v.ctl.sizes_parked = Some(v.ctl.sizes_parked.map_or(p, both));
    }

    /// Looks at sizes that came during a change of size, or an attach. True: there were some.
    pub(super) fn sizes_pump(&mut self, h: &mut impl Host) -> bool {
        for ix in 0..self.volume_slots() {
            let vol = VolIx(ix);
            let settled = |v: &&mut Volume<S>| v.ctl.resize.is_none() && !attaches(v.state);
            if self.asks_for_role(vol) {
                continue;
            }
            let Some(v) = self.vol_mut(vol).filter(settled) else {
                continue;
            };
            let connected = v.state.conn >= Conn::Connected;
            let Some(p) = v.ctl.sizes_parked.take().filter(|_| connected) else {
                continue;
            };
            if let Err(why) = self.recv_sizes(vol, p, h) {
                self.protocol_error(PEER, Command::Sizes, why, h);
            }
            return true;
        }
        false
    }

    /// Whether the own data fit the size that the peer's disk allows.
    fn accept_with_disk(&mut self, vol: VolIx, p: &Sizes, h: &mut impl Host) -> bool {
        let Some(v) = self.vol(vol) else { return false };
        let Some(b) = v.backing.as_ref() else {
            return false;
        };
        let (state, device) = (v.state, v.size);
        let own_max = b.disk.max_size();
        let own_u = Sectors(b.disk.conf.disk_size);
        self.note_difference(vol, own_max, Sectors(p.d_size), false, h);
        self.note_difference(vol, own_u, Sectors(p.u_size), true, h);
        let u = match (own_u.0, p.u_size) {
            (own, peer) if state.conn != Conn::WFReportParams || own == 0 => peer,
            (own, 0) => own,
            (own, peer) => own.min(peer),
        };
        let u = Sectors(u);
        let (now, _) = self.new_dev_size(vol, u);
        let joining = state.conn < Conn::Connected || state.pdsk == Disk::Diskless;
        if now < device && state.disk >= Disk::Outdated && joining {
            self.log(vol, Note::PeerDiskTooSmall { now, device }, h);
            return false;
        }
        if u != own_u {
            if let Some(d) = self.disk_mut(vol) {
                d.conf.disk_size = u.0;
            }
            let note = Note::PeerSetsSize { old: own_u, new: u };
            self.log(vol, note, h);
        }
        true
    }

    fn note_difference(
        &mut self,
        vol: VolIx,
        own: Sectors,
        peer: Sectors,
        configured: bool,
        h: &mut impl Host,
    ) {
        let d = own.0.abs_diff(peer.0);
        if own.0 != 0 && peer.0 != 0 && (d > own.0 >> 3 || d > peer.0 >> 3) {
            let note = Note::SizesDiffer {
                own,
                peer,
                configured,
            };
            self.log(vol, note, h);
        }
    }

    /// Without a disk the size in use at the peer counts, not that of its disk.
    fn accept_diskless(
        &mut self,
        vol: VolIx,
        p: &Sizes,
        rest: SizesRest,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let candidate = [p.c_size, p.u_size, p.d_size].into_iter().find(|s| *s != 0);
        let Some(v) = self.vol_mut(vol) else {
            return Ok(());
        };
        let (device, primary) = (v.size, v.state.role == Role::Primary);
        match candidate.map(Sectors) {
            None => {}
            Some(peer) if peer == device => {}
            // A resize: the size of a disk is not yet that of the device, which the peer tells next
            // if it has changed. The C driver takes the first for the second.
            Some(_) if p.c_size == 0 && device.0 != 0 => {}
            Some(peer) if device.0 != 0 && p.d_size == 0 => {
                self.log(vol, Note::IgnoredPeerSize { peer, device }, h);
            }
            Some(peer) if peer < device && primary => {
                self.log(vol, Note::PeerDeviceTooSmall { peer, device }, h);
                self.refuse_peer(PEER, h);
                return Ok(());
            }
            Some(peer) => self.set_capacity(vol, peer, h),
        }
        self.note_rest(vol, Some(rest));
        self.sizes_settled(vol, h);
        Ok(())
    }

    /// The device has its size, or its disk was lost on the way: answer, and synchronise what is
    /// new.
    pub(super) fn sizes_settled(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        let Some(rest) = v.ctl.sizes_rest.take() else {
            return;
        };
        v.ctl.sizes_due = false;
        let grew = core::mem::take(&mut v.ctl.grew);
        if v.state.conn <= Conn::WFReportParams {
            return;
        }
        let connected = v.state.conn == Conn::Connected;
        let pending = core::mem::take(&mut v.ctl.resize_pending);
        if rest.c_size != v.size || rest.disk_changed {
            self.send_sizes(vol, rest.dds_flags, h);
        }
        if pending || (grew && connected) {
            if !self.both_disks(vol) {
                if let Some(v) = self.vol_mut(vol) {
                    v.ctl.resync_after_neg = true;
                }
            } else if rest.dds_flags & dds_flag::NO_RESYNC != 0 {
                self.log(vol, Note::GrowWithoutResync, h);
            } else {
                let own = self.vol(vol).map_or(Role::Secondary, |v| v.ctl.sized_role);
                self.resync_after_grow(vol, [own, rest.peer], h);
            }
        }
    }

    /// Synchronises the part of the device that is new; the Primary is the source, or the node
    /// that resolves conflicts. That is for two good disks: a bad one must not be the source, and
    /// lacks blocks that only the bitmap of the good one knows. Then a handshake decides, and
    /// bitmaps are exchanged. The C driver does not ask.
    ///
    /// The roles, of this node and of the other one, are those that they had told each other when
    /// they told their sizes, or both may take themselves for the target, and wait for ever, or for
    /// the source.
    pub(super) fn resync_after_grow(&mut self, vol: VolIx, roles: [Role; 2], h: &mut impl Host) {
        let s = self.state(vol);
        let good = [s.disk, s.pdsk].map(|d| d == Disk::UpToDate);
        if good != [true; 2] {
            if good != [false; 2] {
                self.connect_anew(h);
            }
            return;
        }
        let arbiter = self.agreed(PEER).is_some_and(|a| a.arbiter);
        let source = match roles.map(|role| role == Role::Primary) {
            [true, false] => true,
            [false, true] => false,
            [true, true] | [false, false] => arbiter,
        };
        if source {
            self.start_resync(vol, Side::Source, h);
        } else {
            let change = StateChange::NONE.conn(Conn::WFSyncUUID);
            self.change_state(vol, change, Flags::VERBOSE, h);
            let now = self.state(vol);
            if now.conn == Conn::WFSyncUUID {
                // A peer that takes itself for the target, too, or knows of nothing, would let
                // this node wait for ever (`at_odds.rs`). The C driver does not tell.
                self.send_state(vol, now, h);
            }
        }
    }

    /// Works the limits of the block device out anew (algorithms.md §11).
    pub(in super::super) fn reconsider_limits(&mut self, vol: VolIx, h: &mut impl Host) {
        let max = self.max_bio(vol);
        let Some(v) = self.vol_mut(vol) else { return };
        if v.ctl.max_bio != max {
            v.ctl.max_bio = max;
            self.log(vol, Note::MaxBio(max), h);
        }
        h.emit(Effect::UpdateLimits { vol });
    }
}
