// SPDX-License-Identifier: GPL-2.0

//! Values of attributes: numbers, flags, strings and blobs of bounded size.

use super::attr::Writer;
use super::schema::Kind;

macro_rules! bounded {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<const N: usize> {
            bytes: [u8; N],
            len: u16,
        }

        impl<const N: usize> $name<N> {
            /// No bytes.
            pub const EMPTY: Self = Self { bytes: [0; N], len: 0 };

            fn copied(bytes: &[u8]) -> Option<Self> {
                let len = u16::try_from(bytes.len()).ok()?;
                let mut v = Self { bytes: [0; N], len };
                for (to, from) in v.bytes.get_mut(..bytes.len())?.iter_mut().zip(bytes) {
                    *to = *from;
                }
                Some(v)
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
            }

            /// Whether there are none.
            pub const fn is_empty(&self) -> bool {
                self.len == 0
            }
        }

        impl<const N: usize> Default for $name<N> {
            fn default() -> Self {
                Self::EMPTY
            }
        }
    };
}

bounded! {
    /// A string that takes at most `N` bytes with its NUL. It contains no NUL.
    Str
}

bounded! {
    /// At most `N` bytes.
    Bin
}

impl<const N: usize> Str<N> {
    /// The string; `None` if it contains a NUL or is longer than `N - 1` bytes.
    pub fn new(text: &[u8]) -> Option<Self> {
        if text.len() >= N || text.contains(&0) {
            return None;
        }
        Self::copied(text)
    }

    /// The string as text; `None` if it is none.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }
}

impl<const N: usize> Bin<N> {
    /// The bytes; `None` if they are more than `N`.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        Self::copied(bytes)
    }
}

impl<const N: usize> core::fmt::Debug for Str<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.as_str() {
            Some(s) => write!(f, "{s:?}"),
            None => write!(f, "{:?}", self.as_bytes()),
        }
    }
}

impl<const N: usize> core::fmt::Debug for Bin<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// What the fields of groups can be.
pub(super) trait Value: Copy {
    /// Its kind in the schema.
    const KIND: Kind;
    /// The value of a number in the schema; strings and blobs are empty.
    fn of(number: i64) -> Self;
    /// Reads a payload. As in the kernel, a number may have more bytes than it needs.
    fn read(payload: &[u8]) -> Option<Self>;
    /// Appends the attribute.
    fn write(&self, w: &mut Writer<'_>, nr: u16);
    /// The nearest value within the limits.
    fn clamp_to(self, min: i64, max: i64) -> Self;
}

macro_rules! number {
    ($t:ty, $kind:ident, $put:expr) => {
        impl Value for $t {
            const KIND: Kind = Kind::$kind;
            fn of(number: i64) -> Self {
                <$t>::try_from(number).unwrap_or(<$t>::MAX)
            }
            fn read(payload: &[u8]) -> Option<Self> {
                payload.first_chunk().map(|b| <$t>::from_ne_bytes(*b))
            }
            fn write(&self, w: &mut Writer<'_>, nr: u16) {
                let put: fn(&mut Writer<'_>, u16, $t) = $put;
                put(w, nr, *self);
            }
            fn clamp_to(self, min: i64, max: i64) -> Self {
                self.max(Self::of(min)).min(Self::of(max))
            }
        }
    };
}

number!(u32, U32, |w, nr, v| w.put_u32(nr, v));
number!(u64, U64, |w, nr, v| w.put_u64(nr, v));
number!(i32, S32, |w, nr, v| w.put(nr, &v.to_ne_bytes()));

impl Value for bool {
    const KIND: Kind = Kind::Flag;
    fn of(number: i64) -> Self {
        number != 0
    }
    fn read(payload: &[u8]) -> Option<Self> {
        payload.first().map(|&b| b != 0)
    }
    fn write(&self, w: &mut Writer<'_>, nr: u16) {
        w.put_u8(nr, u8::from(*self));
    }
    fn clamp_to(self, _min: i64, _max: i64) -> Self {
        self
    }
}

impl<const N: usize> Value for Str<N> {
    const KIND: Kind = Kind::Str(N);
    fn of(_number: i64) -> Self {
        Self::EMPTY
    }
    fn read(payload: &[u8]) -> Option<Self> {
        let end = payload.iter().position(|&b| b == 0)?;
        Self::new(payload.get(..end)?)
    }
    fn write(&self, w: &mut Writer<'_>, nr: u16) {
        w.put_str(nr, self.as_bytes());
    }
    fn clamp_to(self, _min: i64, _max: i64) -> Self {
        self
    }
}

impl<const N: usize> Value for Bin<N> {
    const KIND: Kind = Kind::Bin(N);
    fn of(_number: i64) -> Self {
        Self::EMPTY
    }
    fn read(payload: &[u8]) -> Option<Self> {
        Self::new(payload)
    }
    fn write(&self, w: &mut Writer<'_>, nr: u16) {
        w.put(nr, self.as_bytes());
    }
    fn clamp_to(self, _min: i64, _max: i64) -> Self {
        self
    }
}

/// An attribute that may be absent.
impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    fn of(_number: i64) -> Self {
        None
    }
    fn read(payload: &[u8]) -> Option<Self> {
        T::read(payload).map(Some)
    }
    fn write(&self, w: &mut Writer<'_>, nr: u16) {
        if let Some(v) = self {
            v.write(w, nr);
        }
    }
    fn clamp_to(self, min: i64, max: i64) -> Self {
        self.map(|v| v.clamp_to(min, max))
    }
}
