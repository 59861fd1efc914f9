// SPDX-License-Identifier: GPL-2.0

//! The search, as far as there is time in a test, and what it has found before.

use drbd_small::script::{Act, Power, Shape};
use drbd_small::search::{replay, Grain, Plan, Search};
use drbd_small::world::Event;

const SHAPE: Shape = Shape {
    blocks: 1,
    writes: 1,
    admin: true,
    rash: false,
    powers: 4,
};

fn search(grain: Grain, blocks: u8, depth: usize) -> usize {
    let plan = Plan {
        shape: Shape { blocks, ..SHAPE },
        grain,
        depth,
        most: usize::MAX,
        recover: 1,
        threads: 1,
        memory: u64::MAX,
    };
    let report = Search::run(plan, |_| {});
    if let Some((why, path)) = report.violation {
        panic!("{why}: {path:?}");
    }
    println!("{grain:?}: {} states", report.states);
    report.states
}

/// Optimized it goes further.
const FURTHER: usize = if cfg!(debug_assertions) { 0 } else { 1 };

#[test]
fn every_order_of_events() {
    assert!(search(Grain::Every, 1, 2) > 3000);
}

#[test]
fn one_order_of_events() {
    assert!(search(Grain::Fixed, 2, 2 + FURTHER) > 500);
}

#[test]
fn at_rest() {
    assert!(search(Grain::Rest, 1, 3 + FURTHER) > 50);
}

/// Goes a path with so many blocks and returns what was said on the way.
fn goes(blocks: u8, path: &[Act]) -> String {
    goes_as(Grain::Every, blocks, path)
}

fn goes_as(grain: Grain, blocks: u8, path: &[Act]) -> String {
    let plan = Plan {
        shape: Shape { blocks, ..SHAPE },
        grain,
        depth: 0,
        most: 0,
        recover: 1,
        threads: 1,
        memory: u64::MAX,
    };
    let mut said = String::new();
    let end = replay(&plan, path, |line| {
        said.push_str(line);
        said.push('\n');
    });
    assert_eq!(end, Ok(()), "{said}");
    said
}

fn survives(path: &[Act]) {
    goes(1, path);
}

/// A path as `drbd-search` prints it.
fn numbers(path: &[u8]) -> Vec<Act> {
    let act = |n: &u8| Act::from_number(*n).expect("a step");
    path.iter().map(act).collect()
}

/// A node loses its power before it has stored that it was synchronised: a full sync, and the
/// connection is lost before it hears of that. The source must still know whose data it has.
#[test]
fn a_full_sync_that_its_target_does_not_hear_of() {
    let path = [
        1, 2, 25, 6, 5, 0, 22, 22, 22, 22, 22, 3, 3, 3, 3, 3, 22, 22, 22, 3, 3, 3, 5, 5, 22, 4, 23,
        3, 23, 36, 40, 24, 24, 4, 6, 5, 5, 0, 22, 22, 22, 22, 22, 24, 24, 24, 3, 3, 3, 3, 3, 5, 5,
        5, 22, 22, 22, 3, 3, 3, 1,
    ];
    goes(2, &numbers(&path));
}

/// The peer's disk loses what it had acknowledged, after this node has become Secondary: nothing
/// would lead to a resync, though bits are set.
#[test]
fn a_primary_steps_back_when_the_peer_has_flushed() {
    let disk = |n| Act::Inner(Event::Disk(n));
    let packet = |n, sock| Act::Inner(Event::Packet(n, sock));
    survives(&[
        Act::Write(0, 0),
        disk(0),
        disk(0),
        packet(1, 0),
        disk(1),
        Act::Crash(1, Power::Flushed),
        packet(0, 1),
        Act::Secondary(0),
        disk(0),
        disk(0),
        Act::Inner(Event::Notice(0)),
        disk(0),
        disk(0),
    ]);
}

/// A disk that is being detached is flushed before its last epoch is acknowledged.
#[test]
fn a_disk_is_flushed_on_its_way_out() {
    let disk = |n| Act::Inner(Event::Disk(n));
    let packet = |n, sock| Act::Inner(Event::Packet(n, sock));
    survives(&[
        Act::Write(0, 0),
        Act::Detach(1),
        disk(0),
        packet(1, 0),
        disk(1),
        packet(0, 1),
        packet(0, 0),
        packet(1, 1),
        packet(1, 0),
        Act::Crash(1, Power::Flushed),
        packet(0, 1),
        Act::Inner(Event::Notice(0)),
        disk(0),
        disk(0),
        disk(0),
    ]);
}

/// A write of a node that has just been promoted waits until its superblock says that the activity
/// log counts: the target has it already when the power fails.
#[test]
fn the_first_write_of_a_primary_is_logged() {
    let path = [
        17, 21, 25, 5, 5, 0, 22, 22, 22, 22, 11, 22, 4, 3, 3, 3, 3, 3, 22, 22, 22, 22, 4, 8, 3, 3,
        3, 5, 5, 17,
    ];
    goes(2, &numbers(&path));
}

/// The same path: what the source hears of the end is on the target's disk, so that a power failure
/// costs no full sync.
#[test]
fn the_end_of_a_resync_is_stored_before_it_is_told() {
    let path = [
        1, 2, 25, 6, 5, 0, 22, 22, 22, 22, 22, 3, 3, 3, 3, 3, 22, 22, 22, 3, 3, 3, 5, 5, 22, 4, 23,
        3, 23, 36, 40, 24, 24, 4, 6, 5, 5, 0, 22, 22, 22, 22, 22, 24, 24, 24, 3, 3, 3, 3, 3,
    ];
    let said = goes(2, &numbers(&path));
    assert!(!said.contains("full sync"), "{said}");
}

/// A Primary asks whether it may detach, is told yes, loses the connection and keeps its disk.
#[test]
fn a_primary_that_may_detach_and_does_not() {
    goes(1, &numbers(&[16, 33, 22, 24, 3, 25, 24, 5]));
    // The peer wants to detach as well.
    goes(2, &numbers(&[16, 35, 22, 1]));
}

/// A Primary without a disk writes to its peer, which loses it and then its power: the bits must
/// not be in memory only.
#[test]
fn a_peer_remembers_what_a_primary_without_a_disk_wrote() {
    goes_as(Grain::Rest, 1, &numbers(&[16, 8, 1, 36]));
    goes(2, &numbers(&[16, 8, 22, 4, 17, 24, 22, 24, 25, 39]));
}

/// The source does not hear of the end of a resync, then the target is detached and attached. Both
/// must conclude the same, though the source has been written to.
#[test]
fn an_attach_after_a_missed_end_of_a_resync() {
    let missed = [
        1, 2, 6, 5, 25, 0, 3, 3, 3, 3, 3, 5, 22, 22, 22, 22, 22, 3, 22, 22, 22, 3, 3, 5, 22, 4, 23,
        1, 6,
    ];
    goes(1, &numbers(&[&missed[..], &[35]].concat()));
    goes(1, &numbers(&[&missed[..], &[8, 5, 5, 5, 35]].concat()));
}

/// A Primary attaches again just when its peer begins a generation for it. It must not hear of that
/// before it is stored: the peer loses its power.
#[test]
fn a_generation_that_nobody_has() {
    goes(
        1,
        &numbers(&[16, 22, 4, 22, 5, 15, 5, 22, 22, 22, 22, 36, 3, 6]),
    );
}

/// The peer of a Primary without a disk wants to leave, and is lost while it asks.
#[test]
fn the_last_disk_does_not_leave_outdated() {
    goes(2, &numbers(&[16, 22, 4, 33, 3, 24, 3, 23, 1]));
    // It has asked before the Primary wanted to detach.
    goes(2, &numbers(&[33, 3, 23, 16, 22, 4, 1]));
}

/// A Primary leaves, and its last write ends before the generation that began with that is stable;
/// its power fails, while the peer is promoted: nobody may have been told of that write.
#[test]
fn nobody_hears_of_a_write_before_its_generation_is_stable() {
    goes(2, &numbers(&[8, 5, 22, 4, 14, 22, 4, 30, 5, 17, 21]));
}

/// A write that waits while the peer attaches gets there with the next connection.
#[test]
fn a_write_waits_for_the_next_connection() {
    goes(
        2,
        &numbers(&[
            16, 22, 4, 5, 15, 22, 22, 24, 5, 22, 22, 22, 5, 14, 24, 22, 8, 3, 3, 3, 6, 0, 3, 3, 3,
            3, 3,
        ]),
    );
}

/// The source of a resync is lost before it hears of the end; the target goes on, and is right.
#[test]
fn a_source_that_does_not_hear_of_the_end_has_nothing_to_itself() {
    goes(
        2,
        &numbers(&[
            16, 22, 24, 8, 4, 22, 22, 24, 24, 24, 4, 22, 24, 4, 3, 5, 22, 15, 5, 22, 22, 22, 24,
            24, 3, 3, 3, 3, 22, 22, 24, 3, 22, 24, 3, 5, 5, 5, 5, 23, 23, 4, 1,
        ]),
    );
}

/// Both detach, the Primary first: its last write is on the peer's disk alone, in a generation that
/// began with that. Connected again without disks, the Primary attaches its copy, which is bad, and
/// the peer then its own, from which that is made good.
#[test]
fn a_good_disk_is_attached_beside_a_bad_one() {
    let path = [
        5, 22, 24, 4, 16, 35, 5, 8, 22, 24, 22, 24, 4, 4, 22, 22, 24, 24, 24, 4, 1,
    ];
    goes(2, &numbers(&path));
}

/// A Primary, whose disk is back and older than the peer's, is told to disconnect while the peer is
/// asked the same, was refused, and has begun to send its bitmap: the peer is not Outdated beside a
/// Primary that has nothing.
#[test]
fn the_source_of_a_primary_does_not_leave_outdated() {
    let path = [
        5, 22, 24, 4, 16, 33, 5, 22, 24, 22, 24, 4, 4, 22, 3, 5, 22, 15, 5, 22, 22, 22, 23, 24, 5,
        14, 22, 3, 3, 6,
    ];
    goes(2, &numbers(&path));
}
