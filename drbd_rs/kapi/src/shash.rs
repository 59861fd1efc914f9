// SPDX-License-Identifier: GPL-2.0

//! Hashes and message authentication codes by the name that the crypto API gives them.

use crate::{
    block::{bio::Bio, pages::PageBuf},
    mem::NoIoScope,
    shim,
};
use core::ptr::NonNull;
use kernel::{error::from_err_ptr, error::to_result, prelude::*};

/// A hash algorithm and the state of one computation.
///
/// Needs `&mut` for everything, so that it needs no allocation per digest: each thread has its own.
///
/// # Invariants
///
/// `raw` is a hash handle of the shim.
pub struct Digest {
    raw: NonNull<c_void>,
}

// SAFETY: Handles are not tied to tasks.
unsafe impl Send for Digest {}
// SAFETY: With `&self` only constants are read.
unsafe impl Sync for Digest {}

impl Digest {
    /// Looks up an algorithm such as `sha256`, `crc32c` or `hmac(sha1)`, loading a module if that
    /// helps. Process context.
    ///
    /// Errors: ENOENT if there is none, EINVAL if it is not a synchronous hash.
    pub fn new(name: &CStr) -> Result<Self> {
        let _noio = NoIoScope::enter();
        // SAFETY: `name` is a C string.
        let raw = from_err_ptr(unsafe { shim::drbd_shim_hash_alloc(name.as_char_ptr()) })?;
        // INVARIANT: Just allocated.
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        Ok(Self { raw })
    }

    /// Bytes of a digest.
    pub fn size(&self) -> usize {
        // SAFETY: The handle is valid.
        unsafe { shim::drbd_shim_hash_size(self.raw.as_ptr()) as usize }
    }

    /// True if it must have a key and has none.
    pub fn needs_key(&self) -> bool {
        // SAFETY: The handle is valid.
        unsafe { shim::drbd_shim_hash_needs_key(self.raw.as_ptr()) }
    }

    /// Sets the key of an HMAC.
    pub fn set_key(&mut self, key: &[u8]) -> Result {
        let len = u32::try_from(key.len()).map_err(|_| EINVAL)?;
        let raw = self.raw.as_ptr();
        // SAFETY: The handle is valid, and `key` for reads of its length.
        to_result(unsafe { shim::drbd_shim_hash_setkey(raw, key.as_ptr(), len) })
    }

    /// Begins a computation, dropping an unfinished one.
    pub fn start(&mut self) -> Result {
        // SAFETY: The handle is valid.
        to_result(unsafe { shim::drbd_shim_hash_init(self.raw.as_ptr()) })
    }

    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) -> Result {
        let len = u32::try_from(data.len()).map_err(|_| EINVAL)?;
        let raw = self.raw.as_ptr();
        // SAFETY: The handle is valid, and `data` for reads of its length.
        to_result(unsafe { shim::drbd_shim_hash_update(raw, data.as_ptr(), len) })
    }

    /// Adds the content of a buffer.
    pub fn update_pages(&mut self, data: &PageBuf) -> Result {
        data.chunks().try_for_each(|chunk| self.update(chunk))
    }

    /// Adds the data of a request.
    pub fn update_bio(&mut self, bio: &Bio) -> Result {
        let raw = self.raw.as_ptr();
        bio.segments().try_for_each(|segment| {
            // SAFETY: The handle is valid, and the segment within a valid page.
            to_result(unsafe { shim::drbd_shim_hash_update_bvec(raw, segment.as_bvec()) })
        })
    }

    /// Ends the computation and writes the digest to the first [`Self::size`] bytes of `out`.
    ///
    /// Errors: EINVAL if `out` is too short.
    pub fn finish(&mut self, out: &mut [u8]) -> Result {
        if out.len() < self.size() {
            return Err(EINVAL);
        }
        let raw = self.raw.as_ptr();
        // SAFETY: The handle is valid, and `out` has room for a digest.
        to_result(unsafe { shim::drbd_shim_hash_final(raw, out.as_mut_ptr()) })
    }

    /// The digest of some bytes at once.
    pub fn digest(&mut self, data: &[u8], out: &mut [u8]) -> Result {
        self.start()?;
        self.update(data)?;
        self.finish(out)
    }
}

impl Drop for Digest {
    fn drop(&mut self) {
        // SAFETY: The handle is valid, and this is its last use.
        unsafe { shim::drbd_shim_hash_free(self.raw.as_ptr()) };
    }
}
