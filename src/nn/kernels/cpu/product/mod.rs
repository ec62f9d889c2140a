//! Matrix products `x W^T` with weights that are packed once, when a model is loaded. Nothing here knows tensors.
//!
//! Weights are packed in panels: for some neighbouring outputs, the numbers in the order in which a micro-kernel reads
//! them. A micro-kernel multiplies a tile, some rows of `x`, with a panel, while the sums are in registers.
//!
//! | file | what it holds |
//! |---|---|
//! | `aligned.rs` | memory that begins at a cache line |
//! | `microkernel.rs` | the trait: what a processor multiplies at a time |
//! | `format.rs` | the numbers of weights and inputs: f32, bf16, 8-bit integers with scales |
//! | `integer.rs`, `float.rs`, `x86.rs`, `amx/`, `aarch64.rs` | micro-kernels |
//! | `packed.rs` | weights packed for a micro-kernel, and the product |
//! | `choose.rs` | the best micro-kernel of this processor |

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod aligned;
#[cfg(target_arch = "x86_64")]
mod amx;
mod choose;
mod float;
mod format;
mod integer;
mod microkernel;
mod packed;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use aligned::Aligned;
pub use choose::{WithKernel, instructions, pack, with_best};
pub use format::{Numbers, RowCount};
pub use microkernel::{ColumnKernel, Microkernel, Rows, Tile, pack_panel, pack_rows};
pub use packed::{Epilogue, PackedWeights};
