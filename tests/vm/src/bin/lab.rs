// SPDX-License-Identifier: GPL-2.0
//! The lab from the command line: `drbd-lab demo [DRIVER DRIVER]`, `drbd-lab golden FOLDER`.
//!
//! A driver is `ours` (the default) or `c`.

use std::path::Path;
use std::process::ExitCode;

use drbd_lab::scenario::{demo, golden};
use drbd_lab::{Driver, Error, Result};

const USAGE: &str = "usage: drbd-lab demo [ours|c ours|c] | drbd-lab golden FOLDER";

fn driver(word: &str) -> Result<Driver> {
    match word {
        "ours" => Ok(Driver::Ours),
        "c" => Ok(Driver::C),
        _ => Err(Error::new(USAGE)),
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["demo"] => demo::run([Driver::Ours, Driver::Ours]),
        ["demo", a, b] => demo::run([driver(a)?, driver(b)?]),
        ["golden", folder] => golden::capture(Path::new(folder)),
        _ => Err(Error::new(USAGE)),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("drbd-lab: {e}");
            ExitCode::FAILURE
        }
    }
}
