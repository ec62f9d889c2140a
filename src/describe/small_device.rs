//! A device with little memory, for unit tests.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    describer::{DescribeError, Describer, Description, StageTimes},
    warm_up::grey_clip,
};
use crate::{
    clip::Clip,
    event::{FinishReason, ModelInfo, Tokens},
    heartbeat::Heartbeat,
};

/// Describes a clip by its number, if its batch fits.
pub struct SmallDevice {
    /// Frames that fit.
    pub memory: usize,
    /// The memory that it reports.
    pub reported: Option<usize>,
    /// Sizes of the batches that it was given.
    pub batches: Vec<usize>,
    /// What the next call returns instead of descriptions.
    pub next_error: Option<DescribeError>,
}

impl SmallDevice {
    pub fn new(memory: usize) -> Self {
        Self { memory, reported: None, batches: Vec::new(), next_error: None }
    }
}

impl Describer for SmallDevice {
    fn model(&self) -> ModelInfo {
        ModelInfo { id: "small".into(), revision: String::new(), device: "gpu".into(), dtype: "f32".into() }
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::default()
    }

    fn max_clips(&self, frames: usize) -> Option<NonZeroUsize> {
        NonZeroUsize::new(self.reported? / frames)
    }

    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
        self.batches.push(clips.len());
        if let Some(error) = self.next_error.take() {
            return Err(error);
        }
        if clips.iter().map(|clip| clip.frames.len()).sum::<usize>() > self.memory {
            return Err(DescribeError::OutOfMemory("full".into()));
        }
        Ok(clips.iter().map(describe).collect())
    }
}

/// Clips of one frame each, numbered from 0.
pub fn clips(count: u64) -> Vec<Clip> {
    (0..count).map(|seq| Clip { seq, ..grey_clip().unwrap() }).collect()
}

fn describe(clip: &Clip) -> Result<Description, DescribeError> {
    Ok(Description {
        text: clip.seq.to_string(),
        finish_reason: FinishReason::Stop,
        tokens: Tokens::default(),
        stages: StageTimes::default(),
    })
}
