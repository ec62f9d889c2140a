//! What the API of the page answers, as JSON. A public contract as the event is: fields are only added.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    camera::CameraId,
    event::{AlertInfo, Event, ModelInfo, millis, optional_millis},
};

/// The node.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct NodeDocument {
    /// Its name.
    pub node: String,
    /// camscribe's version.
    pub version: String,
    /// What it does, such as `watching 3 cameras`.
    pub phase: String,
    /// Why clips are not described now; null: they are.
    pub why: Option<String>,
    /// When the process started, UTC.
    #[serde(serialize_with = "millis")]
    pub started: DateTime<Utc>,
    /// The model; null before it is loaded.
    pub model: Option<ModelInfo>,
    /// The GPU, if the model runs on one.
    pub gpu: Option<String>,
    /// Clips that wait for the model.
    pub queue: QueueDocument,
    /// How many clips of all cameras were described, or found unchanged, in the last minute.
    pub clips_per_minute: f64,
    /// What was lost since the start.
    pub dropped: DroppedDocument,
    /// The broker.
    pub broker: BrokerDocument,
    /// What waits for the broker.
    pub outbox: OutboxDocument,
    /// The history.
    pub history: HistoryDocument,
    /// The last time that the configuration was read again; null: it was not.
    pub reload: Option<ReloadDocument>,
    /// Whether settings of cameras can be changed: `mqtt.commands`.
    pub settings: bool,
    /// Whether who asks is logged in by a cookie. Not in `/api/live`.
    pub login: bool,
}

/// Clips that wait for the model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct QueueDocument {
    /// How many.
    pub clips: usize,
    /// For how long the oldest of them has waited, seconds.
    pub oldest_s: f64,
}

/// What was lost since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DroppedDocument {
    /// Clips without an event.
    pub clips: u64,
    /// Events that the broker did not get.
    pub events: u64,
    /// Events that the history did not get.
    pub history_events: u64,
    /// Events whose frames the history did not get.
    pub history_frames: u64,
}

/// The broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BrokerDocument {
    /// Whether it is connected.
    pub connected: bool,
}

/// What waits for the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OutboxDocument {
    /// Events.
    pub messages: usize,
    /// Their size, bytes.
    pub bytes: u64,
    /// Whether they are on disk, else in memory.
    pub on_disk: bool,
}

/// The history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HistoryDocument {
    /// Whether it takes events.
    pub state: HistoryState,
    /// Why it does not; null: it does, or there is none.
    pub why: Option<String>,
    /// The events that it has.
    pub events: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// When its oldest event was made, UTC; null: it has none.
    #[serde(serialize_with = "optional_millis")]
    pub oldest: Option<DateTime<Utc>>,
}

/// Whether the history takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HistoryState {
    /// There is none.
    Off,
    /// It does.
    On,
    /// It does not for now.
    Stopped,
}

/// A time that the configuration was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReloadDocument {
    /// When, UTC.
    #[serde(serialize_with = "millis")]
    pub time: DateTime<Utc>,
    /// Why the new configuration was rejected; null: it is active.
    pub error: Option<String>,
}

/// All cameras.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CamerasDocument {
    /// In the order of their ids.
    pub cameras: Vec<CameraDocument>,
}

/// A camera.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CameraDocument {
    /// Its id.
    pub id: CameraId,
    /// What people call it.
    pub name: String,
    /// `online`, `connecting`, `offline` or `disabled`.
    pub state: String,
    /// The reason for the state, if there is one.
    pub why: Option<String>,
    /// Whether it is to be watched.
    pub enabled: bool,
    /// What is asked about its clips.
    pub prompt: String,
    /// The names of its questions.
    pub questions: Vec<String>,
    /// The names of its alerts.
    pub alerts: Vec<String>,
    /// Its newest event that is not of an unchanged clip; null: none is known.
    pub latest: Option<Event>,
    /// Its alerts after its newest clip of any kind, by name.
    pub alert_states: BTreeMap<String, AlertInfo>,
    /// `end` of its newest clip of any kind, UTC; null: none is known.
    #[serde(serialize_with = "optional_millis")]
    pub seen: Option<DateTime<Utc>>,
    /// The event whose picture `snapshot.jpg` is; null: there is no picture.
    pub snapshot: Option<Uuid>,
}

/// A change of a camera's settings. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CameraChange {
    /// Whether it is to be watched.
    pub enabled: Option<bool>,
    /// What is asked about its clips; empty: as configured.
    pub prompt: Option<String>,
}

/// Some events.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct EventsDocument {
    /// The newest first; of a search the best match first.
    pub events: Vec<ListedEvent>,
    /// What to give as `before` for the next ones; null: these were the last.
    pub next: Option<String>,
}

/// An event among others.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ListedEvent {
    /// The event.
    pub event: Event,
    /// How many of its frames are kept.
    pub frames: usize,
    /// Of a search: the words around the first match.
    pub snippet: Option<Vec<SnippetPart>>,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnippetPart {
    /// The text.
    pub text: String,
    /// Whether it is what was searched for.
    pub hit: bool,
}

/// An event, and its frames.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EventDocument {
    /// The event.
    pub event: Event,
    /// The frames that the model saw and that are kept, in order. Frame n is at `frames/<n>.jpg` below the event.
    pub frames: Vec<FrameDocument>,
    /// Whether the frames are kept pixel by pixel.
    pub exact: bool,
    /// The event of the camera before it; null: there is none.
    pub older: Option<Uuid>,
    /// The one after it; null: there is none.
    pub newer: Option<Uuid>,
}

/// A kept frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FrameDocument {
    /// Seconds since the start of the window.
    pub offset_s: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}
