// SPDX-License-Identifier: GPL-2.0

//! The superblock of the metadata (v08): 4096 bytes, big endian.
//!
//! Decoding is total and judges nothing; [`super::layout::validate`] does. What the kernel writes
//! always carries the "unclean" magic, so that `drbdmeta apply-al` must look at the activity log
//! before the next attach.

use crate::limits::MAX_BIO_SIZE_SAFE;
use crate::units::Sectors;

/// Bytes of the superblock.
pub const SIZE: usize = 4096;
/// Metadata of 0.7.
pub const MAGIC_07: u32 = 0x8374_026a;
/// Metadata of 8.x as drbdmeta leaves it: the activity log was applied if `AL_CLEAN` is set.
pub const MAGIC_08: u32 = 0x8374_026b;
/// Metadata that an 8.4 kernel has written.
pub const MAGIC_84_UNCLEAN: u32 = 0x8374_026c;

/// Flags of the superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// The disk was better than Inconsistent.
    pub const CONSISTENT: Flags = Flags(0x001);
    /// A Primary used the data: this node, or the peer while this node had the only good disk.
    pub const PRIMARY_IND: Flags = Flags(0x002);
    /// The nodes were connected.
    pub const CONNECTED_IND: Flags = Flags(0x004);
    /// The bitmap on disk is not to be trusted: all bits count as set.
    pub const FULL_SYNC: Flags = Flags(0x008);
    /// The disk was better than Outdated.
    pub const WAS_UP_TO_DATE: Flags = Flags(0x010);
    /// The peer's disk was known to be Outdated or worse.
    pub const PEER_OUT_DATED: Flags = Flags(0x020);
    /// This node crashed as Primary.
    pub const CRASHED_PRIMARY: Flags = Flags(0x040);
    /// The activity log was applied; set by drbdmeta only.
    pub const AL_CLEAN: Flags = Flags(0x080);
    /// The activity log was not kept (`al-updates no`).
    pub const AL_DISABLED: Flags = Flags(0x100);

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// These, with `other` set or not as `on` says.
    #[must_use]
    pub const fn set_to(self, other: Flags, on: bool) -> Flags {
        if on {
            self.with(other)
        } else {
            self.without(other)
        }
    }
}

/// The fields of a superblock as they are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Superblock {
    /// Size last agreed upon with the peer; 0 right after create-md.
    pub la_size: Sectors,
    /// UUIDs: current, bitmap, the younger and the older of the history. Bit 0 of the current one
    /// says that the node was Primary.
    pub uuid: [u64; 4],
    /// Identity of the device, given by drbdadm and preserved.
    pub device_uuid: u64,
    /// Flags.
    pub flags: Flags,
    /// As found; encoding ignores it.
    pub magic: u32,
    /// Sectors of the whole metadata area.
    pub md_size: u32,
    /// Activity log, in sectors from the superblock; negative if in front of it.
    pub al_offset: i32,
    /// Slots of the activity log (`al-extents`).
    pub al_nr_extents: u32,
    /// Bitmap, in sectors from the superblock; negative if in front of it.
    pub bm_offset: i32,
    /// Bytes covered by one bit of the bitmap; must be 4096.
    pub bm_bytes_per_bit: u32,
    /// Largest request in bytes that the last peer took; 0 if unknown.
    pub la_peer_max_bio_size: u32,
    /// Stripes of the activity log; 0 together with the next one: 1 stripe of 8 blocks.
    pub al_stripes: u32,
    /// Blocks of 4 KiB in one stripe.
    pub al_stripe_size_4k: u32,
}

/// What the flags say about the data when a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskAtAttach {
    /// Never completely synced.
    Inconsistent,
    /// The peer went on without it.
    Outdated,
    /// Good, though the peer may have gone on.
    Consistent,
    /// Good, and the peer has not gone on or nobody cares to know.
    UpToDate,
}

impl Superblock {
    /// Reads the fields, whatever the magic says.
    pub fn decode(block: &[u8; SIZE]) -> Superblock {
        let mut r = Reader(block);
        let la_size = Sectors(r.u64());
        let uuid = [r.u64(), r.u64(), r.u64(), r.u64()];
        let device_uuid = r.u64();
        let _reserved = r.u64();
        Superblock {
            la_size,
            uuid,
            device_uuid,
            flags: Flags(r.u32()),
            magic: r.u32(),
            md_size: r.u32(),
            al_offset: r.i32(),
            al_nr_extents: r.u32(),
            bm_offset: r.i32(),
            bm_bytes_per_bit: r.u32(),
            la_peer_max_bio_size: r.u32(),
            al_stripes: r.u32(),
            al_stripe_size_4k: r.u32(),
        }
    }

    /// Writes the block as the kernel does: magic "unclean", one bit for 4 KiB, the rest zero.
    pub fn encode(&self, block: &mut [u8; SIZE]) {
        let [current, bitmap, younger, older] = self.uuid;
        let head = [
            self.la_size.0,
            current,
            bitmap,
            younger,
            older,
            self.device_uuid,
            0,
        ];
        let tail = [
            self.flags.0.to_be_bytes(),
            MAGIC_84_UNCLEAN.to_be_bytes(),
            self.md_size.to_be_bytes(),
            self.al_offset.to_be_bytes(),
            self.al_nr_extents.to_be_bytes(),
            self.bm_offset.to_be_bytes(),
            crate::units::BYTES_PER_BIT.to_be_bytes(),
            self.la_peer_max_bio_size.to_be_bytes(),
            self.al_stripes.to_be_bytes(),
            self.al_stripe_size_4k.to_be_bytes(),
        ];
        let bytes = head
            .iter()
            .flat_map(|v| v.to_be_bytes())
            .chain(tail.iter().flatten().copied())
            .chain(core::iter::repeat(0));
        for (to, b) in block.iter_mut().zip(bytes) {
            *to = b;
        }
    }

    /// The disk state to attach with. `fencing`: a policy other than `dont-care` is configured.
    /// Whether the peer's disk is known to be Outdated is `flags` with `PEER_OUT_DATED`.
    pub fn disk_at_attach(&self, fencing: bool) -> DiskAtAttach {
        if !self.flags.contains(Flags::CONSISTENT) {
            DiskAtAttach::Inconsistent
        } else if !self.flags.contains(Flags::WAS_UP_TO_DATE) {
            DiskAtAttach::Outdated
        } else if self.flags.contains(Flags::PEER_OUT_DATED) || !fencing {
            DiskAtAttach::UpToDate
        } else {
            DiskAtAttach::Consistent
        }
    }

    /// Whether this node crashed as Primary, unless it is Primary now with I/O suspended for want
    /// of data, which is for the caller to know.
    pub fn was_crashed_primary(&self) -> bool {
        self.flags.0 & Flags::CRASHED_PRIMARY.with(Flags::PRIMARY_IND).0 != 0
    }

    /// Whether the waiting time of a degraded cluster applies (`degr-wfc-timeout`); the caller must
    /// not be Primary.
    pub fn was_degraded(&self) -> bool {
        self.flags.contains(Flags::PRIMARY_IND) && !self.flags.contains(Flags::CONNECTED_IND)
    }

    /// Whether all bits have to be set instead of reading the bitmap.
    pub fn needs_full_sync(&self) -> bool {
        self.flags.contains(Flags::FULL_SYNC)
            || (self.was_crashed_primary() && self.flags.contains(Flags::AL_DISABLED))
    }

    /// Largest request in bytes to assume of a peer that is not connected.
    pub fn peer_max_bio_size(&self) -> u32 {
        self.la_peer_max_bio_size.max(MAX_BIO_SIZE_SAFE)
    }
}

/// Takes numbers off the front; zeroes behind the end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => [0; N],
        }
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_field_is_where_the_disk_has_it() {
        let mut block = [0_u8; SIZE];
        for (n, b) in (0_u8..96).zip(block.iter_mut()) {
            *b = n;
        }
        let sb = Superblock::decode(&block);
        assert_eq!(
            (sb.la_size.0, sb.uuid[3], sb.device_uuid),
            (
                0x0001_0203_0405_0607,
                0x2021_2223_2425_2627,
                0x2829_2a2b_2c2d_2e2f,
            )
        );
        assert_eq!(
            (sb.flags.0, sb.magic, sb.md_size),
            (0x3839_3a3b, 0x3c3d_3e3f, 0x4041_4243)
        );
        assert_eq!((sb.al_offset, sb.al_nr_extents), (0x4445_4647, 0x4849_4a4b));
        assert_eq!(
            (sb.bm_offset, sb.bm_bytes_per_bit),
            (0x4c4d_4e4f, 0x5051_5253)
        );
        assert_eq!(
            (sb.la_peer_max_bio_size, sb.al_stripes),
            (0x5455_5657, 0x5859_5a5b)
        );
        assert_eq!(sb.al_stripe_size_4k, 0x5c5d_5e5f);
        let mut out = [0xff_u8; SIZE];
        sb.encode(&mut out);
        block[48..56].fill(0);
        block[60..64].copy_from_slice(&[0x83, 0x74, 0x02, 0x6c]);
        block[80..84].copy_from_slice(&[0, 0, 0x10, 0]);
        assert_eq!(out, block);
    }

    #[test]
    fn the_state_at_attach() {
        let sb = |flags: Flags| Superblock {
            flags,
            ..Superblock::default()
        };
        let good = Flags::CONSISTENT.with(Flags::WAS_UP_TO_DATE);
        let cases = [
            (
                Flags::WAS_UP_TO_DATE,
                DiskAtAttach::Inconsistent,
                DiskAtAttach::Inconsistent,
            ),
            (
                Flags::CONSISTENT,
                DiskAtAttach::Outdated,
                DiskAtAttach::Outdated,
            ),
            (good, DiskAtAttach::UpToDate, DiskAtAttach::Consistent),
            (
                good.with(Flags::PEER_OUT_DATED),
                DiskAtAttach::UpToDate,
                DiskAtAttach::UpToDate,
            ),
        ];
        for (flags, without, with) in cases {
            assert_eq!(sb(flags).disk_at_attach(false), without);
            assert_eq!(sb(flags).disk_at_attach(true), with);
        }
        assert!(
            sb(Flags::PRIMARY_IND).was_degraded() && sb(Flags::PRIMARY_IND).was_crashed_primary()
        );
        assert!(!sb(Flags::AL_DISABLED).needs_full_sync());
        assert!(sb(Flags::AL_DISABLED.with(Flags::PRIMARY_IND)).needs_full_sync());
        assert_eq!(sb(good).peer_max_bio_size(), 4096);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (la, uuid, device_uuid, flags) in any::<(u64, [u64; 4], u64, u32)>(),
            (md_size, al_offset, al, bm_offset) in any::<(u32, i32, u32, i32)>(),
            (bio, stripes, stripe_size) in any::<(u32, u32, u32)>(),
        ) {
            let sb = Superblock {
                la_size: Sectors(la), uuid, device_uuid, flags: Flags(flags),
                magic: MAGIC_84_UNCLEAN, md_size, al_offset, al_nr_extents: al, bm_offset,
                bm_bytes_per_bit: 4096, la_peer_max_bio_size: bio, al_stripes: stripes,
                al_stripe_size_4k: stripe_size,
            };
            let mut block = [1; SIZE];
            sb.encode(&mut block);
            prop_assert_eq!(Superblock::decode(&block), sb);
        }
    }
}
