//! The usual time between events that recur, such as frames, so that a stall can be told from a slow
//! source. Pure.

use std::{collections::VecDeque, time::Duration};

/// Remembers the latest intervals between recurring events.
///
/// The longest interval counts, not the mean: a camera that is slow at times must not be taken for a
/// dead one.
#[derive(Clone, Debug, Default)]
pub struct IntervalTracker {
    latest: VecDeque<Duration>,
}

impl IntervalTracker {
    /// How many intervals are remembered.
    const CAPACITY: usize = 24;

    /// Records the time between two consecutive events. An interval of zero is ignored.
    pub fn record(&mut self, interval: Duration) {
        if interval.is_zero() {
            return;
        }
        if self.latest.len() == Self::CAPACITY {
            self.latest.pop_front();
        }
        self.latest.push_back(interval);
    }

    /// The longest remembered interval. `None` while fewer than `min_count` are remembered.
    pub fn longest(&self, min_count: usize) -> Option<Duration> {
        self.latest.iter().max().copied().filter(|_| self.latest.len() >= min_count)
    }
}
