//! Linear layers on f32 weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::Result,
    Strides, add_by_row, multiply, numbers,
    vector::{dot, vectorised},
    with_numbers,
};

/// Up to so many rows a matrix product is bound by reading the weights, not by arithmetic.
const FEW_ROWS: usize = 4;
/// Weight rows in one task of such a product.
const WEIGHT_ROWS: usize = 64;

vectorised! {
    /// `out[output * rows + row] = x[row] . weights[output]`
    fn dots(x: &[f32], inputs: usize, weights: &[f32], out: &mut [f32]) {
        for (out, weights) in out.chunks_exact_mut(x.len() / inputs).zip(weights.chunks_exact(inputs)) {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(inputs)) {
                *out = dot(x, weights);
            }
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
                let mut by_output = vec![0.; out.len()];
                by_output
                    .par_chunks_mut(WEIGHT_ROWS * rows)
                    .zip(weight.par_chunks(WEIGHT_ROWS * inputs))
                    .for_each(|(out, weights)| dots(x, inputs, weights, out));
                add_by_row(&by_output, rows, &mut out);
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
