// SPDX-License-Identifier: GPL-2.0

//! The threads of a resource, under the names that the C driver uses where it has them.

pub(crate) mod asender;
pub(crate) mod auth;
pub(crate) mod connect;
mod guard;
pub(crate) mod receive;
pub(crate) mod receiver;
pub(crate) mod sender;
pub(crate) mod standing;
pub(crate) mod worker;
