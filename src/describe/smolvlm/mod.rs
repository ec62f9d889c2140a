//! SmolVLM2 on candle: the only place that imports it.

pub mod config;
