//! The model as a describer.

use std::sync::Arc;

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

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.network.target.memory()
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        Answering::new(self, work).run()
    }
}
