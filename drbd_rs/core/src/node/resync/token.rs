// SPDX-License-Identifier: GPL-2.0

//! Names of this part's I/O and packets: kind, volume, slot.
//!
//! A slot is not used anew before its I/O is answered, so no name is ever ambiguous.

use super::super::io::{IoToken, SendToken, VolIx};
use super::super::request::token::{KIND_SHIFT, RESYNC};

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Which {
    /// A slot.
    Slot(u16),
    /// The volume as a whole: its bitmap on the way to the peer, or a flush.
    Volume,
}

/// Stands for the volume as a whole.
const WHOLE: u16 = u16::MAX;

fn pack(vol: VolIx, which: Which) -> u64 {
    let slot = match which {
        Which::Slot(ix) => ix,
        Which::Volume => WHOLE,
    };
    (u64::from(RESYNC) << KIND_SHIFT) | (u64::from(vol.0) << 16) | u64::from(slot)
}

fn unpack(token: u64) -> Option<(VolIx, Which)> {
    if token >> KIND_SHIFT != u64::from(RESYNC) {
        return None;
    }
    let vol = VolIx(u16::try_from(token >> 16 & 0xffff).ok()?);
    let slot = u16::try_from(token & 0xffff).ok()?;
    let which = if slot == WHOLE {
        Which::Volume
    } else {
        Which::Slot(slot)
    };
    Some((vol, which))
}

pub(super) fn io(vol: VolIx, which: Which) -> IoToken {
    IoToken(pack(vol, which))
}

pub(super) fn send(vol: VolIx, which: Which) -> SendToken {
    SendToken(pack(vol, which))
}

pub(super) fn of_io(token: IoToken) -> Option<(VolIx, Which)> {
    unpack(token.0)
}

pub(super) fn of_send(token: SendToken) -> Option<(VolIx, Which)> {
    unpack(token.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_what_they_were_made_of() {
        for which in [Which::Slot(0), Which::Slot(63), Which::Volume] {
            let vol = VolIx(65_534);
            assert_eq!(of_io(io(vol, which)), Some((vol, which)));
            assert_eq!(of_send(send(vol, which)), Some((vol, which)));
        }
        assert_eq!(of_io(IoToken(1)), None);
    }
}
