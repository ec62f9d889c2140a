//! What the operations on the CPU share: access to a tensor's numbers, and the matrix product.

use candle_core::{CpuStorage, Layout, Storage, Tensor};
use gemm::Parallelism;

use super::super::super::error::Result;

/// The numbers of a contiguous f32 tensor.
pub fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("not contiguous") };
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Shows the numbers of a contiguous f32 tensor on the CPU to `f`.
pub fn with_numbers<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => numbers(storage, layout).map(f),
        _ => candle_core::bail!("not on the CPU"),
    }
}

/// A matrix in a slice: distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
pub struct Strides(pub usize, pub usize);

impl Strides {
    /// Whether a matrix of this size lies within `len` numbers.
    pub fn fit(self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.0 + (columns - 1) * self.1 < len
    }
}

/// Up to so many rows a matrix product is bound by reading the weights, not by arithmetic.
pub const FEW_ROWS: usize = 16;
/// Rows that a weight is multiplied for while it is in a register: their sums fill the others.
pub const ROWS_AT_ONCE: usize = 4;
/// Weight rows in one task of such a product.
pub const WEIGHT_ROWS: usize = 32;

/// Adds `(outputs, rows)` to `(rows, outputs)`. Few rows are computed by output: so each weight is read once
/// for all of them.
pub fn add_by_row(by_output: &[f32], rows: usize, out: &mut [f32]) {
    let outputs = out.len() / rows;
    for (output, column) in by_output.chunks_exact(rows).enumerate() {
        for (row, value) in column.iter().enumerate() {
            out[row * outputs + output] += value;
        }
    }
}

/// `dst = keep * dst + a b` for an `m` by `k` matrix `a` and a `k` by `n` matrix `b`.
pub fn multiply(
    (m, n, k): (usize, usize, usize),
    (dst, dst_at): (&mut [f32], Strides),
    keep: bool,
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
            keep,
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
