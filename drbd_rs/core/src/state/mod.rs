// SPDX-License-Identifier: GPL-2.0

//! States, the rules between them, and what a change entails.
