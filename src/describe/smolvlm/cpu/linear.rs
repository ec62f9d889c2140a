//! Linear layers on f32 weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::Result,
    Strides, multiply, numbers,
    vector::{dot, vectorised},
    with_numbers,
};

/// Up to so many rows a matrix product is bound by reading the weights, not by arithmetic.
const FEW_ROWS: usize = 4;
/// Weight rows in one task of such a product.
const WEIGHT_ROWS: usize = 64;

vectorised! {
    /// `out[i] += x . weights[i]`
    fn add_dots(x: &[f32], weights: &[f32], out: &mut [f32]) {
        for (out, row) in out.iter_mut().zip(weights.chunks_exact(x.len())) {
            *out += dot(x, row);
        }
    }
}

/// `x W^T`, or `x W^T + b`: `x` is `(rows, inputs)`, `W` `(outputs, inputs)`, all contiguous.
pub struct LinearOp<'a> {
    pub weight: &'a Tensor,
    pub bias: Option<&'a Tensor>,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = self.weight.dims2()?;
        let x = numbers(x, layout)?;
        let rows = x.len() / inputs;
        let mut out = match self.bias {
            Some(bias) => with_numbers(bias, |bias| bias.repeat(rows))?,
            None => vec![0.; rows * outputs],
        };
        with_numbers(self.weight, |weight| {
            if rows <= FEW_ROWS {
                for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
                    let weights = weight.par_chunks(WEIGHT_ROWS * inputs);
                    out.par_chunks_mut(WEIGHT_ROWS).zip(weights).for_each(|(out, w)| add_dots(x, w, out));
                }
            } else {
                multiply(
                    (rows, outputs, inputs),
                    (&mut out, Strides(outputs, 1)),
                    self.bias.is_some(),
                    (x, Strides(inputs, 1)),
                    (weight, Strides(1, inputs)),
                    Parallelism::Rayon(0),
                );
            }
        })?;
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}
