// SPDX-License-Identifier: GPL-2.0
//! lab
fn main() {}
