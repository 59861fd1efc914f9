// SPDX-License-Identifier: GPL-2.0

//! The trial module: registers the block device major of DRBD and nothing else.

use drbd_kapi::block::disk::Major;
use kernel::prelude::*;

module! {
    type: DrbdModule,
    name: "drbd_rs",
    authors: ["drbd_rs developers"],
    description: "DRBD 8.4 in Rust",
    license: "GPL",
    alias: ["block-major-147-*"],
    params: {
        minor_count: u32 {
            default: 32,
            description: "Approximate number of drbd devices (1U-255U)",
        },
    },
}

struct DrbdModule {
    _major: Major,
}

impl kernel::Module for DrbdModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let count = module_parameters::minor_count.value();
        if !(1..=255).contains(&count) {
            pr_err!("invalid minor_count ({count})\n");
            return Err(EINVAL);
        }
        let major = Major::register(147, c"drbd")?;
        pr_info!("registered as block device major {}\n", major.number());
        Ok(Self { _major: major })
    }
}
