//! Norms and activations: one row, or one number, at a time.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Shape};
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::numbers,
    vector::{gated, sum, vectorised},
};

/// Numbers in one task of an element-wise function.
const ELEMENTS: usize = 1 << 14;

vectorised! {
    fn gelu_all(values: &mut [f32]) {
        for x in values {
            // tanh(u) = 2 / (1 + e^-2u) - 1, so half of (1 + tanh) is the gate itself.
            let u = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x = gated(*x, 2. * u);
        }
    }
}

vectorised! {
    fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gated(gate, gate) * up;
        }
    }
}

vectorised! {
    fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = sum(x, |x| x) / n;
        let scale = 1. / (sum(x, |x| (x - mean) * (x - mean)) / n + eps).sqrt();
        for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

vectorised! {
    fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = 1. / (sum(x, |x| x * x) / x.len() as f32 + eps).sqrt();
        for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * w;
        }
    }
}

/// LayerNorm over the last dimension, of this epsilon.
pub struct LayerNormOp(pub f32);

impl CustomOp3 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, b) = (numbers(x, xl)?, numbers(w, wl)?, numbers(b, bl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| layer_norm_row(x, w, b, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}

/// RMSNorm over the last dimension, of this epsilon.
pub struct RmsNormOp(pub f32);

impl CustomOp2 for RmsNormOp {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (numbers(x, xl)?, numbers(w, wl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| rms_norm_row(x, w, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}

/// GELU with the tanh approximation, in place.
pub struct GeluOp;

impl InplaceOp1 for GeluOp {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(x), Some((from, to))) = (x, layout.contiguous_offsets()) else {
            candle_core::bail!("gelu needs a contiguous f32 tensor")
        };
        x[from..to].par_chunks_mut(ELEMENTS).for_each(gelu_all);
        Ok(())
    }
}

/// `silu(gate) * up` of `gate` and `up` side by side in the last dimension.
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
        let x = numbers(x, layout)?;
        let mut out = vec![0.; x.len() / 2];
        out.par_chunks_mut(width).zip(x.par_chunks(2 * width)).for_each(|(out, x)| {
            let (gate, up) = x.split_at(width);
            swiglu_row(gate, up, out);
        });
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }
}
