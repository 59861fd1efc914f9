// SPDX-License-Identifier: GPL-2.0

//! Data generation UUIDs: rotation and the handshake decision.
