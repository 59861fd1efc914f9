// SPDX-License-Identifier: GPL-2.0

//! Running a program in user space and waiting for it.

use crate::{mem::push_within, shim};
use kernel::{bindings, prelude::*, types::ForeignOwnable};

/// How a program ended, as `wait()` reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitStatus(u32);

impl ExitStatus {
    /// What it returned from `main`; 0 if it was killed.
    pub const fn code(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The signal that killed it, or 0.
    pub const fn signal(self) -> u8 {
        (self.0 & 0x7f) as u8
    }

    /// Both, as the kernel has them.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// The strings of a call. They are copies, because the helper's thread may read them when the
/// caller has long been killed.
///
/// # Invariants
///
/// `argv` and `envp` end with null and point to C strings in `bytes`, as does `path`.
struct Strings {
    bytes: KVec<u8>,
    path: *mut c_char,
    argv: KVec<*mut c_char>,
    envp: KVec<*mut c_char>,
}

impl Strings {
    fn new(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> Result<KBox<Self>> {
        let all = [core::slice::from_ref(&path), argv, envp];
        let strings = || all.iter().copied().flatten().map(|s| s.to_bytes_with_nul());
        let size = strings().fold(0usize, |n, s| n.saturating_add(s.len()));
        let mut bytes = KVec::with_capacity(size, GFP_KERNEL)?;
        for byte in strings().flatten() {
            push_within(&mut bytes, *byte).map_err(|_| ENOMEM)?;
        }
        let mut me = Self {
            bytes,
            path: core::ptr::null_mut(),
            argv: KVec::with_capacity(argv.len().saturating_add(1), GFP_KERNEL)?,
            envp: KVec::with_capacity(envp.len().saturating_add(1), GFP_KERNEL)?,
        };
        // INVARIANT: The copies lie in the order of `all`, and `bytes` is not changed any more.
        let mut at = me.bytes.as_mut_ptr();
        let mut next = |s: &CStr| -> *mut c_char {
            let here = at;
            at = at.wrapping_add(s.to_bytes_with_nul().len());
            here.cast()
        };
        me.path = next(path);
        for s in argv {
            push_within(&mut me.argv, next(s)).map_err(|_| ENOMEM)?;
        }
        for s in envp {
            push_within(&mut me.envp, next(s)).map_err(|_| ENOMEM)?;
        }
        push_within(&mut me.argv, core::ptr::null_mut()).map_err(|_| ENOMEM)?;
        push_within(&mut me.envp, core::ptr::null_mut()).map_err(|_| ENOMEM)?;
        Ok(KBox::new(me, GFP_KERNEL)?)
    }
}

/// Runs the program at `path` with the arguments `argv`, the first of which is its name, and the
/// environment `envp`. Waits until it ends, or until this task is killed.
///
/// Errors: ENOENT or EACCES if it cannot be run, ERESTARTSYS or EINTR if this task was killed.
pub fn call(path: &CStr, argv: &[&CStr], envp: &[&CStr]) -> Result<ExitStatus> {
    let mut strings = Strings::new(path, argv, envp)?;
    let (path, argv, envp) = (
        strings.path,
        strings.argv.as_mut_ptr(),
        strings.envp.as_mut_ptr(),
    );
    let data = strings.into_foreign();
    shim::drbd_shim_module_get();
    // SAFETY: The arrays and strings stay until `clean_up`, which frees them.
    let info = unsafe {
        let gfp = shim::GFP_NOIO;
        bindings::call_usermodehelper_setup(path, argv, envp, gfp, None, Some(clean_up), data)
    };
    if info.is_null() {
        // SAFETY: Nobody got hold of the strings.
        unsafe { release(data) };
        return Err(ENOMEM);
    }
    let wait = (bindings::UMH_WAIT_PROC | bindings::UMH_KILLABLE) as c_int;
    // SAFETY: `info` was set up just now, and is given away.
    let status = unsafe { bindings::call_usermodehelper_exec(info, wait) };
    kernel::error::to_result(status)?;
    Ok(ExitStatus(status.unsigned_abs()))
}

/// # Safety
///
/// Called once, by the helper's machinery, when it needs the strings no more.
unsafe extern "C" fn clean_up(info: *mut bindings::subprocess_info) {
    // SAFETY: `data` is what `call` gave.
    unsafe { release((*info).data) };
}

/// # Safety
///
/// `data` must be the strings of a call, with which a reference to this module goes.
unsafe fn release(data: *mut c_void) {
    // SAFETY: By the safety requirement.
    drop(unsafe { KBox::<Strings>::from_foreign(data) });
    // SAFETY: By the safety requirement.
    unsafe { shim::drbd_shim_module_put() };
}
