// SPDX-License-Identifier: GPL-2.0

//! What came of each order: `tests/golden/transitions/outcomes.txt`.
//!
//! A line for each state, `STATE | is | A | B`, and one for each order,
//! `STATE | NODE ORDER | ANSWER | A | B`, with the nodes as [`Letters::show`] has them; `=`: as
//! before. An answer is the exit code of `drbdsetup` and, where it prints one, the number of the
//! error; `hangs`: it did not end in time. `restless` stands before the nodes where they did not
//! come to rest. The texts of the errors are in lines `error NUMBER | TEXT`. All lines are sorted.

use crate::picture::{Letters, Picture};
use crate::NODES;
use std::collections::BTreeMap;
use std::fmt;

/// What an order answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Exit code, and number of the error; 0: none.
    Exit(i32, i32),
    /// None within seconds.
    Hangs,
}

impl Answer {
    /// What `drbdsetup` makes of the code in a reply of the kernel.
    pub fn of_code(code: i32) -> Answer {
        match code {
            1..=4 | 101 => Answer::Exit(0, 0),
            -2 => Answer::Exit(17, code),
            -16 => Answer::Exit(5, code),
            -4 => Answer::Exit(16, code),
            102.. => Answer::Exit(10, code),
            _ => Answer::Exit(11, code),
        }
    }

    /// Reads exit code and words of `drbdsetup`. The second: number and text of an error.
    pub fn of_words(exit: i32, words: &str) -> (Answer, Option<(i32, String)>) {
        let error = ["Failure: (", "State change failed: ("]
            .iter()
            .find_map(|start| words.split_once(start))
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(number, text)| Some((number.parse().ok()?, text)));
        let error = error.map(|(number, text): (i32, &str)| {
            let line = text.lines().next().unwrap_or_default();
            (number, line.trim().to_owned())
        });
        let number = error.as_ref().map_or(0, |(n, _)| *n);
        (Answer::Exit(exit, number), error)
    }

    /// Whether the order was refused.
    pub fn is_refusal(self) -> bool {
        matches!(self, Answer::Exit(1.., _))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Exit(0, 0) => f.write_str("0"),
            Answer::Exit(exit, number) => write!(f, "{exit} {number}"),
            Answer::Hangs => f.write_str("hangs"),
        }
    }
}

/// Both nodes, and whether they rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `a` and `b`.
    pub nodes: [Picture; 2],
    /// They have come to rest.
    pub rest: bool,
}

impl Found {
    /// As part of a line; `before`: what was there, for a state nothing.
    pub fn show(&self, letters: &mut Letters, before: Option<&Found>) -> String {
        let mut text = String::new();
        if !self.rest {
            text.push_str("restless ");
        }
        for (n, picture) in self.nodes.iter().enumerate() {
            if n > 0 {
                text.push_str(" | ");
            }
            match before {
                Some(b) if b.nodes[n] == *picture => text.push('='),
                Some(_) | None => text.push_str(&letters.show(picture)),
            }
        }
        text
    }
}

/// The lines of a state: itself, and what came of an order in it.
#[derive(Debug)]
pub struct InState {
    before: Found,
    letters: Letters,
    line: String,
}

impl InState {
    /// A state that was reached.
    pub fn new(before: Found) -> InState {
        let mut letters = Letters::default();
        let line = before.show(&mut letters, None);
        InState {
            before,
            letters,
            line,
        }
    }

    /// The nodes before the order.
    pub fn before(&self) -> &Found {
        &self.before
    }

    /// The state, as text.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What came of an order, as text.
    pub fn after(&self, answer: Answer, after: &Found) -> String {
        let mut letters = self.letters.clone();
        format!(
            "{answer} | {}",
            after.show(&mut letters, Some(&self.before))
        )
    }
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    head: String,
    lines: BTreeMap<(String, String), String>,
}

/// What a line with a state has in place of an order.
const IS: &str = "is";
/// The beginning of a line with the text of an error.
const ERROR: &str = "error ";

impl Outcomes {
    /// Reads the file; lines that begin with `#` are its head.
    pub fn parse(text: &str) -> Outcomes {
        let mut all = Outcomes::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, " | ");
            if line.starts_with('#') {
                all.head.push_str(line);
                all.head.push('\n');
            } else if let (Some(state), Some(what)) = (parts.next(), parts.next()) {
                let came = parts.next().unwrap_or_default().to_owned();
                all.lines.insert((state.into(), what.into()), came);
            }
        }
        all
    }

    /// The file of this repository.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn golden() -> Outcomes {
        let path = crate::golden("outcomes.txt");
        Outcomes::parse(&std::fs::read_to_string(path).expect("outcomes.txt"))
    }

    /// How an order on a node is named.
    pub fn order(node: usize, words: &str) -> String {
        format!("{} {words}", NODES[node])
    }

    /// What is known of a state.
    pub fn state(&self, state: &str) -> Option<&str> {
        self.get(state, IS)
    }

    /// What is known of an order, see [`Outcomes::order`].
    pub fn get(&self, state: &str, order: &str) -> Option<&str> {
        let found = self.lines.get(&(state.into(), order.into()));
        found.map(String::as_str)
    }

    /// Records a state.
    pub fn put_state(&mut self, state: &str, line: &str) {
        self.put(state, IS, line);
    }

    /// Records what came of an order.
    pub fn put(&mut self, state: &str, order: &str, came: &str) {
        let key = (state.to_owned(), order.to_owned());
        self.lines.insert(key, came.to_owned());
    }

    /// Records the text of an error.
    pub fn put_error(&mut self, number: i32, text: &str) {
        let key = (format!("{ERROR}{number}"), text.to_owned());
        self.lines.insert(key, String::new());
    }

    /// States that were recorded.
    pub fn states(&self) -> usize {
        self.lines.keys().filter(|(_, what)| what == IS).count()
    }

    /// Orders that were recorded: state, order, what came.
    pub fn orders(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let all = self.lines.iter();
        all.filter(|((state, what), _)| what != IS && !state.starts_with(ERROR))
            .map(|((state, what), came)| (state.as_str(), what.as_str(), came.as_str()))
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.head)?;
        for ((state, what), came) in &self.lines {
            if came.is_empty() {
                writeln!(f, "{state} | {what}")?;
            } else {
                writeln!(f, "{state} | {what} | {came}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{Generation, Proc};

    fn found(cs: &str, current: u64) -> Found {
        let text = format!("0: cs:{cs} ro:Secondary/Unknown ds:UpToDate/DUnknown   r-----\n");
        let nodes = [0, 1].map(|n| Picture {
            proc: Proc::parse(&text, n),
            generation: (n == 0).then(|| Generation {
                uuids: [current, 0, 0, 0],
                flags: "1100000".into(),
            }),
        });
        Found { nodes, rest: true }
    }

    #[test]
    fn lines_are_written_and_read() {
        let alone = InState::new(found("StandAlone", 0x10));
        let words = "Secondary/Unknown UpToDate/DUnknown r-----";
        let line = format!("StandAlone {words} A:0:0:0/1100000 0 | nothing");
        assert_eq!(alone.line(), line);
        let same = alone.after(Answer::of_code(-2), &found("StandAlone", 0x10));
        assert_eq!(same, "17 -2 | = | =");
        let mut after = found("WFConnection", 0x20);
        after.rest = false;
        let line = alone.after(Answer::of_code(1), &after);
        let shown = format!("0 | restless WFConnection {words} B:0:0:0/1100000 0 | =");
        assert_eq!(line, shown);
        let mut all = Outcomes::parse("# head\n");
        all.put("alone", &Outcomes::order(0, "connect"), &line);
        all.put_state("alone", alone.line());
        all.put_error(-2, "Need access to UpToDate data");
        let again = Outcomes::parse(&all.to_string());
        assert_eq!(again, all);
        assert_eq!(again.states(), 1);
        assert_eq!(again.state("alone"), Some(alone.line()));
        let orders: Vec<_> = again.orders().collect();
        assert_eq!(orders, [("alone", "a connect", shown.as_str())]);
    }

    #[test]
    fn answers_are_read() {
        let words = "0: State change failed: (-2) Need access to UpToDate data\n";
        let (answer, error) = Answer::of_words(17, words);
        assert_eq!(answer, Answer::of_code(-2));
        assert_eq!(error, Some((-2, "Need access to UpToDate data".into())));
        let words = "r0: Failure: (158) Unknown resource\nadditional info from kernel:\nno\n";
        assert_eq!(Answer::of_words(10, words).0, Answer::of_code(158));
        assert_eq!(Answer::of_words(0, ""), (Answer::of_code(2), None));
        assert!(Answer::of_code(-8).is_refusal() && !Answer::of_code(101).is_refusal());
    }
}
