// SPDX-License-Identifier: GPL-2.0
//! The agent: `/init` of a node. See `drbd_lab::agent`.

use std::path::Path;

use drbd_lab::agent::{boot, serve};

fn main() {
    let result = boot::boot()
        .and_then(|()| boot::port("drbd.lab"))
        .and_then(|port| serve::serve(Path::new(&port)));
    // The end of process 1 panics the kernel, which ends the machine: just what is wanted here.
    if let Err(e) = result {
        eprintln!("lab agent: {e}");
    }
}
