//! The numbers of weights and inputs.
//!
//! Integers have a scale for each [`BLOCK`] of neighbouring inputs, of every output and of every row: an outlier makes
//! only its own block coarser. Weights are rounded to 8 bits when a model is loaded; inputs before each product ("dynamic
//! quantisation"): to 16 bits with AVX2 and AMX, where bytes would be no faster or hardly, else to 8.

use super::super::simd::{LANES, multiversion};

/// Neighbouring inputs that share a scale.
pub const BLOCK: usize = 64;
/// The largest 8-bit integer that is used: its negative has 8 bits, too.
pub const MAX8: f32 = 127.;
/// The same for 16 bits.
#[cfg(target_arch = "x86_64")]
pub const MAX16: f32 = 32767.;
/// The same for 13 bits: the sum of [`BLOCK`] products of two of them has 31.
pub const MAX13: f32 = 4095.;

/// How weights are held. The sums are f32 in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As they are, in f32, or in bf16 if that holds every one of them exactly.
    Exact,
    /// In 8-bit integers with a scale for each block. Inputs are rounded, too.
    Int8,
}

/// How many rows products of some weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCount {
    /// A single one, too, as a decode step: then reading the weights is what takes time.
    Any,
    /// Always many, as the patches of a picture.
    Many,
}

/// Whether bf16 holds this number exactly.
pub fn is_bf16(number: f32) -> bool {
    number.to_bits() & 0xffff == 0
}

multiversion! {
    /// Rounds at most one block of numbers to integers from `-max` to `max`. Returns the scale that makes numbers of them
    /// again. If a number is not finite, the scale is NaN, and with it every sum that it takes part in.
    fn quantise(numbers: &[f32], max: f32, integers: &mut [i16; BLOCK]) -> f32 {
        let mut block = [0f32; BLOCK];
        block[..numbers.len()].copy_from_slice(numbers);
        let mut highest = [0f32; LANES];
        // x * 0 is 0, or NaN if x is not finite.
        let mut finite = [0f32; LANES];
        for x in block.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let size = x[i].abs();
                highest[i] = if size > highest[i] { size } else { highest[i] };
                finite[i] += x[i] * 0.;
            }
        }
        let highest = highest.into_iter().fold(0f32, f32::max);
        // Numbers so small that the scale would have no inverse count as zero.
        let (inverse, scale) = if highest > 1e-30 { (max / highest, highest / max) } else { (0., 0.) };
        for (integer, x) in integers.iter_mut().zip(block) {
            // 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the mantissa.
            *integer = (x * inverse + 12_582_912.).to_bits() as i16;
        }
        scale + finite.into_iter().sum::<f32>()
    }
}
