// SPDX-License-Identifier: GPL-2.0

//! Messages of the family: header and groups, encoded into memory of bounded size.
//!
//! What is said about an object comes from a [`VolumeView`] or a [`ConnectionView`], so that the
//! resource's lock is not held while a message is built or sent.

use drbd_core::nl::info::{
    ConnectionInfo, ConnectionStatistics, DeviceInfo, DeviceStatistics, Helper,
    NotificationHeader, PeerDeviceInfo, PeerDeviceStatistics, ResourceInfo, ResourceStatistics,
    StateInfo,
};
use drbd_core::nl::conf::CfgContext;
use drbd_core::nl::info::{notify, sib};
use drbd_core::nl::{Audience, Bin, Command, ErrCode, Header, Str, Writer, HEADER_SIZE, NO_MINOR};
use drbd_core::state::{conn, State};
use drbd_core::units::Vnr;
use kernel::prelude::*;

use super::view::{ConnectionView, ResourceView, VolumeView};
use crate::objects::connection::Setup;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;

/// Bytes of attributes in a message: more than all groups of a volume take.
const ROOM: usize = 8192;

/// An encoded message.
pub(super) struct Message {
    /// What it is.
    pub(super) cmd: Command,
    /// The family's header.
    pub(super) header: [u8; HEADER_SIZE],
    attrs: KVec<u8>,
}

impl Message {
    /// A message about `minor`, with the groups that `fill` puts.
    ///
    /// # Errors
    /// ENOMEM, or EMSGSIZE if the groups do not fit.
    pub(super) fn new(
        cmd: Command,
        minor: u32,
        code: i32,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Message> {
        let mut attrs = KVec::from_elem(0u8, ROOM, GFP_KERNEL)?;
        let mut w = Writer::new(&mut attrs);
        fill(&mut w);
        let len = w.finish().ok_or(EMSGSIZE)?;
        attrs.truncate(len);
        Ok(Message { cmd, header: Header::reply(minor, code).encode(), attrs })
    }

    /// A message without an error.
    pub(super) fn about(
        cmd: Command,
        minor: u32,
        fill: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Message> {
        Message::new(cmd, minor, ErrCode::NoError.number(), fill)
    }

    /// The attributes.
    pub(super) fn attrs(&self) -> &[u8] {
        &self.attrs
    }
}

/// Why a volume's status is told, and what belongs to that.
#[derive(Clone, Copy)]
pub(super) enum Sib<'a> {
    /// Somebody asked.
    Reply,
    /// The state changed.
    Change {
        /// Before.
        old: State,
        /// After.
        new: State,
    },
    /// A resync goes on.
    Progress,
    /// A helper is about to be called.
    HelperPre(&'a str),
    /// A helper has returned.
    HelperPost(&'a str, u8),
}

/// Puts CFG_CONTEXT.
pub(super) fn put_context(
    w: &mut Writer<'_>,
    resource: &Resource,
    connection: Option<&Setup>,
    volume: Option<Vnr>,
) {
    let context = CfgContext {
        ctx_volume: volume.map(|v| u32::from(v.0)),
        ctx_resource_name: Str::new(resource.label().as_bytes()),
        ctx_my_addr: connection.and_then(|c| Bin::new(c.my.as_bytes())),
        ctx_peer_addr: connection.and_then(|c| Bin::new(c.peer.as_bytes())),
    };
    context.put(w, Audience::Everybody);
}

fn put_kind(w: &mut Writer<'_>, nh_type: u32) {
    NotificationHeader { nh_type }.put(w, Audience::Everybody);
}

/// Whether the `*_INFO` group belongs into a notification: not when the object is gone.
const fn tells_info(nh_type: u32) -> bool {
    nh_type & !notify::CONTINUES != notify::DESTROY
}

/// The name of a helper; cut off where it is too long.
fn helper_name(name: &str) -> Str<32> {
    Str::new(name.as_bytes().get(..31).unwrap_or(name.as_bytes())).unwrap_or(Str::EMPTY)
}

/// Puts everything about a volume, as GET_STATUS and the old events have it.
pub(super) fn put_status(
    w: &mut Writer<'_>,
    entry: &MinorEntry,
    view: &VolumeView,
    who: Audience,
    why: Sib<'_>,
) {
    let setup = view.setup.as_deref();
    put_context(w, &entry.resource, setup, Some(entry.vnr));
    view.opts.put(w, who);
    if let Some(disk) = &view.disk {
        disk.conf.put(w, who);
    }
    if let Some(setup) = setup {
        setup.conf.put(w, who);
    }
    state_info(view, why).put(w, who);
}

fn state_info(view: &VolumeView, why: Sib<'_>) -> StateInfo {
    let state = view.state;
    let resyncing = state.conn >= conn::State::SyncSource && state.conn <= conn::State::PausedSyncT;
    let disk = view.disk.as_ref();
    let resync = disk.filter(|_| resyncing);
    let mut info = StateInfo {
        current_state: state.to_word(),
        capacity: view.capacity,
        ed_uuid: view.ed_uuid,
        uuids: disk.and_then(|d| Bin::new(&d.uuid_bytes())),
        disk_flags: disk.map(|d| d.flags),
        bits_total: disk.map(|d| d.bits_total),
        bits_oos: disk.map(|_| view.bits_oos),
        bits_rs_total: resync.map(|_| view.rs_total),
        bits_rs_failed: resync.map(|_| view.rs_failed),
        send_cnt: Some(view.sent),
        recv_cnt: Some(view.received),
        read_cnt: Some(view.read),
        writ_cnt: Some(view.written),
        al_writ_cnt: Some(view.al_writes),
        bm_writ_cnt: Some(view.bm_writes),
        ap_bio_cnt: Some(view.app_bios),
        ap_pending_cnt: Some(view.app_pending),
        rs_pending_cnt: Some(view.resync_pending),
        ..StateInfo::default()
    };
    match why {
        Sib::Reply => info.sib_reason = sib::GET_STATUS_REPLY,
        Sib::Progress => info.sib_reason = sib::SYNC_PROGRESS,
        Sib::Change { old, new } => {
            info.sib_reason = sib::STATE_CHANGE;
            info.prev_state = Some(old.to_word());
            info.new_state = Some(new.to_word());
        }
        Sib::HelperPre(name) => {
            info.sib_reason = sib::HELPER_PRE;
            info.helper = Some(helper_name(name));
        }
        Sib::HelperPost(name, code) => {
            info.sib_reason = sib::HELPER_POST;
            info.helper = Some(helper_name(name));
            info.helper_exit_code = Some(u32::from(code));
        }
    }
    info
}

/// Puts RESOURCE_INFO.
pub(super) fn put_resource_info(w: &mut Writer<'_>, info: &ResourceInfo) {
    info.put(w, Audience::Everybody);
}

/// Puts RESOURCE_STATISTICS.
pub(super) fn put_resource_statistics(w: &mut Writer<'_>, view: &ResourceView) {
    let statistics = ResourceStatistics { res_stat_write_ordering: view.write_ordering };
    statistics.put(w, Audience::Everybody);
}

/// Puts DEVICE_STATISTICS.
pub(super) fn put_device_statistics(w: &mut Writer<'_>, view: &VolumeView) {
    let disk = view.disk.as_ref();
    let statistics = DeviceStatistics {
        dev_size: view.capacity,
        dev_read: view.read,
        dev_write: view.written,
        dev_al_writes: view.al_writes,
        dev_bm_writes: view.bm_writes,
        dev_upper_pending: view.app_bios,
        dev_lower_pending: view.local_refs,
        dev_upper_blocked: view.app_blocked,
        dev_lower_blocked: false,
        dev_al_suspended: view.al_suspended,
        dev_exposed_data_uuid: view.ed_uuid,
        dev_current_uuid: disk.map_or(0, |d| d.uuids.current),
        dev_disk_flags: disk.map_or(0, |d| d.flags),
        history_uuids: disk.and_then(|d| Bin::new(&d.history_bytes())).unwrap_or(Bin::EMPTY),
    };
    statistics.put(w, Audience::Everybody);
}

/// Puts CONNECTION_STATISTICS.
pub(super) fn put_connection_statistics(w: &mut Writer<'_>, view: Option<&ConnectionView>) {
    let conn_congested = view.is_some_and(|v| v.congested);
    ConnectionStatistics { conn_congested }.put(w, Audience::Everybody);
}

/// Puts PEER_DEVICE_STATISTICS.
pub(super) fn put_peer_device_statistics(w: &mut Writer<'_>, view: &VolumeView) {
    let disk = view.disk.as_ref();
    let statistics = PeerDeviceStatistics {
        peer_dev_received: view.received,
        peer_dev_sent: view.sent,
        peer_dev_pending: view.app_pending.saturating_add(view.resync_pending),
        peer_dev_unacked: view.unacked,
        peer_dev_out_of_sync: view.bits_oos.saturating_mul(8),
        peer_dev_resync_failed: view.rs_failed.saturating_mul(8),
        peer_dev_bitmap_uuid: disk.map_or(0, |d| d.uuids.bitmap),
        peer_dev_flags: disk.map_or(0, |d| d.peer_flags()),
    };
    statistics.put(w, Audience::Everybody);
}

/// The info group of a volume's device.
pub(super) fn device_info(state: State) -> DeviceInfo {
    DeviceInfo { dev_disk_state: u32::from(state.disk.number()) }
}

/// The info group of a volume at the peer. Before the volumes take part in a connection, the C
/// driver shows them as WFReportParams.
pub(super) fn peer_device_info(state: State) -> PeerDeviceInfo {
    PeerDeviceInfo {
        peer_repl_state: u32::from(state.conn.max(conn::State::WFReportParams).number()),
        peer_disk_state: u32::from(state.pdsk.number()),
        peer_resync_susp_user: u32::from(state.user_isp),
        peer_resync_susp_peer: u32::from(state.peer_isp),
        peer_resync_susp_dependency: u32::from(state.aftr_isp),
    }
}

/// RESOURCE_STATE.
pub(super) fn resource_state(
    resource: &Resource,
    info: &ResourceInfo,
    view: &ResourceView,
    nh_type: u32,
) -> Result<Message> {
    Message::about(Command::ResourceState, NO_MINOR, |w| {
        put_context(w, resource, None, None);
        put_kind(w, nh_type);
        if tells_info(nh_type) {
            put_resource_info(w, info);
        }
        put_resource_statistics(w, view);
    })
}

/// DEVICE_STATE.
pub(super) fn device_state(
    entry: &MinorEntry,
    info: &DeviceInfo,
    view: &VolumeView,
    nh_type: u32,
) -> Result<Message> {
    Message::about(Command::DeviceState, entry.minor.0, |w| {
        put_context(w, &entry.resource, None, Some(entry.vnr));
        put_kind(w, nh_type);
        if tells_info(nh_type) {
            info.put(w, Audience::Everybody);
        }
        put_device_statistics(w, view);
    })
}

/// CONNECTION_STATE. `view`: `None` for one that is not configured.
pub(super) fn connection_state(
    resource: &Resource,
    info: &ConnectionInfo,
    view: Option<&ConnectionView>,
    nh_type: u32,
) -> Result<Message> {
    Message::about(Command::ConnectionState, NO_MINOR, |w| {
        put_context(w, resource, view.map(|v| &*v.setup), None);
        put_kind(w, nh_type);
        if tells_info(nh_type) {
            info.put(w, Audience::Everybody);
        }
        put_connection_statistics(w, view);
    })
}

/// PEER_DEVICE_STATE.
pub(super) fn peer_device_state(
    entry: &MinorEntry,
    info: &PeerDeviceInfo,
    view: &VolumeView,
    nh_type: u32,
) -> Result<Message> {
    Message::about(Command::PeerDeviceState, NO_MINOR, |w| {
        put_context(w, &entry.resource, view.setup.as_deref(), Some(entry.vnr));
        put_kind(w, nh_type);
        if tells_info(nh_type) {
            info.put(w, Audience::Everybody);
        }
        put_peer_device_statistics(w, view);
    })
}

/// HELPER. `status`: `None` before it returned, which the C driver shows as 0.
pub(super) fn helper(
    resource: &Resource,
    connection: Option<&Setup>,
    entry: Option<&MinorEntry>,
    name: &str,
    status: Option<u8>,
) -> Result<Message> {
    let nh_type = if status.is_none() { notify::CALL } else { notify::RESPONSE };
    let group = Helper {
        helper_name: helper_name(name),
        helper_status: status.map_or(0, u32::from),
    };
    Message::about(Command::Helper, entry.map_or(NO_MINOR, |e| e.minor.0), |w| {
        put_context(w, resource, connection, entry.map(|e| e.vnr));
        put_kind(w, nh_type);
        group.put(w, Audience::Everybody);
    })
}

/// INITIAL_STATE_DONE.
pub(super) fn initial_state_done() -> Result<Message> {
    Message::about(Command::InitialStateDone, NO_MINOR, |w| put_kind(w, notify::EXISTS))
}
