// SPDX-License-Identifier: GPL-2.0

//! One macro for enums whose numbers and names compatibility fixes.
//!
//! A number is written once and serves packing, unpacking, names and the compiler's order. Unknown
//! numbers are `None`: such numbers come from peers and disks.

/// Declares an enum with `ALL`, `number`, `from_number`, `name` and `Display`.
macro_rules! numbered_enum {
    (
        $(#[$meta:meta])*
        pub enum $enum:ident: $repr:ty {
            $($(#[$about:meta])* $variant:ident = $number:literal, $name:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum {
            $($(#[$about])* $variant = $number,)+
        }

        impl $enum {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [$enum] = &[$($enum::$variant),+];

            /// The number on the wire, on disk and in netlink messages.
            pub const fn number(self) -> $repr {
                match self {
                    $($enum::$variant => $number,)+
                }
            }

            /// The value of a number; `None` for a number that DRBD 8.4 does not know.
            pub const fn from_number(number: $repr) -> Option<$enum> {
                match number {
                    $($number => Some($enum::$variant),)+
                    _ => None,
                }
            }

            /// The name that `/proc/drbd`, the kernel log and the tools show.
            pub const fn name(self) -> &'static str {
                match self {
                    $($enum::$variant => $name,)+
                }
            }
        }

        impl core::fmt::Display for $enum {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use numbered_enum;
