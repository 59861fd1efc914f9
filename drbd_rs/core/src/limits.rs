// SPDX-License-Identifier: GPL-2.0

//! Limits and defaults of every option, as DRBD 8.4 has them.
