//! The interface to whatever describes clips: a local model, or a deterministic stand-in in tests.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use crate::{
    device::{DeviceMemory, GpuInfo},
    event::{FinishReason, ModelInfo, Tokens},
    heartbeat::Heartbeat,
    request::{Request, VideoSampling},
    resize::FrameScaling,
};

/// The model's answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The answer, trimmed and without special tokens.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Token counts.
    pub tokens: Tokens,
    /// The batch's time per stage; all requests of a batch have the same.
    pub stages: StageTimes,
}

/// Time that a batch spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Resizing and normalising frames, building prompts.
    pub preprocess: Duration,
    /// Vision tower and connector.
    pub vision: Duration,
    /// The prompts' forward pass through the text decoder.
    pub prefill: Duration,
    /// Generating the answers, token by token.
    pub decode: Duration,
}

/// Why a request could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// This request cannot be answered; others can.
    #[error("{0}")]
    Request(String),
    /// The device has too little memory for so many requests at once. Fewer may fit.
    #[error("the device has too little memory: {0}")]
    OutOfMemory(String),
    /// Nothing can be described now, but probably can after `retry_after`.
    #[error("the model is not available: {reason}; try again after {} s", retry_after.as_secs())]
    Unavailable {
        /// What is missing.
        reason: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The device failed, and nothing more can be described.
    #[error("the device failed: {0}")]
    Device(String),
}

/// What is known about a video file before its frames are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footage {
    /// Frames in it.
    pub frames: u64,
    /// Frames per second.
    pub fps: f64,
    /// Length in seconds.
    pub duration: f64,
}

/// Gets what an answer's text is continued by, as it is made, with the number of its request in the batch.
pub type TextObserver<'a> = &'a mut (dyn FnMut(usize, &str) + Send);

/// The answers to a batch, in the order of the requests.
pub type Answers = Vec<Result<Description, DescribeError>>;

/// Answers requests, such as to describe a clip.
pub trait Describer: Send {
    /// The model, as events name it.
    fn model(&self) -> ModelInfo;

    /// The heartbeat that `answer` beats at every step. The same one at every call.
    fn heartbeat(&self) -> Arc<Heartbeat>;

    /// How the model scales frames down first. Frames may already be scaled like this before they reach it. None if
    /// it wants frames as they are.
    fn frame_scaling(&self) -> Option<FrameScaling> {
        None
    }

    /// Indices of the frames that the model's reference implementation takes of a whole file, in order. None if
    /// there is no such rule for this model.
    fn sample_file(&self, _footage: Footage, _asked: VideoSampling) -> Option<Vec<u64>> {
        None
    }

    /// The GPU that it runs on. None on the CPU.
    fn gpu(&self) -> Option<GpuInfo> {
        None
    }

    /// How many requests of so many pictures fit into the memory that is free now; at least one. None if unknown.
    fn max_batch(&self, _pictures: usize) -> Option<NonZeroUsize> {
        None
    }

    /// The device's memory. None if the device has none of its own or does not report it.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Answers a batch. Returns one result per request, in order. The texts that `on_text` gets of a request are together
    /// the text of its answer.
    ///
    /// # Errors
    /// When no request of the batch was answered, because the device failed, is not available, or has too little
    /// memory.
    fn answer(&mut self, requests: &[Request], on_text: TextObserver<'_>) -> Result<Answers, DescribeError>;
}
