// SPDX-License-Identifier: GPL-2.0

//! States, the way that leads to each, and the orders that are given in them.

use std::fmt;

/// What is done on one node or on both at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// On which nodes.
    pub on: [bool; 2],
    /// The orders, one after the other, in the words of `drbdsetup`.
    pub orders: Vec<String>,
}

/// A state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its name.
    pub name: String,
    /// All that leads to it from nodes on which nothing is configured; after each step the cluster
    /// comes to rest.
    pub path: Vec<Step>,
    /// On which nodes orders are given in it.
    pub on: [bool; 2],
}

/// An order that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// In the words of `drbdsetup`.
    pub words: String,
    /// Only in these states; none: in all.
    pub only_in: Vec<String>,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The states.
    pub states: Vec<State>,
    /// The orders.
    pub orders: Vec<Order>,
}

/// What cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn unreadable(line: &str) -> Unreadable {
    Unreadable(format!("states.txt: {line}"))
}

fn nodes(word: &str) -> Option<[bool; 2]> {
    match word {
        "a" => Some([true, false]),
        "b" => Some([false, true]),
        "ab" => Some([true, true]),
        _ => None,
    }
}

impl Plan {
    /// Reads the file.
    ///
    /// # Errors
    /// The line that cannot be read.
    pub fn parse(text: &str) -> Result<Plan, Unreadable> {
        let mut plan = Plan::default();
        for line in text.lines() {
            let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "" | "#" => {}
                "state" => {
                    let state = plan.state_line(rest).ok_or_else(|| unreadable(line))?;
                    plan.states.push(state);
                }
                "order" => {
                    let order = plan.order_line(rest).ok_or_else(|| unreadable(line))?;
                    plan.orders.push(order);
                }
                _ => return Err(unreadable(line)),
            }
        }
        Ok(plan)
    }

    /// The file of this repository.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn golden() -> Plan {
        let path = crate::golden("states.txt");
        let text = std::fs::read_to_string(&path).expect("states.txt");
        Plan::parse(&text).unwrap_or_else(|e| panic!("{e}"))
    }

    /// `NAME NODES = FROM; NODES ORDER; NODES ORDER…`, where `FROM` is `nothing` or a state above.
    fn state_line(&self, rest: &str) -> Option<State> {
        let (head, way) = rest.split_once(" = ")?;
        let (name, on) = head.split_once(' ')?;
        let mut way = way.split("; ");
        let from = way.next()?;
        let mut path = match from {
            "nothing" => Vec::new(),
            _ => self.state(from)?.path.clone(),
        };
        for step in way {
            let (on, order) = step.split_once(' ')?;
            add(&mut path, nodes(on)?, order.to_owned());
        }
        let fresh = self.state(name).is_none();
        fresh.then_some(State {
            name: name.into(),
            path,
            on: nodes(on)?,
        })
    }

    /// `WORDS` or `WORDS in STATE STATE…`.
    fn order_line(&self, rest: &str) -> Option<Order> {
        let (words, only) = rest.split_once(" in ").unwrap_or((rest, ""));
        let only_in: Vec<String> = only.split_whitespace().map(str::to_owned).collect();
        let known = only_in.iter().all(|s| self.state(s).is_some());
        known.then(|| Order {
            words: words.into(),
            only_in,
        })
    }

    /// A state by its name.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|s| s.name == name)
    }

    /// All that is tried in a state: node and order.
    pub fn tried_in<'a>(&'a self, state: &'a State) -> Vec<(usize, &'a str)> {
        let here = |o: &&Order| o.only_in.is_empty() || o.only_in.contains(&state.name);
        let on = [0, 1].into_iter().filter(|n| state.on[*n]);
        on.flat_map(|n| {
            let orders = self.orders.iter().filter(here);
            orders.map(move |o| (n, o.words.as_str()))
        })
        .collect()
    }
}

/// Orders that are done when they are answered, without anything that follows.
const QUIET: [&str; 5] = [
    "new-resource",
    "new-minor",
    "resource-options",
    "attach",
    "slow",
];

/// Adds an order: to the last step, if that is on the same nodes and nothing follows from it.
fn add(path: &mut Vec<Step>, on: [bool; 2], order: String) {
    let quiet = |step: &Step| {
        let word = |o: &String| QUIET.contains(&o.split(' ').next().unwrap_or_default());
        step.orders.iter().all(word)
    };
    match path.last_mut() {
        Some(last) if last.on == on && quiet(last) => last.orders.push(order),
        Some(_) | None => path.push(Step {
            on,
            orders: vec![order],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_builds_on_another() {
        let text = "# what\nstate one a = nothing; ab new-resource; ab new-minor\n\
            state two ab = one; ab attach; a primary --force=yes\n\
            order secondary\norder verify in two\n";
        let plan = Plan::parse(text).unwrap();
        let two = plan.state("two").unwrap();
        let orders = |s: &Step| s.orders.join(",");
        let path: Vec<_> = two.path.iter().map(|s| (s.on, orders(s))).collect();
        let first = "new-resource,new-minor,attach".to_owned();
        let second = "primary --force=yes".to_owned();
        assert_eq!(path, [([true, true], first), ([true, false], second)]);
        let tried = plan.tried_in(two);
        let expected = [
            (0, "secondary"),
            (0, "verify"),
            (1, "secondary"),
            (1, "verify"),
        ];
        assert_eq!(tried, expected);
        assert_eq!(plan.tried_in(plan.state("one").unwrap()).len(), 1);
    }

    #[test]
    fn mistakes_are_found() {
        for text in [
            "state one a = two; ab attach",
            "state one c = nothing; ab attach",
            "state one a = nothing; attach",
            "state one a = nothing\nstate one a = nothing",
            "order verify in nowhere",
            "states",
        ] {
            assert!(Plan::parse(text).is_err(), "{text}");
        }
    }
}
