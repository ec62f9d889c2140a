//! Images and videos of a question: read and checked before the model is asked.

use std::path::Path;

use anyhow::Context;

use crate::{
    app,
    capture::ReadBounds,
    describe::Describer,
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
    app::read_video(path, model.file_sampler(), sampling, None, ReadBounds::NONE)
}
