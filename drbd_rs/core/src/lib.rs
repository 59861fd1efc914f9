// SPDX-License-Identifier: GPL-2.0

//! Every decision that DRBD makes, and nothing else.
//!
//! This crate is linked into `drbd_rs.ko` and is, source for source, what the host tests, the
//! simulator and the tools use. It does no I/O, takes no lock, allocates nothing, logs nothing and
//! knows no kernel: it is told what happened and at what time, and answers with what is to be done.

#![crate_name = "drbd_core"]
#![cfg_attr(not(any(test, CONFIG_RUST)), no_std)]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
// Nothing can be boxed without an allocator, and refusals are not made where it counts.
#![allow(clippy::result_large_err)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::as_conversions
    )
)]

pub mod al;
pub mod bitmap;
pub mod connect;
pub mod digest;
pub mod handshake;
pub mod key;
pub mod limits;
pub mod meta;
pub mod nl;
pub mod node;
pub mod resync_after;
pub mod resync_extents;
pub mod state;
pub mod store;
pub mod time;
pub mod units;
pub mod uuid;
pub mod wire;
