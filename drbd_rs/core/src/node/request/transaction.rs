// SPDX-License-Identifier: GPL-2.0

//! Transactions of the activity log on their way to the disk.
//!
//! ```text
//!  (data flushed) ─▶ pages of evicted extents ─▶ all stable ─▶ block (FUA, PREFLUSH) ─▶ commit
//! ```

use super::meta_io::{durable, Pages, Transaction, IN_FLIGHT};
use super::meta_move::Hold;
use super::token::Name;
use super::UNIT;

use super::super::control::{IoErrorKind, Next};
use super::super::io::{Host, MetaOp, VolIx};
use super::super::{After, Resource, Store};
use crate::units::saturate_u32;

impl<S: Store> Resource<S> {
    /// Begins a transaction if exchanges wait; true if room ran out.
    #[inline(never)]
    pub(super) fn start_transaction(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        let has_disk = self.io_has_disk(vol);
        let Some(b) = self.io_backing(vol) else {
            return false;
        };
        if b.meta_io.is_writing_log() || b.meta_io.hold != Hold::None {
            return false;
        }
        let caught_up = b.al.caught_up();
        let behind = has_disk && b.al.catch_up(&mut b.meta_io.tx);
        if caught_up {
            // What left the log meanwhile, its bits are in memory only.
            let after = After::Control(Next::LogCaughtUp { vol });
            self.write_bitmap(vol, Pages::Changed, after, h);
        }
        let Some(b) = self.io_backing(vol) else {
            return false;
        };
        if !behind && !b.al.transaction(&mut b.meta_io.tx) {
            return self.al_committed(vol, h);
        }
        if !b.meta_io.tx.is_durable() || !has_disk {
            b.al.commit(&b.meta_io.tx, has_disk);
            return self.al_committed(vol, h);
        }
        let evicts = b.meta_io.tx.evicted().next().is_some();
        if evicts && self.flushes_data_first(vol) {
            self.set_transaction(vol, Transaction::Flushing);
            self.emit_flush(vol, Name::LogFlush(vol), h);
            return false;
        }
        self.set_transaction(vol, Transaction::pages(false));
        self.transaction_pump(vol, h)
    }

    fn set_transaction(&mut self, vol: VolIx, to: Transaction) {
        if let Some(b) = self.io_backing(vol) {
            b.meta_io.transaction = to;
        }
    }

    /// Moves the transaction on; true if room ran out.
    #[inline(never)]
    pub(super) fn transaction_pump(&mut self, vol: VolIx, h: &mut impl Host) -> bool {
        loop {
            let Some(b) = self.io_backing(vol) else {
                return false;
            };
            let busy = b.meta_io.writes_pages();
            let Transaction::Pages {
                next,
                in_flight,
                failed,
            } = &mut b.meta_io.transaction
            else {
                return false;
            };
            if busy || *in_flight >= IN_FLIGHT {
                return false;
            }
            if h.room() < UNIT {
                return true;
            }
            let Some(extent) = b.meta_io.tx.evicted().nth(*next).filter(|_| !*failed) else {
                if *in_flight != 0 {
                    return false;
                }
                if *failed {
                    self.end_transaction(vol, false, h);
                } else {
                    self.write_al_block(vol, h);
                }
                return false;
            };
            *next = next.saturating_add(1);
            let page = u64::from(extent.0 >> 5);
            if b.bitmap.page_flags(page).is_changed() {
                *in_flight = in_flight.saturating_add(1);
                self.page_io(vol, page, Name::AlPage(vol, saturate_u32(page)), false, h);
            }
        }
    }

    pub(super) fn write_al_block(&mut self, vol: VolIx, h: &mut impl Host) {
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        b.meta_io.transaction = Transaction::Block;
        let sector = b.disk.layout.al_block(b.meta_io.tx.number());
        let flags = durable(b.disk.conf.md_flushes && b.meta_io.hold == Hold::None);
        self.emit_meta(
            vol,
            Name::AlBlock(vol),
            MetaOp::WriteAl,
            sector,
            4096,
            flags,
            h,
        );
    }

    /// Without `written` the disk has been given up; its requests go on to the peer alone.
    pub(super) fn end_transaction(&mut self, vol: VolIx, written: bool, h: &mut impl Host) {
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        if let Transaction::None = b.meta_io.transaction {
            return;
        }
        b.al.commit(&b.meta_io.tx, written);
        b.meta_io.transaction = Transaction::None;
        self.al_committed(vol, h);
        self.ring_block_done(vol, written, h);
        self.job_pump(vol, h);
    }

    pub(super) fn al_page_done(&mut self, vol: VolIx, page: u32, ok: bool, h: &mut impl Host) {
        let Some(b) = self.io_backing(vol) else {
            return;
        };
        if let Transaction::Pages {
            in_flight, failed, ..
        } = &mut b.meta_io.transaction
        {
            *in_flight = in_flight.saturating_sub(1);
            *failed |= !ok;
        }
        if !ok {
            b.bitmap.mark_changed(u64::from(page));
            self.io_error(vol, IoErrorKind::Meta, h);
        }
        self.transaction_pump(vol, h);
    }

    pub(super) fn al_block_done(&mut self, vol: VolIx, ok: bool, h: &mut impl Host) {
        if !ok {
            self.io_error(vol, IoErrorKind::Meta, h);
        }
        let tx = self.io_backing(vol).map(|b| b.meta_io.transaction);
        if let Some(Transaction::Block) = tx {
            self.end_transaction(vol, ok, h);
        }
    }
}
