//! What the history asks of others: the copies that the outbox keeps for it, and which frames may be kept.

use std::sync::Arc;

use tokio_util::bytes::Bytes;
use uuid::Uuid;

use crate::camera::CameraId;

/// Returns the first events, as JSON, that are later than this one: at most so many.
pub type Waiting = Box<dyn Fn(Uuid, usize) -> Vec<(Uuid, Bytes)> + Send>;

/// Takes note of events that the history has.
pub type Recorded = Box<dyn Fn(&[Uuid]) + Send>;

/// The copies of events that the outbox keeps until the history has them.
pub struct Outboxed {
    /// Knows them.
    pub waiting: Waiting,
    /// Is told what the history has.
    pub recorded: Recorded,
    /// Whether the outbox is on disk. Otherwise it keeps no copies.
    pub is_durable: Box<dyn Fn() -> bool + Send>,
    /// How many it has forgotten, because too many waited, since the start.
    pub dropped: Box<dyn Fn() -> u64 + Send>,
}

/// What may be seen of each camera's frames: see [`View::lines`](crate::view::View::lines).
pub type MayStay = Arc<dyn Fn(&CameraId, &str) -> bool + Send + Sync>;
