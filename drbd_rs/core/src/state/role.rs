// SPDX-License-Identifier: GPL-2.0

//! The role of a node. The numbers have no order that means anything: see [`Role::highest`].

use super::numbered::numbered_enum;

numbered_enum! {
    /// What a node may do with its device. Numbers: two bits of the state word.
    pub enum Role: u8 {
        /// Nothing is known: there is no connection to that node.
        Unknown = 0, "Unknown";
        /// The device may be opened and written to.
        Primary = 1, "Primary";
        /// The device only receives what the peer writes.
        Secondary = 2, "Secondary";
    }
}

impl Role {
    /// Whether this is [`Role::Primary`].
    pub const fn is_primary(self) -> bool {
        matches!(self, Role::Primary)
    }

    /// The more active of two roles: Primary, then Secondary, then Unknown.
    pub const fn highest(self, other: Role) -> Role {
        match (self, other) {
            (Role::Primary, _) | (_, Role::Primary) => Role::Primary,
            (Role::Secondary, _) | (_, Role::Secondary) => Role::Secondary,
            (Role::Unknown, Role::Unknown) => Role::Unknown,
        }
    }

    /// The less active of two roles: Unknown, then Secondary, then Primary.
    pub const fn lowest(self, other: Role) -> Role {
        match (self, other) {
            (Role::Unknown, _) | (_, Role::Unknown) => Role::Unknown,
            (Role::Secondary, _) | (_, Role::Secondary) => Role::Secondary,
            (Role::Primary, Role::Primary) => Role::Primary,
        }
    }
}
