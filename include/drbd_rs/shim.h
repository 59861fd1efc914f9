/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C side of the seam between drbd_kapi and the kernel.
 *
 * Everything here is either an inline function or a macro, which Rust cannot call, or comes from a
 * header that the kernel crate's bindings leave out. Nothing here decides anything, and nothing
 * here knows what DRBD is. drbd_rs/kapi/src/shim.rs declares the same functions for Rust; the two
 * are kept equal by hand.
 */
#ifndef DRBD_RS_SHIM_H
#define DRBD_RS_SHIM_H

#include <linux/types.h>

struct bio;
struct bio_vec;
struct block_device;
struct bvec_iter;
struct gendisk;
struct genl_family;
struct genl_info;
struct iov_iter;
struct netlink_callback;
struct page;
struct proc_dir_entry;
struct queue_limits;
struct seq_file;
struct sk_buff;
struct socket;
struct wait_queue_entry;

/*
 * Values of macros that carry a cast, which bindgen skips. shim.c asserts that they are right.
 */
#define DRBD_SHIM_FEAT_WRITE_CACHE	(1u << 0)
#define DRBD_SHIM_FEAT_FUA		(1u << 1)
#define DRBD_SHIM_FEAT_STABLE_WRITES	(1u << 5)
#define DRBD_SHIM_FLAG_CACHE_DISABLED	(1u << 0)
#define DRBD_SHIM_OPEN_READ		(1u << 0)
#define DRBD_SHIM_OPEN_WRITE		(1u << 1)
#define DRBD_SHIM_STS_NOTSUPP		1
#define DRBD_SHIM_STS_TIMEOUT		2
#define DRBD_SHIM_STS_NOSPC		3
#define DRBD_SHIM_STS_MEDIUM		7
#define DRBD_SHIM_STS_RESOURCE		9
#define DRBD_SHIM_STS_IOERR		10
#define DRBD_SHIM_STS_AGAIN		12
#define DRBD_SHIM_ZERO_NOUNMAP		(1u << 0)

/* Task states that a wait may use; TASK_IDLE and TASK_KILLABLE are casts and sums. */
#define DRBD_SHIM_TASK_IDLE		0x402u
#define DRBD_SHIM_TASK_KILLABLE		0x102u

extern const unsigned int drbd_shim_gfp_noio;

/* --- block --- */

/* One more bio_endio() is needed before @bio is really completed. */
void drbd_shim_bio_inc_remaining(struct bio *bio);
/*
 * The next piece of @bio's data that lies within one page. Returns false, and leaves @out alone, at
 * the end and for operations that carry no data.
 */
bool drbd_shim_bio_next_segment(const struct bio *bio, struct bvec_iter *iter, struct bio_vec *out);
/* Point @iter at the whole data of @bio; @source tells sending from receiving. Returns bytes. */
size_t drbd_shim_bio_iov_iter(const struct bio *bio, struct iov_iter *iter, bool source);
/* True if every page of @bio may be handed to the network by reference. */
bool drbd_shim_bio_can_splice(const struct bio *bio);
/* Start accounting, at bio_end_io_acct() of the same bio. */
void drbd_shim_bio_end_io_acct(struct bio *bio, unsigned long start);
/* Copy between a segment and linear memory; the caller has checked the range. */
void drbd_shim_bvec_read(const struct bio_vec *bv, unsigned int offset, void *dst, size_t len);
void drbd_shim_bvec_write(const struct bio_vec *bv, unsigned int offset, const void *src,
			  size_t len);
/* The kernel address of a page that was not allocated with __GFP_HIGHMEM. */
void *drbd_shim_page_address(struct page *page);

bool drbd_shim_bdev_read_only(struct block_device *bdev);
/* The name below /dev, with a zero at the end, cut to @len bytes. Returns its length. */
int drbd_shim_bdev_name(struct block_device *bdev, char *out, size_t len);
unsigned int drbd_shim_disk_openers(struct gendisk *disk);
/*
 * Copies the limits into @lim and leaves the limits lock held, until queue_limits_commit_update()
 * releases it.
 */
void drbd_shim_queue_limits_start(struct gendisk *disk, struct queue_limits *lim);

/* --- tasks --- */

unsigned int drbd_shim_noio_save(void);
void drbd_shim_noio_restore(unsigned int flags);
bool drbd_shim_fatal_signal_pending(void);
unsigned long drbd_shim_msecs_to_jiffies(unsigned int msecs);
/* True in a kernel thread that has been asked to stop. */
bool drbd_shim_kthread_should_stop(void);
/*
 * Like wait_woken(), but heeds a request to stop the thread only with @heed_stop. To be called in a
 * loop; @entry has to be on a queue with woken_wake_function().
 */
long drbd_shim_wait_woken(struct wait_queue_entry *entry, unsigned int mode, long timeout,
			  bool heed_stop);
/* Keep this module's code while the kernel may still call it. */
void drbd_shim_module_get(void);
/* As module_get, unless the module is being unloaded: then false, and nothing to put. */
bool drbd_shim_module_try_get(void);
void drbd_shim_module_put(void);

/* --- sockets --- */

/* Never recurse into I/O from an allocation, and never use the task's page fragment. */
void drbd_shim_sock_prepare(struct socket *sock);
void drbd_shim_sock_set_reuseaddr(struct socket *sock);
void drbd_shim_sock_set_bufs(struct socket *sock, unsigned int snd, unsigned int rcv);
/* Timeouts in milliseconds; 0 means for ever. */
void drbd_shim_sock_set_sndtimeo(struct socket *sock, unsigned int msecs);
void drbd_shim_sock_set_rcvtimeo(struct socket *sock, unsigned int msecs);
void drbd_shim_sock_set_priority(struct socket *sock, unsigned int priority);
void drbd_shim_sock_set_keepalive(struct socket *sock);
void drbd_shim_tcp_set_nodelay(struct socket *sock);
void drbd_shim_tcp_set_cork(struct socket *sock, bool on);
void drbd_shim_tcp_set_quickack(struct socket *sock, int val);
bool drbd_shim_tcp_is_established(struct socket *sock);
unsigned int drbd_shim_sock_wmem_queued(struct socket *sock);
unsigned int drbd_shim_sock_sndbuf(struct socket *sock);
unsigned int drbd_shim_tcp_unsent(struct socket *sock);

/* --- generic netlink --- */

/* One message that answers @info: user header, then ready-made attributes. */
int drbd_shim_genl_reply(struct genl_info *info, const struct genl_family *family, u8 cmd,
			 const void *header, size_t header_len, const void *attrs, size_t attrs_len);
/*
 * One part of a dump, under the command that asked for it, or if @event is not negative under that
 * one, in the form of an event. -EMSGSIZE, and nothing added, if @skb has no room for it.
 */
int drbd_shim_genl_dump_put(struct sk_buff *skb, struct netlink_callback *cb, int event,
			    const void *header, size_t header_len, const void *attrs,
			    size_t attrs_len);
/* To all listeners of @group in all network namespaces. -ESRCH if there are none. */
int drbd_shim_genl_multicast(const struct genl_family *family, u8 cmd, u32 seq, unsigned int group,
			     const void *header, size_t header_len, const void *attrs,
			     size_t attrs_len);
bool drbd_shim_genl_in_init_net(struct genl_info *info);
bool drbd_shim_genl_capable(struct sk_buff *skb, int cap);
/* The same for who asked for a dump. */
bool drbd_shim_genl_dump_capable(struct netlink_callback *cb, int cap);
/* The payload behind the generic netlink header, and its length. */
const void *drbd_shim_genl_payload(const void *nlh, size_t *len);

/* --- proc --- */

struct proc_dir_entry *drbd_shim_proc_create_single(const char *name, u16 mode,
						    int (*show)(struct seq_file *, void *),
						    void *data);
void drbd_shim_proc_remove(struct proc_dir_entry *entry);

/* --- hashes; a handle is a transform with its descriptor behind one pointer --- */

/* ERR_PTR() on failure. */
void *drbd_shim_hash_alloc(const char *name);
void drbd_shim_hash_free(void *hash);
unsigned int drbd_shim_hash_size(const void *hash);
bool drbd_shim_hash_needs_key(const void *hash);
int drbd_shim_hash_setkey(void *hash, const u8 *key, unsigned int len);
int drbd_shim_hash_init(void *hash);
int drbd_shim_hash_update(void *hash, const u8 *data, unsigned int len);
int drbd_shim_hash_update_bvec(void *hash, const struct bio_vec *bv);
/* @out has room for drbd_shim_hash_size() bytes. */
int drbd_shim_hash_final(void *hash, u8 *out);

#endif
