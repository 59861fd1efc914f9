// SPDX-License-Identifier: GPL-2.0

//! Flushes of the own data, where metadata are on another device.
//!
//! The superblock and the block of a transaction are written behind a flush. With internal
//! metadata that is one of the data, too; with external ones it leaves the cache of the data as it
//! is. Two of these writes take something back: a superblock, that the activity log counts; a
//! transaction, that an extent is in it. Should the power fail later, what the cache of the data
//! has forgotten is at the peer, and nothing tells that it is missing here: so the data go first.
//! The C driver does not flush them.
//!
//! A third one, the superblock of a node that is promoted, makes good what applications flushed at
//! the peer: that waits for the peer's own disk only, and what this node had of it goes on here. So
//! it is flushed before the promotion is answered.
//!
//! While all bits are set the log need not be kept, as the bitmap stands for all data. A resync
//! takes that back, too, extent by extent, and what was written before is in no log that a flush
//! would precede: with such a cache it is kept all the time.

use super::meta_io::Transaction;
use super::token::Name;

use super::super::control::IoErrorKind;
use super::super::io::{AppResult, Data, Effect, Host, IoError, IoFlags, LocalOp, VolIx};
use super::super::{After, Backing, Resource, Store};
use crate::state::disk::State as Disk;
use crate::units::SectorRange;

impl<S: Store> Resource<S> {
    /// Whether a flush of the metadata leaves data in a cache.
    pub(crate) fn flushes_data_first(&self, vol: VolIx) -> bool {
        let good = |v: &super::super::Volume<S>| v.state.disk >= Disk::Inconsistent;
        let v = self.io_vol(vol).filter(|v| good(v));
        v.and_then(|v| v.backing.as_ref()).is_some_and(|b| {
            let limits = &b.disk.limits;
            limits.caches_apart() && b.disk.conf.disk_flushes
        })
    }

    /// Flushes the data of a disk for which [`Resource::flushes_data_first`] holds. `after` runs
    /// when they are stable, or as soon as the disk has failed; one at a time. One that is under
    /// way was begun by a promotion that was killed since: nobody waits for it any more, and what
    /// was written behind it needs another one.
    pub(crate) fn flush_data(&mut self, vol: VolIx, after: After, h: &mut impl Host) {
        if let Some(b) = self.io_backing(vol) {
            let before = core::mem::replace(&mut b.meta_io.flushed, after);
            if before != After::Nothing {
                b.meta_io.flush_again = true;
                return;
            }
        }
        self.emit_flush(vol, Name::DataFlush(vol), h);
    }

    /// Asks the own disk for a flush, which counts among its I/O until that is over.
    pub(super) fn emit_flush(&mut self, vol: VolIx, name: Name, h: &mut impl Host) {
        if let Some(v) = self.io_vol_mut(vol) {
            v.io.local = v.io.local.saturating_add(1);
        }
        h.emit(Effect::Local {
            vol,
            io: name.io(),
            op: LocalOp::Flush,
            range: SectorRange::default(),
            flags: IoFlags::default(),
            data: Data::None,
        });
    }

    /// The flush before the log ceases to count is over.
    pub(super) fn data_flushed(&mut self, vol: VolIx, result: AppResult, h: &mut impl Host) {
        let ok = self.flush_ended(vol, result, h);
        let again = |b: &mut Backing<S>| core::mem::take(&mut b.meta_io.flush_again);
        if self.io_backing(vol).is_some_and(again) && ok {
            self.emit_flush(vol, Name::DataFlush(vol), h);
            return;
        }
        self.tell_flushed(vol, ok, h);
    }

    /// Nothing waits for a flush of a disk that has failed.
    pub(crate) fn tell_flushed(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        let after = self.io_backing(vol).map(|b| {
            b.meta_io.flush_again = false;
            core::mem::replace(&mut b.meta_io.flushed, After::Nothing)
        });
        self.run_soon(after.unwrap_or(After::Nothing), ok, h);
    }

    /// The flush before extents leave the log is over.
    pub(super) fn log_flushed(&mut self, vol: VolIx, result: AppResult, h: &mut impl Host) {
        let ok = self.flush_ended(vol, result, h);
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        if let Transaction::Flushing = b.meta_io.transaction {
            b.meta_io.transaction = Transaction::pages(!ok);
            self.transaction_pump(vol, h);
        }
    }

    /// True: what was written before is stable, or the device has no cache.
    fn flush_ended(&mut self, vol: VolIx, result: AppResult, h: &mut impl Host) -> bool {
        self.local_ends(vol);
        let failed = matches!(result, Err(IoError::Io | IoError::NoMemory));
        if failed {
            self.io_error(vol, IoErrorKind::Write, h);
        }
        !failed
    }
}
