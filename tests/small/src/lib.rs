// SPDX-License-Identifier: GPL-2.0

//! A small world: two nodes of `drbd_core` on disks of a few blocks, in which nothing happens by
//! itself.
//!
//! Whoever uses it chooses the next event: an I/O ends, a packet arrives, time passes, the power
//! fails. There is no randomness, so that a list of events is a complete description of a run, and
//! every event can be tried in every place. The simulator in `tests/sim` is the other way round: a
//! large world, and a seed that chooses.

pub mod disk;
pub mod drbdmeta;
pub mod ghost;
pub mod key;
pub mod node;
pub mod oracle;
pub mod script;
pub mod search;
pub mod world;

pub use world::World;
