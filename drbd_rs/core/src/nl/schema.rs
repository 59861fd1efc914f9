// SPDX-License-Identifier: GPL-2.0

//! What an attribute group is, and the macro that makes a group's type out of its declaration.
//!
//! A declaration is a table: number, name, type, default, flags and, for options that a user sets,
//! the least and the greatest value. The table is also there as data ([`Group`]) for tools that
//! print or parse options.

use super::{conf, info};

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A byte, 0 or 1.
    Flag,
    /// 32 bits.
    U32,
    /// 32 bits with a sign.
    S32,
    /// 64 bits.
    U64,
    /// A string of at most so many bytes with its NUL.
    Str(usize),
    /// At most so many bytes.
    Bin(usize),
}

/// Flags of [`Field::flags`].
pub mod flag {
    /// Old modules refuse the attribute if they do not know it.
    pub const MANDATORY: u8 = 1;
    /// A new object cannot do without.
    pub const REQUIRED: u8 = 2;
    /// Cannot be changed later.
    pub const INVARIANT: u8 = 4;
    /// Not for everybody's eyes.
    pub const SENSITIVE: u8 = 8;
    /// "Set defaults" resets it.
    pub const DEFAULT: u8 = 16;
}

/// An attribute of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Number in the group.
    pub nr: u16,
    /// Name, as `drbdsetup` spells it, with `_`.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// See [`flag`].
    pub flags: u8,
    /// Value of a new object; 0 for strings.
    pub default: i64,
    /// Least and greatest value, where there are limits.
    pub limits: Option<(i64, i64)>,
}

/// A top-level attribute and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number.
    pub nr: u16,
    /// Name.
    pub name: &'static str,
    /// Attributes in the order of their numbers.
    pub fields: &'static [Field],
}

/// What a group is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For a new object, or for reading a message: what is required must be there.
    New,
    /// To change an object: what is invariant must not be there.
    Change,
}

/// Who gets to see a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Somebody with CAP_SYS_ADMIN.
    Admin,
    /// Everybody: sensitive attributes are empty.
    Everybody,
}

/// Every group, in the order of their numbers.
pub const GROUPS: &[Group] = &[
    info::CfgReply::GROUP,
    conf::CfgContext::GROUP,
    conf::DiskConf::GROUP,
    conf::ResourceOpts::GROUP,
    conf::NetConf::GROUP,
    conf::SetRoleParms::GROUP,
    conf::ResizeParms::GROUP,
    info::StateInfo::GROUP,
    conf::StartOvParms::GROUP,
    conf::NewCUuidParms::GROUP,
    info::TimeoutParms::GROUP,
    conf::DisconnectParms::GROUP,
    conf::DetachParms::GROUP,
    info::ResourceInfo::GROUP,
    info::DeviceInfo::GROUP,
    info::ConnectionInfo::GROUP,
    info::PeerDeviceInfo::GROUP,
    info::ResourceStatistics::GROUP,
    info::DeviceStatistics::GROUP,
    info::ConnectionStatistics::GROUP,
    info::PeerDeviceStatistics::GROUP,
    info::NotificationHeader::GROUP,
    info::Helper::GROUP,
];

macro_rules! limits {
    () => {
        None
    };
    ($min:literal, $max:literal) => {
        Some(($min, $max))
    };
}
pub(super) use limits;

macro_rules! group {
    (
        $(#[$meta:meta])*
        $name:ident = $group:literal $text:literal {
            $( $(#[$fmeta:meta])*
            $nr:literal $field:ident: $t:ty = $def:literal [$($flag:ident)*]
                $($min:literal ..= $max:literal)?; )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $t, )+
        }

        impl $name {
            /// The declaration.
            pub const GROUP: $crate::nl::schema::Group = $crate::nl::schema::Group {
                nr: $group,
                name: $text,
                fields: &[ $( $crate::nl::schema::Field {
                    nr: $nr,
                    name: stringify!($field),
                    kind: <$t as $crate::nl::value::Value>::KIND,
                    flags: 0 $( | $crate::nl::schema::flag::$flag )*,
                    default: $def,
                    limits: $crate::nl::schema::limits!($($min, $max)?),
                }, )+ ],
            };

            /// Reads the group out of a message's attributes; `base` gives what is not there.
            ///
            /// # Errors
            /// Says which attribute is missing, invalid or must not be changed.
            pub fn from_attrs(
                base: Self,
                attrs: &[u8],
                mode: $crate::nl::Mode,
            ) -> Result<Self, $crate::nl::Error> {
                let mut s = base;
                let nested = $crate::nl::Attrs::find(attrs, $group);
                let mut seen = 0u64;
                for a in $crate::nl::Attrs::new(nested.unwrap_or(&[])) {
                    match a.nr {
                        $( $nr => {
                            let Some(v) = $crate::nl::value::Value::read(a.payload) else {
                                return Err($crate::nl::Error::Invalid(stringify!($field)));
                            };
                            s.$field = v;
                        } )+
                        _ => continue,
                    }
                    seen |= 1u64.wrapping_shl(u32::from(a.nr));
                }
                Self::GROUP.check(nested.is_some(), seen, mode)?;
                Ok(s)
            }

            /// Appends the group.
            pub fn put(&self, w: &mut $crate::nl::Writer<'_>, who: $crate::nl::Audience) {
                let nest = w.nest($group);
                $(
                    let sensitive = (0 $( | $crate::nl::schema::flag::$flag )*)
                        & $crate::nl::schema::flag::SENSITIVE != 0;
                    if sensitive && who == $crate::nl::Audience::Everybody {
                        <$t as $crate::nl::value::Value>::of($def).write(w, $nr);
                    } else {
                        self.$field.write(w, $nr);
                    }
                )+
                w.end(nest);
            }

            /// Resets every option that has a default.
            pub fn set_defaults(&mut self) {
                $(
                    if (0 $( | $crate::nl::schema::flag::$flag )*)
                        & $crate::nl::schema::flag::DEFAULT != 0
                    {
                        self.$field = $crate::nl::value::Value::of($def);
                    }
                )+
            }

            /// The same with every option within its limits. `drbdsetup` refuses what is outside;
            /// other programs may not.
            pub fn clamped(self) -> Self {
                #[allow(unused_mut)]
                let mut s = self;
                $( $(
                    s.$field = $crate::nl::value::Value::clamp_to(s.$field, $min, $max);
                )? )+
                s
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $crate::nl::value::Value::of($def), )+ }
            }
        }
    };
}
pub(super) use group;

impl Group {
    /// Judges what came: whether the group was there, and which of its attributes.
    pub(super) fn check(&self, present: bool, seen: u64, mode: Mode) -> Result<(), super::Error> {
        if !present {
            return Err(super::Error::NoGroup(self.name));
        }
        for f in self.fields {
            let here = seen & 1u64.wrapping_shl(u32::from(f.nr)) != 0;
            match mode {
                Mode::New if f.flags & flag::REQUIRED != 0 && !here => {
                    return Err(super::Error::Missing(f.name));
                }
                Mode::Change if f.flags & flag::INVARIANT != 0 && here => {
                    return Err(super::Error::Invariant(f.name));
                }
                Mode::New | Mode::Change => {}
            }
        }
        Ok(())
    }

    /// The attribute of this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}
