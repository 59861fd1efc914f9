// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that end with the value that stands for them.

use crate::shim;
use core::{marker::PhantomData, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, from_result},
    fmt,
    prelude::*,
    str::CString,
    types::{ForeignOwnable, NotThreadSafe},
};

/// What a thread is given to learn that it shall end.
pub struct Stop {
    _here: NotThreadSafe,
}

impl Stop {
    /// True once somebody waits for the thread to end.
    ///
    /// [`Wait::Idle`](crate::wait::Wait::Idle) ends with the request; a thread that is blocked in
    /// something else has to be woken by other means, such as shutting its socket down.
    pub fn requested(&self) -> bool {
        // SAFETY: This value exists in kernel threads only.
        unsafe { bindings::kthread_should_stop() }
    }
}

/// A running thread.
///
/// Dropping it asks the thread to stop and waits, without a limit, until it has ended; for its code
/// and what it refers to must be there until then. A thread must not drop itself.
///
/// While it lives, the module cannot be unloaded.
///
/// # Invariants
///
/// `task` is a thread made by [`KThread::spawn`], of which this value holds a reference, as it does
/// of the module. `unused` frees its closure if it was never run.
pub struct KThread {
    task: NonNull<bindings::task_struct>,
    closure: NonNull<c_void>,
    unused: unsafe fn(*mut c_void),
    _closure: PhantomData<fn()>,
}

// SAFETY: Threads may be stopped from any thread.
unsafe impl Send for KThread {}
// SAFETY: Nothing is changed with `&self`.
unsafe impl Sync for KThread {}

impl KThread {
    /// Starts a thread called `name` (its first 15 bytes show) that runs `f`.
    ///
    /// Errors: ENOMEM; ENODEV if the module is being unloaded.
    pub fn spawn<F>(name: fmt::Arguments<'_>, f: F) -> Result<Self>
    where
        F: FnOnce(&Stop) + Send + 'static,
    {
        let name = CString::try_from_fmt(name)?;
        let closure = KBox::new(f, GFP_KERNEL)?;
        if !shim::drbd_shim_module_try_get() {
            return Err(ENODEV);
        }
        let closure = closure.into_foreign();
        // SAFETY: The format takes one string. The closure stays valid until it is taken.
        let task = unsafe {
            let (node, format) = (bindings::NUMA_NO_NODE, c"%s".as_char_ptr());
            bindings::kthread_create_on_node(
                Some(run::<F>),
                closure,
                node,
                format,
                name.as_char_ptr(),
            )
        };
        let task = from_err_ptr(task).ok().and_then(NonNull::new);
        let Some(task) = task else {
            // SAFETY: There is no thread that could have taken it.
            unsafe { free::<F>(closure) };
            // SAFETY: The reference was taken above, by a caller that came by way of the module.
            unsafe { shim::drbd_shim_module_put() };
            return Err(ENOMEM);
        };
        // SAFETY: The thread exists, since it waits to be woken for the first time.
        unsafe { bindings::get_task_struct(task.as_ptr()) };
        // INVARIANT: Both references were just taken.
        let thread = Self {
            task,
            closure: NonNull::new(closure).unwrap_or(NonNull::dangling()),
            unused: free::<F>,
            _closure: PhantomData,
        };
        // SAFETY: As above.
        unsafe { bindings::wake_up_process(task.as_ptr()) };
        Ok(thread)
    }

    /// Asks it to stop and waits until it has ended.
    pub fn join(self) {
        drop(self);
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        // SAFETY: The task is valid; the field does not change.
        unsafe { (*self.task.as_ptr()).pid }
    }

    /// True if this is the thread that asks.
    pub fn is_current(&self) -> bool {
        kernel::current!().as_ptr() == self.task.as_ptr()
    }
}

impl Drop for KThread {
    fn drop(&mut self) {
        if self.is_current() {
            // Waiting for oneself would never end. The reference is given up, nothing more.
            kernel::pr_err!("a kernel thread dropped its own handle\n");
            // SAFETY: The reference is held, and the task runs, so this is not the last one.
            unsafe { bindings::put_task_struct(self.task.as_ptr()) };
            return;
        }
        // SAFETY: The reference that this value holds is given up here.
        let code = unsafe { bindings::kthread_stop_put(self.task.as_ptr()) };
        if code == EINTR.to_errno() {
            // SAFETY: That is the answer for a thread that never began; `run` never gives it.
            unsafe { (self.unused)(self.closure.as_ptr()) };
        }
        // SAFETY: The reference was taken when the thread was started. The caller's code stays: it
        // was called by way of the module, or runs in a thread that has a reference of its own.
        unsafe { shim::drbd_shim_module_put() };
    }
}

/// # Safety
///
/// `closure` must be a `KBox<F>` that nobody else takes.
unsafe fn free<F: 'static>(closure: *mut c_void) {
    // SAFETY: By the safety requirement.
    drop(unsafe { KBox::<F>::from_foreign(closure) });
}

/// # Safety
///
/// Called once, by the new thread, with a `KBox<F>`.
unsafe extern "C" fn run<F>(closure: *mut c_void) -> c_int
where
    F: FnOnce(&Stop) + Send + 'static,
{
    // SAFETY: By the safety requirement.
    let f = unsafe { KBox::<F>::from_foreign(closure) };
    from_result(|| {
        KBox::into_inner(f)(&Stop {
            _here: NotThreadSafe,
        });
        Ok(0)
    })
}
