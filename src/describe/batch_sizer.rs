//! Finds out how many clips fit into the device's memory at once.

use std::num::NonZeroUsize;

/// How many clips to describe at once, as far as the device's memory is known.
pub struct BatchSizer {
    /// The configured maximum.
    max: NonZeroUsize,
    /// The limit found by running out of memory: halved each time, doubled after [`GROW_AFTER`] answers.
    limit: NonZeroUsize,
    /// Answers since then.
    fitted: u32,
    /// The describer's last estimate.
    estimate: NonZeroUsize,
    /// The smallest estimate that was logged.
    logged: NonZeroUsize,
}

/// After so many answers, larger ones are tried again: another process may have freed its memory.
pub const GROW_AFTER: u32 = 200;

impl BatchSizer {
    /// A sizer that knows nothing but the configured maximum.
    pub fn new(max: NonZeroUsize) -> Self {
        Self { max, limit: max, fitted: 0, estimate: max, logged: max }
    }

    /// How many clips to take out of the queue. Clips that stay in the queue can still be replaced by newer ones.
    pub fn batch_size(&self) -> NonZeroUsize {
        self.limit.min(self.estimate)
    }

    /// Learns how many requests of at most so many pictures fit at once: `running` ones, and those that there is room
    /// for beside them; None if that is unknown. One always may, since memory may become free in time.
    pub fn estimate(&mut self, running: usize, room: Option<usize>, pictures: usize) {
        let fit = room.and_then(|room| NonZeroUsize::new(running + room));
        self.estimate = if room.is_none() { self.max } else { fit.unwrap_or(NonZeroUsize::MIN) };
        if self.estimate < self.logged {
            self.logged = self.estimate;
            tracing::info!(
                "at most {} clips of {pictures} frames are described at once: there is no memory for more",
                self.estimate
            );
        }
    }

    /// Learns that so many did not fit at once. Returns whether fewer may.
    pub fn did_not_fit(&mut self, count: usize, why: &str) -> bool {
        let Some(half) = NonZeroUsize::new(count / 2) else { return false };
        (self.limit, self.fitted) = (half, 0);
        tracing::warn!(
            "the device has too little memory for {count} clips at once ({why}): at most {half} now"
        );
        true
    }

    /// Learns that a request was answered.
    pub fn fitted(&mut self) {
        self.fitted += 1;
        if self.fitted == GROW_AFTER {
            self.fitted = 0;
            self.limit = self.limit.saturating_mul(NonZeroUsize::MIN.saturating_add(1)).min(self.max);
        }
    }
}
