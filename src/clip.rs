//! Frames in, clips out: the windowing rules, pure. No clock, no IO: time is what frames say.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::frame::{CameraId, Clock, Frame};

/// What is asked of the model about a clip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The user's prompt, as configured.
    pub prompt: String,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
}

/// A window's worth of frames from one camera: what the model describes.
#[derive(Clone, Debug)]
pub struct Clip {
    /// Which camera saw it.
    pub camera: CameraId,
    /// Counts this camera's clips since the process started, from 0.
    pub seq: u64,
    /// UTC time of the window's start.
    pub start: DateTime<Utc>,
    /// UTC time of the window's end (of the last frame, for a window that ended early).
    pub end: DateTime<Utc>,
    /// What `start`, `end` rest on.
    pub clock: Clock,
    /// PTS of the window's start; a frame's offset is its PTS less this.
    pub start_pts: Duration,
    /// Length that the prompt's introduction names (whole seconds of it).
    pub duration: Duration,
    /// At least one, in order of PTS. Sizes may differ within a clip.
    pub frames: Vec<Frame>,
    /// Frames are missing inside, or the window was cut short, by a fault of the source.
    pub gap: bool,
    /// What to ask about it.
    pub question: Arc<Question>,
}

impl Clip {
    /// Time of frame `i` since the window's start: what the prompt and the event state.
    pub fn offset(&self, i: usize) -> Duration {
        self.frames[i].pts.saturating_sub(self.start_pts)
    }
}
