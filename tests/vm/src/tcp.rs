// SPDX-License-Identifier: GPL-2.0
//! Puts the byte streams of a capture together again: what each side of each connection sent.
//!
//! For captures of our own switch: Ethernet, IPv4, whole frames. Retransmissions and reordering
//! are handled, lost data is an error (the stream ends there). It is a reader of recorded files,
//! not a TCP implementation.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// One direction of one connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Last byte of the sender's address, and its port.
    pub from: (u8, u16),
    /// Last byte of the receiver's address, and its port.
    pub to: (u8, u16),
}

#[derive(Debug, Default)]
struct Pieces {
    first: Option<u32>,
    data: BTreeMap<u32, Vec<u8>>,
}

/// The frames of a pcap file in our own byte order.
fn frames(pcap: &[u8]) -> Result<Vec<&[u8]>> {
    let mut rest = pcap.get(24..).ok_or_else(|| Error::new("no pcap file"))?;
    let mut list = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<16>() {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = *head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((frame, tail)) = tail.split_at_checked(len) else {
            break;
        };
        list.push(frame);
        rest = tail;
    }
    Ok(list)
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|c| u16::from_be_bytes(*c))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..)?.first_chunk().map(|c| u32::from_be_bytes(*c))
}

struct Segment<'a> {
    flow: Flow,
    seq: u32,
    syn: bool,
    data: &'a [u8],
}

fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let ip = frame
        .get(14..)
        .filter(|_| be16(frame, 12) == Some(0x0800))?;
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(be16(ip, 2)?);
    if ip.get(9) != Some(&6) {
        return None;
    }
    let tcp = ip.get(header..total)?;
    let offset = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        flow: Flow {
            from: (*ip.get(15)?, be16(tcp, 0)?),
            to: (*ip.get(19)?, be16(tcp, 2)?),
        },
        seq: be32(tcp, 4)?,
        syn: tcp.get(13)? & 2 != 0,
        data: tcp.get(offset..)?,
    })
}

/// The streams in the order in which they began. A connection that re-uses the ports of an
/// earlier one starts a stream of its own.
///
/// # Errors
/// When `pcap` is not a capture, or data is missing in the middle of a stream.
pub fn streams(pcap: &[u8]) -> Result<Vec<(Flow, Vec<u8>)>> {
    let mut order: Vec<(Flow, Pieces)> = Vec::new();
    for s in frames(pcap)?.into_iter().filter_map(segment) {
        let known = order.iter().rposition(|(f, _)| *f == s.flow);
        let begun = known.and_then(|k| order.get(k)).and_then(|(_, p)| p.first);
        let start = s.seq.wrapping_add(1);
        let slot = match known {
            Some(k) if !s.syn || begun == Some(start) => k,
            _ => {
                order.push((s.flow.clone(), Pieces::default()));
                order.len() - 1
            }
        };
        let Some((_, pieces)) = order.get_mut(slot) else {
            continue;
        };
        if s.syn {
            pieces.first = Some(start);
        } else if let Some(first) = pieces.first.filter(|_| !s.data.is_empty()) {
            let at = s.seq.wrapping_sub(first);
            // Half the number space back is an old duplicate from before the first byte.
            if at < 1 << 31 {
                let known = pieces.data.entry(at).or_default();
                if known.len() < s.data.len() {
                    *known = s.data.to_vec();
                }
            }
        }
    }
    order
        .into_iter()
        .map(|(flow, pieces)| join(pieces.data).map(|bytes| (flow, bytes)))
        .filter(|r| r.as_ref().map_or(true, |(_, bytes)| !bytes.is_empty()))
        .collect()
}

fn join(pieces: BTreeMap<u32, Vec<u8>>) -> Result<Vec<u8>> {
    let mut out: Vec<u8> = Vec::new();
    for (at, data) in pieces {
        let have = out.len();
        let at = at as usize;
        if at > have {
            return Err(Error::new("the capture misses data"));
        }
        if let Some(new) = data.get(have - at..) {
            out.extend_from_slice(new);
        }
    }
    Ok(out)
}

/// Splits a DRBD stream into packets: `(offset, header length, command, whole length)`.
///
/// The three headers are told apart by their magic numbers. What follows an unknown one is not
/// listed: the streams of a node that crashed end anywhere.
pub fn packets(stream: &[u8]) -> Vec<(usize, usize, u16, usize)> {
    let mut list = Vec::new();
    let mut at = 0;
    while let Some(rest) = stream.get(at..).filter(|r| !r.is_empty()) {
        let parsed = match (be32(rest, 0), be16(rest, 0)) {
            (Some(0x8374_0267), _) => be16(rest, 4)
                .zip(be16(rest, 6).map(usize::from))
                .map(|p| (8, p)),
            (Some(0x8620_ec20), _) => be16(rest, 6)
                .zip(be32(rest, 8).map(|l| l as usize))
                .map(|p| (16, p)),
            (_, Some(0x835a)) => be16(rest, 2)
                .zip(be32(rest, 4).map(|l| l as usize))
                .map(|p| (8, p)),
            _ => None,
        };
        let Some((header, (command, len))) = parsed else {
            break;
        };
        if rest.len() < header + len {
            break;
        }
        list.push((at, header, command, header + len));
        at += header + len;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(seq: u32, syn: bool, data: &[u8]) -> Vec<u8> {
        let mut f = vec![0; 12];
        f.extend_from_slice(&[8, 0, 0x45, 0]);
        f.extend_from_slice(&u16::try_from(40 + data.len()).unwrap().to_be_bytes());
        f.extend_from_slice(&[0, 0, 0, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
        f.extend_from_slice(&[0x1e, 0x6c, 0x10, 0]);
        f.extend_from_slice(&seq.to_be_bytes());
        f.extend_from_slice(&[0, 0, 0, 0, 0x50, if syn { 2 } else { 16 }, 0, 0, 0, 0, 0, 0]);
        f.extend_from_slice(data);
        f
    }

    fn pcap(list: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![0; 24];
        for f in list {
            out.extend_from_slice(&[0; 8]);
            let len = u32::try_from(f.len()).unwrap().to_le_bytes();
            out.extend_from_slice(&len);
            out.extend_from_slice(&len);
            out.extend_from_slice(f);
        }
        out
    }

    #[test]
    fn streams_are_joined_over_reordering_repeats_and_wrap() {
        let f = [
            frame(u32::MAX - 1, true, b""),
            frame(2, false, b"cd"),
            frame(u32::MAX, false, b"xab"),
            frame(u32::MAX, false, b"xab"),
            frame(1, false, b"bc"),
        ];
        let s = streams(&pcap(&f)).unwrap();
        assert_eq!(s.len(), 1);
        assert_eq!(s[0].1, b"xabcd");
        assert_eq!(s[0].0.to, (2, 0x1000));
        let hole = [
            frame(0, true, b""),
            frame(1, false, b"a"),
            frame(3, false, b"c"),
        ];
        assert!(streams(&pcap(&hole)).is_err());
    }

    #[test]
    fn packets_are_split_by_all_three_headers() {
        let mut s = vec![0x83, 0x74, 2, 0x67, 0, 9, 0, 1, 7];
        s.extend_from_slice(&[0x83, 0x5a, 0, 5, 0, 0, 0, 2, 1, 2]);
        s.extend_from_slice(&[
            0x86, 0x20, 0xec, 0x20, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 9,
        ]);
        s.extend_from_slice(b"rest");
        let p = packets(&s);
        assert_eq!(p, vec![(0, 8, 9, 9), (9, 8, 5, 10), (19, 16, 4, 17)]);
    }
}
