// SPDX-License-Identifier: GPL-2.0
//! fio on a pair of C nodes and on a pair of ours, in turn, in one session.
//!
//! Under emulation the processor is what everything waits for, so the figures compare the two
//! drivers' use of it more than anything a real disk or network would show. Each pair is measured
//! in every round, because the host is never equally quiet.

use std::time::Duration;

use super::{pair, primary_a_in_sync, two};
use crate::cluster::Cluster;
use crate::drbd::Resource;
use crate::error::{Error, Result};
use crate::node::{Driver, Kernel, Node};

/// How often each pair is measured.
const ROUNDS: usize = 2;
const MIB: u64 = 256;

/// What fio does, and in which words the table says it.
const JOBS: [(&str, &str); 6] = [
    (
        "4 KiB random writes, 1 at a time",
        "--rw=randwrite --bs=4k --iodepth=1",
    ),
    (
        "4 KiB random writes, 32 at a time",
        "--rw=randwrite --bs=4k --iodepth=32",
    ),
    (
        "4 KiB writes, each with fsync",
        "--rw=randwrite --bs=4k --iodepth=1 --fsync=1",
    ),
    (
        "1 MiB writes, 8 at a time",
        "--rw=write --bs=1M --iodepth=8",
    ),
    (
        "4 KiB random reads, 32 at a time",
        "--rw=randread --bs=4k --iodepth=32",
    ),
    ("1 MiB reads, 8 at a time", "--rw=read --bs=1M --iodepth=8"),
];

/// One figure: I/O a second, KiB/s and the mean latency in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Figure {
    iops: f64,
    kib: f64,
    micros: f64,
}

impl Figure {
    /// Out of a line of fio's terse format, version 3: reads come first, then writes.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim().split(';').collect();
        let number = |at: usize| fields.get(at - 1)?.parse::<f64>().ok();
        let of = |kib: usize, iops: usize, micros: usize| {
            Some(Self {
                iops: number(iops)?,
                kib: number(kib)?,
                micros: number(micros)?,
            })
        };
        let read = of(7, 8, 40)?;
        if read.iops > 0.0 {
            return Some(read);
        }
        of(48, 49, 81)
    }
}

fn fio(node: &Node, options: &str) -> Result<Figure> {
    let command = format!(
        "fio --name=bench --filename=/dev/drbd0 --direct=1 --ioengine=libaio --size=128M \
         --runtime=6 --time_based --ramp_time=1 --randseed=7 --output-format=terse \
         --terse-version=3 {options} 2>&1"
    );
    let out = node.must_for(&command, Duration::from_secs(60))?;
    out.lines()
        .find_map(|l| l.starts_with("3;").then(|| Figure::parse(l))?)
        .ok_or_else(|| Error::new(format!("not what fio prints: {out}")))
}

/// Seconds that the full sync of the pair took, and a figure for each job.
fn measure(drivers: [Driver; 2]) -> Result<Vec<Figure>> {
    let cluster = Cluster::start("bench", &pair(drivers, Kernel::Release, MIB))?;
    let outcome = (|| {
        primary_a_in_sync(&cluster, &Resource::default())?;
        let [a, _] = two(&cluster)?;
        // Once through, so that every block was written before it is read.
        fio(a, "--rw=write --bs=1M --iodepth=4")?;
        JOBS.iter().map(|(_, job)| fio(a, job)).collect()
    })();
    let (result, figures) = match outcome {
        Ok(figures) => (Ok(()), figures),
        Err(e) => (Err(e), Vec::new()),
    };
    cluster.end(result).map(|()| figures)
}

/// Measures and prints the table.
///
/// # Errors
/// When a pair cannot be set up, or fio fails.
pub fn run() -> Result<()> {
    let mut all = [
        vec![Figure::default(); JOBS.len()],
        vec![Figure::default(); JOBS.len()],
    ];
    for round in 1..=ROUNDS {
        for (sums, driver) in all.iter_mut().zip([Driver::C, Driver::Ours]) {
            println!("round {round}: {driver:?}/{driver:?}");
            for (sum, f) in sums.iter_mut().zip(measure([driver, driver])?) {
                println!(
                    "  {:8.0} IOPS {:8.0} KiB/s {:8.0} us",
                    f.iops, f.kib, f.micros
                );
                sum.iops += f.iops;
                sum.kib += f.kib;
                sum.micros += f.micros;
            }
        }
    }
    let n = ROUNDS as f64;
    println!("\nprotocol C, release kernel, means of {ROUNDS} rounds: IOPS, KiB/s, latency (us)");
    let [c, ours] = &all;
    for (((name, _), c), ours) in JOBS.iter().zip(c).zip(ours) {
        println!(
            "{name:36} C {:7.0} {:8.0} {:7.0}   ours {:7.0} {:8.0} {:7.0}   ours/C {:4.2}",
            c.iops / n,
            c.kib / n,
            c.micros / n,
            ours.iops / n,
            ours.kib / n,
            ours.micros / n,
            ours.iops / c.iops
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_terse_line_is_read() {
        let mut fields = vec!["0"; 130];
        for (at, value) in [(48, "4000"), (49, "1000"), (81, "950.5")] {
            fields[at - 1] = value;
        }
        let f = Figure::parse(&fields.join(";")).unwrap();
        assert_eq!((f.kib, f.iops, f.micros), (4000.0, 1000.0, 950.5));
        for (at, value) in [(7, "8000"), (8, "2000"), (40, "450")] {
            fields[at - 1] = value;
        }
        assert_eq!(Figure::parse(&fields.join(";")).unwrap().iops, 2000.0);
        assert_eq!(Figure::parse("3;fio"), None);
    }
}
