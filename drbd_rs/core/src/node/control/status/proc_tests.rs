// SPDX-License-Identifier: GPL-2.0

//! The worked examples of procfs.md.

use super::*;
use crate::state::disk::State as Disk;
use crate::state::Role;
use crate::time::Duration;

use super::super::super::super::resync::Snapshot;

fn lines(minor: u32, state: State) -> VolumeLines {
    VolumeLines {
        minor: Minor(minor),
        state,
        protocol: None,
        al_suspended: false,
        counts: [0; 6],
        gauges: [0, 0, 0, 0, 1],
        ordering: Ordering::Flush,
        out_of_sync: 0,
        bits: 0,
        resync: Snapshot::default(),
        now: Instant(0),
        details: 0,
    }
}

fn state(conn: Conn, role: Role, peer: Role, disk: Disk, pdsk: Disk) -> State {
    State {
        conn,
        role,
        peer,
        disk,
        pdsk,
        ..State::INITIAL
    }
}

#[test]
fn connected() {
    let s = state(
        Conn::Connected,
        Role::Primary,
        Role::Secondary,
        Disk::UpToDate,
        Disk::UpToDate,
    );
    let mut l = lines(1, s);
    l.protocol = Some(3);
    l.counts = [1_048_576, 0, 1_048_576, 2048, 33, 0];
    assert_eq!(
        l.to_string(),
        " 1: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n    \
         ns:1048576 nr:0 dw:1048576 dr:2048 al:33 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    );
}

#[test]
fn a_resync_target() {
    let s = state(
        Conn::SyncTarget,
        Role::Secondary,
        Role::Primary,
        Disk::Inconsistent,
        Disk::UpToDate,
    );
    let mut l = lines(2, s);
    l.protocol = Some(1);
    l.counts = [0, 409_600, 409_600, 0, 0, 0];
    l.gauges = [1, 3, 1, 0, 1];
    l.ordering = Ordering::Drain;
    l.out_of_sync = 159_744;
    l.now = Instant(0).plus(Duration::secs(10));
    l.resync.total = 262_144;
    l.resync.left = 159_744;
    l.resync.want = 41_000;
    l.resync.marks.iter_mut().for_each(|m| m.left = 262_144);
    assert_eq!(
        l.to_string(),
        " 2: cs:SyncTarget ro:Secondary/Primary ds:Inconsistent/UpToDate A r-----\n    \
         ns:0 nr:409600 dw:409600 dr:0 al:0 bm:0 lo:1 pe:3 ua:1 ap:0 ep:1 wo:d oos:638976\n\
         \t[======>.............] sync'ed: 39.3% (638976/1048576)K\n\
         \tfinish: 0:00:15 speed: 40,960 (40,960) want: 41,000 K/sec\n"
    );
}

#[test]
fn unconfigured_and_without_network() {
    assert_eq!(
        lines(3, State::INITIAL).to_string(),
        " 3: cs:Unconfigured\n"
    );
    let s = state(
        Conn::WFConnection,
        Role::Secondary,
        Role::Unknown,
        Disk::UpToDate,
        Disk::DUnknown,
    );
    assert_eq!(
        lines(7, s).to_string(),
        " 7: cs:WFConnection ro:Secondary/Unknown ds:UpToDate/DUnknown   r-----\n    \
         ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n"
    );
}

#[test]
fn gaps_and_banner() {
    assert_eq!(gap(None, 0), "");
    assert_eq!(gap(None, 1), "\n");
    assert_eq!(gap(Some(3), 4), "");
    assert_eq!(gap(Some(3), 7), "\n");
    let b = Banner {
        srcversion: Some("0123456789ABCDEF0123456"),
    };
    assert_eq!(
        b.to_string(),
        "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: 0123456789ABCDEF0123456 \n"
    );
}

#[test]
fn a_fresh_resync_has_a_longer_bar() {
    let s = state(
        Conn::SyncSource,
        Role::Secondary,
        Role::Secondary,
        Disk::UpToDate,
        Disk::Inconsistent,
    );
    let mut l = lines(0, s);
    l.resync.total = 1 << 21;
    l.resync.left = 1 << 21;
    let text = l.to_string();
    assert!(
        text.contains("\t[>....................] sync'ed:  0.1% (8192/8192)M"),
        "{text}"
    );
    assert!(!text.contains("want"));
}
