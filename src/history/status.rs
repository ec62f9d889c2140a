//! How the history is doing, and its limits.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// What the history may hold, whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long events and their frames are kept.
    pub keep: Duration,
    /// How large its file may be, bytes.
    pub max_bytes: u64,
    /// How much room it leaves on its disk, bytes: the outbox needs some.
    pub least_free: u64,
}

/// Whether it takes events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its file is being opened.
    Opening,
    /// It does.
    On,
    /// It does not for now, and tries again.
    Stopped {
        /// The reason, for people.
        why: String,
    },
}

/// How the history is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it takes events.
    pub state: State,
    /// The events that it holds.
    pub events: u64,
    /// The size of what it holds, bytes.
    pub bytes: u64,
    /// When the oldest of its events was made.
    pub oldest: Option<DateTime<Utc>>,
    /// Events that it could not take and never will, since the start.
    pub dropped_events: u64,
    /// Events whose frames it could not take, since the start.
    pub dropped_frames: u64,
}
