//! Which device the model runs on, and in which number format. The user's wish comes in (`auto`
//! takes a GPU where one works and falls back to the CPU); a candle device and dtype go out.

use std::{fmt, fs, path::Path};

use candle_core::{DType, Device, DeviceLocation};

use super::{super::DeviceMemory, cpu::QuantisedOp};
use crate::device::{CpuOnly, DeviceChoice, DtypeChoice, Gpu, KernelChoice};

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
    /// None on the CPU.
    pub gpu: Option<Gpu>,
    /// The weights of the decoder's linear layers are held in 8 bits; the rest is `dtype`.
    pub quantised: bool,
    /// Which operations compute.
    pub kernels: KernelChoice,
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
        let kept = self.pool().and_then(|pool| Some(pool.reserved()?.saturating_sub(pool.used()?)));
        Some(DeviceMemory { used: total.saturating_sub(free).saturating_sub(kept.unwrap_or(0)), total })
    }

    /// Bytes that a batch may take; nothing where that is not known.
    pub fn free_memory(&self) -> Option<usize> {
        if self.device.is_cpu() {
            return available();
        }
        self.memory().map(|DeviceMemory { used, total }| total - used)
    }

    /// Gives memory back to the GPU that was kept for later, after a batch that was too large.
    pub fn give_back(&self) {
        #[cfg(feature = "cuda")]
        if let Some(pool) = self.pool() {
            // What was freed is free when the GPU has got there.
            let done = self.device.synchronize();
            if let Err(e) = done.and_then(|()| pool.trim().map_err(candle_core::Error::wrap)) {
                tracing::warn!("unused memory of the GPU cannot be given back: {e}");
            }
        }
    }

    /// From now on [`Chosen::peak_memory`] counts.
    pub fn forget_peak(&self) {
        #[cfg(feature = "cuda")]
        if let Some(pool) = self.pool() {
            pool.forget_peak();
        }
    }

    /// The most bytes of the device's memory that were in use at a time, by whomever; the CPU has none of
    /// its own.
    #[cfg(not(feature = "cuda"))]
    pub fn peak_memory(&self) -> Option<usize> {
        None
    }

    /// The most bytes of the device's memory that were in use at a time, by whomever; the CPU has none of
    /// its own.
    #[cfg(feature = "cuda")]
    pub fn peak_memory(&self) -> Option<usize> {
        let pool = self.pool()?;
        Some(self.memory()?.used.saturating_sub(pool.used()?) + pool.peak()?)
    }

    #[cfg(feature = "cuda")]
    fn pool(&self) -> Option<Pool> {
        let Device::Cuda(device) = &self.device else { return None };
        Pool::of(device.cuda_stream().context()).ok()?
    }

    /// What its maker calls it.
    pub fn hardware(&self) -> String {
        self.gpu.as_ref().map(|gpu| gpu.name.clone()).or_else(processor).unwrap_or_else(|| "unknown".into())
    }

    /// Bytes that a weight of the decoder's linear layers takes.
    pub fn decoder_weight_bytes(&self) -> f64 {
        if self.quantised { QuantisedOp::WEIGHT_BYTES } else { self.dtype.size_in_bytes() as f64 }
    }

    /// `f32`, `bf16`, `f16` or `q8`.
    pub fn dtype_name(&self) -> &'static str {
        if self.quantised { "q8" } else { self.dtype.as_str() }
    }
}

/// The processor's name, as Linux tells it.
fn processor() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().into())
}

/// Bytes that this process may take before the machine runs short of memory, or the limit of its control
/// group is reached (proc_meminfo(5); memory.max and memory.stat of the kernel's cgroup v2).
fn available() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).map(|group| root.join(group));
    // Each group above it may have a limit, too.
    let above = own.iter().flat_map(|group| group.ancestors()).take_while(|group| group.starts_with(root));
    Some(above.filter_map(left_of_limit).fold(free, usize::min))
}

/// Nothing where the group has no limit.
fn left_of_limit(group: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let bytes = |name: &str| read(name)?.trim().parse::<usize>().ok();
    let (most, taken) = (bytes("memory.max")?, bytes("memory.current")?);
    let stat = read("memory.stat")?;
    let of = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    // What was read from files goes when its memory is wanted; files that are nowhere else do not.
    let files = of("file ")?.saturating_sub(of("shmem ")?);
    Some((most + files).saturating_sub(taken))
}

/// Opens the device that is asked for. `auto` never fails: it logs why it settles for the CPU.
pub fn choose(device: DeviceChoice, dtype: DtypeChoice) -> Result<Chosen, DeviceError> {
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
    Ok(Chosen { device, dtype, quantised, gpu, kernels: KernelChoice::default() })
}

/// Whether an error's text tells of too little memory, as the CUDA driver and cuBLAS do: candle's errors
/// carry their words.
pub fn is_out_of_memory(error: &str) -> bool {
    ["OUT_OF_MEMORY", "ALLOC_FAILED"].iter().any(|words| error.contains(words))
}

/// From compute capability 8.0 on (CUDA C++ Programming Guide, table of arithmetic by capability).
pub fn has_bf16(gpu: &Gpu) -> bool {
    gpu.compute_capability.split('.').next().and_then(|major| major.parse::<u32>().ok()) >= Some(8)
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize) -> Result<(Device, Gpu), DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Candle panics where a library is missing, so they are asked for first. The trial run finds a
/// driver too old for the kernels, or a chip they were not built for.
#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<(Device, Gpu), DeviceError> {
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
        let stream = device.as_cuda_device()?.cuda_stream();
        // Events would keep apart streams, and there is this one alone.
        // SAFETY: nothing of the device is used on another stream.
        unsafe { stream.context().disable_event_tracking() };
        let kept = Pool::of(stream.context()).and_then(|pool| pool.map_or(Ok(()), |pool| pool.keep_all()));
        if let Err(e) = kept {
            tracing::warn!("the GPU's memory is asked for again and again, which is slower: {e}");
        }
        let x = candle_core::Tensor::ones((16, 16), DType::F32, &device)?;
        candle_nn::ops::softmax_last_dim(&x.matmul(&x)?)?.to_vec2::<f32>()?;
        Ok(device)
    };
    let broken = |reason: String| DeviceError::Broken { ordinal, reason };
    let device = trial().map_err(|e| broken(e.to_string()))?;
    let gpu = described(&device).map_err(|e| broken(e.to_string()))?;
    Ok((device, gpu))
}

/// The memory that the driver has taken for this process, used or not.
#[cfg(feature = "cuda")]
struct Pool(cudarc::driver::sys::CUmemoryPool);

#[cfg(feature = "cuda")]
impl Pool {
    /// Nothing where the device has none.
    fn of(context: &cudarc::driver::CudaContext) -> Result<Option<Self>, cudarc::driver::DriverError> {
        if !context.has_async_alloc() {
            return Ok(None);
        }
        let mut pool = std::ptr::null_mut();
        context.bind_to_thread()?;
        // SAFETY: it only writes the handle, which is valid as long as the device is.
        unsafe { cudarc::driver::sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }.result()?;
        Ok(Some(Self(pool)))
    }

    /// What is freed stays in the pool: else every wait for the GPU would give it back, and the next
    /// operations would have to ask for it again.
    fn keep_all(&self) -> Result<(), cudarc::driver::DriverError> {
        use cudarc::driver::sys::{CUmemPool_attribute, cuMemPoolSetAttribute};
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut most = u64::MAX;
        // SAFETY: the attribute is a number of 64 bits.
        unsafe { cuMemPoolSetAttribute(self.0, attribute, (&raw mut most).cast()) }.result()
    }

    /// Gives back what is not in use.
    fn trim(&self) -> Result<(), cudarc::driver::DriverError> {
        // SAFETY: it touches nothing that is in use.
        unsafe { cudarc::driver::sys::cuMemPoolTrimTo(self.0, 0) }.result()
    }

    /// Bytes that were taken.
    fn reserved(&self) -> Option<usize> {
        self.bytes(cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
    }

    /// Bytes of them that are in use.
    fn used(&self) -> Option<usize> {
        self.bytes(cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
    }

    /// The most bytes that were in use.
    fn peak(&self) -> Option<usize> {
        self.bytes(cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    fn forget_peak(&self) {
        let attribute = cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let mut none = 0u64;
        // SAFETY: the attribute is a number of 64 bits. What goes wrong shows as a peak that is too high.
        let _ =
            unsafe { cudarc::driver::sys::cuMemPoolSetAttribute(self.0, attribute, (&raw mut none).cast()) };
    }

    fn bytes(&self, attribute: cudarc::driver::sys::CUmemPool_attribute) -> Option<usize> {
        let mut bytes = 0u64;
        // SAFETY: these attributes are numbers of 64 bits.
        let read =
            unsafe { cudarc::driver::sys::cuMemPoolGetAttribute(self.0, attribute, (&raw mut bytes).cast()) };
        read.result().ok().map(|()| bytes as usize)
    }
}

/// What the driver says of a GPU.
#[cfg(feature = "cuda")]
fn described(device: &Device) -> Result<Gpu, cudarc::driver::DriverError> {
    let stream = device.as_cuda_device().expect("it was opened as one").cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability()?;
    let (free_bytes, memory_bytes) = context.mem_get_info()?;
    let mut version = 0;
    // SAFETY: it only writes the number.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(Gpu {
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

    #[test]
    fn free_memory_heeds_the_limit_of_the_group() {
        let chosen = choose(DeviceChoice::Cpu, DtypeChoice::Auto).unwrap();
        assert!(chosen.free_memory() > Some(1 << 20));
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\nfile 300\nshmem 50\nfile_mapped 9\n");
        assert_eq!(left_of_limit(group.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(left_of_limit(group.path()), Some(550));
    }

    #[test]
    fn too_little_memory_is_told_from_other_failures() {
        assert!(is_out_of_memory("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")"));
        assert!(is_out_of_memory("the 2.2B model: CublasError(CUBLAS_STATUS_ALLOC_FAILED)"));
        assert!(!is_out_of_memory("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"illegal\")"));
    }

    #[test]
    fn chips_without_bf16_are_known() {
        let gpu = |compute_capability: &str| Gpu {
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
