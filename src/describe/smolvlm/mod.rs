//! SmolVLM2 on the engine in `nn`. It equals the reference implementation (transformers 5.23.0) on the same
//! checkpoint.

pub mod config;
pub mod connector;
pub mod layout;
pub mod model;
pub mod network;
pub mod preprocess;
pub mod prompt;
pub mod sampling;
#[cfg(test)]
mod self_check_tests;
pub mod vision;
