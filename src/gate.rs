//! The change gate: whether a clip shows anything that the last described one did not. Pure: clips
//! in, yes or no out.
//!
//! Frames are reduced to small pictures of their brightness. A clip is still when every one of its
//! frames looks like the end of the last described clip and like the frame before it. What does not
//! count as a change: noise, exposure (the whole picture brighter or darker, with more or less
//! contrast), the shimmer of compression. What it does not see: colours of the same brightness, and
//! what is smaller than two blocks, a 64th of the width each.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::{clip::Clip, frame::Frame, prompt_spec::PromptSpec};

/// What a clip looks like to the gate.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    frames: Vec<LumaGrid>,
    start: DateTime<Utc>,
    prompt_spec: Arc<PromptSpec>,
}

impl Fingerprint {
    /// Looks at a clip; none where its camera has no gate.
    pub fn of(clip: &Clip) -> Option<Self> {
        clip.prompt_spec.gate?;
        let frames: Vec<_> = clip.frames.iter().map(LumaGrid::of).collect::<Option<_>>()?;
        (!frames.is_empty()).then(|| Self {
            frames,
            start: clip.start,
            prompt_spec: clip.prompt_spec.clone(),
        })
    }

    /// Whether nothing has moved since the clip that `described` was made of, and nobody waits for
    /// another description yet. A clock that was set back means that nobody knows how long ago that was.
    pub fn repeats(&self, described: &Self) -> bool {
        let (Some(gate), Some(reference)) = (self.prompt_spec.gate, described.frames.last()) else {
            return false;
        };
        let age = (self.start - described.start).to_std();
        let still = |now: &LumaGrid, before: &LumaGrid| !now.differs(before, f32::from(gate.threshold));
        self.prompt_spec == described.prompt_spec
            && age.is_ok_and(|age| age < gate.heartbeat)
            && self.frames.iter().all(|frame| still(frame, reference))
            && self.frames.windows(2).all(|pair| still(&pair[1], &pair[0]))
    }

    /// Keeps the last frame only: later clips are compared with nothing else.
    pub fn keep_last_frame(mut self) -> Self {
        self.frames.drain(..self.frames.len().saturating_sub(1));
        self
    }
}

/// Blocks of a grid.
const WIDTH: usize = 64;
const HEIGHT: usize = 36;
/// Pixels that are looked at in a block, in each direction: more would only average the same noise away.
const SAMPLES: usize = 8;

/// The brightness of a frame's blocks, 0 to 255.
#[derive(Clone, Debug)]
struct LumaGrid(Box<[f32]>);

/// How one picture follows from another when only the exposure differs.
struct Exposure {
    gain: f32,
    offset: f32,
}

/// Contrast between two exposures differs by no more than this factor.
const GAIN: f32 = 2.0;
/// The middle of the picture moves by no more than this; a lamp that is switched on does more.
const STEP: f32 = 60.0;
/// Share of the blocks that tells the exposure; the others may have changed.
const TRUSTED: f32 = 0.75;
/// A picture flatter than this (standard deviation) says nothing about contrast.
const FLAT: f32 = 5.0;
/// Standard deviations of noise that a block may be off.
const NOISE: f32 = 4.0;
/// More than this is not noise: over half of the picture has changed.
const NOISE_LIMIT: f32 = 24.0;

impl LumaGrid {
    /// Reduces a frame; none if it has no pixels, or not as many as it says.
    fn of(frame: &Frame) -> Option<Self> {
        let (width, height) = (frame.width as usize, frame.height as usize);
        if frame.rgb.is_empty() || frame.rgb.len() != width * height * 3 {
            return None;
        }
        // Evenly spread over the block, and the same in every frame of this size.
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

    /// Whether something other than exposure and noise tells `self` from `before`.
    fn differs(&self, before: &Self, threshold: f32) -> bool {
        let Some(exposure) = self.exposure(before) else { return true };
        let off: Vec<f32> =
            self.0.iter().zip(&before.0).map(|(now, then)| (now - exposure.of(*then)).abs()).collect();
        // The median of the absolute deviations: 0.6745 standard deviations of a normal distribution.
        let noise = NOISE * quantile(&mut off.clone(), 0.5) / 0.6745;
        let limit = threshold + noise.min(NOISE_LIMIT);
        let changed = |x: usize, y: usize| x < WIDTH && y < HEIGHT && off[y * WIDTH + x] > limit;
        // A single block flickers; what moves covers two that touch.
        (0..HEIGHT).any(|y| (0..WIDTH).any(|x| changed(x, y) && (changed(x + 1, y) || changed(x, y + 1))))
    }

    /// How `self` follows from `before` by exposure, by the blocks that agree best; none if no change
    /// of exposure explains it.
    fn exposure(&self, before: &Self) -> Option<Exposure> {
        let mut differences: Vec<f32> = self.0.iter().zip(&before.0).map(|(now, then)| now - then).collect();
        let mut exposure = Exposure { gain: 1.0, offset: quantile(&mut differences, 0.5) };
        for _ in 0..3 {
            let off = |(now, then): (&f32, &f32)| (now - exposure.of(*then)).abs();
            let mut sorted: Vec<f32> = self.0.iter().zip(&before.0).map(off).collect();
            let trusted = quantile(&mut sorted, TRUSTED);
            let pairs = self.0.iter().zip(&before.0).filter(|pair| off(*pair) <= trusted);
            exposure = Exposure::fit(pairs.map(|(now, then)| (*then, *now)));
        }
        let middle = quantile(&mut before.0.to_vec(), 0.5);
        let possible =
            (1.0 / GAIN..=GAIN).contains(&exposure.gain) && (exposure.of(middle) - middle).abs() <= STEP;
        possible.then_some(exposure)
    }
}

impl Exposure {
    /// Least squares: what leads from the first of each pair to the second.
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

    /// What a block of brightness `then` becomes. Black and white are the ends.
    fn of(&self, then: f32) -> f32 {
        (self.gain * then + self.offset).clamp(0.0, 255.0)
    }
}

/// Brightness of a pixel as ITU-R BT.601 weighs its colours, times 256.
fn luma(rgb: &[u8]) -> u32 {
    77 * u32::from(rgb[0]) + 150 * u32::from(rgb[1]) + 29 * u32::from(rgb[2])
}

/// The value below which `share` of the values lie. Reorders them.
fn quantile(values: &mut [f32], share: f32) -> f32 {
    let at = (values.len().saturating_sub(1) as f32 * share) as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}
