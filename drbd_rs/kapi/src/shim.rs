// SPDX-License-Identifier: GPL-2.0

//! What `include/drbd_rs/shim.h` declares, for Rust.
//!
//! The header says what each function promises. This file is a hand-kept mirror of it, and is not
//! an interface of this crate: only the modules beside it call these functions.

#![allow(missing_docs)]
// The kernel's structures hold empty ones in some places; only pointers to them pass here.
#![allow(improper_ctypes)]

use kernel::bindings::{
    bio, bio_vec, block_device, bvec_iter, gendisk, genl_family, genl_info, iov_iter,
    netlink_callback, page, proc_dir_entry, queue_limits, seq_file, sk_buff, socket,
    wait_queue_entry,
};
use kernel::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};

pub(crate) const FEAT_WRITE_CACHE: c_uint = 1 << 0;
pub(crate) const FEAT_FUA: c_uint = 1 << 1;
pub(crate) const FEAT_STABLE_WRITES: c_uint = 1 << 5;
pub(crate) const FLAG_CACHE_DISABLED: c_uint = 1 << 0;
pub(crate) const OPEN_READ: c_uint = 1 << 0;
pub(crate) const OPEN_WRITE: c_uint = 1 << 1;
pub(crate) const STS_NOTSUPP: u8 = 1;
pub(crate) const STS_TIMEOUT: u8 = 2;
pub(crate) const STS_NOSPC: u8 = 3;
pub(crate) const STS_MEDIUM: u8 = 7;
pub(crate) const STS_RESOURCE: u8 = 9;
pub(crate) const STS_IOERR: u8 = 10;
pub(crate) const STS_AGAIN: u8 = 12;
pub(crate) const ZERO_NOUNMAP: c_uint = 1 << 0;
pub(crate) const TASK_IDLE: c_uint = 0x402;
pub(crate) const TASK_KILLABLE: c_uint = 0x102;

pub(crate) type ShowFn = unsafe extern "C" fn(*mut seq_file, *mut c_void) -> c_int;

unsafe extern "C" {
    #[link_name = "drbd_shim_gfp_noio"]
    pub(crate) safe static GFP_NOIO: c_uint;

    pub(crate) fn drbd_shim_bio_inc_remaining(bio: *mut bio);
    pub(crate) fn drbd_shim_bio_next_segment(
        bio: *const bio,
        iter: *mut bvec_iter,
        out: *mut bio_vec,
    ) -> bool;
    pub(crate) fn drbd_shim_bio_iov_iter(
        bio: *const bio,
        iter: *mut iov_iter,
        source: bool,
    ) -> usize;
    pub(crate) fn drbd_shim_bio_can_splice(bio: *const bio) -> bool;
    pub(crate) fn drbd_shim_bio_end_io_acct(bio: *mut bio, start: c_ulong);
    pub(crate) fn drbd_shim_bvec_read(
        bv: *const bio_vec,
        offset: c_uint,
        dst: *mut c_void,
        len: usize,
    );
    pub(crate) fn drbd_shim_bvec_write(
        bv: *const bio_vec,
        offset: c_uint,
        src: *const c_void,
        len: usize,
    );
    pub(crate) fn drbd_shim_page_address(page: *mut page) -> *mut c_void;
    pub(crate) fn drbd_shim_bdev_read_only(bdev: *mut block_device) -> bool;
    pub(crate) fn drbd_shim_bdev_name(
        bdev: *mut block_device,
        out: *mut c_char,
        len: usize,
    ) -> c_int;
    pub(crate) fn drbd_shim_disk_openers(disk: *mut gendisk) -> c_uint;
    pub(crate) fn drbd_shim_queue_limits_start(disk: *mut gendisk, lim: *mut queue_limits);

    pub(crate) safe fn drbd_shim_noio_save() -> c_uint;
    pub(crate) safe fn drbd_shim_noio_restore(flags: c_uint);
    pub(crate) safe fn drbd_shim_fatal_signal_pending() -> bool;
    pub(crate) safe fn drbd_shim_msecs_to_jiffies(msecs: c_uint) -> c_ulong;
    pub(crate) safe fn drbd_shim_kthread_should_stop() -> bool;
    pub(crate) fn drbd_shim_wait_woken(
        entry: *mut wait_queue_entry,
        mode: c_uint,
        timeout: c_long,
        heed_stop: bool,
    ) -> c_long;
    pub(crate) safe fn drbd_shim_module_get();
    pub(crate) safe fn drbd_shim_module_try_get() -> bool;
    pub(crate) fn drbd_shim_module_put();

    pub(crate) fn drbd_shim_sock_prepare(sock: *mut socket);
    pub(crate) fn drbd_shim_sock_set_reuseaddr(sock: *mut socket);
    pub(crate) fn drbd_shim_sock_set_bufs(sock: *mut socket, snd: c_uint, rcv: c_uint);
    pub(crate) fn drbd_shim_sock_set_sndtimeo(sock: *mut socket, msecs: c_uint);
    pub(crate) fn drbd_shim_sock_set_rcvtimeo(sock: *mut socket, msecs: c_uint);
    pub(crate) fn drbd_shim_sock_set_priority(sock: *mut socket, priority: c_uint);
    pub(crate) fn drbd_shim_sock_set_keepalive(sock: *mut socket);
    pub(crate) fn drbd_shim_tcp_set_nodelay(sock: *mut socket);
    pub(crate) fn drbd_shim_tcp_set_cork(sock: *mut socket, on: bool);
    pub(crate) fn drbd_shim_tcp_set_quickack(sock: *mut socket, val: c_int);
    pub(crate) fn drbd_shim_tcp_is_established(sock: *mut socket) -> bool;
    pub(crate) fn drbd_shim_sock_wmem_queued(sock: *mut socket) -> c_uint;
    pub(crate) fn drbd_shim_sock_sndbuf(sock: *mut socket) -> c_uint;
    pub(crate) fn drbd_shim_tcp_unsent(sock: *mut socket) -> c_uint;

    pub(crate) fn drbd_shim_genl_reply(
        info: *mut genl_info,
        family: *const genl_family,
        cmd: u8,
        header: *const c_void,
        header_len: usize,
        attrs: *const c_void,
        attrs_len: usize,
    ) -> c_int;
    pub(crate) fn drbd_shim_genl_dump_put(
        skb: *mut sk_buff,
        cb: *mut netlink_callback,
        event: c_int,
        header: *const c_void,
        header_len: usize,
        attrs: *const c_void,
        attrs_len: usize,
    ) -> c_int;
    pub(crate) fn drbd_shim_genl_multicast(
        family: *const genl_family,
        cmd: u8,
        seq: u32,
        group: c_uint,
        header: *const c_void,
        header_len: usize,
        attrs: *const c_void,
        attrs_len: usize,
    ) -> c_int;
    pub(crate) fn drbd_shim_genl_in_init_net(info: *mut genl_info) -> bool;
    pub(crate) fn drbd_shim_genl_capable(skb: *mut sk_buff, cap: c_int) -> bool;
    pub(crate) fn drbd_shim_genl_dump_capable(cb: *mut netlink_callback, cap: c_int) -> bool;
    pub(crate) fn drbd_shim_genl_payload(nlh: *const c_void, len: *mut usize) -> *const c_void;

    pub(crate) fn drbd_shim_proc_create_single(
        name: *const c_char,
        mode: u16,
        show: ShowFn,
        data: *mut c_void,
    ) -> *mut proc_dir_entry;
    pub(crate) fn drbd_shim_proc_remove(entry: *mut proc_dir_entry);

    pub(crate) fn drbd_shim_hash_alloc(name: *const c_char) -> *mut c_void;
    pub(crate) fn drbd_shim_hash_free(hash: *mut c_void);
    pub(crate) fn drbd_shim_hash_size(hash: *const c_void) -> c_uint;
    pub(crate) fn drbd_shim_hash_needs_key(hash: *const c_void) -> bool;
    pub(crate) fn drbd_shim_hash_setkey(hash: *mut c_void, key: *const u8, len: c_uint) -> c_int;
    pub(crate) fn drbd_shim_hash_init(hash: *mut c_void) -> c_int;
    pub(crate) fn drbd_shim_hash_update(hash: *mut c_void, data: *const u8, len: c_uint) -> c_int;
    pub(crate) fn drbd_shim_hash_update_bvec(hash: *mut c_void, bv: *const bio_vec) -> c_int;
    pub(crate) fn drbd_shim_hash_final(hash: *mut c_void, out: *mut u8) -> c_int;
}
