// SPDX-License-Identifier: GPL-2.0

//! Planted bugs: the list of `mutants.txt`, applied to a copy of the core.
//!
//! The core itself has no switches for them. A mutant names a file, the lines that stand there
//! exactly once, and the lines that take their place.

/// One planted bug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mutant {
    /// What it does wrong.
    pub name: String,
    /// File below `drbd_rs/core/src`.
    pub file: String,
    /// What stands there.
    pub old: String,
    /// What is put there.
    pub new: String,
}

/// Reads the list.
pub fn parse(text: &str) -> Vec<Mutant> {
    let mut all: Vec<Mutant> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            let name = name.to_string();
            all.push(Mutant {
                name,
                ..Mutant::default()
            });
            continue;
        }
        let Some(m) = all.last_mut() else { continue };
        if let Some(file) = line.strip_prefix("file ") {
            m.file = file.to_string();
        } else if let Some(old) = line.strip_prefix('-') {
            m.old += old;
            m.old.push('\n');
        } else if let Some(new) = line.strip_prefix('+') {
            m.new += new;
            m.new.push('\n');
        }
    }
    for m in &mut all {
        m.old.pop();
        m.new.pop();
    }
    all
}

impl Mutant {
    /// The source with the bug in it; `None` if what it replaces does not stand there once.
    pub fn apply(&self, source: &str) -> Option<String> {
        let once = source.matches(&self.old).count() == 1;
        once.then(|| source.replacen(&self.old, &self.new, 1))
    }
}
