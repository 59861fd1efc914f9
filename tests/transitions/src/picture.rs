// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a node: its lines of `/proc/drbd`, and UUIDs and flags as `drbdsetup get-gi`
//! prints them.
//!
//! UUIDs are random. In a picture they are letters, given in the order in which they are met on `a`
//! and then on `b`, in a state and then after an order: what counts is which of them are equal, and
//! which came in from elsewhere.

use std::fmt::Write;

/// UUID of metadata that were just created.
const JUST_CREATED: u64 = 4;
/// What a source adds to the bitmap UUID when it begins a resync.
const NEW_BITMAP: u64 = 1 << 48;

/// A volume in `/proc/drbd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proc {
    /// Connection state.
    pub cs: String,
    /// Roles; empty where only `Unconfigured` is shown.
    pub ro: String,
    /// States of the disks.
    pub ds: String,
    /// Suspension and pauses: `r-----`.
    pub flags: String,
    /// KiB out of sync.
    pub oos: u64,
}

impl Proc {
    /// Reads the lines of `minor`; `None`: there is no such volume.
    pub fn parse(text: &str, minor: u32) -> Option<Proc> {
        let start = format!("{minor}: ");
        let mut lines = text
            .lines()
            .skip_while(|l| !l.trim_start().starts_with(&start));
        let first = lines.next()?;
        let field = |line: &str, key: &str| {
            let mut words = line.split_whitespace().filter_map(|w| w.split_once(':'));
            let found = words.find(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
            found.unwrap_or_default()
        };
        let counters = lines.next().unwrap_or_default();
        let flags = first.split_whitespace().last().unwrap_or_default();
        Some(Proc {
            cs: field(first, "cs"),
            ro: field(first, "ro"),
            ds: field(first, "ds"),
            flags: if flags.contains(':') { "" } else { flags }.into(),
            oos: field(counters, "oos").parse().unwrap_or(0),
        })
    }

    /// Own state of the disk and the peer's.
    pub fn disks(&self) -> (&str, &str) {
        self.ds.split_once('/').unwrap_or(("", ""))
    }
}

/// UUIDs and flags of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Current, bitmap, younger and older of the history.
    pub uuids: [u64; 4],
    /// Seven digits: consistent, was up to date, primary, connected, full sync, peer outdated,
    /// crashed primary.
    pub flags: String,
}

impl Generation {
    /// Reads what `get-gi` prints; `None`: there is no disk.
    pub fn parse(text: &str) -> Option<Generation> {
        let words: Vec<&str> = text.trim().split(':').collect();
        let mut uuids = [0; 4];
        for (to, from) in uuids.iter_mut().zip(&words) {
            *to = u64::from_str_radix(from, 16).ok()?;
        }
        let flags = words.get(4..)?.concat();
        (!flags.is_empty()).then_some(Generation { uuids, flags })
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its volume; `None`: none.
    pub proc: Option<Proc>,
    /// Its disk; `None`: none.
    pub generation: Option<Generation>,
}

/// The names of UUIDs.
#[derive(Clone, Debug, Default)]
pub struct Letters(Vec<u64>);

impl Letters {
    fn known(&self, uuid: u64) -> Option<String> {
        let at = self.0.iter().position(|u| *u == uuid)?;
        let letter = char::from(b'A' + u8::try_from(at % 26).ok()?);
        let more = at / 26;
        Some(if more == 0 {
            letter.into()
        } else {
            format!("{letter}{more}")
        })
    }

    fn name(&mut self, uuid: u64, current: bool) -> String {
        let bare = uuid & !1;
        let mut name = match bare {
            0 => "0".to_owned(),
            JUST_CREATED => "new".to_owned(),
            _ => match (self.known(bare), self.known(bare.wrapping_sub(NEW_BITMAP))) {
                (Some(name), _) => name,
                (None, Some(name)) => name + "+",
                (None, None) => {
                    self.0.push(bare);
                    self.known(bare).unwrap_or_default()
                }
            },
        };
        // The bit that says that it was made, or used, by a Primary. In others than the current one
        // it means nothing: a name that the source of a resync makes up is a random number.
        if uuid & 1 != 0 && current {
            name.push('p');
        }
        name
    }

    /// A node in one word group: `cs ro ds flags uuids/flags oos`.
    pub fn show(&mut self, picture: &Picture) -> String {
        let Some(p) = &picture.proc else {
            return "nothing".into();
        };
        if p.ro.is_empty() {
            return p.cs.clone();
        }
        let mut text = format!("{} {} {} {}", p.cs, p.ro, p.ds, p.flags);
        match &picture.generation {
            None => text.push_str(" -"),
            Some(g) => {
                let mut current = true;
                let names = g.uuids.map(|u| self.name(u, std::mem::take(&mut current)));
                let names = names.join(":");
                let _ = write!(text, " {names}/{}", g.flags);
            }
        }
        let _ = write!(text, " {}", p.oos);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: X\n\n \
        1: cs:Unconfigured\n \
        2: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r--u--\n    \
        ns:12 nr:1 dw:2 dr:3 al:4 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:4096\n\
        \t[=>..................] sync'ed: 10.0% (1/2)K\n 12: cs:StandAlone ro:Primary/Unknown \
        ds:UpToDate/DUnknown   r-----\n    ns:0 oos:8\n";

    #[test]
    fn proc_drbd_is_read() {
        let p = Proc::parse(PROC, 2).unwrap();
        let words = (p.cs.as_str(), p.ro.as_str(), p.flags.as_str(), p.oos);
        assert_eq!(words, ("SyncSource", "Primary/Secondary", "r--u--", 4096));
        assert_eq!(p.disks(), ("UpToDate", "Inconsistent"));
        let alone = Proc::parse(PROC, 12).unwrap();
        assert_eq!((alone.flags.as_str(), alone.oos), ("r-----", 8));
        let bare = Proc::parse(PROC, 1).unwrap();
        assert_eq!((bare.cs.as_str(), bare.ro.as_str()), ("Unconfigured", ""));
        assert_eq!((bare.flags.as_str(), bare.oos), ("", 0));
        assert_eq!(Proc::parse(PROC, 0), None);
    }

    #[test]
    fn uuids_become_letters() {
        let gi = "1234567812345679:0000000000000004:ABCDEF0012345678:0000000000000000:\
            1:1:1:1:0:0:0\n";
        let g = Generation::parse(gi).unwrap();
        assert_eq!(g.flags, "1111000");
        let mut letters = Letters::default();
        let picture = |generation| Picture {
            proc: Proc::parse(PROC, 2),
            generation: Some(generation),
        };
        let line = letters.show(&picture(g.clone()));
        let state = "SyncSource Primary/Secondary UpToDate/Inconsistent r--u--";
        assert_eq!(line, format!("{state} Ap:new:B:0/1111000 4096"));
        let next = Generation {
            uuids: [
                0x42,
                0xABCD_EF00_1234_5679 + NEW_BITMAP,
                0,
                0x1234_5678_1234_5679,
            ],
            flags: "0".into(),
        };
        let line = letters.show(&picture(next));
        assert_eq!(line, format!("{state} C:B+:0:A/0 4096"));
        assert_eq!(Generation::parse("No UUIDs"), None);
        assert_eq!(Generation::parse(""), None);
    }
}
