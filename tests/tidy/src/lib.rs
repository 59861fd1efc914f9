// SPDX-License-Identifier: GPL-2.0

//! The style of the project, as a test: see `tests/style.rs`.
