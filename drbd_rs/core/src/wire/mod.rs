// SPDX-License-Identifier: GPL-2.0

//! The wire protocol, versions 86 to 101.
