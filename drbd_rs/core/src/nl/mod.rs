// SPDX-License-Identifier: GPL-2.0

//! Generic netlink: attributes, schema, messages.
