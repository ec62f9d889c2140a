//! Outcomes of the worker in, events out. Does no I/O. `builder.rs` makes the events; their fields are in
//! `src/event.rs`.

pub mod builder;

pub use builder::EventBuilder;
