//! Our own operations in f32 on the CPU, where candle's are scalar or single-threaded. They split rows over the cores,
//! and their loops compile to vector instructions. Linear layers may have 8-bit weights.

mod activations;
mod attention;
mod gemm;
pub mod kernels;
mod linear;
mod norms;
pub mod quantised;
mod simd;

pub use kernels::CpuKernels;
