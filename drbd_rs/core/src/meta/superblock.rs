// SPDX-License-Identifier: GPL-2.0
//! x
/// x
pub struct Superblock;
