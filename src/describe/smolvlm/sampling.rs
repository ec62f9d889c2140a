//! Which frames of a whole file the reference looks at (transformers 5.23.0,
//! `SmolVLMVideoProcessor.sample_frames`): length and rate of a file come in, frame numbers go out.

/// What is known about a file before it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footage {
    /// Frames in it.
    pub frames: u64,
    /// Frames per second.
    pub fps: f64,
    /// Seconds.
    pub duration: f64,
}

/// Seconds that the reference leaves out at both ends of a long file (`skip_secs` of its sampling).
pub const REFERENCE_SKIP: f64 = 1.0;

/// How densely a file is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Frames per second that are aimed at.
    pub fps: f64,
    /// Most frames that are taken.
    pub max_frames: usize,
    /// Seconds left out at both ends of a file that has more than enough frames:
    /// [`REFERENCE_SKIP`] there.
    pub skip: f64,
}

impl Sampling {
    /// Numbers of the frames to take, in order, without repeats; empty for an empty file.
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
        // numpy's linspace: whole multiples of one step from the first, and the last as it is.
        let step = (last - first) as f64 / (wanted - 1).max(1) as f64;
        let mut indices: Vec<u64> = (0..wanted).map(|i| (i as f64 * step + first as f64) as u64).collect();
        if wanted > 1 {
            indices[wanted - 1] = last;
        }
        indices.dedup();
        indices
    }
}
