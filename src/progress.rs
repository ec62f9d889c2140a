//! Whether the model's thread gets anywhere. The thread says when it begins and ends a batch, the
//! model touches the counter at every step inside; the watchdog and `/healthz` read how long
//! nothing has moved. A stuck device must not look alive.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The thread waits for clips.
const IDLE: u64 = u64::MAX;

/// When the model's thread last made a step.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    /// Milliseconds after `started`, or [`IDLE`].
    last: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(IDLE) }
    }
}

impl Progress {
    /// A step is made: one layer of the network, one clip handed on.
    pub fn step(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(IDLE - 1);
        self.last.store(now, Ordering::Relaxed);
    }

    /// There is nothing to do until the next step.
    pub fn idle(&self) {
        self.last.store(IDLE, Ordering::Relaxed);
    }

    /// How long work has been under way without a step; zero when there is no work.
    pub fn silence(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            IDLE => Duration::ZERO,
            last => self.started.elapsed().saturating_sub(Duration::from_millis(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_without_a_step_is_silence() {
        let progress = Progress::default();
        let pause = || std::thread::sleep(Duration::from_millis(20));
        pause();
        assert_eq!(progress.silence(), Duration::ZERO);
        progress.step();
        pause();
        assert!(progress.silence() >= Duration::from_millis(19));
        let before = progress.silence();
        progress.step();
        pause();
        progress.idle();
        assert!(before > Duration::ZERO);
        assert_eq!(progress.silence(), Duration::ZERO);
    }
}
