//! Videos that a question is about: files whose frames are taken as the model's reference would.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};

use super::settings::camera_config;
use crate::{
    camera::CameraId,
    capture::{self, ReadBounds},
    config::{CameraSettings, Source},
    describe::{FileSampler, Footage},
    request::{Picture, Video, VideoSampling},
    resize::FrameScaling,
};

/// The frames that the model's reference would take of the video file at `path`. `sampler`: its rule. `scaling`: how
/// they are scaled down; none: not at all. Blocks.
///
/// # Errors
/// When it cannot be read, or not within `bounds`, or the model has no rule for videos.
pub fn read_video(
    path: &Path,
    sampler: Option<FileSampler>,
    sampling: VideoSampling,
    scaling: Option<FrameScaling>,
    bounds: ReadBounds<'_>,
) -> anyhow::Result<Video> {
    let id: CameraId = "video".parse().context("a good name")?;
    let mut config = camera_config(&id, &CameraSettings::new(Source::file(path)), Path::new(""));
    config.scaling = scaling;
    let sampler = sampler.context("the reference of this model has no rule for videos")?;
    let (frames, file) = capture::read_frames_within(&config, bounds, |file| {
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
