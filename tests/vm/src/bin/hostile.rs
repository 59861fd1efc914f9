// SPDX-License-Identifier: GPL-2.0
//! A hostile peer: `drbd-lab-hostile ADDRESS:PORT MILLISECONDS SCRIPT`. See `drbd_lab::hostile`.
//!
//! Prints `closed` if the other side hung up within the time after the script, else `open`.

use std::process::ExitCode;
use std::time::Duration;

use drbd_lab::{hostile, Error, Result};

fn run() -> Result<bool> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, ms, script] = words.as_slice() else {
        return Err(Error::new("usage: ADDRESS:PORT MILLISECONDS SCRIPT"));
    };
    let ms = ms.parse().map_err(|_| Error::new("milliseconds"))?;
    hostile::play(
        address,
        &std::fs::read_to_string(script)?,
        Duration::from_millis(ms),
    )
}

fn main() -> ExitCode {
    match run() {
        Ok(closed) => {
            println!("{}", if closed { "closed" } else { "open" });
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("drbd-lab-hostile: {e}");
            ExitCode::FAILURE
        }
    }
}
