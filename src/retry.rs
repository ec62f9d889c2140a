//! The backoff that every retry loop of camscribe uses: pauses that double up to a limit, with jitter.
//!
//! Written by hand because crates such as `backon` run the retried operation themselves, while each
//! caller here decides by rules of its own what counts as success and resets the pauses.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The range of the random factor that a pause is multiplied by. Without it, everything that lost the
/// same server or switch would come back at the same instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// The smallest factor.
    pub min: f64,
    /// The largest factor.
    pub max: f64,
}

impl Jitter {
    /// Half to all of the pause.
    pub const HALF_TO_FULL: Self = Self { min: 0.5, max: 1.0 };

    /// Multiplies `pause` by a random factor.
    pub fn apply(self, pause: Duration) -> Duration {
        self.scale(pause, random())
    }

    /// Multiplies `pause` by the factor at `position` in the range: 0 is `min`, 1 is `max`.
    fn scale(self, pause: Duration, position: f64) -> Duration {
        pause.mul_f64(self.min + (self.max - self.min) * position)
    }
}

/// How pauses grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffConfig {
    /// The pause after the first failure. It doubles with each further failure.
    pub first: Duration,
    /// The longest pause, before jitter.
    pub longest: Duration,
    /// The random factor.
    pub jitter: Jitter,
}

impl BackoffConfig {
    /// The pause after `failures` earlier failures in a row. `position` selects the jitter, from 0 to 1.
    fn pause(&self, failures: u32, position: f64) -> Duration {
        let pause = self.first.saturating_mul(2u32.saturating_pow(failures)).min(self.longest);
        self.jitter.scale(pause, position)
    }
}

/// Counts failures in a row and gives the pause after each.
#[derive(Clone, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    failures: u32,
}

impl Backoff {
    /// A backoff without failures yet.
    pub fn new(config: BackoffConfig) -> Self {
        Self { config, failures: 0 }
    }

    /// Counts one more failure and returns how long to wait before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.config.pause(self.failures, random());
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Forgets the failures: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number from 0 to 1. The keys of the standard hasher are random, which is enough for jitter.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_JITTER: Jitter = Jitter { min: 1.0, max: 1.0 };

    fn config(first: u64, longest: u64, jitter: Jitter) -> BackoffConfig {
        BackoffConfig { first: Duration::from_secs(first), longest: Duration::from_secs(longest), jitter }
    }

    fn any_config() -> impl Strategy<Value = BackoffConfig> {
        let jitter = (0.0..=1.0, 1.0..=2.0).prop_map(|(min, max)| Jitter { min, max });
        (1u64..100, 0u64..1000, jitter).prop_map(|(first, more, jitter)| config(first, first + more, jitter))
    }

    proptest! {
        #[test]
        fn a_pause_stays_within_the_limits(
            config in any_config(), failures in any::<u32>(), position in 0.0..=1.0,
        ) {
            let pause = config.pause(failures, position);
            let rounding = Duration::from_micros(1);
            prop_assert!(pause + rounding >= config.first.mul_f64(config.jitter.min), "{:?}", pause);
            prop_assert!(pause <= config.longest.mul_f64(config.jitter.max) + rounding, "{:?}", pause);
        }

        #[test]
        fn pauses_grow_until_the_longest(
            config in any_config(), failures in 0u32..40, position in 0.0..=1.0,
        ) {
            prop_assert!(config.pause(failures, position) <= config.pause(failures + 1, position));
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_retries_never_end() {
        let mut backoff = Backoff::new(config(1, 60, NO_JITTER));
        let pauses: Vec<_> = (0..9).map(|_| backoff.next_pause().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_reset_makes_the_next_pause_the_first_one_again() {
        let mut backoff = Backoff::new(config(1, 60, Jitter::HALF_TO_FULL));
        for _ in 0..20 {
            backoff.next_pause();
        }
        assert!(backoff.next_pause() >= Duration::from_secs(30));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_secs(1));
    }

    #[test]
    fn two_nodes_do_not_wait_for_the_same_time() {
        assert!((0..20).any(|_| random() != random()));
    }
}
