// SPDX-License-Identifier: GPL-2.0

//! How two nodes that both listen and both connect come to exactly two sockets.
//!
//! ```text
//!   ┌────► Connect ──────► Check ──both alive──► Done
//!   │         │ a socket     │ one is dead         ▲
//!   │         │ is missing   ▼                     │
//!   │         └──────────► Accept ◄─┐ packets      │
//!   │                        │  └───┘ crossed      │
//!   └── a socket is missing ─┴─► Check ────────────┘
//! ```
//!
//! The first outgoing connection is the data socket, the second one the meta socket; incoming ones
//! say by their first packet what they are. If both nodes do the same at once, packets cross: the
//! newer socket wins, and a coin breaks the symmetry. Whoever accepted the meta socket resolves
//! conflicts from then on. The machine owns no socket: it says which one goes where.

use crate::time::Duration;

/// The two sockets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Data: begins with INITIAL_DATA.
    Data,
    /// Meta: begins with INITIAL_META.
    Meta,
}

/// The first packet of an incoming connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// INITIAL_DATA or INITIAL_META.
    Initial(Slot),
    /// Something else, or nothing in time.
    Other,
}

/// Which of the sockets in place are alive. A dead one must be closed by who found it dead; what
/// is said of a socket that is not in place does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Data.
    pub data: bool,
    /// Meta.
    pub meta: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The outgoing connection is there.
    Connected,
    /// It is not, for a reason that is worth another attempt.
    ConnectFailed,
    /// The sockets in place were looked at.
    Checked(Alive),
    /// A connection came in, its first packet was read, then the sockets in place were looked at.
    Accepted(First, Alive),
    /// None came in.
    AcceptTimeout,
}

/// Two flips of a fair coin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coins {
    /// After crossed packets: accept again, before connecting again.
    pub again: bool,
    /// Wait longer than `connect-int` for an incoming connection; otherwise shorter.
    pub longer: bool,
}

/// What to do with the socket of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There is none.
    Nothing,
    /// Put the outgoing socket in its place and send its first packet. If sending fails, go on all
    /// the same: the check will find it.
    Outgoing(Slot),
    /// Put the incoming socket in its place.
    Incoming(Slot),
    /// Initial packets crossed: close the socket in this place and put the incoming one there.
    Crossed(Slot),
    /// Close the incoming socket.
    Close,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try an outgoing connection; then [`Event::Connected`] or [`Event::ConnectFailed`].
    Connect,
    /// Wait `sock-check-timeo`, look at both sockets; then [`Event::Checked`].
    Check,
    /// Wait for an incoming connection for [`accept_timeout`]; then [`Event::Accepted`] or
    /// [`Event::AcceptTimeout`].
    Accept {
        /// To be handed to [`accept_timeout`].
        longer: bool,
    },
    /// Both sockets are there and alive.
    Done {
        /// This node resolves conflicts.
        resolve_conflicts: bool,
    },
}

/// An attempt to connect. To give up, drop it and close the sockets.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    data: bool,
    meta: bool,
    resolve_conflicts: bool,
    after_accept: bool,
}

/// How long to wait for an incoming connection: `connect-int` seconds and a seventh more or less.
pub fn accept_timeout(connect_int: u32, longer: bool) -> Duration {
    let whole = Duration::secs(u64::from(connect_int)).0;
    let seventh = whole / 7;
    Duration(if longer {
        whole.saturating_add(seventh)
    } else {
        whole.saturating_sub(seventh)
    })
}

impl Connect {
    /// Begins; the listening socket must exist already.
    pub const fn start() -> (Connect, Next) {
        let machine = Connect {
            data: false,
            meta: false,
            resolve_conflicts: false,
            after_accept: false,
        };
        (machine, Next::Connect)
    }

    /// Takes what happened. `coins` must be flipped anew each time.
    pub fn handle(mut self, event: Event, coins: Coins) -> (Connect, Place, Next) {
        let (place, again) = match event {
            Event::Connected => {
                self.after_accept = false;
                (self.place_outgoing(), false)
            }
            Event::ConnectFailed => {
                self.after_accept = false;
                (Place::Nothing, false)
            }
            Event::Checked(alive) => {
                let next = self.checked(alive, coins);
                return (self, Place::Nothing, next);
            }
            Event::Accepted(first, alive) => {
                self.after_accept = true;
                self.keep(alive);
                let place = self.place_incoming(first);
                let crossed = matches!(place, Place::Crossed(_) | Place::Close);
                (place, crossed && coins.again)
            }
            Event::AcceptTimeout => {
                self.after_accept = true;
                (Place::Nothing, false)
            }
        };
        let next = if again {
            Next::Accept {
                longer: coins.longer,
            }
        } else if self.data && self.meta {
            Next::Check
        } else {
            self.incomplete(coins)
        };
        (self, place, next)
    }

    fn keep(&mut self, alive: Alive) {
        self.data &= alive.data;
        self.meta &= alive.meta;
    }

    fn checked(&mut self, alive: Alive, coins: Coins) -> Next {
        self.keep(alive);
        if self.data && self.meta {
            Next::Done {
                resolve_conflicts: self.resolve_conflicts,
            }
        } else {
            self.incomplete(coins)
        }
    }

    /// A socket is missing: what comes after connecting is accepting, and the other way round.
    fn incomplete(&self, coins: Coins) -> Next {
        if self.after_accept {
            Next::Connect
        } else {
            Next::Accept {
                longer: coins.longer,
            }
        }
    }

    fn place_outgoing(&mut self) -> Place {
        if !self.data {
            self.data = true;
            Place::Outgoing(Slot::Data)
        } else if !self.meta {
            self.meta = true;
            self.resolve_conflicts = false;
            Place::Outgoing(Slot::Meta)
        } else {
            debug_assert!(false, "connecting with both sockets in place");
            Place::Close
        }
    }

    fn place_incoming(&mut self, first: First) -> Place {
        let (slot, taken) = match first {
            First::Initial(Slot::Data) => (Slot::Data, &mut self.data),
            First::Initial(Slot::Meta) => {
                self.resolve_conflicts = true;
                (Slot::Meta, &mut self.meta)
            }
            First::Other => return Place::Close,
        };
        if core::mem::replace(taken, true) {
            Place::Crossed(slot)
        } else {
            Place::Incoming(slot)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COINS: Coins = Coins {
        again: false,
        longer: true,
    };
    const AGAIN: Coins = Coins {
        again: true,
        longer: false,
    };
    const BOTH: Alive = Alive {
        data: true,
        meta: true,
    };
    const ACCEPT: Next = Next::Accept { longer: true };

    #[test]
    fn the_one_who_connects_twice_does_not_resolve() {
        let (c, next) = Connect::start();
        assert_eq!(next, Next::Connect);
        let (c, place, next) = c.handle(Event::Connected, COINS);
        assert_eq!((place, next), (Place::Outgoing(Slot::Data), ACCEPT));
        let (c, place, next) = c.handle(Event::AcceptTimeout, COINS);
        assert_eq!((place, next), (Place::Nothing, Next::Connect));
        let (c, place, next) = c.handle(Event::Connected, COINS);
        assert_eq!((place, next), (Place::Outgoing(Slot::Meta), Next::Check));
        let (_, _, next) = c.handle(Event::Checked(BOTH), COINS);
        let resolve_conflicts = false;
        assert_eq!(next, Next::Done { resolve_conflicts });
    }

    #[test]
    fn crossed_packets() {
        let meta = First::Initial(Slot::Meta);
        let data = First::Initial(Slot::Data);
        let (c, _) = Connect::start();
        let (c, _, _) = c.handle(Event::Connected, COINS);
        let (c, place, next) = c.handle(Event::Accepted(data, BOTH), AGAIN);
        assert_eq!(place, Place::Crossed(Slot::Data));
        assert_eq!(next, Next::Accept { longer: false });
        let (c, place, next) = c.handle(Event::Accepted(meta, BOTH), COINS);
        assert_eq!((place, next), (Place::Incoming(Slot::Meta), Next::Check));
        let dead = Alive {
            data: false,
            meta: true,
        };
        let (c, _, next) = c.handle(Event::Checked(dead), COINS);
        assert_eq!(next, Next::Connect);
        let (c, place, next) = c.handle(Event::Connected, COINS);
        assert_eq!((place, next), (Place::Outgoing(Slot::Data), Next::Check));
        let (c, _, next) = c.handle(Event::Checked(dead), COINS);
        assert_eq!(next, ACCEPT, "after connecting comes accepting");
        let (c, place, next) = c.handle(Event::Accepted(First::Other, dead), COINS);
        assert_eq!((place, next), (Place::Close, Next::Connect));
        let (c, _, _) = c.handle(Event::Connected, COINS);
        let (_, _, next) = c.handle(Event::Checked(BOTH), COINS);
        let resolve_conflicts = true;
        assert_eq!(next, Next::Done { resolve_conflicts });
    }

    #[test]
    fn a_seventh_more_or_less() {
        assert_eq!(accept_timeout(7, true), Duration::secs(8));
        assert_eq!(accept_timeout(7, false), Duration::secs(6));
    }

    fn event() -> impl Strategy<Value = (bool, u8, bool, bool, bool)> {
        (
            any::<bool>(),
            0u8..3,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
        )
    }

    proptest! {
        /// Whatever comes: a socket goes only where none is, unless it is said to replace one, and
        /// the end has both.
        #[test]
        fn slots_are_kept_right(events in prop::collection::vec(event(), 1..60)) {
            let (mut c, mut next) = Connect::start();
            let (mut data, mut meta, mut resolve) = (false, false, false);
            for (yes, first, data_ok, meta_ok, again) in events {
                let alive = Alive { data: data_ok, meta: meta_ok };
                let event = match next {
                    Next::Connect if yes => Event::Connected,
                    Next::Connect => Event::ConnectFailed,
                    Next::Check => Event::Checked(alive),
                    Next::Accept { .. } if yes => Event::Accepted(match first {
                        0 => First::Initial(Slot::Data),
                        1 => First::Initial(Slot::Meta),
                        _ => First::Other,
                    }, alive),
                    Next::Accept { .. } => Event::AcceptTimeout,
                    Next::Done { resolve_conflicts } => {
                        prop_assert!(data && meta);
                        prop_assert_eq!(resolve_conflicts, resolve);
                        break;
                    }
                };
                if matches!(event, Event::Checked(_) | Event::Accepted(..)) {
                    data &= data_ok;
                    meta &= meta_ok;
                }
                let place;
                (c, place, next) = c.handle(event, Coins { again, longer: yes });
                let (slot, incoming, replaced) = match place {
                    Place::Nothing | Place::Close => continue,
                    Place::Outgoing(s) => (s, false, false),
                    Place::Incoming(s) => (s, true, false),
                    Place::Crossed(s) => (s, true, true),
                };
                let has = match slot { Slot::Data => &mut data, Slot::Meta => &mut meta };
                prop_assert_eq!(*has, replaced);
                *has = true;
                if slot == Slot::Meta {
                    resolve = incoming;
                }
            }
        }
    }
}
