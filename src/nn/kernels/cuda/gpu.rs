//! The backend for a GPU: the CUDA driver launches the kernels and captures graphs, cuBLAS and cuBLASLt multiply
//! matrices. Everything runs in the one stream that candle uses for the device.

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

/// The kernels, compiled to PTX by build.rs.
const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
/// Bytes of scratch memory for cuBLAS. Without a workspace of ours, cuBLAS would allocate one in every capture. 32 MiB
/// is what NVIDIA recommends for Hopper (cuBLAS documentation, `cublasSetWorkspace`).
const WORKSPACE: usize = 32 << 20;

/// A GPU.
pub struct CudaBackend {
    device: CudaDevice,
    /// The kernels by name. Looking one up in the driver may take longer than launching it.
    kernels: HashMap<&'static str, CudaFunction>,
    /// A handle of our own, because candle's has no workspace of ours.
    blas: CudaBlas,
    _workspace: CudaSlice<u8>,
    /// Linear layers with bias and GELU in one launch. None if the library is not installed.
    fused: Option<CudaBlasLT>,
    /// Staging buffers for uploads. One can be filled while the other is copied.
    staging: Mutex<[Staging; 2]>,
}

impl CudaBackend {
    /// Loads the kernels.
    ///
    /// # Errors
    /// When the GPU does not support the kernels, or has too little memory.
    pub fn new(device: &CudaDevice) -> Result<Self> {
        let module = device.cuda_stream().context().load_module(KERNELS.into()).w()?;
        let kernels = kernel_names(KERNELS).map(|name| Ok((name, module.load_function(name).w()?)));
        let kernels = kernels.collect::<Result<_>>()?;
        let workspace = device.alloc_zeros::<u8>(WORKSPACE)?;
        let (at, _) = workspace.device_ptr(workspace.stream());
        let blas = CudaBlas::new(device.cuda_stream()).w()?;
        // SAFETY: the memory is freed after the handle.
        unsafe { cublas::sys::cublasSetWorkspace_v2(*blas.handle(), at as *mut c_void, WORKSPACE) }
            .result()
            .w()?;
        // SAFETY: this only tries to load the library.
        let fused = if unsafe { cublaslt::sys::is_culib_present() } {
            // cudarc panics if its own workspace cannot be allocated, so try that first.
            drop(device.alloc_zeros::<u8>(WORKSPACE)?);
            Some(CudaBlasLT::new(device.cuda_stream()).map_err(Error::wrap)?)
        } else {
            None
        };
        // The buffers grow with the largest upload.
        let staging = Mutex::new([Staging::new(device, 1)?, Staging::new(device, 1)?]);
        Ok(Self { device: device.clone(), kernels, blas, _workspace: workspace, fused, staging })
    }

    fn tensor<T: CudaDType>(&self, elements: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(elements, self.device.clone()));
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
        // SAFETY: the caller guarantees it.
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
            candle_core::bail!(
                "shapes do not match: {:?} = {:?} {:?}^T",
                out.dims(),
                x.dims(),
                weight.dims()
            );
        }
        let format = |x: &Tensor| match x.dtype() {
            DType::F32 => Ok(cudaDataType_t::CUDA_R_32F),
            DType::BF16 => Ok(cudaDataType_t::CUDA_R_16BF),
            other => candle_core::bail!("the kernels do not support {}", other.as_str()),
        };
        let (one, zero) = (1f32, 0f32);
        self.device.cuda_stream().context().bind_to_thread().w()?;
        // cuBLAS matrices are column-major: a row here is a column there, so it computes out^T = W x^T.
        // SAFETY: the operands are contiguous and have these sizes.
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
        // With f32, cuBLASLt would compute in TF32. cudarc promises it operands aligned to 256 bytes, as whole allocations
        // are. It is slow, or fails, if rows are not multiples of 16 bytes.
        let aligned = [x, weight, bias].iter().all(|x| x.layout().start_offset() == 0)
            && [inputs, outputs].iter().all(|row| row.is_multiple_of(8));
        let (Some(fused), DType::BF16, true) = (&self.fused, x.dtype(), aligned) else { return Ok(None) };
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
        // SAFETY: the product writes all of it.
        let mut out = unsafe { self.device.alloc::<bf16>(rows * outputs) }?;
        let (x, weight, bias) =
            (x.storage_and_layout(), weight.storage_and_layout(), bias.storage_and_layout());
        let (x, weight, bias) = (view(&x.0, x.1)?, view(&weight.0, weight.1)?, view(&bias.0, bias.1)?);
        let gelu = gelu.then_some(&Activation::Gelu);
        // Column-major, see `multiply`.
        // SAFETY: the operands are contiguous and have these sizes.
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
        // SAFETY: the copy writes all of it.
        let mut uploaded = unsafe { self.device.alloc::<u8>(bytes.len()) }?;
        let queued =
            stream.memcpy_htod(&*staged, &mut uploaded).and_then(|()| staging.copied.record(&stream));
        if let Err(e) = queued {
            // The copy may have been queued without an event that marks its end.
            stream.synchronize().w()?;
            return Err(e).w();
        }
        Ok(self.tensor(uploaded, bytes.len()))
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Box<dyn Graph>>> {
        let stream = self.device.cuda_stream();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = work();
        // End the capture even after an error, because the stream is unusable until then. The first call may return an
        // older error without ending the capture; then the second call ends it.
        let end = || stream.end_capture(CUgraphInstantiate_flags(0));
        let ended = |status| status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        let graph = end().or_else(|e| if stream.capture_status().is_ok_and(ended) { Err(e) } else { end() });
        done?;
        Ok(graph.w()?.map(|graph| Box::new(graph) as Box<dyn Graph>))
    }
}

/// A buffer in page-locked memory, from which the GPU copies while the CPU continues.
struct Staging {
    bytes: PinnedHostSlice<u8>,
    /// Marks the end of the last copy from the buffer. cudarc has such an event, too, but records it only with event
    /// tracking, which is disabled for our device.
    copied: CudaEvent,
}

impl Staging {
    fn new(device: &CudaDevice, bytes: usize) -> Result<Self> {
        let stream = device.cuda_stream();
        // SAFETY: it is written before it is read.
        let bytes = unsafe { stream.context().alloc_pinned(bytes) }.w()?;
        let copied = stream.context().new_event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC)).w()?;
        Ok(Self { bytes, copied })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The memory must not be freed before the copy has ended. If waiting fails, the GPU has stopped.
        let _ = self.copied.synchronize();
    }
}

impl Graph for CudaGraph {
    unsafe fn replay(&self) -> Result<()> {
        self.launch().w()
    }
}

/// The names of the kernels in a PTX module.
fn kernel_names(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.split(".entry ").skip(1).filter_map(|kernel| Some(kernel.split_once('(')?.0))
}

/// The elements of a contiguous bf16 tensor on the GPU.
fn view<'a>(storage: &'a Storage, layout: &Layout) -> Result<CudaView<'a, bf16>> {
    let (Storage::Cuda(storage), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("not on the GPU, or not contiguous");
    };
    Ok(storage.as_cuda_slice::<bf16>()?.slice(from..to))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{
        device::{DeviceChoice, DtypeChoice},
        nn::device::choose,
    };

    #[test]
    fn kernels_are_found_by_name() {
        let names: Vec<_> = kernel_names(KERNELS).collect();
        for kernel in ["patches_f32", "attention_72_2", "gemv_swiglu_4_bf16", "argmax"] {
            assert!(names.contains(&kernel), "{kernel} is not in {names:?}");
        }
    }

    #[test]
    #[ignore = "needs a GPU: run it there with --features cuda -- --ignored"]
    fn uploads_in_quick_succession_arrive_complete() {
        let target = choose(DeviceChoice::Auto, DtypeChoice::Auto).unwrap();
        let Device::Cuda(device) = &target.device else { panic!("there is no GPU") };
        let gpu = CudaBackend::new(device).unwrap();
        let bytes = |i: usize| vec![i as u8; (i % 5 + 1) << 22];
        let uploaded: Vec<Tensor> = (0..20).map(|i| gpu.upload(&bytes(i)).unwrap()).collect();
        for (i, uploaded) in uploaded.iter().enumerate() {
            assert!(uploaded.to_vec1::<u8>().unwrap() == bytes(i), "upload {i}");
        }
    }
}
