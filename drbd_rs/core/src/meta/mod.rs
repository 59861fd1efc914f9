// SPDX-License-Identifier: GPL-2.0

//! Metadata on disk, version 08.
