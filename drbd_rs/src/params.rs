// SPDX-License-Identifier: GPL-2.0

//! Module parameters.

use kernel::prelude::*;

/// The range that the C driver accepts.
const MINOR_COUNT: core::ops::RangeInclusive<u32> = 1..=255;

/// Refuses a `minor_count` that makes no sense. It is a hint in the C driver too (the size of
/// memory pools); more minors than that may be used.
pub(crate) fn check(minor_count: u32) -> Result {
    if MINOR_COUNT.contains(&minor_count) {
        return Ok(());
    }
    pr_err!("invalid minor_count ({}), it must be 1 to 255; see modinfo drbd_rs\n", minor_count);
    Err(EINVAL)
}
