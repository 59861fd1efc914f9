// SPDX-License-Identifier: GPL-2.0

//! The variable-length code for runs of equal bits (RLE_VLI_Bits).
