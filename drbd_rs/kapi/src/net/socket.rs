// SPDX-License-Identifier: GPL-2.0

//! TCP sockets of the kernel, in the initial network namespace.
//!
//! All methods take `&self`: one thread may receive while another sends and a third one shuts the
//! socket down, which wakes the other two. Allocations of the socket never start I/O.

use super::addr::SockAddr;
use crate::{
    block::{bio::Bio, pages::PageBuf},
    shim,
};
use core::{ops::BitOr, ptr::NonNull};
use kernel::{bindings, error::to_result, error::Error, prelude::*, time::Msecs};

/// Pages that go into one call of the network stack.
const BATCH: usize = 16;

/// The answer to the question what to do when a timeout has passed without any progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// Another round.
    KeepWaiting,
    /// End with EAGAIN.
    GiveUp,
}

/// How to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendFlags(u32);

impl SendFlags {
    /// Plainly.
    pub const NONE: Self = Self(0);
    /// More will follow at once; do not send a small packet now.
    pub const MORE: Self = Self(bindings::MSG_MORE);
    /// Let the network stack refer to the pages instead of copying them. They must not change until
    /// the peer has acknowledged them.
    pub const SPLICE: Self = Self(bindings::MSG_SPLICE_PAGES);

    /// True if all of `other` are in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for SendFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecvFlags(u32);

impl RecvFlags {
    /// Take what is there; wait if there is nothing.
    pub const NONE: Self = Self(0);
    /// Wait for all of it.
    pub const WAITALL: Self = Self(bindings::MSG_WAITALL);
    /// Do not wait.
    pub const DONTWAIT: Self = Self(bindings::MSG_DONTWAIT);
    /// Leave it in the queue.
    pub const PEEK: Self = Self(bindings::MSG_PEEK);
}

impl BitOr for RecvFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is set before a socket is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// Size of the send buffer in bytes; 0 leaves it to the kernel.
    pub sndbuf: u32,
    /// Size of the receive buffer in bytes; 0 leaves it to the kernel.
    pub rcvbuf: u32,
}

/// How full the send queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLevel {
    /// Memory in use by the queue, in bytes.
    pub queued: u32,
    /// Memory that the queue may use, in bytes.
    pub sndbuf: u32,
    /// Bytes that the peer has not acknowledged.
    pub unacked: u32,
}

/// # Invariants
///
/// `raw` is a TCP socket that this value owns.
struct Socket {
    raw: NonNull<bindings::socket>,
}

// SAFETY: Sockets are not tied to tasks.
unsafe impl Send for Socket {}
// SAFETY: Sockets lock themselves.
unsafe impl Sync for Socket {}

impl Socket {
    fn new(family: u16, opts: &SocketOptions) -> Result<Self> {
        let mut raw = core::ptr::null_mut();
        let net = &raw mut bindings::init_net;
        let (family, kind) = (i32::from(family), bindings::sock_type_SOCK_STREAM as i32);
        let tcp = bindings::IPPROTO_TCP as i32;
        // SAFETY: The initial namespace is always there, and `raw` can be written to.
        to_result(unsafe { bindings::sock_create_kern(net, family, kind, tcp, &mut raw) })?;
        // SAFETY: The call has succeeded, so this is a new socket of ours.
        let me = unsafe { Self::from_raw(raw) }?;
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_reuseaddr(me.as_ptr()) };
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_bufs(me.as_ptr(), opts.sndbuf, opts.rcvbuf) };
        Ok(me)
    }

    /// # Safety
    ///
    /// `raw` must be null or a TCP socket, whose ownership is passed on.
    unsafe fn from_raw(raw: *mut bindings::socket) -> Result<Self> {
        let raw = NonNull::new(raw).ok_or(EIO)?;
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_prepare(raw.as_ptr()) };
        // INVARIANT: By the safety requirement.
        Ok(Self { raw })
    }

    fn as_ptr(&self) -> *mut bindings::socket {
        self.raw.as_ptr()
    }

    fn bind(&self, to: &SockAddr) -> Result {
        let mut addr = *to;
        let at = (&raw mut addr).cast();
        // SAFETY: The socket is valid, and `at` starts with an address of that length.
        to_result(unsafe { bindings::kernel_bind(self.as_ptr(), at, addr.len()) })
    }

    fn shutdown(&self) {
        let both = bindings::sock_shutdown_cmd_SHUT_RDWR;
        // SAFETY: The socket is valid. It may not be connected, which is as good.
        unsafe { bindings::kernel_sock_shutdown(self.as_ptr(), both) };
    }

    fn set_recv_timeout(&self, timeout: Msecs) {
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_rcvtimeo(self.as_ptr(), timeout) };
    }

    fn set_send_timeout(&self, timeout: Msecs) {
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_sndtimeo(self.as_ptr(), timeout) };
    }

    fn name(
        &self,
        get: unsafe extern "C" fn(*mut bindings::socket, *mut bindings::sockaddr) -> c_int,
    ) -> Result<SockAddr> {
        let mut raw = Storage([0; 128]);
        // SAFETY: The socket is valid, and the buffer holds any address.
        let len = unsafe { get(self.as_ptr(), (&raw mut raw).cast()) };
        to_result(len)?;
        SockAddr::from_bytes(&raw.0)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shutdown();
        // SAFETY: The socket is ours, and this is its last use.
        unsafe { bindings::sock_release(self.as_ptr()) };
    }
}

/// A `struct sockaddr_storage`.
#[repr(C, align(8))]
struct Storage([u8; 128]);

/// A socket that waits for connections. Dropping it closes it.
pub struct Listener {
    socket: Socket,
}

impl Listener {
    /// Listens at an address, also if connections of an earlier socket linger there.
    ///
    /// Errors: EADDRINUSE, EADDRNOTAVAIL.
    pub fn new(at: &SockAddr, opts: &SocketOptions, backlog: u32) -> Result<Self> {
        let socket = Socket::new(at.family(), opts)?;
        socket.bind(at)?;
        let backlog = i32::try_from(backlog).map_err(|_| EINVAL)?;
        // SAFETY: The socket is valid and bound.
        to_result(unsafe { bindings::kernel_listen(socket.as_ptr(), backlog) })?;
        Ok(Self { socket })
    }

    /// Waits for a connection, at most `timeout` milliseconds; with 0 it does not wait.
    ///
    /// Errors: EAGAIN if there was none, EINVAL after [`Self::shutdown`].
    pub fn accept(&self, timeout: Msecs) -> Result<TcpSocket> {
        let flags = if timeout == 0 {
            bindings::O_NONBLOCK
        } else {
            0
        };
        self.socket.set_recv_timeout(timeout);
        let mut raw = core::ptr::null_mut();
        let from = self.socket.as_ptr();
        // SAFETY: The socket is valid and listens, and `raw` can be written to.
        to_result(unsafe { bindings::kernel_accept(from, &mut raw, flags as i32) })?;
        // SAFETY: The call has succeeded, so this is a new socket of ours.
        let socket = unsafe { Socket::from_raw(raw) }?;
        Ok(TcpSocket { socket })
    }

    /// Ends listening and wakes who waits in [`Self::accept`].
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// Where it listens.
    pub fn local_addr(&self) -> Result<SockAddr> {
        self.socket.name(bindings::kernel_getsockname)
    }
}

/// A connection. Dropping it closes it.
pub struct TcpSocket {
    socket: Socket,
}

impl TcpSocket {
    /// Connects from the address `from`, with any port, to `to`. `timeout` stays in force for
    /// sending and receiving until it is set anew.
    ///
    /// Errors: EINPROGRESS after `timeout` milliseconds (0: as long as TCP tries),
    /// ECONNREFUSED, EHOSTUNREACH and the like, EADDRNOTAVAIL if `from` is not an address of this
    /// host.
    pub fn connect(
        from: &SockAddr,
        to: &SockAddr,
        opts: &SocketOptions,
        timeout: Msecs,
    ) -> Result<Self> {
        let socket = Socket::new(to.family(), opts)?;
        socket.set_send_timeout(timeout);
        socket.set_recv_timeout(timeout);
        socket.bind(&from.with_port(0))?;
        let mut addr = *to;
        let at = (&raw mut addr).cast();
        // SAFETY: The socket is valid, and `at` starts with an address of that length.
        to_result(unsafe { bindings::kernel_connect(socket.as_ptr(), at, addr.len(), 0) })?;
        Ok(Self { socket })
    }

    fn as_ptr(&self) -> *mut bindings::socket {
        self.socket.as_ptr()
    }

    /// Sends all of `data`.
    ///
    /// Each time that the send timeout passes without progress, `on_stall` decides.
    ///
    /// Errors: EAGAIN after [`Stall::GiveUp`], EPIPE or ECONNRESET if the connection is gone. After
    /// an error nobody knows how much was sent.
    pub fn send(&self, data: &[u8], flags: SendFlags, on_stall: impl FnMut() -> Stall) -> Result {
        let mut msg = bindings::msghdr::default();
        let kvec = bindings::kvec {
            iov_base: data.as_ptr().cast_mut().cast(),
            iov_len: data.len(),
        };
        let (iter, dir) = (&mut msg.msg_iter, bindings::ITER_SOURCE);
        // SAFETY: `kvec` and what it names stay until the sending below has ended.
        unsafe { bindings::iov_iter_kvec(iter, dir, &kvec, 1, data.len()) };
        let flags = flags.without(SendFlags::SPLICE);
        // SAFETY: The message is for reading `data.len()` bytes of `data`, which will be copied.
        unsafe { self.send_msg(&mut msg, data.len(), flags, on_stall) }
    }

    /// Sends the content of a buffer, and gives the buffer up: with [`SendFlags::SPLICE`], its
    /// pages belong to the network stack from now on. Errors as [`Self::send`].
    pub fn send_pages(
        &self,
        buf: PageBuf,
        flags: SendFlags,
        on_stall: impl FnMut() -> Stall,
    ) -> Result {
        self.send_buf(&buf, flags, on_stall)
    }

    /// Sends a copy of the content of a buffer. Errors as [`Self::send`].
    pub fn send_pages_copied(
        &self,
        buf: &PageBuf,
        flags: SendFlags,
        on_stall: impl FnMut() -> Stall,
    ) -> Result {
        self.send_buf(buf, flags.without(SendFlags::SPLICE), on_stall)
    }

    fn send_buf(
        &self,
        buf: &PageBuf,
        flags: SendFlags,
        mut on_stall: impl FnMut() -> Stall,
    ) -> Result {
        let mut at: usize = 0;
        let mut left = buf.len();
        while left > 0 {
            let mut bvecs = [bindings::bio_vec::default(); BATCH];
            let (nr, bytes) = buf.bvecs(at, &mut bvecs);
            at = at.saturating_add(nr);
            left = left.saturating_sub(bytes);
            let flags = if left > 0 {
                flags | SendFlags::MORE
            } else {
                flags
            };
            let mut msg = bindings::msghdr::default();
            let (iter, dir) = (&mut msg.msg_iter, bindings::ITER_SOURCE);
            // SAFETY: The vectors and pages stay until the sending below has ended.
            unsafe { bindings::iov_iter_bvec(iter, dir, bvecs.as_ptr(), nr, bytes) };
            // SAFETY: The message is for reading `bytes` of the pages. They are copied, or given up
            // by the caller, or referred to.
            unsafe { self.send_msg(&mut msg, bytes, flags, &mut on_stall) }?;
        }
        Ok(())
    }

    /// Sends the data of a request. [`SendFlags::SPLICE`] is honoured if all its pages allow it;
    /// the owner of the pages may change them once the request was ended. Errors as [`Self::send`].
    pub fn send_bio(&self, bio: &Bio, flags: SendFlags, on_stall: impl FnMut() -> Stall) -> Result {
        let raw = bio.as_ptr();
        // SAFETY: The request is valid as long as it is borrowed.
        let can =
            flags.contains(SendFlags::SPLICE) && unsafe { shim::drbd_shim_bio_can_splice(raw) };
        let flags = if can {
            flags
        } else {
            flags.without(SendFlags::SPLICE)
        };
        let mut msg = bindings::msghdr::default();
        // SAFETY: The request is valid as long as it is borrowed, which it is while being sent.
        let len = unsafe { shim::drbd_shim_bio_iov_iter(raw, &mut msg.msg_iter, true) };
        // SAFETY: The message is for reading the data of the request.
        unsafe { self.send_msg(&mut msg, len, flags, on_stall) }
    }

    /// # Safety
    ///
    /// The iterator of `msg` must be a valid source of `len` bytes, with pages that may be referred
    /// to if `flags` says so.
    unsafe fn send_msg(
        &self,
        msg: &mut bindings::msghdr,
        len: usize,
        flags: SendFlags,
        mut on_stall: impl FnMut() -> Stall,
    ) -> Result {
        let mut left = len;
        while left > 0 {
            msg.msg_flags = flags.0 | bindings::MSG_NOSIGNAL;
            // SAFETY: The socket is valid, and the message by the safety requirement.
            let n = unsafe { bindings::sock_sendmsg(self.as_ptr(), msg) };
            left = left.saturating_sub(progress(n, &mut on_stall)?);
        }
        Ok(())
    }

    /// Receives up to `dst.len()` bytes and says how many; 0 means that the peer has closed.
    ///
    /// Errors: EAGAIN if the receive timeout has passed, or would have; ECONNRESET and the like.
    pub fn recv(&self, dst: &mut [u8], flags: RecvFlags) -> Result<usize> {
        let mut msg = bindings::msghdr::default();
        let kvec = bindings::kvec {
            iov_base: dst.as_mut_ptr().cast(),
            iov_len: dst.len(),
        };
        let (iter, dir) = (&mut msg.msg_iter, bindings::ITER_DEST);
        // SAFETY: `kvec` and what it names stay until the receiving below has ended.
        unsafe { bindings::iov_iter_kvec(iter, dir, &kvec, 1, dst.len()) };
        // SAFETY: The message is for writing to `dst`.
        count(unsafe { self.recv_msg(&mut msg, flags) })
    }

    /// Receives until `dst` is full.
    ///
    /// Each time that the receive timeout passes without progress, `on_stall` decides.
    ///
    /// Errors: ECONNRESET also if the peer has closed, EAGAIN after [`Stall::GiveUp`]. After an
    /// error nobody knows how much was received.
    pub fn recv_exact(&self, dst: &mut [u8], on_stall: impl FnMut() -> Stall) -> Result {
        let mut msg = bindings::msghdr::default();
        let kvec = bindings::kvec {
            iov_base: dst.as_mut_ptr().cast(),
            iov_len: dst.len(),
        };
        let (iter, dir) = (&mut msg.msg_iter, bindings::ITER_DEST);
        // SAFETY: `kvec` and what it names stay until the receiving below has ended.
        unsafe { bindings::iov_iter_kvec(iter, dir, &kvec, 1, dst.len()) };
        // SAFETY: The message is for writing to `dst`.
        unsafe { self.recv_all(&mut msg, dst.len(), on_stall) }
    }

    /// Receives until the buffer is full. As [`Self::recv_exact`].
    pub fn recv_pages(&self, dst: &mut PageBuf, mut on_stall: impl FnMut() -> Stall) -> Result {
        let mut at: usize = 0;
        let mut left = dst.len();
        while left > 0 {
            let mut bvecs = [bindings::bio_vec::default(); BATCH];
            let (nr, bytes) = dst.bvecs(at, &mut bvecs);
            at = at.saturating_add(nr);
            left = left.saturating_sub(bytes);
            let mut msg = bindings::msghdr::default();
            let (iter, dir) = (&mut msg.msg_iter, bindings::ITER_DEST);
            // SAFETY: The vectors and pages stay until the receiving below has ended.
            unsafe { bindings::iov_iter_bvec(iter, dir, bvecs.as_ptr(), nr, bytes) };
            // SAFETY: The message is for writing to pages that are borrowed exclusively.
            unsafe { self.recv_all(&mut msg, bytes, &mut on_stall) }?;
        }
        Ok(())
    }

    /// Receives the data of a request. As [`Self::recv_exact`].
    pub fn recv_bio(&self, dst: &Bio, on_stall: impl FnMut() -> Stall) -> Result {
        let mut msg = bindings::msghdr::default();
        let raw = dst.as_ptr();
        // SAFETY: The request is valid as long as it is borrowed, which it is while receiving.
        let len = unsafe { shim::drbd_shim_bio_iov_iter(raw, &mut msg.msg_iter, false) };
        // SAFETY: The message is for writing to the pages of the request, which are shared.
        unsafe { self.recv_all(&mut msg, len, on_stall) }
    }

    /// Receives `len` bytes and throws them away. As [`Self::recv_exact`].
    pub fn drain(&self, len: usize, mut on_stall: impl FnMut() -> Stall) -> Result {
        let mut waste = [0u8; 256];
        let mut left = len;
        while left > 0 {
            let n = left.min(waste.len());
            let dst = waste.get_mut(..n).ok_or(EINVAL)?;
            self.recv_exact(dst, &mut on_stall)?;
            left = left.saturating_sub(n);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// The iterator of `msg` must be a valid destination of `len` bytes.
    unsafe fn recv_all(
        &self,
        msg: &mut bindings::msghdr,
        len: usize,
        mut on_stall: impl FnMut() -> Stall,
    ) -> Result {
        let mut left = len;
        while left > 0 {
            // SAFETY: By the safety requirement.
            let n = unsafe { self.recv_msg(msg, RecvFlags::WAITALL) };
            if n == 0 {
                return Err(ECONNRESET);
            }
            left = left.saturating_sub(progress(n, &mut on_stall)?);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// The iterator of `msg` must be a valid destination.
    unsafe fn recv_msg(&self, msg: &mut bindings::msghdr, flags: RecvFlags) -> c_int {
        let flags = (flags.0 | bindings::MSG_NOSIGNAL) as c_int;
        // SAFETY: The socket is valid, and the message by the safety requirement.
        unsafe { bindings::sock_recvmsg(self.as_ptr(), msg, flags) }
    }

    /// After how many milliseconds without progress sending asks; 0 means never.
    pub fn set_send_timeout(&self, timeout: Msecs) {
        self.socket.set_send_timeout(timeout);
    }

    /// After how many milliseconds without progress receiving asks; 0 means never.
    pub fn set_recv_timeout(&self, timeout: Msecs) {
        self.socket.set_recv_timeout(timeout);
    }

    /// Sends small packets at once.
    pub fn set_nodelay(&self) {
        // SAFETY: The socket is valid and of TCP.
        unsafe { shim::drbd_shim_tcp_set_nodelay(self.as_ptr()) };
    }

    /// While on, sends full packets only; off sends what is left.
    pub fn set_cork(&self, on: bool) {
        // SAFETY: The socket is valid and of TCP.
        unsafe { shim::drbd_shim_tcp_set_cork(self.as_ptr(), on) };
    }

    /// Acknowledges at once what has come. It is not permanent.
    pub fn quickack(&self) {
        // 2: acknowledge what is pending, then leave the interactive mode off.
        // SAFETY: The socket is valid and of TCP.
        unsafe { shim::drbd_shim_tcp_set_quickack(self.as_ptr(), 2) };
    }

    /// The priority of its packets (`TC_PRIO_*`): 2 is bulk, 6 interactive.
    pub fn set_priority(&self, priority: u32) {
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_priority(self.as_ptr(), priority) };
    }

    /// Has TCP find out whether the peer is there when nothing is sent.
    pub fn set_keepalive(&self) {
        // SAFETY: The socket is valid.
        unsafe { shim::drbd_shim_sock_set_keepalive(self.as_ptr()) };
    }

    /// Ends the connection in both directions and wakes who waits in other methods.
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// True if the connection is established.
    pub fn is_established(&self) -> bool {
        // SAFETY: The socket is valid and of TCP.
        unsafe { shim::drbd_shim_tcp_is_established(self.as_ptr()) }
    }

    /// True if the peer has not closed the connection, as far as is known. Does not wait.
    pub fn is_alive(&self) -> bool {
        let mut byte = [0; 1];
        match self.recv(&mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok(n) => n > 0,
            Err(error) => error == EAGAIN,
        }
    }

    /// How full the send queue is.
    pub fn queue_level(&self) -> QueueLevel {
        let raw = self.as_ptr();
        QueueLevel {
            // SAFETY: The socket is valid.
            queued: unsafe { shim::drbd_shim_sock_wmem_queued(raw) },
            // SAFETY: The socket is valid.
            sndbuf: unsafe { shim::drbd_shim_sock_sndbuf(raw) },
            // SAFETY: The socket is valid and of TCP.
            unacked: unsafe { shim::drbd_shim_tcp_unsent(raw) },
        }
    }

    /// Its address.
    pub fn local_addr(&self) -> Result<SockAddr> {
        self.socket.name(bindings::kernel_getsockname)
    }

    /// The address of the peer. Errors: ENOTCONN.
    pub fn peer_addr(&self) -> Result<SockAddr> {
        self.socket.name(bindings::kernel_getpeername)
    }
}

fn count(n: c_int) -> Result<usize> {
    to_result(n)?;
    usize::try_from(n).map_err(|_| EIO)
}

/// How far a call has come: the bytes, or 0 if it is to be repeated.
fn progress(n: c_int, on_stall: &mut impl FnMut() -> Stall) -> Result<usize> {
    match count(n) {
        Ok(0) => Err(EIO),
        Ok(n) => Ok(n),
        Err(error) if error == EAGAIN => match on_stall() {
            Stall::KeepWaiting => Ok(0),
            Stall::GiveUp => Err::<usize, Error>(EAGAIN),
        },
        Err(error) => Err(error),
    }
}
