//! Outcomes of the worker in, events out. Does no I/O. `builder.rs` makes the events, whose fields are in
//! `src/event.rs`; `answers.rs` makes their answers of the model's probabilities, `rules.rs` makes alerts of these.

pub mod answers;
pub mod builder;
pub mod rules;

pub use builder::EventBuilder;
