// SPDX-License-Identifier: GPL-2.0

//! TCP from inside the kernel.

pub mod addr;
pub mod socket;
