// SPDX-License-Identifier: GPL-2.0

//! Where applications enter: bios, open and release of `/dev/drbd<minor>`.

use drbd_core::node::{AppId, AppIo, AppOp, Input, IoFlags, VolIx};
use drbd_core::units::{Sector, SectorRange};
use drbd_kapi::block::bio::{self, Bio, Op, Status};
use drbd_kapi::block::disk::BioOperations;
use drbd_kapi::mem::NoIoScope;
use drbd_kapi::wait::Wait;
use kernel::prelude::*;
use kernel::sync::{Arc, ArcBorrow};

use crate::errno;
use crate::objects::app::App;
use crate::objects::resource::Resource;

/// What the block layer knows of a volume.
pub(crate) struct Device {
    /// Its resource.
    pub(crate) resource: Arc<Resource>,
    /// Its index there.
    pub(crate) ix: VolIx,
}

/// The core's words for a bio; `None` for operations that a DRBD device does not have.
fn describe(bio: &Bio, app: AppId) -> Option<AppIo> {
    let flags = bio.flags();
    let op = match bio.op() {
        Op::Read => AppOp::Read,
        Op::Write if bio.size() == 0 => AppOp::Flush,
        Op::Write => AppOp::Write,
        Op::Flush => AppOp::Flush,
        Op::Discard | Op::SecureErase => AppOp::Discard,
        Op::WriteZeroes => AppOp::WriteZeroes { unmap: !flags.contains(bio::IoFlags::NOUNMAP) },
        Op::Other => return None,
    };
    Some(AppIo {
        app,
        op,
        range: SectorRange::new(Sector(bio.sector()), bio.size()),
        flags: IoFlags {
            sync: flags.contains(bio::IoFlags::SYNC),
            fua: flags.contains(bio::IoFlags::FUA),
            preflush: flags.contains(bio::IoFlags::PREFLUSH),
            rahead: flags.contains(bio::IoFlags::RAHEAD),
        },
    })
}

impl Device {
    /// Enters the I/O into the table once the core has room for it, or gives it back.
    ///
    /// The wait is bounded by the I/O in flight, which does not depend on this thread: nothing was
    /// submitted on behalf of this bio yet.
    fn admit(&self, app: Arc<App>) -> Result<AppId, Arc<App>> {
        let mut waiting = Some(app);
        let mut admitted = None;
        let _ = self.resource.changed.wait_until(Wait::Idle, None, || {
            let mut inner = self.resource.inner.lock();
            if !inner.machine.can_submit() || inner.apps.reserve(1).is_err() {
                return false;
            }
            if let Some(app) = waiting.take() {
                match inner.apps.insert(app) {
                    Ok(ix) => admitted = Some(AppId(ix)),
                    Err(app) => waiting = Some(app),
                }
            }
            admitted.is_some()
        });
        match (admitted, waiting) {
            (Some(app), _) => Ok(app),
            (None, Some(app)) => Err(app),
            // One of the two holds: `waiting` is only taken to become `admitted`.
            (None, None) => Ok(AppId(u32::MAX)),
        }
    }
}

impl BioOperations for Device {
    fn submit_bio(this: ArcBorrow<'_, Self>, bio: Bio) {
        let _noio = NoIoScope::enter();
        let Some(bio) = bio.split_to_limits() else { return };
        let Some(mut io) = describe(&bio, AppId(u32::MAX)) else {
            return bio.end(Status::NOTSUPP);
        };
        let Ok(app) = App::new(bio) else { return };
        match this.admit(app) {
            Ok(app) => {
                io.app = app;
                this.resource.step(Input::Submit { vol: this.ix, io });
            }
            Err(app) => drop(app),
        }
    }

    fn open(this: ArcBorrow<'_, Self>, write: bool) -> Result {
        let resource: Arc<Resource> = this.resource.clone();
        let mut verdict = Ok(());
        // One hold of the lock: no change of role may slip in between question and count.
        resource.drive(|machine, host| {
            verdict = machine.may_open(this.ix, write);
            if verdict.is_ok() {
                let _ = machine.step(Input::Opened { vol: this.ix, open: true }, host);
            }
        });
        verdict.map_err(errno::open)
    }

    fn release(this: ArcBorrow<'_, Self>) {
        this.resource.step(Input::Opened { vol: this.ix, open: false });
    }
}
