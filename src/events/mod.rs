//! Outcomes of the worker in, events out. Does no I/O. `builder.rs` makes the events, whose fields are in
//! `src/event.rs`; `rules.rs` makes alerts of their answers.

pub mod builder;
pub mod rules;

pub use builder::EventBuilder;
