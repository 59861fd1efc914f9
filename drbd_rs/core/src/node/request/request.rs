// SPDX-License-Identifier: GPL-2.0

//! One I/O of an application: a leg to the local disk, a leg to the peer.
//!
//! ```text
//!  Admission ─▶ Conflict ─▶ ActivityLog ─▶ Transaction ─▶ Active ─▶ (completed) ─▶ destroyed
//!     ▲                                          Held ◀───┘ ▲│
//!     │     reads and flushes go straight to Active ────────┘│
//!     └──────────── a read that failed, while suspended ─────┘
//! ```
//!
//! Whether the application may be told, and what, is a pure function of the two legs
//! ([`Request::outcome`]), as is whether the object may go ([`Request::is_finished`]). This file
//! changes nothing else.

use super::super::io::{AppIo, AppOp, AppResult, IoError, VolIx};
use crate::al::Claim;
use crate::store::slab::Id;
use crate::time::Instant;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Waits to be let in.
    Admission,
    /// Waits for an overlapping write.
    Conflict,
    /// Waits for its extents.
    ActivityLog,
    /// Has its extents; waits for the transaction to be stable.
    Transaction,
    /// Has its extents; waits for writes of the other Primary to the same blocks.
    Held,
    /// On its way to disk and peer.
    Active,
}

/// The leg to the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Local {
    /// Not used.
    None,
    /// Under way.
    Pending,
    /// Given up: the disk no longer counts, but has not answered yet.
    Abandoned,
    /// Done.
    Ok,
    /// Failed.
    Failed(IoError),
}

/// What the peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// Nothing yet; with protocol A: not sent yet.
    Awaited,
    /// It has the data, or sent them.
    Good,
    /// It has the data, and they may be marked in sync.
    GoodInSync,
    /// It could not.
    Refused,
    /// The connection ended first, or before the peer's copy was stable.
    Lost,
}

/// The leg to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Net {
    /// Not used.
    None,
    /// Sent or to be sent; the epoch is not acknowledged.
    Live {
        /// Not yet handed to TCP: the pages belong to the sender.
        queued: bool,
        /// What the peer said.
        answer: Answer,
    },
    /// Nothing more is expected from the peer.
    Done {
        /// Not yet handed to TCP: the pages belong to the sender.
        queued: bool,
        /// What the peer said.
        answer: Answer,
    },
}

impl Net {
    pub(super) const fn answer(self) -> Option<Answer> {
        match self {
            Net::None => None,
            Net::Live { answer, .. } | Net::Done { answer, .. } => Some(answer),
        }
    }

    /// The peer has not said whether it has the data.
    pub(super) const fn is_undecided(self) -> bool {
        matches!(
            self,
            Net::Live {
                answer: Answer::Awaited,
                ..
            }
        )
    }

    pub(super) const fn is_queued(self) -> bool {
        match self {
            Net::None => false,
            Net::Live { queued, .. } | Net::Done { queued, .. } => queued,
        }
    }

    pub(super) const fn is_live(self) -> bool {
        matches!(self, Net::Live { .. })
    }

    pub(super) const fn is_good(self) -> bool {
        matches!(self.answer(), Some(Answer::Good | Answer::GoodInSync))
    }

    /// The peer could not.
    pub(super) const fn is_refused(self) -> bool {
        matches!(self.answer(), Some(Answer::Refused))
    }

    /// The application has to wait for this leg.
    const fn is_pending(self) -> bool {
        self.is_queued() || matches!(self.answer(), Some(Answer::Awaited))
    }

    pub(super) fn set_answer(&mut self, new: Answer) {
        match self {
            Net::None => {}
            Net::Live { answer, .. } | Net::Done { answer, .. } => *answer = new,
        }
    }

    pub(super) fn set_sent(&mut self) {
        match self {
            Net::None => {}
            Net::Live { queued, .. } | Net::Done { queued, .. } => *queued = false,
        }
    }

    /// Nothing more is expected.
    pub(super) fn finish(&mut self) {
        if let Net::Live { queued, answer } = *self {
            *self = Net::Done { queued, answer };
        }
    }
}

/// What has to arrive before a write counts as replicated; protocols A, B, C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Expect {
    /// It was handed to TCP.
    Sent,
    /// RECV_ACK.
    Received,
    /// WRITE_ACK; for reads the data.
    Written,
}

/// What may be told the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// Nothing yet.
    Waits,
    /// This.
    Over(AppResult),
}

/// An I/O of an application.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub(super) vol: VolIx,
    pub(super) io: AppIo,
    pub(super) stage: Stage,
    pub(super) local: Local,
    pub(super) net: Net,
    pub(super) expect: Expect,
    /// References to the activity log.
    pub(super) claim: Claim,
    /// Which log these refer to: see [`super::MetaIo`].
    pub(super) log_of: u32,
    /// In the set of writes in flight.
    pub(super) in_writes: bool,
    /// The epoch of the transfer log it belongs to.
    pub(super) epoch: u32,
    /// The application was told.
    pub(super) completed: bool,
    /// The application may be told although I/O is suspended.
    pub(super) release: bool,
    /// The peer wants it again, after its own write to the same blocks (RETRY_WRITE).
    pub(super) postponed: bool,
    /// An earlier try has changed the own disk.
    pub(super) touched: bool,
    /// Its blocks were marked before it began anew.
    pub(super) marked: bool,
    /// The own copy, and that of the peer, are such that a write is safe there: UpToDate when it
    /// began, or when it was over. One that is being resynced may get the old data back.
    pub(super) counts: [bool; 2],
    /// The own disk works on a copy of its data.
    pub(super) copied: bool,
    /// Counts as in flight on the wire: see `congestion.rs`.
    pub(super) on_wire: bool,
    /// The local disk failed to read it.
    pub(super) avoid_local: bool,
    /// The peer failed to read it.
    pub(super) avoid_peer: bool,
    /// How often the peer, whose disk counts as good, has refused it: see `news.rs`.
    pub(super) refusals: u8,
    /// The connection that its leg to the peer belongs to.
    pub(super) incarnation: u32,
    /// How often replication had stopped when it was sent.
    pub(super) stops: u32,
    /// That both sides have it was noted.
    pub(super) in_sync: bool,
    /// The last thaw that has looked at it.
    pub(super) thawed: u32,
    /// When it went to the local disk.
    pub(super) local_at: Instant,
    /// When it was handed to TCP.
    pub(super) sent_at: Option<Instant>,
    /// The next one in a queue of its volume.
    pub(super) link: Option<Id>,
    /// Neighbours in the transfer log.
    pub(super) older: Option<Id>,
    pub(super) newer: Option<Id>,
}

crate::key::key! {
    Request {
        vol, io, stage, local, net, expect, claim, in_writes, completed, release, postponed,
        touched, marked, counts, copied, avoid_local, avoid_peer, refusals, in_sync, link, older,
        newer
    }
    names { log_of: LOG, epoch: EPOCH, incarnation: INCARNATION, stops: SPAN, thawed: WALK }
    not { on_wire, local_at, sent_at }
}

impl Request {
    pub(super) fn new(vol: VolIx, io: AppIo, now: Instant) -> Request {
        Request {
            vol,
            io,
            stage: Stage::Admission,
            local: Local::None,
            net: Net::None,
            expect: Expect::Written,
            claim: Claim::default(),
            log_of: 0,
            in_writes: false,
            epoch: 0,
            completed: false,
            release: false,
            postponed: false,
            touched: false,
            marked: false,
            counts: [true; 2],
            copied: false,
            on_wire: false,
            avoid_local: false,
            avoid_peer: false,
            refusals: 0,
            incarnation: 0,
            stops: 0,
            in_sync: false,
            thawed: 0,
            local_at: now,
            sent_at: None,
            link: None,
            older: None,
            newer: None,
        }
    }

    /// Whether it changes data.
    pub(super) const fn is_write(&self) -> bool {
        matches!(
            self.io.op,
            AppOp::Write | AppOp::Discard | AppOp::WriteZeroes { .. }
        )
    }

    /// With protocol A nobody has said that the peer has it, with B not that its disk has it. That
    /// is enough beside a good copy here; if this one has failed, the peer's has to be certain, and
    /// with B also if there is none. The C driver does not wait.
    pub(super) fn needs_word(&self) -> bool {
        let [here, _] = self.counts;
        let failed = matches!(self.local, Local::Failed(_) | Local::Abandoned);
        let alone = match self.expect {
            Expect::Sent => failed,
            Expect::Received => !(self.local == Local::Ok && here),
            Expect::Written => false,
        };
        let told = self.net.is_live() && self.net.answer() == Some(Answer::Good);
        alone && told && self.is_write()
    }

    /// What may be told the application.
    pub(super) fn outcome(&self) -> Outcome {
        if self.local == Local::Pending || self.net.is_pending() {
            return Outcome::Waits;
        }
        if self.needs_word() {
            return Outcome::Waits;
        }
        let [here, there] = self.counts;
        Outcome::Over(
            if self.local == Local::Ok && here || self.net.is_good() && there {
                Ok(())
            } else if let Local::Failed(why) = self.local {
                Err(why)
            } else {
                Err(IoError::Io)
            },
        )
    }

    /// Whether nothing refers to it any more.
    pub(super) const fn is_finished(&self) -> bool {
        self.completed
            && !matches!(self.local, Local::Pending | Local::Abandoned)
            && !self.net.is_queued()
            && !self.net.is_live()
    }

    /// Whether the application knows that it is written here and there.
    pub(super) fn is_on_both(&self) -> bool {
        let there = self.expect == Expect::Written && self.net.is_good() && !self.net.is_queued();
        self.is_write() && self.completed && self.local == Local::Ok && there
    }

    /// Whether it can be sent again now that the peer wants it to.
    pub(super) const fn may_restart(&self) -> bool {
        self.postponed && !matches!(self.local, Local::Pending) && !self.net.is_queued()
    }

    /// Whether the own disk has it, and that copy is given up.
    pub(super) fn is_given_up(&self) -> bool {
        let [here, _] = self.counts;
        self.is_write() && self.local == Local::Ok && !here
    }

    /// Whether it changes data, and the own disk could not.
    pub(super) const fn fails_here(&self) -> bool {
        self.is_write() && matches!(self.local, Local::Failed(_))
    }

    /// Whether it was tried at all.
    pub(super) const fn was_tried(&self) -> bool {
        !matches!((self.local, self.net), (Local::None, Net::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::io::{AppId, IoFlags};
    use crate::units::{Sector, SectorRange};

    fn write() -> Request {
        let io = AppIo {
            app: AppId(1),
            op: AppOp::Write,
            range: SectorRange::new(Sector(0), 4096),
            flags: IoFlags::default(),
        };
        Request::new(VolIx(0), io, Instant(0))
    }

    #[test]
    fn a_write_is_over_when_both_legs_are() {
        let locals = [Local::None, Local::Pending, Local::Abandoned, Local::Ok];
        let answers = [Answer::Awaited, Answer::Good, Answer::Refused, Answer::Lost];
        for local in locals {
            for answer in answers {
                for queued in [false, true] {
                    let mut r = write();
                    r.local = local;
                    r.net = Net::Live { queued, answer };
                    let waits = local == Local::Pending || queued || answer == Answer::Awaited;
                    let good = local == Local::Ok || answer == Answer::Good;
                    let expected = match (waits, good) {
                        (true, _) => Outcome::Waits,
                        (false, true) => Outcome::Over(Ok(())),
                        (false, false) => Outcome::Over(Err(IoError::Io)),
                    };
                    assert_eq!(r.outcome(), expected);
                    r.completed = true;
                    assert!(!r.is_finished());
                    r.net.finish();
                    let held = queued || matches!(local, Local::Pending | Local::Abandoned);
                    assert_eq!(r.is_finished(), !held);
                }
            }
        }
    }

    #[test]
    fn a_write_that_only_a_bad_copy_has_failed() {
        let mut r = write();
        r.local = Local::Failed(IoError::Io);
        r.net = Net::Done {
            queued: false,
            answer: Answer::GoodInSync,
        };
        r.counts = [true, false];
        assert_eq!(r.outcome(), Outcome::Over(Err(IoError::Io)));
        r.counts = [false, true];
        assert_eq!(r.outcome(), Outcome::Over(Ok(())));
        (r.local, r.net) = (Local::Ok, Net::None);
        assert_eq!(r.outcome(), Outcome::Over(Err(IoError::Io)));
    }

    #[test]
    fn with_protocol_b_the_only_good_copy_has_to_be_written() {
        let mut r = write();
        r.expect = Expect::Received;
        r.local = Local::Ok;
        r.net = Net::Live {
            queued: false,
            answer: Answer::Good,
        };
        assert_eq!(r.outcome(), Outcome::Over(Ok(())));
        r.counts = [false, true];
        assert_eq!(r.outcome(), Outcome::Waits);
        let epoch = r.net;
        r.net.finish();
        assert_eq!(r.outcome(), Outcome::Over(Ok(())));
        r.net = epoch;
        r.net.set_answer(Answer::Refused);
        assert_eq!(r.outcome(), Outcome::Over(Err(IoError::Io)));
    }

    #[test]
    fn the_local_error_is_reported_if_nobody_has_the_data() {
        let mut r = write();
        r.local = Local::Failed(IoError::Unsupported);
        assert_eq!(r.outcome(), Outcome::Over(Err(IoError::Unsupported)));
        r.net = Net::Done {
            queued: false,
            answer: Answer::GoodInSync,
        };
        assert_eq!(r.outcome(), Outcome::Over(Ok(())));
    }
}
