//! What `app/` passes to the routes.

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    answer::Part,
    request::{Request, Video, VideoSampling},
    resize::FrameScaling,
};

/// Reads the frames of a video file: those that the reference would take. Blocks. Its error is a sentence about the
/// video.
pub type FilmReader = dyn Fn(Film<'_>) -> Result<Video, String> + Send + Sync;

/// A video file that is to be read.
#[derive(Clone, Copy)]
pub struct Film<'a> {
    /// The file.
    pub bytes: &'a [u8],
    /// Which frames are taken.
    pub sampling: VideoSampling,
    /// The most bytes that these may have.
    pub most_bytes: usize,
    /// Tells when nobody waits for them any more: reading ends soon after, with an error.
    pub is_over: &'a dyn Fn() -> bool,
}

/// The functions that know the model.
pub struct ApiSource {
    /// The model; none while it is loaded. Must not block.
    pub model: Box<dyn Fn() -> Option<ServedModel> + Send + Sync>,
    /// Puts a question. Dropping the receiver takes it back. Must not block.
    pub ask: Box<dyn Fn(Request) -> Result<UnboundedReceiver<Part>, NotAsked> + Send + Sync>,
    /// Reads videos.
    pub film: Box<FilmReader>,
}

/// The model that answers.
#[derive(Clone, Debug)]
pub struct ServedModel {
    /// What clients call it.
    pub id: String,
    /// When it was loaded, seconds since 1970.
    pub loaded_at: i64,
    /// The longest question and answer together, in tokens.
    pub max_tokens: Option<usize>,
    /// How it scales frames down first.
    pub frame_scaling: Option<FrameScaling>,
}

/// Why a question was not put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAsked {
    /// As many wait as may.
    Busy,
    /// The model cannot answer; why not.
    NotReady(String),
}
