// SPDX-License-Identifier: GPL-2.0

//! The part of the kernel that a network block device needs, as safe Rust.
//!
//! This crate holds all the unsafe code of the module and knows nothing of DRBD: every file is
//! written as if it were to be moved under `rust/kernel/`. Where the kernel crate already has an
//! abstraction (mutexes, condition variables, reference counts, vectors), that one is used and is
//! not wrapped again.
//!
//! Allocations on the path of a request never recurse into I/O (GFP_NOIO); all others follow the
//! [`mem::NoIoScope`] of the caller.

#![crate_name = "drbd_kapi"]
#![cfg_attr(not(CONFIG_RUST), no_std)]
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod block;
pub mod clock;
pub mod genl;
pub mod kthread;
pub mod mem;
pub mod net;
pub mod proc;
pub mod queue;
pub mod shash;
mod shim;
pub mod umh;
pub mod wait;

/// What the `pr_*!` macros of the kernel crate put before a message.
const __LOG_PREFIX: &[u8] = b"drbd_rs\0";
