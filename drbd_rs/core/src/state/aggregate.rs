// SPDX-License-Identifier: GPL-2.0

//! What holds for all volumes of a connection together, and what a connection-wide change entails.

use super::log::Parts;
use super::types::State;
use super::{conn::State as Conn, disk::State as Disk, role::Role};

/// The best or the worst over all volumes, field by field; and what they have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Summary {
    /// Highest role, connection and disk states.
    pub highest: State,
    /// Lowest role, connection and disk states.
    pub lowest: State,
    /// The state of the first volume: stands for all in the parts named by `common`.
    pub first: State,
    /// The fields that are the same in all volumes.
    pub common: Parts,
}

/// The state that stands for a connection without volumes.
pub const fn without_volumes(conn: Conn) -> State {
    State {
        conn,
        ..State::INITIAL
    }
}

/// Summarizes the volumes of a connection whose own state is `conn`.
///
/// Without volumes this is [`without_volumes`]. The flags of the result are those of the first
/// volume; only the ones of the resource mean something.
pub fn summarize(conn: Conn, volumes: impl IntoIterator<Item = State>) -> Summary {
    let mut volumes = volumes.into_iter();
    let first = volumes.next().unwrap_or(without_volumes(conn));
    let one = Summary {
        highest: first,
        lowest: first,
        first,
        common: Parts {
            isp: false,
            ..Parts::VOLUME
        },
    };
    volumes.fold(one, |mut sum, s| {
        sum.highest.role = sum.highest.role.highest(s.role);
        sum.highest.peer = sum.highest.peer.highest(s.peer);
        sum.highest.conn = sum.highest.conn.max(s.conn);
        sum.highest.disk = sum.highest.disk.max(s.disk);
        sum.highest.pdsk = sum.highest.pdsk.max(s.pdsk);
        sum.lowest.role = sum.lowest.role.lowest(s.role);
        sum.lowest.peer = sum.lowest.peer.lowest(s.peer);
        sum.lowest.conn = sum.lowest.conn.min(s.conn);
        sum.lowest.disk = sum.lowest.disk.min(s.disk);
        sum.lowest.pdsk = sum.lowest.pdsk.min(s.pdsk);
        sum.common.role &= first.role == s.role;
        sum.common.peer &= first.peer == s.peer;
        sum.common.conn &= first.conn == s.conn;
        sum.common.disk &= first.disk == s.disk;
        sum.common.pdsk &= first.pdsk == s.pdsk;
        sum
    })
}

/// The role that stands for the resource: Primary if any volume is, else Secondary.
pub fn highest_role(volumes: impl IntoIterator<Item = State>) -> Role {
    volumes
        .into_iter()
        .fold(Role::Secondary, |role, s| role.highest(s.role))
}

/// What the worker does after a connection-wide change, in this order; events come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionEffects {
    /// Start the receiver thread.
    pub start_receiver: bool,
    /// Send the last events of the connection and its peer devices, forget addresses, network
    /// configuration and keys.
    pub unconfigure: bool,
    /// The peer is fenced: create the deferred current UUIDs of all volumes, complete frozen
    /// requests as if the connection was lost, clear `susp_fen`.
    pub fencing_done: bool,
}

impl ConnectionEffects {
    /// Nothing.
    pub const NONE: ConnectionEffects = ConnectionEffects {
        start_receiver: false,
        unconfigure: false,
        fencing_done: false,
    };
}

/// What the change of a connection from `old` entails; `highest` is the summary of the new states.
///
/// `old` is the state common to the volumes before ([`Summary::first`]).
pub fn connection_effects(old: Conn, highest: State) -> ConnectionEffects {
    ConnectionEffects {
        start_receiver: old == Conn::StandAlone && highest.conn == Conn::Unconnected,
        unconfigure: old == Conn::Disconnecting && highest.conn == Conn::StandAlone,
        fencing_done: highest.susp_fen && highest.pdsk <= Disk::Outdated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_lowest_and_common() {
        let a = State {
            role: Role::Primary,
            disk: Disk::UpToDate,
            ..State::INITIAL
        };
        let b = State {
            disk: Disk::Failed,
            conn: Conn::Unconnected,
            ..State::INITIAL
        };
        let s = summarize(Conn::Unconnected, [a, b]);
        assert_eq!(s.highest.role, Role::Primary);
        assert_eq!(s.lowest.role, Role::Secondary);
        assert_eq!(
            (s.highest.disk, s.lowest.disk),
            (Disk::UpToDate, Disk::Failed)
        );
        assert_eq!(
            (s.highest.conn, s.lowest.conn),
            (Conn::Unconnected, Conn::StandAlone)
        );
        assert!(!s.common.role && !s.common.conn && !s.common.disk);
        assert!(s.common.peer && s.common.pdsk);
        let none = summarize(Conn::WFConnection, []);
        assert_eq!(none.highest, none.lowest);
        assert_eq!(none.first.conn, Conn::WFConnection);
    }

    #[test]
    fn each_effect_of_the_connection() {
        let at = |conn| without_volumes(conn);
        assert!(connection_effects(Conn::StandAlone, at(Conn::Unconnected)).start_receiver);
        assert!(!connection_effects(Conn::Timeout, at(Conn::Unconnected)).start_receiver);
        assert!(connection_effects(Conn::Disconnecting, at(Conn::StandAlone)).unconfigure);
        let mut s = at(Conn::WFConnection);
        s.susp_fen = true;
        assert!(!connection_effects(s.conn, s).fencing_done);
        s.pdsk = Disk::Outdated;
        assert!(connection_effects(s.conn, s).fencing_done);
    }
}
