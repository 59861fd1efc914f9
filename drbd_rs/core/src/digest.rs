// SPDX-License-Identifier: GPL-2.0

//! A digest, as it is compared and sent. Not how it is made: the owner of the machine does that.

/// Bytes of the longest digest that any algorithm of the kernel has.
pub const MAX: usize = 64;

/// A digest of up to [`MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    // Behind `len` there are zeroes, so that comparing all of it is right.
    bytes: [u8; MAX],
    len: u8,
}

impl Digest {
    /// No bytes at all.
    pub const EMPTY: Digest = Digest {
        bytes: [0; MAX],
        len: 0,
    };

    /// A digest of these bytes; `None` if there are none, or more than [`MAX`].
    pub fn new(bytes: &[u8]) -> Option<Digest> {
        let len = u8::try_from(bytes.len()).ok()?;
        if bytes.is_empty() || bytes.len() > MAX {
            return None;
        }
        let mut digest = Digest::EMPTY;
        for (to, from) in digest.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        digest.len = len;
        Some(digest)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// How many bytes.
    pub const fn size(&self) -> u8 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_made_of() {
        for n in 1..=MAX {
            let bytes: Vec<u8> = (1..).take(n).collect();
            let d = Digest::new(&bytes).unwrap();
            assert_eq!((d.as_bytes(), usize::from(d.size())), (&bytes[..], n));
        }
        assert_eq!(Digest::new(&[]), None);
        assert_eq!(Digest::new(&[0; MAX + 1]), None);
        assert_eq!(Digest::EMPTY.as_bytes(), &[0u8; 0]);
    }

    #[test]
    fn length_counts() {
        assert_ne!(Digest::new(&[0]), Digest::new(&[0, 0]));
        assert_eq!(Digest::new(&[1, 2]), Digest::new(&[1, 2]));
        assert_ne!(Digest::new(&[1, 2]), Digest::new(&[1, 3]));
    }
}
