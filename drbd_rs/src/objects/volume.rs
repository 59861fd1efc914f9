// SPDX-License-Identifier: GPL-2.0

//! The driver's side of a volume: the block device above and the disk below.

use drbd_core::node::VolIx;
use drbd_core::units::{Minor, Vnr};
use drbd_kapi::block::bdev::HolderLink;
use drbd_kapi::block::disk::{DiskSpec, GenDisk};
use drbd_kapi::block::limits::Limits;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use super::backing::{Backing, Sink};
use super::resource::Resource;
use crate::submit::Device;

/// The major number of DRBD, assigned by LANANA.
pub(crate) const MAJOR: u32 = 147;

/// A disk in place, with its links in sysfs.
struct Below {
    backing: Arc<Backing>,
    _links: Option<HolderLink<Sink, Device>>,
}

/// One volume.
#[pin_data]
pub(crate) struct Volume {
    /// Its index in the core's machine.
    pub(crate) ix: VolIx,
    /// The minor number of its device.
    pub(crate) minor: Minor,
    /// Its number in the resource.
    pub(crate) vnr: Vnr,
    /// `/dev/drbd<minor>`.
    pub(crate) disk: Arc<GenDisk<Device>>,
    /// The disk below, from attach to the end of detach.
    #[pin]
    backing: Mutex<Option<Below>>,
}

impl Volume {
    /// Creates the block device, read-only and of size 0.
    pub(crate) fn new(
        module: &'static ThisModule,
        resource: &Arc<Resource>,
        ix: VolIx,
        minor: Minor,
        vnr: Vnr,
    ) -> Result<Arc<Volume>> {
        let private = Arc::new(Device { resource: resource.clone(), ix }, GFP_KERNEL)?;
        let spec = DiskSpec {
            module,
            major: MAJOR,
            minor: minor.0,
            name: fmt!("drbd{}", minor.0),
            limits: Limits { stable_writes: true, ..Limits::DEFAULT },
        };
        let disk = Arc::new(GenDisk::new(spec, private)?, GFP_KERNEL)?;
        disk.set_read_only(true);
        Arc::pin_init(
            try_pin_init!(Volume {
                ix,
                minor,
                vnr,
                disk,
                backing <- new_mutex!(None, "drbd_rs::Volume::backing"),
            }),
            GFP_KERNEL,
        )
    }

    /// The disk below.
    pub(crate) fn backing(&self) -> Option<Arc<Backing>> {
        self.backing.lock().as_ref().map(|b| b.backing.clone())
    }

    /// Puts a disk below, or takes it away; returns what was there.
    pub(crate) fn set_backing(&self, new: Option<Arc<Backing>>) -> Option<Arc<Backing>> {
        let new = new.map(|backing| {
            // Only what people see in sysfs depends on the links.
            let _links = HolderLink::new(backing.data().clone(), self.disk.clone()).ok();
            Below { backing, _links }
        });
        let old = core::mem::replace(&mut *self.backing.lock(), new);
        old.map(|below| below.backing)
    }
}
