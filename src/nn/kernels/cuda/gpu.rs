//! The kernels on a GPU: launched by the driver, matrices multiplied by cuBLAS, steps captured as CUDA
//! graphs. All of it in the one stream that candle uses for the device.

use std::{
    collections::HashMap,
    ffi::c_void,
    sync::{Mutex, PoisonError},
};

use candle_core::{
    CudaDevice, CudaStorage, DType, Error, Layout, Shape, Storage, Tensor,
    cuda_backend::{CudaDType, WrapErr},
    op::BackpropOp,
};
use cudarc::{
    cublas::{
        self, CudaBlas,
        sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t},
    },
    cublaslt::{self, Activation, CudaBlasLT, Matmul, MatmulConfig, sys::cublasStatus_t},
    driver::{
        CudaEvent, CudaFunction, CudaGraph, CudaSlice, CudaView, DevicePtr, PinnedHostSlice, result,
        sys::{CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode, CUstreamCaptureStatus},
    },
};
use half::bf16;

use super::{
    super::super::error::Result,
    backend::{Backend, Graph},
    tensors::pointer,
};

/// Made by build.rs.
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
/// What cuBLAS may use beside its operands. Its own would be allocated anew in every capture.
const WORKSPACE: usize = 32 << 20;

/// A GPU.
pub struct CudaBackend {
    device: CudaDevice,
    /// The kernels by name: looking one up in the driver takes longer than many a launch.
    kernels: HashMap<&'static str, CudaFunction>,
    /// Not candle's, so that it has a workspace of its own.
    blas: CudaBlas,
    _workspace: CudaSlice<u8>,
    /// For layers with a bias, which it adds on the way; nothing where the library is not there.
    fused: Option<CudaBlasLT>,
    /// Used in turn, so that one can be filled while the other is copied.
    staging: Mutex<[Staging; 2]>,
}

impl CudaBackend {
    /// # Errors
    /// When the GPU does not take the kernels, or has too little memory.
    pub fn new(device: &CudaDevice) -> Result<Self> {
        let module = device.cuda_stream().context().load_module(KERNELS.into()).w()?;
        let kernels = names(KERNELS).map(|name| Ok((name, module.load_function(name).w()?)));
        let kernels = kernels.collect::<Result<_>>()?;
        let workspace = device.alloc_zeros::<u8>(WORKSPACE)?;
        let (at, _) = workspace.device_ptr(workspace.stream());
        let blas = CudaBlas::new(device.cuda_stream()).w()?;
        // SAFETY: the memory is freed after the handle.
        unsafe { cublas::sys::cublasSetWorkspace_v2(*blas.handle(), at as *mut c_void, WORKSPACE) }
            .result()
            .w()?;
        // SAFETY: it only tries to load the library.
        let fused = if unsafe { cublaslt::sys::is_culib_present() } {
            // cudarc panics where there is no room for a second workspace.
            drop(device.alloc_zeros::<u8>(WORKSPACE)?);
            Some(CudaBlasLT::new(device.cuda_stream()).map_err(Error::wrap)?)
        } else {
            None
        };
        // They grow with what is uploaded.
        let staging = Mutex::new([Staging::new(device, 1)?, Staging::new(device, 1)?]);
        Ok(Self { device: device.clone(), kernels, blas, _workspace: workspace, fused, staging })
    }

    fn tensor<T: CudaDType>(&self, numbers: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(numbers, self.device.clone()));
        Tensor::from_storage(storage, shape, BackpropOp::none(), false)
    }
}

impl Backend for CudaBackend {
    unsafe fn launch(
        &self,
        kernel: &str,
        [x, y, z]: [u32; 3],
        threads: u32,
        (args, _): (*const c_void, usize),
    ) -> Result<()> {
        let Some(function) = self.kernels.get(kernel) else {
            candle_core::bail!("there is no kernel {kernel}")
        };
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        // SAFETY: the caller's promise.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (x, y, z),
                (threads, 1, 1),
                0,
                stream.cu_stream(),
                &mut [args.cast_mut()],
            )
        }
        .w()
    }

    fn multiply(&self, out: &Tensor, x: &Tensor, weight: &Tensor) -> Result<()> {
        let ((rows, inputs), (outputs, _)) = (x.dims2()?, weight.dims2()?);
        if out.dims() != [rows, outputs] || weight.dim(1)? != inputs {
            candle_core::bail!("{:?} is no product of {:?} and {:?}", out.dims(), x.dims(), weight.dims());
        }
        let format = |x: &Tensor| match x.dtype() {
            DType::F32 => Ok(cudaDataType_t::CUDA_R_32F),
            DType::BF16 => Ok(cudaDataType_t::CUDA_R_16BF),
            other => candle_core::bail!("kernels take no {}", other.as_str()),
        };
        let (one, zero) = (1f32, 0f32);
        self.device.cuda_stream().context().bind_to_thread().w()?;
        // cuBLAS counts by columns: what is a row here is a column there, so it multiplies W x^T.
        // SAFETY: the operands are contiguous and of these sizes.
        unsafe {
            cublas::result::gemm_ex(
                *self.blas.handle(),
                cublasOperation_t::CUBLAS_OP_T,
                cublasOperation_t::CUBLAS_OP_N,
                outputs as i32,
                rows as i32,
                inputs as i32,
                (&raw const one).cast(),
                pointer(weight)? as *const c_void,
                format(weight)?,
                inputs as i32,
                pointer(x)? as *const c_void,
                format(x)?,
                inputs as i32,
                (&raw const zero).cast(),
                pointer(out)? as *mut c_void,
                format(out)?,
                outputs as i32,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .w()
    }

    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &Tensor, gelu: bool) -> Result<Option<Tensor>> {
        let ((rows, inputs), (outputs, _)) = (x.dims2()?, weight.dims2()?);
        // In f32 this library would compute in TF32. It takes it that operands begin at multiples of 256 bytes,
        // as whole allocations do, and is slow, or refuses, where rows are no multiples of 16 bytes.
        let whole = [x, weight, bias].iter().all(|x| x.layout().start_offset() == 0)
            && [inputs, outputs].iter().all(|row| row.is_multiple_of(8));
        let (Some(fused), DType::BF16, true) = (&self.fused, x.dtype(), whole) else { return Ok(None) };
        let config = MatmulConfig {
            transa: true,
            transb: false,
            transc: false,
            m: outputs as u64,
            n: rows as u64,
            k: inputs as u64,
            alpha: 1.,
            lda: inputs as i64,
            ldb: inputs as i64,
            beta: 0.,
            ldc: outputs as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        // SAFETY: the product fills it.
        let mut out = unsafe { self.device.alloc::<bf16>(rows * outputs) }?;
        let (x, weight, bias) =
            (x.storage_and_layout(), weight.storage_and_layout(), bias.storage_and_layout());
        let (x, weight, bias) = (view(&x.0, x.1)?, view(&weight.0, weight.1)?, view(&bias.0, bias.1)?);
        let gelu = gelu.then_some(&Activation::Gelu);
        // cuBLAS counts by columns, see `multiply`.
        // SAFETY: the operands are contiguous and of these sizes.
        match unsafe { fused.matmul(config, &weight, &x, &mut out, Some(&bias), gelu) } {
            Ok(()) => Ok(Some(self.tensor(out, (rows, outputs)))),
            Err(cublaslt::result::CublasError(
                cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED
                | cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE
                | cublasStatus_t::CUBLAS_STATUS_ARCH_MISMATCH,
            )) => Ok(None),
            Err(e) => Err(Error::wrap(e)),
        }
    }

    fn upload(&self, bytes: &[u8]) -> Result<Tensor> {
        let stream = self.device.cuda_stream();
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        staging.swap(0, 1);
        let staging = &mut staging[0];
        staging.copied.synchronize().w()?;
        if staging.bytes.len() < bytes.len() {
            *staging = Staging::new(&self.device, bytes.len())?;
        }
        let staged = &mut staging.bytes.as_mut_slice().w()?[..bytes.len()];
        staged.copy_from_slice(bytes);
        // SAFETY: the copy fills it.
        let mut there = unsafe { self.device.alloc::<u8>(bytes.len()) }?;
        let queued = stream.memcpy_htod(&*staged, &mut there).and_then(|()| staging.copied.record(&stream));
        if let Err(e) = queued {
            // Whatever was queued has no event to wait for.
            stream.synchronize().w()?;
            return Err(e).w();
        }
        Ok(self.tensor(there, bytes.len()))
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
        let stream = self.device.cuda_stream();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = work();
        // Ended in any case: nothing else could be done with the stream. An error that another call has
        // left behind comes before the end itself, and only once.
        let end = || stream.end_capture(CUgraphInstantiate_flags(0));
        let over = |status| status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let graph = end().or_else(|e| if stream.capture_status().is_ok_and(over) { Err(e) } else { end() });
        done?;
        Ok(graph.w()?.map(|graph| Box::new(graph) as Box<dyn Graph>))
    }
}

/// Page-locked memory, which the GPU copies from while the CPU does something else.
struct Staging {
    bytes: PinnedHostSlice<u8>,
    /// Comes after the last copy out of it. Cudarc has an event for this itself, but records none where the
    /// device is opened without tracking, as ours is.
    copied: CudaEvent,
}

impl Staging {
    fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        let stream = device.cuda_stream();
        // SAFETY: it is filled before it is read.
        let bytes = unsafe { stream.context().alloc_pinned(bytes) }.w()?;
        let copied = stream.context().new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC)).w()?;
        Ok(Self { bytes, copied })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Before the memory is freed. Where waiting fails, the GPU does nothing any more.
        let _ = self.copied.synchronize();
    }
}

impl Graph for CudaGraph {
    unsafe fn replay(&self) -> Result<()> {
        self.launch().w()
    }
}

/// What the kernels of a module are called.
fn names(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.split(".entry ").skip(1).filter_map(|kernel| Some(kernel.split_once('(')?.0))
}

/// The numbers of a contiguous bf16 tensor on the GPU.
fn view<'a>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, bf16>> {
    let (Storage::Cuda(storage), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("not on the GPU, or not contiguous");
    };
    Ok(storage.as_cuda_slice::<bf16>()?.slice(from..to))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::{super::super::super::device::choose, *};
    use crate::device::{DeviceChoice, DtypeChoice};

    #[test]
    fn kernels_are_found_by_name() {
        let names: Vec<_> = names(KERNELS).collect();
        for kernel in ["patches_f32", "attention_72_2", "gemv_swiglu_4_bf16", "argmax"] {
            assert!(names.contains(&kernel), "{kernel} is none of {names:?}");
        }
    }

    #[test]
    fn uploads_arrive_whole_however_fast_they_follow_each_other() {
        let chosen = choose(DeviceChoice::Auto, DtypeChoice::Auto).unwrap();
        let Device::Cuda(device) = &chosen.device else { return println!("not run: there is no GPU") };
        let gpu = CudaBackend::new(device).unwrap();
        let bytes = |i: usize| vec![i as u8; (i % 5 + 1) << 22];
        let there: Vec<Tensor> = (0..20).map(|i| gpu.upload(&bytes(i)).unwrap()).collect();
        for (i, there) in there.iter().enumerate() {
            assert!(there.to_vec1::<u8>().unwrap() == bytes(i), "upload {i}");
        }
    }
}
