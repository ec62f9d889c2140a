//! A camera as every stage sees it: its name and how it is doing.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a camera: 1 to 64 of `a-z`, `0-9`, `_` and `-`.
///
/// Lower case only, so that an environment variable can name a camera. No topic wildcard, topic level
/// separator or path separator can occur in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-z0-9_-]{1,64}$"))]
pub struct CameraId(Arc<str>);

/// What [`is_name`] allows.
pub const NAME_RULE: &str = "1 to 64 of a-z, 0-9, '_' and '-'";

/// Whether a text can name a camera, or what else is both a level of a topic and a part of a variable's name.
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// A camera name that is too long, empty, or holds a character that is not allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} cannot name a camera: use {NAME_RULE}")]
pub struct BadCameraId(String);

impl CameraId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CameraId {
    type Err = BadCameraId;

    fn from_str(s: &str) -> Result<Self, BadCameraId> {
        if is_name(s) { Ok(Self(s.into())) } else { Err(BadCameraId(s.into())) }
    }
}

impl TryFrom<String> for CameraId {
    type Error = BadCameraId;

    fn try_from(s: String) -> Result<Self, BadCameraId> {
        s.parse()
    }
}

impl From<CameraId> for String {
    fn from(id: CameraId) -> String {
        id.0.to_string()
    }
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a camera is doing, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CameraState {
    /// Frames arrive.
    Online,
    /// The source is being opened for the first time since the camera was started.
    #[default]
    Connecting,
    /// No frames arrive. The source is opened again later, unless it has come to its end.
    Offline,
    /// The camera refuses our user name or password. The source is opened again later.
    Unauthorised,
    /// Switched off by its owner.
    Disabled,
}

impl CameraState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Online, Self::Connecting, Self::Offline, Self::Unauthorised, Self::Disabled];

    /// The state's name, as metrics and people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Connecting => "connecting",
            Self::Offline => "offline",
            Self::Unauthorised => "unauthorised",
            Self::Disabled => "disabled",
        }
    }
}

/// How a camera is doing, in detail. Counts run since the camera was started, across reconnects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CameraStatus {
    /// In one word.
    pub state: CameraState,
    /// In one sentence: why the camera is not online, why it gives no clips, or why its clock is not used.
    /// Empty if all is well.
    pub why: String,
    /// GStreamer's name of the video decoder. `None` for raw video and before the first frame.
    pub decoder: Option<String>,
    /// How frames are sampled. `None` until the keyframe interval of the stream is known.
    pub sampling: Option<String>,
    /// Width and height of the frames after the crop, in pixels.
    pub size: Option<(u32, u32)>,
    /// Frames per second, if the stream states it.
    pub frame_rate: Option<f64>,
    /// Whether the camera has stated what its clock shows.
    pub clock_known: bool,
    /// Frames that a window took.
    pub frames: u64,
    /// Stream time of the latest frame.
    pub position: Duration,
    /// Length of a file, if the file states it.
    pub duration: Option<Duration>,
    /// How often the source was opened again after a fault.
    pub reconnects: u64,
    /// Decoder errors: reported errors, incomplete frames, and data that produced no frame before a
    /// restart.
    pub decode_errors: u64,
    /// Windows that were discarded because they had fewer frames than `min_frames`.
    pub too_few: u64,
}
