//! How long to wait before a live source is tried again. Pure: how long it was up comes in, a pause
//! goes out.

use std::time::Duration;

/// First and longest pause. Some cameras refuse a second connection within a second of the last.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A camera that has run for so long is well again. One that comes up and dies within it, again and
/// again, waits longer each time.
const STEADY: Duration = Duration::from_secs(60);
/// Cameras lock an account after a few wrong passwords, for half an hour at times.
pub(super) const REFUSED: Duration = Duration::from_secs(300);

/// Pauses that grow as long as a source does not run steadily.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after a failure of a source that gave pictures for `up`.
    pub fn after(&mut self, up: Duration) -> Duration {
        if up >= STEADY {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(backoff: &mut Backoff, up: u64, times: usize) -> Vec<u64> {
        (0..times).map(|_| backoff.after(Duration::from_secs(up)).as_secs()).collect()
    }

    #[test]
    fn a_camera_that_is_not_there_is_tried_less_and_less_often_but_never_given_up() {
        assert_eq!(pauses(&mut Backoff::new(), 0, 9), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn a_camera_that_flaps_is_damped_until_it_has_run_for_a_while() {
        let mut backoff = Backoff::new();
        assert_eq!(pauses(&mut backoff, 3, 5), [1, 2, 4, 8, 16]);
        assert_eq!(pauses(&mut backoff, 59, 1), [32]);
        assert_eq!(pauses(&mut backoff, 60, 3), [1, 1, 1]);
        assert_eq!(pauses(&mut backoff, 3, 2), [2, 4]);
    }
}
