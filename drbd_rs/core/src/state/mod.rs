// SPDX-License-Identifier: GPL-2.0

//! States, the rules between them, and what a change entails.
//!
//! A [`State`] is plain data. A change goes through pure functions, in this order:
//!
//! ```text
//!   old + StateChange ──► sanitize ──► hard rules ──► state rules ──► soft rules ──► New
//!                        (implied)    (bind facts)    (bind wishes: skipped for CS_HARD)
//!   New ──► effects::Now   (under the lock, in order)
//!       └─► effects::Later (by the worker, in order)
//! ```
//!
//! Whoever holds the lock of the state reads the [`Context`], asks, stores the new state and
//! carries the effects out. This module stores nothing and waits for nobody.

pub mod aggregate;
pub mod code;
pub mod conn;
pub mod disk;
pub mod effects;
pub mod log;
pub mod meta_flags;
pub mod request;
pub mod role;

mod numbered;
mod sanitize;
mod transition;
mod types;
mod word;

pub use code::Ss;
pub use conn::Cstate;
pub use effects::{effects, ChangeEffects};
pub use role::Role;
pub use sanitize::{sanitize, Warning};
pub use transition::{
    evaluate, is_cluster_wide, is_valid_conn_transition, is_valid_soft_transition, is_valid_state,
    is_valid_transition, Flags, New, Refusal,
};
pub use types::{AttachDecision, Context, Fencing, State, StateChange};
pub use word::Malformed;

#[cfg(test)]
mod tests;
