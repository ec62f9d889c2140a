//! What the operations on the CPU share: access to a tensor's elements, and the general matrix product.

use candle_core::{CpuStorage, Layout, Storage, Tensor};
use gemm::Parallelism;

use crate::nn::error::Result;

/// The elements of a contiguous f32 tensor.
///
/// # Errors
/// When the tensor is not contiguous or not f32.
pub fn contiguous_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("not contiguous") };
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Calls `f` with the elements of a contiguous f32 tensor.
///
/// # Errors
/// When the tensor is not on the CPU, not contiguous or not f32.
pub fn with_contiguous_f32<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => contiguous_f32(storage, layout).map(f),
        _ => candle_core::bail!("not on the CPU"),
    }
}

/// The strides of a matrix in a slice, in elements: from one row to the next, and from one column to the next.
#[derive(Clone, Copy)]
pub struct Strides(pub usize, pub usize);

impl Strides {
    /// Whether a matrix of this size lies within `len` elements.
    pub fn fit(self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.0 + (columns - 1) * self.1 < len
    }
}

/// The general matrix product `dst = a b`: `a` is `m` by `k`, `b` is `k` by `n`. Panics
/// if a matrix does not lie within its slice.
pub fn multiply(
    (m, n, k): (usize, usize, usize),
    (dst, dst_at): (&mut [f32], Strides),
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    parallelism: Parallelism,
) {
    assert!(dst_at.fit(m, n, dst.len()) && a_at.fit(m, k, a.len()) && b_at.fit(k, n, b.len()));
    // SAFETY: all three matrices lie within their slices, and `dst` is not shared.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            dst_at.1 as isize,
            dst_at.0 as isize,
            false,
            a.as_ptr(),
            a_at.1 as isize,
            a_at.0 as isize,
            b.as_ptr(),
            b_at.1 as isize,
            b_at.0 as isize,
            1.,
            1.,
            false,
            false,
            false,
            parallelism,
        );
    }
}
