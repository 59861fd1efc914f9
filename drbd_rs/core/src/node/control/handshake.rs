// SPDX-License-Identifier: GPL-2.0

//! Packets about settings, sizes, UUIDs and states: what is sent, and the settings received.
//!
//! Sizes, UUIDs and states that arrive have files of their own.

use crate::state::conn::State as Conn;
use crate::state::disk::State as Disk;
use crate::state::State;
use crate::uuid::AfterSb;
use crate::wire::handshake::conn_flag;
use crate::wire::{Name64, Packet, Protocol, RsUuid, Sizes, SyncParam, Uuids};

use super::super::io::{Effect, Host, Payload, PeerIx, SendToken, Sock, VolIx};
use super::super::note::{Note, Setting};
use super::super::{After, Resource, Store, PEER};
use super::Next;

/// What `c_size` is when the peer is to answer with its own sizes.
const ASK_FOR_SIZES: u64 = 0;

pub(super) fn name64(text: &[u8]) -> Name64 {
    // Both kinds of names have room for 63 bytes.
    Name64::new(text).unwrap_or(Name64::EMPTY)
}

impl<S: Store> Resource<S> {
    /// Queues a packet; it is dropped while there is no connection.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn send(
        &mut self,
        peer: PeerIx,
        sock: Sock,
        vnr: u16,
        packet: Packet,
        payload: Payload,
        token: SendToken,
        h: &mut impl Host,
    ) {
        if self.agreed(peer).is_some() {
            h.emit(Effect::Send {
                peer,
                sock,
                vnr,
                packet,
                payload,
                token,
            });
        }
    }

    /// Queues a packet without payload that nobody waits for.
    pub(crate) fn send_plain(
        &mut self,
        peer: PeerIx,
        sock: Sock,
        vnr: u16,
        packet: Packet,
        h: &mut impl Host,
    ) {
        self.send(peer, sock, vnr, packet, Payload::None, SendToken(0), h);
    }

    /// Queues a packet of a volume on the data socket.
    fn send_of_volume(&mut self, vol: VolIx, packet: Packet, h: &mut impl Host) {
        let vnr = self.vnr(vol);
        self.send_plain(PEER, Sock::Data, vnr, packet, h);
    }

    pub(super) fn send_protocol(&mut self, peer: PeerIx, update: bool, h: &mut impl Host) {
        let Some(c) = self.conn(peer) else { return };
        let Some(n) = c.ctl.conf.as_ref() else { return };
        let mut conn_flags = 0;
        if n.discard_my_data {
            conn_flags |= conn_flag::DISCARD_MY_DATA;
        }
        if n.tentative {
            conn_flags |= conn_flag::DRY_RUN;
        }
        let p = Protocol {
            protocol: n.wire_protocol,
            after_sb_0p: n.after_sb_0p,
            after_sb_1p: n.after_sb_1p,
            after_sb_2p: n.after_sb_2p,
            conn_flags,
            two_primaries: u32::from(n.two_primaries),
            integrity_alg: name64(n.integrity_alg.as_bytes()),
        };
        let packet = if update {
            Packet::ProtocolUpdate(p)
        } else {
            Packet::Protocol(p)
        };
        self.send_plain(peer, Sock::Data, 0, packet, h);
    }

    pub(super) fn send_sync_param(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(c) = self.conn(PEER) else { return };
        let Some(n) = c.ctl.conf.as_ref() else { return };
        let (verify_alg, csums_alg) = (
            name64(n.verify_alg.as_bytes()),
            name64(n.csums_alg.as_bytes()),
        );
        let defaults = crate::nl::conf::DiskConf::default();
        let d = self.disk(vol).map_or(&defaults, |d| &d.conf);
        let p = SyncParam {
            resync_rate: d.resync_rate,
            verify_alg,
            csums_alg,
            c_plan_ahead: d.c_plan_ahead,
            c_delay_target: d.c_delay_target,
            c_fill_target: d.c_fill_target,
            c_max_rate: d.c_max_rate,
        };
        self.send_of_volume(vol, Packet::SyncParam(p), h);
    }

    /// Sends the sizes; `dds_flags` as [`crate::wire::state::dds_flag`].
    pub(super) fn send_sizes(&mut self, vol: VolIx, dds_flags: u16, h: &mut impl Host) {
        self.send_sizes_as(vol, dds_flags, false, h);
    }

    pub(super) fn send_sizes_as(
        &mut self,
        vol: VolIx,
        dds_flags: u16,
        ask: bool,
        h: &mut impl Host,
    ) {
        let Some(agreed) = self.agreed(PEER) else {
            return;
        };
        let Some(v) = self.vol(vol) else { return };
        let limits = self.wire_limits(vol);
        let attached = v.state.disk >= Disk::Negotiating;
        let disk = v.backing.as_ref().filter(|_| attached).map(|b| &b.disk);
        let most = match agreed.apv {
            0..=94 => 32 << 10,
            95..=99 => 128 << 10,
            _ => crate::limits::MAX_BIO_SIZE,
        };
        let p = Sizes {
            d_size: disk.map_or(0, |d| d.max_size().0),
            u_size: disk.map_or(0, |d| d.conf.disk_size),
            c_size: if ask { ASK_FOR_SIZES } else { v.size.0 },
            max_bio_size: disk.map_or(most, |d| d.limits.max_bio).min(most),
            queue_order_type: 0,
            dds_flags,
            limits: Some(limits),
        };
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.sized_role = v.ctl.told_role;
        }
        self.send_of_volume(vol, Packet::Sizes(p), h);
    }

    /// Sends the UUIDs, if there is a disk to have some. `flags` are added to the usual ones.
    pub(crate) fn send_uuids(&mut self, vol: VolIx, flags: u64, h: &mut impl Host) {
        if self.state(vol).disk >= Disk::Negotiating {
            self.tell_uuids(vol, flags, h);
        }
    }

    /// As [`Resource::send_uuids`], also those of a failed disk.
    pub(super) fn tell_uuids(&mut self, vol: VolIx, flags: u64, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        if let Some(b) = v.backing.as_ref() {
            v.ctl.told_bits = b.bitmap.weight();
        }
        self.tell_uuids_as_counted(vol, flags, h);
    }

    /// The same with the bits that this node has counted last, and has gone by.
    pub(super) fn tell_uuids_as_counted(&mut self, vol: VolIx, flags: u64, h: &mut impl Host) {
        let Some(v) = self.vol(vol) else { return };
        let discard = v.peers.iter().any(|p| p.ctl.discard_my_data);
        let Some(b) = v.backing.as_ref() else { return };
        let u = b.disk.uuids;
        let mut flags = flags;
        if discard {
            flags |= crate::uuid::flags::DISCARD_MY_DATA;
        }
        if v.ctl.crashed_primary {
            flags |= crate::uuid::flags::CRASHED_PRIMARY;
        }
        if b.disk.decided.is_some_and(|d| d.0 == Disk::Inconsistent) {
            flags |= crate::uuid::flags::INCONSISTENT;
        }
        let [history0, history1] = u.history;
        let p = Uuids {
            current: u.current,
            bitmap: u.bitmap,
            history0,
            history1,
            dirty_bits: v.ctl.told_bits,
            flags,
        };
        self.send_of_volume(vol, Packet::Uuids(p), h);
    }

    /// Sends UUIDs, and `state` as that of the volume. What this node began is on its disk before
    /// that: a power failure might take it back. The C driver does not wait.
    pub(super) fn tell_stored(&mut self, vol: VolIx, state: State, h: &mut impl Host) {
        if self.md_begins(vol) {
            let waits = self
                .vol_mut(vol)
                .is_some_and(|v| core::mem::replace(&mut v.ctl.tells_again, true));
            if !waits {
                self.md_stable(vol, After::Control(Next::TellAgain { vol }), h);
            }
            return;
        }
        self.send_uuids(vol, 0, h);
        self.send_state(vol, state, h);
    }

    /// It is, or the disk is lost. Another connection has begun with other words.
    pub(super) fn tell_again(&mut self, vol: VolIx, stable: bool, h: &mut impl Host) {
        let Some(v) = self.vol_mut(vol) else { return };
        v.ctl.tells_again = false;
        let now = v.state;
        if now.conn < Conn::Connected {
            return;
        }
        if stable {
            self.tell_stored(vol, now, h);
        } else {
            self.send_state(vol, now, h);
        }
    }

    /// Sends `state` as that of the volume.
    pub(crate) fn send_state(&mut self, vol: VolIx, state: State, h: &mut impl Host) {
        if let Some(v) = self.vol_mut(vol) {
            v.ctl.told_role = state.role;
            v.ctl.role_asked = false;
            v.ctl.told_disk = state.disk;
        }
        let word = state.to_word();
        let packet = Packet::State(crate::wire::State { word });
        self.send_of_volume(vol, packet, h);
    }

    pub(crate) fn send_sync_uuid(&mut self, vol: VolIx, uuid: u64, h: &mut impl Host) {
        self.send_of_volume(vol, Packet::SyncUuid(RsUuid { uuid }), h);
    }

    /// PROTOCOL and PROTOCOL_UPDATE.
    pub(super) fn recv_protocol(
        &mut self,
        peer: PeerIx,
        p: Protocol,
        update: bool,
        h: &mut impl Host,
    ) {
        let apv = self.agreed(peer).map_or(0, |a| a.apv);
        let Some(c) = self.conn_mut(peer) else { return };
        let Some(n) = c.ctl.conf.as_mut() else { return };
        let discards = p.conn_flags & conn_flag::DISCARD_MY_DATA != 0;
        let mirrored =
            |n: u32| AfterSb::from_number(n).map_or(0, |p| number_of(p.convert_for_peer()));
        if !update {
            c.ctl.dry_run = p.conn_flags & conn_flag::DRY_RUN != 0;
            let differs = [
                (p.protocol != n.wire_protocol, Setting::Protocol),
                (mirrored(p.after_sb_0p) != n.after_sb_0p, Setting::AfterSb0),
                (mirrored(p.after_sb_1p) != n.after_sb_1p, Setting::AfterSb1),
                (mirrored(p.after_sb_2p) != n.after_sb_2p, Setting::AfterSb2),
                (discards && c.ctl.discard_my_data, Setting::DiscardMyData),
                (
                    p.two_primaries != u32::from(n.two_primaries),
                    Setting::TwoPrimaries,
                ),
                (
                    apv >= 87 && p.integrity_alg.as_bytes() != n.integrity_alg.as_bytes(),
                    Setting::Integrity,
                ),
            ];
            if let Some((_, setting)) = differs.into_iter().find(|(d, _)| *d) {
                self.log_peer(Note::Incompatible(setting), h);
                self.refuse_peer(peer, h);
                return;
            }
        }
        n.two_primaries = p.two_primaries != 0;
        n.wire_protocol = p.protocol.clamp(1, 3);
        n.after_sb_0p = mirrored(p.after_sb_0p);
        n.after_sb_1p = mirrored(p.after_sb_1p);
        n.after_sb_2p = mirrored(p.after_sb_2p);
        c.ctl.peer_integrity = p.integrity_alg;
    }

    /// SYNC_PARAM: the settings of the resync are shared.
    pub(super) fn recv_sync_param(&mut self, vol: VolIx, p: SyncParam, h: &mut impl Host) {
        let apv = self.agreed(PEER).map_or(0, |a| a.apv);
        let connecting = self.state(vol).conn == Conn::WFReportParams;
        let Some(n) = self.conn(PEER).and_then(|c| c.ctl.conf.as_ref()) else {
            return;
        };
        let own = [
            (
                "verify-alg",
                name64(n.verify_alg.as_bytes()),
                p.verify_alg,
                88,
            ),
            ("csums-alg", name64(n.csums_alg.as_bytes()), p.csums_alg, 89),
        ];
        for (which, mine, theirs, since) in own {
            if apv < since || mine == theirs {
                continue;
            }
            if connecting {
                let note = Note::AlgorithmsDiffer {
                    which,
                    own: mine,
                    peer: theirs,
                };
                self.log(vol, note, h);
                self.refuse_peer(PEER, h);
                return;
            }
            let note = Note::UsingAlgorithm {
                which,
                name: theirs,
            };
            self.log(vol, note, h);
            if let Some(n) = self.conn_mut(PEER).and_then(|c| c.ctl.conf.as_mut()) {
                let name = crate::nl::Str::new(theirs.as_bytes()).unwrap_or_default();
                if since == 88 {
                    n.verify_alg = name;
                } else {
                    n.csums_alg = name;
                }
            }
        }
        let Some(d) = self.disk_mut(vol) else { return };
        // A peer's numbers are brought into the range of the options.
        d.conf.resync_rate = p.resync_rate.clamp(1, 4_194_304);
        if apv >= 95 {
            d.conf.c_plan_ahead = p.c_plan_ahead.min(300);
            d.conf.c_delay_target = p.c_delay_target.clamp(1, 100);
            d.conf.c_fill_target = p.c_fill_target.min(1_048_576);
            d.conf.c_max_rate = p.c_max_rate.clamp(250, 4_194_304);
        }
    }
}

/// The number of a policy in the configuration.
fn number_of(policy: AfterSb) -> u32 {
    (0..=10)
        .find(|n| AfterSb::from_number(*n) == Some(policy))
        .unwrap_or(0)
}
