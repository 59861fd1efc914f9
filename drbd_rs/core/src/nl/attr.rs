// SPDX-License-Identifier: GPL-2.0

//! Attributes: length, type, payload, padding to 4 bytes.
//!
//! Reading is total and as lenient as the kernel's own parser: what is cut off ends the list. The
//! two highest bits of a type are flags and are masked off; old tools set one of them to say
//! "mandatory".

/// The bits of a type that number it.
const TYPE_MASK: u16 = 0x3fff;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// Bytes of an attribute's header.
const HEADER: usize = 4;

/// Whether the C kernel pads 64-bit numbers to their alignment: only where the processor needs it.
const PAD_U64: bool = !cfg!(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "s390x"
));

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// The number, without flags.
    pub nr: u16,
    /// The payload, without padding.
    pub payload: &'a [u8],
}

/// The attributes in a stretch of bytes.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// The attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Attrs<'a> {
        Attrs(bytes)
    }

    /// The payload of the last attribute with this number: as in the kernel, a later one replaces
    /// an earlier one.
    pub fn find(bytes: &'a [u8], nr: u16) -> Option<&'a [u8]> {
        Attrs(bytes)
            .filter(|a| a.nr == nr)
            .last()
            .map(|a| a.payload)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let (len, rest) = self.0.split_first_chunk::<2>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let payload = rest.get(..len.checked_sub(HEADER)?)?;
        // The padding of the last attribute may be missing.
        self.0 = self.0.get(aligned(len)..).unwrap_or(&[]);
        Some(Attr {
            nr: u16::from_ne_bytes(*kind) & TYPE_MASK,
            payload,
        })
    }
}

/// The next multiple of four.
const fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The start of a nested attribute; give it back to [`Writer::end`].
#[derive(Debug)]
#[must_use]
pub struct Nest {
    at: usize,
}

/// Appends attributes to a caller's buffer. An attribute that does not fit is left out and
/// remembered: look at [`Writer::finish`] before sending.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    overflowed: bool,
}

impl<'a> Writer<'a> {
    /// A writer at the start of `buf`, which follows the header of the family in the message.
    pub fn new(buf: &'a mut [u8]) -> Writer<'a> {
        Writer {
            buf,
            len: 0,
            overflowed: false,
        }
    }

    fn append(&mut self, kind: u16, payload: &[u8]) {
        let Ok(len) = u16::try_from(payload.len().saturating_add(HEADER)) else {
            self.overflowed = true;
            return;
        };
        let end = self.len.saturating_add(aligned(usize::from(len)));
        let room = self.buf.get_mut(self.len..end).unwrap_or(&mut []);
        if room.is_empty() || self.overflowed {
            self.overflowed = true;
            return;
        }
        let head = len.to_ne_bytes().into_iter().chain(kind.to_ne_bytes());
        let bytes = head.chain(payload.iter().copied());
        for (to, from) in room.iter_mut().zip(bytes.chain([0; 3])) {
            *to = from;
        }
        self.len = end;
    }

    /// Appends an attribute.
    pub fn put(&mut self, nr: u16, payload: &[u8]) {
        self.append(nr & TYPE_MASK, payload);
    }

    /// Appends a byte.
    pub fn put_u8(&mut self, nr: u16, v: u8) {
        self.put(nr, &[v]);
    }

    /// Appends a 32-bit number.
    pub fn put_u32(&mut self, nr: u16, v: u32) {
        self.put(nr, &v.to_ne_bytes());
    }

    /// Appends a 64-bit number, aligned where the processor cares. The bytes before this writer's
    /// own (netlink, generic netlink and family header) leave it 4 bytes off a multiple of 8.
    pub fn put_u64(&mut self, nr: u16, v: u64) {
        if PAD_U64 && self.len & 7 == 4 {
            self.put(0, &[]);
        }
        self.put(nr, &v.to_ne_bytes());
    }

    /// Appends a string and its NUL.
    pub fn put_str(&mut self, nr: u16, text: &[u8]) {
        let at = self.len;
        self.append(nr & TYPE_MASK, text);
        let content = at.saturating_add(HEADER).saturating_add(text.len());
        // The padding behind the text may already be the NUL.
        if content >= self.len {
            let end = self.len.saturating_add(4);
            match self.buf.get_mut(self.len..end) {
                Some(more) if !self.overflowed => {
                    more.fill(0);
                    self.len = end;
                }
                Some(_) | None => self.overflowed = true,
            }
        }
        let len = text.len().saturating_add(HEADER).saturating_add(1);
        self.patch_len(at, len);
    }

    fn patch_len(&mut self, at: usize, len: usize) {
        if self.overflowed {
            return;
        }
        let end = at.saturating_add(2);
        match (u16::try_from(len), self.buf.get_mut(at..end)) {
            (Ok(len), Some(to)) => {
                for (to, from) in to.iter_mut().zip(len.to_ne_bytes()) {
                    *to = from;
                }
            }
            (Ok(_), None) | (Err(_), _) => self.overflowed = true,
        }
    }

    /// Begins an attribute that holds attributes.
    pub fn nest(&mut self, nr: u16) -> Nest {
        let at = self.len;
        self.append(nr & TYPE_MASK | NESTED, &[]);
        Nest { at }
    }

    /// Ends it.
    pub fn end(&mut self, nest: Nest) {
        let len = self.len.saturating_sub(nest.at);
        self.patch_len(nest.at, len);
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets what was written behind `len`, an earlier [`Writer::len`], even what did not fit.
    pub fn truncate(&mut self, len: usize) {
        if len <= self.len {
            self.len = len;
            self.overflowed = false;
        }
    }

    /// Bytes written; `None` if something did not fit.
    pub const fn finish(self) -> Option<usize> {
        if self.overflowed {
            None
        } else {
            Some(self.len)
        }
    }
}
