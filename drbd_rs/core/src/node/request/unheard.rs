// SPDX-License-Identifier: GPL-2.0

//! The own disk is lost with writes of the peer in its cache.
//!
//! Nobody flushes them any more, and the peer marks them when it hears of the end of their epoch:
//! if it has heard by then that the disk is gone. The one goes over the meta socket, the other over
//! the data socket, and may be late. Should the peer take the epoch for stable, and both lose
//! their power before it writes there again, nothing tells the two copies apart. So the peer is
//! asked for nothing (`ask_for_nothing`) behind the news, and epochs that were open stay so until
//! it has answered. The C driver acknowledges them at once.
//!
//! The peer's receiver may wait for what such an epoch holds, as for an extent of its activity log
//! behind a request of a resync, and not come to the question. So there is an end to this, as long
//! as a peer may take to answer anything (`timeout`): then the connection is closed, which makes
//! the peer mark all that was not acknowledged.

use super::epoch_receive::Received;

use super::super::io::{Host, PeerIx, VolIx};
use super::super::{Resource, Store};
use crate::time::{Duration, Instant};

/// News of a lost disk that the peer may not have heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Unheard {
    /// Answers up to the one that says so.
    replies: u32,
    /// How long it is waited for.
    pub(super) until: Instant,
}

impl Received {
    /// Whether the end of an epoch would overtake news of a lost disk.
    pub(super) fn overtakes(&self) -> bool {
        self.unheard.is_some()
    }

    /// Whether that news has been waited for long enough, and in vain: the peer has writes here.
    pub(super) fn waited_in_vain(&mut self, now: Instant) -> bool {
        let over = self.unheard.is_some_and(|u| now >= u.until);
        if over {
            self.unheard = None;
        }
        over && self.has_writes()
    }
}

impl<S: Store> Resource<S> {
    /// The peer has been sent the news that the disk of a volume is lost.
    pub(crate) fn loss_sent(&mut self, peer: PeerIx, vol: VolIx, h: &mut impl Host) {
        let open = |r: &Received| r.has_writes();
        if !self.io_conn(peer).is_some_and(|c| open(&c.epochs.received)) {
            return;
        }
        self.ask_for_nothing(peer, vol, h);
        let now = h.now();
        let Some(c) = self.conns.get_mut(usize::from(peer.0)) else {
            return;
        };
        let timeout = c.ctl.conf.as_ref().map_or(0, |c| c.timeout);
        c.epochs.received.unheard = Some(Unheard {
            replies: c.ctl.replies_due,
            until: now.plus(Duration::tenths(u64::from(timeout))),
        });
    }

    /// The peer has answered the oldest question.
    pub(crate) fn loss_answered(&mut self, peer: PeerIx) {
        let Some(e) = self.io_epochs(peer) else {
            return;
        };
        let unheard = &mut e.received.unheard;
        *unheard = unheard.and_then(|u| {
            let replies = u.replies.checked_sub(1).filter(|n| *n != 0)?;
            Some(Unheard { replies, ..u })
        });
    }
}
