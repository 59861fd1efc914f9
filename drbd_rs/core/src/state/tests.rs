// SPDX-License-Identifier: GPL-2.0

//! The rules row by row, and all states against all events as one snapshot.

use std::collections::BTreeMap;

use super::conn::State as C;
use super::disk::State as D;
use super::effects::{lost_contact_to_peer_data, uuid_when_peer_data_lost, Later, NewUuid, Now};
use super::*;

/// Every combination of roles, connection and disks that an own device can be in.
fn all_states() -> impl Iterator<Item = State> {
    let own_disks = D::ALL.iter().filter(|d| **d != D::DUnknown);
    own_disks.flat_map(|&disk| {
        D::ALL.iter().flat_map(move |&pdsk| {
            C::ALL.iter().flat_map(move |&conn| {
                Role::ALL.iter().flat_map(move |&peer| {
                    [Role::Primary, Role::Secondary].map(|role| State {
                        role,
                        peer,
                        conn,
                        disk,
                        pdsk,
                        ..State::INITIAL
                    })
                })
            })
        })
    })
}

fn events() -> Vec<StateChange> {
    let n = StateChange::NONE;
    let mut all: Vec<_> = C::ALL.iter().map(|&c| n.conn(c)).collect();
    all.extend(
        D::ALL
            .iter()
            .filter(|d| **d != D::DUnknown)
            .map(|&d| n.disk(d)),
    );
    all.extend(D::ALL.iter().map(|&d| n.pdsk(d)));
    all.extend(Role::ALL.iter().skip(1).map(|&r| n.role(r)));
    all.extend(Role::ALL.iter().map(|&r| n.peer(r)));
    all.push(StateChange {
        user_isp: Some(true),
        ..n
    });
    all
}

const STRICT: Context = Context {
    has_net_conf: true,
    has_verify_alg: true,
    apv: 101,
    fencing: Fencing::ResourceAndStonith,
    suspend_on_no_data: true,
    attach: Some(AttachDecision {
        disk: D::UpToDate,
        pdsk: D::Outdated,
        data_matches: true,
    }),
    ..Context::BARE
};

fn fnv(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0100_0000_01b3)
}

/// A change here is a change of behaviour: find out which, and whether the C driver agrees.
#[test]
fn snapshot_of_all_states_and_events() {
    let events = events();
    let mut counts = BTreeMap::new();
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for old in all_states() {
        for &event in &events {
            for flags in [Flags::SOFT, Flags::HARD] {
                let (code, state) = match evaluate(old, event, flags, STRICT) {
                    Ok(new) => (new.code, new.state),
                    Err(refusal) => (refusal.code, refusal.wanted),
                };
                *counts.entry(code.number()).or_insert(0u32) += 1;
                let e = effects(old, state, 101);
                sum = fnv(sum, u64::from(state.to_word()));
                sum = fnv(sum, u64::from(code.number().unsigned_abs()));
                sum = fnv(sum, e.now.bits() << 32 ^ e.later.bits());
            }
        }
    }
    let counts: Vec<_> = counts.into_iter().collect();
    assert_eq!((sum, counts.as_slice()), (SNAPSHOT, COUNTS));
}

const SNAPSHOT: u64 = 12701141361345140788;
const COUNTS: &[(i32, u32)] = &[
    (-21, 630),
    (-18, 39073),
    (-16, 4710),
    (-15, 115928),
    (-11, 12450),
    (-9, 864),
    (-8, 14491),
    (-7, 6885),
    (-6, 7209),
    (-2, 46332),
    (-1, 3024),
    (1, 549606),
    (2, 173390),
];

/// The C driver's own functions, compiled for the host and run over the same states and events in
/// four contexts in turn, gave this sum of new states, codes, scopes and warnings. Where the rules
/// here differ on purpose (see [`Context::as_c`]), they are made to agree for this test.
const SUM_OF_THE_C_DRIVER: u64 = 10150304871452584772;

#[test]
fn answers_are_those_of_the_c_driver() {
    let events = events();
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for (i, old) in all_states().enumerate() {
        let variant = i / 2 % 4;
        let ctx = Context {
            state_sent: variant & 1 != 0,
            any_peer_primary: variant & 2 != 0,
            open: variant & 2 != 0,
            as_c: true,
            apv: if variant == 2 { 87 } else { 101 },
            attach: STRICT.attach.map(|a| AttachDecision {
                data_matches: variant != 3,
                ..a
            }),
            ..STRICT
        };
        for &event in &events {
            for flags in [Flags::SOFT, Flags::HARD] {
                let (code, state, warning) = match evaluate(old, event, flags, ctx) {
                    Ok(new) => (new.code, new.state, new.warning),
                    Err(refusal) => (refusal.code, refusal.wanted, None),
                };
                let warning = match warning {
                    None => 0,
                    Some(Warning::AbortedOnlineVerify) => 1,
                    Some(Warning::AbortedResync) => 2,
                    Some(Warning::ConnectionLostNegotiating) => 3,
                    Some(Warning::ImplicitlyUpgradedDisk) => 4,
                    Some(Warning::ImplicitlyUpgradedPdsk) => 5,
                };
                sum = fnv(sum, u64::from(state.to_word()));
                sum = fnv(sum, u64::from(code.number().unsigned_abs()));
                sum = fnv(sum, u64::from(is_cluster_wide(old, state)));
                sum = fnv(sum, warning);
            }
        }
    }
    assert_eq!(sum, SUM_OF_THE_C_DRIVER);
}

#[test]
fn words_and_changes_survive_packing() {
    for s in all_states() {
        let flags = State {
            susp: true,
            susp_fen: true,
            aftr_isp: true,
            ..s
        };
        for s in [s, flags] {
            assert_eq!(State::from_word(s.to_word()), Ok(s));
            let (mask, val) = StateChange::all_of(s).to_words();
            assert_eq!((mask, val), (0x7e_ffff | 1 << 16, s.to_word()));
            assert_eq!(
                StateChange::from_words(mask, val),
                Ok(StateChange::all_of(s))
            );
        }
    }
    for e in events() {
        let (mask, val) = e.to_words();
        assert_eq!(StateChange::from_words(mask, val), Ok(e));
        assert_eq!(StateChange::from_words(mask, val | !mask), Ok(e));
    }
    assert_eq!(State::from_word(3), Err(Malformed::Role));
    assert_eq!(State::from_word(24 << 4), Err(Malformed::Conn));
    assert_eq!(State::from_word(9 << 9), Err(Malformed::Disk));
    assert_eq!(StateChange::from_words(1 << 4, 0), Err(Malformed::Mask));
    // Secondary/Primary, Connected, UpToDate/Inconsistent, peer_isp.
    let word = 2 | 1 << 2 | 10 << 4 | 8 << 9 | 4 << 13 | 1 << 19;
    let s = State::from_word(word).unwrap();
    assert_eq!(
        (s.role, s.peer, s.conn),
        (Role::Secondary, Role::Primary, C::Connected)
    );
    assert_eq!(
        (s.disk, s.pdsk, s.peer_isp),
        (D::UpToDate, D::Inconsistent, true)
    );
}

#[test]
fn the_peers_view_swaps_sides() {
    for e in events() {
        let twice = e.convert_for_peer().convert_for_peer();
        assert_eq!((twice.role, twice.peer), (e.role, e.peer));
        assert_eq!((twice.disk, twice.pdsk), (e.disk, e.pdsk));
    }
    let conn = |c| StateChange::NONE.conn(c).convert_for_peer().conn.unwrap();
    assert_eq!(conn(C::StartingSyncS), C::StartingSyncT);
    assert_eq!(conn(C::StartingSyncT), C::StartingSyncS);
    assert_eq!(conn(C::Disconnecting), C::TearDown);
    assert_eq!(conn(C::VerifyS), C::VerifyT);
    assert_eq!(conn(C::WFReportParams), C::WFReportParams);
    assert_eq!(conn(C::SyncSource), C::StandAlone);
    let paused = StateChange {
        user_isp: Some(true),
        ..StateChange::NONE
    };
    assert_eq!(paused.convert_for_peer().peer_isp, Some(true));
}

/// DRBD's sanitizing is not idempotent. Once more is enough, and it matters only where the pause
/// flags moved the connection between running and paused, after its disk limits were applied.
#[test]
fn sanitizing_twice_is_enough() {
    for wish in all_states() {
        for paused in [false, true] {
            let wish = State {
                user_isp: paused,
                ..wish
            };
            let (once, _) = sanitize(wish, wish, STRICT);
            let (twice, _) = sanitize(wish, once, STRICT);
            let (thrice, _) = sanitize(wish, twice, STRICT);
            assert_eq!(twice, thrice, "{wish:?}");
            if once != twice {
                assert!(once.conn.is_sync() && once.conn != wish.conn, "{wish:?}");
            }
        }
    }
}

fn state(edit: impl FnOnce(&mut State)) -> State {
    let mut s = State {
        conn: C::Connected,
        peer: Role::Secondary,
        disk: D::UpToDate,
        pdsk: D::UpToDate,
        ..State::INITIAL
    };
    edit(&mut s);
    s
}

#[test]
fn rules_on_states_first_match_wins() {
    let valid = |ctx, edit: fn(&mut State)| {
        let s = state(edit);
        is_valid_state(s, s, ctx)
    };
    let pri = |s: &mut State| s.role = Role::Primary;
    let net = STRICT;
    assert_eq!(valid(net, |_| ()), Ss::Success);
    assert_eq!(
        valid(net, |s| (s.role, s.peer) = (Role::Primary, Role::Primary)),
        Ss::TwoPrimaries
    );
    let other = Context {
        any_peer_primary: true,
        ..net
    };
    assert_eq!(valid(other, pri), Ss::OVolPeerPri);
    let both = Context {
        two_primaries: true,
        ..other
    };
    assert_eq!(valid(both, pri), Ss::Success);
    let open = Context { open: true, ..net };
    assert_eq!(valid(open, |_| ()), Ss::DeviceInUse);
    let alone =
        |s: &mut State| (s.role, s.conn, s.pdsk) = (Role::Primary, C::WFConnection, D::DUnknown);
    assert_eq!(valid(net, alone), Ss::PrimaryNop);
    assert_eq!(valid(Context::BARE, alone), Ss::Success);
    // Row 4 before row 5.
    let s = state(|s| {
        alone(s);
        s.disk = D::Consistent;
    });
    assert_eq!(is_valid_state(s, s, net), Ss::NoUpToDateDisk);
    assert_eq!(
        valid(net, |s| (s.conn, s.disk) = (C::SyncTarget, D::Failed)),
        Ss::NoLocalDisk
    );
    assert_eq!(
        valid(net, |s| (s.conn, s.pdsk) = (C::SyncSource, D::Failed)),
        Ss::NoRemoteDisk
    );
    assert_eq!(valid(net, |s| s.disk = D::Outdated), Ss::ConnectedOutdates);
    let no_alg = Context {
        has_verify_alg: false,
        apv: 87,
        ..net
    };
    assert_eq!(valid(no_alg, |s| s.conn = C::VerifyT), Ss::NoVerifyAlg);
    assert_eq!(
        valid(Context { apv: 87, ..net }, |s| s.conn = C::VerifyS),
        Ss::NotSupported
    );
    assert_eq!(
        valid(net, |s| (s.conn, s.pdsk) = (C::StartingSyncS, D::DUnknown)),
        Ss::NeedConnection
    );
    assert_eq!(valid(net, |s| s.pdsk = D::DUnknown), Ss::ConnectedOutdates);
}

#[test]
fn rules_on_soft_steps_last_match_wins() {
    let soft = |old: State, new: State| is_valid_soft_transition(old, new, STRICT);
    let at = |conn| state(|s| s.conn = conn);
    assert_eq!(
        soft(at(C::SyncSource), at(C::StartingSyncS)),
        Ss::ResyncRunning
    );
    assert_eq!(
        soft(at(C::WFConnection), at(C::StartingSyncT)),
        Ss::NeedConnection
    );
    assert_eq!(
        soft(at(C::StandAlone), at(C::Disconnecting)),
        Ss::AlreadyStandalone
    );
    assert_eq!(
        soft(at(C::Unconnected), at(C::Disconnecting)),
        Ss::InTransientState
    );
    assert_eq!(
        soft(at(C::StandAlone), at(C::WFConnection)),
        Ss::NoNetConfig
    );
    assert_eq!(soft(at(C::WFBitMapS), at(C::VerifyS)), Ss::ResyncRunning);
    assert_eq!(
        soft(at(C::Unconnected), at(C::SyncTarget)),
        Ss::NeedConnection
    );
    let disk = |d| state(|s| s.disk = d);
    // Row 5 overwrites nothing of row 3; a diskless device answers row 5 for Outdated.
    assert_eq!(soft(disk(D::Diskless), disk(D::UpToDate)), Ss::IsDiskless);
    assert_eq!(
        soft(disk(D::Diskless), disk(D::Outdated)),
        Ss::LowerThanOutdated
    );
    assert_eq!(soft(disk(D::Attaching), disk(D::Outdated)), Ss::Success);
    let gone = |pdsk| state(|s| (s.conn, s.pdsk) = (C::WFConnection, pdsk));
    let fenced = state(|s| (s.conn, s.pdsk) = (C::Disconnecting, D::Outdated));
    assert_eq!(soft(gone(D::DUnknown), fenced), Ss::OutdateWoConn);
    assert_eq!(soft(gone(D::Outdated), fenced), Ss::Success);
    let sent = Context {
        state_sent: true,
        ..STRICT
    };
    let (a, b) = (at(C::WFReportParams), at(C::Connected));
    assert_eq!(is_valid_soft_transition(a, b, sent), Ss::Success);
    assert_eq!(is_valid_soft_transition(b, a, sent), Ss::InTransientState);
}

#[test]
fn a_bad_old_state_may_be_left_but_not_for_the_peer() {
    let old =
        state(|s| (s.role, s.disk, s.pdsk) = (Role::Primary, D::Inconsistent, D::Inconsistent));
    let paused = StateChange {
        user_isp: Some(true),
        ..StateChange::NONE
    };
    assert!(evaluate(old, paused, Flags::SOFT, STRICT).is_ok());
    let failing = StateChange::NONE.disk(D::Failed);
    let refusal = request::plan(old, failing, STRICT).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.by_hard_rule),
        (Ss::NoUpToDateDisk, false)
    );
    assert!(evaluate(old, failing, Flags::SOFT, STRICT).is_ok());
}

#[test]
fn requests_that_concern_the_peer() {
    let old = state(|_| ());
    let promote = StateChange::NONE.role(Role::Primary);
    let scope = |old, change| request::plan(old, change, STRICT);
    assert_eq!(scope(old, promote), Ok(request::Scope::ClusterWide));
    let verify = StateChange::NONE.conn(C::VerifyS);
    assert_eq!(scope(old, verify), Ok(request::Scope::ClusterWide));
    let wait = |s, reply| request::wait(s, promote, reply, STRICT);
    assert_eq!(wait(old, request::Reply::None), None);
    assert_eq!(wait(old, request::Reply::No), Some(Ss::CwFailedByPeer));
    assert_eq!(wait(old, request::Reply::Yes), Some(Ss::CwSuccess));
    let gone = state(|s| (s.conn, s.pdsk) = (C::NetworkFailure, D::DUnknown));
    assert_eq!(wait(gone, request::Reply::None), Some(Ss::CwNoNeed));
}

#[test]
fn losing_the_connection_as_primary() {
    let old = state(|s| s.role = Role::Primary);
    let lost = StateChange::NONE.conn(C::NetworkFailure);
    let new = evaluate(old, lost, Flags::HARD, STRICT).unwrap();
    assert_eq!(
        (new.state.peer, new.state.pdsk),
        (Role::Unknown, D::DUnknown)
    );
    assert!(new.state.susp_fen && !new.state.susp_nod);
    let e = effects(old, new.state, 101);
    let now: Vec<_> = e.now.iter().collect();
    assert_eq!(
        now,
        [Now::NewEpoch, Now::RecomputeMetaFlags, Now::RestartReceiver]
    );
    let later: Vec<_> = e.later.iter().collect();
    assert_eq!(
        later,
        [
            Later::ThawFenced,
            Later::PeerDataLost,
            Later::ResyncGrown,
            Later::SyncMeta
        ]
    );
    assert!(lost_contact_to_peer_data(D::DUnknown, D::Diskless));
    assert!(!lost_contact_to_peer_data(D::Outdated, D::DUnknown));
    assert!(!lost_contact_to_peer_data(D::DUnknown, D::Inconsistent));
}

/// An application may know of it, and I/O be suspended since.
#[test]
fn a_write_that_was_refused_is_a_generation_at_once() {
    let old = state(|s| {
        (s.role, s.conn) = (Role::Primary, C::Connected);
        (s.disk, s.pdsk) = (D::UpToDate, D::UpToDate);
    });
    let new = State {
        pdsk: D::Failed,
        ..old
    };
    let what = |suspended, lacks| uuid_when_peer_data_lost(old, new, 0, suspended, lacks);
    assert_eq!(what(true, false), NewUuid::Defer);
    for suspended in [true, false] {
        assert_eq!(what(suspended, true), NewUuid::Create);
        let known = uuid_when_peer_data_lost(old, new, 5, suspended, true);
        assert_eq!(known, NewUuid::No);
    }
}

#[test]
fn becoming_sync_source_names_the_resync_before_telling_the_state() {
    let old = state(|s| (s.conn, s.pdsk) = (C::WFBitMapS, D::Consistent));
    let new = evaluate(
        old,
        StateChange::NONE.conn(C::SyncSource),
        Flags::SOFT,
        STRICT,
    )
    .unwrap();
    assert_eq!(new.state.pdsk, D::Inconsistent);
    let later: Vec<_> = effects(old, new.state, 101).later.iter().collect();
    assert_eq!(later.first(), Some(&Later::SendSyncUuid));
    assert!(!effects(old, new.state, 95)
        .later
        .contains(Later::SendSyncUuid));
}

#[test]
fn an_outdated_copy_is_not_good_for_want_of_a_better_one() {
    let after = |old, change| {
        let new = evaluate(old, change, Flags::HARD, STRICT).unwrap().state;
        (new.conn, new.disk, new.pdsk)
    };
    let n = StateChange::NONE;
    let target = state(|s| (s.conn, s.disk) = (C::WFSyncUUID, D::Outdated));
    let aborted = (C::Connected, D::Inconsistent, D::Failed);
    assert_eq!(after(target, n.pdsk(D::Failed)), aborted);
    let source = state(|s| (s.conn, s.pdsk) = (C::WFBitMapS, D::Consistent));
    let aborted = (C::Connected, D::Failed, D::Inconsistent);
    assert_eq!(after(source, n.disk(D::Failed)), aborted);
    // Nor because somebody wants it outdated while there is a connection.
    let bad = state(|s| (s.conn, s.disk) = (C::Connected, D::Inconsistent));
    let refusal = evaluate(bad, n.disk(D::Outdated), Flags::SOFT, STRICT).unwrap_err();
    assert_eq!(refusal.code, Ss::LowerThanOutdated);
}

#[test]
fn the_only_good_copy_can_not_be_outdated_while_connected() {
    let n = StateChange::NONE;
    let only = state(|s| (s.conn, s.disk, s.pdsk) = (C::Connected, D::UpToDate, D::Diskless));
    for peer in [Role::Secondary, Role::Primary] {
        let only = State { peer, ..only };
        let new = evaluate(only, n.disk(D::Outdated), Flags::SOFT, STRICT).unwrap();
        assert_eq!((new.code, new.state), (Ss::NothingToDo, only));
    }
}

#[test]
fn a_verify_makes_no_disk_good() {
    let verify = |disk, pdsk, conn| {
        let old = state(|s| (s.conn, s.disk, s.pdsk) = (C::Connected, disk, pdsk));
        evaluate(old, StateChange::NONE.conn(conn), Flags::SOFT, STRICT).map(|new| new.state.conn)
    };
    for conn in [C::VerifyS, C::VerifyT] {
        assert_eq!(verify(D::UpToDate, D::UpToDate, conn), Ok(conn));
        for (disk, pdsk) in [
            (D::Inconsistent, D::Inconsistent),
            (D::UpToDate, D::Inconsistent),
            (D::Inconsistent, D::UpToDate),
        ] {
            let refusal = verify(disk, pdsk, conn).unwrap_err();
            assert_eq!(refusal.code, Ss::NoUpToDateDisk);
        }
    }
}

#[test]
fn a_bad_copy_is_not_good_for_want_of_a_verify_or_a_source() {
    let refused = |old, conn| {
        let answer = evaluate(old, StateChange::NONE.conn(conn), Flags::SOFT, STRICT);
        answer.err().map(|refusal| refusal.code)
    };
    let (none, bad) = (None, Some(Ss::NoUpToDateDisk));
    let own = state(|s| s.disk = D::Inconsistent);
    let peers = state(|s| s.pdsk = D::Inconsistent);
    assert_eq!([own, peers].map(|s| refused(s, C::VerifyS)), [bad, bad]);
    assert_eq!([own, peers].map(|s| refused(s, C::VerifyT)), [bad, bad]);
    let source = [own, peers].map(|s| refused(s, C::StartingSyncS));
    let target = [own, peers].map(|s| refused(s, C::StartingSyncT));
    assert_eq!((source, target), ([bad, none], [none, bad]));
    assert_eq!(refused(state(|_| ()), C::StartingSyncS), none);
}

#[test]
fn connection_wide_requests_spare_bad_volumes() {
    let old =
        state(|s| (s.conn, s.disk, s.pdsk) = (C::WFReportParams, D::Inconsistent, D::DUnknown));
    let change = StateChange::NONE.conn(C::TearDown).disk(D::Outdated);
    let flags = Flags {
        ignore_outdate_failure: true,
        ..Flags::SOFT
    };
    let new = request::check_volume(old, change, flags, STRICT).unwrap();
    assert_eq!(
        (new.state.disk, new.state.conn),
        (D::Inconsistent, C::TearDown)
    );
    let refusal = request::check_volume(old, change, Flags::SOFT, STRICT).unwrap_err();
    assert_eq!(refusal.code, Ss::LowerThanOutdated);
}
