//! The event that subscribers read. A public contract: while [`SCHEMA`] stays the same, fields are only
//! added.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{calibration::CalibratedModel, camera::CameraId, frame::Clock, view::View};

/// The number of the contract.
pub const SCHEMA: u32 = 1;

/// The JSON Schema of [`Event`]. It names no format but those of JSON Schema, because strict validators refuse
/// others.
pub fn json_schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(bound_numbers));
    settings.into_generator().into_root_schema_for::<Event>()
}

/// Puts bounds in place of the formats that schemars gives numbers, such as `uint32`. Its `minimum` of unsigned
/// numbers is there already.
fn bound_numbers(schema: &mut Schema) {
    let is_number = schema.get("type").is_some_and(|it| it == "integer" || it == "number");
    let format = if is_number { schema.remove("format") } else { None };
    if format.is_some_and(|format| format == "uint32") {
        schema.insert("maximum".into(), u32::MAX.into());
    }
}

/// One description of one clip, as JSON on MQTT and from `camscribe describe --format jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "camscribe event")]
pub struct Event {
    /// Number of the contract: 1.
    pub schema: u32,
    /// UUIDv7 of this event. QoS 1 can deliver an event twice: a reader recognises it by its id.
    pub id: Uuid,
    /// What kind of event this is.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Which camscribe node made the event.
    pub node: String,
    /// Which camera the clip is from.
    pub camera: CameraId,
    /// The model's description. Of an unchanged clip: the description that still holds. Empty where only questions are
    /// asked.
    pub description: String,
    /// The answers to the camera's questions, by the names of these. Of an unchanged clip: the answers that still hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<String, QuestionAnswer>,
    /// The camera's alerts after this clip, by their names: those whose questions it answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alerts: BTreeMap<String, AlertInfo>,
    /// Only in events of unchanged clips: id of the event whose description and answers still hold. `prompt`,
    /// `finish_reason` and `model` are those of that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Uuid>,
    /// The clip that was described or found unchanged.
    pub clip: ClipInfo,
    /// What of the camera's picture was seen. Absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewInfo>,
    /// What the history was given of what the model saw. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceInfo>,
    /// The prompt.
    pub prompt: String,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// The model that described the clip.
    pub model: ModelInfo,
    /// How many tokens went in and came out.
    pub tokens: Tokens,
    /// How long each stage took, in milliseconds.
    pub timing_ms: Timing,
    /// What this camera lost since its last event.
    pub dropped: Dropped,
    /// When the event was handed to the broker, UTC. One that is delivered again has the later time. Only in events
    /// that came over MQTT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<DateTime<Utc>>,
    /// Only from `camscribe describe`: which part of which source the clip is.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub part: Option<SourcePart>,
}

/// A part of a source of `camscribe describe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourcePart {
    /// Only from `camscribe describe`: the source as it was given, or the path of a file below a folder that was given.
    pub source: String,
    /// Only from `camscribe describe`: where the clip begins, in seconds from the beginning of the source.
    pub offset_start_s: f64,
    /// Only from `camscribe describe`: where the clip ends, in seconds from the beginning of the source.
    pub offset_end_s: f64,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The model described a clip, and answered the camera's questions about it.
    Description,
    /// The model answered the camera's questions about a clip, and did not describe it.
    Answers,
    /// Nothing has changed since the last described clip, so the model was not asked.
    Unchanged,
}

/// The answer to a question. Names and meanings are those of OpenAI's Decisions API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum QuestionAnswer {
    /// To a question for yes or no.
    Predicate {
        /// How likely yes is beside no: 0 to 1.
        probability: f64,
        /// The more likely one.
        answer: YesNo,
        /// The probability of the one that the model finds more likely among all that it could say: 0 to 1. When it is
        /// small, the model wanted to say something else. Not calibrated.
        confidence: f64,
        /// Whether `probability` was calibrated, for this model and question.
        calibrated: bool,
    },
    /// To a question with answers to choose from.
    Choice {
        /// The most likely one.
        choice: String,
        /// How likely each is beside the others, in the question's order: together 1.
        probabilities: Vec<ChoiceProbability>,
        /// The probability of the most likely one among all that the model could say: 0 to 1.
        confidence: f64,
        /// Whether `probabilities` were calibrated, for this model and question.
        calibrated: bool,
    },
}

/// An alert after a clip.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertInfo {
    /// Whether it is on.
    pub on: bool,
    /// Whether this clip has switched it.
    pub changed: bool,
    /// `end` of the clip that last switched it, UTC; null: none has.
    #[serde(serialize_with = "optional_millis")]
    pub since: Option<DateTime<Utc>>,
    /// How likely the answer is that it is about: 0 to 1.
    pub probability: f64,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum YesNo {
    /// It is so.
    Yes,
    /// It is not.
    No,
}

/// How likely an answer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceProbability {
    /// The answer.
    pub value: String,
    /// How likely it is: 0 to 1.
    pub probability: f64,
}

impl QuestionAnswer {
    /// What was answered: `yes`, `no`, or the choice.
    pub fn answer(&self) -> &str {
        match self {
            Self::Predicate { answer: YesNo::Yes, .. } => "yes",
            Self::Predicate { answer: YesNo::No, .. } => "no",
            Self::Choice { choice, .. } => choice,
        }
    }

    /// How likely this answer is. None: it is none of the possible ones.
    pub fn probability_of(&self, answer: &str) -> Option<f64> {
        match self {
            Self::Predicate { probability, .. } => match answer {
                "yes" => Some(*probability),
                "no" => Some(1.0 - probability),
                _ => None,
            },
            Self::Choice { probabilities, .. } => {
                probabilities.iter().find(|it| it.value == answer).map(|it| it.probability)
            }
        }
    }

    /// See its field.
    pub fn is_calibrated(&self) -> bool {
        match self {
            Self::Predicate { calibrated, .. } | Self::Choice { calibrated, .. } => *calibrated,
        }
    }

    /// See its field.
    pub fn confidence(&self) -> f64 {
        match self {
            Self::Predicate { confidence, .. } | Self::Choice { confidence, .. } => *confidence,
        }
    }
}

/// The clip of an event.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ClipInfo {
    /// Number of this clip among those of its camera, from 0, since the process, a reload or a command last started the
    /// camera. A missing number is a lost clip.
    pub seq: u64,
    /// Start of the window, UTC.
    #[serde(serialize_with = "millis")]
    pub start: DateTime<Utc>,
    /// End of the window, UTC: `start` plus `window`, or the time of the last frame if the window ended early.
    /// An event does not wait for it. It is made once the last of the `frames` parts of the window has a frame,
    /// so that `end` may lie in the future, by at most `window` / `frames` (and a quarter more where only keyframes
    /// are decoded).
    #[serde(serialize_with = "millis")]
    pub end: DateTime<Utc>,
    /// Where the times come from.
    pub clock: Clock,
    /// The frames that were described or found unchanged.
    pub frames: Vec<FrameInfo>,
    /// Width of the first frame after the crop, in pixels.
    pub width: u32,
    /// Height of the first frame after the crop, in pixels.
    pub height: u32,
    /// A fault of the source: frames are missing, or the window was cut short, or the clock was set back, so
    /// that `start` is before the `start` of the preceding clip.
    pub gap: bool,
}

/// The time of a frame.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FrameInfo {
    /// Seconds since the start of the window.
    pub offset_s: f64,
    /// Presentation time in the stream, seconds.
    pub pts_s: f64,
}

/// What of a camera's picture was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ViewInfo {
    /// The part that was left: its top left and bottom right corners, in parts of the picture. Absent: the whole
    /// picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<String>,
    /// The names of the masks: what they cover was black. Absent: there were none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<String>,
}

/// What the history was given of what the model saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceInfo {
    /// How many frames: all of the clip.
    pub frames: usize,
}

impl From<&View> for ViewInfo {
    fn from(view: &View) -> Self {
        Self { crop: view.crop.map(|crop| crop.to_string()), masks: view.masks.keys().cloned().collect() }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// It reached the limit `max_tokens`.
    Length,
}

/// The model that describes clips.
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

impl From<&ModelInfo> for CalibratedModel {
    fn from(ModelInfo { id, revision, dtype, .. }: &ModelInfo) -> Self {
        Self { id: id.clone(), revision: revision.clone(), dtype: dtype.clone() }
    }
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// The whole prompt, image tokens included.
    pub prompt: usize,
    /// The image tokens of the prompt.
    pub image: usize,
    /// The answer, without the stop token.
    pub generated: usize,
}

/// Milliseconds per stage. Clips of one batch share the times of preprocess, vision, prefill and decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Waiting in the queue.
    pub queued: u64,
    /// Resizing and normalising frames, and building the prompt.
    pub preprocess: u64,
    /// Vision tower and connector.
    pub vision: u64,
    /// The prompt through the text decoder.
    pub prefill: u64,
    /// The answer, token by token.
    pub decode: u64,
    /// From the complete clip to its description, including the time in the queue.
    pub total: u64,
}

/// Clips of a camera that have no event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// Clips that were dropped for newer ones, since this camera's last event.
    pub clips: u64,
    /// Clips that the model could not describe, since this camera's last event.
    #[serde(default)]
    pub failed: u64,
}

/// RFC 3339 in UTC with milliseconds.
pub(crate) fn millis<S: Serializer>(t: &DateTime<Utc>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&t.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// As [`millis`].
pub(crate) fn optional_millis<S: Serializer>(t: &Option<DateTime<Utc>>, s: S) -> Result<S::Ok, S::Error> {
    t.map(|t| t.to_rfc3339_opts(SecondsFormat::Millis, true)).serialize(s)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// Adds the values of all keywords `format` in a schema.
    fn formats(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(keywords) => {
                found.extend(keywords.get("format").and_then(Value::as_str).map(String::from));
                keywords.values().for_each(|value| formats(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| formats(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_has_only_formats_of_json_schema_and_bounds_for_numbers() {
        let schema = json_schema().to_value();
        let mut found = BTreeSet::new();
        formats(&schema, &mut found);
        // Section 7.3 of JSON Schema Validation 2020-12 has both.
        assert_eq!(found, BTreeSet::from(["date-time", "uuid"].map(String::from)));
        let validator = jsonschema::validator_for(&schema["properties"]["schema"]).unwrap();
        assert!(validator.is_valid(&json!(u32::MAX)));
        assert!(!validator.is_valid(&json!(-1)) && !validator.is_valid(&json!(u64::from(u32::MAX) + 1)));
    }

    #[test]
    fn the_schema_takes_the_same_camera_names_as_the_code() {
        let generator = &mut SchemaSettings::draft2020_12().into_generator();
        let schema = CameraId::json_schema(generator).to_value();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let long = "n".repeat(64);
        for name in
            ["a", "front-door_2", &long, "", "A", "a b", "a/b", "a.b", "\u{e4}", "a\n", &format!("{long}n")]
        {
            assert_eq!(validator.is_valid(&json!(name)), name.parse::<CameraId>().is_ok(), "{name:?}");
        }
    }
}
