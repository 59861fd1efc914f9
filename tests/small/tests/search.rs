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
    assert!(search(Grain::Rest, 1, 4 + 30 * FURTHER) > 150);
}

fn survives(path: &[Act]) {
    let plan = Plan {
        shape: SHAPE,
        grain: Grain::Every,
        depth: 0,
        most: 0,
        recover: 1,
    };
    let mut said = String::new();
    let end = replay(&plan, path, |line| {
        said.push_str(line);
        said.push('\n');
    });
    assert_eq!(end, Ok(()), "{said}");
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
