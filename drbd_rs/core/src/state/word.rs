// SPDX-License-Identifier: GPL-2.0

//! The 32-bit state word of `P_STATE`, of state change requests and of netlink.
//!
//! Bit 0 is the lowest: role 0-1, peer 2-3, conn 4-8, disk 9-12, pdsk 13-16, susp 17, aftr_isp 18,
//! peer_isp 19, user_isp 20, susp_nod 21, susp_fen 22. The other bits are written as zero and not
//! looked at. Big-endian on the wire: that is the packet's business.

use super::types::{State, StateChange};
use super::{conn, disk, role::Role};

/// A state word, or a mask, with a number that DRBD 8.4 does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Role 3.
    Role,
    /// A connection state above 23.
    Conn,
    /// A disk state above 8.
    Disk,
    /// A mask that covers a field in part.
    Mask,
}

/// Width in bits and position of the fields with more than one bit.
const ROLE: Field = Field { shift: 0, ones: 3 };
const PEER: Field = Field { shift: 2, ones: 3 };
const CONN: Field = Field { shift: 4, ones: 31 };
const DISK: Field = Field { shift: 9, ones: 15 };
const PDSK: Field = Field {
    shift: 13,
    ones: 15,
};
const SUSP: u32 = 1 << 17;
const AFTR_ISP: u32 = 1 << 18;
const PEER_ISP: u32 = 1 << 19;
const USER_ISP: u32 = 1 << 20;
const SUSP_NOD: u32 = 1 << 21;
const SUSP_FEN: u32 = 1 << 22;

#[derive(Clone, Copy, Hash)]
struct Field {
    shift: u32,
    ones: u8,
}

impl Field {
    fn put(self, number: u8) -> u32 {
        u32::from(number & self.ones).wrapping_shl(self.shift)
    }

    fn take(self, word: u32) -> u8 {
        let [low, ..] = word.wrapping_shr(self.shift).to_le_bytes();
        low & self.ones
    }

    /// Whether `mask` covers the field; an error if it does so in part.
    fn masked(self, mask: u32) -> Result<bool, Malformed> {
        match self.take(mask) {
            0 => Ok(false),
            n if n == self.ones => Ok(true),
            _ => Err(Malformed::Mask),
        }
    }
}

fn role(field: Field, word: u32) -> Result<Role, Malformed> {
    Role::from_number(field.take(word)).ok_or(Malformed::Role)
}

fn conn(word: u32) -> Result<conn::State, Malformed> {
    conn::State::from_number(CONN.take(word)).ok_or(Malformed::Conn)
}

fn disk(field: Field, word: u32) -> Result<disk::State, Malformed> {
    disk::State::from_number(field.take(word)).ok_or(Malformed::Disk)
}

const fn flag(set: bool, bit: u32) -> u32 {
    if set {
        bit
    } else {
        0
    }
}

impl State {
    /// The state word.
    pub fn to_word(self) -> u32 {
        ROLE.put(self.role.number())
            | PEER.put(self.peer.number())
            | CONN.put(self.conn.number())
            | DISK.put(self.disk.number())
            | PDSK.put(self.pdsk.number())
            | flag(self.susp, SUSP)
            | flag(self.aftr_isp, AFTR_ISP)
            | flag(self.peer_isp, PEER_ISP)
            | flag(self.user_isp, USER_ISP)
            | flag(self.susp_nod, SUSP_NOD)
            | flag(self.susp_fen, SUSP_FEN)
    }

    /// The state of a state word.
    ///
    /// # Errors
    ///
    /// Says which field has a number that no state has.
    pub fn from_word(word: u32) -> Result<State, Malformed> {
        Ok(State {
            role: role(ROLE, word)?,
            peer: role(PEER, word)?,
            conn: conn(word)?,
            disk: disk(DISK, word)?,
            pdsk: disk(PDSK, word)?,
            susp: word & SUSP != 0,
            aftr_isp: word & AFTR_ISP != 0,
            peer_isp: word & PEER_ISP != 0,
            user_isp: word & USER_ISP != 0,
            susp_nod: word & SUSP_NOD != 0,
            susp_fen: word & SUSP_FEN != 0,
        })
    }
}

impl StateChange {
    /// Mask and value, in this order.
    pub fn to_words(self) -> (u32, u32) {
        let mut mask = 0;
        for (field, present) in [
            (ROLE, self.role.is_some()),
            (PEER, self.peer.is_some()),
            (CONN, self.conn.is_some()),
            (DISK, self.disk.is_some()),
            (PDSK, self.pdsk.is_some()),
        ] {
            if present {
                mask |= field.put(field.ones);
            }
        }
        let mut val = ROLE.put(self.role.map_or(0, Role::number))
            | PEER.put(self.peer.map_or(0, Role::number))
            | CONN.put(self.conn.map_or(0, conn::State::number))
            | DISK.put(self.disk.map_or(0, disk::State::number))
            | PDSK.put(self.pdsk.map_or(0, disk::State::number));
        for (wish, bit) in [
            (self.susp, SUSP),
            (self.aftr_isp, AFTR_ISP),
            (self.peer_isp, PEER_ISP),
            (self.user_isp, USER_ISP),
            (self.susp_nod, SUSP_NOD),
            (self.susp_fen, SUSP_FEN),
        ] {
            mask |= flag(wish.is_some(), bit);
            val |= flag(wish == Some(true), bit);
        }
        (mask, val)
    }

    /// The request of a mask and a value. Bits of the value outside the mask are not looked at.
    ///
    /// # Errors
    ///
    /// A field that is masked in part, or whose value no state has.
    pub fn from_words(mask: u32, val: u32) -> Result<StateChange, Malformed> {
        let one = |bit: u32| (mask & bit != 0).then_some(val & bit != 0);
        let mut change = StateChange {
            susp: one(SUSP),
            aftr_isp: one(AFTR_ISP),
            peer_isp: one(PEER_ISP),
            user_isp: one(USER_ISP),
            susp_nod: one(SUSP_NOD),
            susp_fen: one(SUSP_FEN),
            ..StateChange::NONE
        };
        if ROLE.masked(mask)? {
            change.role = Some(role(ROLE, val)?);
        }
        if PEER.masked(mask)? {
            change.peer = Some(role(PEER, val)?);
        }
        if CONN.masked(mask)? {
            change.conn = Some(conn(val)?);
        }
        if DISK.masked(mask)? {
            change.disk = Some(disk(DISK, val)?);
        }
        if PDSK.masked(mask)? {
            change.pdsk = Some(disk(PDSK, val)?);
        }
        Ok(change)
    }
}
