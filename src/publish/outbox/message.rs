//! What goes into the outbox and what comes out of it.

use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::row::Row;
use crate::{
    camera::CameraId,
    event::{Event, EventKind},
};

/// An event to deliver, with its snapshot. It knows nothing of topics or protocols.
#[derive(Clone, Debug)]
pub struct Message {
    /// The camera that the event is about.
    pub camera: CameraId,
    /// The event's id.
    pub id: Uuid,
    /// The kind of event. An unchanged one does not become the camera's latest event.
    pub kind: EventKind,
    /// The event as JSON.
    pub event: Bytes,
    /// A frame that the model saw, as JPEG.
    pub snapshot: Option<Bytes>,
    /// What is to be remembered of the camera's alerts once the event is in the outbox.
    pub alerts: Option<Bytes>,
    /// Whether the outbox keeps the event, however soon it is delivered, until the history has confirmed it
    /// ([`Outbox::recorded`](super::Outbox::recorded)).
    pub is_recorded: bool,
}

impl Message {
    /// The message that carries `event` and, if there are any, its `snapshot` (a JPEG) and what is to be remembered of
    /// the camera's `alerts`.
    ///
    /// # Errors
    /// When the event cannot be written as JSON.
    pub fn new(
        event: &Event,
        snapshot: Option<Vec<u8>>,
        alerts: Option<Vec<u8>>,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            camera: event.camera.clone(),
            id: event.id,
            kind: event.kind,
            event: serde_json::to_vec(event)?.into(),
            snapshot: snapshot.map(Bytes::from),
            alerts: alerts.map(Bytes::from),
            is_recorded: false,
        })
    }
}

/// An event that is being delivered.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Identifies the event to [`Outbox::acknowledge`](super::Outbox::acknowledge) and
    /// [`Outbox::dead_letter`](super::Outbox::dead_letter).
    pub row: Row,
    /// The camera that the event is about.
    pub camera: CameraId,
    /// The event's id.
    pub id: Uuid,
    /// The event as JSON.
    pub event: Bytes,
    /// The event is the last description of its camera.
    pub newest: bool,
}

/// A snapshot that is not delivered yet.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Id of the event that the snapshot belongs to.
    pub id: Uuid,
    /// A frame that the model saw, as JPEG.
    pub jpeg: Bytes,
}
