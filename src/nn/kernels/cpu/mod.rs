//! The model's arithmetic on the CPU in f32, where candle's own is scalar or single-threaded: operations that
//! split their rows over the cores and whose loops the compiler turns into vector instructions. Weights alone may
//! be narrower than f32.

mod attention;
mod gemm;
pub mod kernels;
mod linear;
pub mod quantised;
mod rows;
mod vector;

pub use kernels::CpuKernels;
