//! Videos that a question is about: files whose frames are taken as the model's reference would.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::settings::camera_config;
use crate::{
    camera::CameraId,
    capture,
    config::{CameraSettings, Source},
    describe::{FileSampler, Footage},
    request::{Picture, Video, VideoSampling},
    resize::FrameScaling,
};

/// Limits on what is read of a video file.
#[derive(Clone, Copy, Default)]
pub struct ReadLimits {
    /// How frames are scaled down; none: not at all.
    pub scaling: Option<FrameScaling>,
    /// When reading is given up; none: never.
    pub end: Option<Instant>,
}

/// The frames that the model's reference would take of the video file at `path`. `sampler`: its rule. Blocks.
///
/// # Errors
/// When it cannot be read, or the model has no rule for videos.
pub fn read_video(
    path: &Path,
    sampler: Option<FileSampler>,
    sampling: VideoSampling,
    limits: ReadLimits,
) -> anyhow::Result<Video> {
    let id: CameraId = "video".parse().context("a good name")?;
    let mut config = camera_config(&id, &CameraSettings::new(Source::file(path)), Path::new(""));
    config.scaling = limits.scaling;
    let sampler = sampler.context("the reference of this model has no rule for videos")?;
    let (frames, file) = capture::read_frames_before(&config, limits.end, |file| {
        let footage = Footage { frames: file.frames as u64, fps: file.fps, duration: file.duration };
        sampler(footage, sampling).into_iter().map(|i| i as usize).collect()
    })?;
    if frames.is_empty() {
        bail!("{}: the video has no frames", path.display());
    }
    let frames = frames
        .into_iter()
        .map(|frame| (frame.pts, Picture { width: frame.width, height: frame.height, rgb: frame.rgb }));
    let duration = Duration::try_from_secs_f64(file.duration)
        .context("the duration that the file states is not valid")?;
    Ok(Video { frames: frames.collect(), duration })
}
