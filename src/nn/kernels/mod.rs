//! The arithmetic of a network behind one trait, [`Kernels`]. `candle` is the reference implementation in candle's
//! operations; `cpu` and `cuda` are our own, where they are faster, and are tested against it.
//! `nn/select.rs` says which device gets which.
//!
//! | file | what it holds |
//! |---|---|
//! | `traits.rs` | the trait |
//! | `candle.rs` | the reference, for every device |
//! | `cpu/` | f32 on the CPU |
//! | `cuda/` | f32 and bf16 on a GPU |

pub mod candle;
pub mod cpu;
#[cfg(any(feature = "cuda", test))]
pub mod cuda;
pub mod traits;

pub use candle::CandleKernels;
pub use traits::{DecodeLoop, Kernels, NextToken, PatchSize};
