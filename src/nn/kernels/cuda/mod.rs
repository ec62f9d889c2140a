//! Own kernels in CUDA C++ (`kernels.cu`), how they are launched, and a decode loop that is captured as a CUDA
//! graph. In tests the same kernels are compiled for the CPU and emulated.

mod backend;
mod decode_loop;
#[cfg(test)]
pub(crate) mod emulated;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod kernels;
mod launch;
mod tensors;
#[cfg(test)]
mod tests;
