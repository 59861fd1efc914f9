// SPDX-License-Identifier: GPL-2.0

//! Administrators: requests in any order, and disks of any history.

use super::world::{Place, VecStore, World, REQUESTS};
use super::{options, volume as any_volume};
use crate::cursor::Cursor;
use drbd_core::bitmap::PageFlags;
use drbd_core::meta::layout::{Devices as Sizes, Kind, Striping};
use drbd_core::meta::superblock::{Flags, MAGIC_08};
use drbd_core::meta::{Layout, Superblock};
use drbd_core::nl::conf::{DiskConf, ResizeParms};
use drbd_core::node::admin::{attach_needs, BackingLimits, Command, Devices};
use drbd_core::node::{Backing, BackingStorage, OpId, PeerDevice, VolIx, VolumeStorage, PEER};
use drbd_core::store::{interval, lru};
use drbd_core::units::{Minor, Sector, Sectors, Vnr};

/// The most that is written of an activity log that a resize asks for, in KiB.
const LONGEST_RING: u32 = 8192;

/// UUIDs that both sides choose from, so that their histories meet.
pub const UUIDS: [u64; 8] = [
    0,
    drbd_core::uuid::JUST_CREATED,
    0x1111_1111_1111_1110,
    0x2222_2222_2222_2222,
    0x3333_3333_3333_3332,
    0x1112_1111_1111_1110,
    0x1111_1111_1111_1111,
    0x2223_2222_2222_2222,
];

impl World {
    /// Makes a request.
    pub(super) fn order(&mut self, command: Command) -> u32 {
        let op = self.next();
        let deleted = match command {
            Command::DelVolume { vol } => Some(vol),
            _ => None,
        };
        self.ops.insert(op, deleted);
        self.call(|res, host| res.command(OpId(op), command, host));
        op
    }
}

/// Any request.
pub fn command(w: &mut World, c: &mut Cursor<'_>) {
    let vol = any_volume(c);
    let force = c.flag();
    let command = match c.below(22) {
        0 => Command::DelVolume { vol },
        1 => Command::Detach { vol, force },
        2 | 3 => Command::Connect {
            peer: PEER,
            conf: options::net(c),
        },
        4 => Command::Disconnect { peer: PEER, force },
        5 => Command::NetOptions {
            peer: PEER,
            conf: options::net(c),
        },
        6 => Command::DiskOptions {
            vol,
            conf: options::disk(c),
        },
        7 => Command::ResourceOptions {
            opts: options::resource(c),
        },
        8 | 9 => Command::Primary { vol, force },
        10 => Command::Secondary { vol },
        11 => Command::Invalidate { vol },
        12 => Command::InvalidatePeer { vol },
        13 => Command::PauseSync { vol },
        14 => Command::ResumeSync { vol },
        15 => Command::SuspendIo { vol },
        16 => Command::ResumeIo { vol },
        17 => Command::Outdate { vol },
        18 => Command::NewCurrentUuid {
            vol,
            clear_bitmap: force,
        },
        19 => return resize(w, vol, c),
        20 => Command::Verify {
            vol,
            start: Sector(u64::from(c.u8()) << (c.u8() & 63)),
            stop: Sector(u64::from(c.u16()) << (c.u8() & 63)),
        },
        _ => return cancel(w, c),
    };
    w.order(command);
}

/// `resize`, perhaps after the device below has grown.
fn resize(w: &mut World, vol: VolIx, c: &mut Cursor<'_>) {
    let bits = c.u8();
    let Some(Some(place)) = w.places.get_mut(usize::from(vol.0)) else {
        return;
    };
    place.moves = true;
    if bits & 1 != 0 {
        place.size += (1 + u64::from(c.u8())) << 8;
    }
    let space = place.size;
    w.measure(vol);
    let base = w.res.resize_base(vol);
    let size = u64::from(c.u16()) * u64::from(bits & 2) * 8;
    let (al_stripes, al_stripe_size) = if bits & 8 != 0 {
        ring(c, space)
    } else {
        (base.al_stripes, base.al_stripe_size)
    };
    let parms = ResizeParms {
        resize_size: size,
        resize_force: bits & 4 != 0,
        no_resync: bits & 16 != 0,
        al_stripes,
        al_stripe_size,
    };
    w.order(Command::Resize { vol, parms });
}

/// Stripes of an activity log and the size of one in KiB. A new log is written block by block: one
/// that a device of `space` sectors can hold is kept short, or a run takes longer than libFuzzer
/// waits for it.
fn ring(c: &mut Cursor<'_>, space: u64) -> (u32, u32) {
    let (stripes, size) = (u32::from(c.u8()), u32::from(c.u16()));
    let kib = u64::from(stripes) * u64::from(size);
    if kib * 2 > space {
        return (stripes, size);
    }
    (stripes, size % (LONGEST_RING / stripes.max(1) + 1))
}

/// The waiter of a request is killed.
fn cancel(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.below(w.ops.len());
    if let Some(op) = w.ops.keys().nth(n).copied() {
        w.call(|res, host| res.cancel(OpId(op), host));
    }
}

/// A volume is added.
pub fn volume(w: &mut World, c: &mut Cursor<'_>) {
    let n = c.u8() & 3;
    add(w, u16::from(n), u32::from(n));
}

fn add(w: &mut World, vnr: u16, minor: u32) {
    let storage = VolumeStorage {
        writes: vec![interval::Slot::EMPTY; REQUESTS + 40],
        peers: vec![PeerDevice::new()],
    };
    let _ = w.call(|res, host| res.add_volume(Minor(minor), Vnr(vnr), storage, host).ok());
}

/// Volume 0 with a disk and a connection: what most of a node's life begins with.
pub fn start(w: &mut World, c: &mut Cursor<'_>) {
    add(w, 0, 0);
    disk(w, VolIx(0), c);
    w.drain();
    let conf = options::net(c);
    w.order(Command::Connect { peer: PEER, conf });
    w.connected(101, 15, c.flag());
}

/// A disk is attached.
pub fn attach(w: &mut World, c: &mut Cursor<'_>) {
    let vol = any_volume(c);
    disk(w, vol, c);
}

fn superblock(l: &Layout, size: u64, c: &mut Cursor<'_>) -> Superblock {
    let bits = c.u8();
    let current = c.pick(&UUIDS);
    let older = c.u8();
    let uuid = |n: u8| UUIDS[usize::from(older >> n & 7)];
    Superblock {
        la_size: Sectors([size, 0, size / 2, size.saturating_sub(8)][usize::from(bits & 3)]),
        uuid: [current, uuid(0), uuid(3), uuid(5)],
        device_uuid: 1,
        // drbdmeta has been there.
        flags: Flags(u32::from(c.u8()) & 0x7f).with(Flags::AL_CLEAN),
        magic: MAGIC_08,
        md_size: l.md_size,
        al_offset: l.al_offset,
        bm_offset: l.bm_offset,
        al_nr_extents: 67,
        bm_bytes_per_bit: 4096,
        la_peer_max_bio_size: u32::from(bits >> 4) << 12,
        al_stripes: 1,
        al_stripe_size_4k: 8,
    }
}

fn limits(c: &mut Cursor<'_>) -> BackingLimits {
    let bits = c.u8();
    BackingLimits {
        max_bio: [1 << 20, 128 << 10, 64 << 10, 4096][usize::from(bits & 3)],
        logical_block: if bits & 4 == 0 { 512 } else { 4096 },
        physical_block: 4096,
        io_min: 512,
        discard: bits & 8 != 0,
        discard_granularity: 4096,
        write_cache: bits & 16 == 0,
        meta_apart: bits & 64 != 0,
        fua: bits & 32 == 0,
        ..BackingLimits::default()
    }
}

fn disk(w: &mut World, vol: VolIx, c: &mut Cursor<'_>) {
    let conf = options::disk(c);
    // A few bits, one resync extent and a part, several pages of the bitmap.
    let size = Sectors([2048, 40_960, 300_000, 1_048_576][c.below(4)]);
    let sizes = Sizes {
        backing: size,
        meta: size,
    };
    let l = Layout::compute(Kind::Internal, sizes, Striping::DEFAULT).expect("large enough");
    let data = l.first_sector().0;
    let mut page = [0; 4096];
    superblock(&l, data, c).encode(&mut page);
    page[60..64].copy_from_slice(&MAGIC_08.to_be_bytes());
    let limits = limits(c);
    if w.res.attach_check(vol, &conf).is_err() {
        return;
    }
    let Some(backing) = backing(w, vol, &conf, size, limits, &page) else {
        return;
    };
    let op = w.next();
    w.ops.insert(op, None);
    let ix = usize::from(vol.0);
    let before = w.places[ix];
    w.places[ix] = Some(Place {
        data,
        end: l.last_sector().0 + 1,
        size: size.0,
        moves: false,
    });
    let refused = w.call(|res, host| res.attach(OpId(op), vol, backing, host).err());
    if refused.is_some() {
        w.places[ix] = before;
        assert!(w.ops.remove(&op).is_some(), "refused and answered");
    }
}

fn backing(
    w: &World,
    vol: VolIx,
    conf: &DiskConf,
    size: Sectors,
    limits: BackingLimits,
    page: &[u8; 4096],
) -> Option<Box<Backing<VecStore>>> {
    let devices = Devices {
        backing: size,
        meta: size,
        same: true,
    };
    let device = Sectors(w.capacity(vol));
    let needs = attach_needs(conf, devices, device, limits, page).ok()?;
    let storage = BackingStorage {
        al: vec![lru::Slot::EMPTY; needs.al_slots as usize],
        words: vec![0; needs.bitmap.words as usize],
        pages: vec![PageFlags::EMPTY; needs.bitmap.pages as usize],
        extents: vec![lru::Slot::empty(Default::default()); needs.extents],
    };
    Some(Box::new(
        Backing::new(&needs, storage).expect("enough storage"),
    ))
}
