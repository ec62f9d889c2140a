//! The change gate: whether a clip shows anything that the last described clip did not. Pure: clips in, yes
//! or no out.
//!
//! Frames are reduced to grids of brightness. A clip shows nothing new if each of its frames looks like the
//! last frame of the last described clip, and like the frame before it. Noise, exposure (the whole frame
//! brighter or darker, with more or less contrast) and compression artefacts are no change. The gate cannot
//! see a change of colour at the same brightness, nor anything smaller than two blocks, each a 64th of the
//! width.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::{clip::Clip, frame::Frame, prompt_spec::PromptSpec, view::View};

/// What the gate remembers of a clip, to compare other clips with it.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    frames: Vec<LumaGrid>,
    start: DateTime<Utc>,
    view: Option<Arc<View>>,
    prompt_spec: Arc<PromptSpec>,
}

impl Fingerprint {
    /// The fingerprint of a clip. `None` if the clip's [`PromptSpec`] has no gate, or if a frame does not have
    /// the pixels that its size demands.
    pub fn of(clip: &Clip) -> Option<Self> {
        clip.prompt_spec.gate?;
        let frames: Vec<_> = clip.frames.iter().map(LumaGrid::of).collect::<Option<_>>()?;
        (!frames.is_empty()).then(|| Self {
            frames,
            start: clip.start,
            view: clip.view.clone(),
            prompt_spec: clip.prompt_spec.clone(),
        })
    }

    /// Whether the description of the clip that `described` was taken from still holds: nothing has changed,
    /// prompt, crop and masks are the same, and the heartbeat is not due. If the clock was set back, the heartbeat counts
    /// as due.
    pub fn repeats(&self, described: &Self) -> bool {
        let (Some(gate), Some(reference)) = (self.prompt_spec.gate, described.frames.last()) else {
            return false;
        };
        let age = (self.start - described.start).to_std();
        let unchanged = |now: &LumaGrid, before: &LumaGrid| !now.differs(before, f32::from(gate.threshold));
        self.prompt_spec == described.prompt_spec
            && self.view == described.view
            && age.is_ok_and(|age| age < gate.heartbeat)
            && self.frames.iter().all(|frame| unchanged(frame, reference))
            && self.frames.windows(2).all(|pair| unchanged(&pair[1], &pair[0]))
    }

    /// Keeps the last frame only, which is all that later clips are compared with.
    pub fn keep_last_frame(mut self) -> Self {
        self.frames.drain(..self.frames.len().saturating_sub(1));
        self
    }
}

/// Width and height of a grid, in blocks.
const WIDTH: usize = 64;
const HEIGHT: usize = 36;
/// Pixels of a block that are read, in each direction. More would only average the same noise away.
const SAMPLES: usize = 8;

/// The brightness of a frame: `HEIGHT` rows of `WIDTH` blocks, each from 0 to 255.
#[derive(Clone, Debug)]
struct LumaGrid(Box<[f32]>);

/// A change of exposure: the brightness of one frame as a linear function of that of another.
struct Exposure {
    gain: f32,
    offset: f32,
}

/// The contrast of two exposures differs by no more than this factor.
const MAX_GAIN: f32 = 2.0;
/// The median brightness differs by no more than this. A lamp that is switched on changes it more.
const MAX_SHIFT: f32 = 60.0;
/// Share of the blocks that the exposure is estimated from. The others may have changed.
const TRUSTED: f32 = 0.75;
/// Below this standard deviation, a frame tells nothing about contrast.
const FLAT: f32 = 5.0;
/// A block may differ by this many standard deviations of the noise.
const NOISE: f32 = 4.0;
/// A larger difference is not noise: more than half of the frame has changed.
const NOISE_LIMIT: f32 = 24.0;

impl LumaGrid {
    /// Reduces a frame. `None` if it has no pixels, or not as many as its size demands.
    fn of(frame: &Frame) -> Option<Self> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        if frame.rgb.is_empty() || frame.rgb.len() != width * height * 3 {
            return None;
        }
        // Pixels are evenly spread over a block, and the same in every frame of this size.
        let spread = |block: usize, blocks: usize, length: usize| -> Vec<usize> {
            let from = block * length / blocks;
            let span = ((block + 1) * length / blocks - from).max(1);
            let count = span.min(SAMPLES);
            (0..count).map(|i| from + i * span / count).collect()
        };
        let columns: Vec<_> = (0..WIDTH).map(|b| spread(b, WIDTH, width)).collect();
        let rows: Vec<_> = (0..HEIGHT).map(|b| spread(b, HEIGHT, height)).collect();
        let block = |rows: &[usize], columns: &[usize]| {
            let pixels = rows.iter().flat_map(|y| columns.iter().map(move |x| (y * width + x) * 3));
            let sum: u32 = pixels.map(|at| luma(&frame.rgb[at..at + 3])).sum();
            sum as f32 / 256.0 / (rows.len() * columns.len()) as f32
        };
        Some(Self(rows.iter().flat_map(|r| columns.iter().map(|c| block(r, c))).collect()))
    }

    /// Whether `self` differs from `before` by more than exposure and noise. `threshold`: the least change of
    /// a block that counts.
    fn differs(&self, before: &Self, threshold: f32) -> bool {
        let Some(exposure) = self.exposure(before) else { return true };
        let off: Vec<f32> =
            self.0.iter().zip(&before.0).map(|(now, then)| (now - exposure.apply(*then)).abs()).collect();
        // The median of the absolute deviations: 0.6745 standard deviations of a normal distribution.
        let noise = NOISE * quantile(&mut off.clone(), 0.5) / 0.6745;
        let limit = threshold + noise.min(NOISE_LIMIT);
        let changed = |x: usize, y: usize| x < WIDTH && y < HEIGHT && off[y * WIDTH + x] > limit;
        // A single block may flicker. A moving object covers at least two adjacent blocks.
        (0..HEIGHT).any(|y| (0..WIDTH).any(|x| changed(x, y) && (changed(x + 1, y) || changed(x, y + 1))))
    }

    /// The change of exposure from `before` to `self`, estimated from the blocks that agree best. `None` if no
    /// change of exposure explains the difference.
    fn exposure(&self, before: &Self) -> Option<Exposure> {
        let mut differences: Vec<f32> = self.0.iter().zip(&before.0).map(|(now, then)| now - then).collect();
        let mut exposure = Exposure { gain: 1.0, offset: quantile(&mut differences, 0.5) };
        for _ in 0..3 {
            let off = |(now, then): (&f32, &f32)| (now - exposure.apply(*then)).abs();
            let mut sorted: Vec<f32> = self.0.iter().zip(&before.0).map(off).collect();
            let trusted = quantile(&mut sorted, TRUSTED);
            let pairs = self.0.iter().zip(&before.0).filter(|pair| off(*pair) <= trusted);
            exposure = Exposure::fit(pairs.map(|(now, then)| (*then, *now)));
        }
        let median = quantile(&mut before.0.to_vec(), 0.5);
        let possible = (1.0 / MAX_GAIN..=MAX_GAIN).contains(&exposure.gain)
            && (exposure.apply(median) - median).abs() <= MAX_SHIFT;
        possible.then_some(exposure)
    }
}

impl Exposure {
    /// Least squares over pairs of brightness before and after.
    fn fit(pairs: impl Iterator<Item = (f32, f32)> + Clone) -> Self {
        let count = pairs.clone().count().max(1) as f32;
        let sum = pairs.clone().fold((0.0, 0.0), |(x, y), pair| (x + pair.0, y + pair.1));
        let mean = (sum.0 / count, sum.1 / count);
        let (mut square, mut product) = (0.0, 0.0);
        for (then, now) in pairs {
            square += (then - mean.0).powi(2);
            product += (then - mean.0) * (now - mean.1);
        }
        let gain = if (square / count).sqrt() < FLAT { 1.0 } else { product / square };
        Self { gain, offset: mean.1 - gain * mean.0 }
    }

    /// The brightness after the change of a block that had brightness `then`. Clipped at black and white.
    fn apply(&self, then: f32) -> f32 {
        (self.gain * then + self.offset).clamp(0.0, 255.0)
    }
}

/// The brightness of an RGB pixel by the weights of ITU-R BT.601, times 256.
fn luma(rgb: &[u8]) -> u32 {
    77 * u32::from(rgb[0]) + 150 * u32::from(rgb[1]) + 29 * u32::from(rgb[2])
}

/// The value below which `share` of the values lie. Reorders the values.
fn quantile(values: &mut [f32], share: f32) -> f32 {
    let at = (values.len().saturating_sub(1) as f32 * share) as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}
