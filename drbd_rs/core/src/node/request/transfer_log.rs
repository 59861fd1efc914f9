// SPDX-License-Identifier: GPL-2.0

//! The order in which requests went out, and queues of requests that wait.
//!
//! Both are lists through the slab of requests: no storage of their own, no limit of their own.
//! A request is in at most one queue, and in the transfer log exactly while it is `Active`.

use core::ops::DerefMut;

use super::request::Request;
use crate::store::slab::{Id, Slab, Slot};

/// A first-in first-out queue of requests.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Queue {
    head: Option<Id>,
    tail: Option<Id>,
    len: u32,
}

impl Queue {
    pub(super) const EMPTY: Queue = Queue {
        head: None,
        tail: None,
        len: 0,
    };

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn front(&self) -> Option<Id> {
        self.head
    }

    pub(super) fn push_back<S>(&mut self, reqs: &mut Slab<Request, S>, id: Id)
    where
        S: DerefMut<Target = [Slot<Request>]>,
    {
        let Some(r) = reqs.get_mut(id) else { return };
        r.link = None;
        match self.tail.and_then(|t| reqs.get_mut(t)) {
            Some(last) => last.link = Some(id),
            None => self.head = Some(id),
        }
        self.tail = Some(id);
        self.len = self.len.saturating_add(1);
    }

    pub(super) fn push_front<S>(&mut self, reqs: &mut Slab<Request, S>, id: Id)
    where
        S: DerefMut<Target = [Slot<Request>]>,
    {
        let Some(r) = reqs.get_mut(id) else { return };
        r.link = self.head;
        if self.tail.is_none() {
            self.tail = Some(id);
        }
        self.head = Some(id);
        self.len = self.len.saturating_add(1);
    }

    pub(super) fn pop_front<S>(&mut self, reqs: &mut Slab<Request, S>) -> Option<Id>
    where
        S: DerefMut<Target = [Slot<Request>]>,
    {
        let id = self.head?;
        self.head = reqs.get_mut(id).and_then(|r| r.link.take());
        if self.head.is_none() {
            self.tail = None;
        }
        self.len = self.len.saturating_sub(1);
        Some(id)
    }
}

/// All active requests, the oldest first.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct TransferLog {
    oldest: Option<Id>,
    newest: Option<Id>,
}

impl TransferLog {
    pub(super) const EMPTY: TransferLog = TransferLog {
        oldest: None,
        newest: None,
    };

    pub(super) const fn oldest(&self) -> Option<Id> {
        self.oldest
    }

    pub(super) fn append<S>(&mut self, reqs: &mut Slab<Request, S>, id: Id)
    where
        S: DerefMut<Target = [Slot<Request>]>,
    {
        let before = self.newest;
        let Some(r) = reqs.get_mut(id) else { return };
        r.older = before;
        r.newer = None;
        match before.and_then(|b| reqs.get_mut(b)) {
            Some(b) => b.newer = Some(id),
            None => self.oldest = Some(id),
        }
        self.newest = Some(id);
    }

    pub(super) fn remove<S>(&mut self, reqs: &mut Slab<Request, S>, id: Id)
    where
        S: DerefMut<Target = [Slot<Request>]>,
    {
        let Some(r) = reqs.get_mut(id) else { return };
        let (older, newer) = (r.older.take(), r.newer.take());
        match older.and_then(|o| reqs.get_mut(o)) {
            Some(o) => o.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|n| reqs.get_mut(n)) {
            Some(n) => n.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::io::{AppId, AppIo, AppOp, IoFlags, VolIx};
    use crate::time::Instant;
    use crate::units::SectorRange;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn slab(n: usize) -> (Slab<Request, Vec<Slot<Request>>>, Vec<Id>) {
        let mut slab = Slab::new((0..n).map(|_| Slot::EMPTY).collect::<Vec<_>>());
        let io = AppIo {
            app: AppId(0),
            op: AppOp::Write,
            range: SectorRange::default(),
            flags: IoFlags::default(),
        };
        let ids = (0..n)
            .map(|_| slab.insert(Request::new(VolIx(0), io, Instant(0))).unwrap())
            .collect();
        (slab, ids)
    }

    proptest! {
        #[test]
        fn behaves_like_lists(ops in proptest::collection::vec((0u8..3, 0usize..8), 0..100)) {
            let (mut reqs, ids) = slab(8);
            let mut log = TransferLog::EMPTY;
            let mut queue = Queue::EMPTY;
            let (mut m_log, mut m_queue) = (VecDeque::new(), VecDeque::new());
            for (op, n) in ops {
                let id = ids[n];
                match op {
                    0 if m_log.contains(&id) => {
                        log.remove(&mut reqs, id);
                        m_log.retain(|x| *x != id);
                    }
                    0 => {
                        log.append(&mut reqs, id);
                        m_log.push_back(id);
                    }
                    1 if !m_queue.contains(&id) && n % 2 == 0 => {
                        queue.push_front(&mut reqs, id);
                        m_queue.push_front(id);
                    }
                    1 if !m_queue.contains(&id) => {
                        queue.push_back(&mut reqs, id);
                        m_queue.push_back(id);
                    }
                    _ => prop_assert_eq!(queue.pop_front(&mut reqs), m_queue.pop_front()),
                }
                prop_assert_eq!(queue.len() as usize, m_queue.len());
                prop_assert_eq!(queue.front(), m_queue.front().copied());
                let walked: Vec<Id> = std::iter::successors(log.oldest(), |i| reqs.get(*i)?.newer)
                    .collect();
                prop_assert_eq!(walked, m_log.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
