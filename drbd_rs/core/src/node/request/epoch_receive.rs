// SPDX-License-Identifier: GPL-2.0

//! Epochs of the peer's writes: what has to be stable before what.
//!
//! ```text
//!  open ──BARRIER(nr)──▶ closed ──all written──▶ [flush of every disk] ──▶ BARRIER_ACK(nr, size)
//! ```
//!
//! Epochs are acknowledged in order. With `drain` and `flush` nothing of the next epoch goes to a
//! disk before the earlier one is finished; the receiver pauses meanwhile. With `flush` the
//! acknowledgement leaves after the flush, even if the epoch was idle already: the C driver
//! acknowledges first, and a crash in between would lose writes that nobody has marked.

use super::epoch_owed::Owed;
use super::token::Name;
use super::unheard::Unheard;
use super::UNIT;

use super::super::io::{AppResult, Effect, Host, Lost, PeerIx, VolIx};
use super::super::{Note, Resource, Store, Violation, Volume, PEER};
use crate::state::disk::State as Disk;
use crate::wire::{BarrierAck, BarrierNr};

/// Epochs of the peer that may be unfinished at once; the receiver pauses well before.
const EPOCHS: usize = 64;
/// With so many the receiver pauses.
const PAUSE_AT: u32 = 48;

/// How the order of two epochs is kept on the disk. The numbers are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ordering {
    /// Not at all: the disk keeps it by itself.
    None,
    /// The next epoch waits until the writes have completed.
    Drain,
    /// ... and until they are stable.
    Flush,
}

impl Ordering {
    /// The word in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Ordering::None => "none",
            Ordering::Drain => "drain",
            Ordering::Flush => "flush",
        }
    }
}

/// One epoch.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Epoch {
    /// Writes in it.
    size: u32,
    /// Those that are not finished.
    active: u32,
    /// The name that the barrier gave it.
    nr: Option<BarrierNr>,
}

/// How far the flush behind the oldest epoch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flushing {
    No,
    /// Volumes before the cursor were asked.
    Asking(u16),
    Asked,
}

/// The epochs of the peer that are not finished; the last one is open.
#[cfg_attr(not(CONFIG_RUST), derive(Clone))]
pub(super) struct Received {
    epochs: [Epoch; EPOCHS],
    /// Number of the oldest one.
    first: u32,
    /// How many there are, at least one.
    len: u32,
    flushing: Flushing,
    /// Flushes in flight.
    flushes: u32,
    flush_failed: bool,
    /// Acknowledgements that are put off.
    pub(super) owed: Owed,
    /// A disk is lost, and the peer may not know: epochs are not finished.
    pub(super) unheard: Option<Unheard>,
    /// A discard is at work: writes wait.
    pub(super) exclusive: bool,
}

impl core::hash::Hash for Received {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        let len = usize::try_from(self.len).unwrap_or(EPOCHS);
        self.epochs.iter().take(len).for_each(|e| e.hash(state));
        crate::key::name(crate::key::PEER_EPOCH, u64::from(self.first), state);
        (self.len, self.flushing, self.flushes).hash(state);
        (self.flush_failed, self.owed, self.unheard, self.exclusive).hash(state);
    }
}

impl Received {
    pub(super) const fn new() -> Received {
        Received {
            epochs: [Epoch {
                size: 0,
                active: 0,
                nr: None,
            }; EPOCHS],
            first: 0,
            len: 1,
            flushing: Flushing::No,
            flushes: 0,
            flush_failed: false,
            owed: Owed::NOTHING,
            unheard: None,
            exclusive: false,
        }
    }

    /// As [`Received::new`], in its place: the stack is too small for another one.
    fn reset(&mut self) {
        let Received {
            epochs,
            first,
            len,
            flushing,
            flushes,
            flush_failed,
            owed,
            unheard,
            exclusive,
        } = self;
        for epoch in epochs {
            (epoch.size, epoch.active, epoch.nr) = (0, 0, None);
        }
        (*first, *len) = (0, 1);
        *flushing = Flushing::No;
        *flushes = 0;
        *flush_failed = false;
        owed.clear();
        *unheard = None;
        *exclusive = false;
    }

    /// Unfinished epochs.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) const fn flushes(&self) -> u32 {
        self.flushes
    }

    fn oldest(&self) -> Epoch {
        self.epochs.first().copied().unwrap_or_default()
    }

    fn at(&mut self, number: u32) -> Option<&mut Epoch> {
        let ix = number.wrapping_sub(self.first);
        if ix >= self.len {
            return None;
        }
        self.epochs.get_mut(usize::try_from(ix).ok()?)
    }

    /// Whether an epoch with writes is unfinished.
    pub(super) fn has_writes(&self) -> bool {
        self.len > 1 || self.oldest().size != 0
    }

    /// The number of the open epoch.
    pub(super) const fn open(&self) -> u32 {
        self.first.wrapping_add(self.len).wrapping_sub(1)
    }

    /// A write arrived: it belongs to the open epoch, whose number is returned. `active`: it will
    /// be finished by [`Received::finish`].
    pub(super) fn count(&mut self, active: bool) -> u32 {
        let number = self.open();
        if let Some(e) = self.at(number) {
            e.size = e.size.saturating_add(1);
            e.active = e.active.saturating_add(u32::from(active));
        }
        number
    }

    /// A write of epoch `number` is finished.
    pub(super) fn finish(&mut self, number: u32) {
        if let Some(e) = self.at(number) {
            e.active = e.active.saturating_sub(1);
        }
    }

    /// A write of epoch `number` is not taken: it does not count.
    pub(super) fn exclude(&mut self, number: u32) {
        if let Some(e) = self.at(number) {
            e.size = e.size.saturating_sub(1);
            e.active = e.active.saturating_sub(1);
        }
    }

    /// Closes the open epoch. False if too many are unfinished.
    fn close(&mut self, nr: BarrierNr) -> bool {
        let open = self.open();
        let Some(e) = self.at(open) else { return false };
        if e.size == 0 {
            // Never acknowledged; the sender does not wait for it.
            return true;
        }
        let next = self.len.saturating_add(1);
        if crate::units::widen(EPOCHS) < u64::from(next) {
            return false;
        }
        if let Some(e) = self.at(open) {
            e.nr = Some(nr);
        }
        self.len = next;
        let open = self.open();
        if let Some(e) = self.at(open) {
            *e = Epoch::default();
        }
        true
    }

    fn pop(&mut self) {
        if self.len > 1 {
            self.epochs.rotate_left(1);
            self.first = self.first.wrapping_add(1);
            self.len = self.len.saturating_sub(1);
        }
        self.flushing = Flushing::No;
    }

    /// Whether a write of epoch `number` may go to the disk.
    pub(super) fn may_write(&self, number: u32, ordering: Ordering) -> bool {
        ordering == Ordering::None || number == self.first
    }

    pub(super) fn must_pause(&self, ordering: Ordering) -> bool {
        // What waits for the peer to hear of a lost disk must not keep its own news from here.
        let ordered = ordering != Ordering::None && self.unheard.is_none();
        self.exclusive || self.len > PAUSE_AT || (ordered && self.len > 1)
    }
}

impl<S: Store> Resource<S> {
    /// How the order of epochs is kept.
    pub(crate) fn write_ordering(&self) -> Ordering {
        self.io.ordering
    }

    /// Sets how the order of epochs is kept: at attach and with new disk options.
    pub(crate) fn set_write_ordering(&mut self, ordering: Ordering) {
        self.io.ordering = ordering;
    }

    pub(super) fn recv_barrier(
        &mut self,
        peer: PeerIx,
        nr: BarrierNr,
        h: &mut impl Host,
    ) -> Result<(), Violation> {
        let Some(e) = self.io_epochs(peer) else {
            return Err(Violation::Unexpected);
        };
        if !e.received.close(nr) {
            return Err(Violation::Flood);
        }
        self.received_epochs_pump(peer, h);
        Ok(())
    }

    /// Finishes epochs of the peer; true if room ran out.
    #[inline(never)]
    pub(super) fn received_epochs_pump(&mut self, peer: PeerIx, h: &mut impl Host) -> bool {
        loop {
            let (ordering, now) = (self.io.ordering, h.now());
            let Some(e) = self.io_epochs(peer) else {
                return false;
            };
            let rx = &mut e.received;
            if rx.overtakes() && h.room() < UNIT {
                return true;
            }
            // Asked in any case: a deadline that has passed wakes the machine no more.
            if rx.waited_in_vain(now) {
                self.log_peer(Note::LossUnheard, h);
                self.lost(peer, Lost::Timeout, h);
                return false;
            }
            let oldest = rx.oldest();
            let (Some(nr), 0, false) = (oldest.nr, oldest.active, rx.overtakes()) else {
                return false;
            };
            if h.room() < UNIT {
                return true;
            }
            if oldest.size == 0 {
                // All its writes were refused: the peer does not wait for it.
                rx.pop();
                continue;
            }
            if rx.flushing == Flushing::No && ordering == Ordering::Flush {
                rx.flushing = Flushing::Asking(0);
                rx.flush_failed = false;
            }
            if let Flushing::Asking(from) = rx.flushing {
                if !self.ask_for_flushes(peer, from, h) {
                    return true;
                }
            }
            let Some(e) = self.io_epochs(peer) else {
                return false;
            };
            if e.received.flushes != 0 {
                return false;
            }
            let failed = core::mem::take(&mut e.received.flush_failed);
            let number = e.received.first;
            e.received.pop();
            if failed && self.io.ordering == Ordering::Flush {
                self.io.ordering = Ordering::Drain;
                let note = Note::WriteOrdering(Ordering::Drain.name());
                h.emit(Effect::Log { vol: None, note });
            }
            let ack = BarrierAck {
                nr,
                set_size: oldest.size,
            };
            self.owe_barrier_ack(peer, number, ack, h);
        }
    }

    /// Whether the own disk may hold writes of the peer in its cache. One that is being detached
    /// does, and the peer forgets a write with the acknowledgement of its epoch. The C driver does
    /// not flush then.
    fn io_can_flush(&self, vol: VolIx) -> bool {
        let usable =
            |v: &Volume<S>| v.backing.is_some() && v.state.disk >= Disk::Failed && !v.io.abandon;
        self.io_vol(vol).is_some_and(usable)
    }

    /// Asks every disk for a flush, from volume `from` on. False if room ran out.
    fn ask_for_flushes(&mut self, peer: PeerIx, from: u16, h: &mut impl Host) -> bool {
        for vol in self.io_volumes().skip(usize::from(from)) {
            if h.room() < UNIT {
                if let Some(e) = self.io_epochs(peer) {
                    e.received.flushing = Flushing::Asking(vol.0);
                }
                return false;
            }
            if !self.io_can_flush(vol) {
                continue;
            }
            if let Some(e) = self.io_epochs(peer) {
                e.received.flushes = e.received.flushes.saturating_add(1);
            }
            self.emit_flush(vol, Name::Flush(vol), h);
        }
        if let Some(e) = self.io_epochs(peer) {
            e.received.flushing = Flushing::Asked;
        }
        true
    }

    /// A flush between two epochs is over.
    pub(super) fn epoch_flushed(&mut self, vol: VolIx, result: AppResult, h: &mut impl Host) {
        self.local_ends(vol);
        if let Some(e) = self.io_epochs(PEER) {
            e.received.flushes = e.received.flushes.saturating_sub(1);
            e.received.flush_failed |= result.is_err();
        }
        self.received_epochs_pump(PEER, h);
    }

    /// Forgets the peer's epochs without an acknowledgement; no flush is in flight.
    pub(super) fn reset_received_epochs(&mut self, peer: PeerIx) {
        if let Some(e) = self.io_epochs(peer) {
            e.received.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_counts_what_came_before_its_barrier() {
        let mut rx = Received::new();
        let a = rx.count(true);
        rx.count(false);
        assert!(rx.close(BarrierNr(7)));
        let b = rx.count(true);
        assert_ne!(a, b);
        assert_eq!((rx.oldest().size, rx.oldest().active), (2, 1));
        assert!(rx.may_write(a, Ordering::Flush) && !rx.may_write(b, Ordering::Drain));
        assert!(rx.may_write(b, Ordering::None));
        rx.finish(a);
        assert_eq!(rx.oldest().active, 0);
        rx.pop();
        assert_eq!((rx.len(), rx.oldest().size, rx.open()), (1, 1, b));
    }

    #[test]
    fn a_barrier_behind_nothing_is_no_epoch() {
        let mut rx = Received::new();
        assert!(rx.close(BarrierNr(1)));
        assert_eq!(rx.len(), 1);
        assert!(!rx.must_pause(Ordering::Flush));
    }

    #[test]
    fn a_flood_of_epochs_is_refused() {
        let mut rx = Received::new();
        for n in 0..63 {
            rx.count(true);
            assert!(rx.close(BarrierNr(n)));
        }
        rx.count(true);
        assert!(rx.must_pause(Ordering::None));
        assert!(!rx.close(BarrierNr(63)));
    }
}
