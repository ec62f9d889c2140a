//! Answers in, events out. Pure.

pub mod builder;

pub use builder::EventBuilder;
