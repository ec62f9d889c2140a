//! The limits of the outbox, and the numbers that it reports.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::camera::CameraId;

/// The largest size of the outbox, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of all events, bookkeeping included.
    pub events: u64,
    /// Of all snapshots, bookkeeping included.
    pub snapshots: u64,
}

/// Where new messages are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    Disk,
    /// In memory. They are lost if the process ends before the broker has them.
    Memory {
        /// The reason, for people.
        why: String,
    },
}

/// How full the outbox is and what it lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Events that are not acknowledged.
    pub rows: usize,
    /// Their size, bytes.
    pub bytes: u64,
    /// When the oldest of them was made.
    pub oldest: Option<DateTime<Utc>>,
    /// The size of the snapshots that are not acknowledged, bytes.
    pub snapshot_bytes: u64,
    /// Events that were dropped to make room for newer ones, by camera, since the start.
    pub dropped: BTreeMap<CameraId, u64>,
    /// Snapshots that were dropped to make room for other cameras' snapshots, by camera, since the
    /// start. A snapshot that is replaced by a newer one of its own camera is not counted.
    pub dropped_snapshots: BTreeMap<CameraId, u64>,
    /// Events that the broker refuses or that cannot be read, by camera, since the start.
    pub dead_lettered: BTreeMap<CameraId, u64>,
    /// Where new messages are stored.
    pub storage: Storage,
}
