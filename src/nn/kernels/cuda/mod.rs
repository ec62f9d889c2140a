//! Our own kernels in CUDA C++ (`kernels.cu`), their launches, and a decode loop that is captured as a CUDA graph. The
//! tests compile the same kernels for the CPU and emulate a GPU.
//!
//! | file | what it holds |
//! |---|---|
//! | `kernels.cu`, `primitives.cuh` | the kernels, and what they share |
//! | `launch.rs` | arguments and grid of each kernel |
//! | `kernels.rs` | the implementation of the trait |
//! | `decode_step.rs`, `decode_loop.rs` | a decode step as launches, and as a graph |
//! | `backend.rs`, `gpu.rs` | who runs the kernels: the interface, and the driver |
//! | `emulated.rs`, `on_cpu.h` | the kernels on the CPU, for tests |
//! | `tensors.rs` | tensors as kernels see them |
//! | `tests.rs` | every kernel against candle |

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
