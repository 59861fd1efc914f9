// SPDX-License-Identifier: GPL-2.0

//! All resources, and which minor belongs to which.

use drbd_core::node::VolIx;
use drbd_core::units::{Minor, Vnr};
use drbd_kapi::mem;
use kernel::prelude::*;
use kernel::sync::lock::{mutex::MutexBackend, Guard};
use kernel::sync::{new_mutex, Arc, Mutex};

use super::posted::PostedTable;
use super::resource::Resource;
use super::volume::Volume;

/// A minor number in use.
#[derive(Clone)]
pub(crate) struct MinorEntry {
    /// The number.
    pub(crate) minor: Minor,
    /// The volume's number in its resource.
    pub(crate) vnr: Vnr,
    /// The resource.
    pub(crate) resource: Arc<Resource>,
    /// The volume.
    pub(crate) volume: Arc<Volume>,
}

impl MinorEntry {
    /// The volume's index in the core's machine.
    pub(crate) fn ix(&self) -> VolIx {
        self.volume.ix
    }
}

/// Resources in the order of their creation, minors ascending.
#[derive(Default)]
struct Tables {
    resources: KVVec<Arc<Resource>>,
    minors: KVVec<MinorEntry>,
}

/// Everything that is configured.
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    creation: Mutex<()>,
    #[pin]
    tables: Mutex<Tables>,
    /// What volumes wait for.
    #[pin]
    pub(crate) posted: PostedTable,
}

impl Registry {
    /// An empty registry.
    pub(crate) fn new() -> Result<Arc<Registry>> {
        Arc::pin_init(
            pin_init!(Registry {
                creation <- new_mutex!((), "drbd_rs::Registry::creation"),
                tables <- new_mutex!(Tables::default(), "drbd_rs::Registry"),
                posted <- PostedTable::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Held by who gives out a name, a minor or an address of which there must be only one: from
    /// the look whether it is free until everybody sees that it is taken. Not for long.
    pub(crate) fn creating(&self) -> Guard<'_, (), MutexBackend> {
        self.creation.lock()
    }

    /// The resource of that name.
    pub(crate) fn resource(&self, name: &[u8]) -> Option<Arc<Resource>> {
        let tables = self.tables.lock();
        tables.resources.iter().find(|r| r.is_named(name)).cloned()
    }

    /// The `n`th resource.
    pub(crate) fn resource_at(&self, n: usize) -> Option<Arc<Resource>> {
        self.tables.lock().resources.get(n).cloned()
    }

    /// The volume with that minor.
    pub(crate) fn minor(&self, minor: Minor) -> Option<MinorEntry> {
        self.tables.lock().minors.iter().find(|m| m.minor == minor).cloned()
    }

    /// The volume with the least minor that is at least `from`.
    pub(crate) fn next_minor(&self, from: Minor) -> Option<MinorEntry> {
        self.tables.lock().minors.iter().find(|m| m.minor >= from).cloned()
    }

    /// Adds a resource.
    pub(crate) fn add_resource(&self, resource: Arc<Resource>) -> Result {
        mem::push(&mut self.tables.lock().resources, resource, GFP_KERNEL)
    }

    /// Forgets a resource and hands it over.
    pub(crate) fn remove_resource(&self, name: &[u8]) -> Option<Arc<Resource>> {
        let mut tables = self.tables.lock();
        let at = tables.resources.iter().position(|r| r.is_named(name))?;
        tables.resources.remove(at).ok()
    }

    /// Tells every volume that waits for others whether it has to, as things are now. Steps the
    /// machines of their resources: no lock may be held.
    pub(crate) fn reconsider_pauses(&self) {
        let mut n = 0usize;
        while let Some(minor) = self.posted.waiting(n) {
            n = n.saturating_add(1);
            let Some(entry) = self.minor(minor) else { continue };
            // Asked under the lock of the machine: whoever comes last knows of all that was told.
            entry.resource.drive(|machine, host| {
                machine.set_held_back(minor, self.posted.must_wait(minor), host);
            });
        }
    }

    /// Adds a volume, keeping the order.
    pub(crate) fn add_minor(&self, entry: MinorEntry) -> Result {
        let mut tables = self.tables.lock();
        mem::reserve(&mut tables.minors, 1, GFP_KERNEL)?;
        self.posted.add(entry.minor)?;
        mem::push(&mut tables.minors, entry, GFP_KERNEL)?;
        let minors = &mut *tables.minors;
        let mut at = minors.len().saturating_sub(1);
        while let Some(before) = at.checked_sub(1) {
            let greater = match (minors.get(before), minors.get(at)) {
                (Some(a), Some(b)) => a.minor > b.minor,
                (Some(_), None) | (None, Some(_)) | (None, None) => false,
            };
            if !greater {
                break;
            }
            minors.swap(before, at);
            at = before;
        }
        Ok(())
    }

    /// Forgets a volume and hands it over.
    pub(crate) fn remove_minor(&self, minor: Minor) -> Option<MinorEntry> {
        self.posted.remove(minor);
        let mut tables = self.tables.lock();
        let at = tables.minors.iter().position(|m| m.minor == minor)?;
        tables.minors.remove(at).ok()
    }
}
