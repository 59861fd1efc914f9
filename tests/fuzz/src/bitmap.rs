// SPDX-License-Identifier: GPL-2.0

//! Bitmaps on the wire: what a peer may send, and what this node sends.
//!
//! Receiving is compared with a reader that knows nothing but the code's table and goes bit by bit.
//! Sending: the peer learns of every bit that was set when the transfer began, and of no bit that
//! never was.

use crate::cursor::Cursor;
use drbd_core::wire::bitmap_chunk::{
    BitSink, BitSource, Chunk, Progress, ReceiveCursor, SendCursor,
};
use drbd_core::wire::{Malformed, APV_MAX, APV_MIN};

/// Most bits of the device.
const BITS: u64 = 100_000;

/// A bitmap that is a list of truths.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Truths(Vec<bool>);

impl BitSource for Truths {
    fn next_set(&self, from: u64) -> Option<u64> {
        let rest = self.0.get(from as usize..)?;
        rest.iter().position(|b| *b).map(|at| from + at as u64)
    }
    fn next_clear(&self, from: u64) -> Option<u64> {
        let rest = self.0.get(from as usize..)?;
        rest.iter().position(|b| !*b).map(|at| from + at as u64)
    }
    fn bits(&self) -> u64 {
        self.0.len() as u64
    }
    fn word(&self, i: u64) -> u64 {
        let bits = self.0.iter().skip(i as usize * 64).take(64);
        bits.rev().fold(0, |w, b| w << 1 | u64::from(*b))
    }
}

impl BitSink for Truths {
    fn or_word(&mut self, i: u64, word: u64) {
        for b in 0..64 {
            if word >> b & 1 == 1 {
                self.0[i as usize * 64 + b] = true;
            }
        }
    }
    fn set_range(&mut self, from: u64, to: u64) {
        self.0[from as usize..to as usize].fill(true);
    }
}

/// The target: direction, version and size, then chunks or stretches of bits.
pub fn run(data: &[u8]) {
    let mut c = Cursor::new(data);
    let hints = c.u8();
    let apv = APV_MIN + c.below(16) as u32;
    assert!(apv <= APV_MAX);
    let bits = u64::from(c.u32()) % BITS;
    if hints & 1 == 0 {
        receive(c, bits, apv);
    } else {
        send(c, bits, apv, hints & 2 == 0);
    }
}

/// Prefix, its bits, data bits; the first run of a level follows the last of the one before.
const LEVELS: [(u64, u32, u32); 10] = [
    (0b0, 1, 1),
    (0b01, 2, 1),
    (0b011, 3, 2),
    (0b0111, 4, 3),
    (0b0_1111, 5, 5),
    (0b01_1111, 6, 8),
    (0b0011_1111, 8, 13),
    (0b0111_1111, 8, 21),
    (0b1011_1111, 8, 34),
    (0b1111_1111, 8, 56),
];

/// The runs of a compressed chunk; `None` where a code is cut off.
fn runs(code: &[u8], pad: usize) -> Option<Vec<u64>> {
    let all: Vec<bool> = code
        .iter()
        .flat_map(|b| (0..8).map(move |i| b >> i & 1 == 1))
        .collect();
    let mut left = &all[..all.len().saturating_sub(pad)];
    let mut found = Vec::new();
    let value = |bits: &[bool]| bits.iter().rev().fold(0, |v, b| v << 1 | u64::from(*b));
    while !left.is_empty() {
        let mut base = 1;
        let mut hit = None;
        for (prefix, width, data) in LEVELS {
            let head = left.get(..width as usize);
            if head.is_some_and(|h| value(h) == prefix) {
                hit = Some((base, (width + data) as usize, width as usize));
                break;
            }
            base += 1_u64 << data;
        }
        let (base, total, width) = hit?;
        found.push(base + value(left.get(width..total)?));
        left = &left[total..];
    }
    Some(found)
}

/// What a compressed chunk does by the book; the bit behind it.
fn apply(body: &[u8], mut at: u64, sink: &mut Truths) -> Option<u64> {
    let (encoding, code) = body.split_first()?;
    let mut set = encoding & 0x80 != 0;
    for run in runs(code, usize::from(encoding >> 4 & 7))? {
        let end = at.checked_add(run).filter(|end| *end <= sink.bits())?;
        if set {
            sink.set_range(at, end);
        }
        set = !set;
        at = end;
    }
    Some(at)
}

fn receive(mut c: Cursor<'_>, bits: u64, apv: u32) {
    let mut cursor = ReceiveCursor::new(bits, apv);
    let mut real = Truths(vec![false; bits as usize]);
    let mut plain = real.clone();
    // Only as long as all is compressed: a plain chunk goes back to the word's beginning.
    let mut at = Some(0);
    while !c.is_empty() && !cursor.is_finished() {
        let hints = c.u8();
        let len = usize::from(c.u16()) % 4200;
        let mut body = c.take(len).to_vec();
        let before = real.clone();
        let result = if hints & 1 == 0 {
            at = None;
            cursor.apply_plain(&body, &mut real)
        } else {
            if let (true, Some(first)) = (hints & 2 == 0, body.first_mut()) {
                *first = *first & 0xf0 | 2;
            }
            let result = cursor.apply_compressed(&body, &mut real);
            let now = at.map(|at| apply(&body, at, &mut plain));
            match (result, now) {
                (Ok(_), Some(end)) => {
                    assert!(end.is_some(), "a chunk that is wrong was taken");
                    at = end;
                    assert_eq!(real, plain);
                }
                (Err(Malformed::BitmapCode | Malformed::BitmapOverflow), Some(end)) => {
                    assert_eq!(end, None, "a good chunk was refused");
                }
                (Ok(_) | Err(_), _) => {}
            }
            result
        };
        let lost = before.0.iter().zip(&real.0).any(|(was, is)| *was && !*is);
        assert!(!lost, "the receiver cleared a bit");
        match result {
            Ok(progress) => assert_eq!(progress == Progress::Finished, cursor.is_finished()),
            Err(_) => return,
        }
    }
    let _ = (cursor.stats().total_bytes(), cursor.saved_permille());
}

fn send(mut c: Cursor<'_>, bits: u64, apv: u32, use_rle: bool) {
    let mut source = Truths(Vec::new());
    while source.bits() < bits && !c.is_empty() {
        let hints = c.u8();
        let len = usize::from(c.u16()).min((bits - source.bits()) as usize);
        match hints % 4 {
            0 => source.0.extend(std::iter::repeat_n(false, len)),
            1 => source.0.extend(std::iter::repeat_n(true, len)),
            2 => source.0.extend((0..len).map(|i| i % 2 == 0)),
            _ => source.0.extend((0..len).map(|i| hints >> (i % 8) & 1 == 1)),
        }
    }
    source.0.resize(bits as usize, false);
    let first = source.clone();
    let mut peer = Truths(vec![false; bits as usize]);
    let mut tx = SendCursor::new(bits, apv, use_rle);
    let mut rx = ReceiveCursor::new(bits, apv);
    let mut buf = [0; 4096];
    for chunks in 0.. {
        assert!(chunks <= bits / 8 + 2, "a transfer without an end");
        let chunk = tx.encode_chunk(&source, &mut buf);
        let body = &buf[..chunk.len()];
        let result = match chunk {
            Chunk::Plain { .. } => rx.apply_plain(body, &mut peer),
            Chunk::Compressed { .. } => rx.apply_compressed(body, &mut peer),
            Chunk::Done => break,
        };
        assert!(result.is_ok(), "{chunk:?}: {result:?}");
        // Writes of applications go on meanwhile.
        if bits > 0 && c.flag() {
            source.0[u64::from(c.u32()).checked_rem(bits).unwrap_or(0) as usize] = true;
        }
    }
    assert!(tx.is_done() && rx.is_finished());
    assert_eq!(tx.stats(), rx.stats());
    let told = peer.0.iter().zip(first.0.iter().zip(&source.0));
    for (bit, (told, (was, is))) in told.enumerate() {
        assert!(*told || !*was, "bit {bit} was kept back");
        assert!(!*told || *is, "bit {bit} was made up");
    }
}
