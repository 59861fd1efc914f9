// SPDX-License-Identifier: GPL-2.0

//! What is asked about: GET_STATUS, the dumps of `drbdsetup status`, and where `events2` begins.
//!
//! A dump goes on where it left off: at a resource by its place in the list, at a volume by its
//! number. Objects that come or go meanwhile may be missed; nothing is looked at after it is gone.

use drbd_core::nl::conf::CfgContext;
use drbd_core::nl::info::notify;
use drbd_core::nl::{Attrs, Audience, Command, ErrCode, Writer, NO_MINOR};
use drbd_core::units::Minor;
use drbd_kapi::genl::{DumpOut, DumpRequest, CURSOR_WORDS};
use kernel::prelude::*;
use kernel::sync::Arc;

use super::events::{announced, next_volume};
use super::message::{self, Message, Sib};
use super::request::{Call, Outcome, DONE};
use super::view::{ConnectionView, ResourceView, VolumeView};
use super::Admin;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;

/// Where the name of the resource is in CFG_CONTEXT.
const RESOURCE_NAME: u16 = 2;

/// GET_STATUS of one volume.
#[inline(never)]
pub(super) fn get(call: &Call<'_>, w: &mut Writer<'_>) -> Outcome {
    let entry = call.device()?;
    let view = VolumeView::of(entry).ok_or(ENODEV)?;
    message::put_status(w, entry, &view, call.audience(), Sib::Reply);
    DONE
}

/// How far a dump is.
struct Cursor<'a> {
    /// Which resource, by its place.
    resource: &'a mut u64,
    /// Which kind of object of it: see [`initial_state`].
    kind: &'a mut u64,
    /// The least number of the next volume; of GET_DEVICES and GET_PEER_DEVICES the least minor.
    volume: &'a mut u64,
    /// Something of this resource was told.
    told: &'a mut u64,
    /// Nothing is left.
    done: &'a mut u64,
}

impl Cursor<'_> {
    fn next_resource(&mut self) {
        *self.resource = self.resource.saturating_add(1);
        *self.kind = 0;
        *self.volume = 0;
        *self.told = 0;
    }

    fn from(&self) -> u32 {
        u32::try_from(*self.volume).unwrap_or(u32::MAX)
    }
}

/// What the dump is restricted to.
enum Filter<'a> {
    /// Nothing.
    All,
    /// A resource of this name.
    Name(&'a [u8]),
    /// There is a CFG_CONTEXT, but no name in it.
    Nameless,
}

fn filter<'a>(attrs: &'a [u8]) -> Filter<'a> {
    let Some(context) = Attrs::find(attrs, CfgContext::GROUP.nr) else { return Filter::All };
    let Some(name) = Attrs::find(context, RESOURCE_NAME) else { return Filter::Nameless };
    Filter::Name(name.split(|b| *b == 0).next().unwrap_or(name))
}

/// One part of a dump.
pub(super) fn dump(
    admin: &Admin,
    req: &DumpRequest<'_>,
    cmd: Command,
    cursor: &mut [u64; CURSOR_WORDS],
    out: &mut DumpOut<'_>,
) -> Result {
    let [resource, kind, volume, told, done] = cursor;
    let mut cursor = Cursor { resource, kind, volume, told, done };
    if *cursor.done != 0 {
        return Ok(());
    }
    let filter = filter(req.attrs());
    match cmd {
        Command::GetStatus => all_status(admin, &filter, audience(req), &mut cursor, out),
        Command::GetResources => resources(admin, &mut cursor, out),
        Command::GetDevices => {
            let Some(only) = filtered(admin, &filter, cmd, &mut cursor, out)? else {
                return Ok(());
            };
            by_minor(admin, only.as_ref(), &mut cursor, out, device)
        }
        Command::GetPeerDevices => {
            let Some(only) = filtered(admin, &filter, cmd, &mut cursor, out)? else {
                return Ok(());
            };
            by_minor(admin, only.as_ref(), &mut cursor, out, peer_device)
        }
        Command::GetConnections => {
            let Some(only) = filtered(admin, &filter, cmd, &mut cursor, out)? else {
                return Ok(());
            };
            connections(admin, only, audience(req), &mut cursor, out)
        }
        Command::GetInitialState => initial_state(admin, &mut cursor, out),
        Command::Event
        | Command::NewMinor
        | Command::DelMinor
        | Command::NewResource
        | Command::DelResource
        | Command::ResourceOpts
        | Command::Connect
        | Command::Disconnect
        | Command::Attach
        | Command::Resize
        | Command::Primary
        | Command::Secondary
        | Command::NewCUuid
        | Command::StartOv
        | Command::Detach
        | Command::Invalidate
        | Command::InvalPeer
        | Command::PauseSync
        | Command::ResumeSync
        | Command::SuspendIo
        | Command::ResumeIo
        | Command::Outdate
        | Command::GetTimeoutType
        | Command::Down
        | Command::ChgDiskOpts
        | Command::ChgNetOpts
        | Command::ResourceState
        | Command::DeviceState
        | Command::ConnectionState
        | Command::PeerDeviceState
        | Command::Helper
        | Command::InitialStateDone => Err(EOPNOTSUPP),
    }
}

fn audience(req: &DumpRequest<'_>) -> Audience {
    if req.has_cap_sys_admin() {
        Audience::Admin
    } else {
        Audience::Everybody
    }
}

fn put(out: &mut DumpOut<'_>, message: Result<Message>) -> Result<bool> {
    let message = message?;
    out.put(&message.header, message.attrs())
}

fn put_event(out: &mut DumpOut<'_>, message: Result<Message>) -> Result<bool> {
    let message = message?;
    out.put_event(message.cmd.number(), &message.header, message.attrs())
}

fn resource_at(admin: &Admin, cursor: &Cursor<'_>) -> Option<Arc<Resource>> {
    admin.registry.resource_at(usize::try_from(*cursor.resource).ok()?)
}

/// GET_STATUS of all volumes, or those of a resource.
fn all_status(
    admin: &Admin,
    filter: &Filter<'_>,
    who: Audience,
    cursor: &mut Cursor<'_>,
    out: &mut DumpOut<'_>,
) -> Result {
    let only = match filter {
        Filter::All => None,
        Filter::Nameless => return Err(EINVAL),
        Filter::Name(name) => Some(admin.registry.resource(name).ok_or(ENODEV)?),
    };
    loop {
        let Some(resource) = only.clone().or_else(|| resource_at(admin, cursor)) else {
            return Ok(());
        };
        let entry = next_volume(&resource, cursor.from());
        let message = match &entry {
            Some(entry) => volume_status(entry, who),
            None if *cursor.told == 0 => Some(bare_status(&resource, who)),
            None => None,
        };
        if let Some(message) = message {
            if !put(out, message)? {
                return Ok(());
            }
            *cursor.told = 1;
        }
        match entry {
            Some(entry) => *cursor.volume = u64::from(entry.vnr.0).saturating_add(1),
            None if only.is_some() => {
                *cursor.done = 1;
                return Ok(());
            }
            None => cursor.next_resource(),
        }
    }
}

fn volume_status(entry: &MinorEntry, who: Audience) -> Option<Result<Message>> {
    let view = VolumeView::of(entry)?;
    Some(Message::about(Command::GetStatus, entry.minor.0, |w| {
        message::put_status(w, entry, &view, who, Sib::Reply);
    }))
}

/// The status of a resource without volumes.
fn bare_status(resource: &Resource, who: Audience) -> Result<Message> {
    let view = ConnectionView::of(resource);
    Message::about(Command::GetStatus, NO_MINOR, |w| {
        let setup = view.as_ref().map(|v| &*v.setup);
        message::put_context(w, resource, setup, None);
        if let Some(setup) = setup {
            setup.conf.put(w, who);
        }
    })
}

/// GET_RESOURCES.
fn resources(admin: &Admin, cursor: &mut Cursor<'_>, out: &mut DumpOut<'_>) -> Result {
    while let Some(resource) = resource_at(admin, cursor) {
        let view = ResourceView::of(&resource);
        let (info, _) = announced(&resource);
        let message = Message::about(Command::GetResources, NO_MINOR, |w| {
            message::put_context(w, &resource, None, None);
            view.opts.put(w, Audience::Everybody);
            message::put_resource_info(w, &info);
            message::put_resource_statistics(w, &view);
        });
        if !put(out, message)? {
            return Ok(());
        }
        cursor.next_resource();
    }
    Ok(())
}

/// The resource that a dump is restricted to. An unknown one is told of by one message, and
/// `None` is returned.
fn filtered(
    admin: &Admin,
    filter: &Filter<'_>,
    cmd: Command,
    cursor: &mut Cursor<'_>,
    out: &mut DumpOut<'_>,
) -> Result<Option<Option<Arc<Resource>>>> {
    let name = match filter {
        Filter::All | Filter::Nameless => return Ok(Some(None)),
        Filter::Name(name) => name,
    };
    if let Some(resource) = admin.registry.resource(name) {
        return Ok(Some(Some(resource)));
    }
    // It may also have gone since the dump began: then there is nothing more to be said.
    if *cursor.told == 0 {
        put(out, Message::new(cmd, NO_MINOR, ErrCode::ResNotKnown.number(), |_| {}))?;
    }
    *cursor.done = 1;
    Ok(None)
}

/// Tells of all volumes, or those of one resource, by minor.
fn by_minor(
    admin: &Admin,
    only: Option<&Arc<Resource>>,
    cursor: &mut Cursor<'_>,
    out: &mut DumpOut<'_>,
    make: fn(&MinorEntry) -> Option<Result<Message>>,
) -> Result {
    while let Some(entry) = admin.registry.next_minor(Minor(cursor.from())) {
        let wanted = only.is_none_or(|r| Arc::ptr_eq(r, &entry.resource));
        if let Some(message) = Some(&entry).filter(|_| wanted).and_then(make) {
            if !put(out, message)? {
                return Ok(());
            }
            *cursor.told = 1;
        }
        *cursor.volume = u64::from(entry.minor.0).saturating_add(1);
    }
    Ok(())
}

/// A message of GET_DEVICES.
fn device(entry: &MinorEntry) -> Option<Result<Message>> {
    let view = VolumeView::of(entry)?;
    Some(Message::about(Command::GetDevices, entry.minor.0, |w| {
        message::put_context(w, &entry.resource, None, Some(entry.vnr));
        if let Some(disk) = &view.disk {
            disk.conf.put(w, Audience::Everybody);
        }
        message::device_info(view.state).put(w, Audience::Everybody);
        message::put_device_statistics(w, &view);
    }))
}

/// A message of GET_PEER_DEVICES; none without a connection.
fn peer_device(entry: &MinorEntry) -> Option<Result<Message>> {
    let view = VolumeView::of(entry).filter(|v| v.setup.is_some())?;
    Some(Message::about(Command::GetPeerDevices, entry.minor.0, |w| {
        message::put_context(w, &entry.resource, view.setup.as_deref(), Some(entry.vnr));
        message::peer_device_info(view.state).put(w, Audience::Everybody);
        message::put_peer_device_statistics(w, &view);
    }))
}

/// GET_CONNECTIONS.
fn connections(
    admin: &Admin,
    only: Option<Arc<Resource>>,
    who: Audience,
    cursor: &mut Cursor<'_>,
    out: &mut DumpOut<'_>,
) -> Result {
    while let Some(resource) = only.clone().or_else(|| resource_at(admin, cursor)) {
        if let Some(view) = ConnectionView::of(&resource) {
            let (_, info) = announced(&resource);
            let message = Message::about(Command::GetConnections, NO_MINOR, |w| {
                message::put_context(w, &resource, Some(&view.setup), None);
                view.setup.conf.put(w, who);
                info.put(w, Audience::Everybody);
                message::put_connection_statistics(w, Some(&view));
            });
            if !put(out, message)? {
                return Ok(());
            }
        }
        if only.is_some() {
            *cursor.done = 1;
            return Ok(());
        }
        cursor.next_resource();
    }
    Ok(())
}

/// Kinds of objects, in the order in which a resource is told of.
const RESOURCE: u64 = 0;
const CONNECTION: u64 = 1;
const DEVICES: u64 = 2;
const PEER_DEVICES: u64 = 3;

/// An object to be told of, if it is there, and where to go on after it.
struct Step {
    message: Option<Result<Message>>,
    kind: u64,
    volume: u64,
}

/// GET_INITIAL_STATE: everything that is there, then the mark that says so.
fn initial_state(admin: &Admin, cursor: &mut Cursor<'_>, out: &mut DumpOut<'_>) -> Result {
    while let Some(resource) = resource_at(admin, cursor) {
        while *cursor.kind <= PEER_DEVICES {
            let step = existing(&resource, cursor);
            if let Some(message) = step.message {
                if !put_event(out, message)? {
                    return Ok(());
                }
            }
            *cursor.kind = step.kind;
            *cursor.volume = step.volume;
        }
        cursor.next_resource();
    }
    if put_event(out, message::initial_state_done())? {
        *cursor.done = 1;
    }
    Ok(())
}

/// As in the C driver, a resource has its connection from the beginning, configured or not.
fn existing(resource: &Arc<Resource>, cursor: &Cursor<'_>) -> Step {
    let view = ConnectionView::of(resource);
    let (info, connection) = announced(resource);
    let entry = next_volume(resource, cursor.from());
    let exists = |more: bool| notify::EXISTS | if more { notify::CONTINUES } else { 0 };
    let has_volumes = entry.is_some();
    let step = |message, kind, volume| Step { message, kind, volume };
    let following = entry.as_ref().map_or(0, |e| u64::from(e.vnr.0).saturating_add(1));
    let last = entry.as_ref().is_none_or(|e| {
        next_volume(resource, u32::from(e.vnr.0).saturating_add(1)).is_none()
    });
    match *cursor.kind {
        RESOURCE => {
            let nh_type = exists(true);
            let look = ResourceView::of(resource);
            let message = message::resource_state(resource, &info, &look, nh_type);
            step(Some(message), CONNECTION, 0)
        }
        CONNECTION => {
            let nh_type = exists(has_volumes);
            let view = view.as_ref();
            let message = message::connection_state(resource, &connection, view, nh_type);
            step(Some(message), DEVICES, 0)
        }
        DEVICES => match (&entry, entry.as_ref().and_then(VolumeView::of)) {
            (Some(e), Some(v)) => {
                let nh_type = exists(true);
                let info = message::device_info(v.state);
                step(Some(message::device_state(e, &info, &v, nh_type)), DEVICES, following)
            }
            (Some(_), None) => step(None, DEVICES, following),
            (None, _) => step(None, PEER_DEVICES, 0),
        },
        _ => match (&entry, entry.as_ref().and_then(VolumeView::of)) {
            (Some(e), Some(v)) => {
                let info = message::peer_device_info(v.state);
                let message = message::peer_device_state(e, &info, &v, exists(!last));
                step(Some(message), PEER_DEVICES, following)
            }
            (Some(_), None) => step(None, PEER_DEVICES, following),
            (None, _) => step(None, PEER_DEVICES + 1, 0),
        },
    }
}
