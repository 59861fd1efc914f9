// SPDX-License-Identifier: GPL-2.0
//! The wire: a switch in user space between the nodes' network cards.
//!
//! Each node has a pair of unix datagram sockets, one frame per datagram (QEMU's
//! `-netdev dgram`), and a thread that forwards what the node sends to all others. A rule per
//! direction cuts, delays or drops. No privilege and no module of the host's kernel is needed.
//!
//! It floods instead of learning addresses: with a handful of nodes that costs nothing and has no
//! state that could be wrong. Frames of one direction keep their order.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Context, Result};
use crate::pcap::Pcap;
use crate::rng::Rng;

/// What happens to frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Nothing passes.
    pub cut: bool,
    /// Every frame arrives this much later.
    pub delay: Duration,
    /// So many of 1000 frames are lost.
    pub loss_permille: u16,
}

#[derive(Debug)]
struct Port {
    socket: UnixDatagram,
    /// Where the node's network card listens.
    peer: PathBuf,
}

#[derive(Debug)]
struct Delayed {
    due: Instant,
    to: usize,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    ports: Vec<Port>,
    /// Rule of each direction, at `from * ports + to`.
    rules: Mutex<Vec<Rule>>,
    pcap: Mutex<Option<Pcap>>,
    rng: Mutex<Rng>,
    /// Frames waiting for their time, one queue per direction, so that each keeps its order.
    delayed: Mutex<Vec<VecDeque<Delayed>>>,
    wake: Condvar,
}

/// The switch. Its threads live as long as the process.
#[derive(Debug, Clone)]
pub struct Switch(Arc<Shared>);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two socket paths of port `i`: the node's and the switch's.
pub fn paths(dir: &Path, i: usize) -> (PathBuf, PathBuf) {
    (
        dir.join(format!("net{i}.node")),
        dir.join(format!("net{i}.switch")),
    )
}

impl Switch {
    /// A switch with `ports` ports, its sockets and its capture in `dir`.
    ///
    /// # Errors
    /// When a socket or the capture cannot be made.
    pub fn start(dir: &Path, ports: usize, seed: u64, capture_limit: usize) -> Result<Self> {
        let mut list = Vec::new();
        for i in 0..ports {
            let (peer, own) = paths(dir, i);
            let socket = UnixDatagram::bind(&own).context(own.display())?;
            // A node that does not take its frames must not hold up the others for long.
            socket.set_write_timeout(Some(Duration::from_millis(200)))?;
            list.push(Port { socket, peer });
        }
        let shared = Arc::new(Shared {
            ports: list,
            rules: Mutex::new(vec![Rule::default(); ports * ports]),
            pcap: Mutex::new(Some(Pcap::create(&dir.join("wire.pcap"), capture_limit)?)),
            rng: Mutex::new(Rng::new(seed)),
            delayed: Mutex::new((0..ports * ports).map(|_| VecDeque::new()).collect()),
            wake: Condvar::new(),
        });
        for from in 0..ports {
            let s = Arc::clone(&shared);
            std::thread::spawn(move || s.forward(from));
        }
        let s = Arc::clone(&shared);
        std::thread::spawn(move || s.deliver_delayed());
        Ok(Self(shared))
    }

    /// Sets the rule of one direction.
    pub fn set(&self, from: usize, to: usize, rule: Rule) {
        if let Some(r) = lock(&self.0.rules).get_mut(from * self.0.ports.len() + to) {
            *r = rule;
        }
    }

    /// Sets the rule of both directions between two nodes.
    pub fn set_both(&self, a: usize, b: usize, rule: Rule) {
        self.set(a, b, rule);
        self.set(b, a, rule);
    }

    /// Cuts both directions between two nodes.
    pub fn cut(&self, a: usize, b: usize) {
        self.set_both(
            a,
            b,
            Rule {
                cut: true,
                ..Rule::default()
            },
        );
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        lock(&self.0.rules).fill(Rule::default());
    }

    /// Puts the capture on disk.
    pub fn flush_capture(&self) {
        if let Some(p) = lock(&self.0.pcap).as_mut() {
            let _ = p.flush();
        }
    }
}

impl Shared {
    fn rule(&self, from: usize, to: usize) -> Rule {
        lock(&self.rules)
            .get(from * self.ports.len() + to)
            .copied()
            .unwrap_or_default()
    }

    fn forward(&self, from: usize) {
        let Some(port) = self.ports.get(from) else {
            return;
        };
        let mut buffer = vec![0; 70_000];
        loop {
            let frame = match port.socket.recv(&mut buffer) {
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // The sender died (its address is gone); the next machine binds it anew.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(_) => return,
            };
            if let Some(p) = lock(&self.pcap).as_mut() {
                let _ = p.frame(frame);
            }
            for to in (0..self.ports.len()).filter(|to| *to != from) {
                self.pass(from, to, frame);
            }
        }
    }

    fn pass(&self, from: usize, to: usize, frame: &[u8]) {
        let rule = self.rule(from, to);
        if rule.cut || (rule.loss_permille > 0 && lock(&self.rng).chance(rule.loss_permille)) {
            return;
        }
        let mut delayed = lock(&self.delayed);
        let queue = delayed.get_mut(from * self.ports.len() + to);
        // Behind a delayed frame every later one waits too, or it would overtake.
        if let Some(queue) = queue.filter(|q| !rule.delay.is_zero() || !q.is_empty()) {
            let due = Instant::now() + rule.delay;
            queue.push_back(Delayed {
                due,
                to,
                frame: frame.to_vec(),
            });
            self.wake.notify_all();
            return;
        }
        drop(delayed);
        self.send(to, frame);
    }

    /// A frame that cannot be delivered is lost, as on a real wire.
    fn send(&self, to: usize, frame: &[u8]) {
        if let Some(port) = self.ports.get(to) {
            let _ = port.socket.send_to(frame, &port.peer);
        }
    }

    fn deliver_delayed(&self) {
        let mut delayed = lock(&self.delayed);
        loop {
            let now = Instant::now();
            let mut next = now + Duration::from_secs(3600);
            let mut due = Vec::new();
            for queue in delayed.iter_mut() {
                while queue.front().is_some_and(|d| d.due <= now) {
                    due.extend(queue.pop_front());
                }
                if let Some(d) = queue.front() {
                    next = next.min(d.due);
                }
            }
            if due.is_empty() {
                let wait = next.saturating_duration_since(now);
                delayed = match self.wake.wait_timeout(delayed, wait) {
                    Ok((d, _)) => d,
                    Err(e) => e.into_inner().0,
                };
                continue;
            }
            // Sent with the lock held: a new frame of the same direction must not overtake.
            for d in due {
                self.send(d.to, &d.frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(dir: &Path, i: usize) -> UnixDatagram {
        let (own, switch) = paths(dir, i);
        let s = UnixDatagram::bind(own).unwrap();
        s.connect(switch).unwrap();
        s.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        s
    }

    #[test]
    fn rules_apply_per_direction_and_order_is_kept() {
        let dir = std::env::temp_dir().join(format!("drbd-lab-switch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let sw = Switch::start(&dir, 2, 1, 64).unwrap();
        let (a, b) = (node(&dir, 0), node(&dir, 1));
        let mut buf = [0; 100];

        a.send(b"one").unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 3);
        sw.set(
            0,
            1,
            Rule {
                cut: true,
                ..Rule::default()
            },
        );
        a.send(b"lost").unwrap();
        assert!(b.recv(&mut buf).is_err());
        b.send(b"back").unwrap();
        assert_eq!(a.recv(&mut buf).unwrap(), 4);

        let delay = Duration::from_millis(50);
        sw.set(
            0,
            1,
            Rule {
                delay,
                ..Rule::default()
            },
        );
        let start = Instant::now();
        a.send(b"first").unwrap();
        std::thread::sleep(Duration::from_millis(10));
        sw.heal();
        a.send(b"second").unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 5);
        assert!(start.elapsed() >= delay);
        assert_eq!(b.recv(&mut buf).unwrap(), 6);
        sw.flush_capture();
        let size = std::fs::metadata(dir.join("wire.pcap")).unwrap().len();
        assert_eq!(size, 24 + 5 * 16 + 3 + 4 + 4 + 5 + 6);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
