//! What holds for all sources of a run.

use tokio_util::sync::CancellationToken;

use super::{args::DescribeArgs, progress::Progress};
use crate::{clip::TimeRange, config::CameraSettings};

/// What holds for all sources.
pub struct Job<'a> {
    /// How they are read and what is asked about their clips.
    pub settings: CameraSettings,
    /// Which part of each is described.
    pub range: TimeRange,
    /// The other arguments.
    pub args: &'a DescribeArgs,
    /// Where sources are read.
    pub runtime: &'a tokio::runtime::Runtime,
    /// Ends the work.
    pub cancel: CancellationToken,
    /// How far it has come.
    pub progress: Progress,
}
