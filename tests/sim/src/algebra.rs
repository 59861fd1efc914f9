// SPDX-License-Identifier: GPL-2.0

//! Which states and moves there could be: all that the rules on states let through, whatever DRBD
//! asks for, from a device that was just made.
//!
//! A node is looked at alone. What its peer says is anything that a peer may say, so there are more
//! states here than two nodes can bring each other to. Pause flags count as one; suspended I/O does
//! not count. What the simulator sees has to be among them; what it never sees is listed.

use drbd_core::state::{conn::State as Conn, disk::State as Disk, Role};
use drbd_core::state::{evaluate, AttachDecision, Context, Flags, State, StateChange};
use std::collections::BTreeSet;

/// Role, connection, own and peer's disk in one number.
pub type Joint = u16;

/// Puts a state together.
pub fn joint(s: &State) -> Joint {
    let [role, conn] = [s.role.number(), s.conn.number()];
    let [disk, pdsk] = [s.disk.number(), s.pdsk.number()];
    u16::from(role) << 13 | u16::from(conn) << 8 | u16::from(disk) << 4 | u16::from(pdsk)
}

/// Takes it apart.
pub fn parts(j: Joint) -> (Role, Conn, Disk, Disk) {
    let disk = |n: u16| Disk::from_number((n & 15) as u8).expect("a disk");
    (
        Role::from_number((j >> 13) as u8).expect("a role"),
        Conn::from_number((j >> 8 & 31) as u8).expect("a connection"),
        disk(j >> 4),
        disk(j),
    )
}

/// For people.
pub fn name(j: Joint) -> String {
    let (role, conn, disk, pdsk) = parts(j);
    format!("{} {conn} {disk}/{pdsk}", role.name())
}

/// What the rules let through.
pub struct Algebra {
    /// States.
    pub states: BTreeSet<Joint>,
    /// From where to where.
    pub moves: BTreeSet<(Joint, Joint)>,
}

const NONE: StateChange = StateChange::NONE;
const NOTHING: Context = Context {
    has_net_conf: true,
    two_primaries: true,
    has_verify_alg: true,
    apv: 101,
    ..Context::BARE
};
/// What a peer says of its disk.
const PEER_DISKS: [Disk; 7] = [
    Disk::Diskless,
    Disk::Attaching,
    Disk::Failed,
    Disk::Inconsistent,
    Disk::Outdated,
    Disk::Consistent,
    Disk::UpToDate,
];
/// What a superblock says.
const AT_ATTACH: [Disk; 4] = [
    Disk::Inconsistent,
    Disk::Outdated,
    Disk::Consistent,
    Disk::UpToDate,
];

type Wishes = Vec<(StateChange, Flags)>;

/// What administrators and helpers ask for.
fn by_people(s: &State, to: &mut Wishes) {
    let primary = NONE.role(Role::Primary);
    let leave = NONE.conn(Conn::Disconnecting);
    let soft = [
        primary,
        primary.disk(Disk::UpToDate),
        primary.pdsk(Disk::Outdated),
        primary.disk(Disk::UpToDate).pdsk(Disk::Outdated),
        NONE.role(Role::Secondary),
        NONE.disk(Disk::Outdated),
        leave,
        leave.pdsk(Disk::Outdated),
        leave.disk(Disk::Outdated),
        NONE.conn(Conn::StartingSyncS),
        NONE.conn(Conn::StartingSyncT),
        NONE.conn(Conn::VerifyS),
    ];
    to.extend(soft.map(|c| (c, Flags::SOFT)));
    for pause in [true, false] {
        let user_isp = Some(pause);
        to.push((StateChange { user_isp, ..NONE }, Flags::SOFT));
    }
    if s.conn == Conn::StandAlone {
        to.push((NONE.disk(Disk::Inconsistent), Flags::SOFT));
        to.push((NONE.pdsk(Disk::Inconsistent), Flags::SOFT));
        to.push((NONE.conn(Conn::Unconnected), Flags::SOFT));
    }
    if s.conn < Conn::WFReportParams {
        to.push((NONE.pdsk(Disk::Inconsistent), Flags::SOFT));
        to.push((NONE.pdsk(Disk::Outdated), Flags::SOFT));
    }
    if s.disk == Disk::Diskless {
        to.push((NONE.disk(Disk::Attaching), Flags::SOFT));
    }
    to.push((NONE.disk(Disk::Failed), Flags::SOFT));
}

/// What happens to the disk.
fn by_the_disk(s: &State, to: &mut Wishes) {
    if s.disk == Disk::Attaching && s.conn == Conn::Connected {
        to.push((NONE.disk(Disk::Negotiating), Flags::SOFT));
    } else if s.disk == Disk::Attaching {
        for disk in AT_ATTACH {
            to.push((NONE.disk(disk).pdsk(s.pdsk), Flags::SOFT));
            to.push((NONE.disk(disk).pdsk(Disk::Outdated), Flags::SOFT));
        }
    }
    if s.disk > Disk::Failed {
        to.push((NONE.disk(Disk::Failed), Flags::HARD));
    }
    if matches!(s.disk, Disk::Failed | Disk::Attaching) {
        to.push((NONE.disk(Disk::Diskless), Flags::HARD));
    }
    if s.disk > Disk::Inconsistent {
        to.push((NONE.disk(Disk::Inconsistent), Flags::HARD));
    }
}

/// What happens to the connection.
fn by_the_network(s: &State, to: &mut Wishes) {
    let hard = |conn| (NONE.conn(conn), Flags::HARD);
    match s.conn {
        Conn::StandAlone => {}
        Conn::Disconnecting => to.push(hard(Conn::StandAlone)),
        Conn::Unconnected => to.push(hard(Conn::WFConnection)),
        c if c.is_broken() => to.push(hard(Conn::Unconnected)),
        Conn::WFConnection => to.push((NONE.conn(Conn::WFReportParams), Flags::SOFT)),
        _ => {}
    }
    to.push(hard(Conn::Disconnecting));
    if s.conn < Conn::WFConnection {
        return;
    }
    let broken = [
        Conn::Timeout,
        Conn::BrokenPipe,
        Conn::NetworkFailure,
        Conn::ProtocolError,
    ];
    to.extend(broken.map(hard));
    if s.conn < Conn::Connected {
        return;
    }
    let asked = [
        NONE.conn(Conn::TearDown),
        NONE.conn(Conn::TearDown).disk(Disk::Outdated),
        NONE.conn(Conn::TearDown).pdsk(Disk::Outdated),
        NONE.conn(Conn::VerifyT),
        NONE.pdsk(Disk::Failed),
        NONE.pdsk(Disk::UpToDate).peer(Role::Primary),
        NONE.peer(Role::Primary),
        NONE.peer(Role::Secondary),
    ];
    to.extend(asked.map(|c| (c, Flags::SOFT)));
}

/// What a resync or a verify asks for.
fn by_the_resync(s: &State, to: &mut Wishes) {
    let soft = |c| (c, Flags::SOFT);
    let end = NONE.conn(Conn::Connected);
    let source = NONE.conn(Conn::SyncSource).pdsk(Disk::Inconsistent);
    let target = NONE.conn(Conn::SyncTarget).disk(Disk::Inconsistent);
    let waits = NONE.conn(Conn::WFSyncUUID);
    let more = match s.conn {
        Conn::Connected => vec![
            NONE.disk(Disk::UpToDate).pdsk(Disk::UpToDate),
            source,
            waits,
            NONE.conn(Conn::Ahead),
        ],
        Conn::WFBitMapS | Conn::Ahead => vec![source],
        Conn::StartingSyncS => vec![source, end],
        Conn::StartingSyncT => vec![waits.disk(Disk::Inconsistent), end],
        Conn::WFBitMapT => vec![waits],
        Conn::WFSyncUUID | Conn::Behind => vec![target],
        Conn::SyncSource | Conn::PausedSyncS => {
            vec![end, end.pdsk(Disk::UpToDate), NONE.conn(Conn::Ahead)]
        }
        Conn::SyncTarget | Conn::PausedSyncT => vec![end, end.disk(Disk::UpToDate)],
        Conn::VerifyS | Conn::VerifyT => vec![end, NONE.conn(Conn::Ahead)],
        _ => return,
    };
    to.extend(more.into_iter().map(soft));
}

/// What the peer's state packets lead to.
fn by_the_peer(s: &State, to: &mut Wishes) {
    if s.conn < Conn::WFReportParams {
        return;
    }
    let comes_up = s.conn == Conn::WFReportParams;
    let mut conns = vec![if comes_up { Conn::Connected } else { s.conn }];
    if comes_up || s.conn == Conn::Connected {
        conns.extend([Conn::WFBitMapS, Conn::WFBitMapT, Conn::Behind]);
    }
    let target = [Conn::WFSyncUUID, Conn::SyncTarget, Conn::PausedSyncT];
    if target.contains(&s.conn) || s.conn.is_verify() {
        // A peer that is source, or compares, may pull ahead.
        conns.push(Conn::Behind);
    }
    if s.conn.is_verify() {
        // A promotion by force at the peer lets both compare again.
        conns.push(Conn::Connected);
    }
    let flags = if comes_up { Flags::SOFT } else { Flags::HARD };
    for conn in conns {
        for pdsk in PEER_DISKS {
            for peer in [Role::Primary, Role::Secondary] {
                let base = NONE.conn(conn).pdsk(pdsk).peer(peer);
                for user_isp in [None, Some(true), Some(false)] {
                    let user_isp = user_isp.or(base.user_isp);
                    to.push((StateChange { user_isp, ..base }, flags));
                }
                if s.disk == Disk::Negotiating {
                    to.extend(AT_ATTACH.map(|d| (base.disk(d), flags)));
                }
            }
        }
    }
}

/// What the rules look at besides the state.
fn contexts(s: &State) -> Vec<Context> {
    if s.disk != Disk::Negotiating {
        return vec![NOTHING];
    }
    let mut all = Vec::new();
    for disk in AT_ATTACH {
        for pdsk in [Disk::Inconsistent, Disk::Outdated, Disk::DUnknown] {
            for data_matches in [true, false] {
                let attach = Some(AttachDecision {
                    disk,
                    pdsk,
                    data_matches,
                });
                all.push(Context { attach, ..NOTHING });
            }
        }
    }
    all
}

impl Algebra {
    /// Works it out.
    pub fn new() -> Algebra {
        let mut found = Algebra {
            states: BTreeSet::new(),
            moves: BTreeSet::new(),
        };
        let key = |s: &State| (joint(s), s.peer.number(), s.user_isp);
        let mut seen = BTreeSet::from([key(&State::INITIAL)]);
        let mut left = vec![State::INITIAL];
        while let Some(old) = left.pop() {
            found.states.insert(joint(&old));
            let mut wishes = Wishes::new();
            by_people(&old, &mut wishes);
            by_the_disk(&old, &mut wishes);
            by_the_network(&old, &mut wishes);
            by_the_resync(&old, &mut wishes);
            by_the_peer(&old, &mut wishes);
            for ctx in contexts(&old) {
                for (change, flags) in &wishes {
                    let Ok(new) = evaluate(old, *change, *flags, ctx) else {
                        continue;
                    };
                    let next = State {
                        susp_fen: false,
                        susp_nod: false,
                        ..new.state
                    };
                    if joint(&next) != joint(&old) {
                        found.moves.insert((joint(&old), joint(&next)));
                    }
                    if seen.insert(key(&next)) {
                        left.push(next);
                    }
                }
            }
        }
        found
    }
}

impl Default for Algebra {
    fn default() -> Algebra {
        Algebra::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(role: Role, conn: Conn, disk: Disk, pdsk: Disk) -> Joint {
        joint(&State {
            role,
            conn,
            disk,
            pdsk,
            ..State::INITIAL
        })
    }

    #[test]
    fn the_rules_let_through_what_they_should() {
        let a = Algebra::new();
        let good = state(
            Role::Primary,
            Conn::Connected,
            Disk::UpToDate,
            Disk::UpToDate,
        );
        let cut = state(
            Role::Primary,
            Conn::NetworkFailure,
            Disk::UpToDate,
            Disk::DUnknown,
        );
        let odd = state(
            Role::Secondary,
            Conn::SyncTarget,
            Disk::UpToDate,
            Disk::UpToDate,
        );
        assert!(a.states.contains(&good) && a.states.contains(&cut));
        assert!(!a.states.contains(&odd));
        assert!(a.moves.contains(&(good, cut)) && !a.moves.contains(&(cut, good)));
        assert!(a.states.len() > 200, "{} states", a.states.len());
        assert_eq!(name(good), "Primary Connected UpToDate/UpToDate");
    }
}
