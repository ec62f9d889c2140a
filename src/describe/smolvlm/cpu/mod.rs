//! The model's arithmetic on the CPU in f32, where candle's own is scalar or single-threaded:
//! candle operations that split their rows over the cores and whose loops the compiler turns into
//! vector instructions. What they compute is said in `ops`. Weights alone may be narrower than f32.

use candle_core::{CpuStorage, Layout, Storage, Tensor};
use gemm::Parallelism;

use super::{
    Result,
    ops::{Norm, Ops, Places},
};

mod attention;
mod linear;
mod quantised;
mod rows;
mod vector;

use attention::AttentionOp;
use linear::LinearOp;
pub use quantised::QuantisedOp;
use rows::{GeluOp, LayerNormOp, RmsNormOp, SwigluOp};

/// Our own operations.
pub struct Cpu;

impl Ops for Cpu {
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        x.apply_op1_no_bwd(&LinearOp { weight, bias })
    }

    fn linear_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let y = self.linear(x, weight, Some(bias))?;
        y.inplace_op1(&GeluOp)?;
        Ok(y)
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match &norm.shift {
            Some(shift) => x.apply_op3_no_bwd(&norm.weight, shift, &LayerNormOp(norm.eps)),
            None => x.apply_op2_no_bwd(&norm.weight, &RmsNormOp(norm.eps)),
        }
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        gate_up.apply_op1_no_bwd(&SwigluOp)
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, places: Option<&Places>) -> Result<Tensor> {
        let causal = places.map(|places| (places.starts, places.first));
        q.apply_op3_no_bwd(k, v, &AttentionOp { causal })
    }
}

/// The numbers of a contiguous f32 tensor.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("not contiguous") };
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// Shows the numbers of a contiguous f32 tensor on the CPU to `f`.
fn with_numbers<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => numbers(storage, layout).map(f),
        _ => candle_core::bail!("not on the CPU"),
    }
}

/// A matrix in a slice: distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
struct Strides(usize, usize);

impl Strides {
    /// Whether a matrix of this size lies within `len` numbers.
    fn fit(self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.0 + (columns - 1) * self.1 < len
    }
}

/// Up to so many rows a matrix product is bound by reading the weights, not by arithmetic.
const FEW_ROWS: usize = 16;
/// Rows that a weight is multiplied for while it is in a register: their sums fill the others.
const ROWS_AT_ONCE: usize = 4;
/// Weight rows in one task of such a product.
const WEIGHT_ROWS: usize = 32;

/// Adds `(outputs, rows)` to `(rows, outputs)`. Few rows are computed by output: so each weight is read once
/// for all of them.
fn add_by_row(by_output: &[f32], rows: usize, out: &mut [f32]) {
    let outputs = out.len() / rows;
    for (output, column) in by_output.chunks_exact(rows).enumerate() {
        for (row, value) in column.iter().enumerate() {
            out[row * outputs + output] += value;
        }
    }
}

/// `dst = keep * dst + a b` for an `m` by `k` matrix `a` and a `k` by `n` matrix `b`.
fn multiply(
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
