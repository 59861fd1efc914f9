// SPDX-License-Identifier: GPL-2.0

//! `/proc/drbd`.

use drbd_core::units::Minor;
use drbd_kapi::proc::Show;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::{Arc, ArcBorrow};

use crate::exec::now;
use crate::log::Shown;
use crate::objects::registry::Registry;

/// The version of the C driver that this one stands in for; drbd-utils choose their tools by it.
pub(crate) const VERSION: &str = "8.4.11 (api:1/proto:86-101)";
/// What this driver really is. User space parses only the word in front of the colon.
pub(crate) const BUILD: &str = concat!("srcversion: drbd_rs-", "0.1.0", "           ");

/// The C driver's module parameter `proc_details`, as it is by default.
const DETAILS: u32 = 0;

/// The file.
pub(crate) struct ProcDrbd {
    /// What is shown.
    pub(crate) registry: Arc<Registry>,
}

impl Show for ProcDrbd {
    fn show(this: ArcBorrow<'_, Self>, out: &SeqFile) -> Result {
        kernel::seq_print!(out, "version: {}\n{}\n", VERSION, BUILD);
        let mut next = Minor(0);
        let mut expected = Some(Minor(0));
        while let Some(entry) = this.registry.next_minor(next) {
            if expected != Some(entry.minor) {
                kernel::seq_print!(out, "\n");
            }
            // Only the resource's own lock, and not while anything is waited for: helpers read this
            // file while an administrator's request is under way.
            let lines = entry.resource.inner.lock().machine.proc_lines(entry.ix(), now(), DETAILS);
            if let Some(lines) = lines {
                kernel::seq_print!(out, "{}", Shown(&lines));
            }
            next = Minor(entry.minor.0.saturating_add(1));
            expected = Some(next);
        }
        Ok(())
    }
}
