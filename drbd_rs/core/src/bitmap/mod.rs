// SPDX-License-Identifier: GPL-2.0

//! The bitmap of blocks that are out of sync.
