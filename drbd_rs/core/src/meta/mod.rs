// SPDX-License-Identifier: GPL-2.0

//! The metadata on disk: where it lies, its superblock and the blocks of the activity log.

pub mod al_block;
pub mod al_sector;
pub mod crc32c;
pub mod layout;
pub mod superblock;

pub use layout::{Invalid, Layout};
pub use superblock::Superblock;
