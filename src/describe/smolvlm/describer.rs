//! The model as a describer.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    super::describer::{Describer, FileSampler, Footage, Work},
    answering::Answering,
    model::SmolVlm,
    sampling::{FrameSampling, REFERENCE_SKIP},
};
use crate::{
    answer::DescribeError,
    device::{DeviceMemory, GpuInfo},
    event::ModelInfo,
    heartbeat::Heartbeat,
    request::VideoSampling,
    resize::FrameScaling,
};

// Estimates for a usual request, in tokens.
/// Tokens of a frame beside its image tokens: its time and the tokens around the image.
const FRAME_TOKENS: usize = 13;
/// Tokens of the rest of the prompt.
const TEXT_TOKENS: usize = 64;
/// Tokens of the answer.
const ANSWER_TOKENS: usize = 96;

impl Describer for SmolVlm {
    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn frame_scaling(&self) -> Option<FrameScaling> {
        Some(self.preprocessor.frame_scaling())
    }

    fn file_sampler(&self) -> Option<FileSampler> {
        let (fps, max_frames) = (self.processor.video_fps, self.processor.video_max_frames);
        Some(Arc::new(move |footage: Footage, asked: VideoSampling| {
            let sampling = FrameSampling {
                fps: asked.fps.unwrap_or(fps),
                max_frames: asked.max_frames.unwrap_or(max_frames),
                skip: REFERENCE_SKIP,
            };
            sampling.indices(footage)
        }))
    }

    fn context_length(&self) -> Option<usize> {
        Some(self.network.config.text.max_position_embeddings)
    }

    fn gpu(&self) -> Option<GpuInfo> {
        self.network.target.gpu.clone()
    }

    fn max_batch(&self, pictures: usize) -> Option<NonZeroUsize> {
        let prompt = pictures * (self.network.config.tokens_per_tile() + FRAME_TOKENS) + TEXT_TOKENS;
        let request = self.network.sequence_bytes(prompt + ANSWER_TOKENS);
        let fit = self.network.target.free_memory()? / 4 * 3 / request;
        NonZeroUsize::new(fit.max(1))
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.network.target.memory()
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        Answering::new(self, work).run()
    }
}
