// SPDX-License-Identifier: GPL-2.0

//! Chunks of a bitmap on their way to the peer.
