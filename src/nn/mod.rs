//! The inference engine that every local model shares: device, weights, kernels, text decoder and token
//! generation. Token ids and tensors go in, token ids come out. Nothing here knows which model runs; what
//! belongs to one model family is in `describe/<family>/`.

pub mod decoder;
pub mod device;
pub mod error;
pub mod forward;
pub mod generate;
mod host;
pub mod json_config;
pub mod kernels;
pub mod layers;
#[cfg(feature = "cuda")]
mod memory_pool;
pub mod observer;
pub mod roofline;
pub mod select;
pub mod self_check;
pub mod sequence;
pub mod weights;
