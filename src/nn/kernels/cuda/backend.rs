//! Where the kernels run: on a GPU, or for tests on the CPU.

use std::ffi::c_void;

use candle_core::Tensor;

use super::super::super::error::Result;

/// Where kernels run: a GPU, or for tests the CPU.
pub trait Backend: Send + Sync {
    /// Starts a kernel of `kernels.cu`. `args`: its struct, and that one's size in bytes.
    ///
    /// # Safety
    /// The struct must be the kernel's, and what it points to there, large enough and not freed before
    /// the kernel is through.
    unsafe fn launch(
        &self,
        kernel: &str,
        blocks: [u32; 3],
        threads: u32,
        args: (*const c_void, usize),
    ) -> Result<()>;

    /// `out = x W^T`, where `out` is of the same format or f32.
    fn multiply(&self, out: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()>;

    /// `x W^T + b`, then GELU if that is wanted, where there is a faster way than candle's.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, gelu: bool) -> Result<Option<Tensor>>;

    /// Bytes that are on their way there when this returns.
    fn upload(&self, bytes: &[u8]) -> Result<Tensor>;

    /// What `work` launches, not run but captured, to be run as often as wanted with one call; nothing
    /// where there is no such thing.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>>;
}

/// Launches that were captured.
pub trait Graph {
    /// Runs them.
    ///
    /// # Safety
    /// What they read and write must still be there.
    unsafe fn replay(&self) -> Result<()>;
}
