//! Which device the model runs on, and in which number format. The user's wish comes in (`auto`
//! takes a GPU where one works and falls back to the CPU); a candle device and dtype go out.

use std::fmt;

use candle_core::{DType, Device, DeviceLocation};

use super::super::DeviceMemory;
use crate::device::{CpuOnly, DeviceChoice, DtypeChoice};

/// Why a GPU that was asked for cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The `cuda` feature is off in this build.
    #[error(
        "this camscribe was built without CUDA: build it with `--features cuda`, or use device = \"cpu\""
    )]
    NotBuilt,
    /// A library that the GPU needs cannot be loaded.
    #[error(
        "{0} cannot be loaded: install it (or put its folder on LD_LIBRARY_PATH), or use device = \"cpu\""
    )]
    NoLibrary(&'static str),
    /// The GPU is there but does not work.
    #[error(
        "CUDA device {ordinal} does not work ({reason}): check it with nvidia-smi, or use device = \"cpu\""
    )]
    Broken { ordinal: usize, reason: String },
    #[error(transparent)]
    CpuOnly(#[from] CpuOnly),
}

/// What was chosen: where tensors live and what they hold.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub device: Device,
    pub dtype: DType,
    /// The weights of the decoder's linear layers are held in 8 bits; the rest is `dtype`.
    pub quantised: bool,
}

impl fmt::Display for Chosen {
    /// `cpu, f32`, as logs show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.device_name(), self.dtype_name())
    }
}

impl Chosen {
    /// `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// How full its memory is; the CPU has none of its own.
    #[cfg(not(feature = "cuda"))]
    pub fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// How full its memory is; the CPU has none of its own.
    #[cfg(feature = "cuda")]
    pub fn memory(&self) -> Option<DeviceMemory> {
        let Device::Cuda(device) = &self.device else { return None };
        let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
        Some(DeviceMemory { used: total.saturating_sub(free), total })
    }

    /// `f32`, `bf16`, `f16` or `q8`.
    pub fn dtype_name(&self) -> &'static str {
        if self.quantised { "q8" } else { self.dtype.as_str() }
    }
}

/// Opens the device that is asked for. `auto` never fails: it logs why it settles for the CPU.
pub fn choose(device: DeviceChoice, dtype: DtypeChoice) -> Result<Chosen, DeviceError> {
    dtype.check(device)?;
    let quantised = dtype == DtypeChoice::Q8;
    let device = match device {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(ordinal) => open_cuda(ordinal)?,
        DeviceChoice::Auto if quantised => {
            tracing::info!("the model runs on the CPU: q8 is computed nowhere else");
            Device::Cpu
        }
        DeviceChoice::Auto => match open_cuda(0) {
            Ok(device) => device,
            Err(DeviceError::NotBuilt) => Device::Cpu,
            Err(why) => {
                tracing::warn!("the model runs on the CPU: {why}");
                Device::Cpu
            }
        },
    };
    let dtype = match dtype {
        DtypeChoice::F32 | DtypeChoice::Q8 => DType::F32,
        DtypeChoice::Bf16 => DType::BF16,
        DtypeChoice::F16 => DType::F16,
        DtypeChoice::Auto if device.is_cuda() => DType::BF16,
        DtypeChoice::Auto => DType::F32,
    };
    if device.is_cpu() && dtype != DType::F32 {
        tracing::warn!("{} on the CPU is several times slower than f32: use dtype = \"f32\"", dtype.as_str());
    }
    Ok(Chosen { device, dtype, quantised })
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Candle panics where a library is missing, so they are asked for first. The trial run finds a
/// driver too old for the kernels, or a chip they were not built for.
#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Device, DeviceError> {
    use cudarc::{cublas, curand, driver};
    // SAFETY: these only try to dlopen the library and report whether that worked.
    let libraries = unsafe {
        [
            ("the NVIDIA driver (libcuda)", driver::sys::is_culib_present()),
            ("cuBLAS (libcublas)", cublas::sys::is_culib_present()),
            ("cuRAND (libcurand)", curand::sys::is_culib_present()),
        ]
    };
    if let Some((name, _)) = libraries.into_iter().find(|(_, present)| !present) {
        return Err(DeviceError::NoLibrary(name));
    }
    let trial = || -> candle_core::Result<Device> {
        // A stream of its own: the model is loaded on one thread and used on another.
        let device = Device::new_cuda_with_stream(ordinal)?;
        let x = candle_core::Tensor::ones((16, 16), DType::F32, &device)?.to_dtype(DType::BF16)?;
        candle_nn::ops::softmax_last_dim(&x.matmul(&x)?)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        Ok(device)
    };
    trial().map_err(|e| DeviceError::Broken { ordinal, reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_runs_f32_unless_another_format_is_asked_for() {
        let chosen = choose(DeviceChoice::Cpu, DtypeChoice::Auto).unwrap();
        assert_eq!(chosen.to_string(), "cpu, f32");
        let chosen = choose(DeviceChoice::Cpu, DtypeChoice::Bf16).unwrap();
        assert_eq!(chosen.to_string(), "cpu, bf16");
    }

    #[test]
    fn q8_means_the_cpu_and_a_gpu_asked_for_by_name_is_an_error_that_says_what_to_do() {
        for device in [DeviceChoice::Cpu, DeviceChoice::Auto] {
            let chosen = choose(device, DtypeChoice::Q8).unwrap();
            assert_eq!(chosen.to_string(), "cpu, q8");
            assert!(chosen.dtype == DType::F32 && chosen.quantised);
        }
        let error = choose(DeviceChoice::Cuda(0), DtypeChoice::Q8).unwrap_err().to_string();
        assert!(error.contains("device = \"cpu\""), "{error}");
    }

    #[test]
    fn auto_always_finds_a_device_and_its_own_format() {
        let chosen = choose(DeviceChoice::Auto, DtypeChoice::Auto).unwrap();
        let expected = if chosen.device.is_cuda() { "cuda:0, bf16" } else { "cpu, f32" };
        assert_eq!(chosen.to_string(), expected);
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_that_this_build_cannot_use_is_an_error_that_says_what_to_do() {
        let error = choose(DeviceChoice::Cuda(0), DtypeChoice::Auto).unwrap_err().to_string();
        assert!(error.contains("--features cuda") && error.contains("device = \"cpu\""), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_does_not_exist_is_an_error_that_says_what_to_do() {
        let error = choose(DeviceChoice::Cuda(99), DtypeChoice::Auto).unwrap_err().to_string();
        assert!(error.contains("device = \"cpu\""), "{error}");
    }
}
