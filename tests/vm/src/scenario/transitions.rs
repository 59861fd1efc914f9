// SPDX-License-Identifier: GPL-2.0
//! Records what a pair of C nodes makes of each order in each stable state: `drbd-lab
//! golden-transitions FOLDER`.
//!
//! `FOLDER/states.txt` names states and orders (`tests/transitions`). For each order that
//! `FOLDER/outcomes.txt` does not have, the state is reached from nothing, unless it still stands
//! after a refusal; the order is given, and when both nodes rest they are looked at. The file is
//! written all the time: an interrupted run goes on where it was. `STATES` in the environment names
//! the states to record, with commas between.
//!
//! A few resources with a disk each are at work side by side, since most of the time is spent
//! waiting. The driver does one administrator's order at a time, so one that hangs holds up all of
//! them: what hangs there is tried once more at the end, alone. Some hang for good (a minor that
//! never had a disk or a peer has no worker, for which `pause-sync` waits): then the machines are
//! started anew.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drbd_transitions::outcomes::{Answer, Found, InState, Outcomes};
use drbd_transitions::picture::{Generation, Picture, Proc};
use drbd_transitions::plan::{Plan, State, Step};
use drbd_transitions::rest::{Look, Rest};
use drbd_transitions::NODES;

use super::two;
use crate::client::{Progress, Request};
use crate::cluster::Cluster;
use crate::error::{Context, Error, Result};
use crate::node::{Driver, Kernel, Node, NodeSpec};

/// Resources at work side by side.
const LANES: usize = 3;
/// Size of a disk, MiB. With internal metadata its last 40 KiB are metadata.
const MIB: u64 = 4;
/// What every disk is attached with: a resync is done in one go.
const DISK: &str = "--c-plan-ahead=0 --c-min-rate=0 --resync-rate=4000000";
/// What `drbdsetup` runs for a driver of version 8.4.
const SETUP: &str = "/usr/lib/drbd/drbdsetup-84";
/// How long an order may take before it hangs.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long it may take when the peer has changed its state; it hangs for good after that.
const FREED: Duration = Duration::from_secs(15);
/// Machines that may be started in one run.
const STARTS: usize = 40;
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(80);
/// Between two writes of the file.
const SAVE: Duration = Duration::from_secs(5);
/// Orders after which a state is made anew even if it looks as before: they change what is not
/// looked at.
const LASTING: [&str; 7] = [
    "attach",
    "re-attach",
    "connect",
    "verify",
    "resize",
    "net-options",
    "disk-options",
];

/// The file as far as it is known.
struct Book {
    path: PathBuf,
    known: Outcomes,
    /// State and order, of those that hung beside others.
    suspects: BTreeSet<(String, String)>,
    /// An order hangs for good: these machines do nothing any more.
    stuck: bool,
    done: u32,
    saved: Instant,
    began: Instant,
}

impl Book {
    fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        fs::write(&self.path, self.known.to_string()).context(self.path.display())
    }

    fn put(&mut self, state: &str, order: &str, came: &str) -> Result<()> {
        self.known.put(state, order, came);
        self.done += 1;
        let seconds = self.began.elapsed().as_secs();
        println!("{seconds:5} s {:5} {state} | {order} | {came}", self.done);
        if self.saved.elapsed() > SAVE {
            self.save()?;
        }
        Ok(())
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One resource on both nodes.
struct Lane<'a> {
    nodes: [&'a Node; 2],
    /// Its minor, which names its disk and its port as well.
    nr: usize,
    book: &'a Mutex<Book>,
    /// Orders that hang are recorded as such.
    alone: bool,
}

/// What came of an order.
struct Came {
    answer: Answer,
    error: Option<(i32, String)>,
}

/// Records all that is not known yet.
///
/// # Errors
/// The first step that fails; the file has what was recorded until then.
pub fn record(folder: &Path) -> Result<()> {
    let text = fs::read_to_string(folder.join("states.txt")).context("states.txt")?;
    let plan = Plan::parse(&text).map_err(|e| Error::new(e.to_string()))?;
    let path = folder.join("outcomes.txt");
    let known = Outcomes::parse(&fs::read_to_string(&path).unwrap_or_default());
    let now = Instant::now();
    let book = Mutex::new(Book {
        path,
        known,
        suspects: BTreeSet::new(),
        stuck: false,
        done: 0,
        saved: now,
        began: now,
    });
    for _ in 0..STARTS {
        let ended = session(&plan, &book);
        let mut book = lock(&book);
        book.save()?;
        if !std::mem::take(&mut book.stuck) {
            return ended;
        }
        println!("the machines are started anew");
    }
    Err(Error::new(format!("stuck {STARTS} times; run it again")))
}

/// Records until nothing is left, or the machines are stuck.
fn session(plan: &Plan, book: &Mutex<Book>) -> Result<()> {
    let specs = NODES.map(|name| NodeSpec {
        disks: vec![MIB << 20; LANES],
        cpus: 1,
        ..NodeSpec::new(name, Driver::C, Kernel::Release, MIB)
    });
    let cluster = Cluster::start("transitions", &specs)?;
    let outcome = prepare(&cluster).and_then(|()| all(two(&cluster)?, plan, book));
    cluster.end(outcome)
}

/// Helpers that all end with 0, no udev, whose look at a device would be somebody who holds it
/// open, and a copy of fresh metadata for each disk.
fn prepare(cluster: &Cluster) -> Result<()> {
    let mut script = "udevadm control --exit; \
        echo /bin/true > /sys/module/drbd/parameters/usermode_helper"
        .to_owned();
    for nr in 0..LANES {
        let disk = disk(nr);
        script.push_str(&format!(
            " && drbdmeta --force {nr} v08 {disk} internal create-md >/dev/null \
             && dd if={disk} of=/run/fresh.{nr} bs=4096 skip={} count=10 iflag=direct status=none",
            metadata()
        ));
    }
    cluster.each(|n| n.must(&script).map(|_| ()))
}

fn disk(nr: usize) -> String {
    format!("/dev/vd{}", char::from(b"cdefgh"[nr]))
}

/// The first block of the metadata.
fn metadata() -> u64 {
    MIB * 256 - 10
}

fn all(nodes: [&Node; 2], plan: &Plan, book: &Mutex<Book>) -> Result<()> {
    let wanted = std::env::var("STATES").unwrap_or_default();
    let is_wanted = |s: &&State| wanted.is_empty() || wanted.split(',').any(|w| w == s.name);
    let states: Vec<&State> = plan.states.iter().filter(is_wanted).collect();
    let queue: Mutex<VecDeque<&State>> = Mutex::new(states.iter().copied().collect());
    let lane = |nr, alone| Lane {
        nodes,
        nr,
        book,
        alone,
    };
    let work = |nr| loop {
        let next = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(state) = next else { return Ok(()) };
        lane(nr, false).state(plan, state)?;
    };
    let lanes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..LANES).map(|nr| scope.spawn(move || work(nr))).collect();
        threads
            .into_iter()
            .map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(Error::new("a thread panicked")))
            })
            .fold(Ok(()), Result::and)
    });
    lanes?;
    let last = lane(0, true);
    states.iter().try_for_each(|s| last.state(plan, s))
}

impl Lane<'_> {
    /// All orders of a state that are not known yet.
    fn state(&self, plan: &Plan, state: &State) -> Result<()> {
        let mut here: Option<InState> = None;
        if lock(self.book).known.state(&state.name).is_none() {
            let reached = self.reach(state)?;
            lock(self.book).known.put_state(&state.name, reached.line());
            here = Some(reached);
        }
        for (node, words) in plan.tried_in(state) {
            let order = Outcomes::order(node, words);
            if self.is_done(&state.name, &order) {
                continue;
            }
            let reached = match here.take() {
                Some(reached) => reached,
                None => self.again(state)?,
            };
            let (came, mut request) = self.order(node, words)?;
            let Some(came) = came else {
                self.hangs(&state.name, &order)?;
                self.free(node, &mut request)?;
                continue;
            };
            let after = self.rest()?;
            let line = reached.after(came.answer, &after);
            let mut book = lock(self.book);
            if let Some((number, text)) = &came.error {
                book.known.put_error(*number, text);
            }
            book.put(&state.name, &order, &line)?;
            drop(book);
            let name = words.split(' ').next().unwrap_or_default();
            let stands = came.answer.is_refusal() || !LASTING.contains(&name);
            if stands && after == *reached.before() {
                here = Some(reached);
            }
        }
        Ok(())
    }

    /// Whether an order is known, or has to wait until nothing is beside it.
    fn is_done(&self, state: &str, order: &str) -> bool {
        let book = lock(self.book);
        let waits = || {
            book.suspects
                .contains(&(state.to_owned(), order.to_owned()))
        };
        book.known.get(state, order).is_some() || !self.alone && waits()
    }

    /// Notes that an order hangs, if it is the one that does.
    fn hangs(&self, state: &str, order: &str) -> Result<()> {
        println!("lane {}: {state} | {order} hangs", self.nr);
        let mut book = lock(self.book);
        if self.alone {
            let line = format!("{} | ? | ?", Answer::Hangs);
            return book.put(state, order, &line);
        }
        book.suspects.insert((state.to_owned(), order.to_owned()));
        Ok(())
    }

    /// Reaches a state that was reached before: it has to be the same.
    fn again(&self, state: &State) -> Result<InState> {
        let mut seen = String::new();
        for _ in 0..3 {
            let reached = self.reach(state)?;
            let book = lock(self.book);
            let known = book.known.state(&state.name);
            if known == Some(reached.line()) {
                drop(book);
                return Ok(reached);
            }
            seen = format!("{}\nrecorded: {known:?}", reached.line());
            println!("{} is not what it was: {seen}", state.name);
        }
        Err(Error::new(format!("{}: unsteady: {seen}", state.name)))
    }

    /// From whatever there is to a state. On a busy machine a connection may take longer than the
    /// order after it allows for: once more then.
    fn reach(&self, state: &State) -> Result<InState> {
        self.walk(state).or_else(|why| {
            if lock(self.book).stuck {
                return Err(why);
            }
            println!("lane {}: again: {why}", self.nr);
            self.walk(state)
        })
    }

    fn walk(&self, state: &State) -> Result<InState> {
        self.reset()?;
        let mut found = self.rest()?;
        for step in &state.path {
            self.step(step).context(&state.name)?;
            found = self.rest()?;
            if !found.rest {
                let orders = step.orders.join("; ");
                return Err(Error::new(format!("{}: no rest: {orders}", state.name)));
            }
        }
        Ok(InState::new(found))
    }

    /// Does the same on all nodes for which `script` has words, at a time.
    fn each(&self, script: impl Fn(usize) -> Option<String> + Sync) -> Result<()> {
        std::thread::scope(|scope| {
            let run = |n: usize| match script(n) {
                Some(script) => self.nodes[n].must(&script).map(|_| ()),
                None => Ok(()),
            };
            let other = scope.spawn(move || run(1));
            let first = run(0);
            let lost = || Err(Error::new("a thread panicked"));
            first.and(other.join().unwrap_or_else(|_| lost()))
        })
    }

    fn step(&self, step: &Step) -> Result<()> {
        self.each(|n| {
            let orders = step.orders.iter().map(|o| self.command(n, o));
            let script = orders.collect::<Vec<_>>().join(" && ");
            step.on[n].then_some(script)
        })
    }

    /// Nothing is configured, and the metadata are as they were in the beginning.
    fn reset(&self) -> Result<()> {
        let nr = self.nr;
        let (disk, seek) = (disk(nr), metadata());
        self.each(|n| {
            let leave = self.command(n, "disconnect --force=yes");
            Some(format!(
                "n=0; until {SETUP} down r{nr}; do test $n -lt 5 || exit 1; n=$((n + 1)); \
                 {SETUP} resume-io {nr}; {leave}; {SETUP} secondary {nr}; \
                 {SETUP} detach {nr} --force=yes; sleep 0.2; done 2>/dev/null; \
                 dd if=/run/fresh.{nr} of={disk} bs=4096 seek={seek} oflag=direct \
                 conv=notrunc status=none"
            ))
        })
    }

    /// An order in the words of a shell.
    fn command(&self, node: usize, order: &str) -> String {
        let nr = self.nr;
        let (name, options) = order.split_once(' ').unwrap_or((order, ""));
        let disk = disk(nr);
        let address = |n: usize| format!("{}:{}", self.nodes[n].address(), 7788 + nr);
        let ends = format!("{} {}", address(node), address(1 - node));
        match name {
            "new-resource" | "del-resource" | "down" | "resource-options" => {
                format!("{SETUP} {name} r{nr} {options}")
            }
            "new-minor" => format!("{SETUP} new-minor r{nr} {nr} 0"),
            "attach" => format!("{SETUP} attach {nr} {disk} {disk} internal {DISK} {options}"),
            "re-attach" => {
                let attach = self.command(node, &format!("attach {options}"));
                let apply = format!("drbdmeta --force {nr} v08 {disk} internal apply-al");
                format!("{{ {apply} >/dev/null 2>&1; {attach}; }}")
            }
            "connect" => format!("{SETUP} connect r{nr} {ends} {options}"),
            "disconnect" | "net-options" => format!("{SETUP} {name} {ends} {options}"),
            "slow" => format!("{SETUP} disk-options {nr} --resync-rate=1"),
            _ => format!("{SETUP} {name} {nr} {options}"),
        }
    }

    /// Gives an order; nothing came of it: it hangs.
    fn order(&self, node: usize, words: &str) -> Result<(Option<Came>, Request)> {
        let script = format!("{} 2>&1; echo \"exit $?\"", self.command(node, words));
        let mut request = self.nodes[node].spawn(&script)?;
        match request.wait(PATIENCE) {
            Progress::Running => return Ok((None, request)),
            Progress::Lost => return Err(Error::new("the machine ended")),
            Progress::Ended => {}
        }
        let text = request.output().text();
        let (said, exit) = text.rsplit_once("exit ").unwrap_or((&text, ""));
        let exit = exit.trim().parse();
        let exit = exit.map_err(|_| Error::new(format!("no exit code: {text}")))?;
        let (answer, error) = Answer::of_words(exit, said);
        Ok((Some(Came { answer, error }), request))
    }

    /// After an order on `node` that hangs: a change of state from the peer's side lets it go on.
    fn free(&self, node: usize, hanging: &mut Request) -> Result<()> {
        let down = format!("timeout 10 {SETUP} down r{}", self.nr);
        self.nodes[1 - node].run(&down)?;
        match hanging.wait(FREED) {
            Progress::Ended => Ok(()),
            Progress::Running | Progress::Lost => {
                lock(self.book).stuck = true;
                Err(Error::new("it hangs for good"))
            }
        }
    }

    /// Waits until both nodes rest, and looks at them.
    fn rest(&self) -> Result<Found> {
        let began = Instant::now();
        let mut rest = Rest::default();
        let look = loop {
            let [a, b] = [self.proc(0)?, self.proc(1)?];
            match rest.look(began.elapsed(), [a, b]) {
                Look::Again => std::thread::sleep(LOOK),
                end => break end,
            }
        };
        let picture = |n: usize| {
            let proc = self.proc(n)?;
            let generation = self.generation(n, proc.as_ref())?;
            Ok(Picture { proc, generation })
        };
        let nodes = std::thread::scope(|scope| {
            let other = scope.spawn(move || picture(1));
            let lost = || Err(Error::new("a thread panicked"));
            Ok::<_, Error>([picture(0)?, other.join().unwrap_or_else(|_| lost())?])
        })?;
        let rest = look == Look::Rested;
        Ok(Found { nodes, rest })
    }

    fn proc(&self, node: usize) -> Result<Option<Proc>> {
        let text = self.nodes[node].get("/proc/drbd")?;
        let minor = u32::try_from(self.nr).unwrap_or(0);
        Ok(Proc::parse(&String::from_utf8_lossy(&text), minor))
    }

    /// UUIDs and flags, where there is a disk.
    fn generation(&self, node: usize, proc: Option<&Proc>) -> Result<Option<Generation>> {
        if proc.is_none_or(|p| matches!(p.disks().0, "" | "Diskless")) {
            return Ok(None);
        }
        let shown = self.nodes[node].run(&format!("{SETUP} get-gi {}", self.nr))?;
        Ok(Generation::parse(&shown.text()))
    }
}
