// SPDX-License-Identifier: GPL-2.0

//! The log as requests use it, and its ring as a crash leaves it.

use super::*;
use crate::meta::al_block::{replay, ReplaySlot};
use crate::units::Sector;
use proptest::prelude::*;

type Log = ActivityLog<Vec<Slot>>;

fn log(slots: usize) -> Log {
    ActivityLog::new(vec![Slot::EMPTY; slots])
}

fn free(_: AlExtent) -> Interlock {
    Interlock::Free
}

/// A write of one sector into an extent.
fn one(extent: u32) -> Claim {
    Claim::new(SectorRange::new(Sector(u64::from(extent) << 13), 512))
}

/// A write that touches `n` extents.
fn many(extent: u32, n: u32) -> Claim {
    let bytes = (n - 1) * (4 << 20) + 4096;
    Claim::new(SectorRange::new(Sector(u64::from(extent) << 13), bytes))
}

fn next(log: &mut Log) -> Option<Tx> {
    let mut tx = Tx::new();
    log.transaction(&mut tx).then_some(tx)
}

fn run(log: &mut Log) {
    let tx = next(log).unwrap();
    log.commit(&tx, true);
}

#[test]
fn an_extent_is_busy_until_all_who_use_it_rest() {
    let mut log = log(4);
    let (mut a, mut b) = (many(0, 2), one(1));
    assert_eq!(log.begin(&mut a, free), Begin::NeedTransaction);
    assert_eq!(log.begin(&mut b, free), Begin::NeedTransaction);
    let busy = |log: &Log| [0, 1].map(|extent| log.is_busy(AlExtent(extent)));
    assert_eq!(busy(&log), [true; 2]);
    run(&mut log);
    log.rest(&mut a);
    log.rest(&mut a);
    assert_eq!(busy(&log), [false, true]);
    log.rest(&mut b);
    assert!(busy(&log) == [false; 2] && log.is_used(AlExtent(1)));
    // A new one is busy until it rests or goes, whoever of the others goes first.
    let mut c = log
        .try_begin(SectorRange::new(Sector(1 << 13), 512), free)
        .unwrap();
    assert_eq!(busy(&log), [false, true]);
    assert!(log.put(&mut a) && log.put(&mut b));
    assert_eq!(busy(&log), [false, true]);
    assert!(log.put(&mut c) && !log.is_used(AlExtent(1)));
    log.rest(&mut c);
    assert_eq!(busy(&log), [false; 2]);
}

#[test]
fn a_cold_extent_waits_for_its_transaction() {
    let mut log = log(4);
    let range = SectorRange::new(Sector(8192), 4096);
    assert!(log.try_begin(range, free).is_none() && next(&mut log).is_none());
    let (mut a, mut b) = (Claim::new(range), one(1));
    assert_eq!(log.begin(&mut a, free), Begin::NeedTransaction);
    assert_eq!(log.begin(&mut b, free), Begin::NeedTransaction);
    assert!(log.is_used(AlExtent(1)) && log.used() == 1);
    let tx = next(&mut log).unwrap();
    assert_eq!((tx.updates().count(), tx.evicted().count()), (1, 0));
    assert!(next(&mut log).is_none() && log.is_in_flight());
    // A third one joins the transaction in flight, a new extent cannot.
    let (mut c, mut d) = (one(1), one(2));
    assert_eq!(log.begin(&mut c, free), Begin::NeedTransaction);
    assert_eq!(log.begin(&mut d, free), Begin::Wait(Wait::Locked));
    log.commit(&tx, true);
    assert!([a, b, c].iter().all(|claim| log.is_stable(claim)) && !log.is_stable(&d));
    let mut fast = log.try_begin(range, free).unwrap();
    for claim in [&mut a, &mut b, &mut c, &mut fast, &mut d] {
        assert!(log.put(claim) && !claim.is_holding());
    }
    assert_eq!((log.used(), log.writes(), log.number()), (0, 1, 1));
}

#[test]
fn an_evicted_extent_is_named() {
    let mut log = log(1);
    let mut a = one(5);
    log.begin(&mut a, free);
    run(&mut log);
    let mut b = one(6);
    assert_eq!(log.begin(&mut b, free), Begin::Wait(Wait::Starving));
    log.put(&mut a);
    assert_eq!(log.begin(&mut b, free), Begin::NeedTransaction);
    let tx = next(&mut log).unwrap();
    assert_eq!(tx.evicted().collect::<Vec<_>>(), [AlExtent(5)]);
    log.commit(&tx, false);
    assert!(log.is_stable(&b));
    assert_eq!((log.number(), log.writes()), (1, 1));
}

#[test]
fn a_large_discard_goes_on_where_it_stopped() {
    let mut log = log(200);
    let (mut a, mut b) = (many(0, 33), many(100, 33));
    assert_eq!(log.begin(&mut a, free), Begin::NeedTransaction);
    assert_eq!(log.begin(&mut b, free), Begin::Wait(Wait::Full));
    assert_eq!((log.pending(), b.is_holding()), (64, true));
    run(&mut log);
    assert!(log.is_stable(&a) && !log.is_stable(&b));
    assert_eq!(log.begin(&mut b, free), Begin::NeedTransaction);
    assert_eq!(log.pending(), 2);
    run(&mut log);
    assert_eq!(log.begin(&mut b, free), Begin::Ready);
    assert!(log.put(&mut a) && log.put(&mut b) && log.used() == 0);
}

#[test]
fn the_resync_is_asked_before_anything_is_taken() {
    let mut log = log(8);
    let mut claim = many(3, 2);
    let busy = |e: AlExtent| match e.0 {
        4 => Interlock::Busy { first: true },
        _ => Interlock::Free,
    };
    assert_eq!(
        log.begin(&mut claim, busy),
        Begin::Wait(Wait::Resync { first: true })
    );
    assert!(!claim.is_holding() && log.pending() == 0);
}

/// A write half in the log and a resync that half locks the same 16 MiB do not wait for each other.
#[test]
fn a_claim_that_holds_keeps_the_resync_waiting() {
    let mut log = log(200);
    let (mut a, mut b) = (many(0, 33), many(101, 32));
    assert_eq!(log.begin(&mut a, free), Begin::NeedTransaction);
    assert_eq!(log.begin(&mut b, free), Begin::Wait(Wait::Full));
    run(&mut log);
    // Extents 101 to 131 are held, 132 begins another resync extent.
    let asked = |e: AlExtent| match e.0 {
        132 => Interlock::Busy { first: false },
        _ => unreachable!(),
    };
    let busy = Begin::Wait(Wait::Resync { first: false });
    assert_eq!(log.begin(&mut b, asked), busy);
    let (mut c, mut d) = (many(200, 63), many(300, 2));
    let mut other = self::log(200);
    other.begin(&mut c, free);
    assert_eq!(other.begin(&mut d, free), Begin::Wait(Wait::Full));
    run(&mut other);
    let asked = |_| Interlock::Busy { first: true };
    assert_eq!(other.begin(&mut d, asked), Begin::NeedTransaction);
    run(&mut other);
    assert!(other.is_stable(&d) && other.put(&mut d) && other.put(&mut c));
}

#[test]
fn a_request_may_give_up_while_it_waits() {
    let mut log = log(2);
    let mut claim = one(9);
    log.begin(&mut claim, free);
    assert!(log.put(&mut claim) && log.used() == 0);
    run(&mut log);
    let mut again = one(9);
    assert_eq!(log.begin(&mut again, free), Begin::Ready);
}

#[test]
fn without_updates_nothing_is_to_be_written() {
    let mut log = log(1);
    log.set_updates(false);
    for extent in 0..2 {
        let mut claim = one(extent);
        assert_eq!(log.begin(&mut claim, free), Begin::NeedTransaction);
        let tx = next(&mut log).unwrap();
        assert!(!tx.is_durable() && tx.evicted().next().is_none());
        log.commit(&tx, false);
        assert!(log.is_stable(&claim) && log.put(&mut claim));
    }
    assert_eq!((log.number(), log.writes()), (0, 0));
}

#[test]
fn with_updates_again_the_ring_gets_all_that_is_in_the_log() {
    let slots = 2 * AL_CONTEXT_PER_TRANSACTION as usize - 1;
    let mut log = log(slots);
    log.set_updates(false);
    let mut claim = one(7);
    log.begin(&mut claim, free);
    run(&mut log);
    let mut tx = Tx::new();
    assert!(!log.is_stale() && !log.catch_up(&mut tx));
    log.set_updates(true);
    let mut context = Vec::new();
    for _ in 0..2 {
        assert!(log.is_stale() && !log.caught_up());
        assert!(log.catch_up(&mut tx) && tx.is_durable());
        context.push(tx.context_start);
        log.commit(&tx, true);
    }
    assert_eq!(context, [0, AL_CONTEXT_PER_TRANSACTION]);
    assert!(!log.catch_up(&mut tx) && log.caught_up());
    assert!(!log.caught_up() && !log.is_stale() && log.put(&mut claim));
}

#[test]
fn suspending_empties_the_log_first() {
    let mut log = log(3);
    let mut claim = one(1);
    log.begin(&mut claim, free);
    assert!(!log.try_freeze());
    run(&mut log);
    assert!(log.try_freeze() && !log.shrink());
    assert!(log.replace(vec![Slot::EMPTY; 5]).is_err());
    log.put(&mut claim);
    assert!(log.shrink());
    log.set_suspended(true);
    log.thaw();
    let mut other = one(7);
    assert_eq!(log.begin(&mut other, free), Begin::NotNeeded);
    assert!(log.put(&mut other) && log.is_suspended());
    assert_eq!(log.replace(vec![Slot::EMPTY; 5]).unwrap().len(), 3);
    assert_eq!(log.capacity(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever happens, a crash finds every extent that is being written to in the ring.
    #[test]
    fn replay_finds_what_is_hot(
        slots in 1usize..2000,
        start: u32,
        ops in proptest::collection::vec((0u32..3000, 1u32..4, any::<u8>()), 1..120),
    ) {
        let mut log = log(slots);
        log.number = start;
        let mut ring = [[0u8; 4096]; 8];
        let mut open: Vec<Claim> = Vec::new();
        // The ring starts as a resize leaves it.
        for _ in 0..8 {
            let mut tx = Tx::new();
            prop_assert!(log.rewrite_step(&mut tx));
            log.encode(&tx, &mut ring[tx.number() as usize % 8]);
            log.commit(&tx, true);
        }
        for (extent, n, dice) in ops {
            let mut claim = many(extent, n);
            let told = log.begin(&mut claim, free);
            open.push(claim);
            if dice % 3 != 0 {
                if let Some(tx) = next(&mut log) {
                    log.encode(&tx, &mut ring[tx.number() as usize % 8]);
                    log.commit(&tx, true);
                    prop_assert!(told != Begin::NeedTransaction || log.is_stable(&claim));
                }
            }
            if dice % 4 == 0 {
                let at = usize::from(dice) % open.len();
                prop_assert!(log.put(&mut open.swap_remove(at)));
            }
            let mut found = vec![ReplaySlot::EMPTY; slots];
            let seen = replay(ring.iter(), &mut found);
            prop_assert_eq!((seen.transactions, seen.corrupt, seen.lost), (8, 0, 0));
            prop_assert_eq!(seen.newest, Some(log.number().wrapping_sub(1)));
            let committed: Vec<_> = log.set().slots().map(|(_, s)| s.number()).collect();
            let found: Vec<_> = found.iter().map(|s| s.extent().unwrap_or(FREE)).collect();
            prop_assert_eq!(found, committed);
        }
    }
}
