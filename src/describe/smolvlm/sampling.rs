//! Which frames of a whole file the reference looks at (transformers 5.23.0, `SmolVLMVideoProcessor.sample_frames`).

use super::super::describer::Footage;

/// Seconds that the reference leaves out at both ends of a long file: its `skip_secs`.
pub const REFERENCE_SKIP: f64 = 1.0;

/// How frames are sampled from a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameSampling {
    /// Frames per second that are wanted.
    pub fps: f64,
    /// Most frames that are taken.
    pub max_frames: usize,
    /// Seconds left out at both ends of a file with more than enough frames; [`REFERENCE_SKIP`] in the reference.
    pub skip: f64,
}

impl FrameSampling {
    /// Indices of the frames to take, in order and without repeats. Empty for an empty file.
    pub fn indices(&self, footage: Footage) -> Vec<u64> {
        let Some(end) = footage.frames.checked_sub(1) else { return Vec::new() };
        let wanted = (self.fps * footage.duration).round_ties_even() as usize;
        let wanted = wanted.min(self.max_frames).max(1);
        let (mut first, mut last) = (0, end);
        if self.skip > 0.0 && footage.duration - 2.0 * self.skip > self.max_frames as f64 * self.fps {
            let skipped = self.skip * footage.fps;
            first = skipped as u64;
            last = ((footage.frames as f64 - skipped) as u64).min(end);
            if first >= last {
                (first, last) = (0, end);
            }
        }
        // As numpy's linspace: multiples of one step from the first index on, and the last index exactly.
        let step = (last - first) as f64 / (wanted - 1).max(1) as f64;
        let mut indices: Vec<u64> = (0..wanted).map(|i| (i as f64 * step + first as f64) as u64).collect();
        if wanted > 1 {
            indices[wanted - 1] = last;
        }
        indices.dedup();
        indices
    }
}
