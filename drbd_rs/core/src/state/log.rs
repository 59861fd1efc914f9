// SPDX-License-Identifier: GPL-2.0

//! States and their changes as the kernel log shows them. People and test suites read these lines.
//!
//! Each value here implements `Display`; nothing is logged, and prefixes are the driver's business.

use core::fmt::{self, Display, Formatter};

use super::types::State;

/// Which parts of a change a line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Parts {
    /// `role( … )`.
    pub role: bool,
    /// `peer( … )`.
    pub peer: bool,
    /// `conn( … )`.
    pub conn: bool,
    /// `disk( … )`.
    pub disk: bool,
    /// `pdsk( … )`.
    pub pdsk: bool,
    /// `aftr_isp( … )`, `peer_isp( … )` and `user_isp( … )`.
    pub isp: bool,
    /// `susp( … )`, one flag for the three reasons.
    pub susp: bool,
}

impl Parts {
    /// The line of one volume whose change no line of the connection covers.
    pub const VOLUME: Parts = Parts {
        role: true,
        peer: true,
        conn: true,
        disk: true,
        pdsk: true,
        isp: true,
        susp: false,
    };

    /// The line of the connection that goes with a change of one volume.
    pub const SUSPENSION: Parts = Parts {
        role: false,
        peer: false,
        conn: false,
        disk: false,
        pdsk: false,
        isp: false,
        susp: true,
    };

    /// What the line of a volume still shows when the connection showed `self` already.
    pub const fn rest(self) -> Parts {
        Parts {
            role: !self.role,
            peer: !self.peer,
            conn: !self.conn,
            disk: !self.disk,
            pdsk: !self.pdsk,
            isp: true,
            susp: false,
        }
    }
}

/// `role( Secondary -> Primary ) disk( … ) `: the parts that differ, a blank after each.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Diff {
    /// Before.
    pub old: State,
    /// After.
    pub new: State,
    /// What to show of it.
    pub parts: Parts,
}

impl Diff {
    /// Whether the line would be empty: then none is logged.
    pub fn is_empty(&self) -> bool {
        let (o, n, p) = (self.old, self.new, self.parts);
        !((p.role && o.role != n.role)
            || (p.peer && o.peer != n.peer)
            || (p.conn && o.conn != n.conn)
            || (p.disk && o.disk != n.disk)
            || (p.pdsk && o.pdsk != n.pdsk)
            || (p.isp
                && (o.aftr_isp, o.peer_isp, o.user_isp) != (n.aftr_isp, n.peer_isp, n.user_isp))
            || (p.susp && o.is_suspended() != n.is_suspended()))
    }
}

/// One part, if it is wanted and differs.
fn part<T: Display + PartialEq>(
    f: &mut Formatter<'_>,
    wanted: bool,
    name: &str,
    old: T,
    new: T,
) -> fmt::Result {
    if wanted && old != new {
        write!(f, "{name}( {old} -> {new} ) ")
    } else {
        Ok(())
    }
}

impl Display for Diff {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (o, n, p) = (self.old, self.new, self.parts);
        part(f, p.role, "role", o.role, n.role)?;
        part(f, p.peer, "peer", o.peer, n.peer)?;
        part(f, p.conn, "conn", o.conn, n.conn)?;
        part(f, p.disk, "disk", o.disk, n.disk)?;
        part(f, p.pdsk, "pdsk", o.pdsk, n.pdsk)?;
        for (name, old, new) in [
            ("aftr_isp", o.aftr_isp, n.aftr_isp),
            ("peer_isp", o.peer_isp, n.peer_isp),
            ("user_isp", o.user_isp, n.user_isp),
        ] {
            part(f, p.isp, name, u8::from(old), u8::from(new))?;
        }
        let (old, new) = (u8::from(o.is_suspended()), u8::from(n.is_suspended()));
        part(f, p.susp, "susp", old, new)
    }
}

/// ` state = { cs:… ro:…/… ds:…/… r----- }`: one of the two lines that follow a refusal.
#[derive(Clone, Copy, Debug, Hash)]
pub struct StateLine {
    name: &'static str,
    state: State,
}

impl StateLine {
    /// The line with the state in force.
    pub const fn current(state: State) -> StateLine {
        StateLine {
            name: " state",
            state,
        }
    }

    /// The line with the refused state.
    pub const fn wanted(state: State) -> StateLine {
        StateLine {
            name: "wanted",
            state,
        }
    }
}

impl Display for StateLine {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let s = self.state;
        write!(
            f,
            " {} = {{ cs:{} ro:{}/{} ds:{}/{} ",
            self.name, s.conn, s.role, s.peer, s.disk, s.pdsk
        )?;
        f.write_str(if s.is_suspended() { "s" } else { "r" })?;
        for (set, letter) in [
            (s.aftr_isp, "a"),
            (s.peer_isp, "p"),
            (s.user_isp, "u"),
            (s.susp_fen, "F"),
            (s.susp_nod, "N"),
        ] {
            f.write_str(if set { letter } else { "-" })?;
        }
        f.write_str(" }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{conn, disk, Role};

    #[test]
    fn a_change_shows_what_differs() {
        let old = State::INITIAL;
        let mut new = old;
        new.role = Role::Primary;
        new.disk = disk::State::UpToDate;
        new.user_isp = true;
        new.susp_fen = true;
        let diff = |parts| Diff { old, new, parts };
        assert_eq!(
            diff(Parts::VOLUME).to_string(),
            "role( Secondary -> Primary ) disk( Diskless -> UpToDate ) user_isp( 0 -> 1 ) "
        );
        assert_eq!(diff(Parts::SUSPENSION).to_string(), "susp( 0 -> 1 ) ");
        let shown = Parts {
            role: true,
            ..Parts::default()
        };
        assert_eq!(
            diff(shown.rest()).to_string(),
            "disk( Diskless -> UpToDate ) user_isp( 0 -> 1 ) "
        );
    }

    #[test]
    fn empty_means_an_empty_line() {
        let old = State::INITIAL;
        let mut new = old;
        for parts in [Parts::VOLUME, Parts::SUSPENSION, Parts::default()] {
            for s in [old, new] {
                let diff = Diff { old, new: s, parts };
                assert_eq!(diff.is_empty(), diff.to_string().is_empty());
            }
            new.susp = true;
            new.conn = conn::State::Connected;
        }
    }

    #[test]
    fn refusals_show_both_states() {
        let mut s = State::INITIAL;
        assert_eq!(
            StateLine::current(s).to_string(),
            "  state = { cs:StandAlone ro:Secondary/Unknown ds:Diskless/DUnknown r----- }"
        );
        s.susp_nod = true;
        s.aftr_isp = true;
        assert_eq!(
            StateLine::wanted(s).to_string(),
            " wanted = { cs:StandAlone ro:Secondary/Unknown ds:Diskless/DUnknown sa---N }"
        );
    }
}
