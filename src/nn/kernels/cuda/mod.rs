//! Our own kernels in CUDA C++ (`kernels.cu`), their launches, and a decode loop that is captured as a CUDA graph. The
//! tests compile the same kernels for the CPU and emulate a GPU.

mod backend;
mod decode_loop;
mod decode_step;
#[cfg(test)]
pub(crate) mod emulated;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod kernels;
mod launch;
mod tensors;
#[cfg(test)]
mod tests;
