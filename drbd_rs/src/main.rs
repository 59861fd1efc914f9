// SPDX-License-Identifier: GPL-2.0

//! DRBD 8.4 for Linux, in Rust: the module.
//!
//! This ring owns threads and locks and executes what the core (`drbd_core`) decides, by means of
//! what kapi (`drbd_kapi`) offers. It decides nothing about DRBD itself, and has no `unsafe`.

#![forbid(unsafe_code)]

mod admin;
mod errands;
mod errno;
mod exec;
mod helper;
mod io;
mod limits;
mod log;
mod objects;
mod params;
mod proc;
mod submit;
mod threads;

use drbd_kapi::block::disk::Major;
use drbd_kapi::proc::ProcFile;
use kernel::prelude::*;
use kernel::sync::Arc;

use objects::registry::Registry;
use objects::volume::MAJOR;
use proc::ProcDrbd;

module! {
    type: DrbdModule,
    name: "drbd_rs",
    authors: ["The drbd_rs engineers"],
    description: "DRBD 8.4 for Linux, in Rust: network RAID-1",
    license: "GPL",
    alias: ["block-major-147-*"],
    params: {
        minor_count: u32 {
            default: 32,
            description: "Approximate number of DRBD devices (1-255)",
        },
    },
}

/// What the loaded module owns. Fields are dropped in this order: first the ways in for user space.
struct DrbdModule {
    _proc: ProcFile<ProcDrbd>,
    family: admin::Registration,
    registry: Arc<Registry>,
    _major: Major,
}

impl kernel::Module for DrbdModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        params::check(module_parameters::minor_count.value())?;
        let major = Major::register(MAJOR, c"drbd")?;
        let registry = Registry::new()?;
        let family = admin::register(module, registry.clone())?;
        let proc = ProcFile::new(
            c"drbd",
            0o444,
            Arc::new(ProcDrbd { registry: registry.clone() }, GFP_KERNEL)?,
        )?;
        pr_info!("initialized. Version: {}\n", proc::VERSION);
        pr_info!("{}\n", proc::BUILD);
        pr_info!("registered as block device major {}\n", MAJOR);
        Ok(DrbdModule { _proc: proc, family, registry, _major: major })
    }
}

impl Drop for DrbdModule {
    fn drop(&mut self) {
        // First no new request, then nothing that is configured, then no major number.
        self.family.close();
        admin::teardown(&self.registry, self.family.admin());
        pr_info!("module cleanup done.\n");
    }
}
