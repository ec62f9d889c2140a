//! Outcomes of the worker in, events out. Does no I/O. `builder.rs` makes the events, whose fields are in
//! `src/event.rs`; `answers.rs` makes their answers of the model's probabilities, `rules.rs` makes alerts of these,
//! and `replay.rs` those that rules would have made of recorded events.

pub mod answers;
pub mod builder;
pub mod replay;
pub mod rules;

pub use builder::EventBuilder;
