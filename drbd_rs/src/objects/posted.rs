// SPDX-License-Identifier: GPL-2.0

//! What all volumes have told of themselves for the sake of `resync-after`, whatever resource they
//! belong to. The core decides what that means ([`drbd_core::resync_after`]).
//!
//! # Lock order
//!
//! The table's lock is the innermost of all: it is taken under `Resource::inner`, and nothing else
//! is taken or called under it.

use drbd_core::resync_after::{self, Posted};
use drbd_core::units::Minor;
use drbd_kapi::mem;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Mutex};

/// A volume and what it told last.
struct Entry {
    minor: Minor,
    posted: Posted,
}

/// One entry for each volume there is.
#[pin_data]
pub(crate) struct PostedTable {
    #[pin]
    entries: Mutex<KVVec<Entry>>,
}

impl PostedTable {
    /// No volumes.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(PostedTable {
            entries <- new_mutex!(KVVec::new(), "drbd_rs::PostedTable"),
        })
    }

    /// A volume comes; it has told nothing yet.
    pub(crate) fn add(&self, minor: Minor) -> Result {
        let entry = Entry { minor, posted: Posted::NOTHING };
        mem::push(&mut *self.entries.lock(), entry, GFP_KERNEL)
    }

    /// A volume has gone.
    pub(crate) fn remove(&self, minor: Minor) {
        let mut entries = self.entries.lock();
        if let Some(at) = entries.iter().position(|e| e.minor == minor) {
            let _ = entries.remove(at);
        }
    }

    /// A volume has told something new.
    pub(crate) fn post(&self, minor: Minor, posted: Posted) {
        if let Some(entry) = self.entries.lock().iter_mut().find(|e| e.minor == minor) {
            entry.posted = posted;
        }
    }

    /// The `n`th of the volumes that wait for another one.
    pub(crate) fn waiting(&self, n: usize) -> Option<Minor> {
        let entries = self.entries.lock();
        let mut all = entries.iter().filter(|e| e.posted.after.is_some());
        all.nth(n).map(|e| e.minor)
    }

    /// Whether this volume has to wait.
    pub(crate) fn must_wait(&self, minor: Minor) -> bool {
        let entries = self.entries.lock();
        let lookup = |m: Minor| entries.iter().find(|e| e.minor == m).map(|e| e.posted);
        resync_after::must_wait(lookup(minor).and_then(|p| p.after), lookup)
    }
}
