// SPDX-License-Identifier: GPL-2.0

//! The storage that the core works on.

use drbd_core::node::Store;
use kernel::prelude::*;

/// `KVVec` for everything: small ones come from the slab, large ones from vmalloc.
pub(crate) struct KernelStore;

impl Store for KernelStore {
    type Vec<T> = KVVec<T>;
    type Box<T> = KBox<T>;
}
