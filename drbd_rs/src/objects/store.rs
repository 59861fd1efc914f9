// SPDX-License-Identifier: GPL-2.0

//! The storage that the core works on.

use drbd_core::node::Store;
use drbd_kapi::mem;
use kernel::prelude::*;

/// `KVVec` for everything: small ones come from the slab, large ones from vmalloc.
pub(crate) struct KernelStore;

impl Store for KernelStore {
    type Vec<T> = KVVec<T>;
}

/// A vector of `n` times `value`, in the caller's allocation scope.
pub(crate) fn filled<T: Clone>(value: T, n: usize) -> Result<KVVec<T>> {
    mem::filled(n, || Ok(value.clone()))
}
