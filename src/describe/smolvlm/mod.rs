//! SmolVLM2 on candle: the only place that imports it.

pub mod config;
pub mod error;
mod keys;
pub mod preprocess;
pub mod prompt;
mod resize;
pub mod sampling;
