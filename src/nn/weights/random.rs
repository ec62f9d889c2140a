//! Random weights from a seed, for measuring speed, which depends on the numbers only in whether bf16 holds them. Each
//! tensor is generated when it is asked for and in the number format that is wanted, so a large model never takes memory
//! in f32.

use std::{collections::HashMap, path::Path};

use rayon::prelude::*;

use super::{super::error::WeightsError, shape::TensorShape};

/// What errors name in place of a file.
pub const SOURCE: &str = "random weights";

/// The step between two states of SplitMix64 (Steele, Lea, Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where random numbers come from.
#[derive(Clone, Copy)]
pub struct RandomNumbers {
    /// The same seed gives the same numbers.
    pub seed: u64,
    /// Each is the nearest that bf16 holds, as published checkpoints are in bf16.
    pub bf16: bool,
}

/// Random tensors of known shapes.
pub struct RandomWeights {
    numbers: RandomNumbers,
    shapes: HashMap<String, Vec<usize>>,
}

impl RandomWeights {
    /// Tensors of these names and shapes.
    pub fn new(expected: impl IntoIterator<Item = TensorShape>, numbers: RandomNumbers) -> Self {
        Self { numbers, shapes: expected.into_iter().collect() }
    }

    /// Generates a tensor. Returns its numbers, each converted from f32 by `narrow`, and its shape.
    ///
    /// # Errors
    /// When there is no tensor of this name.
    pub fn values<T: Send>(
        &self,
        name: &str,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<(Vec<T>, &[usize]), WeightsError> {
        let RandomNumbers { seed, bf16 } = self.numbers;
        match self.shapes.get(name) {
            Some(shape) if bf16 => Ok((numbers(name, shape, seed, |x| narrow(nearest_bf16(x))), shape)),
            Some(shape) => Ok((numbers(name, shape, seed, narrow), shape)),
            None => {
                let problem = format!("the architecture has no tensor {name:?}");
                Err(WeightsError::new(Path::new(SOURCE), problem))
            }
        }
    }
}

/// The numbers of a tensor: uniform around 0 with variance 1 / inputs, so that activations neither vanish nor
/// overflow. The weights of norms are around 1.
pub fn numbers<T: Send>(name: &str, shape: &[usize], seed: u64, narrow: impl Fn(f32) -> T + Sync) -> Vec<T> {
    let inputs: usize = shape.iter().skip(1).product();
    let spread = (3. / inputs.max(4) as f32).sqrt();
    let centre = if name.contains("norm") && name.ends_with("weight") { 1. } else { 0. };
    // Every tensor has its own stream, so the order in which tensors are read does not matter.
    let start = name.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)));
    let count: usize = shape.iter().product();
    let number =
        |i: usize| narrow(centre + spread * uniform(start.wrapping_add(STEP.wrapping_mul(i as u64))));
    (0..count).into_par_iter().map(number).collect()
}

/// The nearest number that bf16 holds, of two the larger one.
fn nearest_bf16(number: f32) -> f32 {
    f32::from_bits((number.to_bits() + 0x8000) & 0xffff_0000)
}

/// A number from -1 to 1 for a state of the generator: 24 bits, as many as f32 has.
fn uniform(state: u64) -> f32 {
    (mix(state) >> 40) as f32 / (1 << 23) as f32 - 1.
}

/// SplitMix64's output for a state.
pub fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_for_a_seed_and_spread_as_the_layer_needs_it() {
        let name = "model.text_model.layers.0.mlp.up_proj.weight";
        let made = numbers(name, &[300, 100], 1, |x| x);
        assert_eq!(made, numbers(name, &[300, 100], 1, |x| x));
        assert_ne!(made, numbers(name, &[300, 100], 2, |x| x));
        assert_ne!(made, numbers("lm_head.weight", &[300, 100], 1, |x| x));
        let mean = made.iter().sum::<f32>() / made.len() as f32;
        let variance = made.iter().map(|x| x * x).sum::<f32>() / made.len() as f32;
        assert!(mean.abs() < 2e-3 && (variance - 0.01).abs() < 5e-4, "{mean} {variance}");
        let norm = numbers("model.text_model.norm.weight", &[1000], 1, |x| x);
        assert!((norm.iter().sum::<f32>() / 1000. - 1.).abs() < 0.1);
    }

    #[test]
    fn numbers_that_bf16_holds_are_the_nearest_ones() {
        let values = |bf16: bool| {
            let shapes = [("a.weight".to_owned(), vec![50, 40])];
            let weights = RandomWeights::new(shapes, RandomNumbers { seed: 1, bf16 });
            weights.values("a.weight", |x| x).unwrap().0
        };
        for (held, number) in values(true).into_iter().zip(values(false)) {
            assert_eq!(held.to_bits() & 0xffff, 0);
            assert!((held - number).abs() <= number.abs() / 256., "{number} became {held}");
        }
    }
}
