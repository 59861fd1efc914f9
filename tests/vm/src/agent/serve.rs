// SPDX-License-Identifier: GPL-2.0
//! Serves the host's requests, each in a thread of its own, until the machine ends.
//!
//! The port's write side is shared under one lock, taken per frame.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{kill_process_group, Pid, Signal};

use crate::acked::{self, Content, Job};
use crate::error::{Error, Result};
use crate::protocol::{Frame, Kind};

/// The sending side of the port.
#[derive(Debug, Clone)]
struct Out(Arc<Mutex<File>>);

impl Out {
    fn send(&self, id: u32, kind: Kind, payload: impl Into<Vec<u8>>) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Frame::new(id, kind, payload).write_to(&mut *file)
    }

    /// Ends request `id`: an error becomes exit code 126 with its text on the error output.
    fn finish(&self, id: u32, result: Result<i32>) {
        let code = match result {
            Ok(code) => code,
            Err(e) => {
                let _ = self.send(id, Kind::Stderr, format!("agent: {e}\n"));
                126
            }
        };
        let _ = self.send(id, Kind::Exit, code.to_le_bytes());
    }
}

type Groups = Arc<Mutex<BTreeMap<u32, Pid>>>;

/// Serves requests from the port `device` until it fails.
///
/// # Errors
/// Those of the port.
pub fn serve(device: &Path) -> Result<()> {
    let mut port = File::options().read(true).write(true).open(device)?;
    let out = Out(Arc::new(Mutex::new(port.try_clone()?)));
    let groups: Groups = Arc::default();
    out.send(0, Kind::Hello, Vec::new())?;
    loop {
        let frame = Frame::read_from(&mut port)?;
        let (out, groups) = (out.clone(), Arc::clone(&groups));
        match frame.kind {
            Kind::Kill => kill(&groups, frame.id),
            Kind::Reboot => reboot()?,
            Kind::Hello | Kind::Stdout | Kind::Stderr | Kind::Exit => {
                return Err(Error::new("the host sent what only agents send"))
            }
            Kind::Run | Kind::Put | Kind::Get | Kind::Write | Kind::ReadBack => {
                thread::spawn(move || {
                    let result = request(&out, &groups, &frame);
                    out.finish(frame.id, result);
                });
            }
        }
    }
}

fn kill(groups: &Groups, id: u32) {
    let pid = groups
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&id)
        .copied();
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Restarts the machine, which with QEMU's -no-reboot ends it; works without ACPI too.
fn reboot() -> Result<()> {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::Restart)?;
    Ok(())
}

fn request(out: &Out, groups: &Groups, frame: &Frame) -> Result<i32> {
    let text =
        || String::from_utf8(frame.payload.clone()).map_err(|_| Error::new("request is not text"));
    match frame.kind {
        Kind::Run => run(out, groups, frame.id, &text()?),
        Kind::Put => put(&frame.payload),
        Kind::Get => {
            copy(out, frame.id, Kind::Stdout, &mut File::open(text()?)?)?;
            Ok(0)
        }
        Kind::Write => write_job(out, frame.id, &Job::decode(&text()?)?),
        Kind::ReadBack => read_job(out, frame.id, &Job::decode(&text()?)?),
        Kind::Hello | Kind::Stdout | Kind::Stderr | Kind::Exit | Kind::Kill | Kind::Reboot => {
            Err(Error::new("not a request"))
        }
    }
}

fn copy(out: &Out, id: u32, kind: Kind, from: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..n).filter(|p| !p.is_empty()) else {
            return Ok(());
        };
        out.send(id, kind, part)?;
    }
}

fn run(out: &Out, groups: &Groups, id: u32, command: &str) -> Result<i32> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, pid);
    }
    let mut readers: Vec<JoinHandle<io::Result<()>>> = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        let out = out.clone();
        readers.push(thread::spawn(move || {
            copy(&out, id, Kind::Stdout, &mut pipe)
        }));
    }
    if let Some(mut pipe) = child.stderr.take() {
        let out = out.clone();
        readers.push(thread::spawn(move || {
            copy(&out, id, Kind::Stderr, &mut pipe)
        }));
    }
    let status = child.wait()?;
    groups
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&id);
    // A daemon that the command left behind may hold the pipes open: wait only briefly for more.
    let end = Instant::now() + Duration::from_secs(1);
    while !readers.iter().all(JoinHandle::is_finished) && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn put(payload: &[u8]) -> Result<i32> {
    let bad = || Error::new("bad file header");
    let (mode, rest) = payload.split_first_chunk::<4>().ok_or_else(bad)?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(bad)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| bad())?;
    let (path, content) = rest.split_at_checked(len).ok_or_else(bad)?;
    let path = Path::new(std::str::from_utf8(path).map_err(|_| bad())?);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(u32::from_le_bytes(*mode)))?;
    Ok(0)
}

fn write_job(out: &Out, id: u32, job: &Job) -> Result<i32> {
    let mut threads = Vec::new();
    for n in 0..job.threads {
        let (out, job) = (out.clone(), job.clone());
        threads.push(thread::spawn(move || {
            acked::write(&job, n, |block, seq| {
                out.send(id, Kind::Stdout, format!("{block} {seq}\n"))
            })
        }));
    }
    for t in threads {
        t.join().map_err(|_| Error::new("a writer panicked"))??;
    }
    Ok(0)
}

fn read_job(out: &Out, id: u32, job: &Job) -> Result<i32> {
    let mut text = String::new();
    acked::read_back(job, |block, content| {
        let what = match content {
            Content::Whole(seq) => seq.to_string(),
            Content::Foreign => "foreign".into(),
            Content::Torn => "torn".into(),
        };
        text.push_str(&format!("{block} {what}\n"));
        Ok(())
    })?;
    out.send(id, Kind::Stdout, text)?;
    Ok(0)
}
