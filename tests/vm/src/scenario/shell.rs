// SPDX-License-Identifier: GPL-2.0
//! A pair for looking at things by hand.

use std::time::Duration;

use super::{pair, primary_a_in_sync, two};
use crate::cluster::Cluster;
use crate::drbd::Resource;
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel};

/// Starts a configured pair with 64 MiB each and executes the commands, see `drbd-lab`.
///
/// # Errors
/// When the pair cannot be started, or a command names no node.
pub fn run(kernel: Kernel, drivers: [Driver; 2], commands: &[&str]) -> Result<()> {
    let cluster = Cluster::start("shell", &pair(drivers, kernel, 64))?;
    Resource::default().configure(&cluster)?;
    let outcome = execute(&cluster, commands);
    for node in &cluster.nodes {
        println!("--- console of {}\n{}", node.name(), node.console());
    }
    cluster.end(outcome)
}

fn execute(cluster: &Cluster, commands: &[&str]) -> Result<()> {
    let [a, b] = two(cluster)?;
    for command in commands {
        if *command == "{pair}" {
            primary_a_in_sync(cluster, &Resource::default())?;
            continue;
        }
        let node = match command.split_once(':') {
            Some(("a", _)) => a,
            Some(("b", _)) => b,
            _ => return Err(Error::new(format!("neither a: nor b: in '{command}'"))),
        };
        let words = command.get(2..).unwrap_or_default();
        println!("{}# {words}", node.name());
        match node.run_for(words, Duration::from_secs(60)) {
            Ok(out) => println!(
                "[{}] {}{}",
                out.code,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            ),
            Err(e) => println!("{e}"),
        }
    }
    Ok(())
}
