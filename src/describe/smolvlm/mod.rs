//! SmolVLM2 on candle: the only place that imports it.

pub mod config;
pub mod error;
mod keys;
