//! Tensors as kernels see them: memory to be filled, and its address.

use candle_core::{CpuStorage, DType, Storage, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, cuda_backend::CudaStorageSlice};
#[cfg(feature = "cuda")]
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};

use super::super::super::error::Result;

/// An address in the device's memory; 0 is none.
pub type Pointer = u64;

/// A tensor that a kernel is going to fill.
pub fn empty(shape: &[usize], dtype: DType, beside: &Tensor) -> Result<Tensor> {
    // SAFETY: whoever asks launches a kernel that writes all of it.
    unsafe { Tensor::empty(shape, dtype, beside.device()) }
}

pub fn empty_like(x: &Tensor) -> Result<Tensor> {
    empty(x.dims(), x.dtype(), x)
}

/// Where a contiguous part of a tensor, or a view of one, begins.
pub fn pointer(x: &Tensor) -> Result<Pointer> {
    let (storage, layout) = x.storage_and_layout();
    let first = match &*storage {
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => start(storage)?,
        Storage::Cpu(CpuStorage::F32(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::BF16(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U32(numbers)) => numbers.as_ptr() as Pointer,
        Storage::Cpu(CpuStorage::U8(numbers)) => numbers.as_ptr() as Pointer,
        _ => candle_core::bail!("kernels take no {}", x.dtype().as_str()),
    };
    Ok(first + (layout.start_offset() * x.dtype().size_in_bytes()) as Pointer)
}

/// Where its memory begins.
#[cfg(feature = "cuda")]
fn start(storage: &CudaStorage) -> Result<Pointer> {
    fn of<T: DeviceRepr>(numbers: &CudaSlice<T>) -> Pointer {
        numbers.device_ptr(numbers.stream()).0
    }
    Ok(match &storage.slice {
        CudaStorageSlice::F32(numbers) => of(numbers),
        CudaStorageSlice::BF16(numbers) => of(numbers),
        CudaStorageSlice::U32(numbers) => of(numbers),
        CudaStorageSlice::U8(numbers) => of(numbers),
        _ => candle_core::bail!("kernels take no such numbers"),
    })
}
