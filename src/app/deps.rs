//! What the model's thread and the cameras use, as one value each.

use std::sync::Arc;

use super::{asks::Asks, feed::Feed, recording::Recording, status_reporter::StatusReporter, views::Views};
use crate::{
    event::ModelInfo, lifecycle::Lifecycle, metrics::Metrics, publish::outbox::Outbox, queue::ClipQueue,
    resize::FrameScaling,
};

/// What the model's thread uses.
#[derive(Clone)]
pub struct WorkerDeps {
    /// Gives the clips.
    pub queue: Arc<ClipQueue>,
    /// Takes the descriptions.
    pub outbox: Arc<Outbox>,
    /// Keeps the events and what the model saw.
    pub recording: Arc<Recording>,
    /// Tells clients of the page what happens.
    pub feed: Arc<Feed>,
    /// Counts the work.
    pub metrics: Arc<Metrics>,
    /// Monitors the thread.
    pub lifecycle: Arc<Lifecycle>,
    /// What may be seen of the cameras.
    pub views: Arc<Views>,
}

/// What every camera uses.
#[derive(Clone)]
pub struct CameraDeps {
    /// Takes the clips.
    pub queue: Arc<ClipQueue>,
    /// Takes the status.
    pub reporter: Arc<StatusReporter>,
    /// Asks about what they show now.
    pub asks: Arc<Asks>,
    /// What may be seen of them.
    pub views: Arc<Views>,
    /// Keeps what was seen of them.
    pub recording: Arc<Recording>,
    /// Counts the clips.
    pub metrics: Arc<Metrics>,
    /// The model that describes them.
    pub model: ModelInfo,
    /// How the model scales frames down first.
    pub frame_scaling: Option<FrameScaling>,
}
