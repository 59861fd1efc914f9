// SPDX-License-Identifier: GPL-2.0

//! What user space is told by error numbers: the one place where the core's refusals become such.

use drbd_core::node::OpenRefused;
use kernel::prelude::*;

/// Opening `/dev/drbd<minor>`, as the C driver answers it.
pub(crate) fn open(refused: OpenRefused) -> Error {
    match refused {
        OpenRefused::NoVolume => ENODEV,
        OpenRefused::WriteOnSecondary => EROFS,
        OpenRefused::ReadOnSecondary => EMEDIUMTYPE,
    }
}
