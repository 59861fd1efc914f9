// SPDX-License-Identifier: GPL-2.0

//! Looking at the content of buffers for the core: digests, and whether all is zero.
//!
//! It takes a while, so a thread of its own does it (`drbd_c_<resource>`), one after the other. The
//! digests are kept: to look an algorithm up for each block would cost more than the digest.

use drbd_core::digest::{self, Digest};
use drbd_core::node::{DigestFor, Examine, Examined};
use drbd_core::wire::Name64;
use drbd_kapi::block::bio::Bio;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::shash::Digest as Algorithm;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::time::{delay::fsleep, Delta};

use crate::objects::resource::Resource;

/// An algorithm, ready to be used.
struct Keyed {
    name: Name64,
    algorithm: Algorithm,
}

/// The algorithms in use.
#[derive(Default)]
pub(crate) struct Digests {
    csums: Option<Keyed>,
    verify: Option<Keyed>,
}

impl Digests {
    fn get(&mut self, which: DigestFor, name: Name64) -> Option<&mut Algorithm> {
        let place = match which {
            DigestFor::Csums => &mut self.csums,
            DigestFor::Verify => &mut self.verify,
        };
        if place.as_ref().is_none_or(|k| k.name != name) {
            *place = look_up_patiently(name).map(|algorithm| Keyed { name, algorithm });
        }
        place.as_mut().map(|k| &mut k.algorithm)
    }
}

/// The data whose digest is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    /// Of an application.
    Bio(&'a Bio),
    /// A buffer of the driver's.
    Pages(&'a PageBuf),
}

/// An algorithm, to be kept: a look-up costs more than a digest.
///
/// # Errors
/// This kernel does not know it, or it is longer than any that DRBD admits; ENOMEM.
pub(crate) fn look_up(name: Name64) -> Result<Algorithm> {
    let text = core::str::from_utf8(name.as_bytes()).map_err(|_| EINVAL)?;
    let found = Algorithm::new(&CString::try_from_fmt(fmt!("{}", text))?)?;
    if text.is_empty() || found.size() > digest::MAX {
        return Err(EINVAL);
    }
    Ok(found)
}

/// The digest of `content`.
///
/// # Errors
/// Those of the algorithm.
pub(crate) fn digest(algorithm: &mut Algorithm, content: Content<'_>) -> Result<Digest> {
    let mut out = [0u8; digest::MAX];
    algorithm.start()?;
    match content {
        Content::Bio(bio) => algorithm.update_bio(bio)?,
        Content::Pages(pages) => algorithm.update_pages(pages)?,
    }
    algorithm.finish(&mut out)?;
    out.get(..algorithm.size()).and_then(Digest::new).ok_or(EINVAL)
}

/// As [`look_up`], `None` where it will never succeed.
fn look_up_patiently(name: Name64) -> Option<Algorithm> {
    loop {
        match look_up(name) {
            Ok(algorithm) => return Some(algorithm),
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

/// Zeroes stand for blocks that could not be read.
fn compute(resource: &Resource, buf: Option<&PageBuf>, which: DigestFor) -> Option<Digest> {
    let name = resource.inner.lock().machine.algorithm(which);
    let mut digests = resource.digests.lock();
    let algorithm = digests.get(which, name)?;
    match buf {
        Some(pages) => digest(algorithm, Content::Pages(pages)).ok(),
        None => Digest::new([0u8; digest::MAX].get(..algorithm.size())?),
    }
}
