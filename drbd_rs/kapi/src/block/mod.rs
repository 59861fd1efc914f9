// SPDX-License-Identifier: GPL-2.0

//! Block devices: the one that is offered ([`disk`]) and the ones that are used ([`bdev`]).

pub mod bdev;
pub mod bio;
pub mod disk;
pub mod limits;
pub mod pages;
