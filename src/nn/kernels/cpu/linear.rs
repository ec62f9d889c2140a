//! Linear layers with f32 weights.

use std::array;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{
        ROWS_PER_TILE, SMALL_BATCH_ROWS, Strides, WEIGHT_ROWS_PER_TASK, add_transposed, contiguous_f32,
        multiply, with_contiguous_f32,
    },
    simd::{LANES, dot, multiversion, sum_lanes},
};

multiversion! {
    /// `out[output * rows + row]` is the dot product of `x[row]` and `weights[output]`, `inputs` elements each.
    fn dot_products(x: &[f32], inputs: usize, weights: &[f32], out: &mut [f32]) {
        let rows = x.len() / inputs;
        for (i, x) in x.chunks(ROWS_PER_TILE * inputs).enumerate() {
            let out = out.chunks_exact_mut(rows).map(|out| &mut out[i * ROWS_PER_TILE..]);
            let outputs = weights.chunks_exact(inputs).zip(out);
            match x.len() / inputs {
                // No `for_each`: what its closure calls is not compiled for the vector units.
                1 => {
                    for (weights, out) in outputs {
                        out[0] = dot(x, weights);
                    }
                }
                2 => tile_dot_products::<2>(x, inputs, outputs),
                3 => tile_dot_products::<3>(x, inputs, outputs),
                _ => tile_dot_products::<ROWS_PER_TILE>(x, inputs, outputs),
            }
        }
    }
}

/// [`dot_products`] of `ROWS` rows of `x`. An item of `outputs` is a weight row, and where its results go.
#[inline(always)]
fn tile_dot_products<'a, const ROWS: usize>(
    x: &[f32],
    inputs: usize,
    outputs: impl Iterator<Item = (&'a [f32], &'a mut [f32])>,
) {
    let x: [_; ROWS] = array::from_fn(|row| x[row * inputs..][..inputs].as_chunks::<LANES>());
    for (weights, out) in outputs {
        let (chunks, rest) = weights.as_chunks::<LANES>();
        let mut lanes = [[0f32; LANES]; ROWS];
        for (at, weights) in chunks.iter().enumerate() {
            let x: [_; ROWS] = array::from_fn(|row| &x[row].0[at]);
            // The loops are in this order because the other one takes four times as long with two or three rows.
            for i in 0..LANES {
                for row in 0..ROWS {
                    lanes[row][i] += weights[i] * x[row][i];
                }
            }
        }
        for ((out, lanes), (_, x)) in out.iter_mut().zip(lanes).zip(&x) {
            *out = sum_lanes(lanes) + rest.iter().zip(*x).map(|(w, x)| w * x).sum::<f32>();
        }
    }
}

/// `x W^T`, or `x W^T + b`: `x` is `(rows, inputs)`, contiguous. The result is `(rows, outputs)`.
pub struct LinearOp<'a> {
    /// `(outputs, inputs)`, contiguous.
    pub weight: &'a Tensor,
    /// `(outputs)`, contiguous.
    pub bias: Option<&'a Tensor>,
}

impl CustomOp1 for LinearOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = self.weight.dims2()?;
        let x = contiguous_f32(x, layout)?;
        let rows = x.len() / inputs;
        let mut out = match self.bias {
            Some(bias) => with_contiguous_f32(bias, |bias| bias.repeat(rows))?,
            None => vec![0.; rows * outputs],
        };
        with_contiguous_f32(self.weight, |weight| {
            if rows <= SMALL_BATCH_ROWS {
                let mut by_output = vec![0.; out.len()];
                by_output
                    .par_chunks_mut(WEIGHT_ROWS_PER_TASK * rows)
                    .zip(weight.par_chunks(WEIGHT_ROWS_PER_TASK * inputs))
                    .for_each(|(out, weights)| dot_products(x, inputs, weights, out));
                add_transposed(&by_output, rows, &mut out);
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
