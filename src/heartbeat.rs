//! The heartbeat of the model's thread. The worker beats when it begins a batch and sets it idle at the end; the model
//! beats at every step in between. The watchdog and `/healthz` read for how long there was no beat, so that a stuck
//! device does not look alive.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The value of `last` while the thread waits for clips.
const IDLE: u64 = u64::MAX;

/// When the model's thread last made a step. Shared between threads.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    /// Milliseconds after `started`, or [`IDLE`].
    last: AtomicU64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { started: Instant::now(), last: AtomicU64::new(IDLE) }
    }
}

impl Heartbeat {
    /// Records a step: one layer of the network, one clip handed on.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(IDLE - 1);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Records that there is nothing to do until the next beat.
    pub fn idle(&self) {
        self.last.store(IDLE, Ordering::Relaxed);
    }

    /// The time since the last beat. Zero while idle.
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
    fn silence_is_the_time_since_the_last_beat_and_zero_while_idle() {
        let heartbeat = Heartbeat::default();
        let pause = || std::thread::sleep(Duration::from_millis(20));
        pause();
        assert_eq!(heartbeat.silence(), Duration::ZERO);
        heartbeat.beat();
        pause();
        assert!(heartbeat.silence() >= Duration::from_millis(19));
        let before = heartbeat.silence();
        heartbeat.beat();
        pause();
        heartbeat.idle();
        assert!(before > Duration::ZERO);
        assert_eq!(heartbeat.silence(), Duration::ZERO);
    }
}
