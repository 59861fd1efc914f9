// SPDX-License-Identifier: GPL-2.0

//! What is left of a connection: nothing, when the next one begins or the node is switched off.
//!
//! As the C driver, a machine waits for what the peer had begun on its disk before it says that a
//! connection has ended; a write that is still on its way would land on top of a later one.

use crate::world::World;

impl World {
    /// A connection begins: the peer's writes of earlier ones are over.
    pub(crate) fn nothing_earlier(&mut self, node: usize) {
        let writes = self.nodes[node].writes.iter();
        let late = writes.filter(|(_, w)| w.of_peer).map(|(_, w)| w.start);
        if let Some(start) = late.min() {
            let why = format!("n{node} {start:?}");
            self.violated("what a lost connection has begun is waited for", &why);
        }
        self.nothing_kept(node);
    }

    /// The buffers that data of the peer came in are freed.
    pub(crate) fn nothing_kept(&mut self, node: usize) {
        let left = self.nodes[node].bufs.len();
        if left != 0 {
            let why = format!("n{node}: {left} of an earlier connection");
            self.violated("buffers are freed", &why);
        }
    }
}
