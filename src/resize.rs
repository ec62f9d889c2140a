//! The reference's picture resize, bit for bit: LANCZOS-3 with antialiasing in 16-bit fixed point,
//! as torchvision 0.29 on torch 2.15 does it on the CPU. RGB bytes in, RGB bytes out; the horizontal
//! pass comes first and is rounded to bytes, then the vertical one. Pure; capture takes the first of
//! the model's two steps already, so that no more of a picture is kept than the model looks at.

use std::{
    borrow::Cow,
    collections::HashMap,
    f64::consts::PI,
    sync::{Arc, Mutex, PoisonError},
};

#[cfg(target_arch = "x86_64")]
mod avx2;

/// An RGB picture: `height` rows of `width` triples, top to bottom, no padding; at least one pixel.
#[derive(Clone)]
pub struct Picture<'a> {
    rgb: Cow<'a, [u8]>,
    width: usize,
    height: usize,
}

/// A picture without pixels, or with another number of bytes than its size asks for.
#[derive(Debug, thiserror::Error)]
#[error("a picture of {width}x{height} pixels cannot have {bytes} bytes of RGB")]
pub struct BadPicture {
    width: u32,
    height: u32,
    bytes: usize,
}

impl<'a> Picture<'a> {
    /// Checks that `rgb` holds `width` x `height` pixels, at least one.
    pub fn new(rgb: &'a [u8], width: u32, height: u32) -> Result<Self, BadPicture> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels.checked_mul(3) != Some(rgb.len() as u64) {
            return Err(BadPicture { width, height, bytes: rgb.len() });
        }
        Ok(Self { rgb: Cow::Borrowed(rgb), width: width as usize, height: height as usize })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: row, column, channel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The same picture stretched to `width` x `height`, neither of them 0; a pass whose size does
    /// not change is skipped.
    pub fn resize(self, width: usize, height: usize, filters: &Filters) -> Self {
        self.stretch_rows(width, filters).stretch_columns(height, filters)
    }

    fn stretch_rows(self, width: usize, filters: &Filters) -> Self {
        if width == self.width {
            return self;
        }
        let mut rgb = vec![0; width * self.height * 3];
        horizontal(&self.rgb, self.width, &filters.between(self.width, width), &mut rgb);
        Self { rgb: Cow::Owned(rgb), width, height: self.height }
    }

    fn stretch_columns(self, height: usize, filters: &Filters) -> Self {
        if height == self.height {
            return self;
        }
        let mut rgb = vec![0; self.width * height * 3];
        vertical(&self.rgb, self.width * 3, &filters.between(self.height, height), &mut rgb);
        Self { rgb: Cow::Owned(rgb), width: self.width, height }
    }
}

/// Width and height when the longer side becomes `edge`; the shorter one is cut off to a whole
/// number and made even.
pub fn keep_aspect(width: usize, height: usize, edge: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
    if width >= height { (edge, even(edge as f64 / aspect)) } else { (even(edge as f64 * aspect), edge) }
}

/// The size to which a picture can be made smaller without a difference to who goes by way of `edge`
/// anyhow: its next step by way of `edge` changes nothing then. None where there is no such size.
pub fn shrunk(width: usize, height: usize, edge: usize) -> Option<(usize, usize)> {
    let (w, h) = keep_aspect(width, height, edge);
    (width.max(height) > edge && keep_aspect(w, h, edge) == (w, h)).then_some((w, h))
}

/// Filters that were needed before: cameras send the same size again and again.
#[derive(Default)]
pub struct Filters(Mutex<HashMap<(usize, usize), Arc<Filter>>>);

impl Filters {
    /// Enough for a dozen cameras of different sizes; a filter takes some 25 to 100 kB.
    const MOST: usize = 64;

    fn between(&self, n_in: usize, n_out: usize) -> Arc<Filter> {
        // A filter is put in whole, so a panic elsewhere cannot leave half of one behind.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST && !known.contains_key(&(n_in, n_out)) {
            known.clear();
        }
        known.entry((n_in, n_out)).or_insert_with(|| Arc::new(Filter::new(n_in, n_out))).clone()
    }
}

/// Inputs that a fast pass takes at a time.
const STEP: usize = 4;

/// Weights from one length to another: output `i` is the weighted sum of the `width` inputs from
/// `starts[i]` on, plus half a step, shifted right by `shift`.
struct Filter {
    starts: Vec<usize>,
    /// `width` for each output, with zeros around those that it needs.
    weights: Vec<i16>,
    width: usize,
    shift: u32,
    /// `width` is a multiple of `STEP`: there was room for that.
    roomy: bool,
}

impl Filter {
    fn new(n_in: usize, n_out: usize) -> Self {
        let scale = n_in as f64 / n_out as f64;
        let stretch = scale.max(1.0);
        let (support, inverse) = (3.0 * stretch, 1.0 / stretch);
        let (mut starts, mut windows, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
        for i in 0..n_out {
            let centre = scale * (i as f64 + 0.5);
            // A float cast cuts off towards zero and turns what is below zero into zero.
            let start = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(n_in);
            let mut window: Vec<f64> =
                (start..end).map(|j| lanczos3((j as f64 - centre + 0.5) * inverse)).collect();
            let total: f64 = window.iter().sum();
            if total != 0.0 {
                window.iter_mut().for_each(|w| *w /= total);
            }
            peak = window.iter().copied().fold(peak, f64::max);
            starts.push(start);
            windows.push(window);
        }
        // The finest step with which the largest weight still fits 16 bits.
        let mut shift = 0;
        while shift < 22 && 0.5 + peak * f64::from(1 << (shift + 1)) < 32768.0 {
            shift += 1;
        }
        // All windows get the same width, in whole steps of the fast passes where the input is long
        // enough for that, and those that would reach beyond the input begin earlier.
        let widest = windows.iter().map(Vec::len).max().unwrap_or(0);
        let roomy = widest.next_multiple_of(STEP) <= n_in;
        let width = if roomy { widest.next_multiple_of(STEP) } else { widest };
        let mut weights = vec![0; width * n_out];
        for ((row, window), start) in weights.chunks_exact_mut(width).zip(&windows).zip(&mut starts) {
            let wanted = *start;
            *start = wanted.min(n_in - width);
            for (fixed, w) in row[wanted - *start..].iter_mut().zip(window) {
                let steps = w * f64::from(1 << shift);
                // Half away from zero.
                *fixed = (steps + 0.5_f64.copysign(steps)) as i16;
            }
        }
        Self { starts, weights, width, shift, roomy }
    }

    /// Start and weights of every output.
    fn windows(&self) -> impl Iterator<Item = (usize, &[i16])> {
        self.starts.iter().copied().zip(self.weights.chunks_exact(self.width))
    }

    /// Half a step: what a sum starts from so that the shift rounds.
    fn half(&self) -> i32 {
        1 << (self.shift - 1)
    }
}

/// A sinc under the middle lobe of a sinc three times as wide, in the reference's order of operations.
fn lanczos3(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x <= -3.0 || x >= 3.0 {
        return 0.0;
    }
    let px = PI * x;
    (px.sin() / px) * ((px / 3.0).sin() / (px / 3.0))
}

/// Resizes every row of `n_in` pixels.
fn horizontal(src: &[u8], n_in: usize, filter: &Filter, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if filter.roomy && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::horizontal(src, n_in, filter, out) };
    }
    plain_horizontal(src, n_in, filter, out);
}

/// Resizes a picture whose rows have `stride` bytes along its columns.
fn vertical(src: &[u8], stride: usize, filter: &Filter, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if filter.roomy && stride >= avx2::BLOCK && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::vertical(src, stride, filter, out) };
    }
    plain_vertical(src, stride, filter, out);
}

fn plain_horizontal(src: &[u8], n_in: usize, filter: &Filter, out: &mut [u8]) {
    let mut wide = vec![[0_i32; 4]; n_in];
    for (row, out) in src.chunks_exact(n_in * 3).zip(out.chunks_exact_mut(filter.starts.len() * 3)) {
        for (wide, rgb) in wide.iter_mut().zip(row.chunks_exact(3)) {
            // A fourth lane, unused, makes a pixel a vector.
            *wide = [i32::from(rgb[0]), i32::from(rgb[1]), i32::from(rgb[2]), 0];
        }
        for (out, (start, weights)) in out.chunks_exact_mut(3).zip(filter.windows()) {
            let mut sum = [filter.half(); 4];
            for (pixel, &w) in wide[start..].iter().zip(weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(value.wrapping_mul(i32::from(w)));
                }
            }
            for (byte, sum) in out.iter_mut().zip(sum) {
                *byte = (sum >> filter.shift).clamp(0, 255) as u8;
            }
        }
    }
}

fn plain_vertical(src: &[u8], stride: usize, filter: &Filter, out: &mut [u8]) {
    let mut sums = vec![0_i32; stride];
    for (out, (start, weights)) in out.chunks_exact_mut(stride).zip(filter.windows()) {
        sums.fill(filter.half());
        for (row, &w) in src[start * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum = sum.wrapping_add(i32::from(byte).wrapping_mul(i32::from(w)));
            }
        }
        for (byte, &sum) in out.iter_mut().zip(&sums) {
            *byte = (sum >> filter.shift).clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(bytes: usize, seed: u32) -> Vec<u8> {
        (0..bytes as u32).map(|i| (i ^ seed).wrapping_mul(2_654_435_761).rotate_left(15) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_fast_passes_give_the_bytes_of_the_plain_ones(
            (n_in, n_out, other, seed) in (1_usize..90, 1_usize..90, 1_usize..40, any::<u32>())
        ) {
            let filter = Filter::new(n_in, n_out);
            let src = noise(n_in * other * 3, seed);
            let (mut fast, mut plain) = (vec![0; n_out * other * 3], vec![0; n_out * other * 3]);
            horizontal(&src, n_in, &filter, &mut fast);
            plain_horizontal(&src, n_in, &filter, &mut plain);
            prop_assert_eq!(&fast, &plain);
            vertical(&src, other * 3, &filter, &mut fast);
            plain_vertical(&src, other * 3, &filter, &mut plain);
            prop_assert_eq!(&fast, &plain);
        }

        #[test]
        fn who_makes_a_picture_smaller_first_gets_the_same_bytes(
            (w, h, half, seed) in (1_usize..200, 1_usize..200, 1_usize..32, any::<u32>())
        ) {
            let edge = 2 * half; // as models have it
            let rgb = noise(w * h * 3, seed);
            let filters = Filters::default();
            let picture = Picture::new(&rgb, w as u32, h as u32).unwrap();
            let by_way_of_edge = |picture: Picture<'_>| {
                let (w, h) = keep_aspect(picture.width(), picture.height(), edge);
                picture.resize(w, h, &filters).resize(32, 32, &filters).rgb().to_vec()
            };
            if let Some((w, h)) = shrunk(w, h, edge) {
                prop_assert!(w * h < picture.width() * picture.height());
                let small = picture.clone().resize(w, h, &filters);
                prop_assert_eq!(by_way_of_edge(small), by_way_of_edge(picture));
            } else {
                // No larger than that, or a mere line of pixels.
                prop_assert!(w.max(h) <= edge || w.min(h) * edge < w.max(h) * 2);
            }
        }

        #[test]
        fn an_even_colour_stays_as_it_is((w, h) in (1_u32..300, 1_u32..300), colour in any::<[u8; 3]>()) {
            let rgb = colour.repeat((w * h) as usize);
            let out = Picture::new(&rgb, w, h).unwrap().resize(64, 48, &Filters::default());
            prop_assert!(out.rgb().chunks_exact(3).all(|pixel| pixel == colour));
        }
    }

    #[test]
    fn a_picture_of_the_wrong_length_is_refused() {
        for (bytes, w, h) in [(0, 0, 5), (0, 5, 0), (11, 2, 2), (13, 2, 2), (12, u32::MAX, u32::MAX)] {
            assert!(Picture::new(&vec![0; bytes], w, h).is_err(), "{bytes} bytes as {w}x{h}");
        }
    }

    #[test]
    fn no_more_filters_are_kept_than_the_bound_allows() {
        let filters = Filters::default();
        for n_in in 1..200 {
            filters.between(n_in, 8);
        }
        assert!(filters.0.lock().unwrap().len() <= Filters::MOST);
    }
}
