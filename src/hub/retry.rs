//! When a request to the hub is tried again, and when it is given up.

use std::{thread, time::Duration};

use super::{error::HubError, progress::PullProgress};
use crate::retry::{Backoff, BackoffConfig, Jitter};

/// Time limits of a request, and how often it is tried again.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// The longest wait for a connection, and for the head of an answer.
    pub connect: Duration,
    /// The longest wait for the next byte of a file.
    pub stall: Duration,
    /// The pause before the second attempt. It doubles with each further attempt.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Attempts in a row without a new byte before the request is given up.
    pub tries: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            tries: 6,
        }
    }
}

/// Why an attempt failed.
pub enum Failure {
    /// The next attempt may succeed. `retry_after`: the seconds that the server asked to wait.
    Transient { why: String, retry_after: Option<u64> },
    /// No further attempt can succeed.
    Final(HubError),
}

impl Failure {
    /// A transient failure for which the server asked no particular wait.
    pub fn transient(why: String) -> Self {
        Self::Transient { why, retry_after: None }
    }
}

impl RetryPolicy {
    /// Calls `attempt` until it succeeds, fails for good, or has failed [`RetryPolicy::tries`] times in a
    /// row without a new byte. `what` names the request in the error. `received` returns the number of
    /// bytes that are here; each attempt that raises it starts the count of failures again.
    ///
    /// # Errors
    /// The error of the final failure, or [`HubError::Network`] when it is given up.
    pub fn run<T>(
        &self,
        what: &str,
        progress: &mut dyn FnMut(PullProgress<'_>),
        received: impl Fn() -> u64,
        mut attempt: impl FnMut(&mut dyn FnMut(PullProgress<'_>)) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut backoff = Backoff::new(BackoffConfig {
            first: self.first_pause,
            longest: self.longest_pause,
            jitter: Jitter::HALF_TO_FULL,
        });
        let (mut most, mut tries) = (received(), 0);
        loop {
            let (why, retry_after) = match attempt(progress) {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient { why, retry_after }) => (why, retry_after),
            };
            if received() > most {
                (most, tries) = (received(), 0);
                backoff.reset();
            }
            tries += 1;
            if tries >= self.tries {
                let what = format!("cannot download {what} after {tries} attempts");
                return Err(HubError::Network { what, cause: why });
            }
            let asked = Duration::from_secs(retry_after.unwrap_or(0));
            let pause = backoff.next_pause().max(asked).min(self.longest_pause);
            progress(PullProgress::Retry { why: &why, pause });
            thread::sleep(pause);
        }
    }
}
