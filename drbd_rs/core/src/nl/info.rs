// SPDX-License-Identifier: GPL-2.0

//! Groups that inform: what replies, dumps and events carry.

use super::schema::group;
use super::value::Value;
use super::{Bin, Str};

group! {
    /// A line for people. A reply may have many: see [`CfgReply::put_lines`].
    CfgReply = 1 "cfg_reply" {
        /// The text.
        1 info_text: Str<256> = 0 [];
    }
}

group! {
    /// A volume, as `drbdsetup status` of 8.4 and the old events see it.
    StateInfo = 8 "state_info" {
        /// Why: see [`sib`].
        1 sib_reason: u32 = 0 [];
        /// State word.
        2 current_state: u32 = 0 [REQUIRED];
        /// Size in sectors.
        3 capacity: u64 = 0 [];
        /// UUID of the exposed data.
        4 ed_uuid: u64 = 0 [];
        /// State before; with [`sib::STATE_CHANGE`].
        5 prev_state: Option<u32> = 0 [];
        /// State after.
        6 new_state: Option<u32> = 0 [];
        /// Four UUIDs; this and the next three with a disk.
        7 uuids: Option<Bin<32>> = 0 [];
        /// Flags of the metadata.
        8 disk_flags: Option<u32> = 0 [];
        /// Bits in the bitmap.
        9 bits_total: Option<u64> = 0 [];
        /// Bits out of sync.
        10 bits_oos: Option<u64> = 0 [];
        /// Bits to resync; during a resync.
        11 bits_rs_total: Option<u64> = 0 [];
        /// Bits that failed; during a resync.
        12 bits_rs_failed: Option<u64> = 0 [];
        /// Helper; with [`sib::HELPER_PRE`] and [`sib::HELPER_POST`].
        13 helper: Option<Str<32>> = 0 [];
        /// What it returned; with [`sib::HELPER_POST`].
        14 helper_exit_code: Option<u32> = 0 [];
        /// Sectors sent.
        15 send_cnt: Option<u64> = 0 [];
        /// Sectors received.
        16 recv_cnt: Option<u64> = 0 [];
        /// Sectors read.
        17 read_cnt: Option<u64> = 0 [];
        /// Sectors written.
        18 writ_cnt: Option<u64> = 0 [];
        /// Activity log updates.
        19 al_writ_cnt: Option<u64> = 0 [];
        /// Bitmap updates.
        20 bm_writ_cnt: Option<u64> = 0 [];
        /// Application requests.
        21 ap_bio_cnt: Option<u32> = 0 [];
        /// Of these, unanswered by the peer.
        22 ap_pending_cnt: Option<u32> = 0 [];
        /// Resync requests unanswered by the peer.
        23 rs_pending_cnt: Option<u32> = 0 [];
    }
}

group! {
    /// Which timeout applies to waiting for the peer.
    TimeoutParms = 11 "timeout_parms" {
        /// 0 default, 1 degraded, 2 the peer is outdated.
        1 timeout_type: u32 = 0 [REQUIRED];
    }
}

group! {
    /// A resource.
    ResourceInfo = 15 "resource_info" {
        /// Role.
        1 res_role: u32 = 0 [];
        /// Suspended by the user.
        2 res_susp: bool = 0 [];
        /// Suspended for want of data.
        3 res_susp_nod: bool = 0 [];
        /// Suspended until the peer is fenced.
        4 res_susp_fen: bool = 0 [];
    }
}

group! {
    /// A device.
    DeviceInfo = 16 "device_info" {
        /// State of the disk.
        1 dev_disk_state: u32 = 0 [];
    }
}

group! {
    /// A connection.
    ConnectionInfo = 17 "connection_info" {
        /// State of the connection.
        1 conn_connection_state: u32 = 0 [];
        /// Role of the peer.
        2 conn_role: u32 = 0 [];
    }
}

group! {
    /// A device on the peer.
    PeerDeviceInfo = 18 "peer_device_info" {
        /// State of replication.
        1 peer_repl_state: u32 = 0 [];
        /// State of the disk.
        2 peer_disk_state: u32 = 0 [];
        /// Resync paused by the user.
        3 peer_resync_susp_user: u32 = 0 [];
        /// Resync paused by the peer.
        4 peer_resync_susp_peer: u32 = 0 [];
        /// Resync waits for another.
        5 peer_resync_susp_dependency: u32 = 0 [];
    }
}

group! {
    /// Counters of a resource.
    ResourceStatistics = 19 "resource_statistics" {
        /// 0 none, 1 drain, 2 flush.
        1 res_stat_write_ordering: u32 = 0 [];
    }
}

group! {
    /// Counters of a device.
    DeviceStatistics = 20 "device_statistics" {
        /// Sectors.
        1 dev_size: u64 = 0 [];
        /// Sectors.
        2 dev_read: u64 = 0 [];
        /// Sectors.
        3 dev_write: u64 = 0 [];
        /// Activity log updates.
        4 dev_al_writes: u64 = 0 [];
        /// Bitmap updates.
        5 dev_bm_writes: u64 = 0 [];
        /// Application requests.
        6 dev_upper_pending: u32 = 0 [];
        /// Requests to the disk.
        7 dev_lower_pending: u32 = 0 [];
        /// Application I/O is blocked.
        8 dev_upper_blocked: bool = 0 [];
        /// The disk is congested.
        9 dev_lower_blocked: bool = 0 [];
        /// The activity log is not kept.
        10 dev_al_suspended: bool = 0 [];
        /// UUID of the exposed data.
        11 dev_exposed_data_uuid: u64 = 0 [];
        /// Current UUID.
        12 dev_current_uuid: u64 = 0 [];
        /// Flags of the metadata.
        13 dev_disk_flags: u32 = 0 [];
        /// Four UUIDs: the C driver has room for 32 and sends 32 bytes.
        14 history_uuids: Bin<32> = 0 [];
    }
}

group! {
    /// Counters of a connection.
    ConnectionStatistics = 21 "connection_statistics" {
        /// The send buffer is full.
        1 conn_congested: bool = 0 [];
    }
}

group! {
    /// Counters of a device on the peer.
    PeerDeviceStatistics = 22 "peer_device_statistics" {
        /// Sectors.
        1 peer_dev_received: u64 = 0 [];
        /// Sectors.
        2 peer_dev_sent: u64 = 0 [];
        /// Requests unanswered by the peer.
        3 peer_dev_pending: u32 = 0 [];
        /// Requests of the peer, unanswered.
        4 peer_dev_unacked: u32 = 0 [];
        /// Sectors.
        5 peer_dev_out_of_sync: u64 = 0 [];
        /// Sectors.
        6 peer_dev_resync_failed: u64 = 0 [];
        /// Bitmap UUID.
        7 peer_dev_bitmap_uuid: u64 = 0 [];
        /// 1 connected, 2 outdated, 4 fencing, 8 full sync.
        9 peer_dev_flags: u32 = 0 [];
    }
}

group! {
    /// What kind of event; see [`notify`].
    NotificationHeader = 23 "notification_header" {
        /// The kind, and perhaps [`notify::CONTINUES`].
        1 nh_type: u32 = 0 [];
    }
}

group! {
    /// A call of the helper.
    Helper = 24 "helper" {
        /// What for.
        1 helper_name: Str<32> = 0 [];
        /// What it returned; all ones before it did.
        2 helper_status: u32 = 0 [];
    }
}

/// Values of [`StateInfo::sib_reason`].
pub mod sib {
    /// The state changed.
    pub const STATE_CHANGE: u32 = 1;
    /// A helper is about to be called.
    pub const HELPER_PRE: u32 = 2;
    /// A helper has returned.
    pub const HELPER_POST: u32 = 3;
    /// A resync goes on.
    pub const SYNC_PROGRESS: u32 = 4;
    /// The answer to a request.
    pub const GET_STATUS_REPLY: u32 = 5;
}

/// Values of [`NotificationHeader::nh_type`].
pub mod notify {
    /// It is there.
    pub const EXISTS: u32 = 0;
    /// It is new.
    pub const CREATE: u32 = 1;
    /// It changed.
    pub const CHANGE: u32 = 2;
    /// It is gone.
    pub const DESTROY: u32 = 3;
    /// A helper is called.
    pub const CALL: u32 = 4;
    /// A helper returned.
    pub const RESPONSE: u32 = 5;
    /// More of the same change follows.
    pub const CONTINUES: u32 = 0x8000;
}

impl CfgReply {
    /// Appends one group with all `lines`; nothing where there are none.
    pub fn put_lines(w: &mut super::Writer<'_>, lines: &[&str]) {
        if lines.is_empty() {
            return;
        }
        let nest = w.nest(Self::GROUP.nr);
        for line in lines {
            w.put_str(1, line.as_bytes());
        }
        w.end(nest);
    }
}
