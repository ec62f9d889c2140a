//! The interface between the kernels' callers and the machine that runs the kernels: a GPU, or an emulation for tests.

use std::ffi::c_void;

use candle_core::Tensor;

use crate::nn::error::Result;

/// A machine that runs the kernels of `kernels.cu`.
pub trait Backend: Send + Sync {
    /// Starts a kernel. `args` holds the address of the kernel's argument struct and its size in bytes.
    ///
    /// # Errors
    /// When there is no kernel of this name or the launch fails.
    ///
    /// # Safety
    /// The struct must be the kernel's own. The memory that it points to must be the machine's, large enough, and not
    /// freed before the kernel has finished.
    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [u32; 3],
        threads: u32,
        args: (*const c_void, usize),
    ) -> Result<()>;

    /// `out = x W^T`: `x` is `(rows, inputs)`, `weight` `(outputs, inputs)`, `out` `(rows, outputs)`, all contiguous.
    /// `out` has the format of `x` or is f32.
    ///
    /// # Errors
    /// When shapes or formats do not match, or the machine fails.
    fn multiply(&self, out: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()>;

    /// `x W^T + b`, then GELU in its tanh approximation if `gelu`: `x` is `(rows, inputs)`, `weight` `(outputs,
    /// inputs)`, `bias` `(outputs)`. Returns None if this machine has nothing faster than candle's operations for it.
    ///
    /// # Errors
    /// When the machine fails.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, gelu: bool) -> Result<Option<Tensor>>;

    /// Copies bytes to the machine's memory. The copy may still be under way when this returns; later kernels wait for
    /// it.
    ///
    /// # Errors
    /// When the machine fails or has too little memory.
    fn upload(&self, bytes: &[u8]) -> Result<Tensor>;

    /// Captures the launches of `work` instead of running them. Returns None if this machine cannot capture.
    ///
    /// # Errors
    /// When `work` fails or does something that cannot be captured.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>>;
}

/// Captured launches.
pub trait Graph {
    /// Runs the launches again, with the same arguments.
    ///
    /// # Errors
    /// When the launch fails.
    ///
    /// # Safety
    /// The memory that the launches read and write must still be allocated.
    unsafe fn replay(&self) -> Result<()>;
}
