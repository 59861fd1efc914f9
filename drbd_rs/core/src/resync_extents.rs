// SPDX-License-Identifier: GPL-2.0

//! Exclusion between resync and application writes, per 16 MiB extent.
