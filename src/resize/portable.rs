//! The two passes for any processor.

use super::axis::AxisWeights;

/// Resizes every row of `n_in` pixels.
pub fn horizontal(src: &[u8], n_in: usize, axis: &AxisWeights, out: &mut [u8]) {
    let mut wide = vec![[0_i32; 4]; n_in];
    for (row, out) in src.chunks_exact(n_in * 3).zip(out.chunks_exact_mut(axis.starts.len() * 3)) {
        for (wide, rgb) in wide.iter_mut().zip(row.chunks_exact(3)) {
            // A fourth, unused lane makes a pixel a vector.
            *wide = [i32::from(rgb[0]), i32::from(rgb[1]), i32::from(rgb[2]), 0];
        }
        for (out, (start, weights)) in out.chunks_exact_mut(3).zip(axis.windows()) {
            let mut sum = [axis.half(); 4];
            for (pixel, &w) in wide[start..].iter().zip(weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(value.wrapping_mul(i32::from(w)));
                }
            }
            for (byte, sum) in out.iter_mut().zip(sum) {
                *byte = (sum >> axis.shift).clamp(0, 255) as u8;
            }
        }
    }
}

/// Resizes an image, whose rows have `stride` bytes, along its columns.
pub fn vertical(src: &[u8], stride: usize, axis: &AxisWeights, out: &mut [u8]) {
    let mut sums = vec![0_i32; stride];
    for (out, (start, weights)) in out.chunks_exact_mut(stride).zip(axis.windows()) {
        sums.fill(axis.half());
        for (row, &w) in src[start * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(i32::from(w)));
            }
        }
        for (byte, &sum) in out.iter_mut().zip(&sums) {
            *byte = (sum >> axis.shift).clamp(0, 255) as u8;
        }
    }
}
