// SPDX-License-Identifier: GPL-2.0

//! The end: disks finish, helpers return, time passes, and `down` has to lead to nothing.

use super::world::World;
use super::VOLUMES;
use drbd_core::node::admin::Command;
use drbd_core::node::{Input, Lost, OpId, ReceiverWish, VolIx, PEER};

/// Timers that may expire until something is done.
const PATIENCE: u32 = 300;

/// What time alone, and threads that work, lead to. False: nothing is left to wait for.
fn pass_time(w: &mut World) -> bool {
    w.drain();
    if !w.helpers.is_empty() {
        w.finish_helper(0, 0);
        return true;
    }
    if w.receiver {
        match w.res.receiver_wish(PEER) {
            ReceiverWish::Exit => {
                w.receiver_gone();
                return true;
            }
            ReceiverWish::Close => {
                w.lost(Lost::Broken);
                w.closed();
                return true;
            }
            ReceiverWish::Run | ReceiverWish::Pause => {}
        }
    }
    let Some(at) = w.res.deadline() else {
        return false;
    };
    w.now = at;
    w.step(Input::Tick);
    true
}

/// Waits until every administrator has an answer.
fn answered(w: &mut World, what: &str) {
    for _ in 0..PATIENCE {
        w.drain();
        if w.ops.is_empty() {
            return;
        }
        assert!(pass_time(w), "{what}: no answer, and nothing to wait for");
    }
    panic!("{what}: no answer");
}

fn order(w: &mut World, command: Command) -> i32 {
    let what = format!("{command:?}");
    let word = what.split([' ', '{']).next().unwrap_or_default();
    w.order(command);
    answered(w, word);
    w.answer
}

/// What was asked before may wait for suspended I/O, which nobody resumes: as with the C driver,
/// only that the administrator can end it here.
fn asked_before(w: &mut World) {
    for _ in 0..PATIENCE {
        w.drain();
        if w.ops.is_empty() || !pass_time(w) {
            break;
        }
    }
    while let Some((op, _)) = w.ops.first_key_value() {
        let op = *op;
        w.call(|res, host| res.cancel(OpId(op), host));
        assert!(!w.ops.contains_key(&op), "a killed request goes on");
    }
}

/// Brings everything down and checks that nothing is left.
pub fn take_down(w: &mut World) {
    asked_before(w);
    let all = (0..VOLUMES).map(VolIx);
    let volumes: Vec<_> = all.filter(|v| w.res.volume_status(*v).is_some()).collect();
    order(
        w,
        Command::Disconnect {
            peer: PEER,
            force: true,
        },
    );
    for _ in 0..PATIENCE {
        if !w.receiver || !pass_time(w) {
            break;
        }
    }
    assert!(!w.receiver, "the receiver stays");
    for vol in volumes.iter().copied() {
        order(w, Command::ResumeIo { vol });
    }
    for _ in 0..PATIENCE {
        if w.apps.is_empty() || !pass_time(w) {
            break;
        }
    }
    assert!(w.apps.is_empty(), "I/O that never ends: {:?}", w.apps);
    for vol in volumes {
        while w.openers[usize::from(vol.0)] > 0 {
            w.openers[usize::from(vol.0)] -= 1;
            w.step(Input::Opened { vol, open: false });
        }
        let a = order(w, Command::Secondary { vol });
        let b = order(w, Command::Detach { vol, force: true });
        for _ in 0..PATIENCE {
            if w.places[usize::from(vol.0)].is_none() || !pass_time(w) {
                break;
            }
        }
        let d = order(w, Command::DelVolume { vol });
        let left = w.res.volume_status(vol).map(|v| v.state);
        assert!(
            left.is_none(),
            "secondary {a}, detach {b}, del {d}: {left:?}"
        );
    }
    // Those that only inform may return to a volume that is gone.
    while !w.helpers.is_empty() {
        w.finish_helper(0, 0);
    }
    w.assert_empty();
}
