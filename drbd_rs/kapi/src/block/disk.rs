// SPDX-License-Identifier: GPL-2.0

//! A disk that this driver offers: requests come as bios, without a request queue in between.

use super::{
    bdev::{BlockDevice, IoTarget},
    bio::Bio,
    limits::Limits,
};
use crate::shim;
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{from_err_ptr, from_result, to_result},
    fmt::{self, Write},
    prelude::*,
    static_lock_class,
    str::NullTerminatedFormatter,
    sync::{
        atomic::{Atomic, Full},
        Arc, ArcBorrow,
    },
    types::ForeignOwnable,
};

/// A major number that belongs to this driver.
///
/// # Invariants
///
/// `major` is registered with `name`.
pub struct Major {
    major: u32,
    name: &'static CStr,
}

impl Major {
    /// Registers `major` (not 0) under `name`.
    ///
    /// Errors: EBUSY if it is taken.
    pub fn register(major: u32, name: &'static CStr) -> Result<Self> {
        if major == 0 {
            return Err(EINVAL);
        }
        // SAFETY: `name` is a C string that lives for ever; no probe function.
        to_result(unsafe { bindings::__register_blkdev(major, name.as_char_ptr(), None) })?;
        // INVARIANT: Just registered.
        Ok(Self { major, name })
    }

    /// The number.
    pub fn number(&self) -> u32 {
        self.major
    }
}

impl Drop for Major {
    fn drop(&mut self) {
        // SAFETY: Registered, by the invariant.
        unsafe { bindings::unregister_blkdev(self.major, self.name.as_char_ptr()) };
    }
}

/// What a disk of this driver does.
pub trait BioOperations: Sized + Send + Sync + 'static {
    /// A request. Process context; may sleep, but must not wait for other requests to this disk.
    fn submit_bio(this: ArcBorrow<'_, Self>, bio: Bio);

    /// Somebody opens the disk, with `write` for writing. An error refuses.
    fn open(this: ArcBorrow<'_, Self>, write: bool) -> Result;

    /// Undoes one successful `open`.
    fn release(this: ArcBorrow<'_, Self>);
}

/// What a new disk looks like.
pub struct DiskSpec<'a> {
    /// The module whose code serves it. It cannot be unloaded while the disk is open.
    pub module: &'static ThisModule,
    /// A registered major number.
    pub major: u32,
    /// The minor number. The disk has no partitions, so it needs one only.
    pub minor: u32,
    /// The name below /dev.
    pub name: fmt::Arguments<'a>,
    /// What it can take.
    pub limits: Limits,
}

/// Behind the `private_data` of the disk.
struct Private<T: BioOperations> {
    ops: bindings::block_device_operations,
    data: Arc<T>,
}

/// A disk that is open to users.
///
/// Dropping it, or [`Self::remove`], takes the disk away from users and waits until no request is
/// being submitted. Whoever has it open keeps an empty shell, and through it the `Arc<T>`, until
/// they close it.
///
/// # Invariants
///
/// `disk` is a disk that was added, and that is still there unless `removed`. Its `private_data` is
/// a [`Private<T>`] from a `KBox`.
pub struct GenDisk<T: BioOperations> {
    disk: NonNull<bindings::gendisk>,
    removed: Atomic<bool>,
    _private: core::marker::PhantomData<Arc<T>>,
}

// SAFETY: Disks are not tied to tasks, and `Arc<T>` is `Send`.
unsafe impl<T: BioOperations> Send for GenDisk<T> {}
// SAFETY: The functions called with `&self` lock what they need.
unsafe impl<T: BioOperations> Sync for GenDisk<T> {}

impl<T: BioOperations> GenDisk<T> {
    /// Makes the disk, with no capacity, and shows it to users. `T::open` may be called before
    /// this returns.
    pub fn new(spec: DiskSpec<'_>, private: Arc<T>) -> Result<Self> {
        let private = KBox::new(
            Private {
                ops: operations::<T>(spec.module),
                data: private,
            },
            GFP_KERNEL,
        )?;
        let mut lim: bindings::queue_limits = pin_init::zeroed();
        spec.limits.apply(&mut lim);
        let key = static_lock_class!().as_ptr();
        // SAFETY: The limits are valid, and the class is static.
        let disk = unsafe { bindings::__blk_alloc_disk(&mut lim, bindings::NUMA_NO_NODE, key) };
        let disk = NonNull::new(from_err_ptr(disk)?).ok_or(ENOMEM)?;
        // SAFETY: Nobody else knows the disk yet.
        let result = unsafe { set_up(disk, &spec, private) };
        if let Err(error) = result {
            // SAFETY: The disk was not added, so this frees it. It does not call `free_disk`.
            unsafe { bindings::put_disk(disk.as_ptr()) };
            return Err(error);
        }
        // INVARIANT: The disk was added and has the private data.
        Ok(Self {
            disk,
            removed: Atomic::new(false),
            _private: core::marker::PhantomData,
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::gendisk {
        self.disk.as_ptr()
    }

    fn part0(&self) -> *mut bindings::block_device {
        // SAFETY: A live disk has a whole-disk device, which never changes.
        unsafe { (*self.as_ptr()).part0 }
    }

    /// Sets the size in sectors, and tells user space. Returns whether it was told, which it is
    /// not when the old or the new size is zero.
    pub fn set_capacity(&self, sectors: u64) -> bool {
        // SAFETY: The disk is valid.
        unsafe { bindings::set_capacity_and_notify(self.as_ptr(), sectors) }
    }

    /// The size in sectors.
    pub fn capacity(&self) -> u64 {
        // SAFETY: The device is valid. The read is volatile because the field may change.
        unsafe { core::ptr::read_volatile(&raw const (*self.part0()).bd_nr_sectors) }
    }

    /// Forbids or allows writing.
    pub fn set_read_only(&self, read_only: bool) {
        // SAFETY: The disk is valid.
        unsafe { bindings::set_disk_ro(self.as_ptr(), read_only) };
    }

    /// True if writing is forbidden.
    pub fn is_read_only(&self) -> bool {
        // SAFETY: The device is valid.
        unsafe { shim::drbd_shim_bdev_read_only(self.part0()) }
    }

    /// What it can take.
    pub fn limits(&self) -> Limits {
        // SAFETY: A live disk has a queue. Torn reads give limits that were or will be true.
        Limits::from_raw(unsafe { &(*(*self.as_ptr()).queue).limits })
    }

    /// Changes what it can take. With `stack_on`, the limits of that device apply as well:
    /// `wish` then gives the upper bounds, the discard limits before stacking, and the rest comes
    /// from the device, but for `max_write_zeroes_sectors` and `stable_writes`, which are taken
    /// from
    /// `wish` in any case.
    ///
    /// Errors: EINVAL if the limits contradict each other.
    pub fn update_limits<U: IoTarget>(
        &self,
        wish: &Limits,
        stack_on: Option<&BlockDevice<U>>,
    ) -> Result {
        let mut lim: bindings::queue_limits = pin_init::zeroed();
        // SAFETY: The disk is valid; the lock that this takes is released by the commit below.
        unsafe { shim::drbd_shim_queue_limits_start(self.as_ptr(), &mut lim) };
        match stack_on {
            None => wish.apply(&mut lim),
            Some(below) => {
                // SAFETY: `lim` is a set of limits.
                unsafe { bindings::blk_set_stacking_limits(&mut lim) };
                lim.max_segments = wish.max_segments;
                lim.max_hw_sectors = wish.max_hw_sectors;
                lim.seg_boundary_mask = wish.seg_boundary_mask;
                lim.max_hw_discard_sectors = wish.max_discard_sectors;
                lim.discard_granularity = wish.discard_granularity;
                let name = c"drbd".as_char_ptr();
                // SAFETY: `lim` is a set of limits, and the device is open.
                unsafe { bindings::queue_limits_stack_bdev(&mut lim, below.as_ptr(), 0, name) };
                wish.finish(&mut lim);
            }
        }
        // SAFETY: The disk is valid, and the update was started above.
        let queue = unsafe { (*self.as_ptr()).queue };
        // SAFETY: As above.
        to_result(unsafe { bindings::queue_limits_commit_update(queue, &mut lim) })
    }

    /// Tells user space that the disk has changed.
    pub fn uevent_change(&self) {
        // SAFETY: The disk is valid.
        unsafe { bindings::disk_uevent(self.as_ptr(), bindings::kobject_action_KOBJ_CHANGE) };
    }

    /// How many have it open.
    pub fn openers(&self) -> u32 {
        // SAFETY: The disk is valid.
        unsafe { shim::drbd_shim_disk_openers(self.as_ptr()) }
    }
}

impl<T: BioOperations> GenDisk<T> {
    /// Takes the disk away from users, for good. Afterwards its name and numbers are free.
    pub fn remove(&self) {
        if !self.removed.xchg(true, Full) {
            // SAFETY: The disk was added, by the invariant, and is removed only here, once.
            unsafe { bindings::del_gendisk(self.as_ptr()) };
        }
    }
}

impl<T: BioOperations> Drop for GenDisk<T> {
    fn drop(&mut self) {
        self.remove();
        // SAFETY: This is the reference from the allocation. The last reference frees `Private`.
        unsafe { bindings::put_disk(self.as_ptr()) };
    }
}

fn operations<T: BioOperations>(module: &'static ThisModule) -> bindings::block_device_operations {
    bindings::block_device_operations {
        submit_bio: Some(submit_bio::<T>),
        open: Some(open::<T>),
        release: Some(release::<T>),
        free_disk: Some(free_disk::<T>),
        owner: module.as_ptr(),
        ..pin_init::zeroed()
    }
}

/// Names, furnishes and adds the disk. On failure the private data is dropped.
///
/// # Safety
///
/// `disk` must be new and not yet added.
unsafe fn set_up<T: BioOperations>(
    disk: NonNull<bindings::gendisk>,
    spec: &DiskSpec<'_>,
    private: KBox<Private<T>>,
) -> Result {
    let raw = disk.as_ptr();
    // SAFETY: By the safety requirement, this is the one reference to the disk.
    let d = unsafe { &mut *raw };
    d.major = i32::try_from(spec.major).map_err(|_| EINVAL)?;
    d.first_minor = i32::try_from(spec.minor).map_err(|_| EINVAL)?;
    d.minors = 1;
    d.flags |= bindings::GENHD_FL_NO_PART as i32;
    let mut name = NullTerminatedFormatter::new(&mut d.disk_name).ok_or(EINVAL)?;
    name.write_fmt(spec.name).map_err(|_| EINVAL)?;
    d.fops = &raw const private.ops;
    let private = private.into_foreign();
    d.private_data = private;
    let none = core::ptr::null_mut();
    // SAFETY: The disk is furnished; no parent device and no attribute groups.
    let result = to_result(unsafe { bindings::device_add_disk(none, raw, core::ptr::null_mut()) });
    if result.is_err() {
        // SAFETY: The disk was not added, so nobody uses the private data.
        drop(unsafe { KBox::<Private<T>>::from_foreign(private) });
    }
    result
}

/// The data of a disk of this kind.
///
/// # Safety
///
/// `disk` must be a disk of `GenDisk<T>`, and must stay for `'a`.
unsafe fn data<'a, T: BioOperations>(disk: *mut bindings::gendisk) -> ArcBorrow<'a, T> {
    // SAFETY: By the invariants of `GenDisk`, and because the private data lives as long.
    let private: &'a Private<T> = unsafe { KBox::<Private<T>>::borrow((*disk).private_data) };
    private.data.as_arc_borrow()
}

unsafe extern "C" fn submit_bio<T: BioOperations>(bio: *mut bindings::bio) {
    // SAFETY: The block layer passes a valid bio for a disk of ours, and the right to end it.
    let Some(bio) = NonNull::new(bio).map(|b| unsafe { Bio::from_raw(b) }) else {
        return;
    };
    // SAFETY: As above; the disk stays while a bio is being submitted to it.
    let this = unsafe { data::<T>((*(*bio.as_ptr()).bi_bdev).bd_disk) };
    T::submit_bio(this, bio);
}

unsafe extern "C" fn open<T: BioOperations>(
    disk: *mut bindings::gendisk,
    mode: bindings::blk_mode_t,
) -> c_int {
    // SAFETY: The block layer passes a disk of ours that stays while it is open.
    let this = unsafe { data::<T>(disk) };
    from_result(|| T::open(this, mode & shim::OPEN_WRITE != 0).map(|()| 0))
}

unsafe extern "C" fn release<T: BioOperations>(disk: *mut bindings::gendisk) {
    // SAFETY: The block layer passes a disk of ours that is still open.
    T::release(unsafe { data::<T>(disk) });
}

unsafe extern "C" fn free_disk<T: BioOperations>(disk: *mut bindings::gendisk) {
    // SAFETY: The last reference to the disk is gone, so nobody borrows the private data.
    drop(unsafe { KBox::<Private<T>>::from_foreign((*disk).private_data) });
}
