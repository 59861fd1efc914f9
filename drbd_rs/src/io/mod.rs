// SPDX-License-Identifier: GPL-2.0

//! I/O that the core asks for.

pub(crate) mod examine;
pub(crate) mod jobs;
pub(crate) mod measure;
