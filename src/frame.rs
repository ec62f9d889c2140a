//! One picture from one camera: what capture produces and everything later stands on.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::camera::CameraId;

/// Where a frame's UTC time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The camera's own clock, as RTCP sender reports or ONVIF give it.
    Camera,
    /// When the frame reached this machine.
    Arrival,
    /// The file's: it counts as having ended when it was last modified, or as having begun then where its
    /// length cannot be told.
    File,
}

/// One decoded picture.
#[derive(Clone)]
pub struct Frame {
    /// Which camera saw it.
    pub camera: CameraId,
    /// When it was seen, UTC, by [`Frame::clock`].
    pub captured_at: DateTime<Utc>,
    /// What `captured_at` rests on.
    pub clock: Clock,
    /// Presentation time since the start of the stream; never runs backwards within one run of it.
    pub pts: Duration,
    /// Pixels, after rotation metadata and pixel aspect ratio are applied.
    pub width: u32,
    /// Pixels, after rotation metadata and pixel aspect ratio are applied.
    pub height: u32,
    /// `height` rows of `width` RGB triples, top to bottom, no padding.
    pub rgb: Arc<[u8]>,
    /// What it was made smaller from; none if it is as the source gave it.
    pub original: Option<Original>,
}

/// A picture as the source gave it.
#[derive(Clone)]
pub struct Original {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// As [`Frame::rgb`]. Large, so it is kept of one frame of a clip only: for its snapshot.
    pub rgb: Option<Arc<[u8]>>,
}

impl Frame {
    /// Width and height at the source.
    pub fn source_size(&self) -> (u32, u32) {
        self.original.as_ref().map_or((self.width, self.height), |it| (it.width, it.height))
    }

    /// Whether the pixels of its original are there.
    pub fn has_original(&self) -> bool {
        self.original.as_ref().is_some_and(|it| it.rgb.is_some())
    }

    /// Lets go of the pixels of its original.
    pub fn forget_original(&mut self) {
        if let Some(original) = &mut self.original {
            original.rgb = None;
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} {}x{} at {:?})", self.camera, self.width, self.height, self.pts)
    }
}
