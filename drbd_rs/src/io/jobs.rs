// SPDX-License-Identifier: GPL-2.0

//! I/O that the core asked for, executed by the thread that stepped.
//!
//! Each job ends with exactly one `LocalDone`, `MetaDone` or end of a bio. What cannot be submitted
//! is reported as failed through the completion queue, never from here: a job must not step.

use drbd_core::node::{
    AppResult, BufId, Data, Effect, Examine, IoError, IoFlags, IoToken, LocalOp, MetaOp, VolIx,
};
use drbd_core::units::{Sector, SectorRange};
use drbd_kapi::block::bio::{self, Op};
use drbd_kapi::block::pages::PageBuf;
use kernel::prelude::*;
use kernel::sync::Arc;

use crate::errands::Errand;
use crate::objects::app::App;
use crate::objects::backing::Backing;
use crate::objects::resource::{Done, InFlight, Inner, Kind, Resource};

/// Bytes of a metadata block and of a page of the bitmap.
const META_BLOCK: usize = 4096;

/// What the thread that stepped does after the lock was released.
pub(crate) enum Job {
    /// Submit the application's bio to the disk as it is.
    Clone { backing: Arc<Backing>, app: Arc<App>, token: u64 },
    /// Write a copy of the application's data.
    Copy { backing: Arc<Backing>, range: SectorRange, flags: IoFlags, app: Arc<App>, token: u64 },
    /// Put pages into the application's read.
    Fill { app: Arc<App>, buf: PageBuf },
    /// Write pages.
    Write { backing: Arc<Backing>, range: SectorRange, flags: IoFlags, buf: PageBuf, token: u64 },
    /// Read into new pages.
    Fresh { backing: Arc<Backing>, range: SectorRange, flags: IoFlags, token: u64 },
    /// Flush the data device.
    Flush { backing: Arc<Backing>, token: u64 },
    /// Discard or zero out; blocks, so it becomes an errand.
    Wipe { backing: Arc<Backing>, range: SectorRange, op: LocalOp, token: u64 },
    /// Fill a page and write it, or read one.
    Meta { backing: Arc<Backing>, block: MetaBlock, token: u64 },
    /// The I/O cannot be done.
    Fail { token: u64, why: IoError },
    /// Look at the content of pages; takes a while, so it becomes an errand.
    Examine { io: IoToken, buf: Option<(BufId, PageBuf)>, what: Examine },
    /// Tell the application.
    Complete { app: Arc<App>, result: AppResult },
    /// Free pages.
    Free { _buf: PageBuf },
}

/// A block of metadata to be moved.
pub(crate) struct MetaBlock {
    io: IoToken,
    op: MetaOp,
    at: Sector,
    bytes: u32,
    flags: IoFlags,
}

/// kapi's spelling of the core's flags.
pub(crate) fn bio_flags(flags: IoFlags) -> bio::IoFlags {
    bio::IoFlags::NONE
        .with_if(flags.sync, bio::IoFlags::SYNC)
        .with_if(flags.fua, bio::IoFlags::FUA)
        .with_if(flags.preflush, bio::IoFlags::PREFLUSH)
        .with_if(flags.rahead, bio::IoFlags::RAHEAD)
}

/// The core's spelling of a status.
pub(crate) fn io_result(status: bio::Status) -> AppResult {
    if status.is_ok() {
        Ok(())
    } else if status == bio::Status::NOTSUPP {
        Err(IoError::Unsupported)
    } else {
        Err(IoError::Io)
    }
}

impl Inner {
    fn backing(&self, vol: VolIx) -> Option<Arc<Backing>> {
        self.volumes.get(usize::from(vol.0))?.as_ref()?.backing()
    }

    fn app(&self, data: Data) -> Option<Arc<App>> {
        match data {
            Data::App(app) | Data::Copy(app) => self.apps.get(app.0).cloned(),
            Data::None | Data::Buf(_) | Data::Fresh => None,
        }
    }
}

impl Job {
    /// Gathers under the lock what the effect refers to. `None`: nothing is left to do.
    pub(crate) fn prepare(resource: &Arc<Resource>, effect: Effect) -> Option<Job> {
        let mut inner = resource.inner.lock();
        match effect {
            Effect::Local { vol, io, op, range, flags, data } => {
                Some(local(&mut inner, vol, io, op, range, flags, data))
            }
            Effect::Meta { vol, io, op, sector, bytes, flags } => {
                let block = MetaBlock { io, op, at: sector, bytes, flags };
                Some(meta(&mut inner, vol, block))
            }
            Effect::Examine { io, buf, what } => {
                let buf = buf.and_then(|id| Some((id, inner.bufs.take(id.0)?)));
                Some(Job::Examine { io, buf, what })
            }
            Effect::Complete { app, result } => {
                inner.apps.remove(app.0).map(|app| Job::Complete { app, result })
            }
            Effect::Fill { app, buf } => {
                let app = inner.apps.get(app.0).cloned();
                let buf = inner.bufs.remove(buf.0);
                app.zip(buf).map(|(app, buf)| Job::Fill { app, buf })
            }
            Effect::Free(buf) => inner.bufs.remove(buf.0).map(|_buf| Job::Free { _buf }),
            // `StepHost::emit` put only the six above into the batch.
            Effect::Send { .. }
            | Effect::StartReceiver { .. }
            | Effect::CloseSockets { .. }
            | Effect::SetReadOnly { .. }
            | Effect::SetCapacity { .. }
            | Effect::UpdateLimits { .. }
            | Effect::Uevent { .. }
            | Effect::DropBacking { .. }
            | Effect::Helper { .. }
            | Effect::AdminDone { .. }
            | Effect::StateChanged { .. }
            | Effect::SyncProgress { .. }
            | Effect::SyncPosted { .. }
            | Effect::Log { .. } => None,
        }
    }
}

/// Enters an I/O into the table; its index is the token for kapi.
fn enter(inner: &mut Inner, io: IoToken, kind: Kind, data: Data) -> u64 {
    let buf = match data {
        Data::Buf(buf) => Some(buf),
        Data::None | Data::App(_) | Data::Copy(_) | Data::Fresh => None,
    };
    // `Inner::reserve` made room for every effect of the step.
    match inner.in_flight.insert(InFlight { io, buf, kind }) {
        Ok(ix) => u64::from(ix),
        Err(_) => u64::MAX,
    }
}

fn local(
    inner: &mut Inner,
    vol: VolIx,
    io: IoToken,
    op: LocalOp,
    range: SectorRange,
    flags: IoFlags,
    data: Data,
) -> Job {
    let kind = match (op, data) {
        (_, Data::Fresh) | (LocalOp::Read, Data::Copy(_)) => Kind::Fresh,
        (_, Data::None | Data::App(_) | Data::Buf(_) | Data::Copy(_)) => Kind::Local,
    };
    let token = enter(inner, io, kind, data);
    let Some(backing) = inner.backing(vol) else {
        return Job::Fail { token, why: IoError::Io };
    };
    match (op, data) {
        (LocalOp::Flush, _) => Job::Flush { backing, token },
        (LocalOp::Discard | LocalOp::ZeroOut { .. }, _) => Job::Wipe { backing, range, op, token },
        (LocalOp::Read | LocalOp::Write, Data::App(_)) => match inner.app(data) {
            Some(app) => Job::Clone { backing, app, token },
            None => Job::Fail { token, why: IoError::Io },
        },
        (LocalOp::Read, Data::Fresh | Data::Copy(_)) => Job::Fresh { backing, range, flags, token },
        (LocalOp::Write, Data::Copy(_)) => match inner.app(data) {
            Some(app) => Job::Copy { backing, range, flags, app, token },
            None => Job::Fail { token, why: IoError::Io },
        },
        (LocalOp::Write, Data::Buf(buf)) => match inner.bufs.take(buf.0) {
            Some(buf) => Job::Write { backing, range, flags, buf, token },
            None => Job::Fail { token, why: IoError::Io },
        },
        (LocalOp::Read, Data::None | Data::Buf(_)) | (LocalOp::Write, Data::None | Data::Fresh) => {
            Job::Fail { token, why: IoError::Unsupported }
        }
    }
}

fn meta(inner: &mut Inner, vol: VolIx, block: MetaBlock) -> Job {
    let read = match block.op {
        MetaOp::ReadBitmap { .. } => true,
        MetaOp::WriteSuperblock
        | MetaOp::EraseSuperblock
        | MetaOp::WriteAl
        | MetaOp::WriteBitmap { .. } => false,
    };
    let token = enter(inner, block.io, Kind::Meta { read }, Data::None);
    match inner.backing(vol) {
        Some(backing) => Job::Meta { backing, block, token },
        None => Job::Fail { token, why: IoError::Io },
    }
}

/// Does the job. May sleep; must not hold the lock.
pub(crate) fn run(resource: &Arc<Resource>, job: Job) {
    match job {
        Job::Clone { backing, app, token } => match app.bio() {
            Some(bio) => backing.data().submit_clone(bio, bio::IoFlags::NONE, token),
            None => fail(resource, token, IoError::Io),
        },
        Job::Copy { backing, range, flags, app, token } => match copy(&app) {
            Ok(buf) => {
                let flags = bio_flags(flags);
                backing.data().submit(Op::Write, flags, range.start.0, buf, token);
            }
            Err(_) => fail(resource, token, IoError::NoMemory),
        },
        Job::Fill { app, buf } => {
            // Both have the size of the request.
            let filled = app.bio().map(|bio| bio.copy_from_pages(0, &buf));
            debug_assert!(filled.is_none_or(|f| f.is_ok()));
        }
        Job::Write { backing, range, flags, buf, token } => {
            backing.data().submit(Op::Write, bio_flags(flags), range.start.0, buf, token);
        }
        Job::Fresh { backing, range, flags, token } => {
            match usize::try_from(range.bytes()).map_err(|_| EINVAL).and_then(PageBuf::new) {
                Ok(buf) => {
                    let flags = bio_flags(flags);
                    backing.data().submit(Op::Read, flags, range.start.0, buf, token);
                }
                Err(_) => fail(resource, token, IoError::NoMemory),
            }
        }
        Job::Flush { backing, token } => backing.data().submit_flush(token),
        Job::Wipe { backing, range, op, token } => {
            resource.errands.push(Errand::Wipe { backing, range, op, token });
        }
        Job::Meta { backing, block, token } => {
            if let Err(why) = run_meta(resource, &backing, block, token) {
                fail(resource, token, why);
            }
        }
        Job::Examine { io, buf, what } => {
            resource.examiner.push(Errand::Examine { io, buf, what });
        }
        Job::Fail { token, why } => fail(resource, token, why),
        Job::Complete { app, result } => app.decide(result),
        Job::Free { _buf } => {}
    }
}

/// A copy of what an application writes.
fn copy(app: &App) -> Result<PageBuf> {
    let bio = app.bio().ok_or(EINVAL)?;
    let mut buf = PageBuf::new(usize::try_from(bio.size()).map_err(|_| EINVAL)?)?;
    bio.copy_to_pages(&mut buf)?;
    Ok(buf)
}

fn run_meta(
    resource: &Arc<Resource>,
    backing: &Backing,
    block: MetaBlock,
    token: u64,
) -> Result<(), IoError> {
    let mut page = PageBuf::new_zeroed(META_BLOCK).map_err(|_| IoError::NoMemory)?;
    let op = match block.op {
        MetaOp::ReadBitmap { .. } => Op::Read,
        MetaOp::WriteSuperblock
        | MetaOp::EraseSuperblock
        | MetaOp::WriteAl
        | MetaOp::WriteBitmap { .. } => {
            let bytes = page.chunks_mut().next().ok_or(IoError::NoMemory)?;
            let bytes = <&mut [u8; META_BLOCK]>::try_from(bytes).map_err(|_| IoError::NoMemory)?;
            resource.inner.lock().machine.fill_page(block.io, bytes);
            Op::Write
        }
    };
    let bytes = usize::try_from(block.bytes).map_err(|_| IoError::Io)?;
    page.set_len(bytes.min(META_BLOCK)).map_err(|_| IoError::Io)?;
    let flags = bio_flags(block.flags) | bio::IoFlags::META | bio::IoFlags::PRIO;
    backing.meta().submit(op, flags, block.at.0, page, token);
    Ok(())
}

/// Reports an I/O that was never submitted.
pub(crate) fn fail(resource: &Resource, token: u64, why: IoError) {
    let done = Done { token, result: Err(why), buf: None };
    if resource.completions.queue.push(done).is_err() {
        // The queue holds more than the core can have in flight.
        kernel::pr_warn_once!("the completion queue overflowed; please report this\n");
    }
}
