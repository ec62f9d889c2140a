//! One decoded frame of one camera.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::camera::CameraId;

/// Where a frame's UTC time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The camera's own clock, as RTCP sender reports or ONVIF state it; of a file, its creation time.
    Camera,
    /// When the frame reached this machine.
    Arrival,
    /// The file's modification time: the file is taken to have ended then, or to have begun then if it is not a
    /// regular file.
    File,
}

/// One decoded frame.
#[derive(Clone)]
pub struct Frame {
    /// Which camera it is from.
    pub camera: CameraId,
    /// When it was captured, UTC, by [`Frame::clock`].
    pub captured_at: DateTime<Utc>,
    /// Where `captured_at` comes from.
    pub clock: Clock,
    /// Presentation time since the start of the stream. It never runs backwards within one run of a source.
    pub pts: Duration,
    /// Width in pixels, after rotation metadata, pixel aspect ratio and crop are applied.
    pub width: u32,
    /// Height in pixels, after rotation metadata, pixel aspect ratio and crop are applied.
    pub height: u32,
    /// `height` rows of `width` RGB triples, top to bottom, no padding. What masks hide is black.
    pub rgb: Arc<[u8]>,
    /// The frame as the source gave it, masked and cropped, before it was scaled down. `None`: this is it.
    pub original: Option<Original>,
}

/// A frame before it was reduced.
#[derive(Clone)]
pub struct Original {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// As [`Frame::rgb`]. `None`: dropped. Only one frame of a clip keeps these pixels, for the clip's
    /// snapshot, because they are large.
    pub rgb: Option<Arc<[u8]>>,
}

impl Frame {
    /// Width and height before the frame was scaled down, in pixels.
    pub fn source_size(&self) -> (u32, u32) {
        self.original.as_ref().map_or((self.width, self.height), |it| (it.width, it.height))
    }

    /// Whether the pixels of the original are kept.
    pub fn has_original(&self) -> bool {
        self.original.as_ref().is_some_and(|it| it.rgb.is_some())
    }

    /// Drops the pixels of the original.
    pub fn drop_original(&mut self) {
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
