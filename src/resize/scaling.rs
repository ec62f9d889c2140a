//! The first of the two steps in which a model scales frames down. Capture already does it, so that no more of a frame
//! is kept than the model looks at.

use super::{
    image::{Resizer, RgbImage},
    interpolation::Interpolation,
};

/// How a model scales frames down first.
#[derive(Clone, Copy, Debug)]
pub struct FrameScaling {
    /// The longer side afterwards, in pixels.
    pub edge: usize,
    /// With which interpolation.
    pub interpolation: Interpolation,
}

impl FrameScaling {
    /// The size, `(width, height)`, to which a frame can be scaled down early without changing the result of the model's
    /// own step to `edge`, which then does nothing. None if the frame is not larger, or no such size exists.
    pub fn early_size(&self, width: usize, height: usize) -> Option<(usize, usize)> {
        let (w, h) = keep_aspect(width, height, self.edge);
        (width.max(height) > self.edge && keep_aspect(w, h, self.edge) == (w, h)).then_some((w, h))
    }
}

/// Width and height when the longer side becomes `edge`. The shorter one is rounded down to a whole number, then up to
/// an even one, as the reference does.
pub fn keep_aspect(width: usize, height: usize, edge: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let even = |side: f64| (side as usize).next_multiple_of(2).max(1);
    if width >= height { (edge, even(edge as f64 / aspect)) } else { (even(edge as f64 * aspect), edge) }
}

/// Scales frames down early.
pub struct FrameScaler {
    scaling: FrameScaling,
    resizer: Resizer,
}

impl FrameScaler {
    /// A scaler with an empty cache.
    pub fn new(scaling: FrameScaling) -> Self {
        Self { scaling, resizer: Resizer::new(scaling.interpolation) }
    }

    /// The frame scaled down, or None if it is to stay as it is.
    pub fn scale<'a>(&self, frame: RgbImage<'a>) -> Option<RgbImage<'a>> {
        let (width, height) = self.scaling.early_size(frame.width(), frame.height())?;
        Some(frame.resize(width, height, &self.resizer))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::interpolation::LANCZOS3, *};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn scaling_a_frame_down_early_does_not_change_what_the_model_sees(
            (w, h, half, seed) in (1_usize..200, 1_usize..200, 1_usize..32, any::<u32>())
        ) {
            let edge = 2 * half; // published models have even ones
            let noise = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761).rotate_left(15) as u8;
            let rgb: Vec<u8> = (0..(w * h * 3) as u32).map(noise).collect();
            let resizer = Resizer::new(LANCZOS3);
            let frame = RgbImage::new(&rgb, w as u32, h as u32).unwrap();
            let tile = |frame: RgbImage<'_>| {
                let (w, h) = keep_aspect(frame.width(), frame.height(), edge);
                frame.resize(w, h, &resizer).resize(32, 32, &resizer).rgb().to_vec()
            };
            if let Some(small) = FrameScaler::new(FrameScaling { edge, interpolation: LANCZOS3 }).scale(frame.clone()) {
                prop_assert!(small.rgb().len() < frame.rgb().len());
                prop_assert_eq!(tile(small), tile(frame));
            } else {
                // It is not larger, or so narrow that its shorter side is rounded to almost nothing.
                prop_assert!(w.max(h) <= edge || w.min(h) * edge < w.max(h) * 2);
            }
        }
    }
}
