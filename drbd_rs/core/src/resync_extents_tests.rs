// SPDX-License-Identifier: GPL-2.0

//! The interlock between resync and application, and the counts kept for each extent.

use super::*;
use crate::bitmap::Need;
use crate::units::{Sector, Sectors};
use proptest::prelude::*;

type Extents = ResyncExtents<Vec<Slot>>;

const E: RsExtent = RsExtent(2);

fn extents(n: usize) -> Extents {
    ResyncExtents::new(vec![Slot::default(); n])
}

fn source(x: &mut Extents, claim: &mut SourceClaim, throttle: bool, busy: bool) -> SourceBegin {
    x.try_begin_source(claim, E, || 7, || throttle, |al| busy && al == AlExtent(9))
}

fn target(x: &mut Extents, e: RsExtent, throttle: bool, busy: bool) -> TargetBegin {
    x.try_begin_target(e, throttle, || 7, |_| busy)
}

#[test]
fn a_locked_extent_keeps_writes_out_until_the_last_put() {
    let mut x = extents(61);
    let mut claim = SourceClaim::default();
    assert!(x.application_may_write(AlExtent(9)));
    assert_eq!(
        source(&mut x, &mut claim, false, false),
        SourceBegin::Locked
    );
    assert_eq!(source(&mut x, &mut claim, false, true), SourceBegin::Locked);
    assert_eq!((x.locked(), x.state(E).map(|s| s.left())), (1, Some(7)));
    assert!(x.take_wake() && !x.application_may_write(AlExtent(11)) && x.take_wake());
    assert!(!x.application_may_write(AlExtent(8)) && !x.take_wake());
    assert!(x.application_may_write(AlExtent(12)) && x.is_priority(E));
    assert!(x.put(E) && !x.application_may_write(AlExtent(8)));
    assert!(!x.del_all() && x.put(E) && x.take_wake());
    assert!(!x.put(E) && x.application_may_write(AlExtent(8)));
    assert!(x.locked() == 0 && !x.is_priority(E));
    assert!(x.del_all() && x.state(E).is_none());
}

#[test]
fn a_half_lock_that_nobody_goes_on_with_is_released() {
    let mut x = extents(61);
    assert_eq!(target(&mut x, E, false, true), TargetBegin::Later);
    assert!(!x.application_may_write(AlExtent(8)));
    x.release_waiting();
    assert!(x.application_may_write(AlExtent(8)) && x.locked() == 0);
    x.release_waiting();
    assert_eq!(target(&mut x, E, false, false), TargetBegin::Locked);
    x.release_waiting();
    assert!(!x.application_may_write(AlExtent(8)));
}

#[test]
fn a_source_waits_for_the_log_and_steps_aside_only_above_the_minimum_rate() {
    let mut x = extents(61);
    let mut claim = SourceClaim::default();
    assert_eq!(source(&mut x, &mut claim, false, true), SourceBegin::Wait);
    assert!(!x.application_may_write(AlExtent(8)));
    assert_eq!(source(&mut x, &mut claim, true, true), SourceBegin::Wait);
    assert_eq!(source(&mut x, &mut claim, true, false), SourceBegin::Locked);
    x.put(E);
    assert_eq!(source(&mut x, &mut claim, true, true), SourceBegin::Wait);
    assert!(!x.application_may_write(AlExtent(8)));
    assert_eq!(
        source(&mut x, &mut claim, true, true),
        SourceBegin::StepAside
    );
    assert!(x.application_may_write(AlExtent(8)) && x.locked() == 0);
    assert_eq!(source(&mut x, &mut claim, true, true), SourceBegin::Wait);
    x.abandon_source(&mut claim, E);
    assert_eq!((x.locked(), claim), (0, SourceClaim::Idle));
    assert_eq!(source(&mut x, &mut claim, false, true), SourceBegin::Wait);
    x.cancel_all();
    assert_eq!(source(&mut x, &mut claim, false, false), SourceBegin::Wait);
    assert_eq!(
        source(&mut x, &mut claim, false, false),
        SourceBegin::Locked
    );
    assert!(x.put(E) && !x.put(E));
}

#[test]
fn a_target_remembers_one_half_locked_extent() {
    let mut x = extents(61);
    assert_eq!(target(&mut x, E, false, true), TargetBegin::Later);
    assert_eq!(target(&mut x, E, false, true), TargetBegin::Later);
    assert!(!x.application_may_write(AlExtent(8)));
    assert_eq!((x.locked(), x.set().used()), (1, 1));
    // Going elsewhere lets go of it.
    assert_eq!(target(&mut x, RsExtent(5), false, true), TargetBegin::Later);
    assert!(x.application_may_write(AlExtent(8)) && x.locked() == 1);
    // Throttled: elsewhere is refused at once, the remembered one is given up.
    assert_eq!(target(&mut x, E, true, false), TargetBegin::Later);
    assert!(!x.application_may_write(AlExtent(20)));
    assert_eq!(target(&mut x, RsExtent(5), true, true), TargetBegin::Later);
    assert!(x.application_may_write(AlExtent(20)) && x.locked() == 0);
    // Retried until the log has drained, then one reference is held.
    assert_eq!(target(&mut x, E, false, true), TargetBegin::Later);
    assert_eq!(target(&mut x, E, true, false), TargetBegin::Locked);
    assert_eq!(target(&mut x, E, false, false), TargetBegin::Locked);
    assert!(x.put(E) && x.put(E) && !x.put(E) && x.locked() == 0);
    assert_eq!(target(&mut x, E, false, true), TargetBegin::Later);
    assert!(x.del_all() && x.locked() == 0);
}

#[test]
fn the_set_is_never_filled_up() {
    let mut x = extents(61);
    let begun = |x: &mut Extents, n| target(x, RsExtent(n), false, false) == TargetBegin::Locked;
    assert_eq!((0..61).filter(|n| begun(&mut x, *n)).count(), 59);
    x.cancel_all();
    let wanted = |x: &mut Extents, n| {
        let mut claim = SourceClaim::Idle;
        x.try_begin_source(&mut claim, RsExtent(n), || 0, || false, |_| false)
            == SourceBegin::Locked
    };
    assert_eq!((0..61).filter(|n| wanted(&mut x, *n)).count(), 31);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn counts_follow_the_bitmap(
        ops in proptest::collection::vec((0u8..4, 0u64..5 * 32768, 1u64..70000), 0..60),
    ) {
        let cap = Sectors(5 * 32768 - 3);
        let need = Need::of(cap);
        let mut b = Bitmap::new(
            cap,
            vec![0u64; need.words as usize],
            vec![PageFlags::EMPTY; need.pages as usize],
        ).unwrap();
        let mut x = extents(3);
        for (op, start, len) in ops {
            let range = SectorRange { start: Sector(start), len: Sectors(len) };
            let mark = [Mark::OutOfSync, Mark::InSync, Mark::InSync, Mark::Failed][usize::from(op)];
            let before = b.weight();
            let marked = x.record(&mut b, range, mark);
            let after = match mark {
                Mark::OutOfSync => before + marked.bits,
                Mark::InSync => before - marked.bits,
                Mark::Failed => before,
            };
            prop_assert_eq!(b.weight(), after);
            prop_assert_eq!(x.take_wake(), marked.bits > 0);
            prop_assert_eq!(x.set().used(), 0);
            for (_, slot) in x.set().slots().filter(|(_, s)| s.number() != FREE) {
                prop_assert_eq!(slot.payload().left(), b.count_in(RsExtent(slot.number())));
                prop_assert!(slot.payload().failed() <= slot.payload().left());
            }
            if mark == Mark::InSync && b.weight() == 0 && marked.bits > 0 {
                prop_assert!(marked.finished_extents > 0);
            }
        }
    }
}
