//! The model's side of the house: clips in, descriptions out.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use crate::{
    clip::Clip,
    device::Gpu,
    event::{FinishReason, ModelInfo, Tokens},
    progress::Progress,
};

pub mod smolvlm;
pub mod worker;

/// What the model said about one clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The answer, without special tokens, trimmed.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub tokens: Tokens,
    /// Time per stage; clips of one batch share it.
    pub stages: Stages,
}

/// Time that a batch spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Resizing and normalising frames, building the prompt.
    pub preprocess: Duration,
    /// Vision tower and connector.
    pub vision: Duration,
    /// The prompt through the text decoder.
    pub prefill: Duration,
    /// The answer, token by token.
    pub decode: Duration,
}

/// Why a clip could not be described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// This clip cannot be described; others can.
    #[error("{0}")]
    Clip(String),
    /// The device has too little memory for so many clips at once; fewer may do.
    #[error("the device has too little memory: {0}")]
    OutOfMemory(String),
    /// The device failed: nothing can be described until it is back.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Memory of the device that the model computes on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// What is taken, by whomever.
    pub used: usize,
    /// All of it.
    pub total: usize,
}

/// Something that describes clips: the model, or a deterministic stand-in in tests.
pub trait Describer: Send {
    /// What is stated about it in events.
    fn model(&self) -> ModelInfo;

    /// What `describe` touches at every step that it makes; the same one at every call.
    fn progress(&self) -> Arc<Progress>;

    /// The longest side of a frame that it looks at, in pixels: a larger picture may be made as small
    /// first (`resize::shrunk`). None if it wants frames as they are.
    fn frame_edge(&self) -> Option<usize> {
        None
    }

    /// What it computes on, unless that is the CPU.
    fn gpu(&self) -> Option<Gpu> {
        None
    }

    /// How many clips of so many frames fit into the memory that is free now: at least one. None where that
    /// is not known.
    fn most_clips(&self, _frames: usize) -> Option<NonZeroUsize> {
        None
    }

    /// Of a device that has memory of its own and tells of it.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Describes a batch: one answer per clip, in order. The outer error means that the device
    /// failed, or has too little memory, and no clip of the batch was described.
    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError>;
}
