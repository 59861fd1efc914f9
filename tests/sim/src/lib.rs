// SPDX-License-Identifier: GPL-2.0

//! A cluster of `drbd_core` in memory.
//!
//! The machines are the very code that the kernel module runs; everything around them is simulated
//! under a virtual clock: disks with volatile caches, a network with delays and cuts, clocks that
//! disagree, administrators, helpers and applications. Everything is decided by a seed, so that a
//! failing run can be repeated with a trace, and made shorter.
//!
//! The books ([`truth`]) know what applications were told; the machine is wrong as soon as a read,
//! a disk or a state disagrees with them. See docs/correctness.md.

pub mod admin;
pub mod algebra;
mod begin;
pub mod below;
pub mod chaos;
pub mod cover;
pub mod dense;
pub mod disk;
pub mod drbdmeta;
mod io;
pub mod jobs;
pub mod knobs;
mod marks;
pub mod moves;
pub mod mutants;
pub mod net;
pub mod node;
pub mod plan;
pub mod queue;
mod rest;
pub mod rng;
pub mod run;
pub mod stats;
mod told;
pub mod truth;
pub mod vary;
pub mod world;

pub use world::World;
