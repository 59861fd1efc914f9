// SPDX-License-Identifier: GPL-2.0

//! Allocation scopes.

use crate::shim;
use kernel::types::NotThreadSafe;

/// While it lives, no allocation of this task starts I/O to make room for itself.
///
/// Whoever stands in the write-out path must not wait for write-out. A thread enters the scope once,
/// at its start; callbacks from user context enter it on the way in.
///
/// Scopes nest, and must end in the reverse order of their beginning, which local variables do by
/// themselves.
///
/// # Invariants
///
/// `saved` is what the task's flag was when the scope began. The value stays on its task.
#[must_use = "the scope ends when this is dropped"]
pub struct NoIoScope {
    saved: u32,
    _not_send: NotThreadSafe,
}

impl NoIoScope {
    /// Begins the scope for the current task.
    pub fn enter() -> Self {
        // INVARIANT: The flag is read and set for the current task, which this value cannot leave.
        Self {
            saved: shim::drbd_shim_noio_save(),
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for NoIoScope {
    fn drop(&mut self) {
        shim::drbd_shim_noio_restore(self.saved);
    }
}
