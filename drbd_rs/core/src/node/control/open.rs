// SPDX-License-Identifier: GPL-2.0

//! Who may open the block device.

use crate::state::Role;

use super::super::io::VolIx;
use super::super::{Resource, Store};

/// Why the block device cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenRefused {
    /// There is no such volume, or it is being deleted.
    NoVolume,
    /// For writing, while this node is Secondary.
    WriteOnSecondary,
    /// For reading, while this node is Secondary: its data may be stale.
    ReadOnSecondary,
}

impl<S: Store> Resource<S> {
    /// Whether the block device may be opened now. Who gets a yes says `Input::Opened`, in the same
    /// breath: a change of role in between would find nobody.
    ///
    /// # Errors
    /// See [`OpenRefused`].
    pub fn may_open(&self, vol: VolIx, write: bool) -> Result<(), OpenRefused> {
        let volume = self.vol(vol).ok_or(OpenRefused::NoVolume)?;
        match (volume.state.role, write) {
            (Role::Primary, _) => Ok(()),
            (Role::Secondary | Role::Unknown, true) => Err(OpenRefused::WriteOnSecondary),
            (Role::Secondary | Role::Unknown, false) => Err(OpenRefused::ReadOnSecondary),
        }
    }
}
