// SPDX-License-Identifier: GPL-2.0

//! What administrators ask for.
//!
//! A request is an [`Operation`]: a small machine that makes one move at a time and then waits,
//! for the peer, a disk, a helper or the clock. One runs at a time, as in the C driver: the driver
//! lets administrators take turns. It ends with [`Effect::AdminDone`]; [`Resource::cancel`] ends it
//! early for a waiter that was killed.
//!
//! The checks of a request and the codes they lead to stand in the order of netlink.md §5.

mod attach;
mod connect;
mod detach;
mod options;
mod prepare;
mod resize;
mod role;
mod suspend;
mod sync;
mod volume;

pub use super::disk::BackingLimits;
pub use attach::AttachRefused;
pub use prepare::{attach_needs, superblock_sector, AttachNeeds, Devices};

use crate::nl::conf::{DiskConf, NetConf, ResizeParms, ResourceOpts};
use crate::nl::ErrCode;
use crate::state::conn;
use crate::state::{Role, Ss};
use crate::time::{Duration, Instant};
use crate::units::Sector;

use super::super::io::{Effect, Host, OpId, PeerIx, VolIx};
use super::super::note::Note;
use super::super::{After, Resource, Store};
use super::after_change::ROOM;
use super::state_request::Asked;
use super::{Flags, Next, StateChange};

/// How long a request waits for a passing state to pass. The C driver waits for ever.
const TRANSIENT: Duration = Duration::secs(60);

/// After which time a peer that was just asking for something itself is asked again.
const ASK_AGAIN: Duration = Duration::millis(100);

/// How often it is asked before that counts as a refusal: 3 s, less than drbdadm waits.
const ASKS: u8 = 30;

/// Moves of one request in one step.
const MOVES: u32 = 8;

/// A request of an administrator.
///
/// New volumes and disks bring storage along and have methods of their own:
/// [`Resource::add_volume`], [`Resource::attach`].
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// `del-minor`: on success take the volume by [`Resource::take_volume`].
    DelVolume {
        /// Which.
        vol: VolIx,
    },
    /// `detach`.
    Detach {
        /// Of which volume.
        vol: VolIx,
        /// Without waiting for I/O.
        force: bool,
    },
    /// `connect`. The owner has checked the addresses.
    Connect {
        /// To which peer.
        peer: PeerIx,
        /// The options.
        conf: NetConf,
    },
    /// `disconnect`.
    Disconnect {
        /// From which peer.
        peer: PeerIx,
        /// Without asking the peer.
        force: bool,
    },
    /// `net-options`.
    NetOptions {
        /// Of which connection.
        peer: PeerIx,
        /// The new options; those that cannot change are ignored.
        conf: NetConf,
    },
    /// `disk-options`.
    DiskOptions {
        /// Of which volume.
        vol: VolIx,
        /// The new options; those that cannot change are ignored.
        conf: DiskConf,
    },
    /// `resource-options`.
    ResourceOptions {
        /// The new options.
        opts: ResourceOpts,
    },
    /// `primary`.
    Primary {
        /// Which volume.
        vol: VolIx,
        /// Even without good data.
        force: bool,
    },
    /// `secondary`.
    Secondary {
        /// Which volume.
        vol: VolIx,
    },
    /// `invalidate`.
    Invalidate {
        /// Which volume.
        vol: VolIx,
    },
    /// `invalidate-remote`.
    InvalidatePeer {
        /// Which volume.
        vol: VolIx,
    },
    /// `pause-sync`.
    PauseSync {
        /// Which volume.
        vol: VolIx,
    },
    /// `resume-sync`.
    ResumeSync {
        /// Which volume.
        vol: VolIx,
    },
    /// `suspend-io`.
    SuspendIo {
        /// By way of which volume; the whole resource is suspended.
        vol: VolIx,
    },
    /// `resume-io`.
    ResumeIo {
        /// By way of which volume.
        vol: VolIx,
    },
    /// `outdate`.
    Outdate {
        /// Which volume.
        vol: VolIx,
    },
    /// `new-current-uuid`.
    NewCurrentUuid {
        /// Of which volume.
        vol: VolIx,
        /// Declare everything in sync.
        clear_bitmap: bool,
    },
    /// `resize`. The owner has measured the lower devices.
    Resize {
        /// Which volume.
        vol: VolIx,
        /// What is wanted, based on [`Resource::resize_base`].
        parms: ResizeParms,
    },
    /// `verify`.
    Verify {
        /// Which volume.
        vol: VolIx,
        /// Where to start; see [`super::super::Resource::verify_start`] for the default.
        start: Sector,
        /// Where to stop; the greatest number: at the end.
        stop: Sector,
    },
}

/// A change of state that a request needs.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Ask {
    /// Of one volume; `None`: of the connection.
    vol: Option<VolIx>,
    change: StateChange,
    flags: Flags,
}

impl Ask {
    const fn volume(vol: VolIx, change: StateChange, flags: Flags) -> Ask {
        Ask {
            vol: Some(vol),
            change,
            flags,
        }
    }

    const fn connection(change: StateChange, flags: Flags) -> Ask {
        Ask {
            vol: None,
            change,
            flags,
        }
    }
}

/// What a request is about and how far it is.
#[derive(Clone, Copy, Debug, Hash)]
enum Kind {
    Role(role::RoleChange),
    Attach(attach::Attaching),
    Detach(detach::Detaching),
    Disconnect(connect::Disconnecting),
    Invalidate(sync::Invalidating),
    NewUuid(sync::NewUuid),
    Resize(resize::Resizing),
    Resume(suspend::Resuming),
    DelVolume(volume::Deleting),
    /// One change of state, whose code is the answer.
    Plain,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, Hash)]
enum Wait {
    /// Nothing: it is its turn.
    Turn(Event),
    /// The peer's answer to this change.
    Peer(Ask),
    /// This change is tried again after the next change of state.
    Retry(Ask, Instant),
    /// This change is tried again at that time.
    Again(Ask, Instant),
    /// [`Next::Operation`].
    Io,
    /// The clock.
    Until(Instant),
    /// Something it looks at by itself after each step, and at this time if nothing happens before.
    Poll(Option<Instant>),
}

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// It begins, or goes on.
    Go,
    /// The change of state is decided.
    Code(Ss),
    /// What it waited for is over; whether well.
    Io(bool),
}

/// What a request does next.
enum Move {
    Done(i32),
    Ask(Kind, Ask),
    Io(Kind),
    Until(Kind, Instant),
    Poll(Kind),
    /// As [`Move::Poll`], up to that time: then it looks once more, and waits no longer.
    PollUntil(Kind, Instant),
    /// At once.
    Go(Kind),
}

/// A request that is being worked on.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Operation {
    id: OpId,
    kind: Kind,
    wait: Wait,
    /// How often the peer may still answer that it has to be asked again.
    asks: u8,
}

impl Operation {
    /// Whether it changes the role: the first packets of a connection wait for that.
    pub(super) fn changes_role(&self) -> bool {
        matches!(self.kind, Kind::Role(_))
    }

    /// Whether it disconnects.
    pub(super) fn disconnects(&self) -> bool {
        matches!(self.kind, Kind::Disconnect(_))
    }

    /// Whether the peer must not change the state of this volume meanwhile.
    pub(super) fn holds_state(&self, vol: VolIx) -> bool {
        match &self.kind {
            Kind::Role(r) => r.vol == vol,
            Kind::NewUuid(n) => n.vol == vol,
            Kind::Attach(_)
            | Kind::Detach(_)
            | Kind::Disconnect(_)
            | Kind::Invalidate(_)
            | Kind::Resize(_)
            | Kind::Resume(_)
            | Kind::DelVolume(_)
            | Kind::Plain => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.wait {
            Wait::Until(at) | Wait::Retry(_, at) | Wait::Again(_, at) => Some(at),
            Wait::Poll(until) => until,
            Wait::Turn(_) | Wait::Peer(_) | Wait::Io => None,
        }
    }
}

impl<S: Store> Resource<S> {
    /// Begins to work on a request; answered once by [`Effect::AdminDone`]. The owner steps with
    /// [`super::super::Input::Tick`] right afterwards, as after each method that takes a host.
    pub fn command(&mut self, op: OpId, command: Command, h: &mut impl Host) {
        if self.ctl.op.is_some() {
            self.refuse(op, Ss::InTransientState.number(), Some(Note::Busy), h);
            return;
        }
        let vol = match command {
            Command::Connect { peer, conf } => return self.admin_connect(op, peer, conf, h),
            Command::Disconnect { peer, force } => {
                return self.admin_disconnect(op, peer, force, h);
            }
            Command::NetOptions { peer, conf } => {
                return self.admin_net_options(op, peer, conf, h);
            }
            Command::ResourceOptions { opts } => {
                self.ctl.opts = opts;
                return self.answer(op, ErrCode::NoError, h);
            }
            Command::DelVolume { vol }
            | Command::Detach { vol, .. }
            | Command::DiskOptions { vol, .. }
            | Command::Primary { vol, .. }
            | Command::Secondary { vol }
            | Command::Invalidate { vol }
            | Command::InvalidatePeer { vol }
            | Command::PauseSync { vol }
            | Command::ResumeSync { vol }
            | Command::SuspendIo { vol }
            | Command::ResumeIo { vol }
            | Command::Outdate { vol }
            | Command::NewCurrentUuid { vol, .. }
            | Command::Resize { vol, .. }
            | Command::Verify { vol, .. } => vol,
        };
        if self.vol(vol).is_none() {
            return self.answer(op, ErrCode::MinorInvalid, h);
        }
        self.volume_command(op, vol, command, h);
    }

    fn volume_command(&mut self, op: OpId, vol: VolIx, command: Command, h: &mut impl Host) {
        let plain = |change| Ask::volume(vol, change, Flags::VERBOSE);
        match command {
            Command::DelVolume { .. } => self.admin_del_volume(op, vol, h),
            Command::Detach { force, .. } => self.admin_detach(op, vol, force, h),
            Command::DiskOptions { conf, .. } => self.admin_disk_options(op, vol, conf, h),
            Command::Primary { force, .. } => {
                self.admin_role(op, vol, Role::Primary, force, h);
            }
            Command::Secondary { .. } => self.admin_role(op, vol, Role::Secondary, false, h),
            Command::Invalidate { .. } => self.admin_invalidate(op, vol, false, h),
            Command::InvalidatePeer { .. } => self.admin_invalidate(op, vol, true, h),
            Command::PauseSync { .. } => self.admin_pause(op, vol, true, h),
            Command::ResumeSync { .. } => self.admin_pause(op, vol, false, h),
            Command::SuspendIo { .. } => {
                let change = StateChange {
                    susp: Some(true),
                    ..StateChange::NONE
                };
                self.begin_with(op, Kind::Plain, plain(change), h);
            }
            Command::ResumeIo { .. } => self.admin_resume_io(op, vol, h),
            Command::Outdate { .. } => {
                let change = StateChange::NONE.disk(crate::state::disk::State::Outdated);
                self.begin_with(op, Kind::Plain, plain(change), h);
            }
            Command::NewCurrentUuid { clear_bitmap, .. } => {
                self.admin_new_uuid(op, vol, clear_bitmap, h);
            }
            Command::Resize { parms, .. } => self.admin_resize(op, vol, parms, h),
            Command::Verify { start, stop, .. } => {
                self.set_verify_range(vol, start, stop);
                let change = StateChange::NONE.conn(conn::State::VerifyS);
                self.begin_with(op, Kind::Plain, plain(change), h);
            }
            // Handled by the caller.
            Command::Connect { .. }
            | Command::Disconnect { .. }
            | Command::NetOptions { .. }
            | Command::ResourceOptions { .. } => {}
        }
    }

    /// Ends a request whose waiter was killed, with ERR_INTR. What it began goes on by itself.
    pub fn cancel(&mut self, op: OpId, h: &mut impl Host) {
        let Some(running) = self.ctl.op.filter(|o| o.id == op) else {
            return;
        };
        self.drop_request();
        self.operation_dropped(running.kind, h);
        self.ctl.op = None;
        self.answer(op, ErrCode::Intr, h);
    }

    /// Gives back what a request holds that will not go on.
    fn operation_dropped(&mut self, kind: Kind, h: &mut impl Host) {
        self.forget(self.operation_goes_on());
        match kind {
            Kind::Detach(d) if d.holds_gate() => self.gate_open(d.vol, h),
            Kind::Invalidate(i) => self.gate_open(i.vol, h),
            Kind::Attach(a) => self.attach_dropped(a, h),
            Kind::Resume(r) => self.gate_open(r.vol, h),
            Kind::Detach(_)
            | Kind::Role(_)
            | Kind::Disconnect(_)
            | Kind::NewUuid(_)
            // The writes go on, and the size counts when they are done.
            | Kind::Resize(_)
            | Kind::DelVolume(_)
            | Kind::Plain => {}
        }
    }

    fn answer(&mut self, op: OpId, code: ErrCode, h: &mut impl Host) {
        self.refuse(op, code.number(), None, h);
    }

    /// Answers; `info` is both logged and passed to the administrator.
    fn refuse(&mut self, op: OpId, code: i32, info: Option<Note>, h: &mut impl Host) {
        if let Some(note) = info {
            h.emit(Effect::Log { vol: None, note });
        }
        h.emit(Effect::AdminDone { op, code, info });
    }

    fn begin(&mut self, id: OpId, kind: Kind, h: &mut impl Host) {
        self.ctl.op = Some(Operation {
            id,
            kind,
            wait: Wait::Turn(Event::Go),
            asks: ASKS,
        });
        self.operation_pump(h);
    }

    fn begin_with(&mut self, id: OpId, kind: Kind, ask: Ask, h: &mut impl Host) {
        let wait = self.put_ask(ask, h);
        self.ctl.op = Some(Operation {
            id,
            kind,
            wait,
            asks: ASKS,
        });
        self.operation_pump(h);
    }

    fn put_ask(&mut self, ask: Ask, h: &mut impl Host) -> Wait {
        let asked = match ask.vol {
            Some(vol) => self.ask_state(vol, ask.change, ask.flags, h),
            None => self.ask_conn(super::super::PEER, ask.change, ask.flags, h),
        };
        match asked {
            Asked::Done(Ss::InTransientState) => Wait::Retry(ask, h.now().plus(TRANSIENT)),
            Asked::Done(code) => Wait::Turn(Event::Code(code)),
            Asked::Waits => Wait::Peer(ask),
        }
    }

    pub(super) fn operation_resumes(&mut self, id: OpId, ok: bool) {
        if let Some(op) = self.ctl.op.as_mut().filter(|o| o.id == id) {
            op.wait = Wait::Turn(Event::Io(ok));
        }
    }

    /// The continuation that lets the running request go on.
    fn operation_goes_on(&self) -> After {
        self.ctl.op.map_or(After::Nothing, |o| {
            After::Control(Next::Operation { op: o.id })
        })
    }

    /// Lets the running request make its moves. True: it made one.
    #[inline(never)]
    pub(super) fn operation_pump(&mut self, h: &mut impl Host) -> bool {
        let mut moved = false;
        for _ in 0..MOVES {
            let Some(op) = self.ctl.op else { return moved };
            if h.room() < ROOM {
                return true;
            }
            let Some(event) = self.event_for(op, h) else {
                return moved;
            };
            // What follows may already be answered while the move is made.
            let polled = matches!(op.wait, Wait::Poll(_));
            self.set_wait(Wait::Io);
            match self.make_move(op.kind, event, h) {
                Move::Done(code) => {
                    self.ctl.op = None;
                    self.refuse(op.id, code, None, h);
                }
                Move::Ask(kind, ask) => {
                    self.set_kind(kind);
                    let wait = self.put_ask(ask, h);
                    self.set_wait(wait);
                }
                Move::Io(kind) => self.set_kind(kind),
                Move::Until(kind, at) => {
                    self.set_kind(kind);
                    self.set_wait(Wait::Until(at));
                }
                Move::Poll(kind) => {
                    self.set_kind(kind);
                    self.set_wait(Wait::Poll(None));
                    if polled {
                        return moved;
                    }
                }
                Move::PollUntil(kind, at) => {
                    self.set_kind(kind);
                    self.set_wait(Wait::Poll(Some(at)));
                    if polled {
                        return moved;
                    }
                }
                Move::Go(kind) => {
                    self.set_kind(kind);
                    self.set_wait(Wait::Turn(Event::Go));
                }
            }
            moved = true;
        }
        moved
    }

    fn set_wait(&mut self, wait: Wait) {
        if let Some(op) = self.ctl.op.as_mut() {
            op.wait = wait;
        }
    }

    fn set_kind(&mut self, kind: Kind) {
        if let Some(op) = self.ctl.op.as_mut() {
            op.kind = kind;
        }
    }

    /// What a waiting request is to be told; `None`: it waits on.
    fn event_for(&mut self, op: Operation, h: &mut impl Host) -> Option<Event> {
        let now = h.now();
        match op.wait {
            Wait::Turn(event) => Some(event),
            Wait::Io => None,
            Wait::Poll(_) => Some(Event::Go),
            Wait::Until(at) => (now >= at).then_some(Event::Go),
            Wait::Peer(ask) => match self.poll_request(h)? {
                Ss::InTransientState => {
                    self.set_wait(Wait::Retry(ask, now.plus(TRANSIENT)));
                    None
                }
                Ss::ConcurrentStChg => self.peer_asks_itself(ask, h),
                code => Some(Event::Code(code)),
            },
            Wait::Again(_, at) if now < at => None,
            Wait::Again(ask, _) => match self.put_ask(ask, h) {
                Wait::Turn(event) => Some(event),
                wait => {
                    self.set_wait(wait);
                    None
                }
            },
            Wait::Retry(_, until) if now >= until => Some(Event::Code(Ss::InTransientState)),
            Wait::Retry(ask, until) => {
                let quiet = Ask {
                    flags: Flags {
                        verbose: false,
                        ..ask.flags
                    },
                    ..ask
                };
                match self.put_ask(quiet, h) {
                    Wait::Turn(event) => Some(event),
                    Wait::Retry(..) => {
                        self.set_wait(Wait::Retry(ask, until));
                        None
                    }
                    wait => {
                        self.set_wait(wait);
                        None
                    }
                }
            }
        }
    }

    /// The peer could not agree for what it is asking for itself: it is asked again, for a while.
    fn peer_asks_itself(&mut self, ask: Ask, h: &mut impl Host) -> Option<Event> {
        let asks = self.ctl.op.map_or(0, |op| op.asks);
        if asks == 0 {
            let code = Ss::CwFailedByPeer;
            self.request_refused(ask.vol, ask.change, ask.flags, code, h);
            return Some(Event::Code(code));
        }
        if let Some(op) = self.ctl.op.as_mut() {
            op.asks = asks.saturating_sub(1);
            op.wait = Wait::Again(ask, h.now().plus(ASK_AGAIN));
        }
        None
    }

    fn make_move(&mut self, kind: Kind, event: Event, h: &mut impl Host) -> Move {
        match kind {
            Kind::Role(r) => self.move_role(r, event, h),
            Kind::Attach(a) => self.move_attach(a, event, h),
            Kind::Detach(d) => self.move_detach(d, event, h),
            Kind::Disconnect(d) => self.move_disconnect(d, event),
            Kind::Invalidate(i) => self.move_invalidate(i, event, h),
            Kind::NewUuid(n) => self.move_new_uuid(n, event, h),
            Kind::Resize(r) => self.move_resize(r, event, h),
            Kind::Resume(r) => self.move_resume(r, event, h),
            Kind::DelVolume(d) => self.move_del_volume(d, event),
            Kind::Plain => Move::Done(match event {
                Event::Code(code) => code.number(),
                Event::Go | Event::Io(_) => Ss::UnknownError.number(),
            }),
        }
    }
}
