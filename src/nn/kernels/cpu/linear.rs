//! Linear layers on f32 weights.

use std::array;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{FEW_ROWS, ROWS_AT_ONCE, Strides, WEIGHT_ROWS, add_by_row, multiply, numbers, with_numbers},
    vector::{LANES, dot, total, vectorised},
};

vectorised! {
    /// `out[output * rows + row] = x[row] . weights[output]`
    fn dots(x: &[f32], inputs: usize, weights: &[f32], out: &mut [f32]) {
        let rows = x.len() / inputs;
        for (i, x) in x.chunks(ROWS_AT_ONCE * inputs).enumerate() {
            let out = out.chunks_exact_mut(rows).map(|out| &mut out[i * ROWS_AT_ONCE..]);
            let outputs = weights.chunks_exact(inputs).zip(out);
            match x.len() / inputs {
                1 => outputs.for_each(|(weights, out)| out[0] = dot(x, weights)),
                2 => dots_of::<2>(x, inputs, outputs),
                3 => dots_of::<3>(x, inputs, outputs),
                _ => dots_of::<ROWS_AT_ONCE>(x, inputs, outputs),
            }
        }
    }
}

#[inline(always)]
fn dots_of<'a, const ROWS: usize>(
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
            // In this order: with the rows outside, two or three of them take four times as long.
            for i in 0..LANES {
                for row in 0..ROWS {
                    lanes[row][i] += weights[i] * x[row][i];
                }
            }
        }
        for ((out, lanes), (_, x)) in out.iter_mut().zip(lanes).zip(&x) {
            *out = total(lanes) + rest.iter().zip(*x).map(|(w, x)| w * x).sum::<f32>();
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
