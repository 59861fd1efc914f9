// SPDX-License-Identifier: GPL-2.0
//! The lab: virtual machines on one wire, to try drbd_rs and the in-tree C driver for real.
//!
//! A [`Cluster`] boots nodes under QEMU from the cache that `tests/lab/setup.sh` fills. Each node
//! has its own kernel and driver, disks that lose what was not flushed when the power is cut
//! ([`disk`]), and a port on a switch that can cut, delay and drop per direction ([`switch`]).
//! An agent inside ([`agent`]) runs commands and moves files.
//!
//! Invariants: every wait is bounded; at most two clusters run at a time on one machine; nothing
//! needs privileges or touches the machine's network; a kernel splat on any node fails the test.
//!
//! It is not a benchmark bed (emulated nodes, no offloads) and knows nothing of how either
//! driver works inside: it only uses what an administrator has.

pub mod acked;
pub mod agent;
pub mod cache;
pub mod client;
pub mod cluster;
pub mod console;
pub mod disk;
pub mod drbd;
pub mod error;
pub mod hostile;
pub mod initrd;
pub mod nbd;
pub mod node;
pub mod pairings;
pub mod pcap;
pub mod protocol;
pub mod qemu;
pub mod rng;
pub mod scenario;
pub mod switch;
pub mod tcp;

pub use cluster::Cluster;
pub use error::{Error, Result};
pub use node::{Driver, Kernel, Node, NodeSpec};
