//! How often something comes: what is usual, so that a pause can be told from a rhythm. Intervals
//! come in; the longest of the latest ones comes out. Pure.

use std::{collections::VecDeque, time::Duration};

/// The latest intervals between things that come again and again.
///
/// The longest counts, not the mean: a camera that is slow at times must not be taken for a dead one.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    latest: VecDeque<Duration>,
}

impl Pace {
    /// Intervals that are remembered.
    const MEMORY: usize = 24;

    /// So much time has passed between two of them. Those that came together say nothing.
    pub fn note(&mut self, interval: Duration) {
        if interval.is_zero() {
            return;
        }
        if self.latest.len() == Self::MEMORY {
            self.latest.pop_front();
        }
        self.latest.push_back(interval);
    }

    /// The longest of the latest intervals; none before there were `enough`.
    pub fn longest(&self, enough: usize) -> Option<Duration> {
        self.latest.iter().max().copied().filter(|_| self.latest.len() >= enough)
    }
}
