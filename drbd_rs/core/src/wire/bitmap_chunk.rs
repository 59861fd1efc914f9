// SPDX-License-Identifier: GPL-2.0

//! Chunks of a bitmap on their way to the peer, plain or as runs.
//!
//! A transfer is a row of packets without numbers: both sides keep a cursor, and must agree on it.
//! A plain packet holds words of 64 bits, as many as fit or as are left. A compressed one holds
//! runs from the bit that the last packet ended with. A plain packet after a compressed one starts
//! at the 64-bit word with that bit in it. The transfer ends with the compressed packet that
//! reaches the last bit, or with an empty plain packet.
//!
//! The receiver merges: bits are only ever set. Nothing here locks a bitmap or knows who sends
//! first.

use super::vli::{self, BitWriter, Run, RunReader};
use super::{header, Malformed, BUFFER_SIZE};
use crate::units::{index, widen};

/// The encoding that this code is; the only one there is.
const RLE_VLI_BITS: u8 = 2;

/// A bitmap to read from. Set bits are out of sync.
pub trait BitSource {
    /// The first set bit at or after `from`.
    fn next_set(&self, from: u64) -> Option<u64>;
    /// The first clear bit at or after `from`, below [`BitSource::bits`].
    fn next_clear(&self, from: u64) -> Option<u64>;
    /// Bits in the bitmap.
    fn bits(&self) -> u64;
    /// The word of bits `64 * i` and on, the first one least significant; 0 behind the end.
    fn word(&self, i: u64) -> u64;
}

/// A bitmap to merge into.
pub trait BitSink {
    /// Sets the bits of `word`: bits `64 * i` and on. None of them is behind the end.
    fn or_word(&mut self, i: u64, word: u64);
    /// Sets the bits `from .. to`. None of them is behind the end.
    fn set_range(&mut self, from: u64, to: u64);
}

/// Counts packets and bytes, headers included, as the C driver logs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stats {
    /// Plain packets.
    pub plain_packets: u32,
    /// Bytes of the plain packets.
    pub plain_bytes: u64,
    /// Compressed packets.
    pub rle_packets: u32,
    /// Bytes of the compressed packets.
    pub rle_bytes: u64,
}

impl Stats {
    /// Bytes of all packets.
    pub const fn total_bytes(&self) -> u64 {
        self.plain_bytes.saturating_add(self.rle_bytes)
    }
}

/// Where a transfer of a bitmap stands; the same for both directions.
#[derive(Clone, Copy, Debug, Hash)]
struct Cursor {
    bits: u64,
    bit: u64,
    word: u64,
    header: usize,
    done: bool,
    stats: Stats,
}

impl Cursor {
    const fn new(bits: u64, apv: u32) -> Cursor {
        Cursor {
            bits,
            bit: 0,
            word: 0,
            header: header::size(apv),
            done: false,
            stats: Stats {
                plain_packets: 0,
                plain_bytes: 0,
                rle_packets: 0,
                rle_bytes: 0,
            },
        }
    }

    const fn words(&self) -> u64 {
        self.bits.div_ceil(64)
    }

    const fn capacity(&self) -> usize {
        BUFFER_SIZE.saturating_sub(self.header)
    }

    /// Words that the next plain packet holds.
    fn plain_words(&self) -> u64 {
        let left = self.words().saturating_sub(self.word);
        left.min(widen(self.capacity() >> 3))
    }

    fn advance_plain(&mut self, words: u64) {
        self.word = self.word.saturating_add(words);
        self.bit = self.word.saturating_mul(64).min(self.bits);
        let bytes = widen(self.header).saturating_add(words.saturating_mul(8));
        self.stats.plain_packets = self.stats.plain_packets.saturating_add(1);
        self.stats.plain_bytes = self.stats.plain_bytes.saturating_add(bytes);
        if words == 0 {
            self.done = true;
        }
    }

    fn advance_rle(&mut self, bit: u64, body: usize) {
        self.bit = bit;
        self.word = bit >> 6;
        let bytes = widen(self.header).saturating_add(widen(body));
        self.stats.rle_packets = self.stats.rle_packets.saturating_add(1);
        self.stats.rle_bytes = self.stats.rle_bytes.saturating_add(bytes);
        if self.bit >= self.bits {
            self.done = true;
        }
    }

    /// The bits of word `i` that belong to the bitmap.
    fn word_mask(&self, i: u64) -> u64 {
        let behind = self.bits.saturating_sub(i.saturating_mul(64));
        match u32::try_from(behind) {
            Ok(0) => 0,
            Ok(n) if n < 64 => 1u64.wrapping_shl(n).wrapping_sub(1),
            Ok(_) | Err(_) => u64::MAX,
        }
    }

    /// Thousandths saved against a plain transfer; `None` if nothing was.
    fn saved_permille(&self) -> Option<u32> {
        let capacity = widen(self.capacity());
        let header = widen(self.header);
        // The C driver divides words by bytes here; the number is only logged, so it stays.
        let packets = self.words().div_ceil(capacity.max(1)).saturating_add(1);
        let plain = header
            .saturating_mul(packets)
            .saturating_add(self.words().saturating_mul(8));
        let total = self.stats.total_bytes();
        if total == 0 || total >= plain {
            return None;
        }
        let rest = total.saturating_mul(1000).checked_div(plain)?;
        Some(crate::units::saturate_u32(1000u64.saturating_sub(rest)))
    }
}

/// The sender's place in a transfer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct SendCursor {
    at: Cursor,
    rle: bool,
}

/// What [`SendCursor::encode_chunk`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunk {
    /// The payload of a BITMAP packet: this many words of 8 bytes. It must be sent even if there
    /// are none: an empty packet ends the transfer.
    Plain {
        /// Words.
        words: usize,
    },
    /// The payload of a COMPRESSED_BITMAP packet: this many bytes, the encoding byte included.
    Compressed {
        /// Bytes.
        len: usize,
    },
    /// Nothing: the transfer is over.
    Done,
}

impl Chunk {
    /// Bytes to send.
    pub const fn len(self) -> usize {
        match self {
            Chunk::Plain { words } => words.saturating_mul(8),
            Chunk::Compressed { len } => len,
            Chunk::Done => 0,
        }
    }

    /// Whether there is no byte to send.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl SendCursor {
    /// A transfer of `bits` bits on a connection of version `apv`. `use_rle` is the setting; runs
    /// need version 90.
    pub const fn new(bits: u64, apv: u32, use_rle: bool) -> SendCursor {
        SendCursor {
            at: Cursor::new(bits, apv),
            rle: use_rle && apv >= 90,
        }
    }

    /// Most bytes of a chunk: what the caller's buffer must hold. 4088, or 4080 from version 100.
    pub const fn capacity(&self) -> usize {
        self.at.capacity()
    }

    /// Whether all has been encoded.
    pub const fn is_done(&self) -> bool {
        self.at.done
    }

    /// The next bit to send.
    pub const fn bit(&self) -> u64 {
        self.at.bit
    }

    /// What has been encoded so far.
    pub const fn stats(&self) -> Stats {
        self.at.stats
    }

    /// Thousandths saved against a plain transfer; `None` if nothing was.
    pub fn saved_permille(&self) -> Option<u32> {
        self.at.saved_permille()
    }

    /// Writes the next chunk to the start of `body`, which holds [`SendCursor::capacity`] bytes.
    /// Where runs need more room than the bits themselves, the chunk is plain. The bitmap may
    /// gain bits between and during calls; the peer may or may not learn of those.
    pub fn encode_chunk(&mut self, src: &impl BitSource, body: &mut [u8]) -> Chunk {
        debug_assert!(body.len() >= self.capacity());
        debug_assert_eq!(src.bits(), self.at.bits);
        if self.at.done {
            return Chunk::Done;
        }
        if self.rle && self.at.bit < self.at.bits {
            let room = body.get_mut(..self.capacity()).unwrap_or(&mut []);
            if let Some((len, bit)) = encode_runs(src, self.at.bits, self.at.bit, room) {
                self.at.advance_rle(bit, len);
                return Chunk::Compressed { len };
            }
        }
        let words = self.at.plain_words();
        for (i, to) in (0..words).zip(body.chunks_exact_mut(8)) {
            let i = self.at.word.saturating_add(i);
            let word = src.word(i) & self.at.word_mask(i);
            for (to, from) in to.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
        self.at.advance_plain(words);
        Chunk::Plain {
            words: index(words),
        }
    }
}

/// Encodes runs from `start` on. Returns the bytes used, with the encoding byte, and the bit behind
/// the last run; `None` if plain bits would be shorter.
fn encode_runs(
    src: &impl BitSource,
    bits: u64,
    start: u64,
    body: &mut [u8],
) -> Option<(usize, u64)> {
    let (encoding, code) = body.split_first_mut()?;
    let mut w = BitWriter::new(code);
    let mut at = start;
    let first_set = src.next_set(start) == Some(start);
    let mut set = first_set;
    while at < bits {
        let end = if set {
            src.next_clear(at)
        } else {
            src.next_set(at)
        };
        let end = end.unwrap_or(bits).min(bits);
        // A run of nothing: the bitmap changed since the run before was measured. The chunk ends
        // here, and the next one begins with a fresh look at this bit.
        let Some(run) = vli::encode(end.saturating_sub(at)) else {
            break;
        };
        if !w.put(run) {
            break;
        }
        set = !set;
        at = end;
    }
    let used = w.len();
    if used == 0 || at.saturating_sub(start) < widen(used).saturating_mul(8) {
        return None;
    }
    let polarity = if first_set { 0x80 } else { 0 };
    *encoding = polarity | w.pad_bits().wrapping_shl(4) | RLE_VLI_BITS;
    Some((used.saturating_add(1), at))
}

/// Whether a transfer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// More packets must come; until then no packet of another kind may.
    More,
    /// This was the last one.
    Finished,
}

/// The receiver's place in a transfer.
#[derive(Clone, Copy, Debug, Hash)]
pub struct ReceiveCursor {
    at: Cursor,
}

impl ReceiveCursor {
    /// A transfer of `bits` bits on a connection of version `apv`.
    pub const fn new(bits: u64, apv: u32) -> ReceiveCursor {
        ReceiveCursor {
            at: Cursor::new(bits, apv),
        }
    }

    /// What has arrived so far.
    pub const fn stats(&self) -> Stats {
        self.at.stats
    }

    /// Thousandths saved against a plain transfer; `None` if nothing was.
    pub fn saved_permille(&self) -> Option<u32> {
        self.at.saved_permille()
    }

    /// Whether the last packet has come.
    pub const fn is_finished(&self) -> bool {
        self.at.done
    }

    fn progress(&self) -> Progress {
        if self.at.done {
            Progress::Finished
        } else {
            Progress::More
        }
    }

    /// Merges the payload of a BITMAP packet.
    ///
    /// # Errors
    /// [`Malformed::Length`] unless it is exactly as long as it has to be at this place;
    /// [`Malformed::BitmapOverflow`] after the end of the transfer.
    pub fn apply_plain(
        &mut self,
        body: &[u8],
        sink: &mut impl BitSink,
    ) -> Result<Progress, Malformed> {
        if self.at.done {
            return Err(Malformed::BitmapOverflow);
        }
        let words = self.at.plain_words();
        if widen(body.len()) != words.saturating_mul(8) {
            return Err(Malformed::Length);
        }
        for (i, bytes) in (0..words).zip(body.chunks_exact(8)) {
            let i = self.at.word.saturating_add(i);
            let word = <[u8; 8]>::try_from(bytes).map_or(0, u64::from_le_bytes);
            let word = word & self.at.word_mask(i);
            if word != 0 {
                sink.or_word(i, word);
            }
        }
        self.at.advance_plain(words);
        Ok(self.progress())
    }

    /// Merges the payload of a COMPRESSED_BITMAP packet, the encoding byte included.
    ///
    /// # Errors
    /// [`Malformed::Length`] for a packet without runs or one too long for a buffer,
    /// [`Malformed::BitmapEncoding`], [`Malformed::BitmapOverflow`], [`Malformed::BitmapCode`].
    /// Bits before the mistake have been set; that costs a resync, no data.
    pub fn apply_compressed(
        &mut self,
        body: &[u8],
        sink: &mut impl BitSink,
    ) -> Result<Progress, Malformed> {
        if self.at.done {
            return Err(Malformed::BitmapOverflow);
        }
        let (&encoding, code) = body.split_first().ok_or(Malformed::Length)?;
        if code.is_empty() || body.len() > self.at.capacity() {
            return Err(Malformed::Length);
        }
        if encoding & 0x0f != RLE_VLI_BITS {
            return Err(Malformed::BitmapEncoding(encoding));
        }
        let mut set = encoding & 0x80 != 0;
        let mut runs = RunReader::new(code, encoding >> 4 & 7);
        let mut at = self.at.bit;
        loop {
            let run = match runs.next_run() {
                Run::Of(run) => run,
                Run::End => break,
                Run::CutOff => return Err(Malformed::BitmapCode),
            };
            let end = at.saturating_add(run);
            if end > self.at.bits {
                return Err(Malformed::BitmapOverflow);
            }
            if set {
                sink.set_range(at, end);
            }
            set = !set;
            at = end;
        }
        self.at.advance_rle(at, body.len());
        Ok(self.progress())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bitmap that is a list of truths.
    #[derive(Clone, Debug, PartialEq, Hash)]
    struct Naive(Vec<bool>);

    impl BitSource for Naive {
        fn next_set(&self, from: u64) -> Option<u64> {
            (from..self.bits()).find(|&i| self.0[i as usize])
        }
        fn next_clear(&self, from: u64) -> Option<u64> {
            (from..self.bits()).find(|&i| !self.0[i as usize])
        }
        fn bits(&self) -> u64 {
            self.0.len() as u64
        }
        fn word(&self, i: u64) -> u64 {
            (0..64)
                .filter(|b| self.0.get(i as usize * 64 + b) == Some(&true))
                .fold(0, |w, b| w | 1 << b)
        }
    }

    impl BitSink for Naive {
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

    fn transfer(src: &Naive, apv: u32, rle: bool) -> (Naive, Stats) {
        let mut dst = Naive(vec![false; src.0.len()]);
        let mut tx = SendCursor::new(src.bits(), apv, rle);
        let mut rx = ReceiveCursor::new(src.bits(), apv);
        let mut buf = vec![0xa5; 4096];
        loop {
            assert!(!rx.is_finished());
            let chunk = tx.encode_chunk(src, &mut buf);
            let body = &buf[..chunk.len()];
            let p = match chunk {
                Chunk::Plain { .. } => rx.apply_plain(body, &mut dst).unwrap(),
                Chunk::Compressed { .. } => rx.apply_compressed(body, &mut dst).unwrap(),
                Chunk::Done => panic!("no end seen"),
            };
            assert_eq!(p == Progress::Finished, tx.is_done());
            assert_eq!(rx.at.bit, tx.at.bit);
            if p == Progress::Finished {
                break;
            }
        }
        assert_eq!(tx.encode_chunk(src, &mut buf), Chunk::Done);
        assert_eq!(
            rx.apply_plain(&[], &mut dst),
            Err(Malformed::BitmapOverflow)
        );
        assert_eq!(tx.stats(), rx.stats());
        assert_eq!(tx.saved_permille(), rx.saved_permille());
        (dst, tx.stats())
    }

    /// Stretches of set, clear and mixed bits.
    fn bitmap() -> impl Strategy<Value = Naive> {
        let stretch = prop_oneof![
            (1usize..5000).prop_map(|n| vec![true; n]),
            (1usize..40000).prop_map(|n| vec![false; n]),
            prop::collection::vec(any::<bool>(), 1..3000),
            (1usize..40000).prop_map(|n| (0..n).map(|i| i % 2 == 0).collect()),
        ];
        prop::collection::vec(stretch, 0..5).prop_map(|v| Naive(v.concat()))
    }

    #[test]
    fn empty_and_uniform_bitmaps() {
        let (_, s) = transfer(&Naive(vec![]), 101, true);
        assert_eq!((s.plain_packets, s.plain_bytes, s.rle_packets), (1, 16, 0));
        for bit in [false, true] {
            let src = Naive(vec![bit; 1_000_001]);
            let (dst, s) = transfer(&src, 101, true);
            assert_eq!(dst, src);
            // Four bytes of code for one run.
            assert_eq!((s.plain_packets, s.rle_packets, s.rle_bytes), (0, 1, 21));
        }
    }

    #[test]
    fn plain_when_not_allowed_or_not_worth_it() {
        let zebra = Naive((0..100_000).map(|i| i % 2 == 0).collect());
        for (apv, rle, header, chunk) in [
            (101, true, 16, 4080),
            (99, false, 8, 4088),
            (89, true, 8, 4088),
        ] {
            let (dst, s) = transfer(&zebra, apv, rle);
            assert_eq!(dst, zebra);
            let words = 100_000u64.div_ceil(64);
            assert_eq!(s.rle_packets, 0);
            assert_eq!(u64::from(s.plain_packets), (words * 8).div_ceil(chunk) + 1);
            assert_eq!(
                s.plain_bytes,
                words * 8 + header * u64::from(s.plain_packets)
            );
        }
    }

    #[test]
    fn lengths_and_codes_are_checked() {
        let mut dst = Naive(vec![false; 100]);
        let rx = ReceiveCursor::new(100, 101);
        let plain = |b: &[u8], d: &mut Naive| rx.clone().apply_plain(b, d);
        assert_eq!(plain(&[0xff; 16], &mut dst), Ok(Progress::More));
        assert_eq!(
            dst,
            Naive(vec![true; 100]),
            "bits behind the end are dropped"
        );
        assert_eq!(plain(&[0; 8], &mut dst), Err(Malformed::Length));
        assert_eq!(plain(&[], &mut dst), Err(Malformed::Length));
        let rle = |b: &[u8], d: &mut Naive| rx.clone().apply_compressed(b, d);
        assert_eq!(rle(&[], &mut dst), Err(Malformed::Length));
        assert_eq!(rle(&[2], &mut dst), Err(Malformed::Length));
        assert_eq!(rle(&[1, 0], &mut dst), Err(Malformed::BitmapEncoding(1)));
        assert_eq!(rle(&[2, 0xff], &mut dst), Err(Malformed::BitmapCode));
        // 305 or more, clear: no bit is set, but the end is passed.
        let long = [0x32, 0x3f, 0, 0];
        assert_eq!(rle(&long, &mut dst), Err(Malformed::BitmapOverflow));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_sent_arrives(src in bitmap(), apv in 86u32..=101, rle: bool) {
            let (dst, stats) = transfer(&src, apv, rle);
            prop_assert_eq!(&dst, &src);
            if rle && apv >= 90 {
                let (_, plain) = transfer(&src, apv, false);
                // Falling back costs at most the rewind to a word and one packet each time.
                let slack = u64::from(stats.rle_packets) * (8 + 17) + 16;
                prop_assert!(stats.total_bytes() <= plain.total_bytes() + slack);
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(
            bits in 0u64..70_000,
            bodies in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(any::<u8>(), 0..4200)), 0..4)
        ) {
            let mut dst = Naive(vec![false; bits as usize]);
            let mut rx = ReceiveCursor::new(bits, 101);
            for (plain, body) in bodies {
                let _ = if plain {
                    rx.apply_plain(&body, &mut dst)
                } else {
                    let mut body = body;
                    if let Some(b) = body.first_mut() {
                        *b = *b & 0xf0 | 2;
                    }
                    rx.apply_compressed(&body, &mut dst)
                };
                prop_assert!(rx.at.bit <= bits);
            }
        }
    }
}
