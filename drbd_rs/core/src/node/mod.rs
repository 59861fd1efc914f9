// SPDX-License-Identifier: GPL-2.0

//! One resource on one node, as a machine of inputs and effects.
