// SPDX-License-Identifier: GPL-2.0
//! The host's end of the line to a node's agent.
//!
//! Requests run side by side; a thread sorts the answers. When the machine ends, every open
//! request ends too, keeping what it had received: that is how acknowledgements of a node that
//! crashed are counted.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::protocol::{Frame, Kind};

type Waiting = Arc<Mutex<HashMap<u32, Sender<Frame>>>>;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 126 if the agent itself failed, 128 + n for signal n.
    pub code: i32,
    /// Output, as bytes for files.
    pub stdout: Vec<u8>,
    /// Error output.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The error output as text.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It still runs.
    Running,
    /// It ended by itself.
    Ended,
    /// The machine ended first.
    Lost,
}

/// A line to one agent.
#[derive(Debug)]
pub struct Client {
    stream: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU32,
}

/// One request in progress.
#[derive(Debug)]
pub struct Request {
    id: u32,
    frames: Receiver<Frame>,
    output: Output,
    progress: Progress,
}

impl Client {
    /// Takes over the line and waits for the agent's greeting.
    ///
    /// # Errors
    /// When the greeting does not come within `timeout`.
    pub fn new(mut stream: UnixStream, timeout: Duration) -> Result<Self> {
        let reader = stream.try_clone()?;
        reader.set_read_timeout(Some(timeout))?;
        let hello = Frame::read_from(&mut stream).context("waiting for the agent")?;
        if hello.kind != Kind::Hello {
            return Err(Error::new("the agent did not greet"));
        }
        reader.set_read_timeout(None)?;
        let waiting = Waiting::default();
        let sorted = Arc::clone(&waiting);
        std::thread::spawn(move || sort(reader, &sorted));
        Ok(Self {
            stream: Mutex::new(stream),
            waiting,
            next: AtomicU32::new(1),
        })
    }

    /// Starts a request.
    ///
    /// # Errors
    /// When the line is gone.
    pub fn start(&self, kind: Kind, payload: impl Into<Vec<u8>>) -> Result<Request> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (to, frames) = channel();
        lock(&self.waiting).insert(id, to);
        Frame::new(id, kind, payload)
            .write_to(&mut *lock(&self.stream))
            .context("the agent")?;
        Ok(Request {
            id,
            frames,
            output: Output::default(),
            progress: Progress::Running,
        })
    }

    /// Kills the command of a request with everything it started.
    ///
    /// # Errors
    /// When the line is gone.
    pub fn kill(&self, request: &Request) -> Result<()> {
        Frame::new(request.id, Kind::Kill, Vec::new())
            .write_to(&mut *lock(&self.stream))
            .context("the agent")
    }

    /// Ends the line.
    pub fn close(&self) {
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }
}

fn sort(mut reader: UnixStream, waiting: &Waiting) {
    while let Ok(frame) = Frame::read_from(&mut reader) {
        let mut map = lock(waiting);
        let ends = frame.kind == Kind::Exit;
        let id = frame.id;
        // Nobody may be interested any more: a request that was given up.
        if let Some(to) = map.get(&id) {
            let _ = to.send(frame);
        }
        if ends {
            map.remove(&id);
        }
    }
    // Dropping the senders is what tells every open request that the machine ended.
    lock(waiting).clear();
}

impl Request {
    /// Takes in what has come, waiting up to `timeout` for the end.
    pub fn wait(&mut self, timeout: Duration) -> Progress {
        let end = Instant::now() + timeout;
        while self.progress == Progress::Running {
            let left = end.saturating_duration_since(Instant::now());
            match self.frames.recv_timeout(left) {
                Ok(frame) => self.take(&frame),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => self.progress = Progress::Lost,
            }
        }
        self.progress
    }

    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            Kind::Stdout => self.output.stdout.extend_from_slice(&frame.payload),
            Kind::Stderr => self.output.stderr.extend_from_slice(&frame.payload),
            Kind::Exit => {
                let code = frame.payload.first_chunk().map(|b| i32::from_le_bytes(*b));
                self.output.code = code.unwrap_or(126);
                self.progress = Progress::Ended;
            }
            Kind::Hello
            | Kind::Run
            | Kind::Kill
            | Kind::Put
            | Kind::Get
            | Kind::Write
            | Kind::ReadBack
            | Kind::Reboot => {}
        }
    }

    /// What it gave so far.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// What it gave, at the end.
    pub fn into_output(self) -> Output {
        self.output
    }
}
