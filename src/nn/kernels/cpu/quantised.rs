//! Linear layers with 8-bit weights. They take 28 % of the memory of f32 weights, and so of the reads of every decode
//! step. Inputs and sums are f32.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{
        ROWS_PER_TILE, SMALL_BATCH_ROWS, Strides, WEIGHT_ROWS_PER_TASK, add_transposed, contiguous_f32,
        multiply, with_contiguous_f32,
    },
    simd::{LANES, multiversion, sum_lanes},
};

/// Neighbouring weights of a row that share a scale, as in GGML's Q8_0: one for each lane.
const BLOCK: usize = LANES;
/// Weights that a large-batch GEMM dequantises at a time. Their 4 MiB stay in a cache until they are multiplied.
const PANEL_WEIGHTS: usize = 1 << 20;

thread_local! {
    /// The dequantised panel. Allocating it anew for every layer would take as long as the dequantisation.
    static PANEL: Cell<Vec<[f32; BLOCK]>> = const { Cell::new(Vec::new()) };
}

/// `x W^T`, where a weight is an integer from -127 to 127 times the scale of its block: `x` is `(rows, inputs)`, `W`
/// `(outputs, inputs)`.
#[derive(Default)]
pub struct QuantisedLinear {
    /// The blocks of the rows one after the other. The last block of a row is padded with zeros.
    weights: Vec<[i8; BLOCK]>,
    /// One for each block.
    scales: Vec<f32>,
    inputs: usize,
}

impl QuantisedLinear {
    /// Bytes of a weight, including its share of the scale.
    pub const WEIGHT_BYTES: f64 = 1. + size_of::<f32>() as f64 / BLOCK as f64;

    /// Quantises weights, `(outputs, inputs)` in f32, and appends them as further outputs.
    ///
    /// # Errors
    /// When the weights have another number of inputs than those before them, or are not contiguous f32 on the CPU.
    pub fn push(&mut self, weights: &Tensor) -> Result<()> {
        let (outputs, inputs) = weights.dims2()?;
        if !self.weights.is_empty() && inputs != self.inputs {
            candle_core::bail!("rows of {inputs} weights beside rows of {}", self.inputs);
        }
        self.inputs = inputs;
        let (from, blocks) = (self.scales.len(), self.blocks());
        self.weights.resize(from + outputs * blocks, [0; BLOCK]);
        self.scales.resize(from + outputs * blocks, 0.);
        let quantised =
            self.weights[from..].par_chunks_mut(blocks).zip(self.scales[from..].par_chunks_mut(blocks));
        with_contiguous_f32(weights, |weights| {
            quantised
                .zip(weights.par_chunks(inputs))
                .for_each(|((quantised, scales), row)| quantise_row(row, quantised, scales));
        })
    }

    /// Blocks of a row of weights.
    fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK)
    }

    fn outputs(&self) -> usize {
        self.weights.len() / self.blocks()
    }

    /// The product for up to [`SMALL_BATCH_ROWS`] rows. Each weight is read once.
    fn small_batch_gemm(&self, x: &[f32], out: &mut [f32]) {
        let (rows, blocks) = (x.len() / self.inputs, self.blocks());
        let x = interleave(x, self.inputs);
        // A task keeps its weights in its cache for all rows, so it writes the results of one output side by side.
        let mut by_output = vec![0.; out.len()];
        by_output
            .par_chunks_mut(WEIGHT_ROWS_PER_TASK * rows)
            .zip(self.weights.par_chunks(WEIGHT_ROWS_PER_TASK * blocks))
            .zip(self.scales.par_chunks(WEIGHT_ROWS_PER_TASK * blocks))
            .for_each(|((out, weights), scales)| dot_products(&x, rows, weights, scales, out));
        add_transposed(&by_output, rows, out);
    }

    /// The product for any number of rows: dequantises one panel of weights after the other and multiplies it.
    fn large_batch_gemm(&self, x: &[f32], out: &mut [f32]) {
        let (rows, blocks, outputs) = (x.len() / self.inputs, self.blocks(), self.outputs());
        let panel = outputs.div_ceil((outputs * blocks * BLOCK).div_ceil(PANEL_WEIGHTS));
        let mut dequantised = PANEL.take();
        dequantised.resize(panel * blocks, [0.; BLOCK]);
        let panels = self.weights.chunks(panel * blocks).zip(self.scales.chunks(panel * blocks));
        for (i, (weights, scales)) in panels.enumerate() {
            let dequantised = &mut dequantised[..weights.len()];
            dequantised
                .par_chunks_mut(WEIGHT_ROWS_PER_TASK * blocks)
                .zip(weights.par_chunks(WEIGHT_ROWS_PER_TASK * blocks))
                .zip(scales.par_chunks(WEIGHT_ROWS_PER_TASK * blocks))
                .for_each(|((out, weights), scales)| dequantise(weights, scales, out));
            multiply(
                (rows, weights.len() / blocks, self.inputs),
                (&mut out[i * panel..], Strides(outputs, 1)),
                false,
                (x, Strides(self.inputs, 1)),
                (dequantised.as_flattened(), Strides(1, blocks * BLOCK)),
                Parallelism::Rayon(0),
            );
        }
        PANEL.set(dequantised);
    }
}

impl CustomOp1 for QuantisedLinear {
    fn name(&self) -> &'static str {
        "linear-q8"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = layout.shape().dims2()?;
        if inputs != self.inputs {
            candle_core::bail!("{inputs} inputs to a layer of {}", self.inputs);
        }
        let x = contiguous_f32(x, layout)?;
        let mut out = vec![0.; rows * self.outputs()];
        if rows <= SMALL_BATCH_ROWS {
            self.small_batch_gemm(x, &mut out);
        } else {
            self.large_batch_gemm(x, &mut out);
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, self.outputs()))))
    }
}

/// Copies `x`, `(rows, inputs)`, in groups of up to [`ROWS_PER_TILE`] rows. A group holds the first block of each of its
/// rows, then the second block of each, and so on. The last block of a row is padded with zeros.
fn interleave(x: &[f32], inputs: usize) -> Vec<[f32; BLOCK]> {
    let blocks = inputs.div_ceil(BLOCK);
    let mut all = Vec::with_capacity(x.len() / inputs * blocks);
    for group in x.chunks(ROWS_PER_TILE * inputs) {
        for first in (0..inputs).step_by(BLOCK) {
            all.extend(group.chunks_exact(inputs).map(|row| {
                let part = &row[first..inputs.min(first + BLOCK)];
                let mut block = [0.; BLOCK];
                block[..part.len()].copy_from_slice(part);
                block
            }));
        }
    }
    all
}

multiversion! {
    /// Quantises one row of weights to the nearest integers. A NaN or an infinity makes the scale of its block NaN or
    /// infinite, and with it every output of the row.
    fn quantise_row(row: &[f32], quantised: &mut [[i8; BLOCK]], scales: &mut [f32]) {
        for ((weights, quantised), scale) in row.chunks(BLOCK).zip(quantised).zip(scales) {
            let larger = |most: f32, w: &f32| if w.abs() > most || w.is_nan() { w.abs() } else { most };
            *scale = weights.iter().fold(0., larger) / 127.;
            for (quantised, weight) in quantised.iter_mut().zip(weights) {
                // A block of zeros has the scale 0. 0 / 0 converts to the integer 0.
                *quantised = (weight / *scale).round_ties_even() as i8;
            }
        }
    }
}

multiversion! {
    /// `out[output * rows + row]` is the dot product of `x[row]` and `weights[output]`. `x` comes from `interleave`.
    fn dot_products(x: &[[f32; BLOCK]], rows: usize, weights: &[[i8; BLOCK]], scales: &[f32], out: &mut [f32]) {
        let blocks = x.len() / rows;
        for (i, x) in x.chunks(ROWS_PER_TILE * blocks).enumerate() {
            let (first, weights) = (i * ROWS_PER_TILE, weights.chunks_exact(blocks).zip(scales.chunks_exact(blocks)));
            let outputs = weights.zip(out.chunks_exact_mut(rows).map(|out| &mut out[first..]));
            match x.len() / blocks {
                1 => tile_dot_products::<1>(x.as_chunks().0, outputs),
                2 => tile_dot_products::<2>(x.as_chunks().0, outputs),
                3 => tile_dot_products::<3>(x.as_chunks().0, outputs),
                _ => tile_dot_products::<ROWS_PER_TILE>(x.as_chunks().0, outputs),
            }
        }
    }
}

/// [`dot_products`] of one group of `ROWS` rows. An item of `outputs` is a weight row with its scales, and where its
/// results go.
#[inline(always)]
fn tile_dot_products<'a, const ROWS: usize>(
    x: &[[[f32; BLOCK]; ROWS]],
    outputs: impl Iterator<Item = ((&'a [[i8; BLOCK]], &'a [f32]), &'a mut [f32])>,
) {
    for ((weights, scales), out) in outputs {
        let mut lanes = [[0f32; BLOCK]; ROWS];
        for ((weights, &scale), x) in weights.iter().zip(scales).zip(x) {
            for i in 0..BLOCK {
                let weight = f32::from(weights[i]) * scale;
                for row in 0..ROWS {
                    lanes[row][i] += weight * x[row][i];
                }
            }
        }
        for (out, lanes) in out.iter_mut().zip(lanes) {
            *out = sum_lanes(lanes);
        }
    }
}

multiversion! {
    /// Converts blocks of weights to f32.
    fn dequantise(weights: &[[i8; BLOCK]], scales: &[f32], out: &mut [[f32; BLOCK]]) {
        for ((out, weights), &scale) in out.iter_mut().zip(weights).zip(scales) {
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out = f32::from(weight) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn matrix(values: Vec<f32>, columns: usize) -> Tensor {
        let shape = (values.len() / columns, columns);
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn quantised(weights: &[f32], inputs: usize) -> QuantisedLinear {
        let mut op = QuantisedLinear::default();
        op.push(&matrix(weights.to_vec(), inputs)).unwrap();
        op
    }

    fn product(op: &QuantisedLinear, x: &[f32]) -> Vec<f32> {
        let x = matrix(x.to_vec(), op.inputs);
        x.apply_op1_no_bwd(op).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Weights of very different magnitude with whole blocks of zeros, inputs, and the number of inputs.
    fn layers() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, usize)> {
        (1..3 * BLOCK, 1..3 * WEIGHT_ROWS_PER_TASK, 1..2 * SMALL_BATCH_ROWS, any::<u32>()).prop_map(
            |(inputs, outputs, rows, seed)| {
                let mut state = seed;
                let mut noise = move || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 23) as f32 - 1.
                };
                let weights = (0..outputs * inputs)
                    .map(|i| noise() * [1., 1e-3, 0., 1e3][(i % inputs / BLOCK + i / inputs) % 4])
                    .collect();
                (weights, (0..rows * inputs).map(|_| noise()).collect(), inputs)
            },
        )
    }

    proptest! {
        /// The largest possible error of a product: half a quantisation step of each weight times its input, and
        /// 1e-5 of each term for rounding in f32.
        #[test]
        fn products_differ_from_exact_ones_by_no_more_than_the_rounding_of_weights((weights, x, inputs) in layers()) {
            let op = quantised(&weights, inputs);
            let ours = product(&op, &x);
            for (x, ours) in x.chunks(inputs).zip(ours.chunks(op.outputs())) {
                for (output, (row, ours)) in weights.chunks(inputs).zip(ours).enumerate() {
                    let (mut exact, mut allowed) = (0., 0.);
                    for (i, (x, w)) in x.iter().zip(row).enumerate() {
                        let step = op.scales[output * op.blocks() + i / BLOCK];
                        exact += f64::from(*x) * f64::from(*w);
                        allowed += f64::from(x.abs() * (0.5 * step + 1e-5 * w.abs()));
                    }
                    prop_assert!((f64::from(*ours) - exact).abs() <= allowed, "{ours} for {exact}, {allowed}");
                }
            }
        }

        #[test]
        fn a_row_gives_the_same_result_alone_and_in_a_batch((weights, x, inputs) in layers()) {
            assert_same_alone_and_in_a_batch(&weights, &x, inputs);
        }
    }

    fn assert_same_alone_and_in_a_batch(weights: &[f32], x: &[f32], inputs: usize) {
        let op = quantised(weights, inputs);
        let together = product(&op, x);
        let largest = together.iter().fold(0f32, |most, y| most.max(y.abs()));
        for (x, together) in x.chunks(inputs).zip(together.chunks(op.outputs())) {
            for (alone, together) in product(&op, x).iter().zip(together) {
                assert!((alone - together).abs() <= 1e-5 * largest, "{alone}, {together}");
            }
        }
    }

    #[test]
    fn weights_of_several_tensors_give_outputs_side_by_side() {
        let (first, second) = ([1f32, 2., 3., 4.], [5f32, 6.]);
        let mut op = quantised(&first, 2);
        op.push(&matrix(second.to_vec(), 2)).unwrap();
        let sums: Vec<f32> = product(&op, &[1., 1.]).iter().map(|x| x.round()).collect();
        assert_eq!(sums, [3., 7., 11.]);
        assert!(op.push(&matrix(vec![0.; 3], 3)).is_err());
    }

    #[test]
    fn a_large_batch_is_multiplied_by_several_panels() {
        let (inputs, outputs, rows) = (BLOCK + 1, PANEL_WEIGHTS / BLOCK + 7, SMALL_BATCH_ROWS + 1);
        let weights: Vec<f32> = (0..outputs * inputs).map(|i| ((i * 7919) % 255) as f32 - 127.).collect();
        let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 31) % 17) as f32 - 8.).collect();
        assert_same_alone_and_in_a_batch(&weights, &x, inputs);
    }

    #[test]
    fn a_weight_that_is_not_finite_makes_its_output_not_finite() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = vec![1.; 3 * BLOCK];
            weights[BLOCK + 3] = bad;
            for rows in [1, SMALL_BATCH_ROWS + 1] {
                let product = product(&quantised(&weights, BLOCK), &vec![1.; rows * BLOCK]);
                let finite: Vec<bool> = product[..3].iter().map(|y| y.is_finite()).collect();
                assert_eq!(finite, [true, false, true]);
            }
        }
    }
}
