// SPDX-License-Identifier: GPL-2.0

//! `drbd-search GRAIN BLOCKS DEPTH [OPTION]...`: searches and prints what it found. Options:
//! `most=N` states, `memory=N` GiB, `threads=N`, `writes=N` under way at once, `powers=N` kinds of
//! power failure, `recover=N` to ask one stable state in N whether it recovers, `admin` and `rash`
//! administrators, `path=N,N,...` to go a path again, with the words of both nodes.

use drbd_small::script::{Act, Run, Shape};
use drbd_small::search::{replay, shorten, Grain, Plan, Report, Search};

fn number(args: &[String], name: &str, default: usize) -> usize {
    let value = |a: &String| a.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    args.iter().find_map(value).unwrap_or(default)
}

fn plan(args: &[String]) -> Option<Plan> {
    let grain = match args.first()?.as_str() {
        "every" => Grain::Every,
        "fixed" => Grain::Fixed,
        "rest" => Grain::Rest,
        _ => return None,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Plan {
        grain,
        shape: Shape {
            blocks: args.get(1)?.parse().ok()?,
            writes: number(args, "writes", 1),
            rash: args.iter().any(|a| a == "rash"),
            admin: args.iter().any(|a| a == "admin"),
            powers: number(args, "powers", 4).min(4),
        },
        depth: args.get(2)?.parse().ok()?,
        most: number(args, "most", 100_000_000),
        recover: number(args, "recover", 1) as u64,
        threads: number(args, "threads", threads).max(1),
        memory: (number(args, "memory", 12) as u64) << 30,
    })
}

fn tell(r: &Report) {
    println!(
        "{:.0} s: {} states, {} steps, levels {:?}, {} stable, {} recovered, {} MiB",
        r.seconds,
        r.states,
        r.steps,
        r.levels,
        r.stable,
        r.recovered,
        r.memory >> 20
    );
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = plan(&args) else {
        eprintln!("usage: drbd-search every|fixed|rest BLOCKS DEPTH [OPTION]...");
        std::process::exit(2);
    };
    // Panics of the machine are violations, and told as such; those before are not.
    drop(Run::new(plan.shape));
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(path) = args.iter().find_map(|a| a.strip_prefix("path=")) {
        let steps: Vec<Act> = path
            .split(',')
            .filter_map(|n| Act::from_number(n.parse().ok()?))
            .collect();
        println!("{:?}", replay(&plan, &steps, |line| println!("{line}")));
        return;
    }
    println!("{plan:?}");
    let report = Search::run(plan, tell);
    tell(&report);
    println!("complete: {}", report.complete);
    if let Some((why, path)) = report.violation {
        let short = shorten(&plan, &path);
        println!(
            "VIOLATION: {why}\nafter {} steps, {} of them needed",
            path.len(),
            short.len()
        );
        let end = replay(&plan, &short, |line| println!("{line}"));
        println!("{end:?}");
        let numbers: Vec<String> = short.iter().map(|a| a.number().to_string()).collect();
        println!("path={}", numbers.join(","));
        std::process::exit(1);
    }
}
