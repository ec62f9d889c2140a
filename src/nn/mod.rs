//! The inference engine that every local model shares: device, weights, kernels, text decoder and token
//! generation. Token ids and tensors go in, token ids come out. Nothing here knows which model runs; what
//! belongs to one model family is in `describe/<family>/`.
//!
//! | file | what it holds |
//! |---|---|
//! | `device.rs`, `host.rs`, `memory_pool.rs` | the device, the number format, the machine |
//! | `weights/`, `json_config.rs` | the files of a checkpoint |
//! | `layers.rs`, `decoder.rs` | weights as data |
//! | `kernels/` | the arithmetic |
//! | `select.rs`, `self_check.rs` | which kernels run, and whether they are right |
//! | `embed.rs`, `forward.rs`, `sequence.rs`, `sampler.rs`, `generate.rs` | tokens to vectors, one pass, the batch and its cache, the next token, whole answers |
//! | `score.rs` | how likely tokens are, without generating any |
//! | `observer.rs` | hooks for activations |
//! | `roofline.rs` | the peak rates of the device |
//! | `error.rs` | what can fail |

pub mod decoder;
pub mod device;
mod embed;
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
pub mod sampler;
pub mod score;
pub mod select;
pub mod self_check;
pub mod sequence;
pub mod weights;
