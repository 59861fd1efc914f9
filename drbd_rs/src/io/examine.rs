// SPDX-License-Identifier: GPL-2.0

//! Looking at the content of buffers for the core: digests, and whether all is zero.
//!
//! It takes a while, so a thread of its own does it (`drbd_c_<resource>`), one after the other. The
//! digests are kept: to look an algorithm up for each block would cost more than the digest.

use drbd_core::digest;
use drbd_core::node::{DigestFor, Examine, Examined};
use drbd_core::wire::Name64;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::shash::Digest;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::time::{delay::fsleep, Delta};

use crate::objects::resource::Resource;

/// An algorithm, ready to be used.
struct Keyed {
    name: Name64,
    digest: Digest,
}

/// The algorithms in use.
#[derive(Default)]
pub(crate) struct Digests {
    csums: Option<Keyed>,
    verify: Option<Keyed>,
}

impl Digests {
    fn get(&mut self, which: DigestFor, name: Name64) -> Option<&mut Digest> {
        let place = match which {
            DigestFor::Csums => &mut self.csums,
            DigestFor::Verify => &mut self.verify,
        };
        if place.as_ref().is_none_or(|k| k.name != name) {
            *place = look_up(name).map(|digest| Keyed { name, digest });
        }
        place.as_mut().map(|k| &mut k.digest)
    }
}

/// `None`: this kernel does not know it, or it is longer than any that DRBD admits.
fn look_up(name: Name64) -> Option<Digest> {
    let text = core::str::from_utf8(name.as_bytes()).ok().filter(|n| !n.is_empty())?;
    loop {
        let found = CString::try_from_fmt(fmt!("{}", text)).and_then(|name| Digest::new(&name));
        match found {
            Ok(digest) => return Some(digest).filter(|d| d.size() <= digest::MAX),
            // Small allocations of a NOIO scope succeed as soon as any I/O below completes.
            Err(e) if e == ENOMEM => fsleep(Delta::from_millis(10)),
            Err(_) => return None,
        }
    }
}

/// What the content of `buf` is. May take milliseconds.
pub(crate) fn examine(resource: &Resource, buf: Option<&PageBuf>, what: Examine) -> Examined {
    match what {
        Examine::Zeroes => Examined::Zeroes(buf.is_some_and(PageBuf::is_zero)),
        Examine::Digest(which) => match compute(resource, buf, which) {
            Some(digest) => Examined::Digest(digest),
            None => Examined::Failed,
        },
    }
}

fn compute(
    resource: &Resource,
    buf: Option<&PageBuf>,
    which: DigestFor,
) -> Option<digest::Digest> {
    let name = resource.inner.lock().machine.algorithm(which);
    let mut digests = resource.digests.lock();
    let algorithm = digests.get(which, name)?;
    let mut out = [0u8; digest::MAX];
    if let Some(pages) = buf {
        algorithm.start().ok()?;
        algorithm.update_pages(pages).ok()?;
        algorithm.finish(&mut out).ok()?;
    }
    digest::Digest::new(out.get(..algorithm.size())?)
}
