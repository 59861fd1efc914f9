// SPDX-License-Identifier: GPL-2.0

//! What the cache of a device may forget when the power fails.

use super::*;

fn flushes(fx: &[Effect]) -> bool {
    let flush = |e: &Effect| matches!(e, Effect::Local { op, .. } if *op == LocalOp::Flush);
    fx.iter().any(flush)
}

/// All slots of the log are taken; the next extent puts one out.
fn full_log(apart: bool) -> Node {
    let mut n = Node::new(Role::Primary);
    let limits = &mut n.backing().disk.limits;
    (limits.meta_apart, limits.write_cache) = (apart, true);
    for extent in 0..67 {
        n.warm(extent + 1, u64::from(extent) * 8192);
    }
    n
}

#[test]
fn data_are_flushed_before_an_extent_leaves_a_log_on_another_device() {
    let mut n = full_log(false);
    let fx = n.write(100, 67 * 8192);
    assert!(!flushes(&fx));
    meta_token(&fx);

    for result in [Ok(()), Err(IoError::Unsupported)] {
        let mut n = full_log(true);
        let fx = n.write(100, 67 * 8192);
        assert!(flushes(&fx) && fx.len() == 1, "{fx:?}");
        let fx = n.local(local_token(&fx), result);
        assert!(!has_local(&fx), "{fx:?}");
        meta_token(&fx);
    }
}

#[test]
fn an_extent_does_not_leave_the_log_of_a_disk_that_cannot_flush() {
    let mut n = full_log(true);
    let fx = n.write(100, 67 * 8192);
    let fx = n.local(local_token(&fx), Err(IoError::Io));
    let log = |e: &Effect| matches!(e, Effect::Meta { op, .. } if *op == MetaOp::WriteAl);
    assert!(!fx.iter().any(log), "{fx:?}");
    assert!(n.state().disk <= Disk::Failed);
}

#[test]
fn nothing_waits_for_the_flush_of_a_disk_that_has_failed() {
    let mut n = full_log(true);
    let after = After::Control(control::Next::AfterChange { vol: VOL });
    let fx = n.step(|r, h| r.flush_data(VOL, after, h));
    assert!(flushes(&fx), "{fx:?}");
    let flushed = |n: &mut Node| n.backing().meta_io.flushed;
    assert_ne!(flushed(&mut n), After::Nothing);
    let change = control::StateChange::NONE.disk(Disk::Failed);
    n.step(|r, h| {
        r.change_state(VOL, change, control::Flags::HARD, h);
    });
    assert_eq!(flushed(&mut n), After::Nothing);
}

#[test]
fn a_flush_that_nobody_waits_for_any_more_is_followed_by_another_one() {
    let mut n = full_log(true);
    let after = |vol| After::Control(control::Next::AfterChange { vol });
    let first = n.step(|r, h| r.flush_data(VOL, after(VOL), h));
    let fx = n.step(|r, h| r.flush_data(VOL, after(VOL), h));
    assert!(!has_local(&fx), "{fx:?}");
    let fx = n.local(local_token(&first), Ok(()));
    assert!(flushes(&fx), "{fx:?}");
    assert_ne!(n.backing().meta_io.flushed, After::Nothing);
    n.local(local_token(&fx), Ok(()));
    assert_eq!(n.backing().meta_io.flushed, After::Nothing);
}
