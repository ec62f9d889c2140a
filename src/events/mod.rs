//! Outcomes of the worker in, events out. Does no I/O.

pub mod builder;

pub use builder::EventBuilder;
