//! Linear layers on 8-bit weights: a quarter of the bytes that f32 weights make the processor read
//! for every token. Activations and sums stay f32.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::Result,
    Strides,
    linear::WEIGHT_ROWS,
    multiply, numbers,
    vector::{LANES, total, vectorised},
};

/// Neighbouring weights of one row that share a scale.
const GROUP: usize = 2 * LANES;
/// Up to so many rows of input, weights are widened once and used at once for each; more are worth
/// a matrix product on widened weights.
const FEW_ROWS: usize = 16;

/// `x W^T`, where a weight is a whole number from -127 to 127 times the scale of its group: `x` is
/// `(rows, inputs)`, `W` `(outputs, inputs)`.
pub struct QuantisedOp {
    weights: Vec<i8>,
    /// Of every row, one a group.
    scales: Vec<f32>,
    inputs: usize,
}

impl QuantisedOp {
    /// Rounds `(outputs, inputs)` f32 weights to the nearest; none if rows do not split into groups.
    pub fn new(weights: &Tensor) -> Result<Option<Self>> {
        let (_, inputs) = weights.dims2()?;
        if inputs % GROUP != 0 {
            return Ok(None);
        }
        let wide = weights.flatten_all()?.to_vec1::<f32>()?;
        let mut narrow = vec![0; wide.len()];
        let scales = narrow
            .par_chunks_mut(GROUP)
            .zip(wide.par_chunks(GROUP))
            .map(|(narrow, wide)| {
                let largest = wide.iter().fold(0f32, |most, w| most.max(w.abs()));
                let scale = largest / 127.;
                let per_scale = if scale > 0. { 1. / scale } else { 0. };
                for (narrow, wide) in narrow.iter_mut().zip(wide) {
                    *narrow = (wide * per_scale).round() as i8;
                }
                scale
            })
            .collect();
        Ok(Some(Self { weights: narrow, scales, inputs }))
    }

    pub fn outputs(&self) -> usize {
        self.weights.len() / self.inputs
    }

    fn few(&self, x: &[f32], out: &mut [f32]) {
        let outputs = self.outputs();
        // By output first, so that one task holds what it widens in its cache for every row.
        let mut by_output = vec![0.; out.len()];
        let rows = x.len() / self.inputs;
        by_output
            .par_chunks_mut(WEIGHT_ROWS * rows)
            .zip(self.weights.par_chunks(WEIGHT_ROWS * self.inputs))
            .zip(self.scales.par_chunks(WEIGHT_ROWS * self.inputs / GROUP))
            .for_each(|((out, weights), scales)| dots(x, weights, scales, self.inputs, out));
        for (output, column) in by_output.chunks_exact(rows).enumerate() {
            for (row, value) in column.iter().enumerate() {
                out[row * outputs + output] = *value;
            }
        }
    }

    fn many(&self, x: &[f32], out: &mut [f32]) {
        let mut wide = vec![0.; self.weights.len()];
        wide.par_chunks_mut(self.inputs)
            .zip(self.weights.par_chunks(self.inputs))
            .zip(self.scales.par_chunks(self.inputs / GROUP))
            .for_each(|((wide, weights), scales)| widen(weights, scales, wide));
        multiply(
            (x.len() / self.inputs, self.outputs(), self.inputs),
            (out, Strides(self.outputs(), 1)),
            false,
            (x, Strides(self.inputs, 1)),
            (&wide, Strides(1, self.inputs)),
            Parallelism::Rayon(0),
        );
    }
}

vectorised! {
    /// `out[output * rows + row] = x[row] . weights[output]`
    fn dots(x: &[f32], weights: &[i8], scales: &[f32], inputs: usize, out: &mut [f32]) {
        let rows = x.len() / inputs;
        let outputs = weights.chunks_exact(inputs).zip(scales.chunks_exact(inputs / GROUP));
        for ((weights, scales), out) in outputs.zip(out.chunks_exact_mut(rows)) {
            for (out, x) in out.iter_mut().zip(x.chunks_exact(inputs)) {
                let mut lanes = [0f32; LANES];
                let groups = weights.as_chunks::<GROUP>().0.iter().zip(x.as_chunks::<GROUP>().0);
                for ((w, x), &scale) in groups.zip(scales) {
                    for i in 0..LANES {
                        let pair = f32::from(w[i]) * x[i] + f32::from(w[i + LANES]) * x[i + LANES];
                        lanes[i] += scale * pair;
                    }
                }
                *out = total(lanes);
            }
        }
    }
}

vectorised! {
    fn widen(weights: &[i8], scales: &[f32], wide: &mut [f32]) {
        let groups = weights.as_chunks::<GROUP>().0.iter().zip(wide.as_chunks_mut::<GROUP>().0);
        for ((weights, wide), &scale) in groups.zip(scales) {
            for i in 0..GROUP {
                wide[i] = f32::from(weights[i]) * scale;
            }
        }
    }
}

impl CustomOp1 for QuantisedOp {
    fn name(&self) -> &'static str {
        "linear-q8"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = numbers(x, layout)?;
        let rows = x.len() / self.inputs;
        let mut out = vec![0.; rows * self.outputs()];
        if rows <= FEW_ROWS {
            self.few(x, &mut out);
        } else {
            self.many(x, &mut out);
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, self.outputs()))))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Between -1 and 1, the same every time.
    fn noise(count: usize) -> Vec<f32> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn products_are_those_of_the_rounded_weights_for_few_and_for_many_rows() {
        let (outputs, inputs) = (WEIGHT_ROWS + 5, 3 * GROUP);
        let weights = Tensor::from_vec(noise(outputs * inputs), (outputs, inputs), &Device::Cpu).unwrap();
        let op = QuantisedOp::new(&weights).unwrap().unwrap();
        let mut rounded = vec![0.; outputs * inputs];
        for ((wide, narrow), scales) in
            rounded.chunks_mut(inputs).zip(op.weights.chunks(inputs)).zip(op.scales.chunks(inputs / GROUP))
        {
            widen(narrow, scales, wide);
        }
        let exact = weights.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Half a step of the coarsest scale, 1/127, and a little for rounding in f32.
        assert!(rounded.iter().zip(&exact).all(|(r, e)| (r - e).abs() < 0.5 / 127. + 1e-6));
        let rounded = Tensor::from_vec(rounded, (outputs, inputs), &Device::Cpu).unwrap();
        for rows in [1, FEW_ROWS, FEW_ROWS + 1] {
            let x = Tensor::from_vec(noise(rows * inputs), (rows, inputs), &Device::Cpu).unwrap();
            let ours = x.apply_op1_no_bwd(&op).unwrap();
            let theirs = x.matmul(&rounded.t().unwrap()).unwrap();
            let apart =
                (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(apart < 1e-4, "{rows} rows: {apart}");
        }
    }

    #[test]
    fn rows_that_do_not_split_into_groups_are_left_alone() {
        let weights = Tensor::zeros((4, GROUP + 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(QuantisedOp::new(&weights).unwrap().is_none());
    }
}
