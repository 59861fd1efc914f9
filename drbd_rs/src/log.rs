// SPDX-License-Identifier: GPL-2.0

//! Lines of the kernel log about resources and volumes, with the prefixes of the C driver.

use drbd_core::node::{Level, Note, Sock, VolIx};
use drbd_core::wire::Malformed;
use kernel::prelude::*;

use crate::objects::resource::Resource;

/// Lets the kernel's formatting show what only knows how to show itself to `core::fmt`.
pub(crate) struct Shown<'a, T>(pub(crate) &'a T);

impl<T: core::fmt::Display> kernel::fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        core::fmt::Display::fmt(self.0, f)
    }
}

/// Whom a line is about.
struct Subject<'a> {
    resource: &'a Resource,
    /// Number and minor.
    volume: Option<(u16, u32)>,
}

impl kernel::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let name = self.resource.label();
        match self.volume {
            Some((vnr, minor)) => f.write_fmt(fmt!("drbd {}/{} drbd{}", name, vnr, minor)),
            None => f.write_fmt(fmt!("drbd {}", name)),
        }
    }
}

/// Prints what the core has to say.
pub(crate) fn note(resource: &Resource, vol: Option<VolIx>, note: &Note) {
    let volume = vol.and_then(|v| resource.volume(v)).map(|v| (v.vnr.0, v.minor.0));
    let subject = Subject { resource, volume };
    match note.level() {
        Level::Info => pr_info!("{}: {}\n", subject, Shown(note)),
        Level::Warn => pr_warn!("{}: {}\n", subject, Shown(note)),
        Level::Error => pr_err!("{}: {}\n", subject, Shown(note)),
        Level::Alert => pr_alert!("{}: {}\n", subject, Shown(note)),
    }
}

/// The peer has sent what is no packet of DRBD's.
pub(crate) fn malformed(resource: &Resource, sock: Sock, what: Malformed) {
    let socket = match sock {
        Sock::Data => "data",
        Sock::Meta => "meta",
    };
    let subject = Subject { resource, volume: None };
    pr_err!("{}: malformed packet on the {} socket: {}\n", subject, socket, Shown(&what));
}
