// SPDX-License-Identifier: GPL-2.0

//! The simulator on the command line.
//!
//! ```text
//! drbd-sim seconds N [FROM]   fresh seeds for N seconds on all cores, then the table
//! drbd-sim seed N [trace]     one seed; when it fails: shrunk, and the trace of what is left
//! drbd-sim plan FILE [trace]  a saved plan
//! drbd-sim vary N DIR [FROM]  variations of the saved plans in DIR for N seconds
//! drbd-sim varied N DIR       one of them, as `seed`
//! drbd-sim stacked N [FROM]   fresh seeds for N seconds, each with three nodes, stacked
//! drbd-sim stack N            one of them, as `seed`
//! drbd-sim hunt N [PLAN...]   for mutants: exit 1 and the oracle as soon as a seed fails in N s,
//!                             or one of the saved plans after that
//! drbd-sim mutants LIST       how many planted bugs there are
//! drbd-sim mutant LIST N DIR  plants one in the sources below DIR, says its name
//! ```
//!
//! `SIM_SHRINK=n` makes a plan shorter in at most so many runs. With `SIM_STEP=8` only each eighth
//! seed is run: from one that is 6 modulo 8 on all are dense (`dense.rs`); with 16, from one that
//! is 14 modulo 16 on, all are those that do the most. `SIM_RUNS=n` ends it after so many,
//! `SIM_SEEDS=n` names so many failing seeds of each kind.
//!
//! `hunt` compares with the rates of the file `SIM_RATES` (made by `rates N`), as long as there
//! are bugs of our own: what has been planted has to make some way to fail clearly more frequent.
//! One that is not among those rates counts at once if the seed is fine with the simulator
//! `SIM_PLAIN`, in which nothing is planted.

use drbd_sim::cover;
use drbd_sim::mutants;
use drbd_sim::plan::Plan;
use drbd_sim::run::{quiet_panics, run, shrink, Outcome};
use drbd_sim::stats::Stats;
use drbd_sim::vary::vary;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Runs that making a plan shorter may cost.
const SHRINK: usize = 600;

/// The plan of a seed.
type Draw<'a> = &'a (dyn Fn(u64) -> Plan + Sync);

/// What all threads share.
struct Shared<'a> {
    draw: Draw<'a>,
    /// How many runs have begun.
    begun: AtomicU64,
    from: u64,
    step: u64,
    most: u64,
    stop: AtomicBool,
    stats: Mutex<Stats>,
    /// Seeds that failed: seed, oracle, what was found.
    failed: Mutex<Vec<(u64, String, String)>>,
}

/// How often each oracle fails without a planted bug: count, oracle; and among how many runs.
type Usual = (u64, Vec<(u64, String)>);

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

fn usual() -> Usual {
    let path = std::env::var("SIM_RATES").unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut found = (1, Vec::new());
    for line in text.lines() {
        let Some((n, what)) = line.split_once(' ') else {
            continue;
        };
        let n = n.parse().unwrap_or(0);
        match what {
            "runs" => found.0 = n,
            oracle => found.1.push((n, oracle.to_string())),
        }
    }
    found
}

/// Whether a seed is fine where nothing is planted.
fn is_fine_without(seed: u64) -> bool {
    let Ok(plain) = std::env::var("SIM_PLAIN") else {
        return false;
    };
    let mut run = Command::new(plain);
    run.args(["seed", &seed.to_string()]).env("SIM_SHRINK", "0");
    run.output().is_ok_and(|done| done.status.success())
}

/// Whether the last failure is of a kind that is now clearly more frequent than usual.
fn stands_out(failed: &[(u64, String, String)], runs: u64, (base, usual): &Usual) -> bool {
    let Some((seed, oracle, _)) = failed.last() else {
        return false;
    };
    let count = failed.iter().filter(|(_, o, _)| o == oracle).count() as u64;
    let known = usual
        .iter()
        .find(|(_, o)| o == oracle)
        .map_or(0, |(n, _)| *n);
    // Without rates the first failure counts.
    *base <= 1
        || known == 0 && is_fine_without(*seed)
        || count >= 5 && count * base > 4 * (known + 1) * runs
}

fn work(shared: &Shared<'_>, until: Instant, usual: Option<&Usual>) {
    let mut own = Stats::default();
    let mut merged = Instant::now();
    while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
        let nth = shared.begun.fetch_add(1, Ordering::Relaxed);
        if nth >= shared.most {
            shared.stop.store(true, Ordering::Relaxed);
            break;
        }
        let seed = shared.from + nth * shared.step;
        let outcome = run(&(shared.draw)(seed), false);
        own.merge(&outcome.stats);
        if let Some(v) = outcome.violation {
            let mut failed = shared.failed.lock().expect("no panic");
            failed.push((seed, v.oracle.clone(), v.why));
            let stop = usual
                .as_ref()
                .is_some_and(|usual| stands_out(&failed, nth + 1, usual));
            shared.stop.fetch_or(stop, Ordering::Relaxed);
        }
        if merged.elapsed() > Duration::from_secs(1) {
            merged = Instant::now();
            shared
                .stats
                .lock()
                .expect("no panic")
                .merge(&std::mem::take(&mut own));
        }
    }
    shared.stats.lock().expect("no panic").merge(&own);
}

fn many(
    seconds: u64,
    from: u64,
    draw: Draw<'_>,
    usual: Option<&Usual>,
) -> (Stats, Vec<(u64, String, String)>, f64) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = setting("SIM_THREADS").map_or(cores, |n| n as usize);
    let shared = Shared {
        draw,
        begun: AtomicU64::new(0),
        from,
        step: setting("SIM_STEP").unwrap_or(1),
        most: setting("SIM_RUNS").unwrap_or(u64::MAX),
        stop: AtomicBool::new(false),
        stats: Mutex::new(Stats::default()),
        failed: Mutex::new(Vec::new()),
    };
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| work(&shared, until, usual));
        }
        let mut told = Instant::now();
        let over = || Instant::now() >= until || shared.stop.load(Ordering::Relaxed);
        while usual.is_none() && !over() {
            std::thread::sleep(Duration::from_millis(200));
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let line = shared.stats.lock().expect("no panic");
                let line = line.line(began.elapsed().as_secs_f64());
                let bad = shared.failed.lock().expect("no panic").len();
                eprintln!(
                    "{:6.0} s  {line}, {bad} failed",
                    began.elapsed().as_secs_f64()
                );
            }
        }
    });
    let stats = shared.stats.into_inner().expect("no panic");
    let failed = shared.failed.into_inner().expect("no panic");
    (stats, failed, began.elapsed().as_secs_f64())
}

/// The saved plans in a folder, in the order of their names.
fn saved(dir: &str) -> Result<Vec<Plan>, String> {
    let entries = std::fs::read_dir(dir).map_err(|e| e.to_string())?;
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    let read = |path| std::fs::read_to_string(path).map_err(|e| e.to_string());
    let plans = paths.iter().map(|p| Plan::parse(&read(p)?));
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    match plans.is_empty() {
        true => Err("no plans".into()),
        false => Ok(plans),
    }
}

fn varied(what: &str, n: u64, dir: &str, from: u64) -> ExitCode {
    match saved(dir) {
        Ok(plans) if what == "vary" => seconds(n, from, &|seed| vary(&plans, seed)),
        Ok(plans) => one(&vary(&plans, n), false),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn seconds(n: u64, from: u64, draw: Draw<'_>) -> ExitCode {
    let (stats, failed, took) = many(n, from, draw, None);
    print!("{}{}", stats.table(took), cover::report(&stats));
    let mut kinds: Vec<(String, Vec<u64>, String)> = Vec::new();
    for (seed, oracle, why) in failed {
        match kinds.iter_mut().find(|(o, ..)| *o == oracle) {
            Some((_, seeds, _)) => seeds.push(seed),
            None => kinds.push((oracle, vec![seed], why)),
        }
    }
    let most = setting("SIM_SEEDS").map_or(12, |n| n as usize);
    for (oracle, seeds, why) in &kinds {
        let some: Vec<String> = seeds.iter().take(most).map(u64::to_string).collect();
        let (n, some) = (seeds.len(), some.join(" "));
        println!("FAILED {n} times, by seeds {some}: {oracle}: {why}");
    }
    ExitCode::from(u8::from(!kinds.is_empty()))
}

fn one(plan: &Plan, trace: bool) -> ExitCode {
    let mut plan = plan.clone();
    let Outcome {
        violation,
        stats,
        trace: lines,
    } = run(&plan, trace);
    if trace && violation.is_none() {
        lines.iter().for_each(|l| println!("{l}"));
    }
    print!("{}", stats.table(0.0));
    let Some(v) = violation else {
        println!("fine");
        return ExitCode::SUCCESS;
    };
    println!("FAILED: {}: {}", v.oracle, v.why);
    let tries = setting("SIM_SHRINK").map_or(SHRINK, |n| n as usize);
    plan = shrink(&plan, &v.oracle, tries);
    let again = run(&plan, true);
    again.trace.iter().for_each(|l| println!("{l}"));
    let why = again.violation.map_or(String::new(), |v| v.why);
    println!("# {}: {why}\n{}", v.oracle, plan.spell());
    ExitCode::FAILURE
}

fn rates(n: u64) -> ExitCode {
    let (stats, failed, _) = many(n, 1_000_000, &Plan::draw, None);
    println!("{} runs", stats.runs);
    let mut kinds: Vec<&str> = failed.iter().map(|(_, o, _)| o.as_str()).collect();
    kinds.sort_unstable();
    for group in kinds.chunk_by(|a, b| a == b) {
        println!("{} {}", group.len(), group[0]);
    }
    ExitCode::SUCCESS
}

fn hunt(n: u64, plans: &[String]) -> ExitCode {
    let (stats, failed, took) = many(n, 1_000_000, &Plan::draw, Some(&usual()));
    match failed.last().filter(|_| took < n as f64) {
        Some((seed, oracle, why)) => {
            println!(
                "caught after {took:.1} s, {} runs, seed {seed}: {oracle}: {why}",
                stats.runs
            );
            ExitCode::FAILURE
        }
        None => match plans.iter().find_map(|p| Some((p, fails(p)?))) {
            Some((plan, oracle)) => {
                println!("caught by {plan}, not by {} runs: {oracle}", stats.runs);
                ExitCode::FAILURE
            }
            None => {
                println!("SURVIVED {took:.1} s, {} runs", stats.runs);
                ExitCode::SUCCESS
            }
        },
    }
}

/// The oracle that a saved plan fails.
fn fails(plan: &str) -> Option<String> {
    let text = std::fs::read_to_string(plan).ok()?;
    let plan = Plan::parse(&text).ok()?;
    run(&plan, false).violation.map(|v| v.oracle)
}

fn plant(list: &str, n: usize, dir: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(list).map_err(|e| e.to_string())?;
    let all = mutants::parse(&text);
    let m = all.get(n.wrapping_sub(1)).ok_or("no such mutant")?;
    let path = std::path::Path::new(dir).join(&m.file);
    let source = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    let planted = m.apply(&source).ok_or("it does not fit")?;
    std::fs::write(path, planted).map_err(|e| e.to_string())?;
    Ok(m.name.clone())
}

fn plant_or_count(args: &[String]) -> ExitCode {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["mutants", list] => std::fs::read_to_string(list)
            .map(|text| mutants::parse(&text).len().to_string())
            .map_err(|e| e.to_string()),
        ["mutant", list, n, dir] => plant(list, n.parse().unwrap_or(0), dir),
        _ => Err("usage: drbd-sim seconds N [FROM] | seed N | plan FILE | hunt N".into()),
    };
    match said {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn main() -> ExitCode {
    quiet_panics();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|n| n.parse().ok());
    let trace = args.get(2).is_some_and(|a| a == "trace");
    match (args.first().map(String::as_str), number(1)) {
        (Some("seconds"), Some(n)) => seconds(n, number(2).unwrap_or(0), &Plan::draw),
        (Some("seed"), Some(seed)) => one(&Plan::draw(seed), trace),
        (Some("stacked"), Some(n)) => seconds(n, number(2).unwrap_or(0), &Plan::draw_stacked),
        (Some("stack"), Some(seed)) => one(&Plan::draw_stacked(seed), trace),
        (Some(what @ ("vary" | "varied")), Some(n)) => {
            let dir = args.get(2).map_or("tests/sim/regressions", String::as_str);
            varied(what, n, dir, number(3).unwrap_or(0))
        }
        (Some("hunt"), Some(n)) => hunt(n, args.get(2..).unwrap_or_default()),
        (Some("rates"), Some(n)) => rates(n),
        (Some("plan"), None) => {
            let text = args.get(1).map(std::fs::read_to_string);
            match text.map(|t| t.map(|t| Plan::parse(&t))) {
                Some(Ok(Ok(plan))) => one(&plan, trace),
                other => {
                    eprintln!("no plan: {other:?}");
                    ExitCode::from(2)
                }
            }
        }
        _ => plant_or_count(&args),
    }
}
