//! Our own operations in f32 on the CPU, where candle's are scalar or single-threaded. They split rows over the cores,
//! and their loops compile to vector instructions. Linear layers may have 8-bit weights.
//!
//! | file | what it holds |
//! |---|---|
//! | `kernels.rs` | the implementation of the trait |
//! | `linear.rs` | linear layers with packed weights |
//! | `product/` | the products of packed weights |
//! | `gemm.rs` | the general matrix product, and access to elements |
//! | `attention.rs`, `norms.rs`, `activations.rs` | the other operations |
//! | `simd.rs` | vector loops that the operations share |

mod activations;
mod attention;
mod gemm;
pub mod kernels;
pub mod linear;
mod norms;
pub mod product;
mod simd;

pub use kernels::CpuKernels;
