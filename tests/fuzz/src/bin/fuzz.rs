// SPDX-License-Identifier: GPL-2.0

//! The targets under libFuzzer: `DRBD_FUZZ_TARGET` names one, the arguments are libFuzzer's.

#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<drbd_fuzz::Target> = OnceLock::new();
    TARGET.get_or_init(chosen)(data);
});

fn chosen() -> drbd_fuzz::Target {
    let name = std::env::var("DRBD_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = drbd_fuzz::TARGETS.iter().map(|(n, _)| *n).collect();
    drbd_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("DRBD_FUZZ_TARGET={name}: choose one of {}", names.join(" "));
        std::process::exit(2);
    })
}
