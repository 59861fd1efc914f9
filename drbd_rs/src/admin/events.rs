// SPDX-License-Identifier: GPL-2.0

//! What listeners are told: state changes, objects that come and go, calls of helpers.
//!
//! Two languages at once: EVENT (`drbdsetup events` of 8.4, `wait-connect`, `wait-sync`) carries
//! the whole status of a volume; RESOURCE_STATE and its kin (`events2`) carry what changed, object
//! by object. Each has its own sequence of numbers, which both begin with 3.
//!
//! What is sent about states comes from the core's effects, in their order, so that no change is
//! lost or told twice; only counters are taken from a later look at the machine.

use core::sync::atomic::{AtomicU32, Ordering};

use drbd_core::nl::info::{notify, ConnectionInfo, ResourceInfo};
use drbd_core::nl::{Audience, Command};
use drbd_core::node::VolIx;
use drbd_core::state::{conn, Role, State};
use drbd_kapi::genl::Family;
use drbd_kapi::mem;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

use super::message::{self, Message, Sib};
use super::view::{ConnectionView, ResourceView, VolumeView};
use super::Admin;
use crate::objects::registry::MinorEntry;
use crate::objects::resource::Resource;

/// The index of the multicast group "events".
const GROUP: u32 = 0;

/// The way to all listeners. Shared by all resources.
#[pin_data]
pub(crate) struct Events {
    /// `None` before the family is registered, and at the module's end.
    #[pin]
    family: Mutex<Option<Arc<Family<Admin>>>>,
    event_seq: AtomicU32,
    notify_seq: AtomicU32,
}

impl Events {
    /// A way that leads nowhere yet.
    pub(super) fn new() -> Result<Arc<Events>> {
        Arc::pin_init(
            pin_init!(Events {
                family <- new_mutex!(None, "drbd_rs::Events"),
                event_seq: AtomicU32::new(2),
                notify_seq: AtomicU32::new(2),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn connect(&self, family: Arc<Family<Admin>>) {
        *self.family.lock() = Some(family);
    }

    pub(super) fn disconnect(&self) {
        let family = self.family.lock().take();
        drop(family);
    }

    fn send(&self, message: Result<Message>, seq: u32) -> Result {
        let message = message?;
        // Sent under the lock, so that nobody uses the family once `disconnect` has returned.
        let family = self.family.lock();
        let Some(family) = &*family else { return Ok(()) };
        let cmd = message.cmd.number();
        match family.multicast(cmd, seq, &message.header, message.attrs(), GROUP) {
            // Nobody listens.
            Err(e) if e == ESRCH => Ok(()),
            other => other,
        }
    }
}

/// The number behind the last one given out.
fn next(seq: &AtomicU32) -> u32 {
    seq.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

fn complain(resource: &Resource, result: Result, seq: u32) {
    if let Err(e) = result {
        pr_err!(
            "drbd {}: Error {} while broadcasting event. Event seq:{}\n",
            resource.label(),
            e.to_errno(),
            seq
        );
    }
}

/// What listeners know about a resource. Held while they are told, so that messages are in order.
///
/// Its lock comes before `Resource::inner` and before the one of [`Events`].
pub(crate) struct Announced {
    /// They know of the connection.
    connected: bool,
    volumes: KVec<(VolIx, State)>,
    resource: ResourceInfo,
    connection: ConnectionInfo,
}

impl Announced {
    /// Of a new resource.
    pub(crate) fn new() -> Announced {
        Announced {
            connected: false,
            volumes: KVec::new(),
            resource: ResourceInfo {
                res_role: u32::from(Role::Secondary.number()),
                ..ResourceInfo::default()
            },
            connection: ConnectionInfo::default(),
        }
    }

    fn put(&mut self, vol: VolIx, state: State) {
        match self.volumes.iter_mut().find(|(v, _)| *v == vol) {
            Some((_, known)) => *known = state,
            // Without memory, roles are put together without this volume: see `recount`.
            None => drop(mem::push(&mut self.volumes, (vol, state), GFP_KERNEL)),
        }
    }

    fn forget(&mut self, vol: VolIx) {
        if let Some(at) = self.volumes.iter().position(|(v, _)| *v == vol) {
            let _ = self.volumes.remove(at);
        }
    }

    /// Puts the resource's and the connection's parts together. `latest`: whose flags and
    /// connection state they share.
    fn recount(&mut self, latest: State) {
        let all = || self.volumes.iter().map(|(_, s)| *s);
        let role = all().map(|s| s.role).fold(highest(Role::Secondary, latest.role), highest);
        let peer = all().map(|s| s.peer).fold(latest.peer, highest);
        let cstate = latest.conn.min(conn::State::WFReportParams);
        self.resource = ResourceInfo {
            res_role: u32::from(role.number()),
            res_susp: latest.susp,
            res_susp_nod: latest.susp_nod,
            res_susp_fen: latest.susp_fen,
        };
        self.connection = ConnectionInfo {
            conn_connection_state: u32::from(cstate.number()),
            conn_role: u32::from(peer.number()),
        };
    }

    /// Whether all volumes have seen the end of the connection.
    fn is_disconnected(&self) -> bool {
        self.volumes.iter().all(|(_, s)| s.conn == conn::State::StandAlone)
    }
}

/// Primary before Secondary before Unknown.
fn highest(a: Role, b: Role) -> Role {
    match (a, b) {
        (Role::Primary, _) | (_, Role::Primary) => Role::Primary,
        (Role::Secondary, _) | (_, Role::Secondary) => Role::Secondary,
        (Role::Unknown, Role::Unknown) => Role::Unknown,
    }
}

/// The driver's names of a volume that is not being removed.
pub(super) fn entry(resource: &Arc<Resource>, vol: VolIx) -> Option<MinorEntry> {
    let volume = resource.volume(vol)?;
    Some(MinorEntry { minor: volume.minor, vnr: volume.vnr, resource: resource.clone(), volume })
}

/// The volume of `resource` with the least number that is at least `from`.
pub(super) fn next_volume(resource: &Arc<Resource>, from: u32) -> Option<MinorEntry> {
    let volume = {
        let inner = resource.inner.lock();
        let all = inner.volumes.iter().flatten().filter(|v| u32::from(v.vnr.0) >= from);
        all.min_by_key(|v| v.vnr.0).cloned()
    }?;
    Some(MinorEntry { minor: volume.minor, vnr: volume.vnr, resource: resource.clone(), volume })
}

impl Resource {
    fn notify(&self, message: Result<Message>) {
        let seq = next(&self.events.notify_seq);
        complain(self, self.events.send(message, seq), seq);
    }

    fn tell_status(&self, entry: &MinorEntry, why: Sib<'_>) {
        let seq = next(&self.events.event_seq);
        let message = VolumeView::of(entry).ok_or(ENODEV).and_then(|view| {
            Message::about(Command::Event, entry.minor.0, |w| {
                message::put_status(w, entry, &view, Audience::Everybody, why);
            })
        });
        match message {
            // It is being removed.
            Err(e) if e == ENODEV => {}
            other => complain(self, self.events.send(other, seq), seq),
        }
    }
}

/// What an object is to listeners.
#[derive(Clone, Copy)]
enum Object {
    Resource,
    Connection,
    Device,
    PeerDevice,
}

/// A volume (or, without volumes, the connection) has changed its state.
pub(crate) fn state_changed(
    resource: &Arc<Resource>,
    vol: Option<VolIx>,
    old: State,
    new: State,
) {
    let entry = vol.and_then(|v| entry(resource, v));
    {
        let mut announced = resource.announced.lock();
        if !announced.connected && new.conn > conn::State::StandAlone {
            connection_created(resource, &mut announced);
        }
        let before = (announced.resource, announced.connection);
        if let Some(vol) = vol {
            announced.put(vol, new);
        }
        announced.recount(new);
        let peer_device = message::peer_device_info(old) != message::peer_device_info(new);
        let has_entry = entry.is_some();
        let changes = [
            (Object::Resource, before.0 != announced.resource),
            (Object::Connection, before.1 != announced.connection),
            (Object::Device, has_entry && old.disk != new.disk),
            (Object::PeerDevice, has_entry && peer_device),
        ];
        let mut left = changes.iter().filter(|(_, changed)| *changed).count();
        for (object, _) in changes.into_iter().filter(|(_, changed)| *changed) {
            left = left.saturating_sub(1);
            let nh_type = notify::CHANGE | continues(left > 0);
            tell(resource, &announced, object, entry.as_ref(), new, nh_type);
        }
    }
    if let Some(entry) = &entry {
        resource.tell_status(entry, Sib::Change { old, new });
    }
    if old.conn == conn::State::Disconnecting && new.conn == conn::State::StandAlone {
        connection_ended(resource);
    }
}

const fn continues(more: bool) -> u32 {
    if more {
        notify::CONTINUES
    } else {
        0
    }
}

fn tell(
    resource: &Arc<Resource>,
    announced: &Announced,
    object: Object,
    entry: Option<&MinorEntry>,
    state: State,
    nh_type: u32,
) {
    let message = match object {
        Object::Resource => {
            let view = ResourceView::of(resource);
            Some(message::resource_state(resource, &announced.resource, &view, nh_type))
        }
        Object::Connection => ConnectionView::of(resource)
            .map(|v| message::connection_state(resource, &announced.connection, Some(&v), nh_type)),
        Object::Device => entry.and_then(|e| {
            let view = VolumeView::of(e)?;
            Some(message::device_state(e, &message::device_info(state), &view, nh_type))
        }),
        Object::PeerDevice => entry.and_then(|e| {
            let view = VolumeView::of(e).filter(|v| v.setup.is_some())?;
            Some(message::peer_device_state(e, &message::peer_device_info(state), &view, nh_type))
        }),
    };
    // `None`: without a connection there is nothing to be said about it.
    if let Some(message) = message {
        resource.notify(message);
    }
}

/// Once all volumes have left it, the connection is gone, and so is its configuration.
fn connection_ended(resource: &Arc<Resource>) {
    let mut announced = resource.announced.lock();
    if announced.is_disconnected() {
        drop_connection(resource, &mut announced);
    }
}

/// Makes sure that the connection is gone: `disconnect` has succeeded.
pub(super) fn connection_gone(resource: &Arc<Resource>) {
    let mut announced = resource.announced.lock();
    drop_connection(resource, &mut announced);
}

fn drop_connection(resource: &Arc<Resource>, announced: &mut Announced) {
    if announced.connected {
        let mut from = 0;
        while let Some(e) = next_volume(resource, from) {
            let nh_type = notify::DESTROY | notify::CONTINUES;
            tell(resource, announced, Object::PeerDevice, Some(&e), State::INITIAL, nh_type);
            from = u32::from(e.vnr.0).saturating_add(1);
        }
        tell(resource, announced, Object::Connection, None, State::INITIAL, notify::DESTROY);
        announced.connected = false;
    }
    resource.inner.lock().setup = None;
}

/// A resync goes on.
pub(crate) fn sync_progress(resource: &Arc<Resource>, vol: VolIx) {
    if let Some(entry) = entry(resource, vol) {
        resource.tell_status(&entry, Sib::Progress);
    }
}

/// A helper is about to be called.
pub(crate) fn helper_call(resource: &Arc<Resource>, vol: Option<VolIx>, name: &str) {
    let entry = vol.and_then(|v| entry(resource, v));
    if let Some(entry) = &entry {
        resource.tell_status(entry, Sib::HelperPre(name));
    }
    tell_helper(resource, entry.as_ref(), name, None);
}

/// A helper has returned.
pub(crate) fn helper_response(
    resource: &Arc<Resource>,
    vol: Option<VolIx>,
    name: &str,
    code: u8,
) {
    let entry = vol.and_then(|v| entry(resource, v));
    if let Some(entry) = &entry {
        resource.tell_status(entry, Sib::HelperPost(name, code));
    }
    tell_helper(resource, entry.as_ref(), name, Some(code));
}

fn tell_helper(
    resource: &Arc<Resource>,
    entry: Option<&MinorEntry>,
    name: &str,
    status: Option<u8>,
) {
    let setup = resource.inner.lock().setup.clone();
    let _ordered = resource.announced.lock();
    resource.notify(message::helper(resource, setup.as_deref(), entry, name, status));
}

/// There is a new resource.
pub(super) fn resource_created(resource: &Arc<Resource>) {
    let announced = resource.announced.lock();
    tell(resource, &announced, Object::Resource, None, State::INITIAL, notify::CREATE);
}

/// A resource is going.
pub(super) fn resource_destroyed(resource: &Arc<Resource>) {
    let announced = resource.announced.lock();
    tell(resource, &announced, Object::Resource, None, State::INITIAL, notify::DESTROY);
}

/// There is a new volume.
pub(super) fn volume_created(entry: &MinorEntry) {
    let resource = &entry.resource;
    let mut announced = resource.announced.lock();
    let state = VolumeView::of(entry).map_or(State::INITIAL, |v| v.state);
    announced.put(entry.ix(), state);
    let peers = ConnectionView::of(resource).is_some();
    let nh_type = notify::CREATE | continues(peers);
    tell(resource, &announced, Object::Device, Some(entry), state, nh_type);
    if peers {
        tell(resource, &announced, Object::PeerDevice, Some(entry), state, notify::CREATE);
    }
}

/// A volume is going; it can still be looked at.
pub(super) fn volume_destroyed(entry: &MinorEntry, view: &VolumeView) {
    let resource = &entry.resource;
    let mut announced = resource.announced.lock();
    announced.forget(entry.ix());
    if view.setup.is_some() {
        let nh_type = notify::DESTROY | notify::CONTINUES;
        let info = message::peer_device_info(view.state);
        resource.notify(message::peer_device_state(entry, &info, view, nh_type));
    }
    let info = message::device_info(view.state);
    resource.notify(message::device_state(entry, &info, view, notify::DESTROY));
}

/// The connection begins to be one: tells of it as it was before.
fn connection_created(resource: &Arc<Resource>, announced: &mut Announced) {
    announced.connected = true;
    let mut volume = next_volume(resource, 0);
    let nh_type = notify::CREATE | continues(volume.is_some());
    tell(resource, announced, Object::Connection, None, State::INITIAL, nh_type);
    while let Some(e) = volume {
        let following = next_volume(resource, u32::from(e.vnr.0).saturating_add(1));
        let known = announced.volumes.iter().find(|(v, _)| *v == e.ix());
        let state = known.map_or(State::INITIAL, |(_, s)| *s);
        let nh_type = notify::CREATE | continues(following.is_some());
        tell(resource, announced, Object::PeerDevice, Some(&e), state, nh_type);
        volume = following;
    }
}

/// The info groups of a resource and its connection, as listeners know them.
pub(super) fn announced(resource: &Resource) -> (ResourceInfo, ConnectionInfo) {
    let announced = resource.announced.lock();
    (announced.resource, announced.connection)
}
