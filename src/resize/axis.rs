//! The weights for resizing along one axis.

use super::interpolation::Interpolation;

/// Inputs that a vectorised pass takes at a time.
pub const STEP: usize = 4;

/// Weights from one length to another: output `i` is the weighted sum of the `width` inputs from `starts[i]` on, plus
/// [`AxisWeights::half`], shifted right by `shift`.
pub struct AxisWeights {
    /// First input of every output.
    pub starts: Vec<usize>,
    /// `width` weights for every output, padded with zeros.
    pub weights: Vec<i16>,
    /// Inputs of every output.
    pub width: usize,
    /// Binary places of the weights.
    pub shift: u32,
    /// Whether `width` is a multiple of [`STEP`], as the vectorised passes need it. It is not if the input is too short
    /// for the padding.
    pub padded: bool,
}

impl AxisWeights {
    /// Weights from `n_in` inputs to `n_out` outputs. Neither is 0.
    pub fn new(n_in: usize, n_out: usize, interpolation: Interpolation) -> Self {
        let (mut starts, windows) = float_weights(n_in, n_out, interpolation);
        let peak = windows.iter().flatten().copied().fold(0.0_f64, f64::max);
        // The most binary places with which the largest weight still fits 16 bits.
        let mut shift = 0;
        while shift < 22 && 0.5 + peak * f64::from(1 << (shift + 1)) < 32768.0 {
            shift += 1;
        }
        // All windows get the same width. A window that would reach beyond the input begins earlier.
        let widest = windows.iter().map(Vec::len).max().unwrap_or(0);
        let padded = widest.next_multiple_of(STEP) <= n_in;
        let width = if padded { widest.next_multiple_of(STEP) } else { widest };
        let mut weights = vec![0; width * n_out];
        for ((row, window), start) in weights.chunks_exact_mut(width).zip(&windows).zip(&mut starts) {
            let wanted = *start;
            *start = wanted.min(n_in - width);
            for (fixed, w) in row[wanted - *start..].iter_mut().zip(window) {
                let steps = w * f64::from(1 << shift);
                // Rounds half away from zero.
                *fixed = (steps + 0.5_f64.copysign(steps)) as i16;
            }
        }
        Self { starts, weights, width, shift, padded }
    }

    /// Start and weights of every output.
    pub fn windows(&self) -> impl Iterator<Item = (usize, &[i16])> {
        self.starts.iter().copied().zip(self.weights.chunks_exact(self.width))
    }

    /// One half in fixed point. A sum starts from it, so that the shift rounds.
    pub fn half(&self) -> i32 {
        1 << (self.shift - 1)
    }
}

/// For every output: its first input and the weights from there on, which sum up to 1.
fn float_weights(n_in: usize, n_out: usize, interpolation: Interpolation) -> (Vec<usize>, Vec<Vec<f64>>) {
    let scale = n_in as f64 / n_out as f64;
    let stretch = scale.max(1.0);
    let (support, inverse) = (interpolation.support * stretch, 1.0 / stretch);
    let window = |i: usize| {
        let centre = scale * (i as f64 + 0.5);
        // `as usize` rounds towards zero and makes negative numbers zero.
        let start = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(n_in);
        let mut window: Vec<f64> =
            (start..end).map(|j| (interpolation.weight)((j as f64 - centre + 0.5) * inverse)).collect();
        let total: f64 = window.iter().sum();
        if total != 0.0 {
            window.iter_mut().for_each(|w| *w /= total);
        }
        (start, window)
    };
    (0..n_out).map(window).unzip()
}
