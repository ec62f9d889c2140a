//! The event: what subscribers read. A public contract; within a schema number fields are only
//! ever added.

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{camera::CameraId, frame::Clock};

/// The number of the contract below.
pub const SCHEMA: u32 = 1;

/// One description of one clip, as JSON on MQTT and from `camscribe describe --format jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "camscribe event")]
pub struct Event {
    /// Number of this contract: 1.
    pub schema: u32,
    /// UUIDv7, made once. QoS 1 can deliver twice: a reader that keeps ids sees each event once.
    pub id: Uuid,
    /// What kind of event this is.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Which camscribe made it.
    pub node: String,
    /// Which camera saw it.
    pub camera: CameraId,
    /// What the model said; of an unchanged clip, what it said about the one that this repeats.
    pub description: String,
    /// Only where nothing has changed: id of the event whose description still holds. `prompt`,
    /// `finish_reason` and `model` are those of that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Uuid>,
    /// What was looked at.
    pub clip: ClipInfo,
    /// The question that was asked.
    pub prompt: String,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// What described it.
    pub model: ModelInfo,
    /// How many tokens went in and came out.
    pub tokens: Tokens,
    /// How long each stage took, in milliseconds.
    pub timing_ms: Timing,
    /// What this camera lost since its last event.
    pub dropped: Dropped,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The model described a clip.
    Description,
    /// Nothing moved since the last described clip: the model was not asked.
    Unchanged,
}

/// Which part of the stream an event is about.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClipInfo {
    /// Counts this camera's clips, from 0, since the process or a reload last started the camera; a
    /// missing number is a lost clip.
    pub seq: u64,
    /// UTC, when the window starts.
    #[serde(serialize_with = "millis")]
    pub start: DateTime<Utc>,
    /// UTC, when it ends.
    #[serde(serialize_with = "millis")]
    pub end: DateTime<Utc>,
    /// What the times rest on.
    pub clock: Clock,
    /// The frames that the model saw, or that were found unchanged.
    pub frames: Vec<FrameInfo>,
    /// Width of the first frame, pixels.
    pub width: u32,
    /// Height of the first frame, pixels.
    pub height: u32,
    /// Frames are missing inside or the window was cut short, by a fault of the source; or the clock
    /// was set back, so that `start` is before that of the clip before.
    pub gap: bool,
}

/// When a frame was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FrameInfo {
    /// Seconds since the window's start.
    pub offset_s: f64,
    /// Presentation time in the stream, seconds.
    pub pts_s: f64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model said that it was done.
    Stop,
    /// It reached `max_tokens`.
    Length,
}

/// What described a clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelInfo {
    /// Hub id, or the directory it was loaded from.
    pub id: String,
    /// Branch, tag or commit on the hub; empty for a directory.
    pub revision: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `f32`, `bf16`, `f16` or `q8` (f32 on weights of 8 bits).
    pub dtype: String,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// The whole prompt, image tokens included.
    pub prompt: usize,
    /// Those of the prompt that stand for pictures.
    pub image: usize,
    /// The answer, the stop token not counted.
    pub generated: usize,
}

/// Milliseconds by stage. Clips of one batch share the stages' times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Waiting for the model.
    pub queued: u64,
    /// Resizing and normalising frames, building the prompt.
    pub preprocess: u64,
    /// Vision tower and connector.
    pub vision: u64,
    /// The prompt through the text decoder.
    pub prefill: u64,
    /// The answer, token by token.
    pub decode: u64,
    /// From the clip being complete to its description, waiting included.
    pub total: u64,
}

/// What a camera lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// Clips that made room for newer ones, since this camera's last event.
    pub clips: u64,
    /// Clips that the model could not describe, since this camera's last event.
    #[serde(default)]
    pub failed: u64,
}

/// RFC 3339 in UTC with milliseconds.
fn millis<S: Serializer>(t: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&t.to_rfc3339_opts(SecondsFormat::Millis, true))
}
