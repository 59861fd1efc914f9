// SPDX-License-Identifier: GPL-2.0

//! The activity log: which extents may differ after a crash.
