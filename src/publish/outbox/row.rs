//! Rows of the outbox's two tables, in memory and on disk.

use tokio_util::bytes::Bytes;
use uuid::Uuid;

use crate::camera::CameraId;

/// What a row costs beside its payload, bytes: an estimate of the ids, the index and the page's slack.
pub(super) const ROW_OVERHEAD: u64 = 256;

/// Identifies a message in the outbox. Later messages have greater rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub(super) i64);

impl Row {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(i64::MAX);

    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One of the two first-in-first-out tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Events,
    Snapshots,
}

impl Table {
    /// The table's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Snapshots => "snapshots",
        }
    }
}

/// Identifies a payload. A snapshot has the row of its event.
pub(super) type Key = (Table, Row);

/// The content of a row.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub camera: CameraId,
    /// The event's id, for a snapshot too.
    pub id: Uuid,
    /// The event, or the event that the snapshot belongs to, is a description.
    pub description: bool,
    pub payload: Bytes,
    /// The history is to confirm the event.
    pub is_recorded: bool,
}

/// The bytes that a payload of `payload` bytes counts as against the limits.
pub(super) fn cost(payload: usize) -> u64 {
    ROW_OVERHEAD + payload as u64
}
