// SPDX-License-Identifier: GPL-2.0

//! Feature negotiation and authentication of a fresh connection.
