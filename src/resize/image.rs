//! RGB images and how they are resized.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::{axis::AxisWeights, interpolation::Interpolation, portable};

/// An RGB image of at least one pixel: `height` rows of `width` triples of bytes, top to bottom, without padding.
#[derive(Clone)]
pub struct RgbImage<'a> {
    rgb: Cow<'a, [u8]>,
    width: usize,
    height: usize,
}

/// An image without pixels, or with another number of bytes than its size needs.
#[derive(Debug, thiserror::Error)]
#[error("an image of {width}x{height} pixels cannot have {bytes} bytes of RGB")]
pub struct BadImage {
    width: u32,
    height: u32,
    bytes: usize,
}

impl<'a> RgbImage<'a> {
    /// An image of these bytes.
    ///
    /// # Errors
    /// When `rgb` does not hold `width` x `height` pixels, or that is 0.
    pub fn new(rgb: &'a [u8], width: u32, height: u32) -> Result<Self, BadImage> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels.checked_mul(3) != Some(rgb.len() as u64) {
            return Err(BadImage { width, height, bytes: rgb.len() });
        }
        Ok(Self { rgb: Cow::Borrowed(rgb), width: width as usize, height: height as usize })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes, in the order row, column, channel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The image resized to `width` x `height`, neither of which may be 0. A pass whose size does not change is skipped.
    pub fn resize(self, width: usize, height: usize, resizer: &Resizer) -> Self {
        self.resize_rows(width, resizer).resize_columns(height, resizer)
    }

    fn resize_rows(self, width: usize, resizer: &Resizer) -> Self {
        if width == self.width {
            return self;
        }
        let mut rgb = vec![0; width * self.height * 3];
        horizontal(&self.rgb, self.width, &resizer.axis(self.width, width), &mut rgb);
        Self { rgb: Cow::Owned(rgb), width, height: self.height }
    }

    fn resize_columns(self, height: usize, resizer: &Resizer) -> Self {
        if height == self.height {
            return self;
        }
        let mut rgb = vec![0; self.width * height * 3];
        vertical(&self.rgb, self.width * 3, &resizer.axis(self.height, height), &mut rgb);
        Self { rgb: Cow::Owned(rgb), width: self.width, height }
    }
}

/// An interpolation with a cache of the weights that were needed before: a camera's frames all have the same size.
pub struct Resizer {
    interpolation: Interpolation,
    cache: Mutex<HashMap<(usize, usize), Arc<AxisWeights>>>,
}

impl Resizer {
    /// Most entries of the cache. It is enough for a dozen cameras of different sizes; an entry takes 25 to 100 kB.
    const MAX_CACHED: usize = 64;

    /// A resizer with an empty cache.
    pub fn new(interpolation: Interpolation) -> Self {
        Self { interpolation, cache: Mutex::default() }
    }

    fn axis(&self, n_in: usize, n_out: usize) -> Arc<AxisWeights> {
        // An entry is inserted whole, so the map is valid even if another thread panicked.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= Self::MAX_CACHED && !cache.contains_key(&(n_in, n_out)) {
            cache.clear();
        }
        let axis = || Arc::new(AxisWeights::new(n_in, n_out, self.interpolation));
        cache.entry((n_in, n_out)).or_insert_with(axis).clone()
    }
}

/// Resizes every row of `n_in` pixels.
fn horizontal(src: &[u8], n_in: usize, axis: &AxisWeights, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if axis.padded && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::horizontal(src, n_in, axis, out) };
    }
    portable::horizontal(src, n_in, axis, out);
}

/// Resizes an image, whose rows have `stride` bytes, along its columns.
fn vertical(src: &[u8], stride: usize, axis: &AxisWeights, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if axis.padded && stride >= avx2::BLOCK && is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::vertical(src, stride, axis, out) };
    }
    portable::vertical(src, stride, axis, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::interpolation::LANCZOS3, *};

    fn noise(bytes: usize, seed: u32) -> Vec<u8> {
        (0..bytes as u32).map(|i| (i ^ seed).wrapping_mul(2_654_435_761).rotate_left(15) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_vectorised_passes_give_the_bytes_of_the_portable_ones(
            (n_in, n_out, other, seed) in (1_usize..90, 1_usize..90, 1_usize..40, any::<u32>())
        ) {
            let axis = AxisWeights::new(n_in, n_out, LANCZOS3);
            let src = noise(n_in * other * 3, seed);
            let (mut fast, mut plain) = (vec![0; n_out * other * 3], vec![0; n_out * other * 3]);
            horizontal(&src, n_in, &axis, &mut fast);
            portable::horizontal(&src, n_in, &axis, &mut plain);
            prop_assert_eq!(&fast, &plain);
            vertical(&src, other * 3, &axis, &mut fast);
            portable::vertical(&src, other * 3, &axis, &mut plain);
            prop_assert_eq!(&fast, &plain);
        }

        #[test]
        fn an_even_colour_stays_as_it_is((w, h) in (1_u32..300, 1_u32..300), colour in any::<[u8; 3]>()) {
            let rgb = colour.repeat((w * h) as usize);
            let out = RgbImage::new(&rgb, w, h).unwrap().resize(64, 48, &Resizer::new(LANCZOS3));
            prop_assert!(out.rgb().chunks_exact(3).all(|pixel| pixel == colour));
        }
    }

    #[test]
    fn an_image_of_the_wrong_length_is_refused() {
        for (bytes, w, h) in [(0, 0, 5), (0, 5, 0), (11, 2, 2), (13, 2, 2), (12, u32::MAX, u32::MAX)] {
            assert!(RgbImage::new(&vec![0; bytes], w, h).is_err(), "{bytes} bytes as {w}x{h}");
        }
    }

    #[test]
    fn the_cache_of_weights_is_bounded() {
        let resizer = Resizer::new(LANCZOS3);
        for n_in in 1..200 {
            resizer.axis(n_in, 8);
        }
        assert!(resizer.cache.lock().unwrap().len() <= Resizer::MAX_CACHED);
    }
}
