// SPDX-License-Identifier: GPL-2.0
/*
 * See include/drbd_rs/shim.h for what this file is and what each function promises.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/bvec.h>
#include <linux/highmem.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/proc_fs.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <crypto/hash.h>
#include <net/genetlink.h>
#include <net/sock.h>
#include <net/tcp.h>

#include <drbd_rs/shim.h>

static_assert(DRBD_SHIM_FEAT_WRITE_CACHE == (__force unsigned int)BLK_FEAT_WRITE_CACHE);
static_assert(DRBD_SHIM_FEAT_FUA == (__force unsigned int)BLK_FEAT_FUA);
static_assert(DRBD_SHIM_FEAT_STABLE_WRITES == (__force unsigned int)BLK_FEAT_STABLE_WRITES);
static_assert(DRBD_SHIM_FLAG_CACHE_DISABLED == (__force unsigned int)BLK_FLAG_WRITE_CACHE_DISABLED);
static_assert(DRBD_SHIM_OPEN_READ == (__force unsigned int)BLK_OPEN_READ);
static_assert(DRBD_SHIM_OPEN_WRITE == (__force unsigned int)BLK_OPEN_WRITE);
static_assert(DRBD_SHIM_STS_NOTSUPP == (__force u8)BLK_STS_NOTSUPP);
static_assert(DRBD_SHIM_STS_TIMEOUT == (__force u8)BLK_STS_TIMEOUT);
static_assert(DRBD_SHIM_STS_NOSPC == (__force u8)BLK_STS_NOSPC);
static_assert(DRBD_SHIM_STS_MEDIUM == (__force u8)BLK_STS_MEDIUM);
static_assert(DRBD_SHIM_STS_RESOURCE == (__force u8)BLK_STS_RESOURCE);
static_assert(DRBD_SHIM_STS_IOERR == (__force u8)BLK_STS_IOERR);
static_assert(DRBD_SHIM_STS_AGAIN == (__force u8)BLK_STS_AGAIN);
static_assert(DRBD_SHIM_ZERO_NOUNMAP == BLKDEV_ZERO_NOUNMAP);
static_assert(DRBD_SHIM_TASK_IDLE == TASK_IDLE);
static_assert(DRBD_SHIM_TASK_KILLABLE == TASK_KILLABLE);

const unsigned int drbd_shim_gfp_noio = (__force unsigned int)GFP_NOIO;

/* --- block --- */

void drbd_shim_bio_inc_remaining(struct bio *bio)
{
	bio_inc_remaining(bio);
}

bool drbd_shim_bio_next_segment(const struct bio *bio, struct bvec_iter *iter, struct bio_vec *out)
{
	if (bio_no_advance_iter(bio) || !iter->bi_size)
		return false;
	*out = bio_iter_iovec(bio, *iter);
	bio_advance_iter_single(bio, iter, out->bv_len);
	return true;
}

size_t drbd_shim_bio_iov_iter(const struct bio *bio, struct iov_iter *iter, bool source)
{
	struct bvec_iter bi;
	struct bio_vec bv;
	unsigned long nr = 0;
	size_t len = 0;

	if (!bio_no_advance_iter(bio)) {
		len = bio->bi_iter.bi_size;
		bio_for_each_bvec(bv, bio, bi)
			nr++;
	}
	iov_iter_bvec(iter, source ? ITER_SOURCE : ITER_DEST,
		      nr ? __bvec_iter_bvec(bio->bi_io_vec, bio->bi_iter) : NULL, nr, len);
	if (nr)
		iter->iov_offset = bio->bi_iter.bi_offset;
	return len;
}

bool drbd_shim_bio_can_splice(const struct bio *bio)
{
	struct bvec_iter iter;
	struct bio_vec bv;

	if (bio_no_advance_iter(bio))
		return false;
	bio_for_each_segment(bv, bio, iter)
		if (!sendpage_ok(bv.bv_page))
			return false;
	return true;
}

void drbd_shim_bio_end_io_acct(struct bio *bio, unsigned long start)
{
	bio_end_io_acct(bio, start);
}

void drbd_shim_bvec_read(const struct bio_vec *bv, unsigned int offset, void *dst, size_t len)
{
	memcpy_from_page(dst, bv->bv_page, bv->bv_offset + offset, len);
}

void drbd_shim_bvec_write(const struct bio_vec *bv, unsigned int offset, const void *src,
			  size_t len)
{
	memcpy_to_page(bv->bv_page, bv->bv_offset + offset, src, len);
	flush_dcache_page(bv->bv_page);
}

void *drbd_shim_page_address(struct page *page)
{
	return page_address(page);
}

bool drbd_shim_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

int drbd_shim_bdev_name(struct block_device *bdev, char *out, size_t len)
{
	return scnprintf(out, len, "%pg", bdev);
}

unsigned int drbd_shim_disk_openers(struct gendisk *disk)
{
	return disk_openers(disk);
}

void drbd_shim_queue_limits_start(struct gendisk *disk, struct queue_limits *lim)
{
	*lim = queue_limits_start_update(disk->queue);
}

/* --- tasks --- */

unsigned int drbd_shim_noio_save(void)
{
	return memalloc_noio_save();
}

void drbd_shim_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

bool drbd_shim_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

unsigned long drbd_shim_msecs_to_jiffies(unsigned int msecs)
{
	return msecs_to_jiffies(msecs);
}

bool drbd_shim_kthread_should_stop(void)
{
	return (current->flags & PF_KTHREAD) && kthread_should_stop();
}

long drbd_shim_wait_woken(struct wait_queue_entry *entry, unsigned int mode, long timeout,
			  bool heed_stop)
{
	/* The barrier pairs with woken_wake_function(): it sees the state, or we see the flag. */
	set_current_state(mode);
	if (!(entry->flags & WQ_FLAG_WOKEN) && !(heed_stop && drbd_shim_kthread_should_stop()))
		timeout = schedule_timeout(timeout);
	__set_current_state(TASK_RUNNING);
	/* And this one makes whatever was done before the wake-up visible to the condition. */
	smp_store_mb(entry->flags, entry->flags & ~WQ_FLAG_WOKEN);
	return timeout;
}

void drbd_shim_module_get(void)
{
	__module_get(THIS_MODULE);
}

bool drbd_shim_module_try_get(void)
{
	return try_module_get(THIS_MODULE);
}

void drbd_shim_module_put(void)
{
	module_put(THIS_MODULE);
}

/* --- sockets --- */

void drbd_shim_sock_prepare(struct socket *sock)
{
	sock->sk->sk_allocation = GFP_NOIO;
	sock->sk->sk_use_task_frag = false;
}

void drbd_shim_sock_set_reuseaddr(struct socket *sock)
{
	sock_set_reuseaddr(sock->sk);
}

void drbd_shim_sock_set_bufs(struct socket *sock, unsigned int snd, unsigned int rcv)
{
	struct sock *sk = sock->sk;

	lock_sock(sk);
	if (snd) {
		WRITE_ONCE(sk->sk_sndbuf, (int)min_t(unsigned int, snd, INT_MAX));
		sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	}
	if (rcv) {
		WRITE_ONCE(sk->sk_rcvbuf, (int)min_t(unsigned int, rcv, INT_MAX));
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
	}
	release_sock(sk);
}

static long sock_timeout(unsigned int msecs)
{
	return msecs ? (long)msecs_to_jiffies(msecs) : MAX_SCHEDULE_TIMEOUT;
}

void drbd_shim_sock_set_sndtimeo(struct socket *sock, unsigned int msecs)
{
	WRITE_ONCE(sock->sk->sk_sndtimeo, sock_timeout(msecs));
}

void drbd_shim_sock_set_rcvtimeo(struct socket *sock, unsigned int msecs)
{
	WRITE_ONCE(sock->sk->sk_rcvtimeo, sock_timeout(msecs));
}

void drbd_shim_sock_set_priority(struct socket *sock, unsigned int priority)
{
	sock_set_priority(sock->sk, priority);
}

void drbd_shim_sock_set_keepalive(struct socket *sock)
{
	sock_set_keepalive(sock->sk);
}

void drbd_shim_tcp_set_nodelay(struct socket *sock)
{
	tcp_sock_set_nodelay(sock->sk);
}

void drbd_shim_tcp_set_cork(struct socket *sock, bool on)
{
	tcp_sock_set_cork(sock->sk, on);
}

void drbd_shim_tcp_set_quickack(struct socket *sock, int val)
{
	tcp_sock_set_quickack(sock->sk, val);
}

bool drbd_shim_tcp_is_established(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_state) == TCP_ESTABLISHED;
}

unsigned int drbd_shim_sock_wmem_queued(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_wmem_queued);
}

unsigned int drbd_shim_sock_sndbuf(struct socket *sock)
{
	return READ_ONCE(sock->sk->sk_sndbuf);
}

unsigned int drbd_shim_tcp_unsent(struct socket *sock)
{
	const struct tcp_sock *tp = tcp_sk(sock->sk);

	return READ_ONCE(tp->write_seq) - READ_ONCE(tp->snd_una);
}

/* --- generic netlink --- */

/* Append ready-made attributes; they are aligned by whoever encoded them. */
static int genl_fill(struct sk_buff *skb, void *user_header, const void *header, size_t header_len,
		     const void *attrs, size_t attrs_len)
{
	if (skb_tailroom(skb) < NLMSG_ALIGN(attrs_len))
		return -EMSGSIZE;
	memcpy(user_header, header, header_len);
	skb_put_data(skb, attrs, attrs_len);
	genlmsg_end(skb, user_header);
	return 0;
}

int drbd_shim_genl_reply(struct genl_info *info, const struct genl_family *family, u8 cmd,
			 const void *header, size_t header_len, const void *attrs, size_t attrs_len)
{
	struct sk_buff *skb = genlmsg_new(family->hdrsize + attrs_len, GFP_NOIO);
	void *user_header;
	int err;

	if (!skb)
		return -ENOMEM;
	user_header = genlmsg_put(skb, info->snd_portid, info->snd_seq, family, 0, cmd);
	err = user_header ? genl_fill(skb, user_header, header, header_len, attrs, attrs_len)
			  : -EMSGSIZE;
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	return genlmsg_reply(skb, info);
}

int drbd_shim_genl_dump_put(struct sk_buff *skb, struct netlink_callback *cb, int event,
			    const void *header, size_t header_len, const void *attrs,
			    size_t attrs_len)
{
	const struct genl_info *info = genl_info_dump(cb);
	void *user_header;
	int err;

	user_header = genlmsg_put(skb, event < 0 ? info->snd_portid : 0, info->snd_seq,
				  info->family, event < 0 ? NLM_F_MULTI : 0,
				  event < 0 ? info->genlhdr->cmd : event);
	if (!user_header)
		return -EMSGSIZE;
	err = genl_fill(skb, user_header, header, header_len, attrs, attrs_len);
	if (err)
		genlmsg_cancel(skb, user_header);
	return err;
}

int drbd_shim_genl_multicast(const struct genl_family *family, u8 cmd, u32 seq, unsigned int group,
			     const void *header, size_t header_len, const void *attrs,
			     size_t attrs_len)
{
	struct sk_buff *skb = genlmsg_new(family->hdrsize + attrs_len, GFP_NOIO);
	void *user_header;
	int err;

	if (!skb)
		return -ENOMEM;
	user_header = genlmsg_put(skb, 0, seq, family, 0, cmd);
	err = user_header ? genl_fill(skb, user_header, header, header_len, attrs, attrs_len)
			  : -EMSGSIZE;
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	rcu_read_lock();
	err = genlmsg_multicast_allns(family, skb, 0, group);
	rcu_read_unlock();
	return err;
}

bool drbd_shim_genl_in_init_net(struct genl_info *info)
{
	return net_eq(genl_info_net(info), &init_net);
}

bool drbd_shim_genl_capable(struct sk_buff *skb, int cap)
{
	return netlink_capable(skb, cap);
}

bool drbd_shim_genl_dump_capable(struct netlink_callback *cb, int cap)
{
	return netlink_capable(cb->skb, cap);
}

const void *drbd_shim_genl_payload(const void *nlh, size_t *len)
{
	const struct nlmsghdr *header = nlh;
	int payload = nlmsg_len(header) - GENL_HDRLEN;

	*len = payload > 0 ? payload : 0;
	return nlmsg_data(header) + GENL_HDRLEN;
}

/* --- proc --- */

struct proc_dir_entry *drbd_shim_proc_create_single(const char *name, u16 mode,
						    int (*show)(struct seq_file *, void *),
						    void *data)
{
	return proc_create_single_data(name, mode, NULL, show, data);
}

void drbd_shim_proc_remove(struct proc_dir_entry *entry)
{
	proc_remove(entry);
}

/* --- hashes --- */

void *drbd_shim_hash_alloc(const char *name)
{
	struct crypto_shash *tfm = crypto_alloc_shash(name, 0, 0);
	struct shash_desc *desc;

	if (IS_ERR(tfm))
		return tfm;
	desc = kzalloc(sizeof(*desc) + crypto_shash_descsize(tfm), GFP_NOIO);
	if (!desc) {
		crypto_free_shash(tfm);
		return ERR_PTR(-ENOMEM);
	}
	desc->tfm = tfm;
	return desc;
}

void drbd_shim_hash_free(void *hash)
{
	struct shash_desc *desc = hash;
	struct crypto_shash *tfm = desc->tfm;

	kfree_sensitive(desc);
	crypto_free_shash(tfm);
}

unsigned int drbd_shim_hash_size(const void *hash)
{
	const struct shash_desc *desc = hash;

	return crypto_shash_digestsize(desc->tfm);
}

bool drbd_shim_hash_needs_key(const void *hash)
{
	const struct shash_desc *desc = hash;

	return crypto_shash_get_flags(desc->tfm) & CRYPTO_TFM_NEED_KEY;
}

int drbd_shim_hash_setkey(void *hash, const u8 *key, unsigned int len)
{
	struct shash_desc *desc = hash;

	return crypto_shash_setkey(desc->tfm, key, len);
}

int drbd_shim_hash_init(void *hash)
{
	return crypto_shash_init(hash);
}

int drbd_shim_hash_update(void *hash, const u8 *data, unsigned int len)
{
	return crypto_shash_update(hash, data, len);
}

int drbd_shim_hash_update_bvec(void *hash, const struct bio_vec *bv)
{
	void *data = bvec_kmap_local((struct bio_vec *)bv);
	int err = crypto_shash_update(hash, data, bv->bv_len);

	kunmap_local(data);
	return err;
}

int drbd_shim_hash_final(void *hash, u8 *out)
{
	return crypto_shash_final(hash, out);
}
