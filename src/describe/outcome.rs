//! What the worker takes and hands out.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use crate::{
    answer::{DescribeError, Description},
    clip::Clip,
};

/// How clips and requests are answered together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Most of them at once. On a CPU only one clip, unless more pay.
    pub max_batch: NonZeroUsize,
    /// How long an incomplete batch waits for more before it begins.
    pub linger: Duration,
    /// The part of the model's time that requests of clients have while clips of cameras wait: 0 to 1.
    pub client_share: f64,
}

/// A clip's time in the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueTiming {
    /// When it was pushed.
    pub queued_at: Instant,
    /// How long it waited.
    pub queued: Duration,
    /// Clips of its camera that were dropped before it, since the last one that left the queue.
    pub dropped_before: u64,
}

/// What became of a clip.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The model described it.
    Described(Description),
    /// Nothing has changed since the last described clip of its camera, so the model was not asked.
    Unchanged,
}

/// A clip that the worker is done with.
#[derive(Debug)]
pub struct Outcome {
    /// The clip.
    pub clip: Clip,
    /// Its time in the queue.
    pub timing: QueueTiming,
    /// What became of it, or why it was not described.
    pub answer: Result<Answer, DescribeError>,
}
