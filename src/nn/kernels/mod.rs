//! The arithmetic of a network behind one trait, [`Kernels`]. `candle` is the reference implementation in candle's
//! operations; `cpu` and `cuda` are our own, where they are faster, and are tested against it.

pub mod candle;
pub mod cpu;
#[cfg(any(feature = "cuda", test))]
pub mod cuda;
pub mod traits;

pub use candle::CandleKernels;
pub use traits::{DecodeLoop, Kernels, NextToken, PatchSize};
