// SPDX-License-Identifier: GPL-2.0

//! The disk below a volume: a data device and, unless metadata is internal, a metadata device.

use drbd_kapi::block::bdev::{BlockDevice, Holder, IoDone, IoTarget};
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::Arc;

use super::resource::{Completions, Done};
use crate::io::jobs::io_result;

/// Where end_io of the lower devices leaves its results: the worker's queue.
pub(crate) struct Sink(pub(crate) Arc<Completions>);

impl IoTarget for Sink {
    fn io_done(&self, done: IoDone) {
        let done = Done { token: done.token, result: io_result(done.status), buf: done.buf };
        if self.0.queue.push(done).is_err() {
            // The queue holds more than the core can have in flight.
            kernel::pr_warn_once!("the completion queue overflowed; please report this\n");
        }
    }
}

/// Opened lower devices. Dropping it waits for all I/O on them: process context only.
pub(crate) struct Backing {
    data: Arc<BlockDevice<Sink>>,
    meta: Option<BlockDevice<Sink>>,
}

/// Which of the devices could not be opened.
pub(crate) enum OpenError {
    /// The data device.
    Data(Error),
    /// The metadata device.
    Meta(Error),
}

impl Backing {
    /// Opens the devices exclusively. `meta` equal to `data` means internal metadata.
    pub(crate) fn open(
        data: &CStr,
        meta: &CStr,
        completions: &Arc<Completions>,
        shared_meta: Option<&Arc<Holder>>,
    ) -> Result<Backing, OpenError> {
        let sink = || Arc::new(Sink(completions.clone()), GFP_KERNEL);
        let holder = Holder::new().map_err(OpenError::Data)?;
        let target = sink().map_err(|e| OpenError::Data(e.into()))?;
        let data_dev =
            BlockDevice::open(data, true, &holder, target).map_err(OpenError::Data)?;
        let data_dev = Arc::new(data_dev, GFP_KERNEL).map_err(|e| OpenError::Data(e.into()))?;
        // The same name is the common case; two names of one device are found out by the caller.
        let meta_dev = if data == meta {
            None
        } else {
            let holder = match shared_meta {
                Some(shared) => shared.clone(),
                None => holder,
            };
            let target = sink().map_err(|e| OpenError::Meta(e.into()))?;
            Some(BlockDevice::open(meta, true, &holder, target).map_err(OpenError::Meta)?)
        };
        let meta = match meta_dev {
            Some(dev) if dev.same_device(&data_dev) => None,
            other => other,
        };
        Ok(Backing { data: data_dev, meta })
    }

    /// The device that holds the data.
    pub(crate) fn data(&self) -> &Arc<BlockDevice<Sink>> {
        &self.data
    }

    /// The device that holds the metadata.
    pub(crate) fn meta(&self) -> &BlockDevice<Sink> {
        self.meta.as_ref().unwrap_or(&self.data)
    }

    /// Whether data and metadata share one device.
    pub(crate) fn is_internal(&self) -> bool {
        self.meta.is_none()
    }
}
