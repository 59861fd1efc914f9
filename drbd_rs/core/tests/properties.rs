// SPDX-License-Identifier: GPL-2.0

//! Codecs and placements against models that are too simple to be wrong. The containers have theirs
//! beside the code.

use drbd_core::meta::layout::{validate, Devices, Kind, Layout, Striping};
use drbd_core::meta::superblock::{Flags, Superblock, MAGIC_08};
use drbd_core::meta::{crc32c, Invalid};
use drbd_core::units::Sectors;
use drbd_core::wire::vli;
use proptest::prelude::*;

/// Prefix as it is written, first bit first, and data bits; wire.md has the same table.
const CODE: [(&str, u32); 10] = [
    ("0", 1),
    ("10", 1),
    ("110", 2),
    ("1110", 3),
    ("11110", 5),
    ("111110", 8),
    ("11111100", 13),
    ("11111110", 21),
    ("11111101", 34),
    ("11111111", 56),
];

/// The code of a run as text, first bit first.
fn written(run: u64) -> String {
    let mut first = 1;
    for (prefix, bits) in CODE {
        let span = 1_u64 << bits;
        if run - first < span {
            let data = (0..bits).map(|b| {
                if (run - first) >> b & 1 == 1 {
                    '1'
                } else {
                    '0'
                }
            });
            return prefix.chars().chain(data).collect();
        }
        first += span;
    }
    panic!("no code for {run}")
}

/// CRC-32C, one bit after the other.
fn crc_by_bits(bytes: &[u8]) -> u32 {
    let mut crc = 0;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc
}

fn created(l: &Layout, la_size: Sectors) -> Superblock {
    Superblock {
        la_size,
        magic: MAGIC_08,
        flags: Flags::AL_CLEAN,
        bm_bytes_per_bit: 4096,
        md_size: l.md_size,
        al_offset: l.al_offset,
        bm_offset: l.bm_offset,
        al_stripes: l.striping.stripes(),
        al_stripe_size_4k: l.striping.stripe_blocks(),
        ..Superblock::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn runs_are_written_by_the_table(shift in 8u32..64, run: u64) {
        let run = (run >> shift).max(1);
        let code = vli::encode(run).unwrap();
        let bits: String = (0..code.bits)
            .map(|b| if code.value >> b & 1 == 1 { '1' } else { '0' })
            .collect();
        prop_assert_eq!(&bits, &written(run));
        // What follows a code is not looked at.
        let noise = if code.bits < 64 { u64::MAX << code.bits } else { 0 };
        prop_assert_eq!(vli::decode(code.value | noise), Some((run, code.bits)));
    }

    #[test]
    fn checksums_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), at: usize) {
        let (head, tail) = bytes.split_at(at % (bytes.len() + 1));
        prop_assert_eq!(crc32c::update(crc32c::update(0, head), tail), crc_by_bits(&bytes));
    }

    /// External metadata: what is computed is accepted, its parts lie behind each other, and
    /// nothing else is accepted in their place.
    #[test]
    fn external_metadata_is_in_order(
        index in -2i32..40,
        backing in 8u64..1 << 40,
        room in 11u32..30,
        stripes in 1u32..5,
        rows in 8u32..40,
        shift in 1i32..300,
    ) {
        prop_assume!(index != -1);
        let kind = Kind::from_index(index).unwrap();
        let striping = match kind {
            Kind::Indexed(_) => Striping::DEFAULT,
            Kind::Internal | Kind::FlexExternal => Striping::new(stripes, rows).unwrap(),
        };
        let meta = Sectors((1 << room) + 262_144 * u64::try_from(index.max(0)).unwrap());
        let d = Devices { backing: Sectors(backing), meta };
        let l = Layout::compute(kind, d, striping).unwrap();
        let sb = created(&l, Sectors(0));
        let fits = l.last_sector().0 < meta.0
            && i64::from(l.bm_offset) <= i64::from(l.md_size);
        prop_assert_eq!(validate(&sb, kind, d).is_ok(), fits);
        let log = l.al_block(0).0..l.al_block(0).0 + u64::from(striping.sectors());
        prop_assert!(l.superblock.0 + 8 <= log.start && log.end <= l.bitmap_page(0).0);
        for number in 0..striping.blocks() {
            prop_assert!(log.contains(&l.al_block(number).0));
        }
        if fits {
            for (al, bm) in [(-shift, 0), (shift, 0), (0, -shift), (0, i32::MIN / 2)] {
                let moved = Superblock {
                    al_offset: sb.al_offset + al,
                    bm_offset: sb.bm_offset + bm,
                    ..sb
                };
                prop_assert!(validate(&moved, kind, d).is_err(), "{:?}", moved);
            }
            let mirrored = Superblock {
                al_offset: -sb.al_offset * 8,
                bm_offset: -sb.bm_offset,
                ..sb
            };
            prop_assert_eq!(validate(&mirrored, kind, d), Err(Invalid::Offsets));
        }
    }
}
