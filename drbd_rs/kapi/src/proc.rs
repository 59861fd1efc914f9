// SPDX-License-Identifier: GPL-2.0

//! A file in /proc whose content is made when it is read.

use crate::shim;
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_result,
    prelude::*,
    seq_file::SeqFile,
    sync::{Arc, ArcBorrow},
    types::ForeignOwnable,
};

/// Who makes the content.
pub trait Show: Send + Sync + 'static {
    /// Prints the whole content with [`kernel::seq_print!`]. It is called again, with a larger
    /// buffer, if the content did not fit. Process context; may sleep.
    fn show(this: ArcBorrow<'_, Self>, out: &SeqFile) -> Result;
}

/// A file in /proc. Dropping it removes the file and waits for its readers.
///
/// # Invariants
///
/// `entry` is in /proc, and shows `data`, which is an `Arc<S>`.
pub struct ProcFile<S: Show> {
    entry: NonNull<bindings::proc_dir_entry>,
    data: *mut c_void,
    _data: core::marker::PhantomData<Arc<S>>,
}

// SAFETY: Entries are not tied to tasks, and `Arc<S>` is `Send`.
unsafe impl<S: Show> Send for ProcFile<S> {}
// SAFETY: There is nothing to be done with `&self`.
unsafe impl<S: Show> Sync for ProcFile<S> {}

impl<S: Show> ProcFile<S> {
    /// Creates /proc/`name` with the permissions `mode`.
    ///
    /// Errors: ENOMEM, also if there is such a file already.
    pub fn new(name: &CStr, mode: u16, data: Arc<S>) -> Result<Self> {
        let data = data.into_foreign();
        let name = name.as_char_ptr();
        // SAFETY: The name is copied; `show` fits the data, which stays until the entry goes.
        let entry = unsafe { shim::drbd_shim_proc_create_single(name, mode, show::<S>, data) };
        let Some(entry) = NonNull::new(entry) else {
            // SAFETY: Nobody got hold of it.
            drop(unsafe { Arc::<S>::from_foreign(data) });
            return Err(ENOMEM);
        };
        // INVARIANT: Just created.
        Ok(Self {
            entry,
            data,
            _data: core::marker::PhantomData,
        })
    }
}

impl<S: Show> Drop for ProcFile<S> {
    fn drop(&mut self) {
        // SAFETY: The entry is there, by the invariant.
        unsafe { shim::drbd_shim_proc_remove(self.entry.as_ptr()) };
        // SAFETY: The removal has waited for the last reader.
        drop(unsafe { Arc::<S>::from_foreign(self.data) });
    }
}

/// # Safety
///
/// Called by seq_file for an entry of `ProcFile<S>`.
unsafe extern "C" fn show<S: Show>(m: *mut bindings::seq_file, _: *mut c_void) -> c_int {
    // SAFETY: `private` is the data given on creation, which stays while anybody reads.
    let this = unsafe { Arc::<S>::borrow((*m).private) };
    // SAFETY: The file is valid and used by this task only during the call.
    let out = unsafe { SeqFile::from_raw(m) };
    from_result(|| S::show(this, out).map(|()| 0))
}
