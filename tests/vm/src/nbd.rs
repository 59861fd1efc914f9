// SPDX-License-Identifier: GPL-2.0
//! Serves a [`Disk`] to QEMU by the NBD protocol (fixed newstyle) over a unix socket.
//!
//! Only what QEMU's client needs: one export, whatever it is called; simple replies; flush, FUA,
//! trim and write-zeroes. Requests of a connection are served one after the other, so a flush
//! covers exactly the writes answered before it. The numbers are those of the NBD protocol.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Context, Result};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
/// HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES.
const FLAGS: u16 = 1 | 4 | 8 | 32 | 64;
const CMD_FLAG_FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
/// The longest request QEMU sends is 32 MiB.
const MAX_LENGTH: u32 = 64 << 20;

/// Serves `disk` at the socket `path` from a thread of its own, for as long as the process lives.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(disk: Arc<Disk>, path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path).context(path.display())?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            disk.in_use(true);
            // A node that is killed ends its connection in the middle of anything.
            let _ended = connection(&disk, stream);
            disk.in_use(false);
        }
    });
    Ok(())
}

fn u16_of(r: &mut impl Read) -> io::Result<u16> {
    let mut b = [0; 2];
    r.read_exact(&mut b)?;
    Ok(u16::from_be_bytes(b))
}

fn u32_of(r: &mut impl Read) -> io::Result<u32> {
    let mut b = [0; 4];
    r.read_exact(&mut b)?;
    Ok(u32::from_be_bytes(b))
}

fn u64_of(r: &mut impl Read) -> io::Result<u64> {
    let mut b = [0; 8];
    r.read_exact(&mut b)?;
    Ok(u64::from_be_bytes(b))
}

fn connection(disk: &Disk, mut s: UnixStream) -> io::Result<()> {
    if !handshake(disk, &mut s)? {
        return Ok(());
    }
    let mut buffer = Vec::new();
    while request(disk, &mut s, &mut buffer)? {}
    Ok(())
}

/// True when the client went on to transmission.
fn handshake(disk: &Disk, s: &mut UnixStream) -> io::Result<bool> {
    s.write_all(b"NBDMAGIC")?;
    s.write_all(&OPTION_MAGIC.to_be_bytes())?;
    // FIXED_NEWSTYLE and NO_ZEROES; the client answers with its own choice of the same bits.
    s.write_all(&3_u16.to_be_bytes())?;
    let client = u32_of(s)?;
    loop {
        if u64_of(s)? != OPTION_MAGIC {
            return Ok(false);
        }
        let option = u32_of(s)?;
        let len = u32_of(s)?.min(MAX_LENGTH);
        let mut data = vec![0; len as usize];
        s.read_exact(&mut data)?;
        match option {
            OPT_EXPORT_NAME => {
                s.write_all(&disk.size().to_be_bytes())?;
                s.write_all(&FLAGS.to_be_bytes())?;
                if client & 2 == 0 {
                    s.write_all(&[0; 124])?;
                }
                return Ok(true);
            }
            OPT_GO | OPT_INFO => {
                let mut info = vec![0, 0];
                info.extend_from_slice(&disk.size().to_be_bytes());
                info.extend_from_slice(&FLAGS.to_be_bytes());
                option_reply(s, option, REP_INFO, &info)?;
                option_reply(s, option, REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            OPT_ABORT => {
                option_reply(s, option, REP_ACK, &[])?;
                return Ok(false);
            }
            _ => option_reply(s, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn option_reply(s: &mut UnixStream, option: u32, reply: u32, data: &[u8]) -> io::Result<()> {
    let mut out = Vec::new();
    out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&reply.to_be_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(data);
    s.write_all(&out)
}

/// Serves one request; false when the client says goodbye.
fn request(disk: &Disk, s: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    if u32_of(s)? != REQUEST_MAGIC {
        return Ok(false);
    }
    let flags = u16_of(s)?;
    let command = u16_of(s)?;
    let cookie = u64_of(s)?;
    let offset = u64_of(s)?;
    let len = u32_of(s)?;
    let fua = flags & CMD_FLAG_FUA != 0;
    buffer.clear();
    let result = match command {
        0 if len <= MAX_LENGTH => {
            buffer.resize(len as usize, 0);
            disk.read(offset, buffer)
        }
        1 if len <= MAX_LENGTH => {
            buffer.resize(len as usize, 0);
            s.read_exact(buffer)?;
            disk.write(offset, buffer, fua)
        }
        2 => return Ok(false),
        3 => disk.flush(),
        4 | 6 => disk.zero(offset, u64::from(len), fua),
        _ => {
            reply(s, cookie, EINVAL, &[])?;
            return Ok(command > 1);
        }
    };
    match result {
        Ok(()) if command == 0 => reply(s, cookie, 0, buffer)?,
        Ok(()) => reply(s, cookie, 0, &[])?,
        Err(_) => reply(s, cookie, EIO, &[])?,
    }
    Ok(true)
}

fn reply(s: &mut UnixStream, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let mut head = Vec::with_capacity(16 + data.len());
    head.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    head.extend_from_slice(&error.to_be_bytes());
    head.extend_from_slice(&cookie.to_be_bytes());
    head.extend_from_slice(data);
    s.write_all(&head)
}
