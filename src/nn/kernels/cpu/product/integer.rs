//! Integers: how blocks are packed, and the micro-kernel for any processor, which the others are tested against.

use super::{
    aligned::Aligned,
    format::{BLOCK, MAX8, MAX13, quantise},
    microkernel::{ColumnKernel, Microkernel, Tile},
};

/// 8-bit weights and inputs on any processor.
pub struct PortableInt8;

impl Microkernel for PortableInt8 {
    type Weight = i8;
    const NAME: &'static str = "portable";
    const ROWS: usize = 4;
    const OUTPUTS: usize = 16;
    const GROUP: usize = 2;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;

    fn is_supported() -> bool {
        true
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        (int8_weights(numbers, to).0, 0)
    }

    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        int_pairs(numbers, MAX8, &mut block[row..], rows)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        add_products(rows, tile, sums);
    }
}

/// 13-bit integers, held in 16 bits, on any processor.
pub struct PortableInt13;

impl Microkernel for PortableInt13 {
    type Weight = i16;
    const NAME: &'static str = "portable";
    const ROWS: usize = 4;
    const OUTPUTS: usize = 16;
    const GROUP: usize = 2;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;

    fn is_supported() -> bool {
        true
    }

    fn weights(numbers: &[f32], to: &mut [i16]) -> (f32, i32) {
        int13_weights(numbers, to)
    }

    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        int_pairs(numbers, MAX13, &mut block[row..], rows)
    }

    fn add(rows: usize, tile: Tile<'_, i16>, sums: &mut [f32]) {
        add_products(rows, tile, sums);
    }
}

impl ColumnKernel for PortableInt13 {
    fn columns<'a>(
        numbers: &'a [f32],
        to: &'a mut Aligned<i16>,
        scales: &'a mut Aligned<f32>,
    ) -> (&'a [i16], &'a [f32]) {
        int13_columns::<16>(numbers, to, scales);
        (to, scales)
    }
}

/// [`Microkernel::add`] for pairs of integers.
fn add_products<W: Copy + Into<i32>>(rows: usize, tile: Tile<'_, W>, sums: &mut [f32]) {
    const N: usize = 16;
    let words = tile.x.chunks(rows * BLOCK / 2).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.chunks_exact(rows).zip(tile.scales.as_chunks::<N>().0);
    for ((x, weights), (x_scales, scales)) in words.zip(scales) {
        for (row, sums) in sums.as_chunks_mut::<N>().0.iter_mut().take(rows).enumerate() {
            let mut integers = [0i32; N];
            for (x, weights) in x.chunks_exact(rows).zip(weights.as_chunks::<{ 2 * N }>().0) {
                let (low, high) = (i32::from(x[row] as i16), i32::from((x[row] >> 16) as i16));
                for (sum, [a, b]) in integers.iter_mut().zip(weights.as_chunks::<2>().0) {
                    // Only integers of what is not finite overflow, and their scale is NaN.
                    *sum = sum
                        .wrapping_add(low.wrapping_mul((*a).into()))
                        .wrapping_add(high.wrapping_mul((*b).into()));
                }
            }
            for ((sum, integer), scale) in sums.iter_mut().zip(integers).zip(scales) {
                *sum = (integer as f32).mul_add(x_scales[row] * scale, *sum);
            }
        }
    }
}

/// 8-bit weights of a block, their scale and their sum.
pub fn int8_weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, MAX8, &mut integers);
    for (to, integer) in to.iter_mut().zip(integers) {
        *to = integer as i8;
    }
    (scale, integers.into_iter().map(i32::from).sum())
}

/// 13-bit weights of a block, and their scale. Their sum begins with zero.
pub fn int13_weights(numbers: &[f32], to: &mut [i16]) -> (f32, i32) {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, MAX13, &mut integers);
    to.copy_from_slice(&integers[..to.len()]);
    (scale, 0)
}

/// The integers from `-max` to `max` of a block in pairs, each `stride` after the one before, and their scale.
pub fn int_pairs(numbers: &[f32], max: f32, to: &mut [u32], stride: usize) -> f32 {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, max, &mut integers);
    let pairs = integers.as_chunks().0.iter().take(numbers.len().div_ceil(2));
    for (to, [low, high]) in to.iter_mut().step_by(stride).zip(pairs) {
        *to = u32::from(*low as u16) | u32::from(*high as u16) << 16;
    }
    scale
}

/// The 8-bit integers of a block, each `offset` more than it is, four to a word. A word is `stride` after the one before.
/// Returns the scale.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn int_bytes(numbers: &[f32], to: &mut [u32], stride: usize, offset: i16) -> f32 {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, MAX8, &mut integers);
    let groups = integers.as_chunks::<4>().0.iter().take(numbers.len().div_ceil(4));
    for (to, group) in to.iter_mut().step_by(stride).zip(groups) {
        *to = u32::from_le_bytes(group.map(|integer| integer.wrapping_add(offset) as u8));
    }
    scale
}

/// The 16-bit integers of a block: their high bytes, signed, and their low bytes, unsigned. Returns the scale.
#[cfg(target_arch = "x86_64")]
pub fn int_halves(numbers: &[f32], max: f32, high: &mut [u32], low: &mut [u32]) -> f32 {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, max, &mut integers);
    for ((integers, high), low) in integers.as_chunks::<4>().0.iter().zip(high).zip(low) {
        *high = u32::from_le_bytes(integers.map(|integer| (integer >> 8) as u8));
        *low = u32::from_le_bytes(integers.map(|integer| integer as u8));
    }
    scale
}

/// [`ColumnKernel::columns`] for 13-bit integers.
#[inline(always)]
pub fn int13_columns<const N: usize>(numbers: &[f32], to: &mut Aligned<i16>, scales: &mut Aligned<f32>) {
    let rows = numbers.as_chunks::<N>().0;
    to.resize(rows.len().next_multiple_of(2) * N);
    scales.resize(rows.len().div_ceil(BLOCK) * N);
    let blocks = to.chunks_mut(BLOCK * N).zip(scales.as_chunks_mut::<N>().0);
    for (rows, (to, scales)) in rows.chunks(BLOCK).zip(blocks) {
        let mut highest = [0f32; N];
        for row in rows {
            for (highest, x) in highest.iter_mut().zip(row) {
                let size = x.abs();
                *highest = if size > *highest { size } else { *highest };
            }
        }
        let inverse = highest.map(|highest| if highest > 1e-30 { MAX13 / highest } else { 0. });
        *scales = highest.map(|highest| if highest > 1e-30 { highest / MAX13 } else { 0. });
        let zeros = [0f32; N];
        for (to, pair) in to.chunks_exact_mut(2 * N).zip(rows.chunks(2)) {
            let (low, high) = (&pair[0], pair.get(1).unwrap_or(&zeros));
            for i in 0..N {
                // As in `quantise`.
                to[2 * i] = (low[i] * inverse[i] + 12_582_912.).to_bits() as i16;
                to[2 * i + 1] = (high[i] * inverse[i] + 12_582_912.).to_bits() as i16;
            }
        }
    }
}
