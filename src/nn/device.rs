//! Chooses the device and number format. The user's choice comes in (`auto` takes a GPU if one works, else the CPU);
//! a candle device and dtype go out.

use std::fmt;

use candle_core::{DType, Device, DeviceLocation};

use super::{
    error::DeviceError,
    host,
    kernels::cpu::product::{Numbers, instructions},
};
#[cfg(feature = "cuda")]
use super::{error::DeviceFailure, memory_pool::MemoryPool};
use crate::device::{DeviceChoice, DeviceMemory, DtypeChoice, GpuInfo, KernelChoice};

/// The device and number format that a model runs in.
#[derive(Clone, Debug)]
pub struct ComputeTarget {
    /// Where tensors are.
    pub device: Device,
    /// The number format of tensors.
    pub dtype: DType,
    /// None on the CPU.
    pub gpu: Option<GpuInfo>,
    /// The weights of linear layers are held in 8 bits; the rest is `dtype`.
    pub quantised: bool,
    /// Which kernels are wanted, and after loading which ones run.
    pub kernels: KernelChoice,
}

impl fmt::Display for ComputeTarget {
    /// `cpu, f32`, as logs show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.device_name(), self.dtype_name())
    }
}

impl ComputeTarget {
    /// `cpu` or `cuda:N`.
    pub fn device_name(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    /// How full the GPU's memory is. None on the CPU, which has none of its own.
    #[cfg(not(feature = "cuda"))]
    pub fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// How full the GPU's memory is. None on the CPU, which has none of its own.
    #[cfg(feature = "cuda")]
    pub fn memory(&self) -> Option<DeviceMemory> {
        let Device::Cuda(device) = &self.device else { return None };
        let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
        let kept = self.pool().and_then(|pool| Some(pool.reserved()?.saturating_sub(pool.used()?)));
        Some(DeviceMemory { used: total.saturating_sub(free).saturating_sub(kept.unwrap_or(0)), total })
    }

    /// Free memory in bytes: the GPU's, or what this process may still take of the machine's. None if unknown.
    pub fn free_memory(&self) -> Option<usize> {
        if self.device.is_cpu() {
            return host::available_memory();
        }
        self.memory().map(|DeviceMemory { used, total }| total - used)
    }

    /// Returns pooled memory that is not in use to the GPU, after a batch that was too large.
    pub fn trim_pool(&self) {
        #[cfg(feature = "cuda")]
        if let Some(pool) = self.pool() {
            // Memory becomes free when the GPU has done the work queued before.
            let done = self.device.synchronize();
            if let Err(e) = done.and_then(|()| pool.trim().map_err(candle_core::Error::wrap)) {
                tracing::warn!("unused memory of the GPU cannot be released: {e}");
            }
        }
    }

    /// Starts a new peak for [`ComputeTarget::peak_memory`].
    pub fn reset_peak(&self) {
        #[cfg(feature = "cuda")]
        if let Some(pool) = self.pool() {
            pool.reset_peak();
        }
    }

    /// The most bytes of the GPU's memory that were in use at a time since [`ComputeTarget::reset_peak`], by all
    /// processes. None on the CPU.
    #[cfg(not(feature = "cuda"))]
    pub fn peak_memory(&self) -> Option<usize> {
        None
    }

    /// The most bytes of the GPU's memory that were in use at a time since [`ComputeTarget::reset_peak`], by all
    /// processes. None on the CPU.
    #[cfg(feature = "cuda")]
    pub fn peak_memory(&self) -> Option<usize> {
        let pool = self.pool()?;
        Some(self.memory()?.used.saturating_sub(pool.used()?) + pool.peak()?)
    }

    #[cfg(feature = "cuda")]
    fn pool(&self) -> Option<MemoryPool> {
        let Device::Cuda(device) = &self.device else { return None };
        MemoryPool::of(device.cuda_stream().context()).ok()?
    }

    /// The name of the GPU or of the processor.
    pub fn hardware(&self) -> String {
        self.gpu
            .as_ref()
            .map(|gpu| gpu.name.clone())
            .or_else(host::processor)
            .unwrap_or_else(|| "unknown".into())
    }

    /// How the weights of linear layers are packed. None if they stay plain tensors.
    pub fn packing(&self) -> Option<Numbers> {
        let own = self.device.is_cpu() && self.dtype == DType::F32 && self.kernels != KernelChoice::Candle;
        if self.quantised { Some(Numbers::Int8) } else { own.then_some(Numbers::Exact) }
    }

    /// Which kernels, and on the CPU with which instructions: `own, AVX2`, as logs show it.
    pub fn kernels_name(&self) -> String {
        let kernels = self.kernels.as_str();
        match self.packing() {
            Some(numbers) => format!("{kernels}, {}", instructions(numbers)),
            None => kernels.into(),
        }
    }

    /// `f32`, `bf16`, `f16` or `q8`.
    pub fn dtype_name(&self) -> &'static str {
        if self.quantised { "q8" } else { self.dtype.as_str() }
    }
}

/// Opens the device that is asked for. With `auto` it falls back to the CPU and logs why.
///
/// # Errors
/// When a GPU that was asked for by number cannot be used, or not in this number format.
pub fn choose(device: DeviceChoice, dtype: DtypeChoice) -> Result<ComputeTarget, DeviceError> {
    dtype.check(device)?;
    let quantised = dtype == DtypeChoice::Q8;
    let cpu = (Device::Cpu, None);
    let gpu = |(device, gpu)| (device, Some(gpu));
    let (device, gpu) = match device {
        DeviceChoice::Cpu => cpu,
        DeviceChoice::Cuda(ordinal) => gpu(open_cuda(ordinal)?),
        DeviceChoice::Auto if quantised => {
            tracing::info!("the model runs on the CPU: q8 is computed nowhere else");
            cpu
        }
        DeviceChoice::Auto => match open_cuda(0) {
            Ok(opened) => gpu(opened),
            Err(DeviceError::NotBuilt) => cpu,
            Err(why) => {
                tracing::warn!("the model runs on the CPU: {why}");
                cpu
            }
        },
    };
    if let Some(gpu) = &gpu {
        tracing::info!("GPU: {gpu}");
    }
    let dtype = match (dtype, &gpu) {
        (DtypeChoice::F32 | DtypeChoice::Q8, _) => DType::F32,
        (DtypeChoice::Bf16, _) => DType::BF16,
        (DtypeChoice::F16, _) => DType::F16,
        (DtypeChoice::Auto, Some(gpu)) if has_bf16(gpu) => DType::BF16,
        (DtypeChoice::Auto, _) => DType::F32,
    };
    if device.is_cpu() && dtype != DType::F32 {
        tracing::warn!("{} on the CPU is several times slower than f32: use dtype = \"f32\"", dtype.as_str());
    }
    Ok(ComputeTarget { device, dtype, quantised, gpu, kernels: KernelChoice::default() })
}

/// From compute capability 8.0 on (CUDA C++ Programming Guide, table of arithmetic by capability).
pub fn has_bf16(gpu: &GpuInfo) -> bool {
    gpu.compute_capability.split('.').next().and_then(|major| major.parse::<u32>().ok()) >= Some(8)
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize) -> Result<(Device, GpuInfo), DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Opens a GPU. Candle panics if a library is missing, so their presence is checked first. A small computation finds
/// a driver that is too old for candle's kernels, or a GPU that they were not built for.
#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<(Device, GpuInfo), DeviceError> {
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
    let open = || -> candle_core::Result<Device> {
        // A stream of its own: the model is loaded on one thread and used on another.
        let device = Device::new_cuda_with_stream(ordinal)?;
        let stream = device.as_cuda_device()?.cuda_stream();
        // Events synchronise streams, and there is only this one.
        // SAFETY: nothing of the device is used on another stream.
        unsafe { stream.context().disable_event_tracking() };
        let kept =
            MemoryPool::of(stream.context()).and_then(|pool| pool.map_or(Ok(()), |pool| pool.keep_all()));
        if let Err(e) = kept {
            tracing::warn!("the GPU's memory pool cannot be kept, which makes it slower: {e}");
        }
        let x = candle_core::Tensor::ones((16, 16), DType::F32, &device)?;
        candle_nn::ops::softmax_last_dim(&x.matmul(&x)?)?.to_vec2::<f32>()?;
        Ok(device)
    };
    let failed = |reason: String| DeviceError::Failed { ordinal, failure: DeviceFailure::classify(&reason) };
    let device = open().map_err(|e| failed(e.to_string()))?;
    let gpu = describe(&device).map_err(|e| failed(e.to_string()))?;
    Ok((device, gpu))
}

/// Describes a GPU, as the driver does.
#[cfg(feature = "cuda")]
fn describe(device: &Device) -> Result<GpuInfo, cudarc::driver::DriverError> {
    let stream = device.as_cuda_device().expect("it was opened as one").cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability()?;
    let (free_bytes, memory_bytes) = context.mem_get_info()?;
    let mut version = 0;
    // SAFETY: it only writes the number.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(GpuInfo {
        name: context.name()?,
        compute_capability: format!("{major}.{minor}"),
        // 13020 is 13.2.
        cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
        memory_bytes,
        free_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_runs_f32_unless_another_format_is_asked_for() {
        let target = choose(DeviceChoice::Cpu, DtypeChoice::Auto).unwrap();
        assert_eq!(target.to_string(), "cpu, f32");
        let target = choose(DeviceChoice::Cpu, DtypeChoice::Bf16).unwrap();
        assert_eq!(target.to_string(), "cpu, bf16");
    }

    #[test]
    fn q8_means_the_cpu_and_a_gpu_asked_for_by_name_is_an_error_that_says_what_to_do() {
        for device in [DeviceChoice::Cpu, DeviceChoice::Auto] {
            let target = choose(device, DtypeChoice::Q8).unwrap();
            assert_eq!(target.to_string(), "cpu, q8");
            assert!(target.dtype == DType::F32 && target.quantised);
        }
        let error = choose(DeviceChoice::Cuda(0), DtypeChoice::Q8).unwrap_err().to_string();
        assert!(error.contains("device = \"cpu\""), "{error}");
    }

    #[test]
    fn auto_always_finds_a_device_and_its_own_format() {
        let target = choose(DeviceChoice::Auto, DtypeChoice::Auto).unwrap();
        let expected = if target.device.is_cuda() { "cuda:0, bf16" } else { "cpu, f32" };
        assert_eq!(target.to_string(), expected);
    }

    #[test]
    fn chips_without_bf16_are_known() {
        let gpu = |compute_capability: &str| GpuInfo {
            name: "GPU".into(),
            compute_capability: compute_capability.into(),
            cuda: "13.0".into(),
            memory_bytes: 3 << 30,
            free_bytes: 1 << 30,
        };
        assert_eq!(["7.5", "8.0", "12.0"].map(|it| has_bf16(&gpu(it))), [false, true, true]);
        let text = "GPU (compute capability 7.5, driver for CUDA 13.0, 1.0 of 3.0 GiB free)";
        assert_eq!(gpu("7.5").to_string(), text);
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
