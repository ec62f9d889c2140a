//! Tensors as kernels see them: uninitialised memory, and addresses.

use candle_core::{CpuStorage, DType, Storage, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, cuda_backend::CudaStorageSlice};
#[cfg(feature = "cuda")]
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};

use crate::nn::error::Result;

/// An address in the device's memory. 0 is a null pointer.
pub type Pointer = u64;

/// An uninitialised tensor on the device of `like`. The caller must launch a kernel that writes all of it.
///
/// # Errors
/// When the device has too little memory.
pub fn empty(shape: &[usize], dtype: DType, like: &Tensor) -> Result<Tensor> {
    // SAFETY: the callers launch a kernel that writes all of it.
    unsafe { Tensor::empty(shape, dtype, like.device()) }
}

/// [`empty`] with the shape and format of `x`.
///
/// # Errors
/// When the device has too little memory.
pub fn empty_like(x: &Tensor) -> Result<Tensor> {
    empty(x.dims(), x.dtype(), x)
}

/// The address of the first element of a tensor or a view.
///
/// # Errors
/// When the kernels do not support the element type.
pub fn pointer(x: &Tensor) -> Result<Pointer> {
    let (storage, layout) = x.storage_and_layout();
    let base = match &*storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => base_address(storage)?,
        Storage::Cpu(CpuStorage::F32(elements)) => elements.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::BF16(elements)) => elements.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U32(elements)) => elements.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U8(elements)) => elements.as_ptr() as Pointer,
        _ => candle_core::bail!("the kernels do not support {}", x.dtype().as_str()),
    };
    Ok(base + (layout.start_offset() * x.dtype().size_in_bytes()) as Pointer)
}

/// The address of the first element of a storage on the GPU.
#[cfg(feature = "cuda")]
fn base_address(storage: &CudaStorage) -> Result<Pointer> {
    fn of<T: DeviceRepr>(elements: &CudaSlice<T>) -> Pointer {
        elements.device_ptr(elements.stream()).0
    }
    Ok(match &storage.slice {
        CudaStorageSlice::F32(elements) => of(elements),
        CudaStorageSlice::BF16(elements) => of(elements),
        CudaStorageSlice::U32(elements) => of(elements),
        CudaStorageSlice::U8(elements) => of(elements),
        _ => candle_core::bail!("the kernels do not support this element type"),
    })
}
