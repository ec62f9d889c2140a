//! Linear layers on 8-bit weights: little more than a quarter of the bytes that f32 weights make
//! the processor read for every token. Inputs and sums stay f32.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{FEW_ROWS, ROWS_AT_ONCE, Strides, WEIGHT_ROWS, add_by_row, multiply, numbers, with_numbers},
    vector::{LANES, total, vectorised},
};

/// Neighbouring weights of one row that share a scale, as in GGML's Q8_0; one for each lane.
const BLOCK: usize = LANES;
/// Weights that are widened at a time for many rows: 4 MiB, which stay in a cache until they are
/// multiplied.
const PANEL: usize = 1 << 20;

thread_local! {
    /// A panel's room: made anew for every layer, it would cost as much as the widening.
    static SCRATCH: Cell<Vec<[f32; BLOCK]>> = const { Cell::new(Vec::new()) };
}

/// `x W^T`, where a weight is a whole number from -127 to 127 times the scale of its block: `x` is
/// `(rows, inputs)`, `W` `(outputs, inputs)`.
#[derive(Default)]
pub struct QuantisedLinear {
    /// Row after row, each filled up with zeros to whole blocks.
    weights: Vec<[i8; BLOCK]>,
    /// One for every block.
    scales: Vec<f32>,
    inputs: usize,
}

impl QuantisedLinear {
    /// Bytes of a weight, its share of the scale included.
    pub const WEIGHT_BYTES: f64 = 1. + size_of::<f32>() as f64 / BLOCK as f64;

    /// Rounds `(outputs, inputs)` f32 weights to the nearest and adds them as further outputs.
    pub fn push(&mut self, weights: &Tensor) -> Result<()> {
        let (outputs, inputs) = weights.dims2()?;
        if !self.weights.is_empty() && inputs != self.inputs {
            candle_core::bail!("rows of {inputs} weights beside rows of {}", self.inputs);
        }
        self.inputs = inputs;
        let (from, blocks) = (self.scales.len(), self.blocks());
        self.weights.resize(from + outputs * blocks, [0; BLOCK]);
        self.scales.resize(from + outputs * blocks, 0.);
        let narrow =
            self.weights[from..].par_chunks_mut(blocks).zip(self.scales[from..].par_chunks_mut(blocks));
        with_numbers(weights, |wide| {
            narrow
                .zip(wide.par_chunks(inputs))
                .for_each(|((narrow, scales), wide)| round(wide, narrow, scales));
        })
    }

    /// Blocks in a row of weights.
    fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK)
    }

    fn outputs(&self) -> usize {
        self.weights.len() / self.blocks()
    }

    fn few(&self, x: &[f32], out: &mut [f32]) {
        let (rows, blocks) = (x.len() / self.inputs, self.blocks());
        let x = interleaved(x, self.inputs);
        // By output first, so that one task has its weights in its cache for every row.
        let mut by_output = vec![0.; out.len()];
        by_output
            .par_chunks_mut(WEIGHT_ROWS * rows)
            .zip(self.weights.par_chunks(WEIGHT_ROWS * blocks))
            .zip(self.scales.par_chunks(WEIGHT_ROWS * blocks))
            .for_each(|((out, weights), scales)| dots(&x, rows, weights, scales, out));
        add_by_row(&by_output, rows, out);
    }

    fn many(&self, x: &[f32], out: &mut [f32]) {
        let (rows, blocks, outputs) = (x.len() / self.inputs, self.blocks(), self.outputs());
        let panel = outputs.div_ceil((outputs * blocks * BLOCK).div_ceil(PANEL));
        let mut wide = SCRATCH.take();
        wide.resize(panel * blocks, [0.; BLOCK]);
        let panels = self.weights.chunks(panel * blocks).zip(self.scales.chunks(panel * blocks));
        for (i, (weights, scales)) in panels.enumerate() {
            let wide = &mut wide[..weights.len()];
            wide.par_chunks_mut(WEIGHT_ROWS * blocks)
                .zip(weights.par_chunks(WEIGHT_ROWS * blocks))
                .zip(scales.par_chunks(WEIGHT_ROWS * blocks))
                .for_each(|((wide, weights), scales)| widen(weights, scales, wide));
            multiply(
                (rows, weights.len() / blocks, self.inputs),
                (&mut out[i * panel..], Strides(outputs, 1)),
                false,
                (x, Strides(self.inputs, 1)),
                (wide.as_flattened(), Strides(1, blocks * BLOCK)),
                Parallelism::Rayon(0),
            );
        }
        SCRATCH.set(wide);
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
        let x = numbers(x, layout)?;
        let mut out = vec![0.; rows * self.outputs()];
        if rows <= FEW_ROWS {
            self.few(x, &mut out);
        } else {
            self.many(x, &mut out);
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, self.outputs()))))
    }
}

/// Groups of up to [`ROWS_AT_ONCE`] rows, one after the other: of every group, the first block of
/// each row, then the second of each. Rows are filled up with zeros to whole blocks.
fn interleaved(x: &[f32], inputs: usize) -> Vec<[f32; BLOCK]> {
    let blocks = inputs.div_ceil(BLOCK);
    let mut all = Vec::with_capacity(x.len() / inputs * blocks);
    for group in x.chunks(ROWS_AT_ONCE * inputs) {
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

vectorised! {
    /// Rounds one row of weights. What is not a finite number makes its whole block so.
    fn round(wide: &[f32], narrow: &mut [[i8; BLOCK]], scales: &mut [f32]) {
        for ((wide, narrow), scale) in wide.chunks(BLOCK).zip(narrow).zip(scales) {
            let larger = |most: f32, w: &f32| if w.abs() > most || w.is_nan() { w.abs() } else { most };
            *scale = wide.iter().fold(0., larger) / 127.;
            for (narrow, wide) in narrow.iter_mut().zip(wide) {
                // Zeros have the scale 0, and what they become is multiplied by it.
                *narrow = (wide / *scale).round_ties_even() as i8;
            }
        }
    }
}

vectorised! {
    /// `out[output * rows + row] = x[row] . weights[output]` for [`interleaved`] `x`.
    fn dots(x: &[[f32; BLOCK]], rows: usize, weights: &[[i8; BLOCK]], scales: &[f32], out: &mut [f32]) {
        let blocks = x.len() / rows;
        for (i, x) in x.chunks(ROWS_AT_ONCE * blocks).enumerate() {
            let (first, weights) = (i * ROWS_AT_ONCE, weights.chunks_exact(blocks).zip(scales.chunks_exact(blocks)));
            let outputs = weights.zip(out.chunks_exact_mut(rows).map(|out| &mut out[first..]));
            match x.len() / blocks {
                1 => dots_of::<1>(x.as_chunks().0, outputs),
                2 => dots_of::<2>(x.as_chunks().0, outputs),
                3 => dots_of::<3>(x.as_chunks().0, outputs),
                _ => dots_of::<ROWS_AT_ONCE>(x.as_chunks().0, outputs),
            }
        }
    }
}

/// One group of [`interleaved`] rows.
#[inline(always)]
fn dots_of<'a, const ROWS: usize>(
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
            *out = total(lanes);
        }
    }
}

vectorised! {
    fn widen(weights: &[[i8; BLOCK]], scales: &[f32], wide: &mut [[f32; BLOCK]]) {
        for ((wide, weights), &scale) in wide.iter_mut().zip(weights).zip(scales) {
            for (wide, &weight) in wide.iter_mut().zip(weights) {
                *wide = f32::from(weight) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    fn matrix(numbers: Vec<f32>, columns: usize) -> Tensor {
        let shape = (numbers.len() / columns, columns);
        Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
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

    /// Weights of very different size, whole blocks of zeros among them.
    fn layers() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, usize)> {
        (1..3 * BLOCK, 1..3 * WEIGHT_ROWS, 1..2 * FEW_ROWS, any::<u32>()).prop_map(
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
        /// The sum over blocks of half a step times what it is multiplied by, and a little for
        /// rounding in f32, is the most that a product can be off.
        #[test]
        fn products_are_those_in_f32_but_for_the_rounding_of_weights((weights, x, inputs) in layers()) {
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
        fn rows_are_the_same_alone_and_among_others((weights, x, inputs) in layers()) {
            every_row_is_the_same_alone(&weights, &x, inputs);
        }
    }

    fn every_row_is_the_same_alone(weights: &[f32], x: &[f32], inputs: usize) {
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
    fn weights_of_several_tensors_stand_side_by_side() {
        let (first, second) = ([1f32, 2., 3., 4.], [5f32, 6.]);
        let mut op = quantised(&first, 2);
        op.push(&matrix(second.to_vec(), 2)).unwrap();
        let sums: Vec<f32> = product(&op, &[1., 1.]).iter().map(|x| x.round()).collect();
        assert_eq!(sums, [3., 7., 11.]);
        assert!(op.push(&matrix(vec![0.; 3], 3)).is_err());
    }

    #[test]
    fn many_rows_are_multiplied_by_one_panel_after_the_other() {
        let (inputs, outputs, rows) = (BLOCK + 1, PANEL / BLOCK + 7, FEW_ROWS + 1);
        let weights: Vec<f32> = (0..outputs * inputs).map(|i| ((i * 7919) % 255) as f32 - 127.).collect();
        let x: Vec<f32> = (0..rows * inputs).map(|i| ((i * 31) % 17) as f32 - 8.).collect();
        every_row_is_the_same_alone(&weights, &x, inputs);
    }

    #[test]
    fn a_weight_that_is_no_number_shows_in_its_output() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = vec![1.; 3 * BLOCK];
            weights[BLOCK + 3] = bad;
            for rows in [1, FEW_ROWS + 1] {
                let product = product(&quantised(&weights, BLOCK), &vec![1.; rows * BLOCK]);
                let finite: Vec<bool> = product[..3].iter().map(|y| y.is_finite()).collect();
                assert_eq!(finite, [true, false, true]);
            }
        }
    }
}
