// SPDX-License-Identifier: GPL-2.0

//! Two nodes of `drbd_core` in memory.
//!
//! The machines are the very code that the kernel module runs; everything around them is simulated
//! under a virtual clock: disks with volatile caches, a network with delays and cuts,
//! administrators and applications. Everything is decided by a seed, so that a failing run can be
//! repeated, and its trace is printed.
//!
//! The oracle knows what applications were told; the machine is wrong as soon as a read disagrees.

pub mod admin;
pub mod chaos;
pub mod disk;
pub mod drbdmeta;
pub mod net;
pub mod node;
pub mod oracle;
pub mod rng;
pub mod world;

pub use world::World;
