//! When a prompt may join answers of clients that are under way. It holds them up for as long as it is read: on a CPU, seconds for
//! the frames of a clip.

use std::time::Duration;

/// Keeps those that join from holding up the answers under way for longer than these take themselves.
#[derive(Default)]
pub struct Pace {
    /// Seconds that answers were continued for, less those that they were held up, since they began.
    credit: f64,
}

impl Pace {
    /// Answers were continued for so long.
    pub fn continued(&mut self, time: Duration) {
        self.credit += time.as_secs_f64();
    }

    /// Answers were held up for so long.
    pub fn held_up(&mut self, time: Duration) {
        self.credit -= time.as_secs_f64();
    }

    /// Whether more may join `running` answers.
    pub fn lets_join(&mut self, running: usize) -> bool {
        if running == 0 {
            self.credit = 0.0;
        }
        self.credit >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_up_no_longer_than_they_take_and_once_more() {
        let (step, prompt) = (Duration::from_micros(62_500), Duration::from_millis(500));
        let (mut pace, mut steps, mut joined) = (Pace::default(), 0, 0);
        while steps < 80 {
            if pace.lets_join(3) {
                pace.held_up(prompt);
                joined += 1;
            } else {
                pace.continued(step);
                steps += 1;
            }
        }
        assert_eq!(joined, 10);
        pace.held_up(prompt);
        assert!(pace.lets_join(0), "nobody is held up");
    }
}
