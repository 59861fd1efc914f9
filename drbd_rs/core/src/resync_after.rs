// SPDX-License-Identifier: GPL-2.0

//! `resync-after`: which volume waits until others are in sync (algorithms.md §8).
//!
//! The option names a minor, of whatever resource. A resource knows its own volumes only; so each
//! tells about its volumes ([`Posted`], by [`Effect::SyncPosted`](crate::node::Effect)), the owner
//! keeps what all of them told last, and tells each volume that names another one whether it
//! [`must_wait`] ([`Resource::set_held_back`](crate::node::Resource::set_held_back)).
//!
//! ```text
//!   resource A ─ SyncPosted ─▶ the owner's table ─ must_wait ─▶ set_held_back ─▶ resource B
//! ```

use crate::units::Minor;

/// A chain of dependencies is not followed any further; there are fewer minors than that which
/// anybody would chain up, and configuration refuses cycles.
pub const LONGEST_CHAIN: u32 = 4096;

/// What other volumes want to know of a volume. One that does not exist has posted nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Posted {
    /// The minor that it waits for; `None` also without a disk.
    pub after: Option<Minor>,
    /// It is being synced or verified, or its resync is to pause.
    pub busy: bool,
}

impl Posted {
    /// Of an unconfigured volume.
    pub const NOTHING: Posted = Posted {
        after: None,
        busy: false,
    };
}

/// Whether a volume that waits for `after` has to wait: a volume on the way along the chain is
/// busy. `lookup` tells what a volume has posted, `None` if there is none with that minor: there
/// the chain ends, as it does at a volume without a disk.
pub fn must_wait(after: Option<Minor>, lookup: impl Fn(Minor) -> Option<Posted>) -> bool {
    let mut next = after;
    for _ in 0..LONGEST_CHAIN {
        let Some(posted) = next.and_then(&lookup) else {
            return false;
        };
        if posted.busy {
            return true;
        }
        next = posted.after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_link_of_the_chain_counts() {
        let chain = |busy: Option<u32>| {
            move |m: Minor| {
                (m.0 < 3).then(|| Posted {
                    after: Some(Minor(m.0 + 1)),
                    busy: busy == Some(m.0),
                })
            }
        };
        for at in 0..3 {
            assert!(must_wait(Some(Minor(0)), chain(Some(at))), "{at}");
        }
        assert!(!must_wait(Some(Minor(0)), chain(None)));
        assert!(!must_wait(Some(Minor(1)), chain(Some(0))), "behind us");
        assert!(!must_wait(None, chain(Some(0))));
        assert!(!must_wait(Some(Minor(9)), chain(Some(0))), "no such minor");
    }

    #[test]
    fn the_chain_ends_at_a_volume_without_a_disk() {
        let lookup = |m: Minor| match m.0 {
            1 => Some(Posted::NOTHING),
            _ => Some(Posted {
                after: None,
                busy: true,
            }),
        };
        assert!(!must_wait(Some(Minor(1)), lookup));
    }

    #[test]
    fn a_cycle_ends() {
        let lookup = |m: Minor| {
            Some(Posted {
                after: Some(Minor(1 - m.0)),
                busy: false,
            })
        };
        assert!(!must_wait(Some(Minor(0)), lookup));
    }
}
