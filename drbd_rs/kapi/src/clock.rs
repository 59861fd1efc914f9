// SPDX-License-Identifier: GPL-2.0

//! What a deterministic core must be given from outside: the time and randomness.

use kernel::bindings;

/// Nanoseconds of the monotonic clock. It never goes back, and stands still in suspend.
pub fn monotonic_ns() -> u64 {
    // SAFETY: Reading the clock has no precondition.
    let now = unsafe { bindings::ktime_get() };
    now.max(0).unsigned_abs()
}

/// Seconds since 1970 of the wall clock. It may jump; good for stamps only.
pub fn wall_seconds() -> i64 {
    // SAFETY: Reading the clock has no precondition.
    unsafe { bindings::ktime_get_real_seconds() }
}

/// Fills `out` with random bytes fit for keys and challenges.
pub fn random_bytes(out: &mut [u8]) {
    // SAFETY: `out` is valid for writes of its length.
    unsafe { bindings::get_random_bytes(out.as_mut_ptr().cast(), out.len()) };
}

/// A random number, all values alike.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    random_bytes(&mut bytes);
    u64::from_ne_bytes(bytes)
}
