// SPDX-License-Identifier: GPL-2.0

//! Carrying out effects, and what must hold for each of them.

use super::world::{Asked, Local, Look, Meta, Queued, World};
use drbd_core::node::{
    AppId, BufId, Data, Effect, Examine, IoFlags, IoToken, LocalOp, MetaOp, Note, OpId, Payload,
    Sock, VolIx,
};
use drbd_core::units::{Sector, SectorRange};

/// Packets of its own that a node may be asked about.
const REMEMBERED: usize = 24;

impl World {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send {
                sock,
                vnr,
                packet,
                payload,
                token,
                ..
            } => {
                let queued = Queued {
                    vnr,
                    packet,
                    payload,
                    token,
                };
                self.enqueue(sock, queued);
            }
            Effect::Local {
                vol,
                io,
                op,
                range,
                data,
                ..
            } => self.submit_local(vol, io, op, range, data),
            Effect::Meta {
                vol,
                io,
                op,
                sector,
                bytes,
                flags,
            } => self.submit_meta(vol, io, op, sector, bytes, flags),
            Effect::Examine { io, buf, what } => self.look_at(io, buf, what),
            Effect::Complete { app, .. } => {
                let was = self.apps.remove(&app.0);
                assert!(was.is_some(), "{app:?} completed twice");
                self.users.remove(&app.0);
            }
            Effect::Fill { app, buf } => self.fill(app, buf),
            Effect::Free(buf) => self.free(buf),
            Effect::StartReceiver { .. } => {
                assert!(!self.receiver, "a second receiver");
                self.receiver = true;
            }
            Effect::CloseSockets { .. } => {
                assert!(self.receiver, "nobody to close anything");
                if let Some(link) = self.link.as_mut() {
                    link.closing = true;
                }
            }
            Effect::SetCapacity { vol, size } => self.resized(vol, size.0),
            Effect::DropBacking { vol } => self.drop_backing(vol),
            Effect::Helper { id, .. } => {
                assert!(!self.helpers.contains(&id), "{id:?} is running already");
                self.helpers.push(id);
            }
            Effect::AdminDone { op, code, info } => self.answered(op, code, info),
            Effect::Log { note, .. } => assert!(!note.to_string().is_empty(), "{note:?}"),
            Effect::SetReadOnly { .. }
            | Effect::UpdateLimits { .. }
            | Effect::Uevent { .. }
            | Effect::StateChanged { .. }
            | Effect::SyncPosted { .. }
            | Effect::SyncProgress { .. } => {}
        }
    }

    fn fill(&mut self, app: AppId, buf: BufId) {
        let app = self.apps.get(&app.0).map(|a| a.range.bytes());
        assert!(app.is_some(), "{buf:?} for nobody");
        assert_eq!(self.bufs.get(&buf.0).copied(), app, "{buf:?}");
        self.free(buf);
    }

    fn resized(&mut self, vol: VolIx, size: u64) {
        if let Some(known) = self.capacities.get_mut(usize::from(vol.0)) {
            *known = size;
        }
    }

    fn answered(&mut self, op: OpId, code: i32, info: Option<Note>) {
        let was = self.ops.remove(&op.0);
        let deleted = was.unwrap_or_else(|| panic!("{op:?} answered twice"));
        let _ = info.map(|note| note.to_string());
        self.answer = code;
        self.deleted(code, deleted);
    }

    fn enqueue(&mut self, sock: Sock, q: Queued) {
        let ix = match sock {
            Sock::Data => 0,
            Sock::Meta => 1,
        };
        assert!(self.link.is_some(), "sent without a connection: {q:?}");
        // The payload is there when the packet is queued.
        match q.payload {
            Payload::None | Payload::Bitmap { .. } | Payload::Digest(_) => {}
            Payload::App { app, .. } => assert!(self.apps.contains_key(&app.0), "{q:?}"),
            Payload::Buf(buf) => assert!(self.bufs.contains_key(&buf.0), "{q:?}"),
        }
        self.queues[ix].push_back(q);
    }

    fn drop_backing(&mut self, vol: VolIx) {
        let local = self.locals.iter().find(|l| l.vol == vol);
        let meta = self.metas.iter().find(|m| m.vol == vol);
        assert!(
            local.is_none() && meta.is_none(),
            "a disk goes away below {local:?} {meta:?}"
        );
        self.drops.push(vol);
    }

    /// A volume that was deleted is taken at once.
    fn deleted(&mut self, code: i32, vol: Option<VolIx>) {
        const NO_ERROR: i32 = 101;
        let Some(vol) = vol.filter(|_| code == NO_ERROR) else {
            return;
        };
        assert!(self.res.take_volume(vol).is_some(), "{vol:?} stays");
        if let Some(capacity) = self.capacities.get_mut(usize::from(vol.0)) {
            *capacity = 0;
        }
    }

    fn free(&mut self, buf: BufId) {
        let was = self.bufs.remove(&buf.0);
        assert!(was.is_some(), "{buf:?} freed twice");
        let disk = self.locals.iter().find(|l| l.data == Data::Buf(buf));
        assert!(disk.is_none(), "freed below {disk:?}");
        let look = self.looks.iter().find(|l| l.buf == Some(buf));
        assert!(look.is_none(), "freed below {look:?}");
        // Once the connection ends, what is queued is thrown away.
        let closing = self.link.is_none_or(|l| l.closing);
        let waits = |q: &Queued| q.payload == Payload::Buf(buf);
        let queued = self.queues.iter().flatten().any(waits);
        assert!(closing || !queued, "{buf:?} freed before it was sent");
    }

    fn token_is_new(&self, io: IoToken) {
        let local = self.locals.iter().any(|l| l.io == io);
        let meta = self.metas.iter().any(|m| m.io == io);
        let look = self.looks.iter().any(|l| l.io == io);
        assert!(!local && !meta && !look, "{io:?} is under way already");
    }

    fn look_at(&mut self, io: IoToken, buf: Option<BufId>, what: Examine) {
        self.token_is_new(io);
        if let Some(BufId(buf)) = buf {
            assert!(self.bufs.contains_key(&buf), "{buf:?} for {what:?}");
        }
        self.looks.push(Look { io, buf, what });
    }

    fn submit_local(
        &mut self,
        vol: VolIx,
        io: IoToken,
        op: LocalOp,
        range: SectorRange,
        data: Data,
    ) {
        self.token_is_new(io);
        let place = self.places.get(usize::from(vol.0)).copied().flatten();
        let place = place.unwrap_or_else(|| panic!("{op:?} without a disk"));
        assert!(!self.drops.contains(&vol), "{op:?} on a disk that goes");
        let end = range.start.0.checked_add(range.len.0).expect("an end");
        let limit = if place.moves { place.size } else { place.data };
        assert!(end <= limit, "{op:?} {range:?} in {place:?}");
        assert_eq!(range.len.0 == 0, op == LocalOp::Flush, "{op:?} {range:?}");
        let bytes = match data {
            Data::None | Data::Fresh => None,
            Data::App(AppId(app)) | Data::Copy(AppId(app)) => {
                self.apps.get(&app).map(|a| a.range.bytes()).or(Some(0))
            }
            Data::Buf(BufId(buf)) => self.bufs.get(&buf).copied().or(Some(0)),
        };
        match op {
            LocalOp::Read => assert_ne!(data, Data::None, "a read into nowhere"),
            LocalOp::Write => {
                assert_eq!(bytes, Some(range.bytes()), "{range:?} of {data:?}");
            }
            LocalOp::Discard | LocalOp::ZeroOut { .. } | LocalOp::Flush => {}
        }
        let bytes = range.bytes();
        self.locals.push(Local {
            vol,
            io,
            op,
            bytes,
            data,
        });
    }

    fn submit_meta(
        &mut self,
        vol: VolIx,
        io: IoToken,
        op: MetaOp,
        sector: Sector,
        bytes: u32,
        _flags: IoFlags,
    ) {
        self.token_is_new(io);
        let place = self.places.get(usize::from(vol.0)).copied().flatten();
        let place = place.unwrap_or_else(|| panic!("{op:?} without a disk"));
        assert!(!self.drops.contains(&vol), "{op:?} on a disk that goes");
        let end = sector.0 + u64::from(bytes / 512);
        let (first, limit) = match place.moves {
            false => (place.data, place.end),
            true => (0, place.size),
        };
        assert!(
            sector.0 >= first && end <= limit && (512..=4096).contains(&bytes),
            "{op:?} at {sector:?}, {bytes} bytes, in {place:?}"
        );
        let mut page = [0x5a; 4096];
        if !matches!(op, MetaOp::ReadBitmap { .. }) {
            self.res.fill_page(io, &mut page);
        }
        self.metas.push(Meta { vol, io, op });
    }

    /// Remembers a packet that the peer may refer to.
    pub(super) fn remember(&mut self, asked: Asked) {
        if self.asked.len() == REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back(asked);
    }
}
