// SPDX-License-Identifier: GPL-2.0

//! The variable-length code for runs of equal bits (RLE_VLI_Bits), and the bit stream it lives in.
//!
//! Ten levels; each has a prefix that no other level starts with, and a number of data bits. A
//! level begins where the one below ends, so that every run has exactly one code. Bits go into
//! bytes from the least significant one up. Every 64 bits start with some code: decoding is total.

/// One level of the code; the table is fixed by the protocol.
struct Level {
    /// Bits of the whole code.
    total: u32,
    /// Bits of the prefix.
    prefix_bits: u32,
    /// The prefix, first bit least significant.
    prefix: u64,
}

const fn level(total: u32, prefix_bits: u32, prefix: u64) -> Level {
    Level {
        total,
        prefix_bits,
        prefix,
    }
}

const LEVELS: [Level; 10] = [
    level(2, 1, 0x00),
    level(3, 2, 0x01),
    level(5, 3, 0x03),
    level(7, 4, 0x07),
    level(10, 5, 0x0f),
    level(14, 6, 0x1f),
    level(21, 8, 0x3f),
    level(29, 8, 0x7f),
    level(42, 8, 0xbf),
    level(64, 8, 0xff),
];

/// A code word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// The bits, first one least significant.
    pub value: u64,
    /// How many there are: 2 to 64.
    pub bits: u32,
}

/// The code of a run. `None` for 0, which needs no code, and above 2^56 + 17181974832.
pub fn encode(run: u64) -> Option<Code> {
    let mut base: u64 = 1;
    let above = run.checked_sub(1)?;
    for l in &LEVELS {
        let span = 1u64.wrapping_shl(l.total.saturating_sub(l.prefix_bits));
        let last = base.saturating_sub(1).saturating_add(span);
        if run <= last {
            let offset = above.saturating_sub(base.saturating_sub(1));
            return Some(Code {
                value: offset.wrapping_shl(l.prefix_bits) | l.prefix,
                bits: l.total,
            });
        }
        base = last.saturating_add(1);
    }
    None
}

/// The run whose code the bits of `ahead` begin with, and how many bits it takes. The caller must
/// check that it has so many.
pub fn decode(ahead: u64) -> Option<(u64, u32)> {
    let mut base: u64 = 1;
    for l in &LEVELS {
        let mask = 1u64.wrapping_shl(l.prefix_bits).wrapping_sub(1);
        if ahead & mask == l.prefix {
            let code = ahead & u64::MAX.wrapping_shr(64u32.saturating_sub(l.total));
            let offset = code.wrapping_shr(l.prefix_bits);
            return Some((offset.saturating_add(base), l.total));
        }
        let span = 1u64.wrapping_shl(l.total.saturating_sub(l.prefix_bits));
        base = base.saturating_add(span);
    }
    None
}

/// Writes bits into a caller's bytes.
pub struct BitWriter<'a> {
    buf: &'a mut [u8],
    byte: usize,
    bit: u32,
}

impl<'a> BitWriter<'a> {
    /// A writer at the start of `buf`, which it fills with zeroes.
    pub fn new(buf: &'a mut [u8]) -> BitWriter<'a> {
        buf.fill(0);
        BitWriter {
            buf,
            byte: 0,
            bit: 0,
        }
    }

    /// Appends a code word; `false`, and no change, if it does not fit.
    #[must_use]
    pub fn put(&mut self, code: Code) -> bool {
        let end = self.bit.saturating_add(code.bits);
        let touched = crate::units::index(u64::from(end.div_ceil(8)));
        let stop = self.byte.saturating_add(touched);
        let Some(room) = self.buf.get_mut(self.byte..stop) else {
            return false;
        };
        let low = code.value.wrapping_shl(self.bit).to_le_bytes();
        let high = spill(code.value, self.bit);
        for (to, from) in room.iter_mut().zip(low.iter().chain(&[high])) {
            *to |= *from;
        }
        let whole = crate::units::index(u64::from(end >> 3));
        self.byte = self.byte.saturating_add(whole);
        self.bit = end & 7;
        true
    }

    /// Bytes begun so far.
    pub const fn len(&self) -> usize {
        if self.bit == 0 {
            self.byte
        } else {
            self.byte.saturating_add(1)
        }
    }

    /// Whether nothing has been written.
    pub const fn is_empty(&self) -> bool {
        self.byte == 0 && self.bit == 0
    }

    /// Unused bits in the last byte begun: 0 to 7.
    pub fn pad_bits(&self) -> u8 {
        let [pad, ..] = (8u32.wrapping_sub(self.bit) & 7).to_le_bytes();
        pad
    }
}

/// The bits of `value` that a shift to the left by `bit` (0 to 7) pushes out.
fn spill(value: u64, bit: u32) -> u8 {
    let out = if bit == 0 {
        0
    } else {
        value.wrapping_shr(64u32.saturating_sub(bit))
    };
    let [low, ..] = out.to_le_bytes();
    low
}

/// Reads runs from bytes that a peer sent.
pub struct RunReader<'a> {
    buf: &'a [u8],
    /// Position in bits.
    at: u64,
    /// Bits that count.
    end: u64,
}

/// What [`RunReader::next_run`] came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// A run of this many equal bits; at least 1.
    Of(u64),
    /// The end of the bytes.
    End,
    /// A code that the bytes do not hold completely.
    CutOff,
}

impl<'a> RunReader<'a> {
    /// A reader at the start of `buf`, of whose last byte the `pad_bits` highest do not count.
    pub fn new(buf: &'a [u8], pad_bits: u8) -> RunReader<'a> {
        let bits = crate::units::widen(buf.len()).saturating_mul(8);
        RunReader {
            buf,
            at: 0,
            end: bits.saturating_sub(u64::from(pad_bits)),
        }
    }

    /// The next 64 bits; those behind the end are padding, whatever it is.
    fn peek(&self) -> u64 {
        let first = crate::units::index(self.at >> 3);
        let rest = self.buf.get(first..).unwrap_or(&[]);
        let mut bytes = [0u8; 8];
        for (to, from) in bytes.iter_mut().zip(rest) {
            *to = *from;
        }
        let ninth = rest.get(8).copied().unwrap_or(0);
        let [shift, ..] = self.at.to_le_bytes();
        let shift = u32::from(shift & 7);
        let low = u64::from_le_bytes(bytes).wrapping_shr(shift);
        if shift == 0 {
            low
        } else {
            low | u64::from(ninth).wrapping_shl(64u32.saturating_sub(shift))
        }
    }

    /// Reads the next run.
    pub fn next_run(&mut self) -> Run {
        let left = self.end.saturating_sub(self.at);
        if left == 0 {
            return Run::End;
        }
        match decode(self.peek()) {
            Some((run, bits)) if u64::from(bits) <= left => {
                self.at = self.at.saturating_add(u64::from(bits));
                Run::Of(run)
            }
            Some(_) | None => Run::CutOff,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// (first run, last run, bits) of each level.
    const SPANS: [(u64, u64, u32); 10] = [
        (1, 2, 2),
        (3, 4, 3),
        (5, 8, 5),
        (9, 0x10, 7),
        (0x11, 0x30, 10),
        (0x31, 0x130, 14),
        (0x131, 0x2130, 21),
        (0x2131, 0x20_2130, 29),
        (0x20_2131, 0x4_0020_2130, 42),
        (0x4_0020_2131, 0x100_0004_0020_2130, 64),
    ];

    #[test]
    fn boundaries() {
        for (i, &(first, last, bits)) in SPANS.iter().enumerate() {
            for run in [first, last] {
                let code = encode(run).unwrap();
                assert_eq!(code.bits, bits, "run {run:#x}");
                assert_eq!(decode(code.value), Some((run, bits)));
            }
            assert_eq!(encode(first).unwrap().value, LEVELS[i].prefix);
        }
        assert_eq!(encode(0), None);
        assert_eq!(encode(0x100_0004_0020_2131), None);
        assert_eq!(encode(u64::MAX), None);
    }

    #[test]
    fn known_bytes() {
        // Runs 1, 2, 3, 20: 00, 10 (0 then data 1), 10+0, 11110 + 3 in five bits.
        let mut buf = [0xffu8; 4];
        let mut w = BitWriter::new(&mut buf);
        for run in [1, 2, 3, 20] {
            assert!(w.put(encode(run).unwrap()));
        }
        assert_eq!((w.len(), w.pad_bits()), (3, 7));
        // bits 0..: 0 0 | 0 1 | 1 0 0 | 1 1 1 1 0 1 1 0 0 0
        assert_eq!(buf, [0b1001_1000, 0b0011_0111, 0, 0]);
    }

    #[test]
    fn a_full_writer_keeps_what_it_has() {
        let mut buf = [0u8; 1];
        let mut w = BitWriter::new(&mut buf);
        assert!(w.put(encode(9).unwrap()));
        assert!(!w.put(encode(1).unwrap()));
        assert_eq!((w.len(), w.pad_bits()), (1, 1));
    }

    proptest! {
        #[test]
        fn runs_come_back(runs in prop::collection::vec(1u64..=0x100_0004_0020_2130, 1..60)) {
            let mut buf = [0u8; 600];
            let mut w = BitWriter::new(&mut buf);
            for &r in &runs {
                prop_assert!(w.put(encode(r).unwrap()));
            }
            let (len, pad) = (w.len(), w.pad_bits());
            let mut r = RunReader::new(&buf[..len], pad);
            for &run in &runs {
                prop_assert_eq!(r.next_run(), Run::Of(run));
            }
            prop_assert_eq!(r.next_run(), Run::End);
        }

        #[test]
        fn every_word_starts_with_a_code(ahead: u64) {
            let (run, bits) = decode(ahead).unwrap();
            let code = encode(run).unwrap();
            prop_assert_eq!(code.bits, bits);
            prop_assert_eq!(code.value, ahead & (u64::MAX >> (64 - bits)));
        }
    }
}
