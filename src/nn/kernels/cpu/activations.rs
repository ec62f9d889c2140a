//! Activations, element by element.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape};
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::contiguous_f32,
    simd::{multiversion, sigmoid_gated},
};

multiversion! {
    /// GELU of every value, in its tanh approximation.
    fn gelu_all(values: &mut [f32]) {
        for x in values {
            // tanh(u) = 2 / (1 + e^-2u) - 1, so (1 + tanh(u)) / 2 = sigmoid(2u).
            let u = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x = sigmoid_gated::<FMA>(*x, 2. * u);
        }
    }
}

multiversion! {
    /// `out = silu(gate) * up`; all three are equally long.
    fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = sigmoid_gated::<FMA>(gate, gate) * up;
        }
    }
}

/// `silu(gate) * up` of a contiguous tensor `(…, 2 * width)` that holds `gate` and `up` side by side. The result is
/// `(…, width)`.
pub struct SwigluOp;

impl CustomOp1 for SwigluOp {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.dims().to_vec();
        let Some(last) = shape.last_mut() else { candle_core::bail!("swiglu of a scalar") };
        *last /= 2;
        let width = *last;
        let x = contiguous_f32(x, layout)?;
        let mut out = vec![0.; x.len() / 2];
        out.par_chunks_mut(width).zip(x.par_chunks(2 * width)).for_each(|(out, x)| {
            let (gate, up) = x.split_at(width);
            swiglu_row(gate, up, out);
        });
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }
}
