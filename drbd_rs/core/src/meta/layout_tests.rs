// SPDX-License-Identifier: GPL-2.0

//! The worked examples of metadata.md §2.3, and superblocks that lie.

use super::*;
use proptest::prelude::*;

fn devices(backing: u64, meta: u64) -> Devices {
    Devices {
        backing: Sectors(backing),
        meta: Sectors(meta),
    }
}

/// A superblock as drbdmeta create-md writes it for this layout.
fn created(l: &Layout) -> Superblock {
    Superblock {
        uuid: [4, 0, 0, 0],
        flags: Flags::AL_CLEAN,
        magic: MAGIC_08,
        md_size: l.md_size,
        al_offset: l.al_offset,
        al_nr_extents: 257,
        bm_offset: l.bm_offset,
        bm_bytes_per_bit: 4096,
        al_stripes: 1,
        al_stripe_size_4k: 8,
        ..Superblock::default()
    }
}

#[test]
fn worked_examples() {
    // kind, devices, superblock, al, bm, size, first and last sector of the area, data
    let cases = [
        (
            -3,
            (2097152, 2097152),
            2097144,
            -64,
            -128,
            136,
            (2097016, 2097151),
            2097016,
        ),
        (
            -1,
            (204800, 204800),
            204792,
            -64,
            -72,
            80,
            (204720, 204799),
            204720,
        ),
        (-2, (2097152, 4096), 0, 8, 72, 4096, (0, 4095), 2097152),
        (
            1,
            (2097152, 524288),
            262144,
            8,
            72,
            262144,
            (262144, 524287),
            2097152,
        ),
    ];
    for (index, (backing, meta), at, al, bm, size, (first, last), data) in cases {
        let devices = devices(backing, meta);
        let kind = Kind::from_index(index).unwrap();
        let l = Layout::compute(kind, devices, Striping::DEFAULT).unwrap();
        assert_eq!(l.superblock, Sector(at));
        assert_eq!((l.al_offset, l.bm_offset, l.md_size), (al, bm, size));
        assert_eq!((l.first_sector().0, l.last_sector().0), (first, last));
        assert_eq!(l.max_data_sectors(Sectors(backing)), Sectors(data));
        assert_eq!(
            check_devices(kind, devices, index == -3 || index == -1),
            Ok(())
        );
        let mut sb = created(&l);
        sb.la_size = Sectors(data);
        assert_eq!(validate(&sb, kind, devices), Ok(l));
        assert!(l.contains_block(l.al_block(7)) && l.contains_block(l.bitmap_page(0)));
        assert!(!l.contains_block(Sector(last - 6)));
    }
    assert_eq!(Kind::from_index(-4), None);
}

#[test]
fn golden_block() {
    let d = devices(2097152, 2097152);
    let l = Layout::compute(Kind::Internal, d, Striping::DEFAULT).unwrap();
    let mut block = [0; 4096];
    created(&l).encode(&mut block);
    let mut wanted = [0_u8; 4096];
    wanted[15] = 4;
    wanted[56..96].copy_from_slice(&[
        0, 0, 0, 0x80, 0x83, 0x74, 0x02, 0x6c, 0, 0, 0, 136, 0xff, 0xff, 0xff, 0xc0, 0, 0, 1,
        1, //
        0xff, 0xff, 0xff, 0x80, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8,
    ]);
    assert_eq!(block, wanted);
    // What the kernel has written is not attached again before apply-al.
    assert_eq!(
        validate(&Superblock::decode(&block), Kind::Internal, d),
        Err(Invalid::Unclean)
    );
    block[63] = 0x6b;
    assert_eq!(
        validate(&Superblock::decode(&block), Kind::Internal, d),
        Ok(l)
    );
}

#[test]
fn each_check_in_its_order() {
    let d = devices(2097152, 2097152);
    let l = Layout::compute(Kind::Internal, d, Striping::DEFAULT).unwrap();
    // Each change breaks its own check and the ones before hide those behind.
    type Change = fn(&mut Superblock);
    let steps: [(Invalid, Change); 9] = [
        (Invalid::Bitmap, |s| s.la_size = Sectors(32768 * 65)),
        (Invalid::ActivityLog, |s| s.bm_offset = -132),
        (Invalid::TooLarge, |s| s.md_size = 4_000_000),
        (Invalid::Offsets, |s| s.bm_offset = -32),
        (Invalid::Striping, |s| s.al_stripes = 0),
        (Invalid::BytesPerBit, |s| s.bm_bytes_per_bit = 8192),
        (Invalid::NoMagic, |s| s.magic = 0x8374_026d),
        (Invalid::Old, |s| s.magic = MAGIC_07),
        (Invalid::Unclean, |s| s.magic = MAGIC_84_UNCLEAN),
    ];
    let mut sb = created(&l);
    for (wanted, spoil) in steps {
        spoil(&mut sb);
        assert_eq!(validate(&sb, Kind::Internal, d), Err(wanted));
        assert!(wanted.code() == 119 || wanted == Invalid::Unclean);
    }
    sb = created(&l);
    sb.flags = Flags(0);
    assert_eq!(
        validate(&sb, Kind::Internal, d).map_err(Invalid::code),
        Err(165)
    );
    let d = devices(2097152, 524288);
    let l = Layout::compute(Kind::Indexed(1), d, Striping::DEFAULT).unwrap();
    sb = created(&l);
    sb.md_size = 8192;
    assert_eq!(validate(&sb, Kind::Indexed(1), d), Err(Invalid::Indexed));
}

#[test]
fn what_does_not_fit_is_refused() {
    let d = devices(2097152, 524287);
    assert_eq!(
        check_devices(Kind::Indexed(1), d, false),
        Err(Unfit::MetaTooSmall)
    );
    assert_eq!(check_devices(Kind::Indexed(0), d, true), Err(Unfit::Index));
    assert_eq!(check_devices(Kind::Internal, d, false), Err(Unfit::Index));
    assert_eq!(
        check_capacity(Sectors(9), Sectors(10), Sectors(0)),
        Err(Unfit::BackingTooSmall)
    );
    assert_eq!(check_capacity(Sectors(9), Sectors(0), Sectors(9)), Ok(()));
    let flags = Flags::CONSISTENT;
    let sb = Superblock {
        la_size: Sectors(10),
        flags,
        ..Superblock::default()
    };
    assert_eq!(
        check_shrink(&sb, Sectors(8), Sectors(0)),
        Err(Unfit::ImplicitShrink)
    );
    assert_eq!(check_shrink(&sb, Sectors(8), Sectors(8)), Ok(()));
    assert_eq!(
        Layout::compute(Kind::Internal, devices(7, 7), Striping::DEFAULT),
        None
    );
    assert_eq!(
        Layout::compute(Kind::Internal, devices(80, 80), Striping::DEFAULT)
            .map(|l| l.first_sector()),
        Some(Sector(0))
    );
    assert_eq!(
        Layout::compute(Kind::Internal, devices(72, 72), Striping::DEFAULT),
        None
    );
}

proptest! {
    #[test]
    fn internal_metadata_covers_its_data(
        backing in 200u64..1 << 45,
        rows in 8u32..40,
        stripes in 1u32..6,
    ) {
        let striping = Striping::new(stripes, rows).unwrap();
        let d = devices(backing, backing);
        if let Some(l) = Layout::compute(Kind::Internal, d, striping) {
            let data = l.max_data_sectors(d.backing);
            prop_assert!(l.bitmap_sectors().0 * 32768 >= data.0);
            prop_assert_eq!(l.bitmap_page(0), Sector(data.0.min(l.first_sector().0)));
            prop_assert!(l.last_sector().0 < backing && backing - l.last_sector().0 <= 8);
            let sb = Superblock {
                al_stripes: stripes, al_stripe_size_4k: rows, la_size: data, ..created(&l)
            };
            prop_assert_eq!(validate(&sb, Kind::Internal, d), Ok(l));
        }
    }

    #[test]
    fn a_ring_uses_each_block_once(stripes in 1u32..9, rows in 8u32..20, start: u32) {
        let s = Striping::new(stripes, rows).unwrap();
        let start = start - start % s.blocks();
        let turns = (0..s.blocks()).map(|n| start.saturating_add(n));
        let mut seen: Vec<u32> = turns.map(|n| s.block_of(n)).collect();
        seen.sort_unstable();
        if u64::from(start) + u64::from(s.blocks()) <= 1 << 32 {
            prop_assert!(seen.into_iter().eq(0..s.blocks()));
        }
        // Neighbours are on different stripes.
        prop_assert!(stripes == 1 || s.block_of(0) / rows != s.block_of(1) / rows);
    }

    #[test]
    fn any_bytes_are_judged(
        head in proptest::collection::vec(any::<u8>(), 96),
        index in -3i32..3, backing: u64, meta: u64, fix: bool,
    ) {
        let mut block = [0; 4096];
        block[..96].copy_from_slice(&head);
        if fix {
            block[56..64].copy_from_slice(&[0, 0, 0, 0x80, 0x83, 0x74, 0x02, 0x6b]);
            block[80..84].copy_from_slice(&4096u32.to_be_bytes());
            block[88..96].fill(0);
        }
        let sb = Superblock::decode(&block);
        let kind = Kind::from_index(index).unwrap();
        if let Ok(l) = validate(&sb, kind, devices(backing, meta)) {
            prop_assert!(l.max_data_sectors(Sectors(backing)).0 <= backing);
        }
    }
}
