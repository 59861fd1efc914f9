// SPDX-License-Identifier: GPL-2.0

//! A request: what it names, whether that fits together, and how it is answered.
//!
//! The order of the checks and their texts are those of the C driver: tools show the texts.

use drbd_core::nl::command::Context;
use drbd_core::nl::conf::CfgContext;
use drbd_core::nl::info::CfgReply;
use drbd_core::nl::{
    self, Attrs, Audience, Command, ErrCode, Header, Mode, Writer, FLAG_SET_DEFAULTS, NO_VOLUME,
};
use drbd_core::node;
use drbd_core::units::{Minor, Vnr};
use drbd_kapi::genl::Request;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use super::Admin;
use crate::log::Shown;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;

/// Netlink's flag "must not exist yet".
const NLM_F_EXCL: u16 = 0x200;

/// Why a request is not done.
pub(super) enum Refusal {
    /// A reply with this code, and perhaps a line for people.
    Code(i32, Option<&'static str>),
    /// A reply with a line that was made for the case.
    Told(i32, CString),
    /// No reply but an error of netlink.
    Errno(Error),
}

impl Refusal {
    /// A code with a line for people.
    pub(super) const fn with(code: ErrCode, text: &'static str) -> Refusal {
        Refusal::Code(code.number(), Some(text))
    }
}

impl From<ErrCode> for Refusal {
    fn from(code: ErrCode) -> Refusal {
        Refusal::Code(code.number(), None)
    }
}

/// What happens on the way: a killed administrator, want of memory.
impl From<Error> for Refusal {
    fn from(e: Error) -> Refusal {
        if e == EINTR {
            ErrCode::Intr.into()
        } else if e == ENOMEM {
            ErrCode::Nomem.into()
        } else {
            Refusal::Errno(e)
        }
    }
}

impl From<nl::Error> for Refusal {
    fn from(e: nl::Error) -> Refusal {
        match e.code() {
            Some(code) => Refusal::with(code, e.text()),
            None => Refusal::Errno(EINVAL),
        }
    }
}

/// What comes of a request: a code, of the state machine or [`ErrCode`].
pub(super) type Outcome = Result<i32, Refusal>;

/// Done without a code of the state machine.
pub(super) const DONE: Outcome = Ok(ErrCode::NoError.number());

/// A code of the core as the answer of a request that reports only errors of its own.
pub(super) const fn succeeded(code: i32) -> bool {
    code >= 1 && code <= ErrCode::NoError.number()
}

/// Makes one code of all kinds of success; anything else is a refusal.
pub(super) fn plain(code: i32) -> Outcome {
    if succeeded(code) {
        DONE
    } else {
        Err(Refusal::Code(code, None))
    }
}

/// Lets the core decide. A code without an explanation is passed on, whether it is good or bad.
pub(super) fn ask(resource: &Arc<Resource>, cmd: node::admin::Command) -> Outcome {
    let answer = resource.command(cmd)?;
    match answer.info {
        None => Ok(answer.code),
        Some(note) => Err(told(answer.code, &note)),
    }
}

/// A refusal with the core's own words.
pub(super) fn told(code: i32, note: &node::Note) -> Refusal {
    match CString::try_from_fmt(fmt!("{}", Shown(note))) {
        Ok(text) => Refusal::Told(code, text),
        Err(_) => Refusal::Code(code, None),
    }
}

/// A group that may be left out altogether.
pub(super) fn optional<T>(read: Result<T, nl::Error>, absent: T) -> Result<T, Refusal> {
    match read {
        Ok(group) => Ok(group),
        Err(nl::Error::NoGroup(_)) => Ok(absent),
        Err(e) => Err(e.into()),
    }
}

/// A request whose context was checked.
pub(super) struct Call<'a> {
    /// Who does it.
    pub(super) admin: &'a Admin,
    /// The message.
    pub(super) req: &'a Request<'a>,
    /// What it asks for.
    pub(super) cmd: Command,
    /// Its header.
    pub(super) header: Header,
    /// Its CFG_CONTEXT; empty without one.
    pub(super) context: CfgContext,
    /// The volume of the minor in the header.
    device: Option<MinorEntry>,
    /// The resource that is named, or that of the device or connection.
    resource: Option<Arc<Resource>>,
}

impl<'a> Call<'a> {
    /// Reads and checks what the request names. Boxed, and not inlined: handlers go deep.
    #[inline(never)]
    pub(super) fn new(
        admin: &'a Admin,
        req: &'a Request<'a>,
        cmd: Command,
        header: Header,
        context: &CfgContext,
    ) -> Result<KBox<Call<'a>>, Refusal> {
        let device = admin.registry.minor(Minor(header.minor));
        let named = context.ctx_resource_name;
        let resource = named.and_then(|n| admin.registry.resource(n.as_bytes()));
        let call = Call { admin, req, cmd, header, context: *context, device, resource };
        let mut call = KBox::new(call, GFP_KERNEL).map_err(Error::from)?;
        call.check_existence()?;
        let found = match cmd.context() {
            Context::Connection => Some(call.find_connection()?),
            Context::Nothing
            | Context::Minor
            | Context::Resource
            | Context::ResourceAndAddresses => None,
        };
        call.check_agreement()?;
        if call.resource.is_none() {
            call.resource = call.device.as_ref().map(|d| d.resource.clone()).or(found);
        }
        Ok(call)
    }

    fn check_existence(&self) -> Result<(), Refusal> {
        match self.cmd.context() {
            Context::Minor if self.device.is_none() => {
                Err(Refusal::with(ErrCode::MinorInvalid, "unknown minor"))
            }
            Context::Resource | Context::ResourceAndAddresses if self.resource.is_none() => {
                let code = match self.context.ctx_resource_name {
                    Some(_) => ErrCode::ResNotKnown,
                    None => ErrCode::InvalidRequest,
                };
                Err(Refusal::with(code, "unknown resource"))
            }
            Context::Nothing
            | Context::Minor
            | Context::Resource
            | Context::ResourceAndAddresses
            | Context::Connection => Ok(()),
        }
    }

    fn find_connection(&self) -> Result<Arc<Resource>, Refusal> {
        let refuse = |text| Err(Refusal::with(ErrCode::InvalidRequest, text));
        if self.resource.is_some() {
            return refuse("no resource name expected");
        }
        if self.device.is_some() {
            return refuse("no minor number expected");
        }
        let (Some(my), Some(peer)) = (&self.context.ctx_my_addr, &self.context.ctx_peer_addr) else {
            return refuse("unknown connection");
        };
        let found = self.admin.find_resource(|r| {
            let setup = r.inner.lock().setup.clone();
            setup.is_some_and(|s| {
                s.my.as_bytes() == my.as_bytes() && s.peer.as_bytes() == peer.as_bytes()
            })
        });
        found.ok_or(Refusal::with(ErrCode::InvalidRequest, "unknown connection"))
    }

    /// The request may say more than it needs to: then all of it has to be true.
    fn check_agreement(&self) -> Result<(), Refusal> {
        let Some(device) = &self.device else { return Ok(()) };
        if self.resource.as_ref().is_some_and(|r| !Arc::ptr_eq(r, &device.resource)) {
            let text = "minor exists in different resource";
            return Err(Refusal::with(ErrCode::InvalidRequest, text));
        }
        match self.volume() {
            Some(volume) if volume != u32::from(device.vnr.0) => {
                let text = "minor exists as different volume";
                Err(Refusal::with(ErrCode::InvalidRequest, text))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The volume number that the request names.
    pub(super) fn volume(&self) -> Option<u32> {
        self.context.ctx_volume.filter(|v| *v != NO_VOLUME)
    }

    /// The volume number, if it is one that a volume can have.
    pub(super) fn valid_volume(&self) -> Option<Vnr> {
        // 65535 is left out: the C driver's limit is one lower than the header's field.
        self.volume().and_then(|v| u16::try_from(v).ok()).filter(|v| *v != u16::MAX).map(Vnr)
    }

    /// The volume that the header's minor names.
    pub(super) fn device(&self) -> Result<&MinorEntry, Refusal> {
        let unknown = Refusal::with(ErrCode::MinorInvalid, "unknown minor");
        self.device.as_ref().ok_or(unknown)
    }

    /// Whether the header's minor exists.
    pub(super) fn has_device(&self) -> bool {
        self.device.is_some()
    }

    /// The resource that this is about.
    pub(super) fn resource(&self) -> Result<&Arc<Resource>, Refusal> {
        let unknown = Refusal::with(ErrCode::InvalidRequest, "unknown resource");
        self.resource.as_ref().ok_or(unknown)
    }

    /// Whether the named resource exists.
    pub(super) fn has_resource(&self) -> bool {
        self.resource.is_some()
    }

    /// The resource that this changes. `None`: it only asks, or the resource is yet to be made.
    pub(super) fn changes(&self) -> Option<&Arc<Resource>> {
        let asks = matches!(
            self.cmd,
            Command::GetStatus | Command::GetTimeoutType | Command::NewResource
        );
        self.resource.as_ref().filter(|_| !asks)
    }

    /// The attributes.
    pub(super) fn attrs(&self) -> &[u8] {
        self.req.attrs()
    }

    /// Whether what exists already is an error.
    pub(super) fn exclusive(&self) -> bool {
        self.req.nlmsg_flags() & NLM_F_EXCL != 0
    }

    /// Whether options that the request does not name go back to their defaults.
    pub(super) fn set_defaults(&self) -> bool {
        self.header.flags & FLAG_SET_DEFAULTS != 0
    }

    /// What the sender may see.
    pub(super) fn audience(&self) -> Audience {
        if self.req.has_cap_sys_admin() {
            Audience::Admin
        } else {
            Audience::Everybody
        }
    }
}

/// Reads CFG_CONTEXT and echoes it. What cannot be read is an error of netlink, not a reply.
pub(super) fn read_context(attrs: &[u8], echo: &mut Writer<'_>) -> Result<CfgContext> {
    let nr = CfgContext::GROUP.nr;
    let Some(raw) = Attrs::find(attrs, nr) else { return Ok(CfgContext::default()) };
    let read = CfgContext::from_attrs(CfgContext::default(), attrs, Mode::New);
    let context = read.map_err(|_| EINVAL)?;
    echo.put(nr, raw);
    Ok(context)
}

/// Completes a reply: what its code is, and how many bytes of attributes it has.
///
/// # Errors
/// What the sender gets instead of a reply.
pub(super) fn finish(outcome: Outcome, mut w: Writer<'_>) -> Result<(i32, usize)> {
    let code = match outcome {
        Ok(code) | Err(Refusal::Code(code, None)) => code,
        Err(Refusal::Errno(e)) => return Err(e),
        Err(Refusal::Code(code, Some(text))) => {
            CfgReply::put_lines(&mut w, &[text]);
            code
        }
        Err(Refusal::Told(code, text)) => {
            CfgReply::put_lines(&mut w, &[text.to_str().unwrap_or("")]);
            code
        }
    };
    Ok((code, w.finish().ok_or(EMSGSIZE)?))
}
