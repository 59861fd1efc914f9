// SPDX-License-Identifier: GPL-2.0

//! What exists: who owns whom, and in which order locks are taken.
//!
//! ```text
//! Registry ─▶ Resource ─▶ Volume ─▶ Backing        (Arc, downwards)
//!                 ▲          └─ GenDisk ─▶ Device ─┐
//!                 └────────────────────────────────┘
//! ```
//!
//! The one cycle (a device's private data refers to its resource) ends with `del-minor`, which
//! drops the `GenDisk`.

pub(crate) mod app;
pub(crate) mod backing;
pub(crate) mod connection;
pub(crate) mod posted;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod resource;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod turn;
pub(crate) mod volume;
