//! How long to wait before the broker is tried again: longer each time, up to a minute, and never
//! quite the same, so that a hundred nodes do not return to a restarted broker at one instant.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Counts failed attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub fn next(&mut self) -> Duration {
        let pause = pause(self.failures, random());
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Half to all of what the number of failures asks for; `roll` from 0 to 1 says where between.
fn pause(failures: u32, roll: f64) -> Duration {
    let whole = FIRST.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST);
    whole.mul_f64(0.5 + roll / 2.0)
}

/// From 0 to 1. The hasher's keys are random, which is all the chance that is needed here.
fn random() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_is_never_longer_than_the_longest_nor_shorter_than_half_the_first(
            failures in any::<u32>(), roll in 0.0..=1.0,
        ) {
            let pause = pause(failures, roll);
            prop_assert!(pause >= FIRST / 2 && pause <= LONGEST, "{:?}", pause);
        }

        #[test]
        fn pauses_grow_until_the_longest(failures in 0u32..40, roll in 0.0..=1.0) {
            prop_assert!(pause(failures, roll) <= pause(failures + 1, roll));
        }
    }

    #[test]
    fn something_that_worked_makes_the_next_pause_short_again() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next();
        }
        assert!(backoff.next() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        assert!((0..20).any(|_| random() != random()));
    }
}
