//! The memory that the CUDA driver keeps for this process, whether it is in use or not.

use cudarc::driver::{CudaContext, DriverError, sys};

/// The default memory pool of a device.
pub struct MemoryPool(sys::CUmemoryPool);

impl MemoryPool {
    /// The pool of a context's device. None if the device has no memory pools.
    pub fn of(context: &CudaContext) -> Result<Option<Self>, DriverError> {
        if !context.has_async_alloc() {
            return Ok(None);
        }
        let mut pool = std::ptr::null_mut();
        context.bind_to_thread()?;
        // SAFETY: it only writes the handle, which is valid as long as the device is.
        unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }.result()?;
        Ok(Some(Self(pool)))
    }

    /// Keeps freed memory in the pool. By default every synchronisation returns it to the driver, and the next
    /// operations have to allocate it again.
    pub fn keep_all(&self) -> Result<(), DriverError> {
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        let mut most = u64::MAX;
        // SAFETY: the attribute is a number of 64 bits.
        unsafe { sys::cuMemPoolSetAttribute(self.0, attribute, (&raw mut most).cast()) }.result()
    }

    /// Returns memory that is not in use to the driver.
    pub fn trim(&self) -> Result<(), DriverError> {
        // SAFETY: it touches nothing that is in use.
        unsafe { sys::cuMemPoolTrimTo(self.0, 0) }.result()
    }

    /// Bytes that the pool has taken from the driver.
    pub fn reserved(&self) -> Option<usize> {
        self.bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
    }

    /// Bytes of the pool that are in use.
    pub fn used(&self) -> Option<usize> {
        self.bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
    }

    /// The most bytes of the pool that were in use since [`MemoryPool::reset_peak`].
    pub fn peak(&self) -> Option<usize> {
        self.bytes(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
    }

    /// Makes the current use the peak.
    pub fn reset_peak(&self) {
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let mut none = 0u64;
        // SAFETY: the attribute is a number of 64 bits. An error shows as a peak that is too high.
        let _ = unsafe { sys::cuMemPoolSetAttribute(self.0, attribute, (&raw mut none).cast()) };
    }

    fn bytes(&self, attribute: sys::CUmemPool_attribute) -> Option<usize> {
        let mut bytes = 0u64;
        // SAFETY: these attributes are numbers of 64 bits.
        let read = unsafe { sys::cuMemPoolGetAttribute(self.0, attribute, (&raw mut bytes).cast()) };
        read.result().ok().map(|()| bytes as usize)
    }
}
