// SPDX-License-Identifier: GPL-2.0

//! `drbdsetup-rs` is not written yet. Debian's `drbdsetup` drives the module meanwhile.

use clap::Parser;
use std::process::ExitCode;

/// drbdsetup-rs does not exist yet: use drbdsetup of Debian, it drives drbd_rs.ko as it is
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Whatever would be said to drbdsetup
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

fn main() -> ExitCode {
    let said = Arguments::parse().words.join(" ");
    eprintln!("drbdsetup-rs: this tool is not written yet, nothing was done.");
    eprintln!("Run instead: drbdsetup {said}");
    // 20 is what drbdsetup says for a call that it could not make at all.
    ExitCode::from(20)
}
