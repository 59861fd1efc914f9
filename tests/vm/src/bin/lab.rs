// SPDX-License-Identifier: GPL-2.0
//! The lab from the command line: `drbd-lab demo [DRIVER DRIVER]`, `drbd-lab bench`,
//! `drbd-lab golden FOLDER`, `drbd-lab golden-uuid FOLDER`, `drbd-lab golden-transitions FOLDER`,
//! `drbd-lab boot KERNEL`,
//! `drbd-lab run KERNEL DRIVER DRIVER COMMAND…`.
//!
//! A driver is `ours` (the default) or `c`; a kernel one of those that `make setup` builds. `boot`
//! tells how long a kernel takes until the agent answers, driver loaded. `run` starts a configured
//! pair and executes each `a:COMMAND` or `b:COMMAND` in turn, whatever their outcome; it ends with
//! both consoles. `{pair}` makes metadata, brings both nodes up and syncs them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use drbd_lab::scenario::{bench, demo, golden, shell, transitions, uuid_golden};
use drbd_lab::{Cluster, Driver, Error, Kernel, NodeSpec, Result};

const USAGE: &str = "usage: drbd-lab demo [ours|c ours|c] | bench | golden FOLDER \
    | golden-uuid FOLDER | golden-transitions FOLDER | boot KERNEL \
    | run KERNEL ours|c ours|c COMMAND...";

fn driver(word: &str) -> Result<Driver> {
    match word {
        "ours" => Ok(Driver::Ours),
        "c" => Ok(Driver::C),
        _ => Err(Error::new(USAGE)),
    }
}

fn kernel(name: &str) -> Result<Kernel> {
    [Kernel::Release, Kernel::Kasan, Kernel::Locks]
        .into_iter()
        .find(|k| k.name() == name)
        .ok_or_else(|| Error::new(USAGE))
}

fn boot(kernel: Kernel) -> Result<()> {
    let start = Instant::now();
    let cluster = Cluster::start("boot", &[NodeSpec::new("a", Driver::C, kernel, 4)])?;
    let seconds = start.elapsed().as_secs_f32();
    println!("{}: up after {seconds:.1} s", kernel.name());
    cluster.end(Ok(()))
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["demo"] => demo::run([Driver::Ours, Driver::Ours]),
        ["demo", a, b] => demo::run([driver(a)?, driver(b)?]),
        ["boot", name] => boot(kernel(name)?),
        ["run", on, a, b, commands @ ..] => {
            shell::run(kernel(on)?, [driver(a)?, driver(b)?], commands)
        }
        ["bench"] => bench::run(),
        ["golden-uuid", folder] => uuid_golden::record(Path::new(folder)),
        ["golden-transitions", folder] => transitions::record(Path::new(folder)),
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
