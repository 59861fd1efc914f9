// SPDX-License-Identifier: GPL-2.0

//! Administration: generic netlink as `drbdsetup` speaks it.
//!
//! Requests come in the process of whoever sends them, who waits until the core has decided; those
//! that change a resource come one at a time ([`Held`]). Encoding is the core's
//! (`drbd_core::nl`), as are all decisions about states; here are the objects: resources, volumes
//! and devices come and go.

mod attach;
mod connection;
mod disk;
pub(crate) mod events;
mod message;
mod options;
mod request;
mod resource;
mod role;
mod status;
mod storage;
mod view;
mod volume;

use drbd_core::nl::command::Use;
use drbd_core::nl::{Command, Header, Writer};
use drbd_kapi::block::bdev::Holder;
use drbd_kapi::genl::{
    DumpOut, DumpRequest, Family, FamilySpec, Handler, Op, Request, CURSOR_WORDS,
};
use drbd_kapi::mem::NoIoScope;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::objects::registry::Registry;
use crate::objects::resource::Resource;
use crate::objects::turn::Held;
use events::Events;
use request::{Call, Outcome, Refusal};

/// Bytes of attributes in a reply: a volume's status is the largest.
const REPLY_ROOM: usize = 8192;
/// The highest number of a group.
const MAX_GROUP: u32 = 24;

/// Answers requests.
pub(crate) struct Admin {
    /// What is configured.
    registry: Arc<Registry>,
    /// The way to listeners.
    events: Arc<Events>,
    /// For the owner of new devices.
    module: &'static ThisModule,
    /// Metadata devices may be shared by volumes, but with nobody else.
    meta_holder: Arc<Holder>,
}

/// The way for requests and events, while it is open.
pub(crate) struct Registration {
    admin: Arc<Admin>,
    family: Option<Arc<Family<Admin>>>,
}

impl Registration {
    /// Ends all requests and events: afterwards nothing new is configured any more.
    pub(crate) fn close(&mut self) {
        self.admin.events.disconnect();
        self.family = None;
    }

    /// Who answers.
    pub(crate) fn admin(&self) -> &Admin {
        &self.admin
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.close();
    }
}

const fn op(cmd: Command) -> Option<Op> {
    let (admin, doit, dump) = match cmd.usage() {
        Use::Admin => (true, true, false),
        Use::DoAndDump => (false, true, true),
        Use::Dump => (false, false, true),
        Use::Event => return None,
    };
    Some(Op { cmd: cmd.number(), admin, doit, dump })
}

/// How many commands are requests.
const OPS: usize = {
    let mut n = 0;
    let mut all = Command::ALL;
    while let [first, rest @ ..] = all {
        if op(*first).is_some() {
            n += 1;
        }
        all = rest;
    }
    n
};

const NO_OP: Op = Op { cmd: 0, admin: true, doit: false, dump: false };

/// The requests of the family.
static TABLE: [Op; OPS] = {
    let mut table = [NO_OP; OPS];
    let mut n = 0;
    let mut all = Command::ALL;
    while let [first, rest @ ..] = all {
        if let Some(op) = op(*first) {
            table[n] = op;
            n += 1;
        }
        all = rest;
    }
    table
};

const SPEC: FamilySpec = FamilySpec {
    name: c"drbd",
    version: 1,
    header_len: 8,
    max_attr: MAX_GROUP,
    groups: &[c"events"],
    ops: &TABLE,
    parallel: true,
};

/// Opens the way for requests.
pub(crate) fn register(
    module: &'static ThisModule,
    registry: Arc<Registry>,
) -> Result<Registration> {
    let events = Events::new()?;
    let meta_holder = Holder::new()?;
    let admin = Admin { registry, events, module, meta_holder };
    let admin = Arc::new(admin, GFP_KERNEL)?;
    let family = Family::register(module, &SPEC, admin.clone())?;
    let family = Arc::new(family, GFP_KERNEL)?;
    admin.events.connect(family.clone());
    Ok(Registration { admin, family: Some(family) })
}

/// At the end of the module, after [`Registration::close`]: everything that is left goes.
pub(crate) fn teardown(registry: &Registry, admin: &Admin) {
    let _noio = NoIoScope::enter();
    while let Some(resource) = registry.resource_at(0) {
        if resource::bring_down(admin, &resource).is_err() {
            // Whatever the core says, the threads must not outlive the module's code.
            pr_err!("drbd {}: could not be taken down in order\n", resource.label());
            resource::forget(admin, &resource);
        }
    }
}

impl Admin {
    /// The first resource that `wanted` likes.
    fn find_resource(&self, wanted: impl Fn(&Resource) -> bool) -> Option<Arc<Resource>> {
        let mut n = 0usize;
        loop {
            let resource = self.registry.resource_at(n)?;
            if wanted(&resource) {
                return Some(resource);
            }
            n = n.checked_add(1)?;
        }
    }

    /// Checks what a request names and, if it changes a resource, waits for the turn to do so.
    fn admit<'a>(
        &'a self,
        req: &'a Request<'a>,
        cmd: Command,
        header: Header,
        w: &mut Writer<'_>,
    ) -> Result<(KBox<Call<'a>>, Option<Held>), Refusal> {
        let context = request::read_context(req.attrs(), w)?;
        let mut turn: Option<Held> = None;
        loop {
            let call = Call::new(self, req, cmd, header, &context)?;
            let Some(resource) = call.changes() else { return Ok((call, None)) };
            if turn.as_ref().is_some_and(|t| t.is_of(resource)) {
                return Ok((call, turn));
            }
            // While this waits, what is named may come and go: it is looked up again. ENOENT: it
            // has gone, and that is found then.
            turn = None;
            match Held::take(resource) {
                Ok(held) => turn = Some(held),
                Err(e) if e == ENOENT => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn run(&self, req: &Request<'_>, cmd: Command, w: &mut Writer<'_>) -> Outcome {
        let (header, _) = Header::decode(req.user_header()).ok_or(EINVAL)?;
        let (call, _turn) = self.admit(req, cmd, header, w)?;
        match cmd {
            Command::GetStatus => status::get(&call, w),
            Command::NewResource => resource::create(&call),
            Command::DelResource => resource::delete(&call),
            Command::Down => resource::down(&call),
            Command::ResourceOpts => options::resource(&call),
            Command::NewMinor => volume::create(&call),
            Command::DelMinor => volume::delete(&call),
            Command::Attach => attach::attach(&call),
            Command::Detach => disk::detach(&call),
            Command::ChgDiskOpts => options::disk(&call),
            Command::Resize => disk::resize(&call),
            Command::Invalidate => disk::invalidate(&call),
            Command::InvalPeer => disk::invalidate_peer(&call),
            Command::PauseSync => disk::pause_sync(&call),
            Command::ResumeSync => disk::resume_sync(&call),
            Command::Outdate => disk::outdate(&call),
            Command::NewCUuid => disk::new_current_uuid(&call),
            Command::StartOv => disk::verify(&call),
            Command::Connect => connection::connect(&call),
            Command::Disconnect => connection::disconnect(&call),
            Command::ChgNetOpts => options::net(&call),
            Command::Primary => role::primary(&call),
            Command::Secondary => role::secondary(&call),
            Command::SuspendIo => role::suspend_io(&call),
            Command::ResumeIo => role::resume_io(&call),
            Command::GetTimeoutType => role::timeout_type(&call, w),
            Command::Event
            | Command::GetResources
            | Command::GetDevices
            | Command::GetConnections
            | Command::GetPeerDevices
            | Command::ResourceState
            | Command::DeviceState
            | Command::ConnectionState
            | Command::PeerDeviceState
            | Command::GetInitialState
            | Command::Helper
            | Command::InitialStateDone => Err(EOPNOTSUPP.into()),
        }
    }
}

impl Handler for Admin {
    fn doit(&self, req: &Request<'_>) -> Result {
        // Whoever reclaims memory by writing to one of our devices may need what is locked here.
        let _noio = NoIoScope::enter();
        let cmd = Command::from_number(req.cmd()).ok_or(EOPNOTSUPP)?;
        let (header, _) = Header::decode(req.user_header()).ok_or(EINVAL)?;
        let mut room = KVec::from_elem(0u8, REPLY_ROOM, GFP_KERNEL)?;
        let mut w = Writer::new(&mut room);
        let outcome = self.run(req, cmd, &mut w);
        let (code, len) = request::finish(outcome, w)?;
        let reply = Header::reply(header.minor, code).encode();
        req.reply(&reply, room.get(..len).ok_or(EMSGSIZE)?)
    }

    fn dump(
        &self,
        req: &DumpRequest<'_>,
        cursor: &mut [u64; CURSOR_WORDS],
        out: &mut DumpOut<'_>,
    ) -> Result {
        let _noio = NoIoScope::enter();
        let cmd = Command::from_number(req.cmd()).ok_or(EOPNOTSUPP)?;
        status::dump(self, req, cmd, cursor, out)
    }
}
