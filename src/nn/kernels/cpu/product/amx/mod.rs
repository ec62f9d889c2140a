//! Micro-kernels for AMX: one instruction multiplies two tiles, of up to 16 rows of 64 bytes, and adds to a third.
//!
//! The rows of one are rows of `x`, those of the other hold groups of inputs of sixteen outputs.
//!
//! | file | what it holds |
//! |---|---|
//! | `tiles.rs` | tiles, and whether there are any |
//! | `float.rs`, `integer.rs` | micro-kernels |

mod float;
mod integer;
mod tiles;

pub use float::{AmxBf16, AmxBf16Weights, AmxF32};
pub use integer::AmxInt8;
