// SPDX-License-Identifier: GPL-2.0

//! Containers over storage that the caller supplies.
