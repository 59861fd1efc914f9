// SPDX-License-Identifier: GPL-2.0

//! One resource: the core's machine with what it needs of the kernel around it.
//!
//! # Lock order
//!
//! [`Turn`] → `Registry` (creation, then tables) → `Resource::inner` → `PostedTable`. Nothing
//! sleeps for I/O or the network under `inner`; effects are executed after it was released.
//! `Resource::threads` is taken alone.

use drbd_core::node::{self, BufId, Effect, IoToken, OpId, PeerIx, VolIx, MAX_EFFECTS};
use drbd_core::time::Instant;
use drbd_kapi::block::pages::PageBuf;
use drbd_kapi::kthread::KThread;
use drbd_kapi::mem;
use drbd_kapi::net::socket::Listener;
use drbd_kapi::queue::CompletionQueue;
use drbd_kapi::wait::{EventFlag, Wait, WaitQueue, Woken};
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::{new_mutex, Arc, Mutex};

use super::app::App;
use super::connection::{Setup, Sockets};
use super::queue::SendQueue;
use super::registry::Registry;
use super::store::KernelStore;
use super::table::Table;
use super::turn::Turn;
use super::volume::Volume;
use crate::admin::events::{Announced, Events};
use crate::errands::Errands;
use crate::exec::StepHost;
use crate::io::examine::Digests;

/// The machine over kernel memory.
pub(crate) type Machine = node::Resource<KernelStore>;

/// What an I/O in flight belongs to; its index in the table is the token that kapi returns.
pub(crate) struct InFlight {
    /// The core's name for it.
    pub(crate) io: IoToken,
    /// The buffer that is lent to the I/O and comes back with it.
    pub(crate) buf: Option<BufId>,
    /// How it is reported.
    pub(crate) kind: Kind,
}

/// Kinds of I/O in flight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `LocalDone`, the data stays in `buf` or with the application.
    Local,
    /// `LocalDone` with a new buffer.
    Fresh,
    /// `MetaDone`; `read`: with the page.
    Meta {
        /// The page is of interest.
        read: bool,
    },
}

/// What end_io leaves for the worker. Small, so that the queue is cheap.
pub(crate) struct Done {
    /// Index in `Inner::in_flight`.
    pub(crate) token: u64,
    /// How it went.
    pub(crate) result: node::AppResult,
    /// The pages, back from the device.
    pub(crate) buf: Option<PageBuf>,
}

/// Where completions arrive. Apart from [`Resource`], so that devices do not keep resources alive.
#[pin_data]
pub(crate) struct Completions {
    /// Filled in any context, drained by the worker.
    #[pin]
    pub(crate) queue: CompletionQueue<Done>,
}

/// Everything under the lock.
pub(crate) struct Inner {
    /// The decisions. Boxed: it is larger than what may stand on a stack while this is made.
    pub(crate) machine: KBox<Machine>,
    /// Application I/O by `AppId`.
    pub(crate) apps: Table<Arc<App>>,
    /// Buffers by `BufId`.
    pub(crate) bufs: Table<PageBuf>,
    /// I/O that devices work on.
    pub(crate) in_flight: Table<InFlight>,
    /// Packets to be sent: data, meta.
    pub(crate) queues: [SendQueue; 2],
    /// A sender is between `pop` and `Sent`: data, meta.
    pub(crate) sending: [bool; 2],
    /// Effects that the worker executes, in order.
    pub(crate) control: KVec<Effect>,
    /// Effects that whoever stepped executes.
    pub(crate) batch: KVec<Effect>,
    /// Vectors to take the place of `batch`.
    pub(crate) spare: KVec<KVec<Effect>>,
    /// The connection, while it stands.
    pub(crate) sockets: Option<Arc<Sockets>>,
    /// What listens for the peer while a connection is being made.
    pub(crate) listener: Option<Arc<Listener>>,
    /// How to connect; set by `connect`, until `disconnect`.
    pub(crate) setup: Option<Arc<Setup>>,
    /// When the worker wakes by itself; `None`: not before it is woken.
    pub(crate) worker_sleeps_until: Option<Instant>,
    /// The connection ends as soon as what waits for the meta socket was sent: the last word may
    /// be the answer that the peer's `disconnect` waits for.
    pub(crate) closing_when_sent: bool,
    /// The core wants the connection (attempt) ended.
    pub(crate) closing: bool,
    /// By `VolIx`.
    pub(crate) volumes: KVec<Option<Arc<Volume>>>,
    /// Answers to administrators.
    pub(crate) answers: KVec<(OpId, Answer)>,
    /// The next `OpId`.
    pub(crate) next_op: u32,
}

/// Address families of the C library.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The peer's host, without its port.
pub(crate) struct PeerHost(Option<Arc<Setup>>);

impl kernel::fmt::Display for PeerHost {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let Some(setup) = &self.0 else { return Ok(()) };
        match *setup.peer.ip() {
            [a, b, c, d] => f.write_fmt(fmt!("{}.{}.{}.{}", a, b, c, d)),
            _ => match <[u8; 16]>::try_from(setup.peer.ip()) {
                Ok(ip) => core::fmt::Display::fmt(&core::net::Ipv6Addr::from(ip), f),
                Err(_) => Ok(()),
            },
        }
    }
}

/// What the core answers to an administrator.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    /// SS_ or ERR_ code.
    pub(crate) code: i32,
    /// Why, in the core's words.
    pub(crate) info: Option<node::Note>,
}

/// The threads, joined at the end.
#[derive(Default)]
pub(crate) struct Threads {
    /// Worker, data sender, ack sender, errands, helpers.
    pub(crate) standing: KVec<KThread>,
    /// The receiver of the connection.
    pub(crate) receiver: Option<KThread>,
}

/// One resource.
#[pin_data]
pub(crate) struct Resource {
    /// Its name, as `drbd.conf` has it.
    pub(crate) name: CString,
    /// Everything that changes.
    #[pin]
    pub(crate) inner: Mutex<Inner>,
    /// Notified when something under the lock changed that a thread may wait for.
    #[pin]
    pub(crate) changed: WaitQueue,
    /// Wakes the senders: data, meta.
    #[pin]
    pub(crate) data_ready: EventFlag,
    #[pin]
    pub(crate) meta_ready: EventFlag,
    /// Completions of local I/O; also wakes the worker.
    pub(crate) completions: Arc<Completions>,
    /// Slow I/O.
    #[pin]
    pub(crate) errands: Errands,
    /// Calls of the user-mode helper.
    #[pin]
    pub(crate) helpers: Errands,
    /// Buffers whose content is to be looked at.
    #[pin]
    pub(crate) examiner: Errands,
    /// The algorithms for that; used by one thread only.
    #[pin]
    pub(crate) digests: Mutex<Digests>,
    /// All resources.
    pub(crate) registry: Arc<Registry>,
    /// The threads.
    #[pin]
    pub(crate) threads: Mutex<Threads>,
    /// Who may change it.
    #[pin]
    pub(crate) turn: Turn,
    /// The way to listeners.
    pub(crate) events: Arc<Events>,
    /// What listeners know.
    #[pin]
    pub(crate) announced: Mutex<Announced>,
}

impl Resource {
    /// A resource around `machine`, without threads.
    pub(crate) fn new(
        name: CString,
        machine: KBox<Machine>,
        io_capacity: usize,
        events: Arc<Events>,
        registry: Arc<Registry>,
    ) -> Result<Arc<Self>> {
        let completions = Arc::pin_init(
            try_pin_init!(Completions { queue <- CompletionQueue::new(io_capacity) }),
            GFP_KERNEL,
        )?;
        let inner = Inner {
            machine,
            apps: Table::new(),
            bufs: Table::new(),
            in_flight: Table::new(),
            queues: [SendQueue::new(), SendQueue::new()],
            sending: [false, false],
            control: KVec::with_capacity(MAX_EFFECTS, GFP_KERNEL)?,
            batch: KVec::with_capacity(MAX_EFFECTS, GFP_KERNEL)?,
            spare: KVec::new(),
            sockets: None,
            listener: None,
            setup: None,
            worker_sleeps_until: None,
            closing_when_sent: false,
            closing: false,
            volumes: KVec::new(),
            answers: KVec::new(),
            next_op: 1,
        };
        Arc::pin_init(
            try_pin_init!(Resource {
                name,
                inner <- new_mutex!(inner, "drbd_rs::Resource"),
                changed <- WaitQueue::new(),
                data_ready <- EventFlag::new(),
                meta_ready <- EventFlag::new(),
                completions,
                errands <- Errands::new(),
                helpers <- Errands::new(),
                examiner <- Errands::new(),
                digests <- new_mutex!(Digests::default(), "drbd_rs::Digests"),
                registry,
                threads <- new_mutex!(Threads::default(), "drbd_rs::Threads"),
                turn <- Turn::new(),
                events,
                announced <- new_mutex!(Announced::new(), "drbd_rs::Announced"),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether this is its name.
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        self.name.to_bytes_with_nul().split_last().is_some_and(|(_, own)| own == name)
    }

    /// The name for people; `?` should it not be text.
    pub(crate) fn label(&self) -> &str {
        self.name.to_str().unwrap_or("?")
    }

    /// Family and address of the peer, as the user-mode helper is told of them; empty without a
    /// connection.
    pub(crate) fn peer_address(&self) -> (&'static str, PeerHost) {
        let setup = self.inner.lock().setup.clone();
        let family = match setup.as_ref().map(|s| s.peer.family()) {
            Some(AF_INET) => "ipv4",
            Some(AF_INET6) => "ipv6",
            Some(_) | None => "",
        };
        (family, PeerHost(setup))
    }

    /// The driver's object of a volume.
    pub(crate) fn volume(&self, vol: VolIx) -> Option<Arc<Volume>> {
        self.inner.lock().volumes.get(usize::from(vol.0))?.clone()
    }

    /// Gives an administrator's request to the core and waits for the answer. It has to be the
    /// caller's [`Turn`].
    ///
    /// # Errors
    /// EINTR for a killed caller: it takes the request back; what it has changed by then stays.
    pub(crate) fn command(self: &Arc<Self>, cmd: node::admin::Command) -> Result<Answer> {
        self.operation(|machine, op, host| {
            machine.command(op, cmd, host);
            None
        })
    }

    /// Like [`Resource::command`] for requests that bring storage along. `begin` returns an answer
    /// if the core refuses at once.
    pub(crate) fn operation(
        self: &Arc<Self>,
        begin: impl FnOnce(&mut Machine, OpId, &mut StepHost<'_>) -> Option<Answer>,
    ) -> Result<Answer> {
        let op = {
            let mut inner = self.inner.lock();
            let op = OpId(inner.next_op);
            inner.next_op = inner.next_op.wrapping_add(1);
            // The answer to a request that was taken back is of no interest to anybody.
            inner.answers.clear();
            mem::reserve(&mut inner.answers, 2, GFP_KERNEL)?;
            op
        };
        let mut answer = None;
        self.drive(|machine, host| answer = begin(machine, op, host));
        if let Some(answer) = answer {
            return Ok(answer);
        }
        let woken = self.changed.wait_until(Wait::Killable, None, || {
            answer = self.take_answer(op);
            answer.is_some()
        });
        match (answer, woken) {
            (Some(answer), _) => Ok(answer),
            (None, Woken::Ready | Woken::TimedOut | Woken::Interrupted) => {
                self.drive(|machine, host| machine.cancel(op, host));
                Err(EINTR)
            }
        }
    }

    fn take_answer(&self, op: OpId) -> Option<Answer> {
        let mut inner = self.inner.lock();
        let at = inner.answers.iter().position(|(o, _)| *o == op)?;
        inner.answers.remove(at).ok().map(|(_, answer)| answer)
    }

    /// What the receiver of `peer` is to do now.
    pub(crate) fn wish(&self, peer: PeerIx) -> node::ReceiverWish {
        self.inner.lock().machine.receiver_wish(peer)
    }
}
