//! Selects the kernels that a loaded model runs on. Own kernels on a GPU are used only after a self-check.

use candle_core::{DType, Device};

use super::{
    device::ComputeTarget,
    error::LoadError,
    kernels::{
        CandleKernels, Kernels,
        cpu::{CpuKernels, product::Numbers},
    },
    self_check::Probe,
};
#[cfg(feature = "cuda")]
use super::{
    device::has_bf16,
    kernels::cuda::{gpu::CudaBackend, kernels::CudaKernels},
    self_check::{max_relative_error, max_tolerated_error},
};
use crate::device::KernelChoice;

/// The kernels that a model runs on.
pub struct SelectedKernels {
    /// The backend.
    pub kernels: Box<dyn Kernels>,
    /// Why own kernels, or graphs of them, do not run although they were wanted and exist for this device.
    pub refused: Option<String>,
}

impl SelectedKernels {
    fn candle(refused: Option<String>) -> Self {
        Self { kernels: Box::new(CandleKernels), refused }
    }
}

/// Selects the kernels for `target.kernels`, the user's choice, and sets `target.kernels` to what runs in the end.
/// `probe` runs the model on given kernels with fixed input, for the self-check on a GPU.
///
/// # Errors
/// When the self-check breaks the device.
pub fn select(target: &mut ComputeTarget, probe: Probe<'_>) -> Result<SelectedKernels, LoadError> {
    #[cfg(not(feature = "cuda"))]
    let _ = probe;
    let wanted = target.kernels;
    if wanted == KernelChoice::Candle {
        return Ok(SelectedKernels::candle(None));
    }
    target.kernels = KernelChoice::Candle;
    match (&target.device, target.dtype) {
        (Device::Cpu, DType::F32) => {
            target.kernels = KernelChoice::Own;
            let numbers = target.packing().unwrap_or(Numbers::Exact);
            Ok(SelectedKernels { kernels: Box::new(CpuKernels { numbers }), refused: None })
        }
        #[cfg(feature = "cuda")]
        (Device::Cuda(device), DType::F32 | DType::BF16) if target.gpu.as_ref().is_some_and(has_bf16) => {
            match CudaBackend::new(device) {
                Ok(backend) => {
                    let graphs = wanted == KernelChoice::Graphs;
                    check(target, CudaKernels::new(Box::new(backend), graphs), probe)
                }
                Err(why) => Ok(SelectedKernels::candle(Some(why.to_string()))),
            }
        }
        _ => {
            tracing::info!(
                "camscribe has no kernels of its own for {} on this device: candle's operations are used",
                target.dtype.as_str()
            );
            Ok(SelectedKernels::candle(None))
        }
    }
}

/// Selects our kernels if they compute on this GPU what candle's operations do.
#[cfg(feature = "cuda")]
fn check(
    target: &mut ComputeTarget,
    ours: CudaKernels,
    probe: Probe<'_>,
) -> Result<SelectedKernels, LoadError> {
    let graphs = ours.graphs();
    match max_relative_error(&ours, probe) {
        Ok(error) if error < max_tolerated_error(target.dtype) => {
            tracing::info!(
                "camscribe's own kernels are used; relative error against candle's operations: {error:.1e}"
            );
            target.kernels = if ours.graphs() { KernelChoice::Graphs } else { KernelChoice::Own };
            let refused = (graphs && !ours.graphs())
                .then(|| "decode steps cannot be captured as CUDA graphs".to_owned());
            Ok(SelectedKernels { kernels: Box::new(ours), refused })
        }
        Ok(error) => Ok(SelectedKernels::candle(Some(format!(
            "their relative error against candle's operations is {error:.1e} on this GPU; please report it with the name of the GPU"
        )))),
        Err(why) => {
            // After some faults a device computes nothing any more, and freeing its memory fails, too.
            if target.device.synchronize().is_err() {
                std::mem::forget(ours);
                return Err(LoadError::BrokenByKernels {
                    device: target.device_name(),
                    why: why.to_string(),
                });
            }
            Ok(SelectedKernels::candle(Some(why.to_string())))
        }
    }
}
