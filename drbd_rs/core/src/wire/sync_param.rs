// SPDX-License-Identifier: GPL-2.0

//! Settings of the resync: SYNC_PARAM up to version 88, SYNC_PARAM89 from then on.

use super::bytes::{Name64, Writer};
use super::layout::packet;
use super::Malformed;
use zerocopy::byteorder::big_endian::U32;

packet! {
    /// What every version has.
    Rate, RateLayout, 4 {
        /// KiB/s.
        resync_rate: u32 => U32,
    }
}

packet! {
    /// What version 95 added.
    Controller, ControllerLayout, 16 {
        /// 0.1 s.
        c_plan_ahead: u32 => U32,
        /// 0.1 s.
        c_delay_target: u32 => U32,
        /// Sectors.
        c_fill_target: u32 => U32,
        /// KiB/s.
        c_max_rate: u32 => U32,
    }
}

/// Resync settings of the sender. What a version does not have is zero or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncParam {
    /// Resync rate in KiB/s.
    pub resync_rate: u32,
    /// `verify-alg`; from version 88.
    pub verify_alg: Name64,
    /// `csums-alg`; from version 89.
    pub csums_alg: Name64,
    /// `c-plan-ahead` in tenths of a second; this and the rest from version 95.
    pub c_plan_ahead: u32,
    /// `c-delay-target` in tenths of a second.
    pub c_delay_target: u32,
    /// `c-fill-target` in sectors.
    pub c_fill_target: u32,
    /// `c-max-rate` in KiB/s.
    pub c_max_rate: u32,
}

/// Reads a field of 64 bytes. Without a NUL in it, the C driver puts one in place of the last
/// byte; such a name is refused here.
fn field(bytes: &[u8]) -> Result<(Name64, &[u8]), Malformed> {
    let (name, rest) = bytes.split_at_checked(64).ok_or(Malformed::Length)?;
    Ok((Name64::decode(name)?, rest))
}

impl SyncParam {
    /// Bytes on the wire from version 95 on: the largest form.
    pub const MAX_SIZE: usize = 148;

    /// Reads the packet in the form of version `apv`.
    pub fn decode(bytes: &[u8], apv: u32) -> Result<SyncParam, Malformed> {
        let (rate, rest) = bytes
            .split_at_checked(Rate::SIZE)
            .ok_or(Malformed::Length)?;
        let mut p = SyncParam {
            resync_rate: Rate::decode(rate)?.resync_rate,
            ..SyncParam::default()
        };
        if apv <= 87 {
            return if rest.is_empty() {
                Ok(p)
            } else {
                Err(Malformed::Length)
            };
        }
        if apv == 88 {
            if rest.is_empty() {
                return Err(Malformed::Length);
            }
            p.verify_alg = Name64::decode(rest)?;
            return Ok(p);
        }
        let rest = {
            let (name, rest) = field(rest)?;
            p.verify_alg = name;
            rest
        };
        let (name, rest) = field(rest)?;
        p.csums_alg = name;
        if apv <= 94 {
            return if rest.is_empty() {
                Ok(p)
            } else {
                Err(Malformed::Length)
            };
        }
        let c = Controller::decode(rest)?;
        p.c_plan_ahead = c.c_plan_ahead;
        p.c_delay_target = c.c_delay_target;
        p.c_fill_target = c.c_fill_target;
        p.c_max_rate = c.c_max_rate;
        Ok(p)
    }

    /// Appends the packet in the form of version `apv`.
    pub fn encode(&self, w: &mut Writer<'_>, apv: u32) {
        Rate {
            resync_rate: self.resync_rate,
        }
        .encode(w);
        if apv <= 87 {
            return;
        }
        if apv == 88 {
            self.verify_alg.encode_short(w);
            return;
        }
        w.put(self.verify_alg.padded());
        w.put(self.csums_alg.padded());
        if apv >= 95 {
            Controller {
                c_plan_ahead: self.c_plan_ahead,
                c_delay_target: self.c_delay_target,
                c_fill_target: self.c_fill_target,
                c_max_rate: self.c_max_rate,
            }
            .encode(w);
        }
    }
}
