//! Images and videos of a question: read and checked before the model is asked.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};

use crate::{
    app,
    camera::CameraId,
    capture,
    config::{CameraSettings, Source},
    describe::{Describer, Footage},
    image_file,
    request::{Picture, Video, VideoSampling},
};

/// The image in a file.
///
/// # Errors
/// When it cannot be read.
pub fn image(path: &Path) -> anyhow::Result<Picture> {
    image_file::read(path).with_context(|| path.display().to_string())
}

/// The frames of a video file that the reference would take.
///
/// # Errors
/// When it cannot be read, or the model has no rule for videos.
pub fn video(path: &Path, sampling: VideoSampling, model: &dyn Describer) -> anyhow::Result<Video> {
    let id: CameraId = "video".parse().context("a good name")?;
    let config = app::camera_config(&id, &CameraSettings::new(Source::file(path)), Path::new(""));
    let sampler = model.file_sampler().context("the reference of this model has no rule for videos")?;
    let (frames, file) = capture::read_frames_at(&config, |file| {
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
