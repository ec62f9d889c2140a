//! Norms over the last dimension, one row at a time.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Shape};
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::contiguous_f32,
    simd::{multiversion, sum},
};

multiversion! {
    /// LayerNorm of one row: `weight`, `bias` and `out` are as long as `x`.
    fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = sum(x, |x| x) / n;
        let scale = 1. / (sum(x, |x| (x - mean) * (x - mean)) / n + eps).sqrt();
        for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

multiversion! {
    /// RMSNorm of one row: `weight` and `out` are as long as `x`.
    fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = 1. / (sum(x, |x| x * x) / x.len() as f32 + eps).sqrt();
        for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * w;
        }
    }
}

/// LayerNorm of `x`, `(…, width)`, with weight and bias `(width)`, all contiguous. Holds the epsilon.
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
        let (x, w, b) = (contiguous_f32(x, xl)?, contiguous_f32(w, wl)?, contiguous_f32(b, bl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| layer_norm_row(x, w, b, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}

/// RMSNorm of `x`, `(…, width)`, with weight `(width)`, all contiguous. Holds the epsilon.
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
        let (x, w) = (contiguous_f32(x, xl)?, contiguous_f32(w, wl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| rms_norm_row(x, w, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}
