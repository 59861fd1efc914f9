// SPDX-License-Identifier: GPL-2.0

//! The state of one volume, a request to change it, and the facts that the rules look at.
//!
//! All of it is plain data. A [`State`] may well break a rule: only what
//! [`evaluate`](super::transition::evaluate) lets through may become the state of a device.

use super::{conn, disk, role::Role};

/// The state of one volume as seen from this node.
///
/// `susp`, `susp_nod` and `susp_fen` belong to the resource and are the same in all its volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Role of this node.
    pub role: Role,
    /// Role of the peer.
    pub peer: Role,
    /// The connection and its replication of this volume.
    pub conn: conn::State,
    /// The own copy.
    pub disk: disk::State,
    /// The peer's copy.
    pub pdsk: disk::State,
    /// Application I/O suspended by `suspend-io`.
    pub susp: bool,
    /// Resync paused because the volume named in `resync-after` is busy.
    pub aftr_isp: bool,
    /// Resync paused by the peer.
    pub peer_isp: bool,
    /// Resync paused by `pause-sync`.
    pub user_isp: bool,
    /// Application I/O suspended because no good data can be reached.
    pub susp_nod: bool,
    /// Application I/O suspended until the peer is fenced.
    pub susp_fen: bool,
}

impl State {
    /// The state of a device just created.
    pub const INITIAL: State = State {
        role: Role::Secondary,
        peer: Role::Unknown,
        conn: conn::State::StandAlone,
        disk: disk::State::Diskless,
        pdsk: disk::State::DUnknown,
        susp: false,
        aftr_isp: false,
        peer_isp: false,
        user_isp: false,
        susp_nod: false,
        susp_fen: false,
    };

    /// Whether application I/O is held back for any reason.
    pub const fn is_suspended(self) -> bool {
        self.susp || self.susp_nod || self.susp_fen
    }

    /// Whether there is a reason to hold application I/O back that there was not before.
    pub(crate) const fn suspends_anew(self, old: State) -> bool {
        self.susp && !old.susp || self.susp_nod && !old.susp_nod || self.susp_fen && !old.susp_fen
    }

    /// Whether a resync has to pause for any reason.
    pub const fn has_isp(self) -> bool {
        self.aftr_isp || self.peer_isp || self.user_isp
    }

    /// Whether a write of the application goes to the peer as data.
    pub fn replicates(self) -> bool {
        self.pdsk == disk::State::UpToDate
            || (self.pdsk >= disk::State::Inconsistent
                && self.conn >= conn::State::WFBitMapT
                && self.conn < conn::State::Ahead)
    }

    /// Whether a write of the application is only announced to the peer as out of sync.
    pub const fn announces_out_of_sync(self) -> bool {
        matches!(self.conn, conn::State::Ahead | conn::State::WFBitMapS)
    }

    /// Becomes source of a resync that has not begun: what is written meanwhile is here alone.
    pub(crate) const fn begins_as_source(self) -> bool {
        matches!(
            self.conn,
            conn::State::StartingSyncS | conn::State::WFBitMapS
        )
    }

    /// Both copies are UpToDate.
    pub(crate) fn both_good(self) -> bool {
        self.disk == disk::State::UpToDate && self.pdsk == disk::State::UpToDate
    }

    /// Primary without access to good data on either side.
    pub(crate) fn primary_without_data(self) -> bool {
        self.role.is_primary()
            && self.disk < disk::State::UpToDate
            && self.pdsk < disk::State::UpToDate
    }

    /// Primary, the peer gone and perhaps running on its own.
    pub(super) fn primary_with_unfenced_peer(self) -> bool {
        self.role.is_primary()
            && self.conn < conn::State::Connected
            && self.pdsk > disk::State::Outdated
    }

    /// Free of disk, connection and role: ready to be removed.
    pub const fn is_unconfigured(self) -> bool {
        matches!(self.role, Role::Secondary)
            && matches!(self.conn, conn::State::StandAlone)
            && matches!(self.disk, disk::State::Diskless)
    }
}

/// The fields to be changed, each with its new value; DRBD's pair of mask and value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateChange {
    /// New role of this node.
    pub role: Option<Role>,
    /// New role of the peer.
    pub peer: Option<Role>,
    /// New state of the connection.
    pub conn: Option<conn::State>,
    /// New state of the own copy.
    pub disk: Option<disk::State>,
    /// New state of the peer's copy.
    pub pdsk: Option<disk::State>,
    /// New value of [`State::susp`].
    pub susp: Option<bool>,
    /// New value of [`State::aftr_isp`].
    pub aftr_isp: Option<bool>,
    /// New value of [`State::peer_isp`].
    pub peer_isp: Option<bool>,
    /// New value of [`State::user_isp`].
    pub user_isp: Option<bool>,
    /// New value of [`State::susp_nod`].
    pub susp_nod: Option<bool>,
    /// New value of [`State::susp_fen`].
    pub susp_fen: Option<bool>,
}

impl StateChange {
    /// A request that changes nothing, to build others from.
    pub const NONE: StateChange = StateChange {
        role: None,
        peer: None,
        conn: None,
        disk: None,
        pdsk: None,
        susp: None,
        aftr_isp: None,
        peer_isp: None,
        user_isp: None,
        susp_nod: None,
        susp_fen: None,
    };

    /// Also asks for this role.
    pub const fn role(mut self, role: Role) -> StateChange {
        self.role = Some(role);
        self
    }

    /// Also asks for this role of the peer.
    pub const fn peer(mut self, peer: Role) -> StateChange {
        self.peer = Some(peer);
        self
    }

    /// Also asks for this state of the connection.
    pub const fn conn(mut self, conn: conn::State) -> StateChange {
        self.conn = Some(conn);
        self
    }

    /// Also asks for this state of the own copy.
    pub const fn disk(mut self, disk: disk::State) -> StateChange {
        self.disk = Some(disk);
        self
    }

    /// Also asks for this state of the peer's copy.
    pub const fn pdsk(mut self, pdsk: disk::State) -> StateChange {
        self.pdsk = Some(pdsk);
        self
    }

    /// The request that makes every field as in `wish`.
    pub const fn all_of(wish: State) -> StateChange {
        StateChange {
            role: Some(wish.role),
            peer: Some(wish.peer),
            conn: Some(wish.conn),
            disk: Some(wish.disk),
            pdsk: Some(wish.pdsk),
            susp: Some(wish.susp),
            aftr_isp: Some(wish.aftr_isp),
            peer_isp: Some(wish.peer_isp),
            user_isp: Some(wish.user_isp),
            susp_nod: Some(wish.susp_nod),
            susp_fen: Some(wish.susp_fen),
        }
    }

    /// `state` with the fields of this request replaced.
    pub fn apply(self, state: State) -> State {
        State {
            role: self.role.unwrap_or(state.role),
            peer: self.peer.unwrap_or(state.peer),
            conn: self.conn.unwrap_or(state.conn),
            disk: self.disk.unwrap_or(state.disk),
            pdsk: self.pdsk.unwrap_or(state.pdsk),
            susp: self.susp.unwrap_or(state.susp),
            aftr_isp: self.aftr_isp.unwrap_or(state.aftr_isp),
            peer_isp: self.peer_isp.unwrap_or(state.peer_isp),
            user_isp: self.user_isp.unwrap_or(state.user_isp),
            susp_nod: self.susp_nod.unwrap_or(state.susp_nod),
            susp_fen: self.susp_fen.unwrap_or(state.susp_fen),
        }
    }

    /// The request of a peer in this node's view: the sides change places.
    ///
    /// A connection state that a peer has no business asking for becomes `StandAlone`, as in the C
    /// driver. The pause and suspend flags keep their places; `peer_isp` is the peer's own two
    /// reasons to pause.
    pub fn convert_for_peer(self) -> StateChange {
        let peer_isp = match (self.aftr_isp, self.user_isp) {
            (None, None) => None,
            (aftr, user) => Some(aftr == Some(true) || user == Some(true)),
        };
        StateChange {
            role: self.peer,
            peer: self.role,
            conn: self.conn.map(convert_conn),
            disk: self.pdsk,
            pdsk: self.disk,
            peer_isp,
            ..self
        }
    }
}

/// What a connection state asked for by the peer means here.
fn convert_conn(of_peer: conn::State) -> conn::State {
    use conn::State as C;
    match of_peer {
        C::WFReportParams => C::WFReportParams,
        C::Connected => C::Connected,
        C::StartingSyncS => C::StartingSyncT,
        C::StartingSyncT => C::StartingSyncS,
        C::Disconnecting => C::TearDown,
        C::VerifyS => C::VerifyT,
        C::StandAlone
        | C::Unconnected
        | C::Timeout
        | C::BrokenPipe
        | C::NetworkFailure
        | C::ProtocolError
        | C::TearDown
        | C::WFConnection
        | C::WFBitMapS
        | C::WFBitMapT
        | C::WFSyncUUID
        | C::SyncSource
        | C::SyncTarget
        | C::VerifyT
        | C::PausedSyncS
        | C::PausedSyncT
        | C::Ahead
        | C::Behind => C::StandAlone,
    }
}

/// What to do about a peer that can not be reached. Numbers of the `fencing` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fencing {
    /// Nothing.
    DontCare,
    /// Outdate the peer's copy before becoming Primary.
    ResourceOnly,
    /// Also hold application I/O back until that is done.
    ResourceAndStonith,
}

impl Fencing {
    /// The policy of an option value (0, 1, 2).
    pub const fn from_number(number: u32) -> Option<Fencing> {
        match number {
            0 => Some(Fencing::DontCare),
            1 => Some(Fencing::ResourceOnly),
            2 => Some(Fencing::ResourceAndStonith),
            _ => None,
        }
    }
}

/// What the attach procedure found out, to be used once the peer has been heard (or lost).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttachDecision {
    /// The state the own copy would have without a peer.
    pub disk: disk::State,
    /// What the meta data say of the peer's copy.
    pub pdsk: disk::State,
    /// Whether the UUID of the data in use (`ed_uuid`) is the current UUID on the disk.
    pub data_matches: bool,
}

/// Everything the rules look at besides the state itself. Read it under the lock of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Whether there is a network configuration.
    pub has_net_conf: bool,
    /// `allow-two-primaries`.
    pub two_primaries: bool,
    /// Whether the peer is Primary now on any volume of the connection, this one included.
    pub any_peer_primary: bool,
    /// Whether `verify-alg` is set.
    pub has_verify_alg: bool,
    /// The agreed protocol version; 0 without a connection.
    pub apv: u32,
    /// The `fencing` option of the own disk. Without an attached disk the rules ignore it.
    pub fencing: Fencing,
    /// `on-no-data-accessible suspend-io`.
    pub suspend_on_no_data: bool,
    /// Whether somebody holds the device open.
    pub open: bool,
    /// Whether the first state packet of a new connection was sent and not yet answered.
    pub state_sent: bool,
    /// The saved decision of an attach, if there is a backing device.
    pub attach: Option<AttachDecision>,
    /// Whether the rules are those of the C driver also where these differ from it on purpose:
    /// comparisons with it ask for that, nobody else.
    pub as_c: bool,
}

impl Context {
    /// A device with no option set, not open, without a disk.
    pub const BARE: Context = Context {
        has_net_conf: false,
        two_primaries: false,
        any_peer_primary: false,
        has_verify_alg: false,
        apv: 0,
        fencing: Fencing::DontCare,
        suspend_on_no_data: false,
        open: false,
        state_sent: false,
        attach: None,
        as_c: false,
    };

    /// The fencing policy in force while the state is `current`.
    pub(super) fn fencing_in(self, current: State) -> Fencing {
        if current.disk >= disk::State::Inconsistent {
            self.fencing
        } else {
            Fencing::DontCare
        }
    }
}
