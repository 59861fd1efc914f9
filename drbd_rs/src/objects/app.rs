// SPDX-License-Identifier: GPL-2.0

//! An application's bio from its arrival to its end.

use core::sync::atomic::{AtomicU8, Ordering};

use drbd_core::node::{AppResult, IoError};
use drbd_kapi::block::bio::{Bio, Status};
use kernel::prelude::*;
use kernel::sync::Arc;

/// An application's bio, shared by the local submission, the sender and the table of the resource.
///
/// It ends when the last of them lets go: so nobody ever reads pages that the application already
/// got back. One small allocation per I/O is the price.
///
/// # Invariants
///
/// `bio` is `Some` until the drop.
pub(crate) struct App {
    bio: Option<Bio>,
    /// 0: not decided, 1: done, otherwise 2 + the error.
    verdict: AtomicU8,
}

impl App {
    /// Wraps a bio that just arrived.
    pub(crate) fn new(bio: Bio) -> Result<Arc<App>> {
        let app = App { bio: Some(bio), verdict: AtomicU8::new(0) };
        Ok(Arc::new(app, GFP_KERNEL)?)
    }

    /// The bio.
    pub(crate) fn bio(&self) -> Option<&Bio> {
        self.bio.as_ref()
    }

    /// Notes how the I/O went; the bio ends as soon as nobody uses its pages.
    pub(crate) fn decide(&self, result: AppResult) {
        let verdict = match result {
            Ok(()) => 1,
            Err(IoError::Io) => 2,
            Err(IoError::Unsupported) => 3,
            Err(IoError::NoMemory) => 4,
        };
        self.verdict.store(verdict, Ordering::Release);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(bio) = self.bio.take() {
            bio.end(match self.verdict.load(Ordering::Acquire) {
                1 => Status::OK,
                3 => Status::NOTSUPP,
                4 => Status::AGAIN,
                // Undecided: the resource went away under it, which `down` excludes.
                _ => Status::IOERR,
            });
        }
    }
}
