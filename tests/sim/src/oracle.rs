// SPDX-License-Identifier: GPL-2.0

//! What applications were told, and so what they may find.
//!
//! For each sector it keeps the values that a read may return: the one whose write was
//! acknowledged last, and those of writes that were neither acknowledged nor overtaken since. A
//! read that returns anything else has found lost or resurrected data. A value that was read is
//! there to stay, unless its write is still on its way: that may yet die with its node.

use drbd_core::units::SectorRange;
use std::collections::HashMap;

/// History of acknowledged writes.
#[derive(Default)]
pub struct Oracle {
    /// Permitted values; absent: 0 only.
    may: HashMap<u64, Vec<u64>>,
    /// Writes that wait for their acknowledgement, by tag of their first sector.
    open: HashMap<u64, SectorRange>,
}

impl Oracle {
    /// A write was submitted; sector `n` of it carries `tag + n`.
    pub fn submitted(&mut self, range: SectorRange, tag: u64) {
        self.open.insert(tag, range);
        for n in 0..range.len.0 {
            let values = self.may.entry(range.start.0 + n).or_insert_with(|| vec![0]);
            values.push(tag + n);
        }
    }

    /// It was acknowledged: what was there before its submission is gone.
    pub fn acknowledged(&mut self, tag: u64) {
        let Some(range) = self.open.remove(&tag) else {
            return;
        };
        for n in 0..range.len.0 {
            let values = self.may.entry(range.start.0 + n).or_default();
            match values.iter().position(|v| *v == tag + n) {
                Some(at) => {
                    // Overlapping writes in flight may be ordered either way.
                    let open = &self.open;
                    let mut ix = 0;
                    values.retain(|v| {
                        let keep =
                            ix >= at || open.iter().any(|(t, r)| *v >= *t && *v < *t + r.len.0);
                        ix += 1;
                        keep
                    });
                }
                None => values.push(tag + n),
            }
        }
    }

    /// It failed, or its node died: it may have happened or not.
    pub fn undecided(&mut self, tag: u64) {
        self.open.remove(&tag);
    }

    /// The guarantees of the past do not hold (failover with protocol A): whatever is there counts.
    pub fn accept(&mut self, data: &[u64]) {
        self.may.clear();
        for (at, value) in (0..).zip(data) {
            if *value != 0 {
                self.may.insert(at, vec![*value]);
            }
        }
    }

    /// What a read returned. Says which sector is wrong.
    pub fn check(&mut self, range: SectorRange, found: &[u64]) -> Result<(), String> {
        for (at, value) in (range.start.0..).zip(found) {
            let values = self.may.entry(at).or_insert_with(|| vec![0]);
            if !values.contains(value) {
                return Err(format!(
                    "sector {at} reads {value:#x}, permitted: {values:x?}"
                ));
            }
            let open = &self.open;
            let on_its_way = |v: u64| open.iter().any(|(t, r)| v >= *t && v < *t + r.len.0);
            if values.len() > 1 && !on_its_way(*value) {
                values.retain(|v| *v == *value || on_its_way(*v));
            }
        }
        Ok(())
    }
}
