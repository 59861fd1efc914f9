// SPDX-License-Identifier: GPL-2.0

//! A generic netlink family whose messages are encoded and decoded elsewhere.
//!
//! The kernel parses the two headers that all generic netlink messages have; behind them come the
//! family's own header and its attributes, which pass through here as bytes. The kernel checks
//! neither: the family is registered without a policy.

use crate::{mem::push_within, shim};
use core::marker::PhantomData;
use kernel::{
    alloc::KVec,
    bindings,
    error::{from_result, to_result},
    prelude::*,
    sync::Arc,
    types::Opaque,
};

/// Words of memory that a dump has from one call to the next.
pub const CURSOR_WORDS: usize = 5;

const CAP_SYS_ADMIN: c_int = bindings::CAP_SYS_ADMIN as c_int;
const CAP_NET_ADMIN: c_int = bindings::CAP_NET_ADMIN as c_int;

/// One command of a family.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Its number.
    pub cmd: u8,
    /// Only for those with CAP_NET_ADMIN; the kernel refuses others with EPERM.
    pub admin: bool,
    /// Goes to [`Handler::doit`].
    pub doit: bool,
    /// With NLM_F_DUMP it goes to [`Handler::dump`].
    pub dump: bool,
}

/// What a family looks like.
#[derive(Clone, Copy, Debug)]
pub struct FamilySpec {
    /// Its name; at most 15 bytes.
    pub name: &'static CStr,
    /// Its version.
    pub version: u32,
    /// Bytes of the family's own header, a multiple of 4.
    pub header_len: u32,
    /// The highest attribute number, which is told to user space.
    pub max_attr: u32,
    /// The names of its multicast groups; at most 15 bytes each.
    pub groups: &'static [&'static CStr],
    /// Its commands.
    pub ops: &'static [Op],
    /// Requests are handled in parallel. Otherwise they come one at a time, in turn with those of
    /// all other families that want it so: one that waits holds up every one of them.
    pub parallel: bool,
}

/// Who answers requests.
pub trait Handler: Send + Sync + 'static {
    /// A request. The error goes back to the sender. Process context of the sender; may sleep.
    fn doit(&self, req: &Request<'_>) -> Result;

    /// A part of a dump: puts as many messages into `out` as fit, and keeps in `cursor`, which
    /// begins as zeroes, where to go on. A call that puts nothing ends the dump.
    fn dump(
        &self,
        req: &DumpRequest<'_>,
        cursor: &mut [u64; CURSOR_WORDS],
        out: &mut DumpOut<'_>,
    ) -> Result;
}

/// What the sender of a request has sent.
///
/// # Invariants
///
/// `info` is what the kernel passed to the callback that this lives in, and `payload` is within the
/// message.
#[derive(Clone, Copy)]
struct Message<'a> {
    info: *const bindings::genl_info,
    payload: &'a [u8],
    header_len: usize,
}

impl<'a> Message<'a> {
    /// # Safety
    ///
    /// `info` must be what the kernel passed to a callback, which lasts for `'a`.
    unsafe fn new(info: *const bindings::genl_info) -> Self {
        let mut len: usize = 0;
        // SAFETY: By the safety requirement.
        let header_len = unsafe { (*(*info).family).hdrsize as usize };
        // SAFETY: By the safety requirement.
        let payload = unsafe { shim::drbd_shim_genl_payload((*info).nlhdr.cast(), &mut len) };
        // SAFETY: The message stays for the callback, and nobody changes it.
        let payload = unsafe { core::slice::from_raw_parts(payload.cast::<u8>(), len) };
        // INVARIANT: By the safety requirement.
        Self {
            info,
            payload,
            header_len,
        }
    }

    fn cmd(&self) -> u8 {
        // SAFETY: By the invariants.
        unsafe { (*(*self.info).genlhdr).cmd }
    }

    fn seq(&self) -> u32 {
        // SAFETY: By the invariants.
        unsafe { (*self.info).snd_seq }
    }

    fn portid(&self) -> u32 {
        // SAFETY: By the invariants.
        unsafe { (*self.info).snd_portid }
    }

    fn nlmsg_flags(&self) -> u16 {
        // SAFETY: By the invariants.
        unsafe { (*(*self.info).nlhdr).nlmsg_flags }
    }

    fn user_header(&self) -> &'a [u8] {
        self.payload.get(..self.header_len).unwrap_or(&[])
    }

    fn attrs(&self) -> &'a [u8] {
        self.payload.get(self.header_len..).unwrap_or(&[])
    }
}

/// A request to [`Handler::doit`].
pub struct Request<'a> {
    message: Message<'a>,
    skb: *mut bindings::sk_buff,
}

impl Request<'_> {
    /// The command.
    pub fn cmd(&self) -> u8 {
        self.message.cmd()
    }

    /// The sequence number that the sender gave it.
    pub fn seq(&self) -> u32 {
        self.message.seq()
    }

    /// The netlink address of the sender.
    pub fn portid(&self) -> u32 {
        self.message.portid()
    }

    /// NLM_F_*.
    pub fn nlmsg_flags(&self) -> u16 {
        self.message.nlmsg_flags()
    }

    /// The family's own header: exactly its length.
    pub fn user_header(&self) -> &[u8] {
        self.message.user_header()
    }

    /// The attributes, unchecked.
    pub fn attrs(&self) -> &[u8] {
        self.message.attrs()
    }

    /// True if the sender, and who opened its socket, have CAP_SYS_ADMIN.
    pub fn has_cap_sys_admin(&self) -> bool {
        // SAFETY: The message is what the callback was given.
        unsafe { shim::drbd_shim_genl_capable(self.skb, CAP_SYS_ADMIN) }
    }

    /// True if the sender, and who opened its socket, have CAP_NET_ADMIN.
    pub fn has_cap_net_admin(&self) -> bool {
        // SAFETY: The message is what the callback was given.
        unsafe { shim::drbd_shim_genl_capable(self.skb, CAP_NET_ADMIN) }
    }

    /// True if the sender is in the initial network namespace.
    pub fn in_init_net(&self) -> bool {
        // SAFETY: By the invariants of `Message`.
        unsafe { shim::drbd_shim_genl_in_init_net(self.message.info.cast_mut()) }
    }

    /// Sends a message back, with the command and sequence number of the request.
    ///
    /// Errors: EINVAL if the header is longer than the family's, EMSGSIZE, ENOMEM, ECONNREFUSED if
    /// the sender is gone.
    pub fn reply(&self, header: &[u8], attrs: &[u8]) -> Result {
        if header.len() > self.message.header_len {
            return Err(EINVAL);
        }
        let (info, cmd) = (self.message.info.cast_mut(), self.cmd());
        let (h, a) = (header.as_ptr().cast(), attrs.as_ptr().cast());
        // SAFETY: By the invariants of `Message`; the slices are valid for their lengths.
        to_result(unsafe {
            let family = (*info).family;
            shim::drbd_shim_genl_reply(info, family, cmd, h, header.len(), a, attrs.len())
        })
    }
}

/// A request to [`Handler::dump`].
///
/// # Invariants
///
/// `cb` is what the kernel passed to the callback that this lives in.
pub struct DumpRequest<'a> {
    message: Message<'a>,
    cb: *mut bindings::netlink_callback,
}

impl DumpRequest<'_> {
    /// True if the sender, and who opened its socket, have CAP_SYS_ADMIN.
    pub fn has_cap_sys_admin(&self) -> bool {
        // SAFETY: By the invariants.
        unsafe { shim::drbd_shim_genl_dump_capable(self.cb, CAP_SYS_ADMIN) }
    }

    /// The command.
    pub fn cmd(&self) -> u8 {
        self.message.cmd()
    }

    /// The sequence number that the sender gave it.
    pub fn seq(&self) -> u32 {
        self.message.seq()
    }

    /// The netlink address of the sender.
    pub fn portid(&self) -> u32 {
        self.message.portid()
    }

    /// The family's own header: exactly its length.
    pub fn user_header(&self) -> &[u8] {
        self.message.user_header()
    }

    /// The attributes, unchecked.
    pub fn attrs(&self) -> &[u8] {
        self.message.attrs()
    }
}

/// Where a dump goes.
///
/// # Invariants
///
/// `skb` and `cb` are what the kernel passed to the callback that this lives in.
pub struct DumpOut<'a> {
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
    header_len: usize,
    added: usize,
    full: bool,
    _callback: PhantomData<&'a ()>,
}

impl DumpOut<'_> {
    /// Adds a message. False if it does not fit any more: then the same message is to be put first
    /// by the next call.
    ///
    /// Errors: EINVAL if the header is longer than the family's.
    pub fn put(&mut self, header: &[u8], attrs: &[u8]) -> Result<bool> {
        self.put_as(-1, header, attrs)
    }

    /// Adds a message in the form of an event: under the command `cmd`, from nobody. Otherwise as
    /// [`Self::put`].
    pub fn put_event(&mut self, cmd: u8, header: &[u8], attrs: &[u8]) -> Result<bool> {
        self.put_as(c_int::from(cmd), header, attrs)
    }

    fn put_as(&mut self, event: c_int, header: &[u8], attrs: &[u8]) -> Result<bool> {
        if header.len() > self.header_len {
            return Err(EINVAL);
        }
        let (h, a) = (header.as_ptr().cast(), attrs.as_ptr().cast());
        // SAFETY: By the invariants; the slices are valid for their lengths.
        let code = unsafe {
            let (skb, cb) = (self.skb, self.cb);
            shim::drbd_shim_genl_dump_put(skb, cb, event, h, header.len(), a, attrs.len())
        };
        if code == EMSGSIZE.to_errno() {
            self.full = true;
            return Ok(false);
        }
        to_result(code)?;
        self.added = self.added.saturating_add(1);
        Ok(true)
    }

    /// How many messages this call has added.
    pub fn added(&self) -> usize {
        self.added
    }
}

/// A registered family. Dropping it unregisters it, after the requests that are being handled.
pub struct Family<H: Handler> {
    inner: Pin<KBox<Inner<H>>>,
}

/// # Invariants
///
/// `raw` is a registered family and points to `_ops` and `_groups`. It comes first, so that its
/// address is that of the whole.
#[repr(C)]
#[pin_data(PinnedDrop)]
struct Inner<H: Handler> {
    #[pin]
    raw: Opaque<bindings::genl_family>,
    handler: Arc<H>,
    header_len: usize,
    _ops: KVec<bindings::genl_small_ops>,
    _groups: KVec<bindings::genl_multicast_group>,
}

// SAFETY: Families are not tied to tasks; the tables do not change.
unsafe impl<H: Handler> Send for Inner<H> {}
// SAFETY: The functions used with `&self` lock what they need.
unsafe impl<H: Handler> Sync for Inner<H> {}

#[pinned_drop]
impl<H: Handler> PinnedDrop for Inner<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered, by the invariant.
        unsafe { bindings::genl_unregister_family(self.raw.get()) };
    }
}

impl<H: Handler> Family<H> {
    /// Registers a family. Requests may come before this returns.
    ///
    /// A dump that is under way keeps `module` from being unloaded; so the family has to live as
    /// long as the module does.
    ///
    /// Errors: EEXIST if there is one of that name, EINVAL if a name is too long.
    pub fn register(
        module: &'static ThisModule,
        spec: &FamilySpec,
        handler: Arc<H>,
    ) -> Result<Self> {
        let ops = small_ops::<H>(spec.ops)?;
        let groups = mcast_groups(spec.groups)?;
        let mut family = bindings::genl_family {
            hdrsize: spec.header_len,
            version: spec.version,
            maxattr: spec.max_attr,
            n_small_ops: u8::try_from(ops.len()).map_err(|_| EINVAL)?,
            n_mcgrps: u8::try_from(groups.len()).map_err(|_| EINVAL)?,
            // All commands are checked as leniently as they were before there were stricter rules.
            resv_start_op: u8::MAX,
            small_ops: ops.as_ptr(),
            mcgrps: groups.as_ptr(),
            module: module.as_ptr(),
            ..Default::default()
        };
        family.set_netnsok(1);
        family.set_parallel_ops(u8::from(spec.parallel).into());
        copy_name(&mut family.name, spec.name)?;
        let header_len = spec.header_len as usize;
        // The registration comes last: from then on requests find all the rest.
        let init = try_pin_init!(Inner {
            handler,
            header_len,
            _ops: ops,
            _groups: groups,
            raw <- Opaque::try_ffi_init(move |slot: *mut bindings::genl_family| {
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(family) };
                // SAFETY: `slot` is pinned and was just written; the tables live as long as it.
                to_result(unsafe { bindings::genl_register_family(slot) })
            }),
        }? Error);
        let inner = KBox::pin_init(init, GFP_KERNEL)?;
        Ok(Self { inner })
    }

    /// Who answers.
    pub fn handler(&self) -> &H {
        &self.inner.handler
    }

    /// True if anybody in the initial network namespace listens to the group of that index.
    pub fn has_listeners(&self, group: u32) -> bool {
        let net = &raw mut bindings::init_net;
        // SAFETY: The family is registered, and the initial namespace always there.
        unsafe { bindings::genl_has_listeners(self.inner.raw.get(), net, group) > 0 }
    }

    /// Sends a message to all listeners of a group, in all network namespaces. May sleep.
    ///
    /// Errors: ESRCH if there are none, EINVAL if the header is longer than the family's, ENOMEM.
    pub fn multicast(&self, cmd: u8, seq: u32, header: &[u8], attrs: &[u8], group: u32) -> Result {
        if header.len() > self.inner.header_len {
            return Err(EINVAL);
        }
        let family = self.inner.raw.get();
        let (h, a, n) = (header.as_ptr().cast(), attrs.as_ptr().cast(), attrs.len());
        // SAFETY: The family is registered; the slices are valid for their lengths.
        to_result(unsafe {
            shim::drbd_shim_genl_multicast(family, cmd, seq, group, h, header.len(), a, n)
        })
    }
}

fn small_ops<H: Handler>(ops: &[Op]) -> Result<KVec<bindings::genl_small_ops>> {
    let lenient = bindings::genl_validate_flags_GENL_DONT_VALIDATE_STRICT
        | bindings::genl_validate_flags_GENL_DONT_VALIDATE_DUMP;
    let mut table = KVec::with_capacity(ops.len(), GFP_KERNEL)?;
    for op in ops {
        let mut entry = bindings::genl_small_ops {
            cmd: op.cmd,
            validate: lenient as u8,
            ..Default::default()
        };
        if op.doit {
            entry.doit = Some(doit::<H>);
        }
        if op.dump {
            entry.dumpit = Some(dumpit::<H>);
        }
        if op.admin {
            entry.flags = bindings::GENL_ADMIN_PERM as u8;
        }
        push_within(&mut table, entry).map_err(|_| ENOMEM)?;
    }
    Ok(table)
}

fn mcast_groups(names: &[&CStr]) -> Result<KVec<bindings::genl_multicast_group>> {
    let mut table = KVec::with_capacity(names.len(), GFP_KERNEL)?;
    for name in names {
        let mut group = bindings::genl_multicast_group::default();
        copy_name(&mut group.name, name)?;
        push_within(&mut table, group).map_err(|_| ENOMEM)?;
    }
    Ok(table)
}

/// Copies a name with the zero behind it.
fn copy_name(to: &mut [c_char; 16], name: &CStr) -> Result {
    let name = name.to_bytes_with_nul();
    if name.len() > to.len() {
        return Err(EINVAL);
    }
    for (to, from) in to.iter_mut().zip(name) {
        *to = *from;
    }
    Ok(())
}

/// # Safety
///
/// `info` must be what the kernel passed to a callback of a `Family<H>`, which lasts for `'a`.
unsafe fn handler<'a, H: Handler>(info: *const bindings::genl_info) -> &'a H {
    // SAFETY: The family is the first field of `Inner<H>`, which lives while its callbacks run.
    unsafe { &(*(*info).family.cast::<Inner<H>>()).handler }
}

/// # Safety
///
/// Called by the kernel for a command of a `Family<H>`.
unsafe extern "C" fn doit<H: Handler>(
    skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    // SAFETY: By the safety requirement.
    let message = unsafe { Message::new(info) };
    // SAFETY: By the safety requirement.
    let handler = unsafe { handler::<H>(info) };
    from_result(|| handler.doit(&Request { message, skb }).map(|()| 0))
}

/// # Safety
///
/// Called by the kernel for a command of a `Family<H>`.
unsafe extern "C" fn dumpit<H: Handler>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    // SAFETY: Generic netlink keeps its own description of the dump in `data`.
    let info = unsafe { &raw const (*(*cb).data.cast::<bindings::genl_dumpit_info>()).info };
    // SAFETY: By the safety requirement.
    let message = unsafe { Message::new(info) };
    // SAFETY: By the safety requirement.
    let handler = unsafe { handler::<H>(info) };
    // SAFETY: The memory of a dump is the callback's, zeroed at first, and large enough.
    let cursor = unsafe { &mut *(&raw mut (*cb).__bindgen_anon_1).cast::<[u64; CURSOR_WORDS]>() };
    let mut out = DumpOut {
        skb,
        cb,
        header_len: message.header_len,
        added: 0,
        full: false,
        _callback: PhantomData,
    };
    from_result(|| {
        handler.dump(&DumpRequest { message, cb }, cursor, &mut out)?;
        match (out.added, out.full) {
            (0, true) => Err(EMSGSIZE),
            (0, false) => Ok(0),
            // SAFETY: The buffer is valid.
            _ => Ok(unsafe { (*skb).len }.min(i32::MAX as u32) as c_int),
        }
    })
}
