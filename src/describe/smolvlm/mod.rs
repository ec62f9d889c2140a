//! SmolVLM2 on the engine in `nn`. It equals the reference implementation (transformers 5.23.0) on the same
//! checkpoint.
//!
//! | file | what it holds |
//! |---|---|
//! | `model.rs`, `describer.rs` | the model with what it needs for requests; as a describer: requests in, answers out |
//! | `answering.rs` | one run of it: requests to sequences, tokens to text |
//! | `label_scoring.rs` | questions with labels as sequences to be scored |
//! | `network.rs` | the whole network: tiles and token ids in, token ids out |
//! | `config.rs`, `layout.rs` | what a checkpoint states, and the tensors that it must have |
//! | `preprocess.rs` | frames to tiles |
//! | `prompt.rs` | messages to text and token ids |
//! | `token_bytes.rs` | the bytes of a token |
//! | `sampling.rs` | which frames of a whole file the reference takes |
//! | `vision.rs`, `connector.rs` | tiles to image tokens |
//! | `self_check_tests.rs` | tests of the network on emulated CUDA kernels |

mod answering;
pub mod config;
pub mod connector;
mod describer;
mod label_scoring;
pub mod layout;
pub mod model;
pub mod network;
pub mod preprocess;
pub mod prompt;
pub mod sampling;
#[cfg(test)]
mod self_check_tests;
mod token_bytes;
pub mod vision;
